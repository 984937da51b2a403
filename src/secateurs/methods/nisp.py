"""NISP: importance of the last features, propagated back to every channel."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from secateurs.core.cut import decide, scatter, score
from secateurs.core.errors import EvidenceError, StructureError
from secateurs.core.within import Proportion, checked
from secateurs.criteria.magnitude import l2
from secateurs.evidence.batches import evaluating
from secateurs.evidence.inf_fs import inf_fs
from secateurs.evidence.interpret import Program, portions
from secateurs.evidence.propagated import last_features, propagate
from secateurs.evidence.weights import weights
from secateurs.graph.graph import Graph
from secateurs.methods.channels import filters, removable, share
from secateurs.methods.finish import finish
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import check

Final = Literal["inf_fs", "outputs"]


@checked
def nisp(
    task: Task,
    target: Target,
    *,
    final: Final = "inf_fs",
    alpha: Proportion = 0.5,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Remove the channels that matter least to the last features, then train the rest.

    The features that the classifier reads are scored by how much they vary and how little
    they repeat each other; their importance is propagated back through the absolute weights,
    layer by layer, each cut before it sends importance on. Every layer keeps the same
    fraction of its channels, because scores of different layers do not compare.

    Source: Yu et al. 2018, arXiv:1711.05908; see `secateurs.evidence.propagated` for what
    differs. Channels that get no importance at all, such as queries and keys of attention, are
    ranked by the length of their filters.

    Args:
        task: model, data and training.
        target: how much stays.
        final: where importance begins: `inf_fs` scores the last features on the task's
            batches; `outputs` counts every output alike and needs no data.
        alpha: weight of a feature's variation against its difference from the others.
        exclude: patterns of parameter names that stay whole.

    Raises:
        EvidenceError: `inf_fs` without batches.
        StructureError: `inf_fs`, and the model does not end in one linear layer.
        BudgetError: the target cannot be met.
    """
    check("final", final, ("inf_fs", "outputs"))
    model = copy.deepcopy(task.model)
    place = removable(model, task.example, exclude)
    start = None
    if final == "inf_fs":
        start = inf_fs(features(task, model, place.graph), alpha=alpha)
    by_length = score(filters(place.sites, model), l2, weight=weights(model))
    quota = share(place, by_length, target, "uniform")
    decision, scores = propagate(place.graph, model, task.example, quota, start)
    silent = [name for name, found in scores.items() if not bool(found.any())]
    fallback = decide(place.sites, by_length, quota)
    decision = {n: fallback[n] if n in silent else keep for n, keep in decision.items()}
    return finish(task, model, scatter(place.sites, decision), place.graph)


def features(task: Task, model: nn.Module, graph: Graph) -> Tensor:
    """What the classifier reads on the task's batches, (samples, features).

    Raises:
        EvidenceError: there are no batches.
        StructureError: the model does not end in one linear layer.
    """
    if task.batches is None:
        raise EvidenceError(
            "scoring the last features needs data, and the task has no batches; "
            "use final=outputs, which needs none"
        )
    node = last_features(graph)
    if node is None:
        raise StructureError(
            f"{type(model).__name__} does not end in one linear layer whose input could be "
            "scored; use final=outputs"
        )
    found: list[Tensor] = []

    def visit(at: object, result: Tensor) -> Tensor:
        if at is node:
            found.append(result.reshape(-1, result.shape[-1]))
        return result

    program = Program(graph, model, visit=visit)
    with evaluating(model), torch.no_grad():
        for inputs in portions(task.batches(), task.example):
            program.call(inputs)
    return torch.cat(found)
