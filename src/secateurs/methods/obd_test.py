import copy
from dataclasses import replace

import pytest
import torch
from torch import Generator, nn
from torch.nn import functional as F

from secateurs.core.cut import score
from secateurs.core.errors import EvidenceError, UnknownNameError
from secateurs.core.mask import Mask
from secateurs.criteria.curvature import obd as saliency
from secateurs.data.load import load
from secateurs.evidence.recursion import recursion
from secateurs.evidence.weights import weights
from secateurs.granularity.grains import elements
from secateurs.methods.magnitude import magnitude
from secateurs.methods.obd import below, obd
from secateurs.methods.task import Target, Task
from secateurs.recovery.settings import Trainer
from secateurs.recovery.trainer import fit

DIGITS = load("digits", batch_size=64)


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def squared(output, target):
    return (output - target).square().sum() / len(output)


def saliencies(model, x, y):
    h = recursion(model, [(x, y)], squared)
    scores = score(elements(model), saliency, weight=weights(model), curvature=h)
    return torch.cat(list(scores.values()))


def damage(model, x, y, loss, *units):
    """How much the loss rises when some weights, counted over the model, become zero."""
    model = copy.deepcopy(model)
    before = loss(model(x), y).item()
    tensors = [weights(model)[name] for name in elements(model)]
    ends = torch.tensor([t.numel() for t in tensors]).cumsum(0)
    for unit in units:
        i = int((ends <= unit).sum())
        tensors[i].view(-1)[unit - int(ends[i]) + tensors[i].numel()] = 0
    return loss(model(x), y).item() - before


def least_squares(x, y):
    model = nn.Linear(x.shape[1], 1, bias=False).double()
    model.weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
    return model


def test_deleting_one_weight_of_least_squares_costs_exactly_its_saliency():
    x, y = doubles(40, 4), doubles(40, 1, seed=1)
    model = least_squares(x, y)
    for k, s in enumerate(saliencies(model, x, y)):
        assert damage(model, x, y, squared, k) == pytest.approx(float(s), rel=1e-10)


def test_saliencies_add_up_only_where_inputs_are_orthogonal():
    x, y = doubles(40, 4), doubles(40, 1, seed=1)
    orthogonal = torch.linalg.qr(x).Q * 3
    for inputs, adds in ((x, False), (orthogonal, True)):
        model = least_squares(inputs, y)
        s = saliencies(model, inputs, y)
        both = damage(model, inputs, y, squared, 0, 1)
        assert (both == pytest.approx(float(s[0] + s[1]), rel=1e-9)) is adds


def test_saliencies_order_weights_by_the_damage_they_do():
    x = doubles(200, 5)
    y = (x[:, :1] * x[:, 1:2]).tanh() + x[:, 2:3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = squared(model(x), y) + 1e-3 * sum(p.square().sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    s = saliencies(model, x, y)
    truth = torch.tensor([damage(model, x, y, squared, k) for k in range(len(s))])
    ranks = torch.stack([v.argsort().argsort().double() for v in (s, truth)])
    assert torch.corrcoef(ranks)[0, 1] > 0.9


@pytest.fixture(scope="module")
def trained():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    fit(model, DIGITS, Trainer(epochs=15, lr=0.05, weight_decay=1e-3))
    return Task(model, DIGITS.example, batches=lambda: DIGITS.batches(20))


def loss_of(model):
    batches = DIGITS.batches(20)
    return sum(F.cross_entropy(model(x), y).item() for x, y in batches) / len(batches)


@pytest.mark.parametrize("curvature", ["levenberg", "exact", "sampled"])
@pytest.mark.parametrize("density", [0.7, 0.5])
def test_without_training_it_hurts_less_than_magnitude(trained, curvature, density):
    ours = obd(trained, Target("density", density), curvature=curvature, rounds=1)
    theirs = magnitude(trained, Target("density", density), ranking="global")
    assert ours.mask.kept == theirs.mask.kept
    assert loss_of(ours.model) < loss_of(theirs.model)


def test_rounds_train_between_cuts_and_never_bring_back(trained):
    masks = []

    def train(model, *, name, **_):
        masks.append((name, {n: w != 0 for n, w in weights(model).items()}))

    pruned = obd(replace(trained, train=train), Target("density", 0.2), curvature="exact")
    assert [name for name, _ in masks] == ["round-1", "round-2", "recover"]
    assert pruned.mask.kept == round(0.2 * pruned.mask.total)
    for name, keep in pruned.mask.items():
        assert not (keep & ~masks[0][1][name]).any()


def test_what_is_cut_already_ranks_below_negative_saliencies():
    model = nn.Linear(3, 1)
    mask = Mask({"weight": torch.tensor([[True, False, True]])})
    scores = below({"weight": torch.tensor([-5.0, 0.0, 1.0])}, elements(model), mask)
    assert scores["weight"].tolist() == [-5.0, -6.0, 1.0]


def test_what_is_missing_is_said(trained):
    with pytest.raises(EvidenceError, match=r"is measured on data; pass Task\(batches"):
        obd(replace(trained, batches=None), Target())
    with pytest.raises(UnknownNameError, match="unknown curvature 'x'; use one of levenberg, exac"):
        obd(trained, Target(), curvature="x")
