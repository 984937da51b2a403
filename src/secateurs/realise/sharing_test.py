import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from secateurs.core.errors import PruneError, ShapeError, StructureError, UnknownNameError
from secateurs.realise.coding.container import decode, encode
from secateurs.realise.coding.shared import Shared
from secateurs.realise.masked import apply_mask_, masked
from secateurs.realise.sharing import share
from secateurs.realise.sharing_held import shared
from secateurs.recovery.settings import Trainer
from secateurs.recovery.trainer import fit


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 8), nn.Linear(8, 3)
        )


def pruned(density=0.4):
    """A network, a mask over its weights, and the masked weights in place."""
    model = net()
    generator = torch.Generator().manual_seed(1)
    mask = {
        name: torch.rand(p.shape, generator=generator) < density
        for name, p in model.named_parameters()
        if name.endswith("weight")
    }
    return apply_mask_(model, mask), mask


def batches(count=6):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, 5, 1, 6, 6, generator=generator)
    y = torch.randint(3, (count, 5), generator=generator)
    return list(zip(x, y, strict=True))


class Loaders:
    train = batches()
    valid = None


def test_16_weights_in_4_entries_take_a_third_of_the_bits():
    """Han et al. 2016, section 3: 16 weights of 32 bits, 4 clusters, rate 3.2."""
    layer = nn.Linear(4, 4)
    table = share(layer, {"weight": torch.ones(4, 4, dtype=torch.bool)}, 2)["weight"]
    n, k, bits = table.index.numel(), table.codebook.numel(), 32
    assert n * bits / (n * 2 + k * bits) == 3.2


@pytest.mark.parametrize("codebook", ["linear", "density", "random", "kmeans++", "optimum"])
def test_every_kept_weight_takes_the_nearest_entry_and_no_other_has_one(codebook):
    model, mask = pruned()
    tables = share(model, mask, 3, codebook=codebook, generator=torch.Generator().manual_seed(0))
    for name, table in tables.items():
        assert table.codebook.shape == (8,)
        assert torch.equal(table.mask, mask[name])
        weight = model.get_parameter(name).detach()
        off = (weight[..., None] - table.codebook).abs()
        assert torch.equal(off.amin(-1)[mask[name]], (weight - table.dense()).abs()[mask[name]])


def test_enough_entries_give_every_weight_back():
    model, mask = pruned(0.1)
    for name, table in share(model, mask, 8, codebook="optimum").items():
        torch.testing.assert_close(table.dense(), model.get_parameter(name).detach())


def test_a_layer_with_nothing_left_has_no_entries():
    layer = nn.Linear(3, 2)
    table = share(layer, {"weight": torch.zeros(2, 3, dtype=torch.bool)})["weight"]
    assert table.codebook.shape == (0,)
    assert not table.dense().any()
    with shared(layer, {"weight": table}):
        layer(torch.ones(1, 3)).sum().backward()
    assert not layer.weight.any()


def test_bits_may_differ_by_layer():
    model, mask = pruned()
    tables = share(model, mask, {"0.weight": 4, "3.weight": 2, "4.weight": 0})
    assert [t.codebook.numel() for t in tables.values()] == [16, 4, 1]


def test_sharing_again_changes_nothing():
    model, mask = pruned()
    for name, table in share(model, mask, 2, codebook="optimum").items():
        model.get_parameter(name).data = table.dense()
    again = share(model, mask, 2, codebook="optimum")
    for name, table in again.items():
        torch.testing.assert_close(table.dense(), model.get_parameter(name).detach())


@pytest.mark.parametrize(("step", "divided"), [("sum", False), ("mean", True)])
def test_an_entrys_gradient_is_that_of_its_weights_together(step, divided):
    model, mask = pruned()
    tables = share(model, mask, 2)
    plain = copy.deepcopy(model)
    for name, table in tables.items():
        plain.get_parameter(name).data = table.dense()
    x, y = batches(1)[0]
    cross_entropy(plain(x), y).backward()
    with shared(model, tables, step=step):
        cross_entropy(model(x), y).backward()
        for name, table in tables.items():
            dense = plain.get_parameter(name).grad[table.mask]
            entry = table.index[table.mask].long()
            expected = torch.zeros(4).index_add_(0, entry, dense)
            if divided:
                expected /= torch.bincount(entry, minlength=4).clamp_min(1)
            module = model.get_submodule(name.removesuffix(".weight"))
            torch.testing.assert_close(module.parametrizations.weight.original.grad, expected)
        torch.testing.assert_close(model[0].bias.grad, plain[0].bias.grad)


