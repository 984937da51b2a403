"""The size fields of torch's own layers, read back from the shapes of their parameters."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Fields = dict[str, Any]


def leaf_fields(module: nn.Module, grouped: Tensor | None) -> Fields:
    """Say what the size fields of one of torch's layers must be, given its new parameters.

    Args:
        module: the layer, holding its small parameters but its old fields.
        grouped: kept inputs per group, bool (groups, n), when the axes say so.

    Returns:
        Attribute → value, for the fields this class has; empty for any other class.
    """
    for kind, fields in _FIELDS.items():
        if isinstance(module, kind):
            return fields(module, grouped)
    return {}


def knows(module: nn.Module) -> bool:
    """Tell whether a module's size fields are all read from its own parameters."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    return isinstance(module, tuple(_FIELDS)) and any(True for _ in module.parameters())


def _conv(m: Any, grouped: Tensor | None) -> Fields:
    if grouped is not None:
        groups = int(grouped.any(dim=1).sum())
    elif m.groups > 1 and m.groups == m.in_channels:
        # A depthwise weight has one input per group: the groups go with axis 0.
        outs = m.in_channels if isinstance(m, _ConvTransposeNd) else m.out_channels
        groups = m.groups * m.weight.shape[0] // outs
    else:
        groups = m.groups
    first, second = m.weight.shape[0], m.weight.shape[1] * groups
    if isinstance(m, _ConvTransposeNd):
        return {"in_channels": first, "out_channels": second, "groups": groups}
    return {"out_channels": first, "in_channels": second, "groups": groups}


def _linear(m: Any, grouped: Tensor | None) -> Fields:
    return {"out_features": m.weight.shape[0], "in_features": m.weight.shape[1]}


def _bilinear(m: Any, grouped: Tensor | None) -> Fields:
    out, first, second = m.weight.shape
    return {"out_features": out, "in1_features": first, "in2_features": second}


def _embedding(m: Any, grouped: Tensor | None) -> Fields:
    return {"num_embeddings": m.weight.shape[0], "embedding_dim": m.weight.shape[1]}


def _batch_norm(m: Any, grouped: Tensor | None) -> Fields:
    given = m.weight if m.weight is not None else m.running_mean
    return {} if given is None else {"num_features": given.shape[0]}


def _shape_norm(m: Any, grouped: Tensor | None) -> Fields:
    return {} if m.weight is None else {"normalized_shape": tuple(m.weight.shape)}


def _group_norm(m: Any, grouped: Tensor | None) -> Fields:
    return {} if m.weight is None else {"num_channels": m.weight.shape[0]}


def _prelu(m: Any, grouped: Tensor | None) -> Fields:
    return {"num_parameters": m.weight.shape[0]}


_FIELDS: dict[type[nn.Module], Callable[[Any, Tensor | None], Fields]] = {
    _ConvNd: _conv,
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    _NormBase: _batch_norm,
    nn.LayerNorm: _shape_norm,
    nn.RMSNorm: _shape_norm,
    nn.GroupNorm: _group_norm,
    nn.PReLU: _prelu,
}
