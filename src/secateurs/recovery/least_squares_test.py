import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs.core.errors import PruneError
from secateurs.core.mask import Mask
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.models.digits import DigitsCNN, TinyViT
from secateurs.realise.compact import compact
from secateurs.recovery.least_squares import (
    channel_means,
    fold_constants_,
    lost_mean,
    reconstruct_,
)
from secateurs.recovery.rows import Linear


def batches(*shape, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator), None) for _ in range(count)]


def without(model, x, dropped):
    """Take units out of buckets: name → indices."""
    graph = trace(model, x)
    masks = Mask({})
    for name, site in channels(graph).items():
        keep = torch.ones(site.units, dtype=torch.bool)
        keep[dropped.get(name, [])] = False
        masks = masks & Mask(site.scatter(keep))
    return compact(model, graph, masks, x)


def chain(**options):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, **options), nn.ReLU(), nn.Conv2d(6, 5, 3, **options), nn.Flatten()
    ).eval()


def gap(small, original, x):
    with torch.no_grad():
        y = original(x)
        return float((small(x) - y).square().mean() / y.var())


def test_the_twin_of_a_lost_channel_takes_over_its_weights():
    model = chain(padding=1)
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = model[0].weight[1], model[0].bias[1]
    data = batches(4, 3, 7, 7)
    small = without(model, data[0][0], {"0.weight:0": [4]})
    done = reconstruct_(small.model, model, data, small.kept, positions=None, ridge=0)
    assert done.fits["2"].before > 0.01
    assert done.fits["2"].after < 1e-10
    expected = model[2].weight[:, 1] + model[2].weight[:, 4]
    torch.testing.assert_close(small.model[2].weight[:, 1], expected, rtol=1e-4, atol=1e-4)
    assert gap(small.model, model, batches(4, 3, 7, 7, seed=9)[0][0]) < 1e-8


@pytest.mark.parametrize("repair", ["fold", "fit"])
def test_a_constant_channel_goes_into_the_bias(repair):
    model = chain()
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 1.5
    data = batches(4, 3, 7, 7)
    small = without(model, data[0][0], {"0.weight:0": [2]})
    assert gap(small.model, model, data[0][0]) > 0.01
    if repair == "fold":
        assert fold_constants_(small.model, model, data, small.kept) == ("2",)
    else:
        reconstruct_(small.model, model, data, small.kept, positions=None)
    assert gap(small.model, model, data[0][0]) < 1e-10
    torch.testing.assert_close(
        small.model[2].bias, model[2].bias + 1.5 * model[2].weight[:, 2].sum((1, 2))
    )


def test_a_layer_without_bias_leaves_the_constant_to_its_batch_norm():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5)
    ).eval()
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 1.5
    data = batches(4, 3, 7, 7)
    small = without(nn.Sequential(*model, nn.Flatten()).eval(), data[0][0], {"0.weight:0": [2]})
    reference = nn.Sequential(*model, nn.Flatten()).eval()
    assert fold_constants_(small.model, reference, data, small.kept) == ()
    reconstruct_(small.model, reference, data, small.kept)
    assert gap(small.model, reference, data[0][0]) < 1e-10
    assert not torch.equal(small.model[3].running_mean, model[3].running_mean)


def test_fitting_again_changes_nothing_whether_a_bias_or_a_batch_norm_takes_the_constant():
    torch.manual_seed(0)
    for layer in (nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1, bias=False)):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.ReLU(), layer, nn.BatchNorm2d(5), nn.Flatten()
        ).eval()
        data = batches(4, 3, 7, 7)
        small = without(model, data[0][0], {"0.weight:0": [2]})
        reconstruct_(small.model, model, data, small.kept, ridge=0)
        once = gap(small.model, model, data[0][0])
        assert 1e-4 < once < 0.5
        again = reconstruct_(small.model, model, data, small.kept, ridge=0)
        assert again.fits["2"].before == pytest.approx(again.fits["2"].after, rel=1e-5)
        assert gap(small.model, model, data[0][0]) == pytest.approx(once, rel=1e-4)
        # Statistics that were measured anew are put back: the fit is to what came before them.
        small.model[3].running_mean.add_(1.0)
        small.model[3].running_var.mul_(2.0)
        reconstruct_(small.model, model, data, small.kept, ridge=0)
        assert gap(small.model, model, data[0][0]) == pytest.approx(once, rel=1e-4)


