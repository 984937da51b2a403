"""From a model to a mask, over every grain and every way to share places out."""

import itertools
import math

import pytest
import torch

from secateurs.budget.erk import erk
from secateurs.budget.ranked import lamp, ranked_together
from secateurs.budget.uniform import uniform
from secateurs.core.cut import score, select
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.granularity.table import GRANULARITIES
from secateurs.testing.laws import a_quota_can_be_met
from secateurs.testing.nets import toy

BUDGETS = {
    "uniform": lambda sites, scores, density: uniform(sites, density),
    "ranked": ranked_together,
    "normalised": lambda *args: ranked_together(*args, normalise="mean"),
    "lamp": lamp,
    "erk": lambda sites, scores, density: erk(sites, density),
    "eights": lambda *args: ranked_together(*args, multiple_of=8),
}
NETS = ("conv2d", "grouped", "grouped_transposed")
GIVEN = [(net, grain, budget) for net in NETS for grain in GRANULARITIES for budget in BUDGETS]


@pytest.mark.parametrize(("net", "grain", "budget"), GIVEN)
@pytest.mark.parametrize("density", [0.7, 0.8])
def test_a_mask_keeps_exactly_its_quota_and_empties_no_layer(net, grain, budget, density):
    model, _ = toy(net)
    sites = GRANULARITIES[grain](model)
    scores = score(sites, l1, weight=weights(model))
    quota = BUDGETS[budget](sites, scores, density)
    a_quota_can_be_met(sites, scores, quota)
    mask = select(sites, scores, quota)
    for name, site in sites.items():
        rows = site.gather(mask)
        assert int(rows.any(dim=1).sum()) == quota[name] > 0
        whole = torch.ones_like(mask[name]).sum() / site.units
        if grain != "strided2":
            assert int(mask[name].sum()) == quota[name] * whole


@pytest.mark.parametrize(("net", "grain"), [(n, g) for n in NETS for g in GRANULARITIES])
def test_a_smaller_density_keeps_a_part_of_what_a_larger_one_keeps(net, grain):
    model, _ = toy(net)
    sites = GRANULARITIES[grain](model)
    scores = score(sites, l1, weight=weights(model))
    masks = [select(sites, scores, ranked_together(sites, scores, d)) for d in (0.5, 0.7, 0.9)]
    for thin, thick in itertools.pairwise(masks):
        assert all(bool((thin[name] <= thick[name]).all()) for name in sites)


@pytest.mark.parametrize("budget", ["ranked", "normalised", "lamp", "erk"])
def test_elements_meet_a_density_to_the_unit(budget):
    model, _ = toy("conv2d")
    sites = GRANULARITIES["element"](model)
    scores = score(sites, l1, weight=weights(model))
    total = sum(math.prod(site.shape) for site in sites.values())
    for density in (0.001, 0.1, 1 / 3, 0.5, 0.999, 1.0):
        mask = select(sites, scores, BUDGETS[budget](sites, scores, density))
        assert mask.kept == max(round(density * total), len(sites))
