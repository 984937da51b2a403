import copy

import pytest
import torch
from torch import nn

from secateurs.core.errors import BudgetError, PruneError, UnknownNameError
from secateurs.graph.trace import trace
from secateurs.measure.compute import macs
from secateurs.methods.task import Target, Task
from secateurs.methods.three_c import end_of, read_by_relu, three_c
from secateurs.models.digits import DigitsCNN
from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
from secateurs.realise.factored import Factored, split_kernel, unrolled

X = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [(x, None) for x in X.split(16)]


class Plain(nn.Module):
    """Convolutions with biases, each read by a ReLU but for the last."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.c, self.fc = nn.Conv2d(12, 8, 3, stride=2), nn.Linear(8, 4)

    def forward(self, x):
        x = self.c(self.b(self.a(x).relu()).relu())
        return self.fc(x.mean((2, 3)))


def plain():
    torch.manual_seed(0)
    return Plain().eval()


def task(model):
    return Task(model, X[:1], batches=lambda: BATCHES, repair="none")


def gap(small, model):
    with torch.no_grad():
        return float((small(X) - model(X)).square().mean() / model(X).var())


def test_kernels_of_a_low_rank_come_back_whole():
    model = plain()
    for conv in (model.a, model.b, model.c):
        low = split_kernel(conv, 2)
        kernel = torch.einsum("rchi,nrjw->nchw", low[0].weight, low[1].weight)
        conv.weight.data = kernel.detach()
        assert int((torch.linalg.svdvals(unrolled(kernel)) > 1e-5).sum()) == 2
    small = three_c(task(model), Target("macs", 0.45), outputs=False, channels=1).model
    assert isinstance(small.b, Factored)
    assert gap(small, model) < 1e-8
    assert macs(small, X[:1]) <= 0.45 * macs(model, X[:1])


def test_outputs_of_a_low_dimension_come_back_whole():
    model = plain()
    with torch.no_grad():
        for conv in (model.a, model.b, model.c):
            axes = torch.linalg.qr(torch.randn(len(conv.weight), 3)).Q
            matrix = axes @ axes.T
            conv.weight.copy_((matrix @ conv.weight.flatten(1)).view_as(conv.weight))
    small = three_c(task(model), Target("macs", 0.6), kernels=False, channels=1).model
    assert isinstance(small.b, Factored)
    assert gap(small, model) < 1e-6
    assert macs(small, X[:1]) <= 0.6 * macs(model, X[:1])


@pytest.mark.parametrize("make", [plain, lambda: DigitsCNN(classes=2, width=8).eval()])
def test_all_three_meet_the_target_and_stay_near(make, tmp_path):
    torch.manual_seed(0)
    model = make()
    before = copy.deepcopy(model.state_dict())
    result = three_c(task(model), Target("macs", 0.5))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert 0.35 < macs(result.model, X[:1]) / macs(model, X[:1]) <= 0.5
    assert result.compacted.proof.difference <= result.compacted.proof.tolerance
    assert any(len(m) == 3 for m in result.model.modules() if isinstance(m, Factored))
    assert gap(result.model, model) < 0.5
    save_checkpoint(tmp_path / "small", result.model)
    fresh = load_checkpoint(tmp_path / "small", make())
    torch.testing.assert_close(fresh.eval()(X), result.model.eval()(X))


def test_what_batch_norms_read_keeps_its_mean_through_all_steps():
    torch.manual_seed(0)
    model = DigitsCNN(width=8).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
    small = three_c(task(model), Target("macs", 0.6), channels=1, positions=64).model
    assert len(small.block1.conv2[0]) == 3
    with torch.no_grad():
        wanted, found = (m.block1.conv1(m.stem(X).relu()) for m in (model, small))
    torch.testing.assert_close(found.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=0.02, rtol=0)


def test_what_a_relu_reads_is_found_by_the_name_of_its_weight():
    assert read_by_relu(trace(plain(), X[:1])) == {"a.weight", "b.weight"}


def test_where_a_convolution_ends():
    model = plain()
    model.b = Factored(nn.Conv2d(12, 2, 1), nn.Conv2d(2, 12, 3, padding=1))
    assert (end_of(model, "a"), end_of(model, "b")) == ("a", "b.1")


def test_what_cannot_be_is_refused():
    job = task(plain())
    with pytest.raises(BudgetError, match="chosen by their MACs, not density"):
        three_c(job, Target("density", 0.5))
    with pytest.raises(BudgetError, match="cannot reach a cost of"):
        three_c(job, Target("macs", 0.01), channels=1)
    with pytest.raises(PruneError, match="nothing is to be done"):
        three_c(job, Target("macs", 0.5), kernels=False, outputs=False, channels=1)
    with pytest.raises(UnknownNameError, match="exclude='d' matches nothing"):
        three_c(job, Target("macs", 0.5), exclude=("d",))
    with pytest.raises(PruneError, match=r"pass Task\(batches"):
        three_c(Task(plain(), X[:1]), Target("macs", 0.5))
