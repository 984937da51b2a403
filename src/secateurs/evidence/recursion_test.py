import pytest
import torch
from torch import Generator, nn
from torch.func import functional_call
from torch.nn import functional as F

from secateurs.core.errors import EvidenceError, StructureError, UnknownNameError
from secateurs.core.mask import Mask
from secateurs.evidence.gauss_newton import gauss_newton
from secateurs.evidence.recursion import recursion
from secateurs.realise.masked import masked


def squared(output, target):
    """E = Σ (d - x)² over outputs, the mean over samples."""
    return (output - target).square().sum() / len(output)


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def build(*modules, seed=0):
    """Draw all weights anew, in double precision."""
    model = nn.Sequential(*modules).double()
    for i, p in enumerate(model.parameters()):
        p.data = doubles(*p.shape, seed=seed + i) / 2
    return model


def hessian_diagonal(model, x, y, loss):
    parameters = dict(model.named_parameters())

    def value(flat):
        parts = torch.split(flat, [p.numel() for p in parameters.values()])
        given = {n: f.view_as(p) for (n, p), f in zip(parameters.items(), parts, strict=True)}
        return loss(functional_call(model, given, (x,)), y)

    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    diagonal = torch.autograd.functional.hessian(value, flat).diag()
    parts = torch.split(diagonal, [p.numel() for p in parameters.values()])
    return {n: d.view_as(p) for (n, p), d in zip(parameters.items(), parts, strict=True)}


def agree(model, x, y, loss, names=None):
    found = recursion(model, [(x, y)], loss, form="exact")
    truth = hessian_diagonal(model, x, y, loss)
    for name in names or truth:
        torch.testing.assert_close(found[name], truth[name], rtol=1e-10, atol=1e-12)


def test_least_squares_is_twice_the_mean_square_of_the_input():
    x, y = doubles(50, 3), doubles(50, 1, seed=1)
    model = build(nn.Linear(3, 1))
    found = recursion(model, [(x, y)], squared)
    torch.testing.assert_close(found["0.weight"][0], 2 * x.square().mean(dim=0))
    torch.testing.assert_close(found["0.bias"], torch.full((1,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("f", [nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.Softplus(), nn.SiLU()])
def test_a_chain_of_single_units_has_the_hessian_that_autograd_finds(f):
    chain = build(nn.Linear(1, 1), f, nn.Linear(1, 1), f, nn.Linear(1, 1), f)
    agree(chain, doubles(7, 1), doubles(7, 1, seed=9), squared)


@pytest.mark.parametrize("loss", [squared, F.cross_entropy])
def test_the_last_linear_layer_is_exact(loss):
    model = build(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    y = doubles(6, 3, seed=3) if loss is squared else torch.tensor([0, 1, 2, 0, 1, 2])
    agree(model, doubles(6, 4), y, loss, ["2.weight", "2.bias"])


def test_a_convolution_with_one_position_is_exact():
    model = build(nn.Conv2d(2, 3, 3, groups=1), nn.Flatten())
    agree(model, doubles(4, 2, 3, 3), doubles(4, 3, seed=2), squared)


def test_a_shared_weight_sums_over_its_uses_without_cross_terms():
    model = build(nn.Conv1d(1, 1, 3, bias=False), nn.Flatten(), nn.Tanh(), nn.Linear(4, 1))
    x, y = doubles(5, 1, 6), doubles(5, 1, seed=2)
    found = recursion(model, [(x, y)], squared, form="levenberg")["0.weight"]
    windows = x.squeeze(1).unfold(1, 3, 1)
    a = (windows * model[0].weight.view(3)).sum(dim=2)
    h = (1 - a.tanh().square()).square() * model[3].weight.square() * 2
    torch.testing.assert_close(found.view(3), (h.unsqueeze(2) * windows.square()).sum((0, 1)) / 5)


@pytest.mark.parametrize(
    "middle",
    [
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.AvgPool2d(2), nn.Flatten()),
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.MaxPool2d(2), nn.Flatten()),
        nn.BatchNorm1d(4),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Dropout(0.5),
    ],
    ids=["avg", "adaptive", "max", "batchnorm", "relu", "leaky", "dropout"],
)
def test_what_is_linear_in_between_is_exact(middle):
    model = build(nn.Linear(3, 4), middle)
    if isinstance(middle, nn.BatchNorm1d):
        middle.running_mean += doubles(4)
        middle.running_var += doubles(4, seed=1).square()
    outputs = model.eval()(doubles(1, 3)).shape[1]
    agree(model, doubles(6, 3), doubles(6, outputs, seed=3), squared)


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(1, 1)

    def forward(self, x):
        y = self.a(x)
        return y.tanh() + 2.0 * x


def test_a_shortcut_adds_nothing():
    model = build(Shortcut())
    agree(model, doubles(3, 1), doubles(3, 1, seed=1), squared)


def test_the_levenberg_form_is_never_negative_and_drops_only_second_derivatives():
    model = build(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))
    batch = [(doubles(4, 2), 5 * doubles(4, 1, seed=5))]
    exact, safe = (recursion(model, batch, squared, form=f) for f in ("exact", "levenberg"))
    assert exact["0.weight"].min() < 0 <= min(h.min() for h in safe.values())
    torch.testing.assert_close(exact["2.weight"], safe["2.weight"])
    relu = build(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1))
    exact, safe = (recursion(relu, batch, squared, form=f) for f in ("exact", "levenberg"))
    torch.testing.assert_close(exact, safe)


