"""Random small networks from a list of steps, for property tests of structure."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[["RandomNet", Tensor, int], Tensor]
"""(net, image (batch, channels, 4, 4), a number to choose by) → another image."""


class RandomNet(nn.Module):
    """A stem, the named steps one after another, and a head of three classes.

    Every step keeps images at 4 x 4 and channels at a multiple of 4, at most 32; it may
    look back at the images before it. Submodules are made in a first run, by seed.
    """

    def __init__(self, steps: Sequence[tuple[str, int]], *, seed: int = 0) -> None:
        """Make the submodules that `steps`, pairs of a name in STEPS and a number, need."""
        super().__init__()
        self.steps = list(steps)
        self.past: list[Tensor] = []
        self.place = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self(torch.zeros(2, 3, 4, 4))
            with torch.no_grad():
                for tensor in self.parameters():
                    if tensor.ndim < 2:
                        tensor.add_(0.3 * torch.randn(tensor.shape))
        self.past = []
        self.eval()

    def make(self, build: Callable[[], nn.Module]) -> Any:
        """Return the next submodule, made when it is first asked for."""
        name = f"part{self.place}"
        self.place += 1
        if not hasattr(self, name):
            setattr(self, name, build())
        part: Any = getattr(self, name)
        return part

    def weight(self, *shape: int) -> Tensor:
        """Return the next parameter of its own."""
        held: Tensor = self.make(lambda: _Weight(*shape)).weight
        return held

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 4, 4) → (batch, 3)."""
        self.place = 0
        x = self.make(lambda: nn.Conv2d(3, 8, 3, padding=1))(x)
        self.past = [x]
        for name, number in self.steps:
            out = STEPS[name](self, x, number)
            x = out if out.shape[1] % 4 == 0 and 4 <= out.shape[1] <= 32 else x
            self.past.append(x)
        flat = (x.mean((2, 3)), x.flatten(1), x.permute(0, 2, 3, 1).flatten(1))
        h = flat[len(self.steps) % 3]
        logits: Tensor = self.make(lambda: nn.Linear(h.shape[1], 3))(h)
        self.past = []
        return logits


class _Weight(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))


def _conv(net: RandomNet, x: Tensor, k: int) -> Tensor:
    out: Tensor = net.make(lambda: nn.Conv2d(x.shape[1], 4 + 4 * (k % 4), 3, padding=1))(x)
    return out


def _grouped(net: RandomNet, x: Tensor, k: int) -> Tensor:
    groups = 2 if k % 2 else 4
    out: Tensor = net.make(lambda: nn.Conv2d(x.shape[1], 8 + 8 * (k % 2), 1, groups=groups))(x)
    return out


def _depthwise(net: RandomNet, x: Tensor, k: int) -> Tensor:
    c = x.shape[1]
    out: Tensor = net.make(lambda: nn.Conv2d(c, c * (1 + k % 2), 3, padding=1, groups=c))(x)
    return out


def _transposed(net: RandomNet, x: Tensor, k: int) -> Tensor:
    c = x.shape[1]
    groups = (1, 2, c)[k % 3]
    out: Tensor = net.make(lambda: nn.ConvTranspose2d(c, c, 3, padding=1, groups=groups))(x)
    return out


def _standardised(net: RandomNet, x: Tensor, k: int) -> Tensor:
    w = net.weight(8, x.shape[1], 1, 1)
    return F.conv2d(
        x,
        (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), correction=0, keepdim=True) + 1),
    )


def _norm(net: RandomNet, x: Tensor, k: int) -> Tensor:
    c = x.shape[1]
    out: Tensor
    if k % 4 == 0:
        return net.make(lambda: nn.LayerNorm(c))(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]
    kinds = (lambda: nn.BatchNorm2d(c), lambda: nn.GroupNorm(2, c), lambda: nn.InstanceNorm2d(c))
    out = net.make(kinds[k % 4 - 1])(x)
    return out


def _rms(net: RandomNet, x: Tensor, k: int) -> Tensor:
    scale = torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-3)
    return x * scale * net.weight(x.shape[1]).view(1, -1, 1, 1)


def _skip(net: RandomNet, x: Tensor, k: int) -> Tensor:
    before = net.past[k % len(net.past)]
    if before.shape != x.shape:
        c = x.shape[1]
        before = net.make(lambda: nn.Conv2d(before.shape[1], c, 1))(before)
    return x + before


def _cat(net: RandomNet, x: Tensor, k: int) -> Tensor:
    return torch.cat([net.past[k % len(net.past)], x], 1)


def _gate(net: RandomNet, x: Tensor, k: int) -> Tensor:
    c = x.shape[1]
    h = F.relu(net.make(lambda: nn.Linear(c, 4))(x.mean((2, 3))))
    out: Tensor = x * torch.sigmoid(net.make(lambda: nn.Linear(4, c))(h))[:, :, None, None]
    return out


