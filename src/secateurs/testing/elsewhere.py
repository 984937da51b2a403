"""A second device, emulated on the CPU: whatever meets a tensor that lies elsewhere must be there.

Code that forgets to move a tensor fails here as it does on an accelerator, on any machine. The
emulated tensors say that they lie on `meta`, which autograd treats like the CPU.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from secateurs.recovery.choose import Computing

ELSEWHERE, _HERE = torch.device("meta"), torch.device("cpu")
_CROSSING = {"_to_copy", "to", "copy_"}
_SET_DATA: Any = Tensor.data.__set__  # type: ignore[attr-defined]
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class Elsewhere(Tensor):
    """A tensor of the CPU that says it lies elsewhere."""

    __slots__ = ("held",)
    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        """Wrap a tensor, whose memory is shared."""
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=ELSEWHERE,
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        """Show the values."""
        return f"Elsewhere({self.held})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute on the tensors that are held."""
        return _compute(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Copy, once for each memo; what is a parameter stays one."""
        if id(self) not in memo:
            made: Tensor = Elsewhere(self.held.clone())
            parameter = isinstance(self, nn.Parameter)
            made = nn.Parameter(made, self.requires_grad) if parameter else made
            memo[id(self)] = made.requires_grad_(self.requires_grad)
        copied: Tensor = memo[id(self)]
        return copied

    def data_ptr(self) -> int:
        """Return where the values begin."""
        return self.held.data_ptr()

    def tolist(self) -> Any:
        """Return the values."""
        return self.held.tolist()


def here(x: Tensor) -> Tensor:
    """Return the plain tensor, detached."""
    return (x.held if isinstance(x, Elsewhere) else x).detach()


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the held tensors; refuse those of the CPU that would not do there."""
    name = func.overloadpacket.__name__
    flat, spec = tree_flatten((args, kwargs))
    there = [x for x in flat if isinstance(x, Elsewhere)]
    named = [x for x in flat if isinstance(x, torch.device)]
    if there and name not in _CROSSING:
        strangers = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, Elsewhere)]
        may_index = name in _INDEXED and isinstance(args[0], Elsewhere)
        indices = [id(x) for x in args[1]] if may_index else []
        if any(x.dim() > 0 and id(x) not in indices for x in strangers):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    known = {id(x.held): x for x in there}
    plain = [x.held if isinstance(x, Elsewhere) else x for x in flat]
    plain = [_HERE if isinstance(x, torch.device) else x for x in plain]
    args_here, kwargs_here = tree_unflatten(plain, spec)
    found = func(*args_here, **kwargs_here)
    if named:
        goes = named[0] == ELSEWHERE
    elif name in _CROSSING:
        goes = any(isinstance(x, Elsewhere) for x in (args if name == "to" else args[:1]))
    else:
        goes = bool(there)

    def sent(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) in known:
            return known[id(x)]
        return Elsewhere(x) if goes else x

    return tree_map(sent, found)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees operations that no tensor from elsewhere takes part in, such as `torch.zeros`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Mends what is decided before an operation is seen."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == _SET_DATA and isinstance(args[0], Elsewhere):
            return _set_data_(*args)
        if func is torch.unravel_index and isinstance(args[0], Elsewhere):
            return tree_map(Elsewhere, func(args[0].held, *args[1:], **kwargs))
        made = func in (torch.tensor, torch.as_tensor)
        if made and kwargs.get("device") is not None and torch.device(kwargs["device"]) != _HERE:
            return func(*args, **(kwargs | {"device": _HERE})).to(ELSEWHERE)
        return func(*args, **kwargs)


def _set_data_(x: Elsewhere, new: Tensor) -> None:
    """Do `x.data = new`: what a wrapper says of itself is fixed, so another takes its place."""
    if x is new:
        return
    assert isinstance(new, Elsewhere)
    if (x.shape, x.dtype, x.stride()) == (new.shape, new.dtype, new.stride()):
        x.held = new.held
        return
    made: Tensor = Elsewhere(new.held)
    made = nn.Parameter(made, x.requires_grad) if isinstance(x, nn.Parameter) else made
    torch.utils.swap_tensors(x, made)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def another_device() -> Iterator[torch.device]:
    """Yield a device that is not the CPU, while entered."""
    plain = patch.object(Computing, "autocast", lambda self, device: contextlib.nullcontext())
    with _Operations(), _Functions(), plain:  # type: ignore[no-untyped-call]
        yield ELSEWHERE
