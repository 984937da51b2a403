"""Feature maps: what each channel shows of an image, after the activation function."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateurs.core.errors import EvidenceError
from secateurs.core.example import Batch, Example
from secateurs.core.finite import check_finite
from secateurs.evidence.batches import evaluating
from secateurs.evidence.interpret import Program, operation, portions, units_of
from secateurs.graph.graph import Graph

Statistic = Callable[[Tensor], Tensor]
"""Maps (samples, channels, height, width) → (samples, channels)."""

ACTIVATIONS = {
    f"aten.{name}"
    for name in ("relu", "relu6", "hardtanh", "gelu", "silu", "hardswish", "leaky_relu", "elu",
                 "selu", "celu", "mish", "softplus", "sigmoid", "tanh", "prelu")
}  # fmt: skip


def map_statistics(
    graph: Graph,
    model: nn.Module,
    example: Example,
    batches: Iterable[Batch],
    statistic: Statistic,
    buckets: Iterable[str] | None = None,
) -> dict[str, Tensor]:
    """Mean of a statistic of each unit's feature maps over samples: bucket → (units,), float64.

    Maps are taken where an activation function returns them; a channel of a residual stream
    has several and gets their mean. Of a bucket that passes no activation function the maps
    of its convolutions are taken. `buckets` names those to measure, all when None.

    Raises:
        EvidenceError: there are no batches, or a bucket has no feature maps.
        PruneError: feature maps are not finite.
    """
    sums = {kind: _Sums(graph) for kind in ("activation", "convolution")}

    def visit(node: fx.Node, result: Any) -> Any:
        kind = _kind(node)
        held = units_of(graph, node) if kind else None
        if held is not None and held[0] == 1 and isinstance(result, Tensor) and result.dim() == 4:
            check_finite(f"feature maps of {node.name}", result)
            sums[kind].add(held[1], statistic(result))
        return result

    program = Program(graph, model, visit=visit)
    with evaluating(model), torch.no_grad():
        for inputs in portions(batches, example):
            program.call(inputs)
    found = {}
    for name in graph.buckets if buckets is None else buckets:
        ids = graph.buckets[name].ids
        after = sums["activation"].mean(ids)
        found[name] = sums["convolution"].mean(ids) if after is None else after
    missing = [name for name, values in found.items() if values is None]
    if missing:
        raise EvidenceError(
            f"no feature maps, (batch, channels, height, width), of {', '.join(missing)}; "
            "leave these out with exclude, or use a method that reads weights"
        )
    device = next(model.parameters()).device
    return {name: values.to(device) for name, values in found.items() if values is not None}


class _Sums:
    """Sums and counts by unit."""

    def __init__(self, graph: Graph) -> None:
        self.total = torch.zeros(graph.units, dtype=torch.float64)
        self.count = torch.zeros(graph.units, dtype=torch.float64)

    def add(self, units: Tensor, values: Tensor) -> None:
        """Add what each sample shows of each channel, (samples, channels)."""
        some = units >= 0
        each = values.double().cpu()[:, some]
        self.total.index_add_(0, units[some], each.sum(dim=0))
        counts = torch.full((each.shape[1],), len(each), dtype=torch.float64)
        self.count.index_add_(0, units[some], counts)

    def mean(self, ids: Tensor) -> Tensor | None:
        """Return the means of some units, None where one was never seen."""
        seen = self.count[ids]
        return self.total[ids] / seen if bool((seen > 0).all()) else None


def _kind(node: fx.Node) -> str:
    if node.op != "call_function":
        return ""
    name = operation(node)
    return "activation" if name in ACTIVATIONS else "convolution" if "conv" in name else ""


def ranks(maps: Tensor) -> Tensor:
    """The rank of each map as a matrix, (samples, channels).

    >>> ranks(torch.stack([torch.eye(3), torch.ones(3, 3)])[None])
    tensor([[3, 1]])

    Source: Lin et al. 2020, arXiv:2002.10179, eq. 4.
    """
    found: Tensor = torch.linalg.matrix_rank(maps.float())
    return found


def independence(maps: Tensor) -> Tensor:
    """How much the nuclear norm of all maps falls without each one, (samples, channels).

    A map that the others can be mixed to give changes it least.

    Source: Sui et al. 2021, arXiv:2110.13981, eq. 3; rows are the channels' maps, flattened.
    The singular values of a matrix without a row are taken from its Gram matrix.
    """
    rows = maps.flatten(2).double()
    gram = rows @ rows.transpose(1, 2)
    whole = _nuclear(gram)
    channels = rows.shape[1]
    falls = []
    for i in range(channels):
        others = torch.arange(channels, device=maps.device) != i
        falls.append(whole - _nuclear(gram[:, others][:, :, others]))
    return torch.stack(falls, dim=1)


def _nuclear(gram: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum(dim=-1)
    return norms
