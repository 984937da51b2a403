"""How many multiply-accumulates one forward pass takes."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from secateurs.core.example import Example, call, tensors
from secateurs.measure.forward import device_of, evaluation, to_device

Kind = Literal["convolution", "product", "attention"]


def macs(
    model: nn.Module, example: Example, *, only: Kind | None = None, per_example: bool = False
) -> int:
    """Count the multiply-accumulates of one forward pass on this input.

    One MAC is one multiplication and one addition; literature that counts both as FLOPs
    has twice our number. Counted are convolutions (grouped, depthwise, transposed), linear
    layers, matrix products and attention. Not counted are biases, norms, activations,
    pooling and other pointwise work. Padding counts as input, zero weights count as
    weights, and causal attention counts as full. The whole batch counts.

    Args:
        model: run once in evaluation mode; its modes return afterwards.
        example: the input; moved to the model's device.
        only: count one kind: `convolution`, `product` (linear layers and matrix
            products) or `attention`. Papers on CIFAR networks often count convolutions.
        per_example: divide by the length of the input's first axis.
    """
    counted = _count(model, example)
    total = sum(n for (_, kind), n in counted.items() if only in (None, kind))
    return total // len(tensors(example)[0]) if per_example else total


def macs_by_layer(
    model: nn.Module, example: Example, *, only: Kind | None = None
) -> dict[str, int]:
    """Return the multiply-accumulates of one forward pass by module path, in order of use.

    A module used twice counts twice. Work in the model's own forward is under `""`, or
    under the owner of the weight it multiplies by. Conventions are those of `macs`.
    """
    result: dict[str, int] = {}
    for (path, kind), n in _count(model, example).items():
        if only in (None, kind):
            result[path] = result.get(path, 0) + n
    return result


def _count(model: nn.Module, example: Example) -> Counter[tuple[str, str]]:
    counter = _Counter(model)
    # Fused kernels for whole layers hide their products; without them every product shows.
    with evaluation(model), _unfused(), _followed(model, counter.stack), counter:
        call(model, to_device(example, device_of(model)))
    return counter.macs


@contextmanager
def _unfused() -> Iterator[None]:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Switching oneDNN warns about TF32 on hardware that is not there.
        with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=False):
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _followed(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the path of the module that is running on top of the stack."""

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: stack.append(path)

    def leave(*_: Any) -> None:
        stack.pop()

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if "parametrizations" not in path.split("."):
                hooks.enter_context(module.register_forward_pre_hook(enter(path)))
                hooks.enter_context(module.register_forward_hook(leave, always_call=True))
        yield


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the MACs of every operation that multiplies, by (module path, kind)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: Counter[tuple[str, str]] = Counter()
        self.stack: list[str] = []
        self.owners = {
            p.untyped_storage().data_ptr(): name.rpartition(".")[0]
            for name, p in model.named_parameters()
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        rule = _RULES.get(func.overloadpacket)
        if rule is not None:
            kind, formula = rule
            self.macs[self._path(args), kind] += formula(args, tensors(out)[0])
        return out

    def _path(self, args: Any) -> str:
        if self.stack and self.stack[-1]:
            return self.stack[-1]
        # A traced program runs no modules; the weight tells whose work this is.
        pointers = (t.untyped_storage().data_ptr() for t in tensors(list(args)))
        return next((self.owners[p] for p in pointers if p in self.owners), "")


def _convolution(args: Any, out: Tensor) -> int:
    """Count by (x, weight, bias, stride, padding, dilation, transposed, ...)."""
    x, weight, transposed = args[0], args[1], args[6]
    # Each output (transposed: input) entry meets one filter without its leading axis.
    return int((x if transposed else out).numel() * prod(weight.shape[1:]))


def _product(a: int) -> Callable[[Any, Tensor], int]:
    """Count a product whose left factor is argument `a`: output entries times inner length."""
    return lambda args, out: out.numel() * int(args[a].shape[-1])


def _summed(args: Any, out: Tensor) -> int:
    """Count addbmm: the products of a batch, summed."""
    return int(args[1].numel()) * int(args[2].shape[-1])


def _attention(args: Any, out: Tensor) -> int:
    """Count queries (..., q, d) on keys (..., k, d), then weights (q, k) on values (k, e)."""
    q, k, v = args[:3]
    return int(prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]))


_aten = torch.ops.aten
_RULES: dict[Any, tuple[Kind, Callable[[Any, Tensor], int]]] = {
    _aten.convolution: ("convolution", _convolution),
    _aten._convolution: ("convolution", _convolution),
    _aten.mm: ("product", _product(0)),
    _aten.addmm: ("product", _product(1)),
    _aten.bmm: ("product", _product(0)),
    _aten.baddbmm: ("product", _product(1)),
    _aten.addbmm: ("product", _summed),
    _aten.mv: ("product", _product(0)),
    _aten.addmv: ("product", _product(1)),
    _aten.dot: ("product", _product(0)),
    _aten._scaled_dot_product_flash_attention: ("attention", _attention),
    _aten._scaled_dot_product_flash_attention_for_cpu: ("attention", _attention),
    _aten._scaled_dot_product_efficient_attention: ("attention", _attention),
    _aten._scaled_dot_product_cudnn_attention: ("attention", _attention),
    _aten._scaled_dot_product_fused_attention_overrideable: ("attention", _attention),
}
