"""What an accelerated network takes in memory, against the dense model, each in its own process.

    python bench/memory.py resnet50 0.1

Every process imports the same, reads its network from a file and runs it five times on one
image. `idle` has read nothing. Peaks are the kernel's own (VmHWM); they count what loading takes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from runtime import NETWORKS, pruned

from secateurs.realise.sparse import Accelerated, accelerate, load_accelerated

RUNS = 5


def resident() -> dict[str, int]:
    """Return this process's memory now and at its peak, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {
        name: int(found[key].split()[0]) >> 10
        for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))
    }


def parts(fast: Accelerated) -> dict[str, float]:
    """Return what the engine holds, in MB."""
    engine = fast.engine
    tensors = [t for t in engine.constants.values() if isinstance(t, torch.Tensor)]
    return {
        "entries": sum(e.bytes for e in engine.encoded.values()) / 1e6,
        "activations": engine.assembly.size * 4 / 1e6,
        "program": sum(t.numel() * t.element_size() for t in tensors) / 1e6,
    }


def child(what: str, file: str, network: str) -> None:
    """Read a network, run it, and say what that took."""
    torch.set_num_threads(1)
    build, shape = NETWORKS[network]
    told: dict[str, object] = {}
    if what != "idle":
        if what == "dense":
            with torch.device("meta"):
                model = build()
            model.load_state_dict(torch.load(file, mmap=True), assign=True)
            model.eval()
        else:
            model = load_accelerated(file)
            told = parts(model)
        x = torch.zeros(1, *shape)
        with torch.no_grad():
            for _ in range(RUNS):
                model(x)
    print(json.dumps({**resident(), **told}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("density", type=float)
    parser.add_argument("--pattern", default="element")
    parser.add_argument("--weights", default="float32")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.network)
        return
    torch.manual_seed(0)
    build, shape = NETWORKS[options.network]
    model = pruned(build(), options.pattern, options.density)
    with tempfile.TemporaryDirectory() as folder:
        files = {"idle": "", "dense": f"{folder}/dense.pt", "accelerated": f"{folder}/fast.secz"}
        torch.save(model.state_dict(), files["dense"])
        fast = accelerate(
            model, torch.zeros(1, *shape), threads=1, rounds=0, weights=options.weights
        )
        fast.save(files["accelerated"])
        for what, file in files.items():
            words = [options.network, str(options.density), "--child", what, file]
            done = subprocess.run(
                [sys.executable, __file__, *words], capture_output=True, text=True
            )
            print(
                f"{what:12}", done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr
            )


if __name__ == "__main__":
    main()
