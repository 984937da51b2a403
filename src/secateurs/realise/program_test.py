import copy
import json

import pytest
import torch
from torch import nn

from secateurs.core.errors import FileError
from secateurs.realise.calls import difference, record_calls, record_values
from secateurs.realise.precise import doubled, in_double
from secateurs.realise.program import program, slice_of
from secateurs.realise.program_json import dump_program, load_program
from secateurs.realise.repair import Repair, replace
from secateurs.realise.shrink import all_tensors


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, gate, *, shift=0.0):
        y = self.norm(self.conv(x)).relu_()
        return {"y": self.drop(y) * gate + shift, "mean": y.mean((2, 3))}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 4)
        self.block = Block()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        gate = self.gate(x.mean((2, 3)))[:, :, None, None].sigmoid()
        out = self.block(x, gate, shift=0.5)
        return self.head(out["mean"] + out["y"].amax((2, 3)))


def traced(model, x):
    exported = torch.export.export(model, (x,), strict=False)
    return exported.module(check_guards=False)


@pytest.fixture
def case():
    torch.manual_seed(0)
    model = Net().double().eval()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    module = doubled(traced(model, x), all_tensors(model).get)
    values = record_values(module, x)
    work = Repair(model, module, values, record_calls(model, x, values), {}, {}, None, 1e-9, dict)
    return model, x, work


def test_every_module_is_recognised_in_the_traced_program(case):
    model, _, work = case
    assert {path for path, _ in model.named_modules()} == set(work.calls)
    assert all(work.state(path) == "right" for path in work.calls)


@pytest.mark.parametrize("path", ["block", "gate", "head", "block.norm", ""])
def test_a_part_computes_what_its_module_computed(case, path):
    model, x, work = case
    wanted = model(x)
    part = work._part(path, model.get_submodule(path))
    replace(model, path, part)
    small = model if path else part
    assert torch.allclose(small(x), wanted, atol=1e-12)
    assert set(small.state_dict()) == set(Net().state_dict())
    assert torch.allclose(copy.deepcopy(small)(x), wanted, atol=1e-12)


def test_a_part_trains_as_its_module_did(case):
    model, x, work = case
    part = work._part("", model)
    part.train()
    model.train()
    model.block.drop.p = 0.0
    for node in part.graph.nodes:
        if "dropout" in str(node.target):
            node.args = (node.args[0], 0.0, node.args[2])
    part.recompile()
    assert torch.allclose(part(x), model(x), atol=1e-12)
    assert part.get_buffer("block.norm.running_var") is model.block.norm.running_var
    assert not torch.equal(model.block.norm.running_var, torch.ones(4))
    part(x).sum().backward()
    assert part.get_parameter("block.conv.weight").grad is not None
    assert part.get_parameter("block.conv.weight") is model.block.conv.weight


def test_dropout_follows_the_mode(case):
    model, x, work = case
    part = work._part("", model)
    assert torch.equal(part.eval()(x), part(x))
    torch.manual_seed(1)
    first = part.train()(x)
    assert not torch.equal(first, part(x))


def test_a_part_survives_json(case):
    model, x, work = case
    part = work._part("block", model.block)
    nodes = json.loads(json.dumps(dump_program(part)))
    again = load_program(nodes, all_tensors(part), "here").eval()
    gate = torch.rand(2, 4, 1, 1, dtype=torch.float64)
    a, b = again(x, gate, shift=0.5), part(x, gate, shift=0.5)
    assert list(a) == ["y", "mean"]
    assert torch.equal(a["y"], b["y"])


def test_a_part_can_be_exported(case):
    model, x, work = case
    replace(model, "block", work._part("block", model.block))
    again = torch.export.export(model, (x,), strict=False).module()
    assert torch.allclose(again(x), model(x))


def test_a_part_that_reads_beyond_its_inputs_is_refused(case):
    _, _, work = case
    with pytest.raises(KeyError):
        program(work.after.graph, {}, {}, [work.calls["head"][0].result], "")


def test_a_slice_takes_what_is_written_in_place():
    class Writes(nn.Module):
        def forward(self, x):
            y = torch.zeros(3)
            y[:2] = x
            return y * 2

    graph = traced(Writes(), torch.ones(2)).graph
    nodes = {n.name: n for n in graph.nodes}
    (inner,) = [n for n in graph.nodes if n.op == "placeholder"]
    (last,) = [n for n in graph.nodes if str(n.target) == "aten.mul.Tensor"]
    found = slice_of(graph, [inner.name], [last.name])
    assert any("copy_" in str(n.target) for n in found), list(nodes)


def test_damaged_nodes_are_refused(case):
    model, _, work = case
    nodes = dump_program(work._part("head", model.head))
    nodes[2]["args"] = [{"node": "nothing"}]
    with pytest.raises(FileError, match=r"here: a traced part is damaged"):
        load_program(nodes, all_tensors(model.head), "here")


def test_everything_is_double_where_a_model_asks_for_less():
    def values(x):
        yield x.float() + x.to(torch.float32) + x.half()
        yield torch.zeros(2)
        yield torch.arange(3, dtype=torch.float32)
        yield torch.softmax(x, 0, dtype=torch.float32)

    with in_double():
        found = [v.dtype for v in values(torch.ones(2))]
    assert set(found) == {torch.float64}
    assert torch.zeros(2).dtype == torch.float32


def test_difference_is_relative_to_the_spread():
    wanted = torch.tensor([0.0, 2.0])
    assert difference(wanted + 0.5, wanted) == 0.5
    assert difference(torch.zeros(3), wanted) == float("inf")
    assert difference(torch.tensor([0.0, float("nan")]), wanted) == float("inf")
    assert difference({"a": wanted}, {"a": wanted.clone()}) == 0
