"""Micro-models of the hard cases of structure, each with what should be found in it.

Small enough to check by hand: `units` counts what can be removed, `stays` holds sentences
that must be among the reasons of what cannot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.core.example import Example
from secateurs.testing.attentions import (
    CosineAttention,
    FusedAttention,
    GroupedQueryAttention,
    InterleavedRotary,
    PackedAttention,
    RelativeBias,
    Rotary,
    Windows,
)


class Wired(nn.Module):
    """Submodules, and a forward given as a function of them and the inputs."""

    def __init__(self, forward: Callable[..., Any], **modules: Any) -> None:
        """Register modules, parameters and (plain tensors) buffers under their names."""
        super().__init__()
        self._wiring = forward
        for name, held in modules.items():
            if isinstance(held, nn.Parameter) or not isinstance(held, Tensor):
                setattr(self, name, held)
            else:
                self.register_buffer(name, held)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wiring."""
        return self._wiring(self, *args, **kwargs)


@dataclass(frozen=True)
class Wiring:
    """A micro-model, its input, and what is expected of it."""

    build: Callable[[], nn.Module]
    example: Callable[[], Example]
    units: int
    """How many units can be removed."""
    stays: tuple[str, ...] = ()
    """Parts of sentences among the reasons of what stays."""
    axes: tuple[str, ...] = ()
    """Axes, `parameter:dim`, that hold units everywhere."""


def image(channels: int = 3, size: int = 8) -> Callable[[], Tensor]:
    """Return a maker of images, (2, channels, size, size), always the same."""
    return lambda: torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def rows(*shape: int) -> Callable[[], Tensor]:
    """Return a maker of normal tensors, always the same."""
    return lambda: torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def conv(inputs: int, outputs: int, kernel: int = 3, **kwargs: Any) -> nn.Conv2d:
    """Return a convolution that keeps the size of its input."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **kwargs)


def _stem(forward: Callable[..., Any], **modules: Any) -> Callable[[], nn.Module]:
    """Return a maker of: conv 3 → 8, a wiring on it, and a head of two classes."""

    def wiring(m: Any, x: Tensor) -> Tensor:
        out: Tensor = m.head(forward(m, m.stem(x)).mean((2, 3)))
        return out

    def build() -> nn.Module:
        made = {
            k: v() if callable(v) and not isinstance(v, nn.Module) else v
            for k, v in modules.items()
        }
        made.setdefault("head", nn.Linear(8, 2))
        return Wired(wiring, stem=conv(3, 8), **made)

    return build


def _tied(m: Any, x: Tensor) -> Tensor:
    return F.linear(torch.relu(m.body(m.table(x))), m.table.weight)


def _shuffle(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
    out: Tensor = m.next(x)
    return out


def _squeeze(m: Any, x: Tensor) -> Tensor:
    gate = torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))
    return x * gate


def _standardised(m: Any, x: Tensor) -> Tensor:
    w = m.next.weight
    w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
    return F.conv2d(x, w, m.next.bias, padding=1)


def _in_place(m: Any, x: Tensor) -> Tensor:
    y: Tensor = m.next(x)
    y += x
    y[:, :, 0].mul_(2)
    return y.relu_()


def _split(m: Any, x: Any) -> Tensor:
    a, b = x.split(4, dim=1)
    out: Tensor = a * torch.sigmoid(b)
    return out


def _dense(m: Any, x: Tensor) -> Tensor:
    y = m.a(F.relu(x))
    out: Tensor = m.b(torch.cat([x, y], 1))
    return out


def _phases(m: Any, x: Tensor) -> Tensor:
    return F.pixel_shuffle(m.next(x), 2)


def _mlp(**changes: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def _lstm() -> nn.Module:
    return Wired(
        lambda m, x: m.head(m.cells(m.first(x))[0][:, -1]),
        first=nn.Linear(6, 8), cells=nn.LSTM(8, 8, batch_first=True), head=nn.Linear(8, 2),
    )  # fmt: skip


def _class_token() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        tokens = m.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([m.token.expand(len(x), -1, -1), tokens], 1) + m.place
        out: Tensor = m.head(m.norm(tokens)[:, 0])
        return out

    return Wired(
        forward, patch=nn.Conv2d(3, 8, 4, 4), token=nn.Parameter(torch.randn(1, 1, 8)),
        place=nn.Parameter(torch.randn(1, 5, 8)), norm=nn.LayerNorm(8), head=nn.Linear(8, 2),
    )  # fmt: skip


def _tied_table() -> nn.Module:
    return Wired(_tied, table=nn.Embedding(10, 8), body=nn.Linear(8, 8))


def _auxiliary() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Any:
        x = F.relu(m.stem(x))
        out = m.head(x)
        return (out, m.aux(x)) if m.training else out

    return Wired(forward, stem=nn.Linear(6, 8), head=nn.Linear(8, 2), aux=nn.Linear(8, 2))


def _ends() -> nn.Module:
    def forward(m: Any, left: Tensor, *, right: Tensor) -> dict[str, Tensor]:
        both = m.a(left) + m.b(right)
        return {"one": m.c(both), "two": m.d(F.relu(both))}

    return Wired(
        forward, a=nn.Linear(6, 8), b=nn.Linear(4, 8), c=nn.Linear(8, 2), d=nn.Linear(8, 3)
    )


def _branching() -> nn.Module:
    """Return a model that looks at its data, so that it cannot be exported."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        if float(x.sum()) > 1e9:
            x = -x
        out: Tensor = m.b(F.relu(x))
        return out

    return Wired(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 2))


