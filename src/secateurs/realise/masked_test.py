import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from secateurs.core.errors import PruneError, ShapeError, StructureError, UnknownNameError
from secateurs.realise.masked import apply_mask, apply_mask_, masked, settle_

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.5),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
}


class Net(nn.Module):
    """A convolution with batch norm, a linear layer with a bias."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).mean(dim=(2, 3)))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def some_mask(model, names=("conv.weight", "fc.weight", "fc.bias", "bn.weight", "bn.bias")):
    """Keep a checkered half of each named tensor."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {n: (torch.arange(tensors[n].numel()) % 2 == 0).view(tensors[n].shape) for n in names}


def steps(model, optimizer, n=3, call=None):
    for _ in range(n):
        optimizer.zero_grad()
        (model if call is None else call)(torch.randn(8, 1, 6, 6)).square().sum().backward()
        optimizer.step()


def zero_where_masked(model, mask):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return all(bool((tensors[name][~keep] == 0).all()) for name, keep in mask.items())


@pytest.mark.parametrize("gradients", ["masked", "dense"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_masked_entries_are_zero_in_every_call_and_after(optimizer, gradients):
    model = Net()
    mask = some_mask(model)
    running = optimizer(model.parameters())
    steps(model, running)  # momentum is under way before the mask comes
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with masked(model, mask, gradients=gradients):
        for _ in range(3):
            steps(model, running, 1)
            assert not model.conv.weight[~mask["conv.weight"]].any()
            assert not model.fc.bias[~mask["fc.bias"]].any()
    assert zero_where_masked(model, mask)
    kept = mask["conv.weight"]
    assert not torch.equal(model.conv.weight[kept], before["conv.weight"][kept])


def test_training_inside_equals_training_with_the_mask_applied_after_every_step():
    """The oracle for plain SGD: project the weights after each step."""
    model, other = Net(), Net()
    other.load_state_dict(model.state_dict())
    mask = some_mask(model)
    torch.manual_seed(1)
    with masked(model, mask):
        steps(model, torch.optim.SGD(model.parameters(), lr=0.1), 5)
    torch.manual_seed(1)
    apply_mask_(other, mask)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(5):
        steps(other, optimizer, 1)
        apply_mask_(other, mask)
    for key, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_masked_gradients_are_zero_and_dense_ones_those_of_the_masked_weight():
    x = torch.tensor([[2.0, 3.0]])
    found = {}
    for gradients in ("masked", "dense"):
        layer = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, 5.0]]))
        weight = layer.weight
        mask = {"weight": torch.tensor([[True, False]])}
        with masked(layer, mask, gradients=gradients):
            y = layer(x)
            assert y.item() == 2.0
            y.square().sum().backward()  # dL/dy = 4
            found[gradients] = weight.grad.tolist()
    assert found == {"masked": [[8.0, 0.0]], "dense": [[8.0, 12.0]]}


def test_a_dense_gradient_moves_the_entry_behind_its_mask_and_an_update_brings_it_back():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 5.0]]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with masked(layer, {"weight": torch.tensor([[True, False]])}, gradients="dense") as held:
        layer(torch.tensor([[2.0, 3.0]])).sum().backward()
        optimizer.step()
        assert layer.weight.tolist() == [[pytest.approx(0.8), 0.0]]
        held.update({"weight": torch.tensor([[False, True]])})
        assert layer.weight.tolist() == [[0.0, pytest.approx(4.7)]]
        held.update({"weight": torch.tensor([[True, True]])})
        assert layer.weight.tolist() == [[pytest.approx(0.8), pytest.approx(4.7)]]
    assert layer.weight.tolist() == [[pytest.approx(0.8), pytest.approx(4.7)]]


def test_with_masked_gradients_an_entry_comes_back_from_zero():
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    keep = torch.ones(4, 4, dtype=torch.bool)
    keep[0] = False
    with masked(model, {"weight": keep}) as held:
        optimizer.zero_grad()
        model(torch.randn(3, 4)).square().sum().backward()
        optimizer.step()  # momentum still moves the stored row
        assert model.parametrizations.weight.original[0].any()
        held.update({"weight": torch.ones(4, 4, dtype=torch.bool)})
        assert not model.weight[0].any()
        assert model.weight[1:].all()


