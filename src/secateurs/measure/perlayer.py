"""What is left of every layer."""

from dataclasses import dataclass

import torch
from torch import nn

from secateurs.core.errors import StructureError
from secateurs.core.layers import layers
from secateurs.measure.size import effective


@dataclass(frozen=True)
class LayerRow:
    """One layer's weight and bias, as the forward pass sees them."""

    model: str
    """Label of the row it belongs to."""
    name: str
    shape: tuple[int, ...]
    weights: int
    nonzeros: int
    biases: int
    nonzero_biases: int
    units: int
    """Output channels or neurons."""
    dead_units: int
    """Those whose weights are all zero."""

    @property
    def density(self) -> float:
        """Fraction of the weights that are not zero, 0 to 1."""
        return self.nonzeros / self.weights if self.weights else 1.0

    @property
    def density_with_biases(self) -> float:
        """The same of weights and biases together."""
        total = self.weights + self.biases
        return (self.nonzeros + self.nonzero_biases) / total if total else 1.0


def layer_rows(model: nn.Module, label: str) -> tuple[LayerRow, ...]:
    """Return what is left of every linear and convolution layer of a model.

    A model without such modules, such as a traced program, gives one row for each of its
    parameters that has two axes or more. Convolutions that became thinner products come last,
    as (outputs, columns of all groups).
    """
    values = dict(effective(model))
    try:
        known = {name: layer.out_axis for name, layer in layers(model).items()}
    except StructureError:
        known = {}
    thin = _thin_rows(model, label)
    known = known or {n: 0 for n, v in values.items() if v.ndim >= 2 and not thin}
    rows = []
    for name, axis in known.items():
        if name not in values:
            continue
        alive = values[name] != 0
        bias = values.get(f"{name.removesuffix('weight')}bias") if "weight" in name else None
        units = alive.transpose(0, axis).flatten(1).any(dim=1)
        rows.append(
            LayerRow(
                model=label,
                name=name,
                shape=tuple(alive.shape),
                weights=alive.numel(),
                nonzeros=int(alive.sum()),
                biases=0 if bias is None else bias.numel(),
                nonzero_biases=0 if bias is None else int(torch.count_nonzero(bias)),
                units=units.numel(),
                dead_units=int((~units).sum()),
            )
        )
    return (*rows, *thin)


def _thin_rows(model: nn.Module, label: str) -> list[LayerRow]:
    """Row up the layers that hold a list of narrower matrices, one a group, for a weight."""
    rows = []
    for path, module in model.named_modules():
        parts = getattr(module, "weight", None)
        if not isinstance(parts, nn.ParameterList):
            continue
        bias = getattr(module, "bias", None)
        biases = [] if bias is None else [bias]
        rows.append(
            LayerRow(
                model=label,
                name=f"{path}.weight" if path else "weight",
                shape=(sum(len(w) for w in parts), sum(w.shape[1] for w in parts)),
                weights=sum(w.numel() for w in parts),
                nonzeros=sum(int(torch.count_nonzero(w)) for w in parts),
                biases=sum(b.numel() for b in biases),
                nonzero_biases=sum(int(torch.count_nonzero(b)) for b in biases),
                units=sum(len(w) for w in parts),
                dead_units=sum(int((~(w != 0).any(dim=1)).sum()) for w in parts),
            )
        )
    return rows
