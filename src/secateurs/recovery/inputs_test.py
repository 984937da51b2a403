"""What every repair must obey: inputs need no labels, and what is no number is refused."""

import copy
from math import nan

import pytest
import torch

from secateurs.budget.uniform import uniform
from secateurs.core.cut import score, select
from secateurs.core.errors import PruneError
from secateurs.criteria.magnitude import l2
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.models.digits import DigitsCNN
from secateurs.realise.compact import compact
from secateurs.recovery.batchnorm import recalibrate_
from secateurs.recovery.least_squares import fold_constants_, reconstruct_
from secateurs.recovery.renormalise import renormalise_

X = torch.randn(3, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
REPAIRS = {
    "recalibrate": lambda small, model, batches, kept: recalibrate_(small, batches),
    "renormalise": renormalise_,
    "reconstruct": reconstruct_,
    "fold": fold_constants_,
}
FORMS = {
    "tensors": lambda x: x,
    "lists": lambda x: [x],
    "labelled": lambda x: (x, torch.zeros(len(x))),
    "named": lambda x: {"x": x},
}


def cut():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DigitsCNN(width=8).eval()
    graph = trace(model, X[0, :2])
    sites = channels(graph)
    scores = score(sites, l2, weight=weights(model))
    return model, compact(model, graph, select(sites, scores, uniform(sites, 0.5)), X[0, :2])


@pytest.mark.parametrize("repair", REPAIRS)
def test_inputs_come_in_any_form(repair):
    model, small = cut()
    states = {}
    for form, made in FORMS.items():
        mended = copy.deepcopy(small.model)
        REPAIRS[repair](mended, model, [made(x) for x in X], small.kept)
        states[form] = mended.state_dict()
    before = small.model.state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in states["tensors"].items())
    for key, value in states["tensors"].items():
        assert all(torch.equal(value, state[key]) for state in states.values()), key


@pytest.mark.parametrize("repair", ["recalibrate", "renormalise", "reconstruct"])
def test_inputs_that_are_no_numbers_are_refused_and_nothing_is_changed(repair):
    model, small = cut()
    before = copy.deepcopy(small.model.state_dict())
    with pytest.raises(PruneError, match="are NaN or infinite for some inputs; check the inputs"):
        REPAIRS[repair](small.model, model, [torch.full_like(X[0], nan)], small.kept)
    assert all(torch.equal(value, before[key]) for key, value in small.model.state_dict().items())
