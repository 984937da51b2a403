import pytest
import torch
from torch import nn

from secateurs.evidence.weights import weights
from secateurs.methods.channels import removable
from secateurs.methods.depgraph import depgraph, group_norms, shrinking, strengths
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN


def test_the_group_norm_is_the_sum_of_squares_of_all_that_leaves():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3))
    place = removable(model, torch.zeros(1, 1, 7, 7))
    found = group_norms(place.sites, weights(model))["0.weight:0"]
    made, read = model[0].weight.flatten(1), model[2].weight.transpose(0, 1).flatten(1)
    rest = torch.stack([model[0].bias, model[1].weight, model[1].bias], dim=1)
    torch.testing.assert_close(found, torch.cat([made, read, rest], 1).square().sum(1).detach())


def test_the_least_group_shrinks_two_to_the_alpha_times_as_fast():
    assert strengths(torch.tensor([3.0, 1.0]), 4.0).tolist() == [1, 16]
    assert strengths(torch.tensor([2.0, 2.0]), 4.0).tolist() == [1, 1]


def test_a_step_shrinks_whole_groups_and_leaves_buffers_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 1))
    place = removable(model, torch.zeros(2, 2))
    norms = group_norms(place.sites, weights(model))["0.weight:0"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shrinking(model, place.sites, 0.16, 4.0)(1)
    factor = 1 - 0.01 * strengths(norms, 4.0)
    assert float(factor.min()) == pytest.approx(0.84)
    torch.testing.assert_close(model[0].weight.detach(), before["0.weight"] * factor[:, None])
    torch.testing.assert_close(model[2].weight.detach(), before["2.weight"] * factor)
    assert torch.equal(model[1].running_var, before["1.running_var"])
    assert torch.equal(model[2].bias.detach(), before["2.bias"])


def test_training_makes_small_groups_smaller_beside_large_ones():
    torch.manual_seed(0)
    model, x, seen = DigitsCNN(width=8).eval(), torch.zeros(1, 1, 8, 8), []

    def train(model, *, name, epochs=None, after_step=None, penalty=None):
        for step in range(1, 21) if after_step else ():
            after_step(step)
        seen.append((name, weights(model)))

    result = depgraph(Task(model, x, train=train, steps=20), Target("macs", 0.5), depth=3.0)
    assert [name for name, _ in seen] == ["sparse", "recover"]
    place = removable(model, x)
    ratios = [
        float(norms.min() / norms.max())
        for values in (weights(model), seen[0][1])
        for norms in group_norms(place.sites, values).values()
    ]
    half = len(ratios) // 2
    assert max(ratios[half:]) < min(ratios[:half]) / 4
    assert result.compacted.proof.difference <= result.compacted.proof.tolerance
