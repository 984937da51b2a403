"""The grains by name, for the command line and the law tests."""

from functools import partial
from typing import Protocol

from torch import nn

from secateurs.core.site import Site
from secateurs.granularity.grains import (
    blocks,
    columns,
    elements,
    fibres,
    in_channels,
    kernels,
    out_channels,
    pools,
    rows,
    strided,
    vectors,
)
from secateurs.granularity.patterns import Patterns


class Granularity(Protocol):
    """A function from a model to the sites of one grain, by parameter name."""

    def __call__(
        self, model: nn.Module, *, include: Patterns = None, exclude: Patterns = None
    ) -> dict[str, Site]:
        """Cut the weights that the patterns choose."""


GRANULARITIES: dict[str, Granularity] = {
    "element": elements,
    "row": rows,
    "column": columns,
    "kernel": kernels,
    "out_channel": out_channels,
    "filter": out_channels,
    "in_channel": in_channels,
    "fibre": fibres,
    "vector4": partial(vectors, size=4),
    "block4x4": partial(blocks, shape=(4, 4)),
    "pool4": partial(pools, among=4),
    "strided2": partial(strided, stride=2),
}
