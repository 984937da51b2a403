"""What every baseline must obey, and what each of them says of itself."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import Generator, nn
from torch.nn import functional as F

from secateurs.core.errors import EvidenceError, PruneError, UnknownNameError
from secateurs.core.mask import Mask
from secateurs.data.load import from_loaders
from secateurs.methods.ac_dc import ac_dc
from secateurs.methods.gradual import gradual
from secateurs.methods.grasp import grasp, hessian_gradient
from secateurs.methods.lottery import lottery
from secateurs.methods.movement import movement
from secateurs.methods.progressive import progressive
from secateurs.methods.random_units import random_units
from secateurs.methods.rigl import moved, rigl, scale_
from secateurs.methods.snip import snip
from secateurs.methods.soft_threshold import soft_threshold
from secateurs.methods.synflow import absolute, synflow
from secateurs.methods.task import Target, Task
from secateurs.recovery.rewind import reinitialise_
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

EPOCHS, STEPS = 3, 6


def batches():
    x = torch.randn(STEPS, 16, 6, generator=Generator().manual_seed(0))
    return [(b, (b[:, 0] > b[:, 1]).long()) for b in x]


DATA = from_loaders(batches())


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 2))


def task(folder, wrap=lambda train: train):
    train = Recovery(Stages(DATA, folder), "part", Trainer(epochs=EPOCHS, lr=0.05))
    return Task(net(), DATA.example, train=wrap(train), batches=batches, steps=EPOCHS * STEPS)


BASELINES = {
    "random": random_units,
    "gradual": lambda t, a: gradual(t, a, every=2),
    "lottery": lottery,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "rigl": lambda t, a: rigl(t, a, every=2),
    "set": lambda t, a: rigl(t, a, every=2, grow="random"),
    "progressive": progressive,
    "movement": lambda t, a: movement(t, a, every=2),
    "soft_threshold": lambda t, a: soft_threshold(t, a, every=2),
    "ac_dc": lambda t, a: ac_dc(t, a, phase=0.2, dense=0.6, sparse=0.8),
}


@pytest.mark.parametrize("name", BASELINES)
def test_the_target_is_met_and_the_model_stays_as_it_was(tmp_path, name):
    job = task(tmp_path)
    before = copy.deepcopy(job.model.state_dict())
    pruned = BASELINES[name](job, Target("density", 0.25))
    assert pruned.mask.kept == 40
    for param, keep in pruned.mask.items():
        value = pruned.model.get_parameter(param)
        assert not value[~keep].any()
        assert not torch.equal(value, job.model.get_parameter(param))
    assert all(torch.equal(value, before[key]) for key, value in job.model.state_dict().items())


def dying(train):
    def killed(model, *, name, after_step=None, **rest):
        def counting(step):
            if after_step:
                after_step(step)
            if step == STEPS + 3:
                raise KeyboardInterrupt

        train(model, name=name, after_step=counting, **rest)

    return killed


DURING = ["gradual", "lottery", "rigl", "set", "progressive", "movement", "soft_threshold", "ac_dc"]


@pytest.mark.parametrize("name", DURING)
def test_killed_inside_an_epoch_it_goes_on_and_ends_the_same(tmp_path, name):
    target = Target("density", 0.25)
    whole = BASELINES[name](task(tmp_path / "whole"), target)
    with pytest.raises(KeyboardInterrupt):
        BASELINES[name](task(tmp_path / "killed", dying), target)
    assert any((tmp_path / "killed").rglob("training.safetensors"))
    resumed = BASELINES[name](task(tmp_path / "killed"), target)
    for param, keep in whole.mask.items():
        assert torch.equal(resumed.mask[param], keep)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def densities_seen(masks):
    return [sum(int(k.sum()) for k in mask.values()) for mask in masks]


def watching(masks):
    def wrap(train):
        def watched(model, *, name, after_step, **rest):
            def watch(step):
                after_step(step)
                masks.append({n: b.clone() for n, b in model.named_buffers() if "keep" in n})

            train(model, name=name, after_step=watch, **rest)

        return watched

    return wrap


def test_gradual_pruning_follows_its_schedule_and_brings_nothing_back(tmp_path):
    masks = []
    gradual(task(tmp_path, watching(masks)), Target("density", 0.2), every=4, until=2 / 3)
    kept = densities_seen(masks)
    assert kept[:3] == [160] * 3
    assert kept[-7:] == [32] * 7
    assert kept[3] == sum(round(n * (0.2 + 0.8 * (1 - 4 / 12) ** 3)) for n in (120, 40))
    assert all(not (b[n] > a[n]).any() for a, b in itertools.pairwise(masks) for n in a)


def test_a_sparse_network_moves_its_connections_at_constant_density(tmp_path):
    masks = []
    rigl(task(tmp_path, watching(masks)), Target("density", 0.3), every=3, until=0.6)
    assert set(densities_seen(masks)) == {48}
    changed = [
        step
        for step, (a, b) in enumerate(itertools.pairwise(masks), start=2)
        if any((a[n] != b[n]).any() for n in a)
    ]
    assert changed == [3, 6, 9]


def test_sparse_new_weights_give_outputs_as_large_as_the_dense_layer_s():
    torch.manual_seed(0)
    layer, x = nn.Linear(1000, 200, bias=False), torch.randn(64, 1000)
    keep = torch.rand(200, 1000) < 0.02
    dense, before = layer(x).square().mean(), layer.weight.detach().clone()
    scale_(layer, Mask({"weight": keep}))
    assert torch.allclose(layer.weight, before / keep.double().mean().sqrt().float())
    sparse = (x @ (layer.weight * keep).T).square().mean()
    assert 0.8 < sparse / dense < 1.25
    scale_(layer, Mask({"weight": torch.zeros(200, 1000)}))
    assert layer.weight.isfinite().all()


def test_new_weights_are_scaled_unless_told_otherwise(tmp_path):
    starts = []

    def wrap(train):
        def watched(model, **_):
            starts.append(model[0].weight.detach().clone())

        return watched

    for scaled in (True, False):
        rigl(task(tmp_path, wrap), Target("density", 0.25), ranking="uniform", scaled=scaled)
    assert torch.allclose(starts[0], 2 * starts[1])


def test_the_smallest_are_dropped_and_the_most_wished_grow():
    size = torch.tensor([5.0, 1.0, 2.0, 9.0, 0.0])
    wish = torch.tensor([9.0, 9.0, 0.1, 0.3, 0.2])
    kept, grown = moved(size, wish, torch.tensor([True, True, True, False, False]), 1)
    assert kept.tolist() == [True, False, True, True, False]
    assert grown.tolist() == [False, False, False, True, False]
    everything = torch.ones(5, dtype=torch.bool)
    assert moved(size, wish, everything, 2)[0].all()


def test_a_connection_grows_from_zero_where_the_gradient_is_largest(tmp_path):
    seen = {}

    def wrap(train):
        def watched(model, *, name, after_step, **_):
            x, y = batches()[0]
            F.cross_entropy(model(x), y).backward()
            slope = dict(model.named_parameters())["0.parametrizations.weight.original"].grad
            before = model[0].parametrizations.weight[0].keep.bool().clone()
            after_step(2)
            keep = model[0].parametrizations.weight[0].keep.bool()
            seen.update(grown=keep & ~before, slope=slope.abs() * ~before, w=model[0].weight)

        return watched

    rigl(task(tmp_path, wrap), Target("density", 0.3), every=2)
    grown = seen["grown"]
    assert grown.any()
    assert seen["slope"][grown].min() >= seen["slope"][~grown].max()
    assert not seen["w"][grown].any()


def test_a_ticket_begins_every_round_at_the_first_weights(tmp_path):
    starts = []

    def wrap(train):
        def watched(model, *, name, **rest):
            starts.append((name, model[0].weight.detach().clone()))
            train(model, name=name, **rest)

        return watched

    lottery(task(tmp_path, wrap), Target("density", 0.25), rounds=2)
    assert [name for name, _ in starts] == ["dense", "ticket-1", "ticket-2"]
    first = starts[0][1]
    fresh = net()
    reinitialise_(fresh, 0)
    assert torch.equal(first, fresh[0].weight)
    for (_, weight), kept in zip(starts[1:], (60, 30), strict=True):
        assert int((weight != 0).sum()) == kept
        assert torch.equal(weight[weight != 0], first[weight != 0])


def test_late_rewinding_goes_back_to_weights_trained_a_little(tmp_path):
    starts = []

    def wrap(train):
        def watched(model, *, name, **rest):
            starts.append((name, rest, model[0].weight.detach().clone()))
            train(model, name=name, **rest)

        return watched

    lottery(task(tmp_path, wrap), Target("density", 0.5), rounds=1, late=1)
    assert [(name, rest) for name, rest, _ in starts] == [
        ("early", {"epochs": 1}),
        ("dense", {}),
        ("ticket-1", {}),
    ]
    early, late, ticket = (weight for _, _, weight in starts)
    assert not torch.equal(early, late)
    assert torch.equal(ticket[ticket != 0], late[ticket != 0])


def test_snip_keeps_what_the_loss_feels_most(tmp_path):
    job = replace(task(tmp_path), train=None)
    mask = snip(job, Target("density", 0.25), fresh=False).mask
    model = copy.deepcopy(job.model)
    for x, y in batches():
        (F.cross_entropy(model(x), y) / STEPS).backward()
    felt = torch.cat([(p * p.grad).abs().flatten() for p in (model[0].weight, model[2].weight)])
    keep = torch.cat([mask[n].flatten() for n in ("0.weight", "2.weight")])
    assert felt[keep].min() > felt[~keep].max()


def test_hessian_times_gradient_agrees_with_autograds_hessian():
    model = net().double()
    x = torch.randn(8, 6, generator=Generator().manual_seed(1), dtype=torch.float64)
    y = torch.arange(8) % 2
    names, shapes = zip(*((n, p.shape) for n, p in model.named_parameters()), strict=True)

    def value(flat):
        parts = flat.split([s.numel() for s in shapes])
        given = {n: v.view(s) for n, v, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, given, (x,)), y)

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    slope = torch.autograd.functional.jacobian(value, flat)
    truth = torch.autograd.functional.hessian(value, flat) @ slope
    found = hessian_gradient(model, [(x[:4], y[:4]), (x[4:], y[4:])])
    torch.testing.assert_close(torch.cat([found[n].flatten() for n in names]), truth)


def test_grasp_keeps_what_preserves_the_gradients_norm(tmp_path):
    job = replace(task(tmp_path), train=None)
    mask = grasp(job, Target("density", 0.5), fresh=False, temperature=1.0).mask
    flow = hessian_gradient(job.model, batches())
    scores = torch.cat([(job.model.get_parameter(n) * flow[n]).flatten() for n in mask])
    keep = torch.cat([mask[n].flatten() for n in mask])
    assert scores[keep].min() > scores[~keep].max()


def test_the_flow_through_every_layer_is_the_same():
    model = nn.Sequential(nn.Linear(6, 20, bias=False), nn.ReLU(), nn.Linear(20, 2, bias=False))
    positive = absolute(model)
    positive(torch.ones(1, 6, dtype=torch.float64)).sum().backward()
    flows = [(p * p.grad).sum() for p in positive.parameters()]
    torch.testing.assert_close(flows[0], flows[1])
    assert all((p >= 0).all() for p in positive.parameters())


def test_synflow_cuts_no_layer_off_where_one_shot_does(tmp_path):
    def deep():
        wide = [nn.Linear(30, 30), nn.ReLU()]
        return nn.Sequential(nn.Linear(6, 30), nn.ReLU(), *wide, nn.Linear(30, 2))

    torch.manual_seed(0)
    job = Task(deep(), DATA.example, batches=batches)
    mask = synflow(job, Target("density", 0.005)).mask
    weights = [torch.ones(6)]
    for keep in mask.values():
        weights.append(keep.float() @ weights[-1])
    assert weights[-1].sum() > 0


def test_what_is_missing_is_said(tmp_path):
    job = task(tmp_path)
    with pytest.raises(EvidenceError, match=r"SNIP measures gradients on data; pass Task\(batch"):
        snip(replace(job, batches=None), Target())
    with pytest.raises(EvidenceError, match=r"GraSP measures gradients on data; pass Task\(batch"):
        grasp(replace(job, batches=None), Target())
    with pytest.raises(PruneError, match="RigL acts while the model trains, and there is no"):
        rigl(replace(job, train=None), Target())
    with pytest.raises(PruneError, match=r"gradual pruning has to know how long .* Task\(steps"):
        gradual(replace(job, steps=None), Target())
    with pytest.raises(PruneError, match="found by training, and there is none; give the cut 1"):
        lottery(replace(job, train=None), Target())
    with pytest.raises(UnknownNameError, match="unknown grow 'x'; use one of gradient, random"):
        rigl(job, Target(), grow="x")
    with pytest.raises(UnknownNameError, match="unknown schedule 'x'; use one of one_shot, lin"):
        gradual(job, Target(), schedule="x")
