import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, PruneError, StructureError
from secateurs.methods.strided import stride_for, strided
from secateurs.methods.task import Target, Task
from secateurs.realise.lowered import lowered


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 3, 5), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)
        )


def batches():
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return [(x, (x.mean(dim=(1, 2, 3)) > 0).long())]


def task(model=None):
    return Task(model or net(), batches()[0][0][:1], batches=batches)


@pytest.mark.parametrize(
    ("density", "kept"), [(0.5, {13, 12}), (0.33, {9, 8}), (0.75, {19, 18}), (0.2, {5})]
)
def test_a_density_is_made_of_a_stride(density, kept):
    pruned = strided(task(), Target("density", density), search="magnitude")
    assert {int(k.sum()) for k in pruned.mask["0.weight"].flatten(0, 1)} <= kept
    assert "4.weight" not in pruned.mask


@pytest.mark.parametrize("search", ["filter", "best_of", "magnitude"])
def test_the_result_runs_as_a_smaller_product(search):
    pruned = strided(task(), Target("density", 0.5), search=search, masks=4, rounds=2)
    small = lowered(pruned.model, pruned.mask)
    x = batches()[0][0]
    torch.testing.assert_close(small(x), pruned.model(x))
    assert small[0].columns == int(pruned.mask["0.weight"][0].sum())
    assert small[2].columns == int(pruned.mask["2.weight"][0].sum())


def test_magnitude_keeps_the_offsets_of_largest_weights():
    model = net()
    with torch.no_grad():
        model[0].weight[:, :, 1::2, 0::2] += 100
        model[0].weight[:, :, 0::2, 1::2] += 100
    mask = strided(task(model), Target("density", 0.5), search="magnitude").mask["0.weight"]
    assert (mask.flatten(1).nonzero()[:, 1] % 2 == 1).all()


def test_kernels_may_have_offsets_of_their_own():
    target = Target("density", 0.5)
    mask = strided(task(), target, shared=False, search="best_of", masks=1, rounds=1).mask
    patterns = {tuple(k.flatten().tolist()) for k in mask["2.weight"].flatten(0, 1)}
    assert len(patterns) == 2
    assert len({tuple(k.flatten().tolist()) for k in mask["2.weight"][:, 0]}) == 2


def test_layers_with_too_small_kernels_stay_whole():
    mask = strided(task(), Target("density", 0.5), exclude=("0.*",), search="magnitude").mask
    assert set(mask) == {"2.weight"}
    with pytest.raises(StructureError, match="no kernel of Sequential has 2 positions"):
        strided(
            Task(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2), batches=batches),
            Target("density", 0.5),
        )


def test_a_density_that_no_stride_gives_is_refused_with_one_that_would_do():
    assert stride_for(Target("density", 0.67)) == (2, 3)
    with pytest.raises(BudgetError, match=r"stride of 2 to 9; use for example 0.11, which is 1 of"):
        stride_for(Target("density", 0.03))
    with pytest.raises(BudgetError, match=r"which is 8 of 9"):
        stride_for(Target("density", 1.0))
    with pytest.raises(BudgetError, match="so multiples of 8 cannot be kept"):
        stride_for(Target("density", 0.5, multiple_of=8))
    with pytest.raises(BudgetError, match="fraction of kernel positions, so --macs"):
        stride_for(Target("macs", 0.5))


def test_images_are_needed_to_search_but_not_for_magnitude():
    bare = Task(net(), batches()[0][0][:1])
    strided(bare, Target("density", 0.5), search="magnitude")
    with pytest.raises(PruneError, match="judged on images, and there are none"):
        strided(bare, Target("density", 0.5))
