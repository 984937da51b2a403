from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError, ShapeError, StructureError
from secateurs.realise.coding.shared import Shared
from secateurs.realise.masked import masked
from secateurs.realise.rounding import bounds, rounded
from secateurs.realise.sharing import share
from secateurs.recovery.settings import Trainer
from secateurs.recovery.trainer import fit


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def net():
    layer = nn.Linear(8, 6)
    layer.weight.data = random(6, 8)
    layer.bias.data = random(6, seed=1)
    return layer


def half(model):
    return {"weight": model.weight.detach().abs() > 0.5}


def tables(model, bits=2):
    return share(model, half(model), bits, codebook="optimum")


def batches():
    return [(random(5, 8, seed=s), torch.arange(5) + s % 2) for s in range(6)]


class Loaders:
    train = batches()
    valid = None


def test_weights_are_seen_as_the_values_nearest_and_what_goes_stays_zero():
    model = net()
    weight, given = model.weight.detach().clone(), tables(model)["weight"]
    with rounded(model, {"weight": given}) as held:
        seen = model.weight.detach()
        assert not seen[~half_of(weight)].any()
        values = torch.cat([given.codebook, torch.zeros(1)])
        off = (weight[half_of(weight)][:, None] - values).abs().min(1).values
        assert torch.equal((seen - weight)[half_of(weight)].abs(), off)
        assert torch.equal(held.tables["weight"].dense(), seen)
    assert torch.equal(model.weight, seen)
    assert list(dict(model.named_parameters())) == ["weight", "bias"]


def half_of(weight):
    return weight.abs() > 0.5


def test_the_weights_behind_learn_by_the_gradient_of_what_is_seen():
    model = net()
    plain = net()
    with rounded(model, tables(model)):
        plain.weight.data = model.weight.detach().clone()
        for m in (model, plain):
            m(random(3, 8)).square().sum().backward()
        behind = next(p for p in model.parameters() if p.dim() == 1 and p.numel() != 6)
        assert torch.equal(behind.grad, plain.weight.grad[half(net())["weight"]])


def test_values_follow_their_weights_to_the_mean():
    model = net()
    with rounded(model, tables(model)) as held:
        behind = next(p for p in model.parameters() if p.dim() == 1 and p.numel() != 6)
        behind.data += 0.05
        before = held.tables["weight"]
        held.settle_(price=0.0)
        after = held.tables["weight"]
        for entry in range(4):
            mine = behind.detach()[before.index[before.mask] == entry]
            assert torch.isclose(after.codebook[entry], mine.mean())


def test_dearer_bits_make_fewer_weights_and_fewer_values():
    found = []
    for price in (0.0, 0.05, 0.5, 50.0):
        model = net()
        with rounded(model, tables(model)) as held:
            for _ in range(3):
                held.settle_(price)
            found.append(int(held.tables["weight"].mask.sum()))
    assert found == sorted(found, reverse=True)
    assert found[0] > found[2]
    assert found[-1] == 0


def test_between_bounds_the_value_of_least_cost_is_taken():
    book = torch.tensor([-2.0, -0.7, 0.0, 0.1, 0.8, 3.0], dtype=torch.float64)
    bits = torch.tensor([3.0, 4.0, 1.0, 9.0, 3.0, 6.0], dtype=torch.float64)
    w = torch.linspace(-4, 4, 801, dtype=torch.float64) + 1e-4
    for worth in (0.0, 0.02, 0.2):
        cost = (w[:, None] - book).square() + worth * bits
        taken = torch.bucketize(w, bounds(book, bits, worth))
        assert torch.equal(taken, cost.argmin(1))


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path):
    def run(epochs, folder):
        model = net()
        with rounded(model, tables(model)) as held:
            settings = Trainer(epochs=4, lr=0.1)

            def settle(step):
                if step % 4 == 0:
                    held.settle_(0.02)
                if step == 6 * epochs:
                    raise KeyboardInterrupt

            with suppress(KeyboardInterrupt):
                fit(model, Loaders, settings, folder=folder, after_step=settle)
        return held.tables["weight"]

    whole = run(99, tmp_path / "whole")
    run(2, tmp_path / "killed")
    again = run(99, tmp_path / "killed")
    assert torch.equal(whole.codebook, again.codebook)
    assert torch.equal(whole.index, again.index)


def test_a_layer_without_weights_stays_empty():
    model = net()
    nothing = Shared(torch.zeros(0), torch.full((6, 8), -1))
    with rounded(model, {"weight": nothing}) as held:
        held.settle_(0.1)
        model(random(2, 8)).sum().backward()
    assert not model.weight.any()


def test_what_does_not_fit_is_named():
    model = net()
    table = tables(model)["weight"]
    with (
        pytest.raises(ShapeError, match=r"the codebook of 'weight' is for shape \(2, 8\)"),
        rounded(model, {"weight": replace(table, index=table.index[:2])}),
    ):
        pass
    with (
        masked(model, half(model)),
        pytest.raises(StructureError, match="'weight' is masked or shared already"),
        rounded(model, {"weight": table}),
    ):
        pass
    model.weight.data[0, 0] = torch.nan
    everything = replace(table, index=table.index.clamp_min(0))
    with (
        pytest.raises(PruneError, match="'weight' holds NaN or infinity; train anew"),
        rounded(model, {"weight": everything}),
    ):
        pass
