import pytest
import torch
from torch import Generator, nn

from secateurs.core.errors import PruneError
from secateurs.methods.ac_dc import ac_dc, compressed
from secateurs.methods.task import Target, Task

STEPS = 100


def watched(**options):
    """Masks and weights after every step of a training that only adds noise to all weights."""
    masks, seen = [], []

    def train(model, *, name, after_step):
        noise = Generator().manual_seed(1)
        for step in range(1, STEPS + 1):
            with torch.no_grad():
                for p in model.parameters():
                    p += 0.1 * torch.randn(p.shape, generator=noise)
            after_step(step)
            masks.append(model.parametrizations.weight[0].keep.bool().clone())
            seen.append(model.weight.detach().clone())

    torch.manual_seed(0)
    model = nn.Linear(10, 10, bias=False)
    task = Task(model, torch.ones(1, 10), train=train, steps=STEPS)
    return ac_dc(task, Target("density", 0.2), **options), masks, seen


def test_phases_alternate_as_the_paper_has_them_and_the_last_is_sparse():
    _, masks, _ = watched()
    sparse = [int(mask.sum()) == 20 for mask in masks]
    changes = [step for step in range(2, STEPS + 1) if sparse[step - 1] != sparse[step - 2]]
    assert changes == [*range(10, 76, 5), 85][: len(changes)]
    assert all(int(mask.sum()) in (20, 100) for mask in masks)
    assert sparse[-15:] == [True] * 15
    assert not any(sparse[75:84])


def test_within_a_sparse_phase_the_mask_is_fixed_and_the_next_one_is_cut_anew():
    pruned, masks, seen = watched()
    assert all(torch.equal(masks[9], mask) for mask in masks[10:14])
    assert not torch.equal(masks[9], masks[19])
    assert torch.equal(pruned.mask["weight"], masks[-1])
    # What is cut are the smallest of the moment.
    before = seen[18].abs()
    assert not seen[12][~masks[12]].any()
    assert int((before != 0).sum()) == 100


def test_what_was_cut_grows_from_zero_in_the_dense_phase():
    _, masks, seen = watched()
    cut = ~masks[13]
    assert masks[14].all()
    assert not seen[14][cut].any()
    assert seen[15][cut].all()


def test_progress_says_which_phase_it_is():
    shares = {"warm": 0.1, "phase": 0.05, "dense": 0.75, "sparse": 0.85}
    assert [compressed(t, **shares) for t in (0.0, 0.1, 0.15, 0.2)] == [False, True, False, True]
    assert [compressed(t, **shares) for t in (0.7, 0.75, 0.84, 0.85, 1.0)] == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_shares_out_of_order_are_refused():
    with pytest.raises(PruneError, match=r"warm 0.1, dense 0.9 and sparse 0.85 are no order"):
        watched(dense=0.9)