def test_batches_are_averaged_and_the_model_is_left_alone():
    model = build(nn.Linear(2, 1)).train()
    a, b = (doubles(3, 2), doubles(3, 1)), (doubles(3, 2, seed=7), doubles(3, 1))
    both = recursion(model, [a, b], squared)["0.weight"]
    each = [recursion(model, [batch], squared)["0.weight"] for batch in (a, b)]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    assert model.training
    assert model[0].weight.grad is None


def test_a_masked_model_has_no_curvature_where_it_is_masked():
    model = build(nn.Linear(2, 1))
    with masked(model, Mask({"0.weight": torch.tensor([[True, False]])})):
        found = recursion(model, [(doubles(3, 2), doubles(3, 1))], squared)["0.weight"]
    assert found[0, 0] > 0
    assert found[0, 1] == 0


class Odd(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.a, self.what = nn.Linear(2, 4), what

    def forward(self, x):
        return self.what(self.a(x))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda y: y.softmax(dim=1), "no rule for softmax; use gauss_newton, which takes any"),
        (lambda y: -y, "no rule for neg"),
        (lambda y: y[:, :3].flatten() @ y[:, 1:].flatten(), "no rule for matmul; use"),
        (lambda y: 1 / y, "no rule for"),
        (lambda y: F.avg_pool1d(y, 2, 1), "no rule for averages over windows that overlap"),
        (lambda y: y.view(-1), r"output is \(12,\), not \(batch, classes\); use gauss_newton"),
        (lambda y: [y], r"output is list, not \(batch, classes\)"),
    ],
)
def test_an_operation_without_a_rule_is_named(what, message):
    with pytest.raises(StructureError, match=message):
        recursion(Odd(what), [(torch.ones(3, 2), torch.zeros(3, 4))], squared)


def test_wrong_words_and_losses_are_refused():
    batch = (torch.ones(3, 2), torch.zeros(3, 4))
    with pytest.raises(UnknownNameError, match="unknown form 'full'; use one of exact, levenberg"):
        recursion(nn.Linear(2, 4), [batch], squared, form="full")
    with pytest.raises(EvidenceError, match="not one finite number; check the loss and the labels"):
        recursion(nn.Linear(2, 4), [batch], lambda y, t: y.sum() * float("nan"))
    with pytest.raises(EvidenceError, match="there are no batches"):
        recursion(nn.Linear(2, 4), [], squared)
    with pytest.raises(UnknownNameError, match="unknown kind 'x'; use one of cross_entropy, squ"):
        gauss_newton(nn.Linear(2, 4), [batch], generator=Generator(), kind="x")
    with pytest.raises(StructureError, match="output is a list, not one tensor; wrap the model"):
        gauss_newton(Odd(lambda y: [y]), [batch], generator=Generator())


def outer_diagonal(model, x, kind):
    """Brute force: the diagonal of Jᵀ H J, sample by sample."""
    parameters = dict(model.named_parameters())
    total = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for sample in x:
        y = model(sample[None])[0].detach()
        p = y.softmax(0)
        hessian = 2 * torch.eye(len(y)) if kind == "squared" else p.diag() - p.outer(p)
        jacobian = torch.func.jacrev(
            lambda given, sample=sample: functional_call(model, given, (sample[None],))[0]
        )({n: p.detach() for n, p in parameters.items()})
        for name, j in jacobian.items():
            flat = j.flatten(1)
            total[name] += torch.einsum("op,oq,qp->p", flat, hessian.to(flat), flat).view_as(
                total[name]
            ) / len(x)
    return total


@pytest.mark.parametrize("kind", ["cross_entropy", "squared"])
def test_sampling_approaches_the_gauss_newton_diagonal(kind):
    model = build(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    x = doubles(5, 3)
    found = gauss_newton(model, [x], generator=Generator().manual_seed(0), kind=kind, probes=300)
    for name, truth in outer_diagonal(model, x, kind).items():
        torch.testing.assert_close(found[name], truth, rtol=0.4, atol=0.05 * float(truth.max()))


def test_sampling_agrees_with_the_recursion_on_one_layer():
    model = build(nn.Linear(3, 4))
    x, y = doubles(5, 3), torch.tensor([0, 1, 2, 3, 0])
    exact = recursion(model, [(x, y)], F.cross_entropy)
    found = gauss_newton(model, [x], generator=Generator().manual_seed(0), probes=300)
    torch.testing.assert_close(found["0.weight"], exact["0.weight"], rtol=0.4, atol=0.02)
