"""The diagonal of the Hessian by back-propagating second derivatives.

One pass goes backward through the network as gradients do, but carries ∂²E/∂a² of every
activation: a contraction passes it on through its squared weights, a pointwise function f
through f′², and what merely moves numbers moves it as it moves gradients.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from secateurs.core.errors import EvidenceError, StructureError, UnknownNameError
from secateurs.core.example import Batch, arguments, tensors
from secateurs.core.layers import plain_name
from secateurs.evidence.batches import evaluating, placed
from secateurs.evidence.gradients import Loss

Form = Literal["exact", "levenberg"]


def recursion(
    model: nn.Module, batches: Iterable[Batch], loss: Loss, *, form: Form = "levenberg"
) -> dict[str, Tensor]:
    """Diagonal of the Hessian by parameter name, the mean over batches, in two passes per batch.

    h of a weight is Σ ∂²E/∂a² · x² over its uses, where, for a = W x and x = f(a),
    ∂²E/∂a² = f′² Σ w² ∂²E/∂a² of the next layer + f″ ∂E/∂x. Interactions between
    activations of a layer are left out, so it is exact for the last linear layer, and
    before it where layers have one unit.

    Source: LeCun, Denker & Solla 1989, "Optimal Brain Damage", eqs. 7 to 9. Deviation: the
    second term of eq. 8 has a plus; the minus printed there contradicts eq. 9 and the truth.

    Args:
        model: linear layers, convolutions, pointwise functions, max and even average
            pooling, batch norm, additions, and what moves numbers about.
        batches: (inputs, *labels) each.
        loss: called as loss(output, *labels); a mean over the samples of a batch.
        form: `levenberg` drops the terms in f″, after which nothing is negative.

    Raises:
        StructureError: an operation has no rule, or the output is not (batch, classes);
            `gauss_newton` takes any model.
        EvidenceError: there are no batches, or the loss is not one finite number.
    """
    if form not in get_args(Form):
        raise UnknownNameError(f"unknown form {form!r}; use one of {', '.join(get_args(Form))}")
    sums: dict[str, Tensor] = {}
    count = 0
    with evaluating(model), torch.enable_grad():
        for inputs, labels in placed(model, batches):
            count += 1
            parameters = {
                n: p.detach().requires_grad_()
                for n, p in model.named_parameters()
                if p.is_floating_point()
            }
            args, kwargs = arguments(inputs)
            tape = _Tape()
            with _Rules(tape):
                output = functional_call(model, parameters, args, kwargs)
            slope, bend = at_output(output, labels, loss)
            known = list(parameters.values())
            if form == "exact":
                torch.autograd.grad(output, known, slope, retain_graph=True, allow_unused=True)
            else:
                bend = bend.clamp(min=0)
            tape.second = True
            found = torch.autograd.grad(
                output, known, bend, allow_unused=True, materialize_grads=True
            )
            for name, h in zip(parameters, found, strict=True):
                sums[name] = sums.get(name, 0) + h
    return {plain_name(name): total / count for name, total in sums.items()}


def at_output(output: object, labels: tuple[Any, ...], loss: Loss) -> tuple[Tensor, Tensor]:
    """First and second derivatives of the loss by each output, (batch, classes) both.

    Raises:
        StructureError: the output is not one such tensor.
        EvidenceError: the loss is not one finite number.
    """
    if not isinstance(output, Tensor) or output.dim() != 2:
        shown = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise StructureError(
            f"the model's output is {shown}, not (batch, classes); use gauss_newton, or wrap "
            "the model so that it returns class scores"
        )
    y = output.detach().requires_grad_()
    value = loss(y, *labels)
    if value.numel() != 1 or not bool(value.isfinite()):
        raise EvidenceError(
            f"the loss is {value.detach()}, not one finite number; check the loss and the labels"
        )
    (slope,) = torch.autograd.grad(value, y, create_graph=True)
    if not slope.requires_grad:
        return slope, torch.zeros_like(slope)
    bends = [
        torch.autograd.grad(column.sum(), y, retain_graph=True, materialize_grads=True)[0][:, i]
        for i, column in enumerate(slope.unbind(dim=1))
    ]
    return slope.detach(), torch.stack(bends, dim=1)


@dataclass
class _Tape:
    """Which of the two passes backward runs: gradients first, then second derivatives."""

    second: bool = False


class _Bilinear(torch.autograd.Function):
    """y = op(x, w), linear in both: passes on op(·, w²) backward, and op(x², ·) to w."""

    @staticmethod
    def forward(ctx: Any, op: Callable[..., Tensor], tape: _Tape, x: Tensor, w: Tensor) -> Tensor:
        ctx.op, ctx.tape = op, tape
        ctx.save_for_backward(x, w)
        return op(x, w)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        x, w = (t.detach() for t in ctx.saved_tensors)
        a, b = (x.square(), w.square()) if ctx.tape.second else (x, w)
        to_x = _vjp(lambda t: ctx.op(t, b), x, h) if ctx.needs_input_grad[2] else None
        to_w = _vjp(lambda t: ctx.op(a, t), w, h) if ctx.needs_input_grad[3] else None
        return None, None, to_x, to_w


class _Pointwise(torch.autograd.Function):
    """y = f(z) element by element: passes on f′² h + f″ g, where g is the gradient by y."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[Tensor], Tensor], tape: _Tape, z: Tensor) -> Tensor:
        ctx.f, ctx.tape, ctx.slope = f, tape, None
        ctx.save_for_backward(z)
        return f(z)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[None, None, Tensor]:
        with torch.enable_grad():
            z = ctx.saved_tensors[0].detach().requires_grad_()
            first = _slope(ctx.f(z), z, create_graph=True)
            second = _slope(first, z) if ctx.slope is not None else None
        if not ctx.tape.second:
            ctx.slope = h
            return None, None, first.detach() * h
        passed = first.detach().square() * h
        return None, None, passed if second is None else passed + second * ctx.slope


