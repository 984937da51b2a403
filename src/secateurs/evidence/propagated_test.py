import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from secateurs.core.errors import EvidenceError
from secateurs.evidence.interpret import portions
from secateurs.evidence.propagated import last_features, propagate
from secateurs.graph.trace import trace
from secateurs.models.digits import DigitsCNN, TinyViT


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def whole(graph):
    return {name: len(bucket.ids) for name, bucket in graph.buckets.items()}


def double(model):
    return model.double().eval()


def test_two_linear_layers_by_hand():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
    graph = trace(model.eval(), torch.zeros(1, 3))
    _, scores = propagate(graph, model, torch.zeros(1, 3), whole(graph))
    assert scores["0.weight:0"].tolist() == [1, 5]


class Strided(nn.Module):
    """Padding, stride, groups, a batch norm, both kinds of pooling, and an odd size."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.c = nn.Conv2d(6, 4, 1, bias=False)
        self.fc = nn.Linear(4, 3)
        with torch.no_grad():
            self.norm.weight.uniform_(-1, 1, generator=Generator().manual_seed(1))
            self.norm.running_var.uniform_(0.5, 2, generator=Generator().manual_seed(2))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.a(x))), 2)
        x = F.relu(self.c(F.gelu(self.b(x))))
        return self.fc(x.mean(dim=(2, 3)))


def test_the_surrogate_gradient_is_the_recursion_written_out():
    model, x = Strided(), torch.zeros(1, 2, 17, 17)
    model.eval()
    graph = trace(model, x)
    final = torch.tensor([1.0, 2.0, 0.5, 0.0])
    _, scores = propagate(graph, model, x, whole(graph), final)

    w = {n: p.detach().double().abs() for n, p in model.named_parameters()}
    c = final.double().view(1, 4, 1, 1) / 1  # one position is left to average over
    b = F.conv_transpose2d(c, w["c.weight"])
    pooled = F.conv_transpose2d(b, w["b.weight"], stride=2, groups=2, output_padding=1)
    a = pooled.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    expected = {"a.weight:0": a, "b.weight:0": b, "c.weight:0": c}
    found = {name.split("#")[0]: torch.zeros(0) for name in scores}
    for name, bucket in graph.buckets.items():
        layer = bucket.name.split("#")[0]
        index = next(p.index for p in bucket.slices if p.param == layer.removesuffix(":0"))
        want = expected[layer].sum(dim=(0, 2, 3))[index.squeeze(1)]
        torch.testing.assert_close(scores[name], want)
        found[layer] = want
    assert set(found) == set(expected)


def test_batch_norms_pass_importance_on_by_scale_over_deviation():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model.eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3))
        model[2].weight.copy_(torch.tensor([2.0, -3.0, 4.0]))
        model[2].running_var.copy_(torch.tensor([1.0, 9.0, 4.0]) - 1e-5)
        model[3].weight.fill_(1)
    graph = trace(model, torch.zeros(1, 2))
    _, scores = propagate(graph, model, torch.zeros(1, 2), whole(graph))
    assert scores["0.weight:0"].tolist() == pytest.approx([2, 1, 2])
    assert scores["1.weight:0"].tolist() == [1, 1, 1]


def test_the_weighted_change_of_the_features_is_bounded_by_what_was_cut():
    model = double(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    )
    graph = trace(model, randn(1, 4).double())
    for seed in range(100):
        with torch.no_grad():
            for i, p in enumerate(model.parameters()):
                p.copy_(randn(*p.shape, seed=10 * seed + i))
        x, final = randn(1, 4, seed=seed).double(), randn(5, seed=seed).abs()
        _, scores = propagate(graph, model, x, whole(graph), final)
        hidden = model[1](model[0](x))
        keep = torch.rand(6, generator=Generator().manual_seed(seed)) < 0.5
        change = (model[3](model[2](hidden)) - model[3](model[2](hidden * keep))).abs()
        bound = (scores["0.weight:0"] * hidden.abs())[0, ~keep].sum()
        assert (final * change).sum() <= bound + 1e-9


def test_cut_channels_send_no_importance_on():
    # The second hidden unit is the important one only through the third layer's second.
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, 0.9]]))
    model.eval()
    graph = trace(model, torch.zeros(1, 1))
    quota = {"0.weight:0": 1, "1.weight:0": 1}
    decision, scores = propagate(graph, model, torch.zeros(1, 1), quota)
    assert decision["1.weight:0"].tolist() == [True, False]
    assert scores["0.weight:0"].tolist() == [2, 0]
    assert decision["0.weight:0"].tolist() == [True, False]
    _, uncut = propagate(graph, model, torch.zeros(1, 1), whole(graph))
    assert uncut["0.weight:0"].argmax() == 1


def test_a_residual_stream_sums_what_reaches_all_that_writes_to_it():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = (nn.Linear(2, 2, bias=False) for _ in range(3))

        def forward(self, x):
            x = self.a(x)
            return self.out(x + self.b(x).relu())

    model = Stream().eval()
    with torch.no_grad():
        model.b.weight.copy_(torch.tensor([[0.0, -5.0], [0.0, 0.0]]))
        model.out.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    graph = trace(model, torch.zeros(1, 2))
    decision, scores = propagate(graph, model, torch.zeros(1, 2), {"a.weight:0": 1})
    # At the sum (1, 2); at the input of b, the shortcut's share and 5 of the first channel's.
    assert scores["a.weight:0"].tolist()[1] > scores["a.weight:0"].tolist()[0]
    assert decision["a.weight:0"].tolist() == [False, True]


@pytest.mark.parametrize("model", [DigitsCNN(width=8), TinyViT(width=16)], ids=["cnn", "vit"])
def test_every_channel_of_a_network_gets_a_finite_positive_score(model):
    x = randn(2, 1, 8, 8)
    graph = trace(model.eval(), x)
    quota = {n: count // 2 for n, count in whole(graph).items()}
    decision, scores = propagate(graph, model, x, quota)
    for name, keep in decision.items():
        assert int(keep.sum()) == quota[name]
        assert bool((scores[name] >= 0).all() and scores[name].isfinite().all())
        assert bool((scores[name] > 0).all())
        bucket = graph.buckets[name]
        pools = keep.view(-1, bucket.among or len(keep)).sum(dim=1)
        assert bool((pools == pools[0]).all())


def test_the_last_features_are_what_the_one_last_linear_layer_reads():
    assert last_features(trace(DigitsCNN(width=8).eval(), randn(1, 1, 8, 8))).name == "mean"
    convolution = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))
    assert last_features(trace(convolution, randn(1, 1, 2, 2))) is None


def test_batches_are_cut_to_the_length_that_was_traced():
    batches = [(torch.arange(5.0), "labels"), torch.arange(2.0)]
    found = [portion.tolist() for portion in portions(batches, torch.zeros(2))]
    assert found == [[0, 1], [2, 3], [0, 1]]
    with pytest.raises(EvidenceError, match=r"no batch is as long as the example .*, 9; trace"):
        list(portions(batches, torch.zeros(9)))
