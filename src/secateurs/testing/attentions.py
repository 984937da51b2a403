"""Micro-models with attention, each a way in which models write it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FusedAttention(nn.Module):
    """Queries, keys and values from one projection, viewed as (3, heads, width)."""

    def __init__(self, dim: int, heads: int, width: int) -> None:
        """Heads of `width` each."""
        super().__init__()
        self.heads, self.width = heads, width
        self.qkv = nn.Linear(dim, 3 * heads * width)
        self.proj = nn.Linear(heads * width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → the same."""
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        out = self.proj(out.transpose(1, 2).reshape(b, n, self.heads * self.width))
        assert isinstance(out, Tensor)
        return out


class PackedAttention(nn.Module):
    """PyTorch's own module, its packed projection unflattened to (3, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        """Heads of dim // heads each."""
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.head = nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → (batch, tokens, 2)."""
        x = self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = self.head(x)
        return out


class GroupedQueryAttention(nn.Module):
    """Several query heads share a key and value head, by expand and reshape."""

    def __init__(self, dim: int, heads: int, kv_heads: int, width: int) -> None:
        """`heads` a multiple of `kv_heads`."""
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads, width
        self.q = nn.Linear(dim, heads * width)
        self.k = nn.Linear(dim, kv_heads * width)
        self.v = nn.Linear(dim, kv_heads * width)
        self.o = nn.Linear(heads * width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → the same."""
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.width).transpose(1, 2)
        k, v = (
            m(x).view(b, n, self.kv_heads, self.width).transpose(1, 2) for m in (self.k, self.v)
        )
        times = self.heads // self.kv_heads
        k, v = (
            t[:, :, None]
            .expand(b, self.kv_heads, times, n, self.width)
            .reshape(b, self.heads, n, self.width)
            for t in (k, v)
        )
        probabilities = torch.softmax(q @ k.transpose(2, 3) * self.width**-0.5, -1)
        out: Tensor = self.o((probabilities @ v).transpose(1, 2).reshape(b, n, -1))
        return out


class Rotary(nn.Module):
    """Rotary positions: halves are rotated against each other by a buffer of frequencies."""

    frequencies: Tensor

    def __init__(self, dim: int, heads: int, width: int) -> None:
        """`width` must be even."""
        super().__init__()
        self.heads, self.width = heads, width
        self.q, self.k, self.v = (nn.Linear(dim, heads * width) for _ in range(3))
        self.o = nn.Linear(heads * width, dim)
        self.register_buffer("frequencies", 0.1 ** torch.arange(width // 2).float())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → the same."""
        b, n, _ = x.shape
        angle = torch.arange(n)[:, None].float() * self.frequencies[None]
        angle = torch.cat([angle, angle], -1)
        q, k, v = (
            m(x).view(b, n, self.heads, self.width).transpose(1, 2)
            for m in (self.q, self.k, self.v)
        )
        q, k = (t * angle.cos() + _rotated(t) * angle.sin() for t in (q, k))
        probabilities = torch.softmax(q @ k.transpose(2, 3) * self.width**-0.5, -1)
        out: Tensor = self.o((probabilities @ v).transpose(1, 2).reshape(b, n, -1))
        return out


class RelativeBias(nn.Module):
    """A bias per head and distance, looked up in a table."""

    distance: Tensor

    def __init__(self, dim: int, heads: int, tokens: int) -> None:
        """A table of 2 tokens - 1 distances."""
        super().__init__()
        self.inner = FusedAttention(dim, heads, dim // heads)
        self.table = nn.Parameter(torch.randn(2 * tokens - 1, heads))
        places = torch.arange(tokens)
        self.register_buffer("distance", places[:, None] - places[None] + tokens - 1)
        self.first = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → the same."""
        b, n, _ = x.shape
        inner = self.inner
        x = self.first(x)
        qkv = inner.qkv(x).reshape(b, n, 3, inner.heads, inner.width).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        bias = self.table[self.distance.view(-1)].view(n, n, -1).permute(2, 0, 1)
        scores = q @ k.transpose(2, 3) * inner.width**-0.5 + bias[None]
        out: Tensor = inner.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1))
        return out


class Windows(nn.Module):
    """Attention in shifted windows of 2 x 2."""

    def __init__(self, dim: int, heads: int) -> None:
        """Heads of dim // heads each."""
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 2, 2)
        self.norm = nn.LayerNorm(dim)
        self.inner = FusedAttention(dim, heads, 12)
        self.head = nn.Linear(dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, 2)."""
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2))
        y = y.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        y = self.inner(y).view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(b, h, w, c), (1, 1), (1, 2))
        out: Tensor = self.head(x.mean((1, 2)))
        return out


class InterleavedRotary(nn.Module):
    """Rotary positions in pairs, from one table of sines and cosines for every head."""

    table: Tensor

    def __init__(self, dim: int, heads: int, width: int, tokens: int) -> None:
        """`width` must be even."""
        super().__init__()
        self.inner = FusedAttention(dim, heads, width)
        angle = torch.arange(tokens)[:, None] * 0.1 ** torch.arange(width // 2)
        angle = angle.repeat_interleave(2, -1)
        self.register_buffer("table", torch.cat([angle.sin(), angle.cos()], -1))
        self.first = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → the same."""
        b, n, _ = x.shape
        inner = self.inner
        qkv = inner.qkv(self.first(x)).reshape(b, n, 3, inner.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        sin, cos = self.table.chunk(2, -1)
        q, k = (
            t * cos + torch.stack([-t[..., 1::2], t[..., ::2]], -1).reshape(t.shape) * sin
            for t in (q, k)
        )
        scores = torch.softmax(q @ k.transpose(2, 3) * inner.width**-0.5, -1)
        out: Tensor = inner.proj((scores @ v).transpose(1, 2).reshape(b, n, -1))
        return out


class CosineAttention(nn.Module):
    """Queries and keys of length one, a learned temperature per head, as in Swin v2."""

    def __init__(self, dim: int, heads: int) -> None:
        """Heads of dim // heads each."""
        super().__init__()
        self.inner = FusedAttention(dim, heads, dim // heads)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), 10.0).log())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) → the same."""
        b, n, _ = x.shape
        inner = self.inner
        qkv = inner.qkv(x).reshape(b, n, 3, inner.heads, inner.width).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(2, 3)
        scores = scores * self.scale.clamp(max=4.6).exp()
        out: Tensor = inner.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1))
        return out


def _rotated(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)
