"""Factorise kernels, then outputs, then prune channels: each fitted to what the original sends."""

import copy
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secateurs.budget.ranks import Spectrum, least, share_ranks
from secateurs.core.errors import BudgetError, PruneError
from secateurs.core.example import Example, call
from secateurs.core.mask import Mask
from secateurs.core.within import Amount, Count, Part, checked
from secateurs.granularity.patterns import chosen
from secateurs.graph.graph import Graph
from secateurs.graph.trace import trace
from secateurs.measure.compute import macs
from secateurs.measure.forward import device_of, evaluation, to_device
from secateurs.methods.lasso_channels import lasso_channels
from secateurs.methods.task import Pruned, Target, Task
from secateurs.realise.factored import Factored, factors, split_kernel, split_outputs, unrolled
from secateurs.recovery.follow import Following
from secateurs.recovery.layerwise import Layerwise, pairs
from secateurs.recovery.low_rank import reduced, reduced_before_relu


@checked
def three_c(
    task: Task,
    target: Target,
    *,
    kernels: bool = True,
    outputs: bool = True,
    channels: Part = 0.87,
    positions: Count = 16,
    ridge: Amount = 1e-3,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Write k x k convolutions as k x 1 and 1 x k, then with fewer outputs and a 1 x 1; prune.

    Ranks come from a cost that both factorisations share evenly, by what a unit of cost buys
    of a layer's energy. Front to back, the layers that are left are fitted to what the
    original computes, on inputs of the network as it is by then; a layer that a ReLU reads is
    fitted through it.

    Source: He, Zhang & Sun 2017, arXiv:1707.06168, section 4.1.1 (3C); Jaderberg et al. 2014,
    arXiv:1405.3866; Zhang et al. 2015, arXiv:1505.06798. Deviations: all layers finish one
    step before the next begins, where the paper takes the three layer by layer; channels are
    chosen for what the factorised network sends, whose inner ranks stay; before a batch norm
    outputs are fitted as they are.

    Args:
        task: model and data; labels are not used.
        target: which share of the MACs stays; of no other kind.
        kernels: whether kernels become a column and a row.
        outputs: whether outputs become fewer, with a 1 x 1 behind.
        channels: the share of what is left then that pruning channels leaves; 1 prunes none.
        positions: how many positions of each input are looked at.
        ridge: pull towards the weights that are there, relative to the inputs' mean square.
        exclude: patterns of weights of convolutions that stay as they are.

    Raises:
        PruneError: the task has no data, or nothing is to be done.
        BudgetError: the target is none of MACs, or cannot be met; names the reachable range.
    """
    if task.batches is None:
        raise PruneError("outputs are fitted on inputs; pass Task(batches=...)")
    if target.kind != "macs":
        raise BudgetError(f"factors are chosen by their MACs, not {target.kind}; use --macs")
    steps = [step for step, wanted in ((_kernels, kernels), (_outputs, outputs)) if wanted]
    if not steps and channels == 1:
        raise PruneError("nothing is to be done; leave kernels, outputs or channels in")
    model = copy.deepcopy(task.model)
    whole = macs(model, task.example)
    work = Work(task, model, positions, ridge, exclude)
    for i, step in enumerate(steps, start=1):
        left = min(1.0, (target.fraction / channels) ** (i / len(steps)))
        step(work, left * whole, i == len(steps))
    if channels == 1:
        if task.train is not None:
            task.train(model, name="recover")
        return Pruned(model, Mask({}))
    rest = min(1.0, target.fraction * whole / macs(model, task.example))
    inner = _inner(model)
    return lasso_channels(
        replace(task, model=model),
        Target("macs", rest, target.multiple_of),
        positions=positions,
        ridge=ridge,
        exclude=tuple(name for name in trace(model, task.example).buckets if name in inner),
    )


@dataclass(frozen=True)
class Work:
    """A model on its way, and what its steps need."""

    task: Task
    model: nn.Module
    """Changed in place."""
    positions: int
    ridge: float
    exclude: tuple[str, ...]

    def convolutions(self) -> dict[str, nn.Conv2d]:
        """List by path of the original what may be factorised: the last part of each.

        Raises:
            PruneError: there is nothing of the kind.
        """
        paths = [path for path, m in self.task.model.named_modules() if isinstance(m, nn.Conv2d)]
        found = {path: self.model.get_submodule(end_of(self.model, path)) for path in paths}
        convs = {p: c for p, c in found.items() if isinstance(c, nn.Conv2d) and factors(c)}
        if not convs:
            raise PruneError(
                f"{type(self.model).__name__} has no 2-d convolution without groups; "
                "use --method lasso_channels"
            )
        names = {path: (f"{path}.weight",) for path in convs}
        return {path: convs[path] for path in chosen(names, None, self.exclude or None)}

    def ranks(self, layers: dict[str, Spectrum], budget: float, last: bool) -> dict[str, int]:
        """Share ranks so that the model costs `budget` MACs, or as near as one of two steps can."""
        rest = macs(self.model, self.task.example) - sum(x.whole for x in layers.values())
        budget = budget if last else max(budget, least(layers, rest))
        shared = share_ranks(layers, budget, rest)
        return {path: rank for path, rank in shared.items() if rank is not None}

    def layerwise(self, paths: Iterable[str]) -> Layerwise:
        """Compare the last convolution at each path with what the original sends there."""
        tensors = (*self.task.model.parameters(), *self.task.model.buffers())
        original = copy.deepcopy(self.task.model, {id(t): t for t in tensors})
        for path in paths:
            here = self.model.get_submodule(path)
            if isinstance(here, Factored):  # then the original's is moved to the same path
                same = [nn.Identity() for _ in here[:-1]]
                convolution = original.get_submodule(path)
                original.set_submodule(path, nn.Sequential(*same, convolution))
        ends = [end_of(self.model, path) for path in paths]
        wanted, _ = pairs(self.model, original, {}, ends)
        assert self.task.batches is not None
        batches, seed = self.task.batches(), self.task.seed
        return Layerwise.of(
            self.model, original, batches, wanted, positions=self.positions, seed=seed
        )


def _kernels(work: Work, budget: float, last: bool) -> None:
    """Write kernels as columns and rows, and fit the rows."""
    convs = {p: c for p, c in work.convolutions().items() if min(c.kernel_size) > 1}
    sizes, layers = shapes(work.task.model, work.task.example, convs), {}
    for path, (x, y) in sizes.items():
        conv = convs[path]
        column = conv.in_channels * conv.kernel_size[0] * y[0] * y[2] * x[3]
        row = conv.out_channels * conv.kernel_size[1] * y[0] * y[2] * y[3]
        energies = torch.linalg.svdvals(unrolled(conv.weight)).square()
        layers[path] = Spectrum(energies, column + row, cost(conv, y))
    ranks = work.ranks(layers, budget, last)
    for path, rank in ranks.items():
        work.model.set_submodule(path, split_kernel(convs[path], rank))
    if not ranks:
        return
    fitting = work.layerwise(ranks)
    for end in fitting.targets:
        fit = fitting.fit_(end, work.ridge)
        work.task.say(f"kernels of {end}: error {fit.before:.3g} before, {fit.after:.3g} after")


def _outputs(work: Work, budget: float, last: bool) -> None:
    """Let convolutions send fewer outputs, and a 1 x 1 make the others of them."""
    convs = work.convolutions()
    fitting, sizes = work.layerwise(convs), shapes(work.task.model, work.task.example, convs)
    relus = read_by_relu(trace(work.task.model, work.task.example))
    by_end = {end_of(work.model, path): path for path in sizes}
    order = {end: by_end[end] for end in fitting.targets if end in by_end}
    layers = {}
    for end, path in order.items():
        conv, y = convs[path], sizes[path][1]
        whole = cost(conv, y)
        price = whole / conv.out_channels + conv.out_channels * y[0] * y[2] * y[3]
        layers[path] = Spectrum(variances(torch.cat(fitting.targets[end].y)), price, whole)
    ranks = work.ranks(layers, budget, last)
    for end, path in order.items():
        if path not in ranks:
            continue
        conv, rank = convs[path], ranks[path]
        x, wanted = fitting.rows(end)
        sent = x.flatten(1) @ conv.weight.detach().flatten(1).T
        if conv.bias is not None and f"{path}.weight" in relus:
            left, right, constant = reduced_before_relu(sent, wanted, rank)
        else:
            movable = fitting.movable(end)
            left, right, constant = reduced(sent, wanted, rank, constant=movable)
            if conv.bias is None and movable:
                fitting.set_constant_(end, constant)
        fitting.fitted.add(end)
        here = work.model.get_submodule(path)
        before = here[:-1] if isinstance(here, Factored) else ()
        parts = split_outputs(conv, left, right, constant)
        work.model.set_submodule(path, Factored(*before, *parts))
        work.task.say(f"outputs of {path}: {rank} of {conv.out_channels}")


def cost(conv: nn.Conv2d, y: torch.Size) -> float:
    """Multiply-accumulates of a convolution that sends `y`."""
    return float(conv.weight.numel() * y[0] * y[2] * y[3])


def variances(rows: Tensor) -> Tensor:
    """Variances of rows, (rows, out), along their principal axes: (out,), descending."""
    rows = rows.double() - rows.double().mean(0)
    found: Tensor = torch.linalg.eigvalsh(rows.T @ rows)
    return found.flip(0).clamp(min=0)


def end_of(model: nn.Module, path: str) -> str:
    """Return the path of what sends the outputs of the convolution that was at `path`."""
    here = model.get_submodule(path)
    if not isinstance(here, Factored):
        return path
    return f"{path}.{len(here) - 1}" if path else str(len(here) - 1)


def shapes(
    model: nn.Module, example: Example, paths: Iterable[str]
) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Run a model: path → shapes of the input and the output of a module called once."""
    found: dict[str, list[tuple[torch.Size, torch.Size]]] = defaultdict(list)

    def heard(path: str, x: Tensor, y: Tensor) -> None:
        found[path].append((x.shape, y.shape))

    with evaluation(model), Following(model, list(paths), heard):
        call(model, to_device(example, device_of(model)))
    return {path: calls[0] for path, calls in found.items() if len(calls) == 1}


def read_by_relu(graph: Graph) -> set[str]:
    """List the weights of convolutions whose output a ReLU reads, and nothing else."""
    found = set()
    for node in graph.module.graph.nodes:
        if node.target != torch.ops.aten.conv2d.default or node.args[1].op != "get_attr":
            continue
        relus = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
        if node.users and all(user.target in relus for user in node.users):
            name = str(node.args[1].target)
            found.add(graph.names.get(name, name))
    return found


def _inner(model: nn.Module) -> set[str]:
    """List the buckets that are ranks: outputs of all but the last part of a factorisation."""
    return {
        f"{path}.{i}.weight:0" if path else f"{i}.weight:0"
        for path, module in model.named_modules()
        if isinstance(module, Factored)
        for i in range(len(module) - 1)
    }
