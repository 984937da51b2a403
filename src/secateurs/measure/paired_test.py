import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError
from secateurs.measure.accuracy import evaluate
from secateurs.measure.paired import Paired, hits, paired


def test_only_examples_on_which_the_two_differ_count():
    first = torch.tensor([True, True, False, True, False])
    second = torch.tensor([True, False, False, True, True])
    found = paired(first, second)
    assert (found.only_first, found.only_second, found.total) == (1, 1, 5)
    assert found.difference == 0
    assert paired(first, first).verdict == "a tie"


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(1000):
        u = torch.rand(300, generator=generator)
        # The first alone is right with 8 %, the second alone with 3 %.
        low, high = paired(u < 0.88, (u < 0.80) | (u > 0.97)).interval
        covered += low <= 0.05 <= high
    assert 0.93 < covered / 1000 < 0.98


def test_a_verdict_is_given_where_the_interval_leaves_zero_out():
    assert Paired(40, 10, 1000).verdict == "higher"
    assert Paired(10, 40, 1000).verdict == "lower"
    assert str(Paired(40, 10, 1000)).startswith("+3.00 points [+1.6")
    assert str(Paired(40, 10, 1000)).endswith("95% over 1000 test examples: higher")


def test_hits_are_what_accuracy_counts():
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    batches = [(torch.randn(5, 3), torch.randint(4, (5,))) for _ in range(3)]
    found = hits(model, batches)
    assert found.shape == (15,)
    assert int(found.sum()) == evaluate(model, batches).correct
    with pytest.raises(PruneError, match="cannot compare models on no examples"):
        hits(model, [])
