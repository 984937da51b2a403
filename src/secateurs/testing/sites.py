"""Sites made up, for trying a budget on."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator

from secateurs.core.site import Scores
from secateurs.granularity.blocks import Blocks


def some_sites(
    units: Sequence[int], *, among: Mapping[str, int] | None = None
) -> dict[str, Blocks]:
    """Sites `a`, `b`, ... of single elements; `among` gives some of them pools.

    >>> [site.units for site in some_sites([4, 6]).values()]
    [4, 6]
    """
    names = [chr(ord("a") + i) for i in range(len(units))]
    pools = among or {}
    return {
        name: Blocks(name, (n,), (1,), among=pools.get(name))
        for name, n in zip(names, units, strict=True)
    }


def some_scores(sites: Mapping[str, Blocks], *, seed: int = 0, ties: bool = False) -> Scores:
    """Random scores, float64; with `ties`, whole numbers from 0 to 3."""
    generator = Generator().manual_seed(seed)
    drawn = {n: torch.rand(s.units, generator=generator).double() for n, s in sites.items()}
    return {name: (4 * t).floor() if ties else t for name, t in drawn.items()}
