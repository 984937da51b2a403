"""Commands that look and touch nothing."""

import inspect as python
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import torch
import typer
from torch import Tensor, nn

from secateurs.cli import show
from secateurs.cli.words import MultipleOf, target_of
from secateurs.core.cut import score
from secateurs.core.errors import ShapeError
from secateurs.core.layers import layers
from secateurs.criteria.magnitude import l2
from secateurs.evidence.weights import weights
from secateurs.graph.cost import predict
from secateurs.graph.graph import Graph
from secateurs.graph.trace import trace
from secateurs.measure.compute import macs_by_layer
from secateurs.measure.human import count, size
from secateurs.measure.size import parameters
from secateurs.methods.denil_redundancy import redundancy
from secateurs.methods.table import METHODS, method, options_of
from secateurs.methods.where import REMOVED, quota, where
from secateurs.models.create import create, input_shape
from secateurs.realise.plan import plan as make_plan
from secateurs.realise.plan import save_plan
from secateurs.realise.state import load_state

IMAGES = 2
"""Images in the example: of one alone, batch norms in training mode cannot be traced."""

Model = Annotated[
    str,
    typer.Argument(
        help="lenet5, resnet56, ... ; torchvision:NAME, timm:NAME or package.module:factory."
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        "--input", help="One input's shape, 3,224,224; the model's usual one if left out."
    ),
]
Classes = Annotated[int | None, typer.Option(min=1, help="Outputs, where they can vary.")]


def inspect(
    model: Model,
    input: Shape = None,
    classes: Classes = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Trained weights: .safetensors, or a .pt state dict.")
    ] = None,
    with_redundancy: Annotated[
        bool,
        typer.Option("--redundancy", help="Also say how predictable each layer's weights are."),
    ] = False,
) -> None:
    """List a model's layers and what of it can be removed, what cannot, and why.

    Example: `secateurs inspect torchvision:resnet18 --input 3,64,64`
    """
    net = create(model, classes=classes).eval()
    if checkpoint is not None:
        load_state(net, checkpoint)
    example = _example(model, input)
    _layers(net, example)
    if with_redundancy:
        _redundancy(net)
    with show.waiting(f"tracing {model}"):
        graph = trace(net, example)
    _buckets(graph)
    _frozen(graph)


def plan(
    model: Model,
    density: Annotated[float | None, typer.Option(help="Fraction of units to keep.")] = None,
    macs: Annotated[float | None, typer.Option(help="Fraction of MACs to keep.")] = None,
    params: Annotated[float | None, typer.Option(help="Fraction of parameters to keep.")] = None,
    multiple_of: MultipleOf = 1,
    out: Annotated[Path | None, typer.Option(help="Write the plan as JSON, to be edited.")] = None,
    input: Shape = None,
    classes: Classes = None,
) -> None:
    """Say what would be cut where, and what would be left, before anything is touched.

    Channels are ranked by their weights, which are untrained here: the counts are a plan,
    not yet a choice. `secateurs prune MODEL --plan FILE` carries it out.

    Example: `secateurs plan resnet20 --macs 0.5 --out plan.json`
    """
    target = target_of(density, macs, params, multiple_of)
    net = create(model, classes=classes).eval()
    with show.waiting(f"tracing {model}"):
        place = where(net, _example(model, input), REMOVED)
    assert place.graph is not None
    scores = score(place.sites, l2, weight=weights(net))
    counts = quota(place, scores, target, "uniform")
    keep = {name: counts[name] / site.units for name, site in place.sites.items()}
    found = make_plan(net, place.graph, density=keep)
    lines = [
        (x.bucket, f"{x.keep} of {x.units}", x.kind, _together([a.split()[0] for a in x.axes[1:]]))
        for x in found.lines
    ]
    show.table(("coupled units", "keep", "kind", "together with"), lines)
    now, then = found.dense, found.predicted
    costs = [
        ("parameters", count(now.parameters), count(then.parameters)),
        ("MACs per image", count(now.macs / IMAGES), count(then.macs / IMAGES)),
        ("bytes", size(now.bytes), size(then.bytes)),
    ]
    show.table(("cost, from shapes", "now", "then"), costs)
    if out is not None:
        save_plan(found, out)
        show.out.print(f"Plan: {out}", highlight=False)


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, to read all of it.")] = None,
) -> None:
    """List the methods, or show one with its paper and options.

    Example: `secateurs methods magnitude`
    """
    if name is None:
        lines = [(n, (m.__doc__ or "").strip().splitlines()[0]) for n, m in METHODS.items()]
        show.table(("method", "what it does"), lines)
        return
    chosen = method(name, {})
    show.out.print(python.getdoc(chosen) or "", markup=False, highlight=False)
    options = [
        (option, str(p.default), _kind(p.annotation)) for option, p in options_of(chosen).items()
    ]
    show.table(("option", "default", "type"), options, title="Options: -o NAME=VALUE")


