import pytest
import torch
from torch import Generator, nn

from secateurs.core.errors import EvidenceError, StructureError, UnknownNameError
from secateurs.graph.trace import trace
from secateurs.methods.nisp import features, nisp
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN


def batch(n, seed=0):
    return torch.randn(n, 1, 8, 8, generator=Generator().manual_seed(seed))


def task(model, n=6):
    x = batch(n)
    return Task(model, x[:1], batches=lambda: [(x, torch.zeros(n))])


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DigitsCNN(width=8).eval()


def test_the_features_are_what_the_classifier_reads_on_every_image_of_the_batches():
    model, seen = net(), []
    model.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    graph = trace(model, batch(1))
    seen.clear()
    found = features(task(model), model, graph)
    assert seen == [], "the model itself is not run"
    model(batch(6))
    torch.testing.assert_close(found, seen[-1].detach())


@pytest.mark.parametrize("final", ["inf_fs", "outputs"])
@pytest.mark.parametrize("kind", ["macs", "params", "density"])
def test_it_removes_channels_until_the_target_is_met(final, kind):
    pruned = nisp(task(net()), Target(kind, 0.5), final=final)
    assert pruned.compacted.proof.difference < 1e-8
    assert pruned.compacted.put_back == ()
    before = sum(p.numel() for p in net().parameters())
    assert sum(p.numel() for p in pruned.model.parameters()) <= 0.51 * before


def test_a_channel_that_reaches_nothing_leaves_first():
    model = net()
    with torch.no_grad():
        model.block2.conv2[0].weight[:, 5] = 0
    pruned = nisp(task(model), Target("density", 0.9))
    assert not pruned.compacted.kept["block2.conv1.0.weight"][0][5]


def test_queries_and_keys_are_ranked_by_length_when_no_importance_reaches_them():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(4, 4, bias=False) for _ in range(4))

        def forward(self, x):
            mixed = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(dim=-1) @ self.v(x)
            return self.out(mixed).mean(dim=1)

    model = Attends().eval()
    with torch.no_grad():
        model.q.weight[2], model.k.weight[2] = 1e-6, 1e-6
    x = torch.randn(2, 3, 4, generator=Generator().manual_seed(0))
    pruned = nisp(Task(model, x), Target("density", 0.75), final="outputs")
    assert pruned.compacted.kept["q.weight"][0].tolist() == [True, True, False, True]


def test_what_is_missing_is_said():
    with pytest.raises(EvidenceError, match="has no batches; use final=outputs, which needs none"):
        nisp(Task(net(), batch(1)), Target())
    end = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(StructureError, match="Sequential does not end in one linear layer"):
        nisp(task(end.eval()), Target())
    with pytest.raises(UnknownNameError, match="unknown final 'ones'; use one of inf_fs, outputs"):
        nisp(task(net()), Target(), final="ones")
