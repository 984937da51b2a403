import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from cut import NETS, WAYS, measure, table


def test_both_ways_keep_as_many_weights():
    torch.manual_seed(0)
    for cut in WAYS.values():
        assert cut(nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 9)), 0.1) == 236


def test_the_table_shows_medians_and_their_spread():
    runs = [{"seconds": s, "memory": 2.0, "total": 2360, "kept": 236} for s in (1.0, 4.0, 2.0)]
    last = table({("net", "way"): runs}, threads=1).splitlines()[-1]
    assert last.split() == ["net", "way", "2,360", "236", "2.00", "(1.00", "to", "4.00)", "2.00x"]


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_a_cut_of_60_million_weights_takes_less_than_three_times_their_memory(net):
    found = measure("secateurs", net, 0.1, 1)
    assert found["kept"] == round(0.1 * found["total"])
    assert found["memory"] < 3
