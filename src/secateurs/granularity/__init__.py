"""Where may we cut? Functions from a model, or its graph, to sites: sets of units.

A linear layer counts as a convolution without kernel axes, a transposed convolution by
what its axes mean, and a grouped convolution group by group.
"""

from secateurs.granularity.blocks import Blocks
from secateurs.granularity.coupled import Coupled, channels, isomorphic
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
from secateurs.granularity.strided import Strided
from secateurs.granularity.table import GRANULARITIES, Granularity

__all__ = [
    "GRANULARITIES",
    "Blocks",
    "Coupled",
    "Granularity",
    "Patterns",
    "Strided",
    "blocks",
    "channels",
    "columns",
    "elements",
    "fibres",
    "in_channels",
    "isomorphic",
    "kernels",
    "out_channels",
    "pools",
    "rows",
    "strided",
    "vectors",
]