class _Average(torch.autograd.Function):
    """y = means of n inputs each: passes on h / n²."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[Tensor], Tensor], tape: _Tape, x: Tensor) -> Tensor:
        y = f(x)
        ctx.f, ctx.tape, ctx.shape, ctx.n = f, tape, x.shape, x.numel() // y.numel()
        even = _vjp(f, torch.zeros_like(x), torch.ones_like(y))
        if not torch.allclose(even, torch.full_like(even, 1 / ctx.n)):
            raise StructureError(
                "second derivatives have no rule for averages over windows that overlap or "
                "differ in size; use gauss_newton, which takes any model"
            )
        return y

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[None, None, Tensor]:
        passed = _vjp(ctx.f, h.new_zeros(ctx.shape), h)
        return None, None, passed / ctx.n if ctx.tape.second else passed


def _vjp(f: Callable[[Tensor], Tensor], at: Tensor, h: Tensor) -> Tensor:
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        return torch.autograd.grad(f(at), at, h)[0]


def _slope(y: Tensor, z: Tensor, *, create_graph: bool = False) -> Tensor:
    if not y.requires_grad:
        return torch.zeros_like(z)
    (slope,) = torch.autograd.grad(
        y.sum(), z, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return slope


_CONTRACTIONS = {"linear"} | {f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)}
_POINTWISE = {
    "celu",
    "elu",
    "erf",
    "exp",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "square",
    "tanh",
}
_AVERAGES = {"mean"} | {f"{a}avg_pool{d}d" for a in ("", "adaptive_") for d in (1, 2, 3)}
_CARRY = {
    "add",
    "radd",
    "iadd",
    "relu",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool1d_with_indices",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "adaptive_max_pool2d",
    "flatten",
    "reshape",
    "view",
    "permute",
    "transpose",
    "squeeze",
    "unsqueeze",
    "contiguous",
    "getitem",
    "cat",
    "split",
    "chunk",
    "unbind",
    "stack",
    "pad",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "clone",
    "to",
    "float",
    "double",
    "expand",
    "sum",
    "pixel_shuffle",
    "channel_shuffle",
    "flip",
    "roll",
    "movedim",
    "unflatten",
}


class _Rules(TorchFunctionMode):
    """Gives every call of a torch function its rule for second derivatives."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(t.requires_grad for t in tensors((args, kwargs))):
            return func(*args, **kwargs)
        name = func.__name__.strip("_")
        if name in _CONTRACTIONS:
            return self._contract(func, *args, **kwargs)
        if name == "batch_norm":
            return self._batch_norm(func, *args, **kwargs)
        if name in _POINTWISE:
            return _Pointwise.apply(
                lambda z: func(z, *args[1:], **_pure(kwargs)), self.tape, args[0]
            )
        if name in _AVERAGES:
            return _Average.apply(lambda x: func(x, *args[1:], **kwargs), self.tape, args[0])
        if name in ("mul", "rmul", "truediv", "div") and _one_learns(args):
            return self._scale(func, args, kwargs)
        result = func(*args, **kwargs)
        carries = name in _CARRY and not kwargs.get("alpha")
        if not carries and any(t.requires_grad for t in tensors(result)):
            raise StructureError(
                f"second derivatives have no rule for {name}; use gauss_newton, which takes "
                "any model"
            )
        return result

    def _contract(
        self,
        func: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **kw: Any,
    ) -> Tensor:
        y: Tensor = _Bilinear.apply(
            lambda a, b: func(a, b, None, *args, **kw), self.tape, x, weight
        )
        if bias is None:
            return y
        return y + (bias if func.__name__ == "linear" else bias.view(-1, *[1] * (weight.dim() - 2)))

    def _batch_norm(
        self,
        func: Any,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        def scaled(z: Tensor) -> Tensor:
            return func(z, mean, variance, None, None, training, momentum, eps)  # type: ignore[no-any-return]

        y: Tensor = _Pointwise.apply(scaled, self.tape, x)
        shape = [1, -1] + [1] * (x.dim() - 2)
        if weight is not None:
            y = _Bilinear.apply(lambda a, b: a * b.view(shape), self.tape, y, weight)
        return y if bias is None else y + bias.view(shape)

    def _scale(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        place = next(i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad)
        if func.__name__.strip("_") in ("div", "truediv") and place != 0:
            raise StructureError(
                "second derivatives have no rule for division by what is learned; use "
                "gauss_newton, which takes any model"
            )

        def times(z: Tensor) -> Any:
            return func(*args[:place], z, *args[place + 1 :], **kwargs)

        return _Pointwise.apply(times, self.tape, args[place])


def _one_learns(args: tuple[Any, ...]) -> bool:
    return sum(isinstance(a, Tensor) and a.requires_grad for a in args) == 1


def _pure(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop `inplace`, which would write into what backward still needs."""
    return {key: value for key, value in kwargs.items() if key != "inplace"}
