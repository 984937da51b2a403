import itertools
from dataclasses import replace

import pytest
import torch
from torch import Generator, nn

from secateurs.core.errors import EvidenceError
from secateurs.evidence.inputs import input_moments
from secateurs.methods.magnitude import magnitude
from secateurs.methods.obs import costs_at_once, obs, surgeon
from secateurs.methods.task import Target, Task


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def error(w, v, h):
    """Half the mean square of the change of a row's output."""
    return float((w - v) @ h @ (w - v) / 2)


def problem(size, seed=0):
    x = doubles(60, size, seed=seed) @ doubles(size, size, seed=seed + 1)
    return doubles(1, 1, size, seed=seed + 2), (x.T @ x / 60)[None]


def test_a_removal_costs_what_the_formula_says_and_the_rest_makes_up_for_it():
    rows, h = problem(5)
    w, inverse = rows[0, 0], torch.linalg.inv(h[0])
    kept, values = surgeon(rows, h, 4)
    (q,) = (~kept[0, 0]).nonzero()[0].tolist()
    saliency = w.square() / (2 * inverse.diagonal())
    assert q == int(saliency.argmin())
    assert error(w, values[0, 0], h[0]) == pytest.approx(float(saliency[q]), rel=1e-9)
    torch.testing.assert_close(values[0, 0], w - w[q] / inverse[q, q] * inverse[:, q])
    torch.testing.assert_close(costs_at_once(rows[0], h[0])[0], saliency)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_removal_is_the_surgeons_one_weight_after_another(seed):
    rows, h = problem(6, seed)
    kept, values = surgeon(rows, h, 3, greedy=True)
    w, alive = rows[0, 0], list(range(6))
    for _ in range(3):
        inverse = torch.linalg.inv(h[0][alive][:, alive])
        best = int((w[alive].square() / inverse.diagonal()).argmin())
        step = torch.zeros(6, dtype=torch.float64)
        step[alive] = inverse[:, best] * (w[alive][best] / inverse[best, best])
        w = w - step
        alive.pop(best)
    assert kept[0, 0].nonzero().flatten().tolist() == alive
    torch.testing.assert_close(values[0, 0], w, rtol=1e-6, atol=1e-9)


def test_greedy_is_close_to_the_best_of_all_subsets():
    ratios = []
    for seed in range(5):
        rows, h = problem(6, seed)
        best = min(
            error(rows[0, 0], _fit(rows[0, 0], h[0], list(alive)), h[0])
            for alive in itertools.combinations(range(6), 3)
        )
        found = surgeon(rows, h, 3, greedy=True)[1][0, 0]
        ratios.append(error(rows[0, 0], found, h[0]) / best)
    assert min(ratios) >= 1 - 1e-9
    assert sum(ratios) / 5 < 2


def _fit(w, h, alive):
    values = torch.zeros_like(w)
    values[alive] = torch.linalg.solve(h[alive][:, alive], h[alive] @ w)
    return values


def test_rows_and_groups_compete_and_unused_inputs_go_first():
    rows = torch.ones(2, 2, 3)
    rows[0, 1], rows[1] = 2, 10
    moments = torch.eye(3).repeat(2, 1, 1)
    moments[1, 2, 2] = 0
    kept, values = surgeon(rows, moments, 7)
    assert kept.tolist() == [[[False] * 3, [True] * 3], [[True, True, False]] * 2]
    torch.testing.assert_close(values, rows * kept)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 2),
        nn.Conv1d(2, 3, 2, stride=2, dilation=2, padding=1),
        nn.Conv2d(4, 6, (2, 3), groups=2, padding=(1, 0), stride=(1, 2)),
        nn.Conv2d(2, 2, 3, padding="same", padding_mode="circular"),
    ],
    ids=["linear", "conv1d", "grouped", "circular"],
)
def test_moments_are_of_what_rows_are_multiplied_with(layer):
    shape = {"Linear": (5, 3), "Conv1d": (5, 2, 9)}.get(type(layer).__name__, (5, 0, 7, 7))
    x = torch.randn([layer.in_channels if n == 0 else n for n in shape])
    (found,) = input_moments(nn.Sequential(layer), [x], ["0.weight"]).values()
    layer.bias = None
    y = layer(x)
    y = y.movedim(1, 0).flatten(1) if y.dim() > 2 else y.T
    groups = getattr(layer, "groups", 1)
    w = layer.weight.detach().reshape(groups, -1, layer.weight[0].numel())
    power = torch.einsum("gri,gij,grj->gr", w, found, w).flatten()
    torch.testing.assert_close(power, y.square().mean(dim=1))


def task(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
            nn.Linear(8, 3),
        )  # fmt: skip
        mix = torch.randn(36, 36) * torch.linspace(0.1, 2, 36)
        x = (torch.randn(64, 36) @ mix).view(64, 1, 6, 6)
    return Task(model, x[:1], batches=lambda: [(x, torch.zeros(64))]), x


@pytest.mark.parametrize("greedy", [False, True])
def test_outputs_stay_nearer_than_after_cutting_by_magnitude(greedy):
    job, x = task()
    ours = obs(job, Target("density", 0.5), greedy=greedy)
    theirs = magnitude(job, Target("density", 0.5))
    assert ours.mask.kept == theirs.mask.kept
    for name, keep in ours.mask.items():
        assert not ours.model.get_parameter(name)[~keep].any()
    dense = job.model(x)
    assert (ours.model(x) - dense).norm() < 0.7 * (theirs.model(x) - dense).norm()


def test_what_is_missing_is_said():
    job, _ = task()
    with pytest.raises(EvidenceError, match=r"inputs of layers are measured on data; pass Task\("):
        obs(replace(job, batches=None), Target())
    odd = nn.ConvTranspose1d(2, 2, 2)
    with pytest.raises(EvidenceError, match="'weight' is no weight of a linear layer or of a 1-d"):
        input_moments(odd, [torch.ones(1, 2, 2)], ["weight"])
