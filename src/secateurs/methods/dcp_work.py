"""A stage of discrimination-aware pruning: its classifier, its tuning, its selection."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.core.cut import keep_top
from secateurs.core.errors import PruneError
from secateurs.granularity.coupled import Coupled
from secateurs.measure.forward import device_of, evaluation
from secateurs.methods.dcp_greedy import Greedy, greedy
from secateurs.methods.readers import Reader
from secateurs.recovery.seeds import forked

Batches = list[tuple[Any, Tensor]]


class Head(nn.Module):
    """An auxiliary classifier: batch norm, ReLU, mean over positions, linear."""

    def __init__(self, channels: int, classes: int, *, spatial: bool) -> None:
        """Read outputs of `channels`, which come second if `spatial`, else last."""
        super().__init__()
        self.spatial = spatial
        self.norm, self.fc = nn.BatchNorm1d(channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map a layer's output to scores, (batch, classes)."""
        x = x if self.spatial else x.movedim(-1, 1)
        x = self.norm(x.reshape(*x.shape[:2], -1)).relu().mean(dim=2)
        scores: Tensor = self.fc(x)
        return scores


@dataclass(frozen=True)
class Refit:
    """How units are added, see `dcp`."""

    passes: int
    lr: float
    rounds: int
    adapt: float


