"""Choose input channels by the LASSO, and fit what is left by least squares."""

import copy
import warnings
from typing import cast

import torch
from torch import Tensor

from secateurs.core.cut import decide, keep_top, scatter, score
from secateurs.core.errors import PruneError
from secateurs.core.site import Sites
from secateurs.core.within import Amount, Count, checked
from secateurs.criteria.table import CRITERIA
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import Coupled
from secateurs.methods.finish import repair, trained
from secateurs.methods.readers import Reader, readers, shares
from secateurs.methods.task import Pruned, Target, Task
from secateurs.methods.where import named, where
from secateurs.realise.compact import compact
from secateurs.recovery.layerwise import Layerwise, pairs
from secateurs.recovery.normal import Normal


@checked
def lasso_channels(
    task: Task,
    target: Target,
    *,
    positions: Count = 16,
    ridge: Amount = 1e-3,
    refit: bool = True,
    densities: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Pruned:
    """Choose the input channels that rebuild each layer's output best, then fit the weights.

    Front to back: what a layer reads comes from the network as pruned so far, what it
    should send from the original one.

    Source: He, Zhang & Sun 2017, arXiv:1707.06168, eq. 1 to 3, sections 3.1 and 3.2.
    Deviations: channels that several layers read, such as a residual stream's, are chosen
    by all of them together, each weighed by the variance of its output, when the first of
    them comes up, and are removed, where the paper puts a sampler before the branch. The
    LASSO is solved from second moments, so all positions count and memory does not grow
    with them. Units that no layer reads by a weight of its own (queries and keys) are
    chosen by norm. Factorisation (3C) is `three_c`. Statistics across channels (layer norm)
    still see the whole stream while channels are chosen; `--repair least-squares` fits the
    layers once more without it.

    Args:
        task: model and data; labels are not used.
        target: how much stays; every bucket keeps the same share.
        positions: how many positions of each input are looked at.
        ridge: pull towards the weights that are there, relative to the inputs' mean square.
        refit: whether weights are fitted at all; False leaves the choice alone to work.
        densities: NAME=FRACTION for buckets that keep another share, for a density target.
        exclude: patterns of bucket names that stay whole.

    Raises:
        PruneError: the task has no data.
        BudgetError: the target cannot be met.
    """
    if task.batches is None:
        raise PruneError("the LASSO looks at inputs; pass Task(batches=...)")
    model = copy.deepcopy(task.model)
    place = where(model, task.example, "out_channel", exclude=exclude)
    assert place.graph is not None
    sites = cast(dict[str, Coupled], place.sites)
    counts = shares(place, target, named(densities, sites))
    reading = readers(model, sites)
    paths = dict.fromkeys(r.path for rs in reading.values() for r in rs)
    wanted, _ = pairs(model, task.model, {}, paths)
    work = Layerwise.of(
        model, task.model, task.batches(), wanted, positions=positions, seed=task.seed
    )
    decision: dict[str, Tensor] = {}
    for path in work.targets:
        for name, who in reading.items():
            if name not in decision and path in (r.path for r in who):
                keep = choose(work, who, counts[name], sites[name])
                decision[name] = keep
                for reader in who:
                    reader.clear_(keep)
        if refit:
            columns = stays(path, reading, decision)
            fit = work.fit_(path, ridge, columns)
            task.say(f"fitted {path}: error {fit.before:.3g} before, {fit.after:.3g} after")
    rest: Sites = {name: site for name, site in sites.items() if name not in decision}
    scores = score(rest, CRITERIA["l2"], weight=weights(model))
    decision |= decide(rest, scores, counts)
    small = compact(model, place.graph, scatter(sites, decision), task.example)
    if not refit or task.repair == "least-squares":
        repair(task, small, task.model)
    return trained(task, small, place.graph)


def choose(work: Layerwise, who: list[Reader], keep: int, site: Coupled) -> Tensor:
    """Say which units of a bucket its readers need most, exactly `keep`: → bool (units,)."""
    gram = torch.zeros(site.units, site.units, dtype=torch.float64)
    moment = torch.zeros(site.units, dtype=torch.float64)
    for reader in who:
        if reader.path not in work.targets:
            continue
        sums = work.sums(reader.path)
        sums = sums.centred() if work.movable(reader.path) else sums
        weight = float(1 / sums.squares.sum().clamp(min=1e-30))
        one, other = contributions(sums, reader.linear.matrix(), reader.units_of_columns())
        gram += weight * one[: site.units, : site.units].cpu()
        moment += weight * other[: site.units].cpu()
    pools = site.units // site.among if site.among else 1
    return keep_top(survival(gram, moment, keep), keep // pools, site.among)


def contributions(sums: Normal, matrix: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Second moments of what each unit adds to a layer's output, and with the target.

    With z_i the part of the output that unit i makes, over all rows and outputs:

    Args:
        sums: of the layer's inputs and targets.
        matrix: (groups, out, size).
        units: (groups, size), the unit of each column, -1 for none.

    Returns:
        z_i · z_j, (units + 1, units + 1), and z_i · y, (units + 1,); the last is of columns
        that belong to no unit. What those add is taken off the target.
    """
    matrix = matrix.to(sums.gram)
    count = int(units.max()) + 1
    index = torch.where(units < 0, count, units).to(matrix.device)
    both = sums.gram * torch.einsum("gos,got->gst", matrix, matrix)
    gram = torch.zeros(count + 1, count + 1, dtype=both.dtype, device=both.device)
    for g in range(len(both)):
        rows = torch.zeros(count + 1, both.shape[2], dtype=both.dtype, device=both.device)
        rows.index_add_(0, index[g], both[g])
        gram.index_add_(1, index[g], rows)
    moment = torch.zeros(count + 1, dtype=both.dtype, device=both.device)
    moment.index_add_(0, index.flatten(), (sums.cross * matrix).sum(dim=1).flatten())
    return gram, moment - gram[:, count]


def lasso(gram: Tensor, moment: Tensor, penalty: float) -> Tensor:
    """Minimise ½ βᵀ gram β − moment · β + penalty · Σ|β|: → (units,), float64.

    Uses scikit-learn on a square root of `gram`, which has as many rows as units.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    values, vectors = torch.linalg.eigh(gram.double())
    solid = values > values[-1].clamp(min=0) * 1e-10
    if not bool(solid.any()):
        return torch.zeros(len(gram), dtype=torch.float64)
    root = values[solid].sqrt()
    x = (vectors[:, solid] * root).T
    y = (vectors[:, solid].T @ moment.double()) / root
    solver = Lasso(alpha=max(penalty, 1e-300) / len(x), fit_intercept=False, tol=1e-6)
    with warnings.catch_warnings():
        # At penalties near zero the descent creeps; a rough answer is enough to bisect.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = solver.fit(x.numpy(), y.numpy())
    beta = torch.from_numpy(fit.coef_)
    # Twins share a coefficient up to rounding; the one that got none should read as none.
    return torch.where(beta.abs() > 1e-5 * beta.abs().max(), beta, 0.0)


def survival(gram: Tensor, moment: Tensor, keep: int) -> Tensor:
    """Score units by how long they survive a growing penalty: → (units,).

    The penalty is raised until at most `keep` coefficients are left; those come first, by
    size, then those that the next smaller penalty had left.
    """
    low, high = 0.0, float(moment.abs().max()) + 1e-30
    best, looser = torch.zeros_like(moment), moment.abs()
    for _ in range(30):
        middle = (low + high) / 2
        beta = lasso(gram, moment, middle).abs()
        if int((beta > 0).sum()) > keep:
            low, looser = middle, beta
        else:
            high, best = middle, beta
            if int((beta > 0).sum()) == keep:
                break
    ranked = looser / (looser.max() + 1e-30) / 2
    return torch.where(best > 0, 1 + best, ranked)


def stays(
    path: str, reading: dict[str, list[Reader]], decision: dict[str, Tensor]
) -> Tensor | None:
    """Say which columns of a layer are still read: bool (groups, size); None for all."""
    columns = None
    for name, who in reading.items():
        for reader in who:
            if reader.path == path and name in decision:
                mine = reader.columns(decision[name])
                columns = mine if columns is None else columns & mine
    return columns