def _kind(annotation: Any) -> str:
    """Show the type of an option, and the range of a number."""
    if get_origin(annotation) is not Annotated:
        return python.formatannotation(annotation)
    base, *ranges = get_args(annotation)
    return ", ".join([python.formatannotation(base), *map(str, ranges)])


def _example(model: str, shape: str | None) -> Tensor:
    if shape is None:
        sizes = input_shape(model)
    else:
        try:
            sizes = tuple(int(word) for word in shape.split(","))
        except ValueError:
            sizes = ()
        if not sizes or min(sizes) < 1:
            raise ShapeError(f"--input {shape!r} is not a shape; write for example 3,224,224")
    return torch.randn(IMAGES, *sizes, generator=torch.Generator().manual_seed(0))


def _layers(net: nn.Module, example: Tensor) -> None:
    work = macs_by_layer(net, example[:1])
    lines = []
    for name, layer in layers(net).items():
        path = name.rpartition(".")[0]
        module = net.get_submodule(path)
        own = sum(p.numel() for p in module.parameters(recurse=False))
        shape = " x ".join(map(str, layer.shape))
        lines.append((name, type(module).__name__, shape, count(own), count(work.get(path))))
    total = f"{count(parameters(net))} parameters, {count(sum(work.values()))} MACs per image"
    show.table(("weight", "layer", "shape", "parameters", "MACs"), lines, title=total)


def _redundancy(net: nn.Module) -> None:
    found = redundancy(net)
    lines = [(name, f"{100 * r.predicted:.0f} %") for name, r in found.items()]
    share = 100 * next(iter(found.values())).fraction if found else 25
    title = f"How much of the hidden weights follows from {share:.0f} % of them (random: 0 %)"
    show.table(("weight", "predicted"), lines, title=title)


def _buckets(graph: Graph) -> None:
    lines = []
    whole = predict(graph, {}).parameters
    for name, bucket in graph.buckets.items():
        keep = torch.zeros(bucket.ids.numel(), dtype=torch.bool)
        share = 1 - predict(graph, {name: keep}).parameters / whole
        pools = f", equal in every {bucket.among}" if bucket.among else ""
        coupled = _together([s.param for s in bucket.slices[1:]])
        lines.append((name, f"{bucket.ids.numel()}{pools}", f"{100 * share:.1f} %", coupled))
    show.table(
        ("can be removed", "units", "parameters", "together with"),
        lines,
        title=f"{len(lines)} places to remove coupled units",
    )


def _together(params: list[str], most: int = 4) -> str:
    """Name the layers that parameters belong to, the first few of them."""
    layers = list(dict.fromkeys(p.rpartition(".")[0] or p for p in params))
    more = f" and {len(layers) - most} more" if len(layers) > most else ""
    return ", ".join(layers[:most]) + more


def _frozen(graph: Graph) -> None:
    lines = [
        (f"{f.param}:{f.dim}", f"{f.count}", f.reason + (f" ({f.node})" if f.node else ""))
        for f in graph.frozen
    ]
    if lines:
        show.table(("stays", "positions", "because"), lines)
