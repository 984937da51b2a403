"""Time and memory of cutting large networks to half their MACs, one process a method.

    python bench/channels_scale.py

ResNet-50 by the methods that need no data, tracing and proof included; VGG-16's convolutions,
but for the last three and what reads them, by the LASSO. On one thread, untrained weights.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
import torchvision

from secateurs.methods.table import METHODS
from secateurs.methods.task import Target, Task

CHANNELS = {"granularity": "out_channel"}
DATA_FREE = {
    "magnitude": CHANNELS,
    "random": CHANNELS,
    "fpgm": {},
    "nisp": {"final": "outputs"},
    "depgraph": {},
    "slimming": {},
    "uniform_width": {},
}
LAST = (*tuple(f"features.{i}" for i in (24, 26, 28)), "classifier.0", "classifier.3")


def cut(name: str) -> str:
    """Cut once in this process and say what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.zeros(1, 3, 224, 224)
    lasso = name == "lasso_channels"
    model = (torchvision.models.vgg16 if lasso else torchvision.models.resnet50)(weights=None)
    images = torch.randn(2, 8, 3, 224, 224) if lasso else None
    batches = None if images is None else lambda: [(some, None) for some in images]
    task = Task(model.eval(), x, repair="none", batches=batches)
    options = {"exclude": LAST} if lasso else DATA_FREE[name]
    start = time.perf_counter()
    METHODS[name](task, Target("density" if lasso else "macs", 0.5), **options)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{name:<16}{seconds:>8.1f} s{peak:>8.2f} GiB at most, torch and weights included"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[*DATA_FREE, "lasso_channels"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(cut(args.child))
        return
    for name in args.only:
        subprocess.run([sys.executable, __file__, "--child", name], check=True)


if __name__ == "__main__":
    main()
