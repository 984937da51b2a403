"""AC/DC: train by turns with everything and with the largest weights alone."""

import torch

from secateurs.core.cut import score, select
from secateurs.core.errors import PruneError
from secateurs.core.mask import Mask
from secateurs.core.within import Part, Proportion, checked
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.methods.during import training
from secateurs.methods.start import begin
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import Ranking, quota, where
from secateurs.realise.masked import masked


@checked
def ac_dc(
    task: Task,
    target: Target,
    *,
    granularity: str = "element",
    ranking: Ranking = "global",
    warm: Proportion = 0.1,
    phase: Part = 0.05,
    dense: Proportion = 0.75,
    sparse: Proportion = 0.85,
    fresh: bool = True,
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Alternate sparse phases, whose mask is cut anew each time, with dense ones; end sparse.

    In a sparse phase the mask is fixed; in the dense phase after it the rest grows from zero.

    Source: Peste et al. 2021, arXiv:2106.12379, algorithm 1; the shares of the training are
    those of its hundred epochs. Deviation: momentum is not reset; behind a mask it has had a
    phase to fade in.

    Args:
        task: model, data and training.
        target: how much stays in sparse phases, and in the end.
        granularity: what is cut; all but `out_channel`, whose units cannot come back.
        ranking: how the target is shared among the sites; see `magnitude`.
        warm: share of the training before the first sparse phase.
        phase: share of the training that a phase takes.
        dense: when the last dense phase begins.
        sparse: when the last sparse phase begins, which fine-tunes.
        fresh: whether to train from new weights instead of the task's.
        exclude: patterns of parameter names that stay whole.

    Raises:
        PruneError: the task does not train, or does not say for how long, or the shares are
            not in order.
        BudgetError: the target cannot be met.
    """
    train, steps = training(task, "AC/DC")
    if not warm <= dense <= sparse < 1:
        raise PruneError(
            f"warm {warm:g}, dense {dense:g} and sparse {sparse:g} are no order of phases; "
            "use warm <= dense <= sparse < 1"
        )
    model = begin(task, fresh)
    place = where(model, task.example, granularity, exclude=exclude)

    def cut() -> Mask:
        scores = score(place.sites, l1, weight=weights(model))
        return select(place.sites, scores, quota(place, scores, target, ranking))

    whole = {n: torch.ones_like(keep) for n, keep in cut().items()}
    with masked(model, whole) as held:

        def after_step(step: int) -> None:
            before, now = (
                compressed(s / steps, warm=warm, phase=phase, dense=dense, sparse=sparse)
                for s in (step - 1, step)
            )
            if now != before:
                held.update(cut() if now else whole)

        train(model, name="ac-dc", after_step=after_step)
        mask = held.mask
    return Pruned(model, mask)


def compressed(t: float, *, warm: float, phase: float, dense: float, sparse: float) -> bool:
    """Say whether the network is sparse at progress t, 0 to 1.

    >>> shares = {"warm": 0.1, "phase": 0.2, "dense": 0.7, "sparse": 0.8}
    >>> [compressed(t, **shares) for t in (0.05, 0.15, 0.35, 0.55, 0.75, 0.9)]
    [False, True, False, True, False, True]
    """
    if t >= sparse:
        return True
    if t < warm or t >= dense:
        return False
    return int((t - warm) / phase + 1e-9) % 2 == 0
