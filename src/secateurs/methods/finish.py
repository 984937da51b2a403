"""What every method does once it knows its mask: hold or remove, repair, train."""

from torch import nn

from secateurs.core.mask import Mask
from secateurs.graph.graph import Graph
from secateurs.methods.task import Pruned, Task
from secateurs.realise.compact import Compacted, compact
from secateurs.realise.masked import masked
from secateurs.recovery.batchnorm import recalibrate_


def held(task: Task, model: nn.Module, mask: Mask, *, name: str) -> None:
    """Repair and train `model` in place while the mask holds; masked entries end as zeros."""
    with masked(model, mask):
        repair(task, model)
        if task.train is not None:
            task.train(model, name=name)


def repair(task: Task, model: nn.Module) -> None:
    """Measure the batch norms' statistics of `model` anew, where there are data to do it with."""
    if task.batches is not None:
        recalibrate_(model, task.batches())


def remove(task: Task, model: nn.Module, mask: Mask, graph: Graph) -> Compacted:
    """Take out the units the mask has emptied, prove it, and repair what is left."""
    small = compact(model, graph, mask, task.example)
    repair(task, small.model)
    return small


def finish(task: Task, model: nn.Module, mask: Mask, graph: Graph | None) -> Pruned:
    """Realise a mask: remove units where there is a graph, hold zeros otherwise; then train."""
    if graph is None:
        held(task, model, mask, name="recover")
        return Pruned(model, mask)
    small = remove(task, model, mask, graph)
    if task.train is not None:
        task.train(small.model, name="recover")
    return Pruned(small.model, small.mask, graph, small)
