import pytest
import torch
from torch import Generator, nn

from secateurs.core.cut import decide, score
from secateurs.core.errors import UnknownNameError
from secateurs.core.mask import Mask
from secateurs.criteria.scale import scale
from secateurs.data.load import from_loaders
from secateurs.evidence.scales import scales
from secateurs.methods.channels import removable, share
from secateurs.methods.slimming import (
    below,
    lengths,
    penalty,
    scales_of,
    shrinking,
    slimming,
    soft_threshold,
)
from secateurs.methods.task import Target, Task
from secateurs.models.create import create
from secateurs.models.digits import DigitsCNN
from secateurs.realise.masked import masked
from secateurs.recovery.settings import Trainer
from secateurs.runs.stages import Recovery, Stages

X = torch.randn(64, 1, 8, 8, generator=Generator().manual_seed(0))
DATA = from_loaders([(x, (x[:, 0, 0, 0] > 0).long()) for x in X.split(16)])


def net(width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DigitsCNN(width=width)


def task(folder, model=None, epochs=2):
    train = Recovery(Stages(DATA, folder), "slim", Trainer(epochs=epochs, lr=0.05, weight_decay=0))
    return Task(model or net(), X[:1], train=train, batches=lambda: DATA.train)


def test_the_threshold_minimises_the_toy_loss():
    a = torch.tensor([3.0, -0.4, 0.5, -2.0])
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    for by in (0.0, 0.5, 1.0):
        losses = (grid[:, None] - a).square() / 2 + by * grid.abs()[:, None]
        torch.testing.assert_close(
            soft_threshold(a, by), grid[losses.argmin(dim=0)].float(), rtol=0, atol=1e-3
        )


def test_the_penalty_is_the_sum_of_the_scales_and_its_gradient_their_sign():
    model = net()
    units = lengths(model, removable(model, X[:1]).sites)
    found = penalty(units, 0.1)(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert found.item() == pytest.approx(0.1 * sum(len(m.weight) for m in norms))
    found.backward()
    assert all(bool((m.weight.grad == 0.1).all()) for m in norms)
    assert all(p.grad is None for n, p in model.named_parameters() if p.dim() > 1)


def test_a_masked_scale_is_not_penalised():
    model = net()
    units = lengths(model, removable(model, X[:1]).sites)
    whole = float(penalty(units, 1.0)(model))
    keep = torch.arange(8) > 2
    with masked(model, Mask({"stem.1.weight": keep})):
        assert float(penalty(units, 1.0)(model)) == pytest.approx(whole - 3)


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 3, 2), nn.Conv2d(3, 4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.b(self.a(x).relu()).relu().mean(dim=(2, 3)))


def test_without_batch_norms_the_scales_are_relative_lengths_of_filters():
    model = Bare()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([1.0, 2.0, 6.0])[:, None, None, None].expand(3, 1, 2, 2))
    place = removable(model, X[:1])
    units = lengths(model, place.sites)
    assert set(units) == {"a.weight", "b.weight"}
    found = scales_of(model, units)
    assert found["a.weight"].flatten().tolist() == pytest.approx([1 / 3, 2 / 3, 2])
    scores = score(place.sites, scale, scale=found)
    assert scores["a.weight:0"].tolist() == pytest.approx([1 / 3, 2 / 3, 2])
    assert float(scores["b.weight:0"].mean()) == pytest.approx(1)


@pytest.mark.parametrize("make", [net, Bare], ids=["batch norms", "none"])
def test_shrinking_takes_the_same_from_every_scale_down_to_exact_zeros(make):
    model = make()
    units = lengths(model, removable(model, X[:1]).sites)
    before = {n: t.detach().clone() for n, t in scales_of(model, units).items()}
    shrink = shrinking(model, units, 0.3)
    for step in (1, 2):
        shrink(step)
    for name, now in scales_of(model, units).items():
        torch.testing.assert_close(now, (before[name] - 0.6).clamp(min=0), atol=1e-6, rtol=1e-5)
    for step in range(3, 9):
        shrink(step)
    assert all(not bool(t.any()) for t in scales_of(model, units).values())


