import sys

import pytest
import torch
from torch import nn

from secateurs import channels, compact, score, select, trace, uniform
from secateurs.core.errors import MissingDependencyError, StructureError
from secateurs.criteria import l2
from secateurs.evidence import weights
from secateurs.models.create import create, input_shape
from secateurs.realise import onnx
from secateurs.realise.onnx import OnnxRuntime, export_onnx

pytest.importorskip("onnxruntime")


def halved(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = create(name).eval(), torch.randn(2, *input_shape(name))
    graph = trace(model, x)
    sites = channels(graph)
    mask = select(sites, score(sites, l2, weight=weights(model)), uniform(sites, 0.5))
    return compact(model, graph, mask, x).model.eval(), x


@pytest.mark.parametrize("name", ["digits_cnn", "lenet5", "resnet20"])
def test_a_smaller_model_is_a_smaller_file_that_computes_the_same_on_any_batch(name):
    small, x = halved(name)
    whole = export_onnx(create(name), x)
    made = export_onnx(small, x[:1])
    assert made.any_batch
    assert made.difference < 1e-5
    assert len(made.data) < 0.6 * len(whole.data)
    more = torch.randn(7, *x.shape[1:])
    torch.testing.assert_close(
        OnnxRuntime(made.data)(more), small(more).detach(), rtol=1e-4, atol=1e-4
    )


class Fixed(nn.Module):
    """Knows how many inputs it gets."""

    def forward(self, x):
        return x.view(2, -1) * 2 + torch.arange(2.0)[:, None]


class TwoInputs(nn.Module):
    def forward(self, a, b):
        return a + 1, a @ b


def test_a_batch_that_cannot_vary_stays_the_examples():
    made = export_onnx(Fixed(), torch.randn(2, 3))
    assert not made.any_batch
    x = torch.randn(2, 3)
    torch.testing.assert_close(OnnxRuntime(made.data)(x), Fixed()(x))


def test_several_inputs_and_outputs_keep_their_order():
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    first, second = OnnxRuntime(export_onnx(TwoInputs(), (a, b)).data)(a, b)
    torch.testing.assert_close(first, a + 1)
    torch.testing.assert_close(second, a @ b)


def test_a_file_that_computes_something_else_is_refused(monkeypatch):
    other = export_onnx(nn.Linear(3, 3), torch.randn(2, 3)).data
    monkeypatch.setattr(onnx, "_written", lambda *_: other)
    with pytest.raises(StructureError, match=r"cannot export this Linear.*away from torch"):
        export_onnx(nn.Linear(3, 3), torch.randn(2, 3))


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"onnxscript.*secateurs\[export\]"):
        export_onnx(nn.Linear(2, 2), torch.randn(1, 2))


def test_the_model_keeps_its_modes():
    model, x = create("digits_cnn").train(), torch.randn(1, 1, 8, 8)
    export_onnx(model, x)
    assert all(module.training for module in model.modules())
