from itertools import combinations

import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError
from secateurs.graph.cost import predict
from secateurs.graph.trace import trace
from secateurs.methods.lasso_channels import contributions, lasso, lasso_channels, survival
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN, TinyViT
from secateurs.recovery.normal import Normal
from secateurs.recovery.rows import Linear


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_sums(x, y):
    return Normal.of(x[:, None], y[:, None])


def test_moments_are_those_of_the_parts_of_the_output():
    x, matrix, y = random(50, 8), random(3, 8, seed=1), random(50, 3, seed=2)
    units = torch.tensor([0, 0, 1, 1, 2, 2, -1, -1])
    parts = [(x * (units == u)) @ matrix.T for u in (0, 1, 2)]
    rest = (x * (units == -1)) @ matrix.T
    gram, moment = contributions(layer_sums(x, y), matrix[None], units[None])
    for i, one in enumerate(parts):
        assert float(moment[i]) == pytest.approx(float((one * (y - rest)).sum()))
        for j, other in enumerate(parts):
            assert float(gram[i, j]) == pytest.approx(float((one * other).sum()))


def test_groups_of_a_convolution_do_not_mix():
    conv = nn.Conv2d(4, 6, 1, groups=2).double()
    x = random(30, 2, 2)
    y = random(30, 2, 3, seed=1)
    units = torch.tensor([[0, 1], [2, 3]])
    gram, _ = contributions(Normal.of(x, y), Linear(conv).matrix(), units)
    assert gram[0, 2] == gram[1, 3] == 0
    assert gram[0, 1] != 0


def test_orthogonal_parts_shrink_by_the_closed_form():
    sizes = torch.tensor([4.0, 9.0, 16.0, 1.0], dtype=torch.float64)
    for penalty in (0.5, 2.0, 5.0, 20.0):
        # y is the sum of the parts, so z_i · y = ‖z_i‖².
        beta = lasso(torch.diag(sizes), sizes, penalty)
        torch.testing.assert_close(beta, (1 - penalty / sizes).clamp(min=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_orthogonal_channels_die_in_order_of_their_size(keep):
    sizes = torch.tensor([4.0, 9.0, 16.0, 1.0], dtype=torch.float64)
    kept = survival(torch.diag(sizes), sizes, keep).topk(keep).indices
    assert sorted(kept.tolist()) == sorted(sizes.topk(keep).indices.tolist())


def test_a_twin_is_not_kept_twice():
    z = random(40, 3)
    z = torch.stack([z[:, 0], z[:, 0], z[:, 1], z[:, 2] * 0.5], dim=1)
    kept = survival(z.T @ z, z.T @ z.sum(1), 3).topk(3).indices.tolist()
    assert {2, 3} < set(kept)


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_among_the_best_of_all_subsets(seed):
    x, matrix = random(80, 6, seed=seed), random(4, 6, seed=seed + 10)
    x = x + 0.5 * random(80, 1, seed=seed + 20)
    y = x @ matrix.T
    sums = layer_sums(x, y).centred()
    gram, moment = contributions(sums, matrix[None], torch.arange(6)[None])
    chosen = tuple(sorted(survival(gram[:6, :6], moment[:6], 3).topk(3).indices.tolist()))

    def error(subset):
        keep = torch.zeros(1, 6, dtype=torch.bool)
        keep[0, list(subset)] = True
        some = sums.only(keep)
        return some.lost(some.solve(torch.zeros(1, 4, 6)))

    ranked = sorted(combinations(range(6), 3), key=error)
    assert ranked.index(chosen) < 3


def batches(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(32, 1, 8, 8, generator=generator), None) for _ in range(n)]


@pytest.mark.parametrize("build", [lambda: DigitsCNN(width=16), lambda: TinyViT(width=24)])
def test_a_target_in_macs_is_met_and_proved(build):
    torch.manual_seed(0)
    model, x = build().eval(), batches()[0][0]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = lasso_channels(Task(model, x, batches=batches), Target("macs", 0.5))
    dense = predict(trace(model, x), {}).macs
    left = predict(trace(result.model, x), {}).macs
    assert 0.49 * dense < left <= 0.5 * dense
    assert result.compacted.proof.difference < result.compacted.proof.tolerance
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def test_fitting_brings_the_output_nearer_than_the_choice_alone():
    torch.manual_seed(0)
    model, x = DigitsCNN(width=16).eval(), batches(seed=7)[0][0]
    task = Task(model, x, batches=batches, repair="none")

    def gap(refit):
        small = lasso_channels(task, Target("macs", 0.5), refit=refit).model
        with torch.no_grad():
            return float((small(x) - model(x)).square().mean() / model(x).var())

    assert gap(True) < gap(False) / 4


def test_a_task_without_data_is_refused():
    with pytest.raises(PruneError, match=r"the LASSO looks at inputs; pass Task\(batches="):
        lasso_channels(Task(nn.Linear(2, 2), torch.zeros(1, 2)), Target())
