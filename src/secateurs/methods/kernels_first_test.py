import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, nn

from secateurs.core.cut import decide, score
from secateurs.core.errors import BudgetError, StructureError
from secateurs.core.mask import Mask
from secateurs.criteria.magnitude import l1
from secateurs.evidence.weights import weights
from secateurs.methods.channels import filters, removable, share
from secateurs.methods.kernel_budgets import best, hoyer, kept_per_filter
from secateurs.methods.kernel_ledger import ledger
from secateurs.methods.kernels_first import kernel_mask, kernels_first, several, unread_units
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN
from secateurs.models.lenet import LeNet300
from secateurs.realise.masked import apply_mask

X = torch.randn(2, 1, 8, 8, generator=Generator().manual_seed(0))
BY_HAND = torch.tensor([[3.0, 1.0, 2.0], [0.1, 0.3, 0.2]])


def net(width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DigitsCNN(width=width).eval()


def test_each_filter_keeps_its_own_best_kernels_however_short_they_are():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        model[0].weight.copy_(BY_HAND[:, :, None, None])
    keep = kernel_mask(model, several(model, ()), 2 / 3, "fixed")["0.weight"].flatten(1)
    assert keep.tolist() == [[True, False, True], [False, True, True]]


def test_of_a_filter_with_one_strong_kernel_the_adaptive_budget_keeps_fewer():
    even, peaked = [1.0, 1.1, 0.9, 1.0], [9.0, 0.1, 0.1, 0.1]
    keep = kept_per_filter(torch.tensor([even, peaked]), 0.625, "adaptive")
    assert keep.tolist() == [4, 1]


@given(
    st.integers(1, 6), st.integers(1, 9), st.floats(0.05, 1.0), st.integers(0, 99)
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_budgets_are_met_exactly_with_one_kernel_at_least(filters, kernels, density, seed):
    strengths = torch.rand(filters, kernels, generator=Generator().manual_seed(seed))
    adaptive = kept_per_filter(strengths, density, "adaptive")
    assert int(adaptive.sum()) == max(filters, round(density * kernels * filters))
    assert 1 <= adaptive.min() <= adaptive.max() <= kernels
    assert torch.equal(best(strengths, adaptive).sum(dim=1), adaptive)
    fixed = kept_per_filter(strengths, density, "fixed")
    assert len(set(fixed.tolist())) == 1
    assert 0 <= int(fixed[0]) - density * kernels < 1 + 1e-6


def test_the_index_of_sparsity_by_hand():
    assert hoyer(torch.tensor([[3.0, 4.0]])).item() == pytest.approx((2**0.5 - 1.4) / (2**0.5 - 1))
    assert hoyer(torch.zeros(1, 3)).item() == 0
    assert hoyer(torch.ones(1, 1)).item() == 0


def test_a_density_out_of_range_is_refused():
    with pytest.raises(BudgetError, match="cannot keep a density of 0 of the kernels"):
        kept_per_filter(BY_HAND, 0, "fixed")


def test_with_all_kernels_it_is_plain_filter_pruning():
    model = net()
    place = removable(model, X)
    scores = score(filters(place.sites, model), l1, weight=weights(model))
    expected = decide(place.sites, scores, share(place, scores, Target("macs", 0.5), "uniform"))
    pruned = kernels_first(Task(model, X), Target("macs", 0.5), kernels=1.0)
    for name, keep in expected.items():
        assert torch.equal(pruned.compacted.kept[name.removesuffix(":0")][0], keep)
    assert pruned.mask.density == 1.0


def test_with_all_filters_it_is_plain_kernel_pruning():
    model = net()
    pruned = kernels_first(Task(model, X), Target("density", 1.0), kernels=0.5)
    mask = kernel_mask(model, several(model, ()), 0.5, "fixed")
    assert pruned.compacted.removed == {}
    torch.testing.assert_close(pruned.model(X), apply_mask(model, mask)(X))


@pytest.mark.parametrize("budget", ["fixed", "adaptive"])
def test_both_stages_leave_a_thinner_model_whose_kernels_are_held(budget):
    pruned = kernels_first(Task(net(), X), Target("macs", 0.5), kernels=0.4, budget=budget)
    assert pruned.compacted.proof.difference < 1e-8
    kept = [k.flatten(2).any(dim=2) for n, k in pruned.mask.items() if k.dim() == 4]
    share = sum(int(k.sum()) for k in kept) / sum(k.numel() for k in kept)
    assert 0.2 < share < 0.6
    for name, keep in pruned.mask.items():
        value = pruned.model.state_dict()[name]
        assert not bool(value[~keep].any())
    assert "kernels stay in the convolutions that are left" in pruned.notes[0]


def test_channels_that_no_kernel_reads_are_found_and_leave():
    model = net()
    place = removable(model, X)
    keep = torch.ones(8, 8, 3, 3, dtype=torch.bool)
    keep[:, 3] = False
    unread = unread_units(model, place, Mask({"block1.conv2.0.weight": keep}))
    assert unread["block1.conv1.0.weight:0"].nonzero().flatten().tolist() == [3]
    assert not any(bool(u.any()) for n, u in unread.items() if n != "block1.conv1.0.weight:0")
    with torch.no_grad():
        model.block1.conv2[0].weight[:, 3] = 1e-9
    pruned = kernels_first(Task(model, X), Target("density", 1.0), kernels=0.5)
    assert pruned.compacted.removed == {"block1.conv1.0.weight:0": 1}


def test_a_masked_convolution_is_its_filters_gathering_the_kernels_that_are_left():
    conv = nn.Conv2d(6, 5, 3, padding=1, stride=2)
    x = torch.randn(2, 6, 9, 9, generator=Generator().manual_seed(0))
    keep = kernel_mask(nn.Sequential(conv), several(nn.Sequential(conv), ()), 0.5, "adaptive")
    keep = keep["0.weight"].flatten(2).any(dim=2)
    thin = [
        F.conv2d(x[:, read], conv.weight[i : i + 1, read], conv.bias[i : i + 1], 2, 1)
        for i, read in enumerate(keep)
    ]
    dense = F.conv2d(x, conv.weight * keep[:, :, None, None], conv.bias, 2, 1)
    torch.testing.assert_close(torch.cat(thin, dim=1), dense, rtol=1e-5, atol=1e-5)


def test_the_ledger_counts_kernels_weights_and_the_cheaper_index():
    model = nn.Sequential(nn.Conv2d(16, 4, 3))
    keep = torch.zeros(4, 16, 3, 3, dtype=torch.bool)
    keep[:, :2] = True
    found = ledger(model, {"0.weight": keep})
    assert (found.kernels, found.kept, found.weights, found.kept_weights) == (64, 8, 576, 72)
    assert found.index_bits == 8 * 4
    assert str(found).endswith("72 of 576 weights; which ones takes 4 bytes")
    assert str(ledger(model, {})) == "no kernels were cut"


def test_a_model_without_convolutions_is_refused():
    with pytest.raises(StructureError, match="LeNet300 has no convolution with several kernels"):
        kernels_first(Task(LeNet300(), torch.zeros(1, 1, 28, 28)), Target())