def _halves(net: RandomNet, x: Tensor, k: int) -> Tensor:
    a, b = x.chunk(2, 1)
    return (torch.cat([b, a], 1), a * b, torch.cat([a, a + b], 1))[k % 3]


def _shuffle(net: RandomNet, x: Tensor, k: int) -> Tensor:
    b, c, h, w = x.shape
    groups = 2 if k % 2 else 4
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def _order(net: RandomNet, x: Tensor, k: int) -> Tensor:
    c = x.shape[1]
    places = (torch.arange(c) * 3 + k) % c if c % 3 else torch.arange(c - 1, -1, -1)
    rows = places.view(1, -1, 1, 1).expand(x.shape)
    kinds = (
        lambda: x.flip(1),
        lambda: x.roll(k + 1, 1),
        lambda: x[:, places],
        lambda: x[:, ::2].repeat(1, 2, 1, 1),
        lambda: x.flip(2),
        lambda: x.gather(1, rows),
        lambda: x.index_select(1, places[: c // 2]).repeat(1, 2, 1, 1),
        lambda: x * x.select(1, k % c)[:, None],
        lambda: x.view(len(x), 2, -1, 4, 4).roll((1, 1), (2, 4)).reshape(x.shape),
        lambda: x * x.narrow(1, 1, 2).sum(1, keepdim=True),
    )
    return kinds[k % len(kinds)]()


def _slice(net: RandomNet, x: Tensor, k: int) -> Tensor:
    return x[:, :4] if k % 2 else x[:, -4:]


def _pad(net: RandomNet, x: Tensor, k: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 4 * (k % 2), 4))


def _across(net: RandomNet, x: Tensor, k: int) -> Tensor:
    kinds = (
        lambda: x.softmax(1),
        lambda: x - x.mean(1, keepdim=True),
        lambda: x * torch.sigmoid(x.max(1, keepdim=True)[0]),
        lambda: x / (x.norm(dim=1, keepdim=True) + 1),
        lambda: x.cumsum(1),
    )
    return kinds[k % 5]()


def _phases(net: RandomNet, x: Tensor, k: int) -> Tensor:
    if k % 2:
        return F.avg_pool2d(F.pixel_shuffle(torch.cat([x, x], 1), 2), 2)
    return F.pixel_unshuffle(F.interpolate(x[:, :8], scale_factor=2.0), 2)


def _attention(net: RandomNet, x: Tensor, k: int) -> Tensor:
    b, c = x.shape[:2]
    heads = 2
    t = x.flatten(2).transpose(1, 2)
    qkv = net.make(lambda: nn.Linear(c, 3 * heads * 8))(t)
    if k % 2:
        q, key, v = qkv.view(b, 16, 3, heads, 8).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        q, key, v = (p.view(b, 16, heads, 8).transpose(1, 2) for p in qkv.chunk(3, -1))
    if k % 4 < 2:
        out = F.scaled_dot_product_attention(q, key, v)
    else:
        out = torch.einsum("bhqk,bhkd->bhqd", torch.softmax(q @ key.transpose(2, 3), -1), v)
    out = net.make(lambda: nn.Linear(heads * 8, c))(out.transpose(1, 2).reshape(b, 16, -1))
    return (t + out).transpose(1, 2).unflatten(2, (4, 4))  # type: ignore[no-any-return]


def _tokens(net: RandomNet, x: Tensor, k: int) -> Tensor:
    h = F.relu(net.make(lambda: nn.Linear(16, 8))(x.flatten(2)))
    out: Tensor = net.make(lambda: nn.Linear(8, 16))(h)
    return out.view(x.shape)


def _branches(net: RandomNet, x: Tensor, k: int) -> Tensor:
    c = x.shape[1]
    both = torch.stack([net.make(lambda: nn.Conv2d(c, 8, 1))(x) for _ in range(2)], 1)
    return (both * both.mean((3, 4), keepdim=True).softmax(1)).sum(1)


def _in_place(net: RandomNet, x: Tensor, k: int) -> Tensor:
    y = x.clone()
    y[:, :4].mul_(2)
    y += x
    return y.relu_()


def _pointwise(net: RandomNet, x: Tensor, k: int) -> Tensor:
    return (F.gelu(x), torch.tanh(x) + 1, torch.where(x > 0, x, x * 0.1), F.glu(x, 1))[k % 4]


STEPS: dict[str, Step] = {
    "across": _across,
    "attention": _attention,
    "branches": _branches,
    "cat": _cat,
    "conv": _conv,
    "depthwise": _depthwise,
    "gate": _gate,
    "grouped": _grouped,
    "halves": _halves,
    "in_place": _in_place,
    "norm": _norm,
    "order": _order,
    "pad": _pad,
    "phases": _phases,
    "pointwise": _pointwise,
    "rms": _rms,
    "shuffle": _shuffle,
    "skip": _skip,
    "slice": _slice,
    "standardised": _standardised,
    "tokens": _tokens,
    "transposed": _transposed,
}
"""Name → step."""
