"""What secateurs itself costs, beside torch.nn.utils.prune and Torch-Pruning, in one run.

    python bench/speed.py
    python bench/speed.py --model resnet50 --image 224 --rounds 5

Each pair does the same work on the same model in turns, A B A B ..., and the ratio is taken
round by round. Less than 1 means secateurs took less time. Torch-Pruning is installed for
this benchmark only (`pip install 'secateurs[bench]'`).
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from secateurs.budget.ranked import ranked_together
from secateurs.budget.uniform import uniform
from secateurs.core.cut import score, select
from secateurs.criteria.magnitude import l1, l2
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import channels
from secateurs.granularity.grains import elements
from secateurs.graph.trace import trace
from secateurs.measure.table import aligned
from secateurs.realise.compact import compact
from secateurs.realise.masked import masked

Way = Callable[[], object]


def layers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(m, "weight") for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def cut_ours(model: nn.Module) -> Way:
    def cut() -> object:
        sites = elements(model)
        scores = score(sites, l1, weight=weights(model))
        return select(sites, scores, ranked_together(sites, scores, 0.1))

    return cut


def cut_torch(model: nn.Module) -> Way:
    def cut() -> object:
        own = copy.deepcopy(model)
        torch_prune.global_unstructured(layers(own), torch_prune.L1Unstructured, amount=0.9)
        return own

    return cut


def held_ours(model: nn.Module, x: Tensor) -> tuple[Way, Way]:
    """Return one masked step of each library: forward, backward."""
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    sites = elements(ours)
    scores = score(sites, l1, weight=weights(ours))
    mask = select(sites, scores, uniform(sites, 0.1))
    context = masked(ours, mask)
    context.__enter__()
    for module, name in layers(theirs):
        torch_prune.l1_unstructured(module, name, amount=0.9)

    def step(net: nn.Module) -> Way:
        def run() -> object:
            net.zero_grad()
            return net(x).sum().backward()

        return run

    return step(ours), step(theirs)


def remove_ours(model: nn.Module, x: Tensor) -> Way:
    def remove() -> object:
        graph = trace(model, x)
        sites = channels(graph)
        scores = score(sites, l2, weight=weights(model))
        return compact(model, graph, select(sites, scores, uniform(sites, 0.5)), x).model

    return remove


def remove_theirs(model: nn.Module, x: Tensor) -> Way:
    import torch_pruning as tp

    def remove() -> object:
        own = copy.deepcopy(model)
        heads = [m for m in own.modules() if isinstance(m, nn.Linear)]
        pruner = tp.pruner.BasePruner(
            own,
            x,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=heads,
        )
        pruner.step()
        return own

    return remove


def plan_ours(model: nn.Module, x: Tensor) -> Way:
    return lambda: trace(model, x)


def plan_theirs(model: nn.Module, x: Tensor) -> Way:
    import torch_pruning as tp

    return lambda: tp.DependencyGraph().build_dependency(model, example_inputs=x)


def timed(way: Way) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def row(what: str, ours: Way, other: str, theirs: Way, rounds: int) -> tuple[str, ...]:
    """Time two ways in turns, after one untimed round."""
    timed(ours), timed(theirs)
    pairs = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return what, other, f"{a:.3f} s", f"{b:.3f} s", spread


def main() -> None:
    import torchvision

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18", help="a torchvision model")
    parser.add_argument("--image", type=int, default=64, help="side of its input")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = getattr(torchvision.models, args.model)(weights=None).eval()
    x = torch.randn(2, 3, args.image, args.image)
    ours, theirs = held_ours(model, x)
    prune, peer, n = "torch prune", "Torch-Pruning", args.rounds
    lines = [
        ("work", "beside", "secateurs", "other", "ratio: median (range)"),
        row("global magnitude cut to 10 %", cut_ours(model), prune, cut_torch(model), n),
        row("masked forward and backward", ours, prune, theirs, n),
        row("find coupled channels", plan_ours(model, x), peer, plan_theirs(model, x), n),
        row(
            "remove half of the channels, proved (ours)",
            remove_ours(model, x),
            peer,
            remove_theirs(model, x),
            n,
        ),
    ]
    print(f"{args.model} at {args.image} pixels, {args.threads} threads, {n} rounds in turns")
    print(aligned(lines))


if __name__ == "__main__":
    main()
