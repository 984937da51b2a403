"""A model whose weights are seen rounded to few values, while the weights behind them learn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs.core.errors import PruneError, StructureError
from secateurs.realise.coding.shared import Shared
from secateurs.realise.hold import attach_, detach_
from secateurs.realise.sharing import owners
from secateurs.realise.sharing_held import swap_
from secateurs.realise.slots import Slot


class Rounded(nn.Module):
    """A parametrization: stored are the kept weights as they learn, seen are their values.

    place   (kept,), flat positions of the weights that may be other than zero
    book    (values,), sorted, zero among them
    bounds  (values - 1,), where one value gives way to the next
    """

    place: Tensor
    book: Tensor
    bounds: Tensor

    def __init__(self, shared: Shared, dtype: torch.dtype) -> None:
        """Begin with the values of a table and round to nearest."""
        super().__init__()
        self.shape = tuple(shared.index.shape)
        values = shared.codebook.to(dtype)
        book = torch.unique(torch.cat([values[values != 0], values.new_zeros(1)]))
        self.zero = int((book < 0).sum())
        self.register_buffer("place", shared.mask.reshape(-1).nonzero().squeeze(1))
        self.register_buffer("book", book)
        self.register_buffer("bounds", (book[1:] + book[:-1]) / 2)

    def forward(self, kept: Tensor) -> Tensor:
        """Return the weight; gradients reach the weights behind it as if nothing were rounded."""
        seen = kept + (self.book[self.which(kept.detach())] - kept).detach()
        return kept.new_zeros(prod(self.shape)).scatter(0, self.place, seen).view(self.shape)

    def right_inverse(self, kept: Tensor) -> Tensor:
        """Store what is assigned to the parametrized attribute as it is."""
        return kept

    def which(self, kept: Tensor) -> Tensor:
        """Return which value each weight is seen as, (kept,)."""
        return torch.bucketize(kept, self.bounds)

    def settle_(self, kept: Tensor, price: float) -> None:
        """Move the values to the means of their weights, then the bounds to equal costs."""
        which, size = self.which(kept), self.book.numel()
        count = torch.bincount(which, minlength=size).double()
        total = count.new_zeros(size).index_add(0, which, kept.double())
        means = total / count.clamp_min(1)
        means[self.zero], count[self.zero] = 0, count[self.zero].clamp_min(1)
        # A value that nothing takes waits where it is, but in order.
        taken = count > 0
        low = torch.where(taken, means, -torch.inf).cummax(0).values
        high = torch.where(taken, means, torch.inf).flip(0).cummin(0).values.flip(0)
        book = torch.where(taken, means, self.book.double().clamp(low, high))
        worth = price * float(kept.double().square().mean()) if kept.numel() else 0.0
        bits = self.bits(count)
        self.book.copy_(book)
        self.bounds.copy_(bounds(self.book.double(), bits, worth))

    def bits(self, count: Tensor) -> Tensor:
        """Estimate what each value costs where it stands, place included, (values,)."""
        units = prod(self.shape)
        some = count.sum() - count[self.zero]
        odds = (some + 0.5) / (units + 1)
        share = count + 0.5
        share[self.zero] = 0
        bits = -(share / share.sum()).log2() - odds.log2()
        bits[self.zero] = -(1 - odds).log2()
        return bits

    def table(self, kept: Tensor) -> Shared:
        """Return the weight as it is seen."""
        which = self.which(kept)
        entry = torch.where(which == self.zero, -1, which - (which > self.zero).to(which.dtype))
        index = entry.new_full((prod(self.shape),), -1).scatter(0, self.place, entry)
        book = torch.cat([self.book[: self.zero], self.book[self.zero + 1 :]])
        return Shared(book.clone(), index.int().view(self.shape), kept.dtype)


def bounds(book: Tensor, bits: Tensor, worth: float) -> Tensor:
    """Return where (w - a)² + worth · bits(a) of sorted neighbours a are equal: (values - 1,).

    A value too dear to win anywhere is passed over.

    >>> two = torch.tensor([0.0, 1.0])
    >>> bounds(two, torch.tensor([0.0, 4.0]), 0.05)
    tensor([0.6000])
    """
    at, cost = book.tolist(), (book.square() + worth * bits).tolist()
    chosen: list[int] = []
    for i in range(len(book)):
        # The lower hull of the lines w -> cost - 2 w a: what never is lowest goes.
        while len(chosen) > 1:
            a, b = chosen[-2], chosen[-1]
            if (cost[i] - cost[a]) * (at[b] - at[a]) > (cost[b] - cost[a]) * (at[i] - at[a]):
                break
            chosen.pop()
        chosen.append(i)
    found = book.new_empty(len(book) - 1)
    for a, b in pairwise(chosen):
        gap = at[b] - at[a]
        found[a:b] = (cost[b] - cost[a]) / (2 * gap) if gap > 0 else at[a]
    found[: chosen[0]] = -torch.inf
    found[chosen[-1] :] = torch.inf
    return found


@dataclass
class Rounding:
    """The roundings a model is under; `rounded` returns it."""

    _held: list[tuple[Slot, Rounded]]
    _ended: dict[str, Shared] | None = None

    @property
    def tables(self) -> dict[str, Shared]:
        """The weights as they are seen now; as they ended, after the block."""
        if self._ended is not None:
            return self._ended
        return {slot.name: stage.table(slot.tensor.detach()) for slot, stage in self._held}

    def settle_(self, price: float) -> None:
        """Let the values follow their weights, and cheap values win where they cost little.

        Args:
            price: of a bit, in mean squares of a layer's kept weights.
        """
        for slot, stage in self._held:
            stage.settle_(slot.tensor.detach(), price)


@contextmanager
def rounded(model: nn.Module, tables: Mapping[str, Shared]) -> Iterator[Rounding]:
    """Change `model` so that its weights are few values in every call, until the block ends.

    Unlike in `shared`, the weights behind the values learn, by the gradient of what is seen,
    and change over to another value, or to zero and back, as they cross a bound. Which weights
    may be other than zero is fixed. After the block the parameters are plain again and hold
    what was seen.

    Source: straight-through gradients, Bengio et al. 2013, arXiv:1308.3432; bounds between
    values by error + price x bits, as Marban et al. 2020, arXiv:2004.01077, section 3.

    Args:
        model: not yet rounded: its parameters are what learns.
        tables: by parameter name, from `share`: which weights stay, and the first values.

    Raises:
        UnknownNameError, ShapeError: a table does not fit the model.
        StructureError: a parameter is masked or otherwise parametrized.
    """
    found = owners(model, tables)
    for slot, _ in found:
        if any(parametrize.is_parametrized(*owner) for owner in slot.owners):
            raise StructureError(f"{slot.name!r} is masked or shared already; leave that block")
    held = Rounding([])
    try:
        for slot, table in found:
            kept = slot.tensor.detach()[table.mask]
            if not bool(kept.isfinite().all()):
                raise PruneError(f"{slot.name!r} holds NaN or infinity; train anew")
            stage = Rounded(table, slot.tensor.dtype).to(slot.tensor.device)
            swap_(slot.tensor, kept)
            held._held.append((slot, stage))
            for module, attribute in slot.owners:
                attach_(module, attribute, stage)
        yield held
    finally:
        held._ended = held.tables
        for slot, stage in held._held:
            for module, attribute in slot.owners:
                detach_(module, attribute, stage)
            swap_(slot.tensor, held._ended[slot.name].dense().to(slot.tensor))
