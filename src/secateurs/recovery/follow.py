"""What happens to a layer's output next: scaled by a batch norm, added to a shortcut."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_NORMS = {
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_native_batch_norm_legit_no_training",
}


@dataclass(frozen=True)
class Met:
    """A layer's output, scaled by `slope` per channel, was added to another tensor."""

    path: str
    slope: Tensor | None
    """(channels,), or None where nothing scaled it."""
    other: Tensor
    """What was added, a copy: the shortcut of a residual block."""
    other_path: str | None
    """The layer that made the other, where one did directly."""


@dataclass
class _Branch:
    path: str
    slope: Tensor | None
    tensor: Tensor
    """Held, so that its identity is not given to another."""


class Stop(Exception):  # noqa: N818
    """Raised by a listener to end a run that has shown enough."""


@dataclass
class Following:
    """Follows outputs of layers through batch norms to the additions they meet, while entered.

    Nothing is known of the model but what it does: the additions of any forward are seen,
    whoever wrote them.
    """

    model: nn.Module
    paths: Sequence[str]
    on_output: Callable[[str, Tensor, Tensor], None] = lambda path, x, y: None
    """Called with a layer's path, input and output."""
    on_met: Callable[[Met], None] = lambda met: None
    """Called for an addition, with each of the layers it adds, the later one last."""
    norms: dict[str, nn.Module] = field(default_factory=dict)
    """Layer → the batch norm that reads its output."""
    _branches: dict[int, _Branch] = field(default_factory=dict)

    def __enter__(self) -> "Following":
        """Start to listen."""
        self._means = {id(b): m for m in self.model.modules() for b in _mean(m)}
        modules = dict(self.model.named_modules())
        self._handles = [
            modules[path].register_forward_hook(self._heard(path)) for path in self.paths
        ]
        self._mode = _Listen(self)
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        """Stop listening; a `Stop` ends here."""
        self._mode.__exit__(kind, error, tb)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._branches.clear()
        return kind is not None and issubclass(kind, Stop)

    def _heard(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._branches[id(output)] = _Branch(path, None, output)
            self.on_output(path, args[0], output)

        return hook

    def normalised(self, args: tuple[Any, ...], output: Tensor) -> None:
        """Note that a batch norm has read a tensor."""
        branch = self._branches.get(id(args[0]))
        if branch is None:
            return
        weight, mean, variance, eps = args[1], args[3], args[4], args[-1]
        slope = (variance + eps).rsqrt()
        slope = slope if weight is None else slope * weight
        slope = slope if branch.slope is None else slope * branch.slope
        if id(mean) in self._means:
            self.norms[branch.path] = self._means[id(mean)]
        self._branches[id(output)] = _Branch(branch.path, slope, output)

    def adding(self, a: Any, b: Any) -> None:
        """Note that two tensors are about to be added."""
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape):
            return
        one, two = self._branches.get(id(a)), self._branches.get(id(b))
        order = list(self._branches)
        pairs = [(one, two, b), (two, one, a)]
        pairs.sort(key=lambda pair: order.index(id(pair[0].tensor)) if pair[0] else -1)
        for mine, theirs, other in pairs:
            if mine is not None:
                path = theirs.path if theirs else None
                self.on_met(Met(mine.path, mine.slope, other.clone(), path))


class _Listen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, following: Following) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.following = following

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ("add", "add_") and kwargs.get("alpha", 1) == 1:
            self.following.adding(args[0], args[1])
        result = func(*args, **kwargs)
        if name in _NORMS:
            self.following.normalised(args, result[0])
        return result


def _mean(module: nn.Module) -> list[Tensor]:
    mean = getattr(module, "running_mean", None)
    return [mean] if isinstance(mean, Tensor) else []
