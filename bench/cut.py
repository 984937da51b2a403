"""Time and memory of one global magnitude cut, beside torch.nn.utils.prune.

    python bench/cut.py
    python bench/cut.py --repeat 5 --density 0.1 --threads 2

Every measurement is a fresh process, and the two ways take turns. Time is from the weights to
the masks: scoring, ranking all weights together, and marking. Memory is the most the process
held above what it held before the cut, over the memory of the weights.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

NETS = ("alexnet", "resnet152")
"""Both of 60 million weights: 38 million of them in one layer, and none above 2.4 million."""


def secateurs_cut(model: nn.Module, density: float) -> int:
    """Mask a model's weights by global magnitude; return how many stay."""
    from secateurs.budget.ranked import ranked_together
    from secateurs.core.cut import score, select
    from secateurs.criteria.magnitude import l1
    from secateurs.evidence.weights import weights
    from secateurs.granularity.grains import elements

    sites = elements(model)
    scores = score(sites, l1, weight=weights(model))
    return select(sites, scores, ranked_together(sites, scores, density)).kept


def torch_cut(model: nn.Module, density: float) -> int:
    """Do the same with torch's own pruning, which also attaches the masks to the model."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    pairs = [(m, "weight") for m in layers]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=1 - density)
    return sum(int(m.weight_mask.sum()) for m in layers)


WAYS: dict[str, Callable[[nn.Module, float], int]] = {
    "secateurs": secateurs_cut,
    "torch prune": torch_cut,
}


def resident() -> int:
    """Return the bytes of memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Peak:
    """The most memory held inside the block, sampled every half millisecond."""

    def __enter__(self) -> "Peak":
        self.before = self.most = resident()
        self.running = True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()

    def _watch(self) -> None:
        while self.running:
            self.most = max(self.most, resident())
            time.sleep(5e-4)


def measure(way: str, net: str, density: float, threads: int) -> dict[str, float]:
    """Cut one network once in this process."""
    import torchvision

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = getattr(torchvision.models, net)(weights=None)
    pruned = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    held = sum(p.numel() * p.element_size() for p in pruned)
    WAYS[way](nn.Linear(8, 8), density)  # Imports and first calls are not the cut.
    with Peak() as memory:
        start = time.perf_counter()
        kept = WAYS[way](model, density)
        seconds = time.perf_counter() - start
    total = sum(p.numel() for p in pruned)
    return {
        "seconds": seconds,
        "memory": (memory.most - memory.before) / held,
        "total": total,
        "kept": kept,
    }


def child(way: str, net: str, density: float, threads: int) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--child", way, "--nets", net]
    command += ["--density", str(density), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[tuple[str, str], list[dict[str, float]]], threads: int) -> str:
    """Lay the medians and their spread out as a table."""
    lines = [
        f"{threads} threads, {len(next(iter(results.values())))} runs each, median (least to most)",
        f"{'network':<12}{'way':<14}{'weights':>12}{'kept':>12}{'seconds':>24}{'memory':>10}",
    ]
    for (net, way), runs in results.items():
        seconds = sorted(run["seconds"] for run in runs)
        spread = f"{statistics.median(seconds):.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f})"
        memory = max(run["memory"] for run in runs)
        total, kept = int(runs[0]["total"]), int(runs[0]["kept"])
        lines.append(f"{net:<12}{way:<14}{total:>12,}{kept:>12,}{spread:>24}{memory:>9.2f}x")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(NETS), help="torchvision models")
    parser.add_argument("--density", type=float, default=0.1, help="fraction of weights kept")
    parser.add_argument("--repeat", type=int, default=3, help="processes per way and network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.nets[0], args.density, args.threads)))
        return
    keys = [(net, way) for net in args.nets for way in WAYS]
    results: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in keys}
    for _ in range(args.repeat):
        for net, way in keys:
            results[net, way].append(child(way, net, args.density, args.threads))
    print(table(results, args.threads))


if __name__ == "__main__":
    main()