def test_an_update_may_name_other_parameters():
    model = Net()
    first, second = some_mask(model, ["conv.weight"]), some_mask(model, ["fc.weight", "fc.bias"])
    with masked(model, first) as held:
        held.update(second)
        assert {name: t.all().item() for name, t in held.mask.items()} == {
            "conv.weight": True,
            "fc.weight": False,
            "fc.bias": False,
        }
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        assert model.conv.weight.all()
        assert not model.fc.weight[~second["fc.weight"]].any()
    assert zero_where_masked(model, second)


def test_held_tells_the_mask_also_of_buffers():
    model = Net()
    mask = some_mask(model, ["conv.weight", "bn.running_mean"])
    with masked(model, mask) as held:
        assert {n: t.tolist() for n, t in held.mask.items()} == {
            n: t.tolist() for n, t in mask.items()
        }


def test_parameters_stay_the_same_objects_in_the_same_order():
    model = Net()
    before = dict(model.named_parameters())
    modules = {name: type(m) for name, m in model.named_modules()}
    with masked(model, some_mask(model)):
        inside = {id(p) for p in model.parameters()}
    after = dict(model.named_parameters())
    assert inside == {id(p) for p in before.values()}
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert {name: type(m) for name, m in model.named_modules()} == modules
    assert not any(hasattr(m, "parametrizations") for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())