@dataclass
class Work:
    """The network being pruned, and what its layers are compared with."""

    model: nn.Module
    baseline: nn.Module
    batches: Batches
    weight: float
    seed: int
    decision: dict[str, Tensor] = field(default_factory=dict)
    cleared: list[tuple[Reader, Tensor]] = field(default_factory=list)
    """Layers and the units they still read."""

    def clear_(self) -> None:
        """Keep what was dropped at zero."""
        for reader, keep in self.cleared:
            reader.clear_(keep)

    def head(self, path: str | None) -> "tuple[str, Head] | None":
        """Build the classifier that reads a layer's output; None for the network's own."""
        if path is None:
            return None
        with evaluation(self.model), listening(self.model, [path]) as heard:
            scores = self.model(self.batches[0][0])
        spatial = heard[path].dim() > 3 or not isinstance(self.model.get_submodule(path), nn.Linear)
        channels = heard[path].shape[1 if spatial else -1]
        with forked():
            torch.manual_seed(self.seed)
            made = Head(channels, scores.shape[1], spatial=spatial)
        return path, made.to(device_of(self.model))

    def tune_(self, head: "tuple[str, Head] | None", passes: int, lr: float) -> None:
        """Train everything on the stage's loss and on the final one in turn."""
        aims = [head, None] if head else [None]
        parameters = [*self.model.parameters(), *(head[1].parameters() if head else ())]
        optimizer = torch.optim.SGD(
            parameters, lr=lr, momentum=0.9, weight_decay=1e-4, nesterov=True
        )
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.train()
        for _ in range(passes):
            for x, y in self.batches:
                for aim in aims:
                    optimizer.zero_grad()
                    loss = self._stage_loss(aim, x, y)
                    _backward(loss)
                    optimizer.step()
                    self.clear_()
        for module, training in modes:
            module.training = training

    def _stage_loss(self, head: "tuple[str, Head] | None", x: Any, y: Tensor) -> Tensor:
        if head is None:
            return F.cross_entropy(self.model(x), y)
        with listening(self.model, [head[0]]) as heard:
            self.model(x)
        return F.cross_entropy(head[1](heard[head[0]]), y)

    def select_(
        self,
        who: list[Reader],
        keep: int,
        site: Coupled,
        head: "tuple[str, Head] | None",
        how: "Refit",
    ) -> Tensor:
        """Build up the units that some layers read, and fit their weights in place."""
        tuned = [r.linear.weight.detach().clone() for r in who]
        params = [r.linear.weight for r in who]
        targets = self._targets([r.path for r in who])
        paths = [r.path for r in who] + ([head[0]] if head else [])
        open_entries = [self._open(r) for r in who]
        none = torch.zeros(site.units, dtype=torch.bool)

        def loss(i: int) -> Tensor:
            x, y = self.batches[i]
            with listening(self.model, paths) as heard:
                scores = self.model(x)
            apart = [
                F.mse_loss(heard[r.path], target) / 2
                for r, target in zip(who, targets[i], strict=True)
            ]
            total = torch.stack(apart).sum()
            if self.weight:
                scores = head[1](heard[head[0]]) if head else scores
                total = total + self.weight * F.cross_entropy(scores, y)
            return total

        def gradients(i: int) -> tuple[float, tuple[Tensor, ...]]:
            with torch.enable_grad():
                value = loss(i)
                found = torch.autograd.grad(value, params)
            if not isfinite(float(value)):
                raise PruneError(
                    f"the loss became {float(value)} while refitting; lower lr={how.lr:g}"
                )
            return float(value), found

        def gradient(chosen: Tensor) -> tuple[float, Tensor]:
            value, total = 0.0, [torch.zeros_like(p) for p in params]
            for i in range(len(self.batches)):
                one, some = gradients(i)
                value += one / len(self.batches)
                total = [a + b for a, b in zip(total, some, strict=True)]
            return value, unit_norms(who, total, site.units)

        def fit(chosen: Tensor, added: Tensor) -> None:
            allowed = [_columns(r, chosen) & o for r, o in zip(who, open_entries, strict=True)]
            fresh = [_columns(r, added) & ~_columns(r, ~added) for r in who]
            with torch.no_grad():
                for p, start, new, some in zip(params, tuned, fresh, allowed, strict=True):
                    p.copy_(torch.where(new, start, p) * some)
            momentum = [torch.zeros_like(p) for p in params]
            for _ in range(how.passes if bool(chosen.any()) else 0):
                for i in range(len(self.batches)):
                    found = gradients(i)[1]
                    with torch.no_grad():
                        for p, g, m, some in zip(params, found, momentum, allowed, strict=True):
                            m.mul_(0.9).add_(g * some)
                            p.sub_(how.lr * (g * some + 0.9 * m))

        with evaluation(self.model):
            modes = head[1].training if head else False
            if head:
                head[1].eval()
            fit(none, none)
            steps = Greedy(site.units, keep, max(1, -(-keep // how.rounds)), how.adapt)
            found = greedy(steps, gradient, fit)
            pools = site.units // site.among if site.among else 1
            kept = int(found.chosen.sum())
            # A pool keeps its share of what is kept, which adapting may have lowered.
            final = keep_top(found.scores, max(1, kept // pools), site.among)
            if head:
                head[1].train(modes)
        return final

    def _open(self, reader: Reader) -> Tensor:
        """Say which entries of a layer's weight earlier choices leave: bool of its shape."""
        left = torch.ones_like(reader.linear.weight, dtype=torch.bool)
        for other, keep in self.cleared:
            if other.path == reader.path:
                left &= _columns(other, keep)
        return left

    def _targets(self, paths: list[str]) -> list[list[Tensor]]:
        targets = []
        with evaluation(self.baseline), listening(self.baseline, paths) as heard:
            for x, _ in self.batches:
                self.baseline(x)
                targets.append([heard[path] for path in paths])
        return targets


def unit_norms(who: list[Reader], gradients: list[Tensor], units: int) -> Tensor:
    """Return the norm of each unit's gradient over all that read it, (units,)."""
    squares = torch.zeros(units, dtype=torch.float64)
    for reader, gradient in zip(who, gradients, strict=True):
        linear = reader.linear
        g = gradient.T if linear.transposed else gradient
        share = g.reshape(linear.groups, -1, g[0].numel()).double().square().sum(dim=1).cpu()
        owner = reader.units_of_columns()
        squares.index_add_(0, owner[owner >= 0], share[owner >= 0])
    return squares.sqrt()


def _columns(reader: Reader, keep: Tensor) -> Tensor:
    """Say which entries of a reader's weight read units that stay: bool of its shape."""
    linear, weight = reader.linear, reader.linear.weight
    matrix = reader.columns(keep.to(weight.device))[:, None]
    whole = matrix.expand(linear.matrix().shape)
    return whole.reshape(weight.shape[::-1]).T if linear.transposed else whole.reshape(weight.shape)


@contextmanager
def listening(model: nn.Module, paths: list[str]) -> Iterator[dict[str, Tensor]]:
    """Hold the last output of some layers."""
    heard: dict[str, Tensor] = {}
    modules: Mapping[str, nn.Module] = dict(model.named_modules())

    def keep(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            heard[path] = output

        return hook

    handles = [modules[path].register_forward_hook(keep(path)) for path in dict.fromkeys(paths)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _backward(loss: Tensor) -> None:
    if not bool(loss.isfinite()):
        raise PruneError(f"the loss became {loss.item()} while tuning a stage; lower tune_lr")
    loss.backward()  # type: ignore[no-untyped-call]
