import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from secateurs.core.errors import FileError, ShapeError
from secateurs.realise.state import load_state


def write(path, state):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_arrive(tmp_path, suffix):
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    write(tmp_path / f"w{suffix}", a.state_dict())
    load_state(b, tmp_path / f"w{suffix}")
    assert torch.equal(a.weight, b.weight)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {f"module.{n}": t for n, t in s.items()},
    ],
)
def test_nested_state_dicts_are_unwrapped(tmp_path, wrap):
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(wrap(a.state_dict()), tmp_path / "w.pt")
    load_state(b, tmp_path / "w.pt")
    assert torch.equal(a.weight, b.weight)


def test_one_name_of_a_tied_weight_is_enough(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    save_file({"0.weight": torch.eye(2)}, tmp_path / "w.safetensors")
    load_state(model, tmp_path / "w.safetensors")
    assert torch.equal(model[1].weight, torch.eye(2))


def test_another_shape_is_named(tmp_path):
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ShapeError, match=r"'weight' is \(2, 4\) in the file and \(2, 3\) in the"):
        load_state(nn.Linear(3, 2), tmp_path / "w.pt")


def test_missing_and_unknown_names_are_listed(tmp_path):
    torch.save({"weight": torch.zeros(2, 3), "extra": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ShapeError, match=r"missing 1 \(bias\), unknown 1 \(extra\)"):
        load_state(nn.Linear(3, 2), tmp_path / "w.pt")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match=r"does not exist; pass a .safetensors, .pt or .pth"):
        load_state(nn.Linear(3, 2), tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_damaged_file_is_refused(tmp_path, suffix):
    (tmp_path / f"w{suffix}").write_bytes(b"not weights")
    with pytest.raises(FileError, match=r"is no safetensors file|cannot be read as plain weights"):
        load_state(nn.Linear(3, 2), tmp_path / f"w{suffix}")


def test_a_pickled_model_is_not_unpickled(tmp_path):
    torch.save(nn.Linear(3, 2), tmp_path / "w.pt")
    with pytest.raises(FileError, match=r"save model.state_dict\(\)"):
        load_state(nn.Linear(3, 2), tmp_path / "w.pt")