def _to_shape(x: Tensor, *shape: int) -> Tensor:
    return x.reshape(shape)


def _rolled_rows(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    out: Tensor = m.next(x.view(b, 2, c // 2, h, w).roll(1, 2).reshape(b, c, h, w))
    return out


_ORDER = torch.randperm(8, generator=torch.Generator().manual_seed(0))
_QUIET = {"next": lambda: conv(8, 8)}

WIRINGS: dict[str, Wiring] = {
    "mlp": Wiring(_mlp, rows(4, 6), 16, ("the model's input", "the model's output")),
    "residual": Wiring(
        _stem(lambda m, x: x + m.b(F.relu(m.a(x))), a=lambda: conv(8, 6), b=lambda: conv(6, 8)),
        image(),
        14,
    ),
    "dense": Wiring(_stem(_dense, a=lambda: conv(8, 4), b=lambda: conv(12, 8)), image(), 20),
    "batch_norm": Wiring(
        _stem(lambda m, x: m.bn(x), bn=lambda: nn.BatchNorm2d(8)),
        image(),
        8,
        axes=("bn.running_var:0",),
    ),
    "group_norm": Wiring(_stem(lambda m, x: m.gn(x), gn=lambda: nn.GroupNorm(2, 8)), image(), 8),
    "instance_norm": Wiring(
        _stem(lambda m, x: m.norm(x), norm=lambda: nn.InstanceNorm2d(8, affine=True)), image(), 8
    ),
    "shuffle": Wiring(_stem(_shuffle, **_QUIET), image(), 12),
    "flip": Wiring(_stem(lambda m, x: m.next(x.flip(1)), **_QUIET), image(), 16),
    "roll": Wiring(_stem(lambda m, x: m.next(x.roll(3, 1)), **_QUIET), image(), 16),
    "roll_rows": Wiring(_stem(_rolled_rows, **_QUIET), image(), 16),
    "roll_flat": Wiring(
        _stem(lambda m, x: m.next(x.roll(3)), **_QUIET), image(), 8, ("as one long row",)
    ),
    "permutation": Wiring(
        _stem(
            lambda m, x: m.next(x[:, m.order]),
            order=_ORDER,
            **_QUIET,
        ),
        image(),
        16,
    ),
    "index_select": Wiring(
        _stem(lambda m, x: m.next(x.index_select(1, m.order)), order=_ORDER, **_QUIET), image(), 16
    ),
    "gather": Wiring(
        _stem(
            lambda m, x: m.next(x.gather(1, m.order.view(1, -1, 1, 1).expand_as(x))),
            order=_ORDER,
            **_QUIET,
        ),
        image(),
        16,
    ),
    "gather_by_data": Wiring(
        _stem(lambda m, x: m.next(x.gather(1, x.argsort(1))), **_QUIET),
        image(),
        8,
        ("indexed by number",),
    ),
    "some_channels": Wiring(
        _stem(
            lambda m, x: m.next(x)[:, m.order] * x[:, 2:3] + x[:, None, 5],
            order=torch.tensor([6, -7, 3]),
            head=lambda: nn.Linear(3, 2),
            **_QUIET,
        ),
        image(),
        6 + 8,
    ),
    "channels_last_flatten": Wiring(
        lambda: Wired(
            lambda m, x: m.head(m.stem(x).permute(0, 2, 3, 1).flatten(1)),
            stem=conv(3, 8),
            head=nn.Linear(8 * 16, 2),
        ),
        image(3, 4),
        8,
    ),
    "flatten": Wiring(
        lambda: Wired(
            lambda m, x: m.head(m.stem(x).flatten(1)), stem=conv(3, 8), head=nn.Linear(8 * 16, 2)
        ),
        image(3, 4),
        8,
    ),
    "glu": Wiring(_stem(lambda m, x: F.glu(x, 1), head=lambda: nn.Linear(4, 2)), image(), 4),
    "chunk": Wiring(
        _stem(lambda m, x: (lambda a, b: a * b)(*x.chunk(2, 1)), head=lambda: nn.Linear(4, 2)),
        image(),
        4,
    ),
    "split": Wiring(_stem(_split, head=lambda: nn.Linear(4, 2)), image(), 4),
    "squeeze_excite": Wiring(
        _stem(_squeeze, down=lambda: conv(8, 4, 1), up=lambda: conv(4, 8, 1)), image(), 12
    ),
    "depthwise": Wiring(_stem(lambda m, x: m.dw(x), dw=lambda: conv(8, 8, groups=8)), image(), 8),
    "depthwise_twice": Wiring(
        _stem(
            lambda m, x: m.dw(x), dw=lambda: conv(8, 16, groups=8), head=lambda: nn.Linear(16, 2)
        ),
        image(),
        8,
    ),
    "grouped": Wiring(
        _stem(lambda m, x: m.g(x), g=lambda: conv(8, 12, groups=2), head=lambda: nn.Linear(12, 2)),
        image(),
        20,
    ),
    "grouped_transposed": Wiring(
        _stem(
            lambda m, x: m.g(x),
            g=lambda: nn.ConvTranspose2d(8, 12, 2, 2, groups=2),
            head=lambda: nn.Linear(12, 2),
        ),
        image(),
        20,
    ),
    "transposed": Wiring(
        _stem(
            lambda m, x: m.g(x),
            g=lambda: nn.ConvTranspose2d(8, 6, 2, 2),
            head=lambda: nn.Linear(6, 2),
        ),
        image(),
        14,
    ),
    "standardised": Wiring(_stem(_standardised, **_QUIET), image(), 16),
    "weight_norm": Wiring(
        _stem(
            lambda m, x: m.next(x), next=lambda: nn.utils.parametrizations.weight_norm(conv(8, 8))
        ),
        image(),
        16,
    ),
    "pixel_shuffle": Wiring(_stem(_phases, head=lambda: nn.Linear(2, 2), **_QUIET), image(), 10),
    "one_channel": Wiring(
        _stem(lambda m, x: x * torch.sigmoid(m.gate(x)), gate=lambda: conv(8, 1)), image(), 8
    ),
    "layer_scale": Wiring(
        _stem(
            lambda m, x: x + m.next(x) * m.scale.view(1, -1, 1, 1),
            scale=lambda: nn.Parameter(torch.ones(8)),
            **_QUIET,
        ),
        image(),
        8,
        axes=("scale:0",),
    ),
    "buffer": Wiring(
        _stem(lambda m, x: x * m.level[:, None, None], level=torch.linspace(1, 2, 8)),
        image(),
        8,
        axes=("level:0",),
    ),
    "padding": Wiring(
        _stem(
            lambda m, x: F.pad(x, (0, 0, 0, 0, 2, 2)) + m.wide(x),
            wide=lambda: conv(8, 12),
            head=lambda: nn.Linear(12, 2),
        ),
        image(),
        12,
    ),
    "in_place": Wiring(_stem(_in_place, **_QUIET), image(), 8),
    "called_twice": Wiring(_stem(lambda m, x: m.next(F.relu(m.next(x))), **_QUIET), image(), 8),
    "frozen_parameters": Wiring(
        _stem(lambda m, x: m.next(x), next=lambda: conv(8, 8).requires_grad_(False)), image(), 16
    ),
    "unused": Wiring(
        _stem(lambda m, x: x, spare=lambda: nn.Linear(5, 7)), image(), 8, ("no operation reads it",)
    ),
    "tied_table": Wiring(
        _tied_table, lambda: torch.arange(6).view(2, 3), 8, ("looked up by number",)
    ),
    "class_token": Wiring(_class_token, image(), 8, axes=("token:2", "place:2")),
    "layer_norm": Wiring(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)), rows(4, 6), 8
    ),
    "rms_norm": Wiring(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 2)), rows(4, 6), 8
    ),
    "softmax": Wiring(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.Softmax(-1), nn.Linear(8, 2)), rows(4, 6), 8
    ),
    "einops": Wiring(
        lambda: Wired(
            lambda m, x: m.head(_to_shape(m.stem(x), 4, 2, 8).permute(0, 2, 1).reshape(4, 16)),
            stem=nn.Linear(6, 16),
            head=nn.Linear(16, 2),
        ),
        rows(4, 6),
        8,
    ),
    "lstm": Wiring(_lstm, rows(2, 3, 6), 0, ("no rule",)),
    "auxiliary": Wiring(_auxiliary, rows(4, 6), 8, axes=("aux.weight:1",)),
    "two_ends": Wiring(_ends, lambda: {"left": rows(4, 6)(), "right": rows(4, 4)()}, 8),
    "branching": Wiring(_branching, rows(4, 6), 8),
    "fused_attention": Wiring(lambda: FusedAttention(16, 2, 8), rows(2, 5, 16), 16),
    "packed_attention": Wiring(lambda: PackedAttention(16, 2), rows(2, 5, 16), 32),
    "grouped_query": Wiring(lambda: GroupedQueryAttention(16, 4, 2, 8), rows(2, 5, 16), 32),
    "rotary": Wiring(lambda: Rotary(16, 2, 8), rows(2, 5, 16), 20),
    "interleaved_rotary": Wiring(lambda: InterleavedRotary(16, 2, 8, 5), rows(2, 5, 16), 20),
    "cosine_attention": Wiring(lambda: CosineAttention(16, 2), rows(2, 5, 16), 16),
    "relative_bias": Wiring(
        lambda: RelativeBias(16, 2, 5), rows(2, 5, 16), 32, ("indexed by number",)
    ),
    "windows": Wiring(lambda: Windows(16, 2), image(3, 8), 40),
}
"""Name → micro-model."""
