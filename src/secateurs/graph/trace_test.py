"""What tracing accepts, refuses and leaves alone; and rules and declarations by hand."""

import copy

import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, StructureError, UnknownNameError
from secateurs.graph.cost import Cost, predict
from secateurs.graph.rewrite import rewrite
from secateurs.graph.rules.pointwise import pointwise
from secateurs.graph.trace import trace
from secateurs.graph.units import removed_units

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))


@torch.library.custom_op("secateurs_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x):
    return torch.empty_like(x)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.b(twice(self.a(x)))


def test_an_unknown_operation_freezes_what_enters_and_says_so():
    graph = trace(Twice(), X)
    assert graph.units == 0
    assert any("secateurs_test.twice has no rule" in f.reason for f in graph.frozen)
    assert any("trace_test.py" in f.node for f in graph.frozen)


def test_a_rule_of_ones_own_frees_it():
    assert trace(Twice(), X, rules={"secateurs_test.twice": pointwise}).units == 8


def test_a_rule_that_fails_freezes_and_its_error_is_the_reason():
    def wrong(step, x):
        raise KeyError("lost")

    graph = trace(Twice(), X, rules={"secateurs_test.twice": wrong})
    assert any("KeyError: 'lost'" in f.reason for f in graph.frozen)


def test_the_users_model_keeps_its_mode_and_tensors():
    model = mlp().train()
    model[2].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    trace(model, X)
    assert [m.training for m in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_half_precision_compiled_and_parallel_models_have_the_same_units():
    units = trace(mlp(), X).units
    assert trace(mlp().half(), X.half()).units == units
    assert trace(torch.compile(mlp()), X).units == units
    graph = trace(nn.DataParallel(mlp()), X)
    assert graph.units == units
    assert "0.weight" in graph.shapes


def test_a_wrong_example_is_refused_with_the_line():
    with pytest.raises(
        StructureError, match=r"cannot trace Twice.*trace_test.py.*self.b\(twice.*check that model"
    ):
        trace(Twice(), torch.zeros(2, 5))


def test_a_trace_that_takes_too_long_is_refused():
    class Slow(nn.Module):
        def forward(self, x):
            while True:
                pass

    with pytest.raises(StructureError, match=r"took more than 0\.2 s; raise time_limit_s"):
        trace(Slow(), X, time_limit_s=0.2)


def test_progress_is_told():
    told = []
    trace(mlp(), X, progress=lambda phase, done, of: told.append((phase, done == of)))
    assert ("trace", True) in told
    assert told[-1] == ("label", True)


def test_declared_ties_go_together_and_declared_freezes_stay():
    graph = trace(mlp(), X, freeze=["2.*"])
    assert graph.units == 0
    assert any("freeze='2.*'" in f.reason for f in graph.frozen)
    two = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    assert trace(two, X).units == 16
    assert trace(two, X, tie=[[("0.weight", 0), ("2.weight", 0)]]).units == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ["nothing"]}, "freeze='nothing' fits no axis; use names like 0.weight:0"),
        ({"tie": [[("x", 0), ("0.weight", 0)]]}, "cannot tie x:0; use axes like"),
        ({"tie": [[("0.weight", 0), ("2.weight", 0)]]}, "cannot tie 2.weight:0 with 4 positions"),
    ],
)
def test_wrong_declarations_name_what_would_fit(options, message):
    with pytest.raises(StructureError, match=message):
        trace(mlp(), X, **options)


def test_predictions_refuse_unknown_buckets_and_wrong_lengths():
    graph = trace(mlp(), X)
    assert predict(graph, {}) == Cost(107, 2 * (48 + 32 + 12))
    keep = torch.arange(8) < 4
    assert predict(graph, {"0.weight:0": keep}) == Cost(28 + 20 + 15, 2 * (24 + 16 + 12))
    with pytest.raises(
        UnknownNameError, match=r"no bucket is called 'nope'; there are 0\.weight:0"
    ):
        predict(graph, {"nope": keep})
    with pytest.raises(BudgetError, match="one bool for each of its 8 units"):
        predict(graph, {"0.weight:0": keep[:3]})


def test_a_unit_is_removed_when_all_its_positions_are_masked():
    graph = trace(mlp(), X)
    mask = {name: torch.ones(shape, dtype=torch.bool) for name, shape in graph.shapes.items()}
    mask["0.weight"][2] = mask["0.bias"][2] = False
    mask["2.weight"][:, 2] = False
    mask["0.weight"][3] = False  # its bias and its outgoing weights stay
    unit = int(graph.axes["0.weight", 0][2])
    assert removed_units(graph, mask).nonzero().flatten().tolist() == [unit]
    del mask["0.bias"]
    assert not bool(removed_units(graph, mask).any())


def test_an_emptied_axis_keeps_one_unit():
    graph = trace(mlp(), X)
    nothing = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in graph.shapes.items()}
    removed = removed_units(graph, nothing)
    assert int((~removed).sum()) == 2
    assert rewrite(graph, removed)(X).shape == (2, 3)


def test_a_removal_that_does_not_fit_is_refused():
    graph = trace(mlp(), X)
    with pytest.raises(StructureError, match="pass one bool per unit"):
        rewrite(graph, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(StructureError, match="uneven or an axis empty"):
        rewrite(graph, torch.ones(graph.units, dtype=torch.bool))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_outputs_costs_nothing():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 0))
    assert predict(trace(net, X), {}) == Cost(parameters=56, macs=2 * 48)
