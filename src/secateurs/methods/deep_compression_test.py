import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.methods.deep_compression import deep_compression
from secateurs.methods.task import Target, Task
from secateurs.realise.coding.container import decode, encode

HALF = Target("density", 0.5)


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


class Steps:
    """A `Train` that takes a few steps of plain gradient descent and remembers the parts."""

    def __init__(self, steps=10):
        self.parts, self.steps = [], steps

    def __call__(self, model, *, name, epochs=None, after_step=None, penalty=None):
        self.parts.append((name, epochs))
        generator = torch.Generator().manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for step in range(self.steps):
            x = torch.randn(16, 20, generator=generator)
            loss = (model(x) - x[:, :10]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if after_step:
                after_step(step + 1)


def task(train=None, say=lambda line: None):
    return Task(net(), torch.randn(1, 20), train=train, steps=10, say=say)


def file_of(pruned):
    state = pruned.model.state_dict()
    return encode({name: pruned.coded.get(name, t) for name, t in state.items()}, **pruned.code)


def test_the_parts_are_those_of_the_paper():
    train = Steps()
    dense = net()
    made = task(train)
    deep_compression(made, HALF, rounds=2, tune=3)
    assert train.parts == [("round-1", None), ("recover", None), ("tune", 3)]
    for a, b in zip(made.model.parameters(), dense.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_run_leaves_a_picture_of_the_values(tmp_path):
    said = []
    made = deep_compression(replace(task(Steps(), said.append), folder=tmp_path), HALF)
    drawn = (tmp_path / "codebook.svg").read_text()
    assert all(name in drawn for name, p in net().named_parameters() if p.dim() > 1)
    assert any("codebook.svg" in line for line in said)
    assert list(made.pictures.values()) == [drawn]


OPTIONS = [
    {},
    {"codebook": "optimum", "biases": "levels", "entries": "float16", "code": "smallest"},
    {"codebook": "kmeans++", "biases": "float16", "step": "sum", "tune": 0},
    {"price": 0.1, "bits": 4, "code": "smallest"},
    {"pruning": "dns", "ranking": "global", "code": "smallest"},
    {"bits_of": ("2.weight=1",)},
    {"pruning": "gradual", "learn": "weights", "price": 0.01, "bits": 3, "code": "smallest"},
    {"pruning": "dns", "learn": "weights", "biases": "levels", "bias_bits": 4, "bits": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=[" ".join(o) or "defaults" for o in OPTIONS])
def test_the_file_decodes_to_the_model_that_was_returned(options):
    pruned = deep_compression(task(Steps()), HALF, **options)
    found = decode(file_of(pruned)).state()
    for name, tensor in pruned.model.state_dict().items():
        assert torch.equal(found[name].to(tensor.dtype), tensor), name
    for name, keep in pruned.mask.items():
        assert not pruned.model.get_parameter(name)[~keep].any(), name
    for name, coded in pruned.coded.items():
        if name.endswith("weight"):
            assert torch.equal(coded.mask, pruned.mask[name])


@pytest.mark.parametrize("bits", [1, 3])
def test_a_layer_has_no_more_values_than_its_bits_allow(bits):
    pruned = deep_compression(task(Steps()), HALF, bits=bits, bits_of=("2.weight=2",))
    values = {n: p[p != 0].unique().numel() for n, p in pruned.model.named_parameters()}
    assert values["0.weight"] <= 2**bits
    assert values["2.weight"] <= 4


def test_the_paper_codes_gaps_and_values_by_huffman_and_everything_takes_less():
    said = []
    paper = deep_compression(task(say=said.append), HALF)
    smallest = deep_compression(task(), HALF, code="smallest")
    assert paper.code == {"indices": ("gaps5+huffman",), "values": ("huffman",)}
    assert len(file_of(smallest)) < len(file_of(paper))
    assert said[-1].startswith(f"packed, 3760 bytes become {len(file_of(paper))}: ")


def test_biases_and_entries_take_less_where_they_are_rounded():
    sizes = [
        len(file_of(deep_compression(task(), HALF, biases=b, entries=e, code="smallest")))
        for b, e in (
            ("float32", "float32"),
            ("float16", "float32"),
            ("float16", "float16"),
            ("levels", "float16"),
        )
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


@pytest.mark.parametrize("code", ["paper", "smallest"])
def test_bits_are_shared_out_until_the_file_is_as_long_as_allowed(code):
    for size in (900, 1100):
        pruned = deep_compression(
            task(Steps()), HALF, bytes=size, code=code, biases="levels", codebook="optimum"
        )
        assert 0.8 * size < len(file_of(pruned)) <= size


def test_a_ratio_is_of_the_dense_bytes():
    pruned = deep_compression(task(), HALF, ratio=4.0, code="smallest", biases="levels")
    assert len(file_of(pruned)) <= 3760 / 4


def test_a_size_alone_chooses_how_many_weights_stay():
    said = []
    pruned = deep_compression(
        task(say=said.append), Target("density", 1.0), bytes=700, code="smallest", biases="levels"
    )
    assert said[0] == "700 bytes: keeping 69.14% of the weights"
    assert len(file_of(pruned)) <= 700
    assert sum(int(k.sum()) for k in pruned.mask.values()) == 207 + 415


def test_more_bytes_never_make_a_larger_error():
    dense = net()
    errors = []
    for size in (700, 850, 1000, 1200):
        pruned = deep_compression(
            task(), HALF, bytes=size, codebook="optimum", code="smallest", biases="levels", tune=0
        )
        off = [
            (a - b * keep).square().sum()
            for a, b, keep in (
                (pruned.model[i].weight, dense[i].weight, pruned.mask[f"{i}.weight"])
                for i in (0, 2)
            )
        ]
        errors.append(float(sum(off).detach()))
    assert errors == sorted(errors, reverse=True)


def test_tuning_the_values_makes_them_fit():
    def loss(model):
        x = torch.randn(200, 20, generator=torch.Generator().manual_seed(3))
        return float((model(x) - x[:, :10]).square().mean())

    before = deep_compression(task(Steps()), HALF, bits=1, tune=0)
    after = deep_compression(task(Steps()), HALF, bits=1, tune=1)
    assert loss(after.model) < loss(before.model)


def test_a_method_that_was_run_twice_gives_the_same_file():
    made = [
        file_of(deep_compression(copy.copy(task(Steps())), HALF, codebook="random"))
        for _ in range(2)
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bytes": 300}, BudgetError, "cannot pack 450 weights into a file of 300 bytes: with 1"),
        ({"bytes": 300, "ratio": 2.0}, BudgetError, "bytes 300 and ratio 2 are two budgets"),
        ({"ratio": 0.5}, BudgetError, "cannot aim at bytes 0, ratio 0.5; use 1 or more"),
        (
            {"pruning": "obd"},
            UnknownNameError,
            "unknown pruning 'obd'; use one of magnitude, gradual",
        ),
        ({"code": "zip"}, UnknownNameError, "unknown code 'zip'; use one of smallest, slow, paper"),
        ({"biases": "none"}, UnknownNameError, "unknown biases 'none'; use one of float32"),
        ({"entries": "levels"}, UnknownNameError, "unknown entries 'levels'; use one of float32"),
    ],
)
def test_what_cannot_be_done_is_said(options, error, message):
    with pytest.raises(error, match=message):
        deep_compression(task(), HALF, **options)


def test_channels_may_go_first_and_the_rest_is_pruned_and_packed():
    pruned = deep_compression(
        task(Steps()), HALF, channels=0.5, pruning="dns", learn="weights", price=0.01
    )
    assert pruned.compacted is not None
    assert pruned.compacted.proof.difference <= pruned.compacted.proof.tolerance
    hidden = pruned.model[0].weight.shape[0]
    assert hidden == 15
    found = decode(file_of(pruned)).state()
    assert all(torch.equal(found[n], t) for n, t in pruned.model.state_dict().items())
    kept = sum(int(pruned.mask[f"{i}.weight"].sum()) for i in (0, 2))
    assert kept <= round(0.5 * hidden * 30)


def test_weights_that_learn_behind_their_values_make_less_of_a_file():
    sizes = []
    for price in (0.0, 0.1, 1.0):
        pruned = deep_compression(
            task(Steps(100)), HALF, learn="weights", price=price, bits=3, code="smallest"
        )
        sizes.append(len(file_of(pruned)))
        assert all(len(c.canonical().codebook) <= 8 for c in pruned.coded.values())
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_bits_get_dearer_until_the_file_fits():
    pruned = deep_compression(
        task(Steps()), HALF, learn="weights", bytes=700, code="smallest", biases="levels"
    )
    assert len(file_of(pruned)) <= 700