def test_nothing_is_cut_at_density_1():
    model = net().eval()
    pruned = slimming(Task(model, X[:1]), Target("density", 1.0))
    assert pruned.compacted.removed == {}
    torch.testing.assert_close(pruned.model(X[:3]), model(X[:3]))


def test_all_layers_are_ranked_together_and_each_keeps_at_least_one():
    model = net().eval()
    with torch.no_grad():
        model.block1.conv1[1].weight.mul_(1e-3)
    pruned = slimming(Task(model, X[:1]), Target("density", 0.6))
    assert pruned.compacted.removed["block1.conv1.0.weight:0"] == 7
    assert sum(pruned.compacted.removed.values()) == round(0.4 * 48)


def test_vgg_19_has_5504_scales_of_which_seven_tenths_go():
    model = create("vgg19_bn_cifar", classes=10, in_channels=3)
    place = removable(model, torch.zeros(1, 3, 32, 32))
    scores = score(place.sites, scale, scale=scales(model))
    assert sum(s.numel() for s in scores.values()) == 5504
    generator = Generator().manual_seed(0)
    drawn = {n: torch.rand(s.shape, generator=generator) for n, s in scores.items()}
    quota = share(place, drawn, Target("density", 0.3), "global", normalise="none")
    cut = sum(int((~keep).sum()) for keep in decide(place.sites, drawn, quota).values())
    # 0.3 of 5,504 is 1,651.2; the authors' threshold cuts 3,853 too.
    assert cut == 5504 - 1651


def test_the_penalty_makes_scales_small_that_plain_training_leaves(tmp_path):
    small = {}
    for strength in (0.0, 0.2):
        seen = {}

        def watch(train, seen=seen):
            def watched(model, *, name, **options):
                train(model, name=name, **options)
                if name == "sparse":
                    seen.update({n: t.clone() for n, t in scales(model).items()})

            return watched

        job = task(tmp_path / str(strength), epochs=10)
        job = Task(job.model, job.example, train=watch(job.train), batches=job.batches)
        slimming(job, Target("density", 0.5), strength=strength)
        gammas = torch.cat(list(seen.values()))
        small[strength] = float((gammas.abs() < 0.1).double().mean())
    assert small[0.0] < 0.02 < 0.3 < small[0.2]


@pytest.mark.parametrize("step", ["penalty", "proximal"])
def test_passes_approach_the_target_and_what_was_cut_stays_cut(tmp_path, step):
    masks = []

    def watch(train):
        def watched(model, *, name, **options):
            masks.append((name, model.stem[1].weight.detach().clone()))
            train(model, name=name, **options)

        return watched

    job = task(tmp_path)
    job = Task(job.model, job.example, train=watch(job.train), batches=job.batches)
    pruned = slimming(job, Target("macs", 0.4), passes=3, step=step, strength=0.01, epochs=1)
    assert [name for name, _ in masks] == ["sparse-0", "sparse-1", "sparse-2", "recover"]
    zeros = [set((g == 0).nonzero().flatten().tolist()) for _, g in masks[:3]]
    assert zeros[0] <= zeros[1] <= zeros[2]
    assert pruned.compacted.proof.difference < 1e-8


def test_what_was_cut_ranks_below_every_zero():
    scores = {"a": torch.tensor([0.0, 0.0, 2.0])}
    found = below(scores, {"a": torch.tensor([False, True, True])})
    assert found["a"].tolist() == [-1, 0, 2]
    assert below(scores, {})["a"].tolist() == [0, 0, 2]


def test_an_unknown_step_is_refused():
    with pytest.raises(UnknownNameError, match="unknown step 'sub'; use one of penalty, proximal"):
        slimming(Task(net(), X[:1]), Target(), step="sub")
