"""What every method does once it knows its mask: hold or remove, repair, train."""

from torch import nn

from secateurs.core.mask import Mask
from secateurs.graph.graph import Graph
from secateurs.methods.task import Pruned, Task
from secateurs.realise.compact import Compacted, compact
from secateurs.realise.masked import masked
from secateurs.recovery.batchnorm import recalibrate_
from secateurs.recovery.least_squares import reconstruct_
from secateurs.recovery.renormalise import renormalise_


def held(task: Task, model: nn.Module, mask: Mask, *, name: str, epochs: int | None = None) -> None:
    """Repair and train `model` in place while the mask holds; masked entries end as zeros."""
    with masked(model, mask):
        if task.batches is not None and task.repair != "none":
            recalibrate_(model, task.batches())
        if task.train is not None:
            task.train(model, name=name, epochs=epochs)


def repair(task: Task, small: Compacted, original: nn.Module) -> None:
    """Mend `small.model` in place as the task says, where there are inputs to do it with."""
    if task.batches is None or task.repair == "none":
        return
    if task.repair == "bn":
        renormalise_(small.model, original, task.batches(), small.kept)
        recalibrate_(small.model, task.batches())
        return
    # The fit ends with the statistics that the original's batch norms expect.
    done = reconstruct_(small.model, original, task.batches(), small.kept, seed=task.seed)
    for layer, fit in done.fits.items():
        task.say(f"fitted {layer}: error {fit.before:.3g} before, {fit.after:.3g} after")
    if done.skipped:
        task.say(f"left as they are: {', '.join(done.skipped)}")


def remove(
    task: Task, model: nn.Module, mask: Mask, graph: Graph, *, like: nn.Module | None = None
) -> Compacted:
    """Take out the units the mask has emptied, prove it, and repair what is left.

    Layers are repaired to compute what those of `like` do, which has the shapes of `model`
    and is `model` itself when None.
    """
    small = compact(model, graph, mask, task.example)
    repair(task, small, model if like is None else like)
    return small


def finish(
    task: Task,
    model: nn.Module,
    mask: Mask,
    graph: Graph | None,
    *,
    like: nn.Module | None = None,
) -> Pruned:
    """Realise a mask: remove units where there is a graph, hold zeros otherwise; then train."""
    if graph is None:
        held(task, model, mask, name="recover")
        return Pruned(model, mask)
    return trained(task, remove(task, model, mask, graph, like=like), graph)


def trained(task: Task, small: Compacted, graph: Graph) -> Pruned:
    """Train a smaller model and hand it back."""
    if task.train is not None:
        task.train(small.model, name="recover")
    return Pruned(small.model, small.mask, graph, small)
