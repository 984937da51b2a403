"""Weight sharing: the weights that stay become entries of a short codebook for each layer."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError, ShapeError, UnknownNameError
from secateurs.core.near import near
from secateurs.realise.coding.shared import Shared
from secateurs.realise.sharing_clusters import Start, kmeans, nearest
from secateurs.realise.sharing_optimum import optimum
from secateurs.realise.slots import Slot, match, slots

Codebook = Literal[Start, "optimum"]
MOST_BITS = 16


def share(
    model: nn.Module,
    mask: Mapping[str, Tensor],
    bits: int | Mapping[str, int] = 5,
    *,
    codebook: Codebook = "linear",
    generator: torch.Generator | None = None,
) -> dict[str, Shared]:
    """Give each masked parameter a codebook of 2 ** bits values: parameter name → table.

    The model is not changed. Every weight that stays takes the entry nearest to it; the
    others have index -1. Entries that no weight takes are kept.

    Source: Han et al. 2016, arXiv:1510.00149, section 3.

    Args:
        model: its parameters may be masked.
        mask: which weights stay, by parameter name; only these parameters are shared.
        bits: for all, or by parameter name for every masked parameter.
        codebook: `linear` (the paper's choice), `density`, `random` or `kmeans++` say where
            k-means begins; `optimum` is the best codebook there is.
        generator: of what is random; needed by `random` and `kmeans++` to repeat.

    Raises:
        UnknownNameError: no such parameter, or no such codebook.
        ShapeError: a mask has another shape than its parameter.
        PruneError: bits are missing or out of range, or weights are not finite.
    """
    if codebook not in (words := [w for u in get_args(Codebook) for w in get_args(u) or (u,)]):
        raise UnknownNameError(f"unknown codebook {codebook!r}; use one of {', '.join(words)}")
    found = match(model, mask)
    each = _bits([slot.name for slot, _ in found], bits)
    return {
        slot.name: table(slot.tensor, keep, 1 << each[slot.name], codebook, generator)
        for slot, keep in found
    }


def table(
    weight: Tensor,
    keep: Tensor,
    entries: int,
    codebook: Codebook = "linear",
    generator: torch.Generator | None = None,
) -> Shared:
    """Return the kept weights of one tensor as `entries` values; of no weights, no values.

    Raises:
        PruneError: kept weights are not finite.
    """
    weight = weight.detach()
    index = torch.full(weight.shape, -1, dtype=torch.int32, device=weight.device)
    kept = weight[keep]
    if kept.numel() == 0:
        return Shared(weight.new_zeros(0), index, weight.dtype)
    if not bool(kept.isfinite().all()):
        raise PruneError("cannot share weights that are NaN or infinite; train anew")
    if codebook == "optimum":
        book = optimum(kept, entries)
    else:
        book = kmeans(kept, entries, start=codebook, generator=generator)
    index[keep] = nearest(kept.double(), book).int()
    return Shared(book.to(weight), index, weight.dtype)


def owners(model: nn.Module, tables: Mapping[str, Shared]) -> list[tuple[Slot, Shared]]:
    """Find the parameter that each table is of, tied names seen through.

    Raises:
        UnknownNameError: the model has no such parameter.
        ShapeError: a table has another shape than its parameter.
    """
    known, found = slots(model), []
    for name, shared in tables.items():
        if name not in known:
            raise UnknownNameError(
                f"a codebook names {name!r}, which {type(model).__name__} does not have; "
                f"{near(name, known)}"
            )
        if shared.index.shape != known[name].tensor.shape:
            raise ShapeError(
                f"the codebook of {name!r} is for shape {tuple(shared.index.shape)}, its tensor "
                f"has {tuple(known[name].tensor.shape)}; share this model's weights anew"
            )
        found.append((known[name], shared))
    return found


def _bits(names: list[str], bits: int | Mapping[str, int]) -> dict[str, int]:
    each = dict.fromkeys(names, bits) if isinstance(bits, int) else dict(bits)
    if missing := [name for name in names if name not in each]:
        raise PruneError(f"no bits are given for {', '.join(missing)}; name every parameter")
    for name in names:
        if not 0 <= each[name] <= MOST_BITS:
            raise PruneError(f"{name!r} gets {each[name]} bits; use 0 to {MOST_BITS}")
    return each
