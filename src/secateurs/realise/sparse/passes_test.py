import json

import pytest
import torch
from torch import nn

from secateurs import accelerate, load_accelerated
from secateurs.core.errors import FileError
from secateurs.measure.latency import Latency
from secateurs.realise.coding.container import read, write
from secateurs.realise.sparse import passes
from secateurs.realise.sparse.native import available
from secateurs.realise.sparse.passes import batch_of, joined, part, separable

pytestmark = pytest.mark.skipif(not available(), reason="no C compiler at installation")


class Mixed(nn.Module):
    """Takes from every image the mean over the batch."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Numbered(nn.Module):
    """Adds something else to every image."""

    def __init__(self, images):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(images, 1, 1, 1))

    def forward(self, x):
        return x + self.bias


class Two(nn.Module):
    """Takes two inputs by name and returns a table."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x, scale):
        y = torch.relu(self.conv(x))
        return {"map": y * scale[:, None, None, None], "out": self.head(y.mean((2, 3)))}


def thinned(model):
    torch.manual_seed(1)
    for p in model.parameters():
        if p.dim() > 1:
            p.data *= torch.rand_like(p) < 0.2
    return model.eval()


def network():
    torch.manual_seed(0)
    return thinned(
        nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 8, 1), nn.Flatten(), nn.Linear(8 * 64, 10)),
        )
    )


@pytest.fixture(autouse=True)
def small_caches(monkeypatch):
    monkeypatch.setattr(passes, "AT_ONCE", 1)


def sparse(model, example):
    return accelerate(model, example, threads=1, cache=None, rounds=0)


@pytest.mark.parametrize("images", [2, 5])
def test_a_batch_in_passes_is_the_batch(images):
    model, x = network(), torch.randn(images, 3, 16, 16)
    fast = sparse(model, x)
    assert fast.passes == images
    assert f"{images} passes" in repr(fast)
    exact = model.double()(x.double())
    assert (fast(x).double() - exact).abs().max() < 1e-5 * exact.abs().max()


def test_several_inputs_and_outputs_are_split_and_joined():
    model = thinned(Two())
    example = {"x": torch.randn(4, 3, 9, 9), "scale": torch.randn(4)}
    fast = sparse(model, example)
    assert fast.passes == 4
    found, wanted = fast(**example), model(**example)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [Mixed(), Numbered(4), nn.BatchNorm2d(16).train()])
def test_what_mixes_its_images_is_done_at_once(last):
    first = thinned(nn.Conv2d(3, 16, 3, padding=1))
    model, x = nn.Sequential(first, last).eval(), torch.randn(4, 3, 8, 8)
    alone = isinstance(last, nn.BatchNorm2d)  # in evaluation mode a norm mixes nothing
    assert separable(model, x) is alone
    fast = sparse(model, x)
    assert fast.passes == (4 if alone else 1)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_small_activations_are_done_at_once(monkeypatch):
    monkeypatch.setattr(passes, "AT_ONCE", 1 << 20)
    assert sparse(network(), torch.randn(4, 3, 16, 16)).passes == 1


def test_a_pass_takes_as_many_images_as_fit(monkeypatch):
    x = torch.randn(12, 3, 16, 16)
    one = sparse(network(), x[:1]).engine.assembly.size
    monkeypatch.setattr(passes, "AT_ONCE", 5 * one)
    assert sparse(network(), x).passes == 3


def test_passes_are_saved(tmp_path):
    model, x = network(), torch.randn(4, 3, 16, 16)
    fast = sparse(model, x)
    fast.save(tmp_path / "fast.secz")
    back = load_accelerated(tmp_path / "fast.secz")
    assert (back.passes, back.inputs) == (4, fast.inputs)
    assert torch.equal(back(x), fast(x))


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, None])
def test_a_file_with_impossible_passes_is_refused(tmp_path, value):
    sparse(network(), torch.randn(4, 3, 16, 16)).save(tmp_path / "fast.secz")
    held = read(tmp_path / "fast.secz")
    recipe = json.loads(json.dumps(held.recipe)) | {"passes": value}
    write(tmp_path / "bad.secz", held.state(), recipe)
    with pytest.raises(FileError, match="passes"):
        load_accelerated(tmp_path / "bad.secz")


def test_dense_takes_over_for_the_whole_batch(monkeypatch, tmp_path):
    def timed(models, example, **_):
        return {n: Latency(s, s, s, 1, 1, 4, (s,)) for n, s in seconds.items() if n in models}

    seconds = {"sparse": 3.0, "dense": 1.0, "dense, channels last": 2.0}
    monkeypatch.setitem(accelerate.__globals__, "latency", timed)
    model, x = network(), torch.randn(4, 3, 16, 16)
    fast = accelerate(model, x, threads=1, cache=None)
    assert fast.dense is not None
    assert fast.passes == 1
    assert fast.inputs == [((4, 3, 16, 16), torch.float32)]
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-4)
    fast.save(tmp_path / "fast.secz")
    torch.testing.assert_close(load_accelerated(tmp_path / "fast.secz")(x), model(x))


def test_parts_put_together_are_the_whole():
    x = {"a": torch.arange(12).reshape(6, 2), "b": torch.randn(6)}
    for count in (1, 2, 3, 6):
        whole = joined([part(x, i, count) for i in range(count)])
        assert all(torch.equal(whole[n], x[n]) for n in x)


def test_inputs_that_share_no_length_are_no_batch():
    assert batch_of([torch.zeros(3, 1), torch.zeros(3)]) == 3
    assert batch_of([torch.zeros(3, 1), torch.zeros(2)]) == 1
    assert batch_of([torch.zeros(3, 1), torch.tensor(0.0)]) == 1
