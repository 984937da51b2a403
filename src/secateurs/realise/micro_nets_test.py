"""Small networks, each with one thing that makes removal hard; for tests."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.core.example import call, tensors


class Plain(nn.Module):
    """Convolutions and batch norms, flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3)
        )
        self.head = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().flatten(1))


class Residual(nn.Module):
    """A residual block with a depthwise convolution inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.deep = nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.back = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(F.hardswish(self.norm(self.deep(x))))
        return self.head(x.relu_()).mean((2, 3))


class Grouped(nn.Module):
    """Grouped convolutions, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.c = nn.Conv2d(3, 4, 1)
        self.d = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(torch.cat([self.b(self.a(x).relu()), self.c(x)], 1).relu())


class Tied(nn.Module):
    """An embedding tied with the output layer, with a gated unit between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.up = nn.Linear(8, 24)
        self.down = nn.Linear(12, 8)
        self.out = nn.Linear(8, 10, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        a, b = self.up(x).chunk(2, dim=-1)
        return self.out(x + self.down(a.sigmoid() * b))


class Attention(nn.Module):
    """Attention with a fused projection whose scale is fixed, fused, or written out."""

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.scale = scale
        self.num_heads = 4
        self.head_dim = 6
        self.qkv = nn.Linear(16, 3 * 24)
        self.proj = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.scale == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.scale == "fixed":
            y = F.scaled_dot_product_attention(q, k, v, scale=0.25)
        else:
            logits = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            y = logits.softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Norms over channels around attention and a perceptron, pre-norm."""

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 16)
        self.one = nn.LayerNorm(16)
        self.attention = Attention(scale)
        self.two = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.last = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(self.one(x))
        x = x + self.mlp(self.two(x))
        return self.head(self.last(x).mean(1))


class Torchs(nn.Module):
    """torch's own MultiheadAttention inside a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.mix = nn.MultiheadAttention(12, 2, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.mix(x, x, x, need_weights=False)[0])


class Recomputed(nn.Module):
    """Attention that takes its width from its input, which shrinks otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.inner = RecomputedAttention()
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.inner(x))


class RecomputedAttention(nn.Module):
    """Reshapes to the width of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.proj = nn.Linear(12, 12)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.drop(self.proj(y.transpose(1, 2).reshape(b, n, c)))


class Written(nn.Module):
    """Sizes that are written as numbers in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(5, 16)
        self.a = nn.Linear(6, 8)
        self.b = nn.Linear(10, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.up(x).split([6, 10], dim=-1)
        return self.head(self.a(a.tanh()) + self.b(b))


class Sizes(nn.Module):
    """Sizes that attributes hold, in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [6, 10]
        self.wide = 16
        self.other = 16
        self.up = nn.Linear(5, 16)
        self.down = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.up(x).split(self.parts, dim=-1)
        y = torch.cat([a.tanh(), b], dim=-1).view(-1, self.wide)
        return self.down(y) + self.other


class Reparametrised(nn.Module):
    """Weights that are computed from others."""

    def __init__(self) -> None:
        super().__init__()
        self.old = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 1))
        self.new = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, groups=2))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.new(self.old(x).relu()).relu())


class Casts(nn.Module):
    """A norm in float32, and a table made in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))
        self.up = nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        y = (y.float() * y.to(torch.float32).pow(2).mean(-1, keepdim=True).rsqrt()).type_as(y)
        return self.head(self.gain * y) + torch.arange(2).float().to(x.dtype)


class Permuted(nn.Module):
    """Channels in an order that a buffer holds, then in one that is computed from it."""

    order: Tensor

    def __init__(self, computed: bool) -> None:
        super().__init__()
        self.up, self.mid, self.head = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2)
        self.register_buffer("order", torch.tensor([3, 0, -1, 1, 5, 2, 4, 6]))
        self.computed = computed

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)[:, self.order].relu()
        if self.computed:
            x = x[:, (self.order % 8).argsort()].tanh()
        return self.head(self.mid(x))


class Rolled(nn.Module):
    """Channels shifted cyclically, by a number an attribute holds or by a written one."""

    def __init__(self, written: bool) -> None:
        super().__init__()
        self.shift, self.written = 3, written
        self.up, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(x).roll(3 if self.written else self.shift, 1).relu())


class TwoInputs(nn.Module):
    """Two inputs by keyword, a dict out, one module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 8)
        self.again = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)
        self.gain = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, left: Tensor, *, right: Tensor) -> dict[str, Any]:
        x = self.enter(left) * self.gain + self.enter(right)
        x = self.again(self.again(x).relu())
        return {"out": self.head(x), "pair": (x.sum(-1), 3)}


def _x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


NETS: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "plain": (Plain, _x(2, 3, 6, 6), "module"),
    "residual": (Residual, _x(2, 3, 6, 6), "module"),
    "grouped": (Grouped, _x(2, 3, 6, 6), "module"),
    "tied": (Tied, torch.arange(6).view(2, 3), "module"),
    "fixed scale": (lambda: Transformer("fixed"), _x(2, 4, 5), "module"),
    "fused scale": (lambda: Transformer("fused"), _x(2, 4, 5), "module"),
    "written scale": (lambda: Transformer("written"), _x(2, 4, 5), "module"),
    "torch's attention": (Torchs, _x(2, 4, 5), "module"),
    "recomputed": (Recomputed, _x(2, 4, 5), "module with traced parts"),
    "written sizes": (Written, _x(2, 5), "graph"),
    "sizes": (Sizes, _x(2, 5), "module"),
    "reparametrised": (Reparametrised, _x(2, 3, 6, 6), "module"),
    "casts": (Casts, _x(3, 4), "module"),
    "permuted": (lambda: Permuted(False), _x(3, 4), "module"),
    "permuted twice": (lambda: Permuted(True), _x(3, 4), "graph"),
    "rolled": (lambda: Rolled(False), _x(3, 4), "module"),
    "rolled by a written number": (lambda: Rolled(True), _x(3, 4), "graph"),
    "two inputs": (TwoInputs, {"left": _x(3, 4), "right": _x(3, 4)}, "module"),
}
"""Name → (how to build it, an example, what `compact` makes of it)."""


@pytest.mark.parametrize(("make", "example", "how"), NETS.values(), ids=NETS)
def test_every_net_runs(make, example, how):
    assert tensors(call(make(), example))
