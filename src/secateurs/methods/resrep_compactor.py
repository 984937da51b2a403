"""Compactors: square matrices behind layers, which training may empty row by row."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from secateurs.core.example import Example, call
from secateurs.core.layers import layers
from secateurs.granularity.coupled import Coupled
from secateurs.measure.forward import device_of, evaluation, inputs_of, to_device
from secateurs.recovery.follow import Following
from secateurs.recovery.rows import Linear, linears, weight_name

MATRIX, REMEMBERS = "compactor", "compactor_remembers"


@dataclass
class Compactor:
    """One layer, the batch norm behind it, and the matrix behind both: y → Q y.

    Q is a parameter of the last of the two, so trainings optimise and save it; which rows
    still follow the loss lies in a buffer beside it, so a training that was killed goes on.
    """

    path: str
    linear: Linear
    norm: _BatchNorm | None
    handles: tuple[RemovableHandle, ...] = ()

    @property
    def holder(self) -> nn.Module:
        """The module whose output the matrix multiplies."""
        return self.linear.module if self.norm is None else self.norm

    @property
    def matrix(self) -> nn.Parameter:
        """Q, (out, out)."""
        return self.holder.get_parameter(MATRIX)

    @property
    def remembers(self) -> Tensor:
        """Which rows follow the loss, 1 or 0, (out,)."""
        return self.holder.get_buffer(REMEMBERS)

    def attach_(self) -> None:
        """Put an identity behind the layer; the gradients of forgotten rows become zero."""
        width, like = self.linear.weight.shape[self.linear.out_axis], self.linear.weight
        matrix = nn.Parameter(torch.eye(width, dtype=like.dtype, device=like.device))
        self.holder.register_parameter(MATRIX, matrix)
        self.holder.register_buffer(REMEMBERS, torch.ones(width).to(like))
        self.handles = (
            self.holder.register_forward_hook(self._multiply),
            matrix.register_hook(self._forget),  # type: ignore[no-untyped-call]
        )

    def _forget(self, gradient: Tensor) -> Tensor:
        return gradient * self.remembers[:, None]

    def along(self, rows: Tensor) -> Tensor:
        """Lay one number per row on the layer's weight, length 1 along its other axes."""
        shape = [1] * self.linear.weight.dim()
        shape[self.linear.out_axis] = -1
        return rows.view(shape)

    def _multiply(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if not self.linear.spatial:
            return output @ self.matrix.T
        # Shape: (batch, out, *positions), seen as (batch, out, positions)
        return (self.matrix @ output.flatten(2)).view_as(output)

    def detach_(self) -> Tensor:
        """Take the matrix away again and return it."""
        matrix = self.matrix.detach()
        for handle in self.handles:
            handle.remove()
        del self.holder._parameters[MATRIX], self.holder._buffers[REMEMBERS]
        return matrix


def compactors(
    model: nn.Module, example: Example, made: Mapping[str, Coupled]
) -> dict[str, Compactor]:
    """Find the layers that produce channels and can have a compactor: weight → compactor.

    Layers that are called twice, and those whose outputs lie in groups, have none.
    """
    axes = {layer.param: layer.out_axis for layer in layers(model).values()}
    wanted = {
        part.param
        for site in made.values()
        for part in site.bucket.slices
        if part.dims == (axes.get(part.param),)
    }
    found = {
        path: linear
        for path, linear in linears(model).items()
        if weight_name(path) in wanted and linear.groups == 1
    }
    calls: list[str] = []
    with evaluation(model), Following(model, list(found), lambda p, x, y: calls.append(p)) as seen:
        call(model, to_device(example, device_of(model)))
    return {
        weight_name(path): Compactor(path, linear, _norm(seen.norms.get(path)))
        for path, linear in found.items()
        if calls.count(path) == 1
    }


def _norm(module: nn.Module | None) -> _BatchNorm | None:
    assert module is None or isinstance(module, _BatchNorm)
    return module


def merge_(behind: Mapping[str, Compactor], model: nn.Module, batches: Iterable[Any]) -> None:
    """Multiply every compactor into its layer, in place: the model computes what it did.

    A batch norm in between becomes part of the layer, and then a new one is set up that
    changes nothing, with the statistics of what it will see.
    """
    fresh = [part.norm for part in behind.values() if part.norm is not None]
    for part in behind.values():
        _merge_one_(part)
    with evaluation(model), _moments(fresh) as seen:
        for x in inputs_of(model, batches if fresh else ()):
            call(model, x)
    for norm in fresh:
        if id(norm) in seen and seen[id(norm)].count > 1:
            _neutral_(norm, seen[id(norm)])


@torch.no_grad()
def _merge_one_(part: Compactor) -> None:
    matrix, linear = part.detach_().double(), part.linear
    scale, shift = torch.ones(len(matrix)).to(matrix), torch.zeros(len(matrix)).to(matrix)
    if part.norm is not None:
        mean, variance = (part.norm.get_buffer(n).double() for n in ("running_mean", "running_var"))
        own = dict(part.norm.named_parameters())
        scale = (variance + part.norm.eps).rsqrt()
        scale = scale * own["weight"].double() if "weight" in own else scale
        shift = own["bias"].double() if "bias" in own else shift
        shift = shift - scale * mean
    if linear.bias is not None:
        shift = shift + scale * linear.bias.double()
    linear.write_((matrix @ (scale[:, None] * linear.matrix()[0].double()))[None].to(linear.weight))
    shift = matrix @ shift
    if part.norm is None:
        assert linear.bias is not None or not bool(shift.any())
        if linear.bias is not None:
            linear.bias.copy_(shift)
        return
    if linear.bias is not None:
        linear.bias.zero_()
    norm = part.norm
    norm.get_buffer("running_mean").copy_(-shift)
    norm.get_buffer("running_var").fill_(1 - norm.eps)
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        if name in dict(norm.named_parameters()):
            norm.get_parameter(name).fill_(value)


@dataclass
class _Moments:
    count: int
    total: Tensor
    squares: Tensor


@contextmanager
def _moments(norms: list[_BatchNorm]) -> Iterator[dict[int, _Moments]]:
    """Sum up what each batch norm is given, by its id."""
    seen: dict[int, _Moments] = {}

    def listen(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = args[0].transpose(0, 1).flatten(1).double()
        now = _Moments(rows.shape[1], rows.sum(1), rows.square().sum(1))
        if (old := seen.get(id(module))) is not None:
            now = _Moments(now.count + old.count, now.total + old.total, now.squares + old.squares)
        seen[id(module)] = now

    handles = [norm.register_forward_pre_hook(listen) for norm in norms]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _neutral_(norm: _BatchNorm, seen: _Moments) -> None:
    """Give an affine batch norm the statistics of its input, and weights that undo them."""
    if "weight" not in dict(norm.named_parameters()):
        return
    shift = -norm.get_buffer("running_mean").double()
    mean = seen.total / seen.count
    variance = (seen.squares / seen.count - mean.square()).clamp(min=0)
    norm.get_buffer("running_mean").copy_(mean)
    norm.get_buffer("running_var").copy_(variance)
    norm.get_parameter("weight").copy_((variance + norm.eps).sqrt())
    norm.get_parameter("bias").copy_(mean + shift)
