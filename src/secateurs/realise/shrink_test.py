import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateurs.core.errors import StructureError
from secateurs.realise.shrink import cut, follow_, shrink, small_shape


def keep(*bits):
    return torch.tensor(bits, dtype=torch.bool)


@given(st.data())
def test_cutting_agrees_with_indexing_axis_by_axis(data):
    shape = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=4))
    x = torch.arange(torch.Size(shape).numel()).view(shape)
    keeps, wanted = {}, x
    for dim, size in enumerate(shape):
        bits = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
        keeps[dim] = keep(*bits)
        wanted = wanted.index_select(dim, torch.tensor([i for i, b in enumerate(bits) if b]).long())
    assert torch.equal(cut(x, keeps), wanted)
    assert cut(x, keeps).shape == small_shape(tuple(shape), keeps)


def test_an_axis_of_length_one_says_nothing_and_stays():
    assert cut(torch.ones(4, 1), {0: keep(1, 0, 1, 0), 1: keep(1, 0)}).shape == (2, 1)


def test_groups_may_keep_different_inputs():
    weight = torch.arange(4 * 2).view(4, 2, 1, 1)
    small = cut(weight, {1: keep([1, 0], [0, 1])})
    assert small.flatten().tolist() == [0, 2, 5, 7]


def test_a_group_without_inputs_leaves_with_its_outputs():
    weight = torch.arange(4 * 2).view(4, 2, 1)
    keeps = {0: keep(0, 0, 1, 1), 1: keep([0, 0], [1, 1])}
    assert cut(weight, keeps).flatten().tolist() == [4, 5, 6, 7]
    assert small_shape((4, 2, 1), keeps) == (2, 2, 1)


def test_groups_that_keep_different_numbers_are_refused():
    with pytest.raises(StructureError, match=r"2 groups of one axis keep \[2, 1\] indices"):
        cut(torch.zeros(4, 2), {1: keep([1, 1], [0, 1])})


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.arange(4.0), persistent=False)


def test_a_shrunk_copy_keeps_ties_flags_and_the_original():
    model = Tied().half()
    model.embed.weight.requires_grad_(False)
    model.embed.weight.grad_free = True
    before = {n: t.clone() for n, t in model.state_dict().items()}
    small, shrunk = shrink(
        model, {"embed.weight": {1: keep(1, 0, 1, 0)}, "scale": {0: keep(1, 0, 1, 0)}}, {}
    )
    assert small.head.weight is small.embed.weight
    assert small.embed.weight is shrunk.new["embed.weight"]
    assert small.embed.weight.shape == (5, 2)
    assert small.embed.weight.dtype == torch.float16
    assert not small.embed.weight.requires_grad
    assert small.embed.weight.grad_free
    assert small.scale.tolist() == [0, 2]
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_masked_entries_that_stay_are_zero():
    model = nn.Linear(3, 1, bias=False)
    small, _ = shrink(model, {"weight": {1: keep(1, 1, 0)}}, {"weight": keep([1, 0, 0])})
    assert small.weight[0, 0] == model.weight[0, 0]
    assert small.weight[0, 1] == 0


def test_a_model_that_cannot_be_copied_says_so():
    model = nn.Linear(2, 2)
    model.stream = (i for i in range(3))
    with pytest.raises(StructureError, match=r"copy.deepcopy"):
        shrink(model, {}, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda ps: torch.optim.AdamW(ps, lr=0.01),
        lambda ps: torch.optim.Adafactor(ps, lr=0.01),
    ],
    ids=["sgd", "adamw", "adafactor"],
)
def test_optimizer_state_follows_and_training_goes_on(make):
    model = nn.Linear(4, 3)
    optimizer = make(model.parameters())
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    old = {k: v for k, v in optimizer.state[model.weight].items() if isinstance(v, torch.Tensor)}
    rows, columns = keep(1, 0, 1), keep(0, 1, 1, 1)
    small, shrunk = shrink(model, {"weight": {0: rows, 1: columns}, "bias": {0: rows}}, {})
    follow_(optimizer, shrunk)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        id(p) for p in small.parameters()
    ]
    for key, value in optimizer.state[small.weight].items():
        if isinstance(value, torch.Tensor) and value.shape == small.weight.shape:
            assert torch.equal(value, old[key][rows][:, columns])
        elif isinstance(value, torch.Tensor) and value.dim() == 0:
            assert torch.equal(value, old[key])
    small.in_features, small.out_features = 3, 2
    small(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    assert len(optimizer.state) == 2


def test_a_flat_history_is_refused_with_the_remedy():
    model = nn.Linear(2, 2)
    _, shrunk = shrink(model, {}, {})
    with pytest.raises(StructureError, match=r"make a new optimizer over compacted.model"):
        follow_(torch.optim.LBFGS(model.parameters()), shrunk)