def test_training_moves_entries_and_nothing_else_about_the_weights():
    model, mask = pruned()
    order, objects = [n for n, _ in model.named_parameters()], list(model.parameters())
    tables = share(model, mask, 2)
    with shared(model, tables) as held:
        fit(model, Loaders, Trainer(epochs=2, lr=0.05))
    assert [n for n, _ in model.named_parameters()] == order
    assert all(a is b for a, b in zip(model.parameters(), objects, strict=True))
    for name, table in held.tables.items():
        assert torch.equal(table.index, tables[name].index)
        assert not torch.equal(table.codebook, tables[name].codebook)
        assert torch.equal(table.dense(), model.get_parameter(name).detach())
    assert model(batches(1)[0][0]).isfinite().all()


def test_a_killed_training_of_entries_goes_on_as_if_nothing_had_happened(tmp_path):
    class KilledError(Exception):
        pass

    def kill(step):
        if step == 9:
            raise KilledError

    settings = Trainer(epochs=3, lr=0.05)
    whole, mask = pruned()
    tables = share(whole, mask, 2)
    killed = copy.deepcopy(whole)
    with shared(whole, tables):
        fit(whole, Loaders, settings)
    broken = copy.deepcopy(killed)
    with pytest.raises(KilledError), shared(broken, tables):
        fit(broken, Loaders, settings, folder=tmp_path, after_step=kill)
    with shared(killed, tables):
        history = fit(killed, Loaders, settings, folder=tmp_path)
    assert "resumed after epoch 1 of 3" in history.notes
    for a, b in zip(whole.parameters(), killed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_file_gives_back_the_tuned_weights():
    model, mask = pruned()
    with shared(model, share(model, mask, 3)) as held:
        fit(model, Loaders, Trainer(epochs=1, lr=0.05))
    blob = encode({**model.state_dict(), **held.tables})
    found = decode(blob).state()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_tied_weights_share_one_codebook():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    tables = share(model, {"0.weight": torch.ones(3, 3, dtype=torch.bool)}, 1)
    with shared(model, tables):
        model(torch.ones(1, 3)).sum().backward()
        assert torch.equal(model[0].weight, model[1].weight)
        assert len(list(model.parameters())) == 3
    assert model[1].weight is model[0].weight
    assert model[0].weight.shape == (3, 3)


def test_a_copy_taken_inside_stays_shared():
    model, mask = pruned()
    with shared(model, share(model, mask, 1)):
        twin = copy.deepcopy(model)
    assert twin.get_parameter("3.parametrizations.weight.original").shape == (2,)
    assert torch.equal(twin[3].weight, model[3].weight)


def test_an_error_inside_leaves_the_model_plain():
    model, mask = pruned()
    with pytest.raises(KeyError), shared(model, share(model, mask, 1)):
        raise KeyError
    assert set(model.state_dict()) == set(net().state_dict())


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"bits": 17}, PruneError, "'3.weight' gets 17 bits; use 0 to 16"),
        ({"bits": {}}, PruneError, "no bits are given for 3.weight; name every"),
        ({"codebook": "best"}, UnknownNameError, "unknown codebook 'best'; use one of linear"),
    ],
)
def test_wrong_settings_are_named(wrong, error, message):
    model, mask = pruned()
    with pytest.raises(error, match=message):
        share(model, {"3.weight": mask["3.weight"]}, **wrong)


def test_weights_that_are_not_finite_are_refused():
    layer = nn.Linear(2, 1)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(PruneError, match="cannot share weights that are NaN or infinite"):
        share(layer, {"weight": torch.tensor([[True, False]])})
    share(layer, {"weight": torch.tensor([[False, True]])})


def test_tables_that_do_not_fit_are_named():
    model, mask = pruned()
    table = share(model, mask, 1)["3.weight"]
    with pytest.raises(UnknownNameError, match=r"names '3.wieght'.*did you mean 3.weight"):
        shared(model, {"3.wieght": table}).__enter__()
    with pytest.raises(ShapeError, match=r"'4.weight' is for shape \(8, 64\), its tensor has"):
        shared(model, {"4.weight": table}).__enter__()
    with pytest.raises(UnknownNameError, match="unknown step 'all'; use 'sum' or 'mean'"):
        shared(model, {"3.weight": table}, step="all").__enter__()


def test_a_masked_parameter_is_refused_before_anything_changes():
    model, mask = pruned()
    tables = share(model, mask, 1)
    with masked(model, {"4.weight": mask["4.weight"]}):
        with pytest.raises(StructureError, match=r"'4.weight' is masked or otherwise parametrized"):
            shared(model, tables).__enter__()
        assert model[0].weight.shape == (4, 1, 3, 3)


def test_half_precision_entries_are_stored_as_such():
    layer = nn.Linear(4, 2).half()
    table = share(layer, {"weight": torch.ones(2, 4, dtype=torch.bool)}, 1)["weight"]
    assert table.codebook.dtype == table.dense().dtype == torch.float16
    assert isinstance(decode(encode({"w": table})).tensors["w"], Shared)
