import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError
from secateurs.graph.cost import predict
from secateurs.graph.trace import trace
from secateurs.methods.dcp import dcp, stages
from secateurs.methods.dcp_greedy import Greedy, greedy
from secateurs.methods.dcp_work import Head, Work, unit_norms
from secateurs.methods.readers import Reader
from secateurs.methods.task import Target, Task
from secateurs.models.digits import DigitsCNN
from secateurs.recovery.rows import Linear


class Regression:
    """Exact least squares on chosen columns: what greedy selection becomes with exact fits."""

    def __init__(self, x, y):
        self.x, self.y, self.w = x, y, torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype)

    def gradient(self, chosen):
        residual = self.y - self.x @ self.w
        return float(residual.square().sum() / 2), (self.x.T @ residual).norm(dim=1)

    def fit(self, chosen, added):
        self.w.zero_()
        if chosen.any():
            self.w[chosen] = torch.linalg.lstsq(self.x[:, chosen], self.y).solution


def design(rows=60, columns=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=0), generator


@pytest.mark.parametrize("seed", range(4))
def test_exact_fits_are_orthogonal_matching_pursuit(seed):
    from sklearn.linear_model import OrthogonalMatchingPursuit

    x, generator = design(seed=seed)
    y = x @ torch.randn(8, 1, generator=generator, dtype=torch.float64)
    problem = Regression(x, y)
    found = greedy(Greedy(8, 4), problem.gradient, problem.fit)
    omp = OrthogonalMatchingPursuit(n_nonzero_coefs=4, fit_intercept=False).fit(
        x.numpy(), y[:, 0].numpy()
    )
    assert found.chosen.tolist() == (torch.from_numpy(omp.coef_) != 0).tolist()


def test_orthonormal_channels_are_added_by_what_they_explain():
    x = torch.linalg.qr(design(columns=6)[0])[0]
    y = x @ torch.diag(torch.tensor([3.0, 1, 4, 2, 6, 5], dtype=torch.float64))
    problem = Regression(x, y)
    found = greedy(Greedy(6, 6), problem.gradient, problem.fit)
    assert found.scores.argsort(descending=True).tolist() == [4, 5, 2, 0, 3, 1]


def test_a_planted_support_is_found_and_adapting_stops_there():
    x, _ = design()
    w = torch.zeros(8, 1, dtype=torch.float64)
    w[[1, 4, 6]] = torch.tensor([[2.0], [-3.0], [1.5]], dtype=torch.float64)
    problem = Regression(x, x @ w)
    found = greedy(Greedy(8, 8, adapt=1e-3), problem.gradient, problem.fit)
    assert found.chosen.nonzero().flatten().tolist() == [1, 4, 6]
    torch.testing.assert_close(problem.w, w)
    assert found.scores.topk(3).indices.sort().values.tolist() == [1, 4, 6]


def test_a_gradient_that_is_no_number_ends_the_search():
    with pytest.raises(PruneError, match="the loss is nan after 0 units"):
        greedy(Greedy(2, 1), lambda c: (float("nan"), torch.ones(2)), lambda c, a: None)


def test_stages_split_the_layers_evenly():
    assert stages(list("abcdef"), 2) == [
        ("b", ["a", "b"]),
        ("d", ["c", "d"]),
        (None, ["e", "f"]),
    ]
    assert stages(["a"], 3) == [(None, ["a"])]


def test_the_norm_of_a_unit_runs_over_all_that_read_it():
    conv, linear = nn.Conv2d(3, 2, 2), nn.Linear(6, 2)
    who = [
        Reader("a", Linear(conv), torch.arange(3)[:, None]),
        Reader("b", Linear(linear), torch.arange(6).view(3, 2)),
    ]
    gradients = [torch.randn(2, 3, 2, 2), torch.randn(2, 6)]
    expected = gradients[0].square().sum((0, 2, 3)) + gradients[1].square().sum(0).view(3, 2).sum(1)
    torch.testing.assert_close(unit_norms(who, gradients, 3).float(), expected.sqrt())


def labelled(n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = [torch.randn(32, 1, 8, 8, generator=generator) for _ in range(n)]
    return [(x, (x[:, 0, :4].mean((1, 2)) > 0).long()) for x in x]


def test_the_gradient_where_nothing_is_chosen_is_that_of_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 3), nn.Flatten())
    model = nn.Sequential(*model, nn.Linear(32, 2)).double().eval()
    x, y = labelled(1)[0]
    head = Head(2, 2, spatial=True).double().eval()
    weight = model[2].weight
    weight.data.zero_()

    def loss():
        heard = model[2](model[1](model[0](x.double())))
        return nn.functional.cross_entropy(head(heard), y)

    (gradient,) = torch.autograd.grad(loss(), [weight])
    with torch.no_grad():
        weight[1, 2, 0, 1] += 1e-6
        high = loss()
        weight[1, 2, 0, 1] -= 2e-6
        low = loss()
    assert float(gradient[1, 2, 0, 1]) == pytest.approx(float(high - low) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("adapt", [0.0, 0.2])
def test_a_target_is_met_and_proved(adapt):
    torch.manual_seed(0)
    model = DigitsCNN(width=16, classes=2).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, said = labelled()[0][0], []
    task = Task(model, x, batches=labelled, say=said.append)
    result = dcp(task, Target("macs", 0.5), tune_passes=1, rounds=3, adapt=adapt)
    dense, left = (predict(trace(m, x), {}).macs for m in (model, result.model))
    assert left <= 0.5 * dense
    assert adapt or left > 0.49 * dense
    assert result.compacted.proof.difference < result.compacted.proof.tolerance
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert len(said) == 4
    assert said[0].startswith("stage ")


def test_dropped_channels_stay_dropped_while_a_stage_is_tuned():
    torch.manual_seed(0)
    model = DigitsCNN(width=8, classes=2)
    work = Work(model, model, labelled(), 1.0, 0)
    conv = model.block1.conv2[0]
    keep = torch.arange(8) < 5
    work.cleared.append((Reader("block1.conv2.0", Linear(conv), torch.arange(8)[:, None]), keep))
    before = conv.weight.detach().clone()
    work.tune_(work.head("down.0"), 1, 0.1)
    assert not conv.weight[:, ~keep].any()
    assert not torch.equal(conv.weight[:, keep], before[:, keep])


def test_labels_are_needed():
    model, x = DigitsCNN(width=8), torch.zeros(2, 1, 8, 8)
    for batches in (None, lambda: []):
        with pytest.raises(PruneError, match="discrimination-aware pruning trains classifiers"):
            dcp(Task(model, x, batches=batches), Target())
    with pytest.raises(PruneError, match="holds no tensor of labels behind its inputs"):
        dcp(Task(model, x, batches=lambda: [(x, None)]), Target())


def test_a_learning_rate_that_explodes_is_named():
    torch.manual_seed(0)
    model, x = DigitsCNN(width=8, classes=2).eval(), labelled()[0][0]
    task = Task(model, x, batches=labelled)
    with pytest.raises(PruneError, match=r"while tuning a stage; lower tune_lr|while refitting"):
        dcp(task, Target("density", 0.5), tune_lr=1e20)
    with pytest.raises(PruneError, match=r"while refitting; lower lr=1e\+20|the loss is"):
        dcp(task, Target("density", 0.5), lr=1e20, passes=3)