def test_an_optimizer_state_saved_before_loads_after():
    model = Net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with masked(model, some_mask(model)):
        steps(model, optimizer)
    fresh = OPTIMIZERS["adamw"](model.parameters())
    fresh.load_state_dict(optimizer.state_dict())
    for parameter in model.parameters():
        assert torch.equal(fresh.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"])


def test_masked_statistics_stay_zero_and_the_others_go_on():
    model = Net()
    mask = some_mask(model, ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"])
    keep = mask["bn.running_mean"]
    with masked(model, mask):
        assert not model.bn.running_var[~keep].any()
        steps(model, torch.optim.SGD(model.parameters(), lr=0.1))
        assert not model.bn.running_mean[~keep].any()
        assert not model.bn.running_var[~keep].any()
        assert model.bn.running_mean[keep].all()
        assert model.bn.num_batches_tracked == 3
        assert model.eval()(torch.randn(2, 1, 6, 6)).isfinite().all()
        model.bn.reset_running_stats()
    assert zero_where_masked(model, mask)


def test_blocks_nest_and_what_both_keep_stays():
    model = Net()
    outer = some_mask(model, ["fc.weight"])
    inner = {"fc.weight": torch.tensor([[True, True, False, False]]).repeat(3, 1)}
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with masked(model, outer) as held:
        with masked(model, inner) as more:
            steps(model, optimizer)
            both = outer["fc.weight"] & inner["fc.weight"]
            assert torch.equal(model.fc.weight != 0, both)
            assert torch.equal(more.mask["fc.weight"], inner["fc.weight"])
        assert torch.equal(model.fc.weight != 0, both)
        steps(model, optimizer)
        assert torch.equal(model.fc.weight != 0, outer["fc.weight"])
        assert torch.equal(held.mask["fc.weight"], outer["fc.weight"])
    assert torch.equal(model.fc.weight != 0, outer["fc.weight"])


def test_the_inner_block_may_have_other_gradients():
    layer = nn.Linear(3, 1, bias=False)
    weight = layer.weight
    a, b = torch.tensor([[True, False, True]]), torch.tensor([[False, True, True]])
    with masked(layer, {"weight": a}), masked(layer, {"weight": b}, gradients="dense"):
        layer(torch.ones(1, 3)).sum().backward()
    assert weight.grad.tolist() == [[1.0, 0.0, 1.0]]


def test_a_deep_copy_taken_inside_lives_on_alone():
    model = Net()
    mask = some_mask(model, ["fc.weight", "fc.bias", "bn.running_mean"])
    whole = {name: torch.ones_like(keep) for name, keep in mask.items()}
    with masked(model, mask) as held:
        twin = copy.deepcopy(model)
        held.update(whole)  # does not reach the copy
    x = torch.randn(2, 1, 6, 6)
    steps(twin, OPTIMIZERS["adamw"](twin.parameters()))
    assert not twin.fc.weight[~mask["fc.weight"]].any()
    with masked(twin, some_mask(twin, ["conv.weight"])):
        assert torch.isfinite(twin(x)).all()
    assert not hasattr(model.fc, "parametrizations")
    assert model(x).shape == (2, 3)
    assert settle_(twin) is twin
    assert zero_where_masked(twin, mask)
    assert type(twin.fc) is nn.Linear
    assert not twin.bn._forward_hooks
    assert list(twin.state_dict()) == list(model.state_dict())


def test_a_copy_may_be_settled_while_the_block_goes_on():
    model = Net()
    mask = some_mask(model, ["fc.weight", "fc.bias"])
    with masked(model, mask):
        settle_(copy.deepcopy(model))
        assert not model.fc.weight[~mask["fc.weight"]].any()
        assert not model.fc.bias[~mask["fc.bias"]].any()


def test_a_copy_made_plain_by_torch_leaves_the_original_masked():
    layer = nn.Linear(2, 2)
    keep = torch.tensor([[True, False], [False, True]])
    with masked(layer, {"weight": keep}):
        twin = copy.deepcopy(copy.deepcopy(layer))
        parametrize.remove_parametrizations(twin, "weight")
        assert torch.equal(layer.weight != 0, keep)
        assert torch.equal(twin.weight != 0, keep)


def test_a_state_makes_the_round_trip_inside_and_outside():
    model, other = Net(), Net()
    mask = some_mask(model)
    plain = list(model.state_dict())
    with masked(model, mask):
        steps(model, OPTIMIZERS["momentum"](model.parameters()))
        inside = copy.deepcopy(model.state_dict())
        assert "conv.parametrizations.weight.original" in inside
    with masked(other, {name: torch.ones_like(keep) for name, keep in mask.items()}) as held:
        other.load_state_dict(inside)
        assert all(torch.equal(held.mask[name], mask[name]) for name in mask)
    assert list(model.state_dict()) == plain
    assert zero_where_masked(other, mask)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    other = Net()
    other.load_state_dict(model.state_dict())


def test_loading_plain_weights_inside_by_assignment_keeps_the_mask():
    model = nn.Linear(2, 2)
    keep = torch.tensor([[True, False], [False, True]])
    with masked(model, {"weight": keep}):
        model.weight = torch.full((2, 2), 7.0)
        assert model.weight.tolist() == [[7.0, 0.0], [0.0, 7.0]]


def test_held_state_loads_into_a_plain_model():
    model = Net()
    model.tail = parametrizations.weight_norm(nn.Linear(3, 3))
    plain = Net()
    plain.tail = parametrizations.weight_norm(nn.Linear(3, 3))
    mask = some_mask(model, ["conv.weight", "fc.bias"])
    with masked(model, mask, gradients="dense") as held:
        state = held.state_dict()
    plain.load_state_dict(state)
    assert zero_where_masked(plain, mask)
    x = torch.randn(2, 1, 6, 6)
    assert torch.equal(plain.eval()(x), model.eval()(x))


def test_autocast_computes_in_the_low_precision_with_zeros():
    model = Net()
    mask = some_mask(model)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with masked(model, mask), torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(torch.randn(2, 1, 6, 6))
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        optimizer.step()
        assert model.conv.weight.dtype == torch.float32
        assert not model.conv.weight[~mask["conv.weight"]].any()
    assert zero_where_masked(model, mask)


@pytest.mark.parametrize("gradients", ["masked", "dense"])
def test_a_compiled_model_stays_masked_and_follows_an_update(gradients):
    torch.compiler.reset()
    model = Net()
    mask = some_mask(model, ["conv.weight", "fc.weight", "fc.bias", "bn.running_mean"])
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    other = {name: ~keep for name, keep in mask.items()}
    x = torch.randn(2, 1, 6, 6)
    with masked(model, mask, gradients=gradients) as held:
        fast = torch.compile(model, backend="aot_eager", fullgraph=True)
        steps(model, optimizer, call=fast)
        torch.testing.assert_close(fast(x), model(x))
        held.update(other)
        steps(model, optimizer, call=fast)
        assert not model.fc.weight[~other["fc.weight"]].any()
        assert not model.bn.running_mean[~other["bn.running_mean"]].any()
        torch.testing.assert_close(fast.eval()(x), model.eval()(x))
    torch.testing.assert_close(fast.eval()(x), model.eval()(x))
    assert zero_where_masked(model, other)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.embed(tokens))


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_a_tied_parameter_is_masked_wherever_it_is_used(name):
    model = Tied()
    weight = model.embed.weight
    keep = torch.arange(20).view(5, 4) % 3 > 0
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    with masked(model, {name: keep}) as held:
        for _ in range(3):
            model(torch.arange(5)).square().sum().backward()
            optimizer.step()
            assert torch.equal(model.embed.weight != 0, keep)
            assert torch.equal(model.head.weight != 0, keep)
        assert set(held.state_dict()) == {"embed.weight", "head.weight"}
    assert model.head.weight is model.embed.weight is weight
    assert torch.equal(weight != 0, keep)


def test_masks_of_both_names_of_a_tied_parameter_meet():
    model = Tied()
    a, b = torch.rand(5, 4) > 0.3, torch.rand(5, 4) > 0.3
    with masked(model, {"embed.weight": a, "head.weight": b}):
        assert torch.equal(model.head.weight != 0, a & b)


def test_a_module_under_two_names_is_masked_once():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    keep = torch.eye(3, dtype=torch.bool)
    with masked(model, {"2.weight": keep}):
        assert torch.equal(layer.weight != 0, keep)
    assert torch.equal(layer.weight != 0, keep)
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_use_the_masked_weights(make):
    model = make(3, 4, batch_first=True)
    keep = torch.rand_like(model.weight_hh_l0) > 0.5
    x = torch.randn(2, 5, 3)
    expected = apply_mask(model, {"weight_hh_l0": keep})(x)[0]
    with masked(model, {"weight_hh_l0": keep}):
        assert torch.equal(model(x)[0], expected)
        model(x)[0].sum().backward()
    assert torch.equal(model(x)[0], expected)


@pytest.mark.parametrize("training", [True, False])
def test_attention_uses_the_masked_weights(training):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    names = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.bias"]
    mask = some_mask(model, names)
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        expected = apply_mask(model, mask)(x)
        with masked(model, mask):
            torch.testing.assert_close(model(x), expected)


def test_parameters_in_lists_and_dictionaries_can_be_masked():
    model = nn.Module()
    model.rows = nn.ParameterList([torch.ones(2), torch.ones(2)])
    model.named = nn.ParameterDict({"a": torch.ones(2)})
    keep = torch.tensor([True, False])
    with masked(model, {"rows.1": keep, "named.a": keep}):
        assert model.rows[1].tolist() == model.named["a"].tolist() == [1.0, 0.0]
    assert model.rows[1].tolist() == model.named["a"].tolist() == [1.0, 0.0]
    assert len(model.rows) == 2


def test_an_exception_inside_leaves_a_plain_model_with_zeros():
    model = Net()
    mask = some_mask(model)
    with pytest.raises(KeyboardInterrupt), masked(model, mask):
        raise KeyboardInterrupt
    assert zero_where_masked(model, mask)
    assert not any(parametrize.is_parametrized(m) for m in model.modules())


def test_a_mask_that_does_not_fit_changes_nothing():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    good = some_mask(model)
    bad = {**good, "fc.weight": torch.ones(2, 2, dtype=torch.bool)}
    with pytest.raises(ShapeError), masked(model, bad):
        pass
    with masked(model, {}) as held, pytest.raises(ShapeError):
        held.update(bad)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_masks_follow_the_model_to_another_dtype():
    model = Net()
    mask = some_mask(model, ["conv.weight", "bn.running_mean"])
    with masked(model, mask):
        model.double()
        assert model.conv.weight.dtype == torch.float64
        model(torch.randn(2, 1, 6, 6, dtype=torch.float64)).sum().backward()
    assert zero_where_masked(model, mask)


def test_infinite_and_nan_weights_are_masked_too():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, float("nan")]]))
    with masked(model, {"weight": torch.tensor([[True, False]])}):
        assert model.weight.tolist() == [[1.0, 0.0]]


