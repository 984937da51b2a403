import json

import pytest
import torch

from secateurs.core.errors import BudgetError, FileError, StructureError, UnknownNameError
from secateurs.graph.trace import trace
from secateurs.realise.micro_nets_test import Plain, Residual
from secateurs.realise.plan import apply, edit, load_plan, plan, save_plan

X = torch.randn(2, 3, 6, 6)


@pytest.fixture
def planned():
    model = Plain().eval()
    graph = trace(model, X)
    return model, graph, plan(model, graph, density=0.5)


def test_it_lists_every_bucket_and_every_frozen_axis(planned):
    _, graph, plan_ = planned
    assert [line.bucket for line in plan_.lines] == list(graph.buckets)
    assert any("output" in left.reason for left in plan_.left)
    assert any("body.1.weight axis 0" in line.axes for line in plan_.lines)
    assert "left alone" in str(plan_)


def test_predicted_parameters_are_those_of_the_model_it_makes(planned):
    model, graph, plan_ = planned
    small = apply(plan_, model, graph, X).model
    assert plan_.predicted.parameters == sum(p.numel() for p in small.parameters())
    assert plan_.dense.parameters == sum(p.numel() for p in model.parameters())
    tensors = [*small.parameters(), *small.buffers()]
    assert plan_.predicted.bytes == sum(t.numel() * t.element_size() for t in tensors)
    assert plan_.predicted.macs < plan_.dense.macs


def test_the_largest_weights_stay():
    model = Plain().eval()
    with torch.no_grad():
        model.body[0].weight[:4] *= 100
    graph = trace(model, X)
    small = apply(plan(model, graph, density={"body.0*": 0.5}), model, graph, X)
    assert small.kept["body.0.weight"][0].tolist() == [True] * 4 + [False] * 4


def test_a_plan_survives_saving_and_editing_by_hand(planned, tmp_path):
    model, graph, plan_ = planned
    save_plan(plan_, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan_
    content = json.loads((tmp_path / "plan.json").read_text())
    content["lines"][0]["keep"] = 3
    (tmp_path / "plan.json").write_text(json.dumps(content))
    small = apply(load_plan(tmp_path / "plan.json"), model, graph, X)
    assert small.removed[plan_.lines[0].bucket] == plan_.lines[0].units - 3


def test_editing_returns_another_plan(planned):
    model, graph, plan_ = planned
    whole = edit(plan_, model, graph, {"*": 1.0})
    assert whole.predicted == whole.dense
    assert plan_.predicted != plan_.dense


def test_impossible_requests_are_refused(planned, tmp_path):
    model, graph, plan_ = planned
    with pytest.raises(BudgetError, match=r"density 0 of '\*' is not above 0"):
        edit(plan_, model, graph, {"*": 0})
    with pytest.raises(UnknownNameError, match=r"no bucket matches 'nothing'; there are body"):
        edit(plan_, model, graph, {"nothing": 0.5})
    with pytest.raises(FileError, match=r"does not exist; save_plan"):
        load_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(FileError, match=r"field 'format' is not 'secateurs plan'"):
        load_plan(tmp_path / "plan.json")
    other = Residual().eval()
    with pytest.raises(StructureError, match=r"made for another model: bucket"):
        apply(plan_, other, trace(other, X), X)