def test_the_fold_of_a_grouped_layer_is_the_change_of_its_mean_output():
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 4, 3, groups=2).double()
    x = torch.randn(5, 6, 7, 7, dtype=torch.float64).mean((0, 2, 3), keepdim=True)
    gone = torch.tensor([[True, False, False], [False, True, True]])
    lost = layer(x.expand(1, 6, 3, 3)) - layer((x * ~gone.view(1, 6, 1, 1)).expand(1, 6, 3, 3))
    torch.testing.assert_close(lost_mean(Linear(layer), x.flatten(), gone), lost.flatten().detach())


def test_means_are_over_inputs_and_positions():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 5 * 5, 4))
    data = batches(2, 3, 7, 7)
    found = channel_means(model, data, ["0", "2"])
    every = torch.cat([x for x, _ in data]).double()
    torch.testing.assert_close(found["0"], every.mean((0, 2, 3)))
    assert found["2"].shape == (50,)


def test_a_damaged_shortcut_is_made_up_for_by_the_branch():
    torch.manual_seed(0)
    model = DigitsCNN(width=8).eval()
    data = batches(32, 1, 8, 8, count=3)
    small = without(model, data[0][0], {})
    with torch.no_grad():
        small.model.stem[0].weight.mul_(1 + 0.3 * torch.randn(8, 1, 1, 1))

    def lost():
        with torch.no_grad():
            there, here = F.relu(model.stem(data[0][0])), F.relu(small.model.stem(data[0][0]))
            there, here = model.block1(there), small.model.block1(here)
            return float((here - there).square().mean() / there.var())

    before = lost()
    done = reconstruct_(small.model, model, data, {}, layers=["block1.conv2.0"], ridge=1e-6)
    assert set(done.fits) == {"block1.conv2.0"}
    assert lost() < before / 2


@pytest.mark.parametrize("build", [lambda: DigitsCNN(width=8), lambda: TinyViT(width=16)])
def test_repair_brings_the_output_nearer_and_leaves_the_original_alone(build):
    torch.manual_seed(0)
    model = build().eval()
    before = copy.deepcopy(model.state_dict())
    data = batches(16, 1, 8, 8, count=8)
    graph = trace(model, data[0][0])
    third = {n: list(range(0, s.units, 3)) for n, s in channels(graph).items() if not s.among}
    small = without(model, data[0][0], third)
    raw = gap(small.model, model, data[0][0])
    done = reconstruct_(small.model, model, data, small.kept, positions=None)
    assert len(done.fits) > 3
    assert gap(small.model, model, batches(16, 1, 8, 8, seed=5)[0][0]) < raw / 2
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def test_cut_layers_that_are_no_matrix_are_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 5, 3), nn.Flatten())
    data = batches(4, 3, 7, 7)
    small = without(model.eval(), data[0][0], {"0.weight:0": [2]})
    done = reconstruct_(small.model, model, data, small.kept)
    assert (dict(done.fits), done.skipped) == ({}, ("2.weight",))


def test_no_inputs_are_refused():
    model = chain()
    small = without(model, batches(4, 3, 7, 7)[0][0], {"0.weight:0": [4]})
    with pytest.raises(PruneError, match="cannot reconstruct layers without inputs; the loader"):
        reconstruct_(small.model, model, [], small.kept)
    with pytest.raises(PruneError, match="cannot measure the means of channels without inputs"):
        fold_constants_(small.model, model, [], small.kept)


def test_more_inputs_need_no_more_memory_for_the_sums():
    from secateurs.recovery.normal import Normal

    x, y = torch.randn(1000, 1, 6), torch.randn(1000, 1, 2)
    assert Normal.of(x, y).gram.numel() + Normal.of(x, y).cross.numel() == 6 * (6 + 2)
