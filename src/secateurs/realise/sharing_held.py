"""A model whose weights are shared while anything trains it: what learns is the codebooks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs.core.errors import StructureError, UnknownNameError
from secateurs.realise.coding.shared import Shared
from secateurs.realise.hold import attach_, detach_
from secateurs.realise.sharing import owners
from secateurs.realise.slots import Slot

Step = Literal["sum", "mean"]


class Spread(nn.Module):
    """A parametrization: the stored tensor is a codebook, the module sees the weight.

    Autograd sums the gradients of all weights that share an entry, as the paper does.
    """

    place: Tensor
    entry: Tensor
    share: Tensor

    def __init__(self, shared: Shared, step: Step) -> None:
        """Remember which entry each weight has."""
        super().__init__()
        self.shape = tuple(shared.index.shape)
        flat = shared.index.reshape(-1)
        place = (flat >= 0).nonzero().squeeze(1)
        self.register_buffer("place", place)
        self.register_buffer("entry", flat[place].long())
        counts = torch.bincount(self.entry, minlength=shared.codebook.numel()).clamp_min(1)
        weight = counts.reciprocal() if step == "mean" else torch.ones_like(counts)
        self.register_buffer("share", weight.to(shared.codebook.dtype))
        self.mean = step == "mean"

    def forward(self, codebook: Tensor) -> Tensor:
        """Return the weight."""
        if self.mean:
            codebook = _Scaled.apply(codebook, self.share)
        zeros = codebook.new_zeros(prod(self.shape))
        return zeros.scatter(0, self.place, codebook.index_select(0, self.entry)).view(self.shape)

    def right_inverse(self, codebook: Tensor) -> Tensor:
        """Store what is assigned to the parametrized attribute as it is: a codebook."""
        return codebook


class _Scaled(torch.autograd.Function):
    """The codebook itself, with its gradient times `share`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(codebook: Tensor, share: Tensor) -> Tensor:
        return codebook.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.saved_tensors[0], None


@dataclass
class Sharing:
    """The codebooks a model is under; `shared` returns it."""

    _held: list[tuple[Slot, Spread, Shared]]

    @property
    def tables(self) -> dict[str, Shared]:
        """The tables with the codebooks as they are now; as they ended, after the block."""
        self._read()
        return {slot.name: table for slot, _, table in self._held}

    def _read(self) -> None:
        for i, (slot, spread, table) in enumerate(self._held):
            module, attribute = slot.owners[0]
            if parametrize.is_parametrized(module, attribute):
                book = slot.tensor.detach().clone()
                self._held[i] = (slot, spread, replace(table, codebook=book))


@contextmanager
def shared(
    model: nn.Module, tables: Mapping[str, Shared], *, step: Step = "sum"
) -> Iterator[Sharing]:
    """Change `model` so that its weights are codebook entries in every call, until the block ends.

    Which entry a weight has is fixed; what learns is the entries. Weights of index -1 are
    exactly zero. After the block the parameters are plain again and hold the learnt values.

    >>> layer = nn.Linear(3, 1, bias=False)
    >>> table = Shared(torch.tensor([1.0, 2.0]), torch.tensor([[0, -1, 1]]))
    >>> with shared(layer, {"weight": table}) as held:
    ...     [tuple(p.shape) for p in layer.parameters()]
    [(2,)]
    >>> layer.weight.data, held.tables["weight"].codebook
    (tensor([[1., 0., 2.]]), tensor([1., 2.]))

    Parameters stay the objects they were, with another shape inside: build the optimizer
    inside. `state_dict()` has torch's keys for parametrized modules there.

    Args:
        model: its training mode, device and dtype may change inside.
        tables: by parameter name, from `share`. Other parameters learn as ever.
        step: `sum` gives an entry the sum of its weights' gradients, which is the paper's
            rule and calls for a small learning rate; `mean` divides it by their number, so
            that an entry moves as far as its weights would have on average.

    Raises:
        UnknownNameError, ShapeError: a table does not fit the model.
        StructureError: a parameter is masked or otherwise parametrized.

    Source: Han et al. 2016, arXiv:1510.00149, section 3.3.
    """
    if step not in get_args(Step):
        raise UnknownNameError(f"unknown step {step!r}; use 'sum' or 'mean'")
    held = Sharing([])
    found = owners(model, tables)
    for slot, _ in found:
        for module, attribute in slot.owners:
            if parametrize.is_parametrized(module, attribute):
                raise StructureError(
                    f"{slot.name!r} is masked or otherwise parametrized already; leave that block "
                    "first: tables hold zeros by themselves"
                )
    try:
        for slot, table in found:
            spread = Spread(table, step).to(slot.tensor.device)
            swap_(slot.tensor, table.codebook.to(slot.tensor))
            held._held.append((slot, spread, table))
            for module, attribute in slot.owners:
                attach_(module, attribute, spread)
        yield held
    finally:
        held._read()
        for slot, spread, _ in held._held:
            with torch.no_grad():
                dense = spread(slot.tensor)
            for module, attribute in slot.owners:
                detach_(module, attribute, spread)
            swap_(slot.tensor, dense)


def swap_(parameter: Tensor, value: Tensor) -> None:
    """Let a parameter hold another value, of any shape."""
    parameter.data = value.clone()
    parameter.grad = None