class Counting(TorchDispatchMode):
    """Counts the operations that reach the kernels."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("gradients", ["masked", "dense"])
def test_a_step_costs_one_multiplication_more_per_masked_parameter(gradients):
    model, x = Net(), torch.randn(2, 1, 6, 6)

    def count(backward):
        model.zero_grad()
        with Counting() as counting:
            y = model(x).sum()
        if backward:
            with Counting() as counting:
                y.backward()
        return counting.seen

    plain = [count(False), count(True)]
    with masked(model, some_mask(model), gradients=gradients):
        held = [count(False), count(True)]
    extra = [after - before for after, before in zip(held, plain, strict=True)]
    back = {"aten.mul.Tensor": 5} if gradients == "masked" else {}
    assert extra[0] == {"aten.mul.Tensor": 5}
    assert {k: v for k, v in extra[1].items() if "detach" not in k} == back


@pytest.mark.parametrize("gradients", ["masked", "dense"])
def test_gradients_per_example_can_be_taken_inside(gradients):
    layer = nn.Linear(2, 1, bias=False)
    mask = {"weight": torch.tensor([[True, False]])}
    x = torch.tensor([[2.0, 3.0], [5.0, 7.0]])
    with masked(layer, mask, gradients=gradients):
        stored = {name: p.detach() for name, p in layer.named_parameters()}

        def output(parameters, one):
            return torch.func.functional_call(layer, parameters, (one,)).sum()

        (each,) = torch.func.vmap(torch.func.grad(output), (None, 0))(stored, x).values()
    expected = [[[2.0, 0.0]], [[5.0, 0.0]]] if gradients == "masked" else x.view(2, 1, 2).tolist()
    assert each.tolist() == expected


def test_the_names_of_parameters_inside_a_block_are_known_too():
    layer = nn.Linear(2, 1)
    keep = torch.tensor([[True, False]])
    with masked(layer, {"weight": torch.ones(1, 2)}):
        apply_mask_(layer, {"parametrizations.weight.original": keep})
        assert torch.equal(layer.weight != 0, keep)


def test_masking_draws_no_random_numbers():
    model = Net()
    before = torch.get_rng_state()
    with masked(model, some_mask(model), gradients="dense"):
        model(torch.ones(2, 1, 6, 6))
    assert torch.equal(torch.get_rng_state(), before)


def test_applying_a_mask_to_a_copy_leaves_the_model():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    mask = some_mask(model)
    small = apply_mask(model, mask)
    assert zero_where_masked(small, mask)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert apply_mask_(model, mask) is model
    assert zero_where_masked(model, mask)


@pytest.mark.parametrize("use", [apply_mask, lambda m, k: masked(m, k).__enter__()])
def test_a_wrong_mask_says_what_would_fit(use):
    model = Net()
    with pytest.raises(UnknownNameError, match=r"'conv.wieght', which Net .*mean conv.weight"):
        use(model, {"conv.wieght": torch.ones(1)})
    with pytest.raises(ShapeError, match=r"'fc.bias' has shape \(4,\), its tensor \(3,\)"):
        use(model, {"fc.bias": torch.ones(4)})
    parametrizations.weight_norm(model.fc)
    with pytest.raises(StructureError, match=r"'fc.weight' is computed by a parametrization"):
        use(model, {"fc.weight": torch.ones(3, 4)})
    with pytest.raises(StructureError, match="'weight' has no shape yet; call the model once"):
        use(nn.LazyLinear(3), {"weight": torch.ones(3, 4)})


def test_an_unknown_kind_of_gradient_is_refused():
    with pytest.raises(UnknownNameError, match="unknown gradients 'full'; use 'masked' or 'den"):
        masked(Net(), {}, gradients="full").__enter__()


def test_an_ended_block_takes_no_update():
    with masked(Net(), {}) as held:
        pass
    with pytest.raises(PruneError, match="block has ended; open another with masked"):
        held.update({})
