import copy
import json

import pytest
import torch
from torch import nn

from secateurs.core.cut import scatter
from secateurs.core.errors import FileError, ShapeError
from secateurs.core.mask import Mask
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.measure.compute import macs
from secateurs.realise.attributes import follow_leaves
from secateurs.realise.checkpoint import load_checkpoint, load_mask, save_checkpoint
from secateurs.realise.compact import compact
from secateurs.realise.lowered import lowered
from secateurs.realise.record import after, kind_of, record_of, remember_
from secateurs.realise.shrink import all_tensors, shrink


class Net(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.first = nn.Linear(4, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.last = nn.Linear(hidden, 4, bias=False)
        self.again = self.last
        self.register_buffer("gain", torch.rand(hidden), persistent=False)

    def forward(self, x):
        return self.again(self.norm(self.first(x)) * self.gain)


def prune(model, *bits):
    """Keep these hidden units, by hand."""
    keep = torch.tensor(bits, dtype=torch.bool)
    names = ("first.weight", "first.bias", "norm.weight", "norm.bias", "gain")
    keeps = {n: {0: keep} for n in (*names, "norm.running_mean", "norm.running_var")}
    keeps["last.weight"] = {1: keep}
    small, shrunk = shrink(model, keeps, {})
    shapes = {n: tuple(t.shape) for n, t in all_tensors(model).items()}
    edits = follow_leaves(small, shapes, keeps)
    remember_(small, after(record_of(model), kind_of(model), shapes, shrunk.keeps, edits))
    return small


@pytest.fixture
def pruned():
    torch.manual_seed(0)
    return prune(Net(), 1, 0, 1, 1, 0, 1).eval()


def test_a_fresh_instance_becomes_the_saved_model(pruned, tmp_path):
    save_checkpoint(tmp_path / "small", pruned)
    fresh = Net()
    again = load_checkpoint(tmp_path / "small", fresh).eval()
    x = torch.randn(3, 4)
    assert torch.equal(again(x), pruned(x))
    assert again.again is again.last
    assert (again.first.out_features, again.norm.num_features) == (4, 4)
    assert fresh.first.out_features == 6
    assert fresh.first.weight.shape == (6, 4)


def test_a_model_cut_twice_is_rebuilt_from_the_class_as_built(pruned, tmp_path):
    smaller = prune(pruned, 0, 1, 1, 0).eval()
    save_checkpoint(tmp_path / "small", smaller)
    again = load_checkpoint(tmp_path / "small", Net()).eval()
    x = torch.randn(3, 4)
    assert torch.equal(again(x), smaller(x))
    sheet = json.loads((tmp_path / "small.json").read_text())
    assert sheet["kept"]["first.weight"]["0"] == [2, 3]
    assert sheet["parameters"]["first.weight"]["was"] == [6, 4]


def test_a_loaded_model_can_be_saved_again(pruned, tmp_path):
    save_checkpoint(tmp_path / "a", pruned)
    save_checkpoint(tmp_path / "b", load_checkpoint(tmp_path / "a", Net()))
    first, second = (json.loads((tmp_path / f"{s}.json").read_text()) for s in "ab")
    assert first == second


def test_a_model_that_was_never_cut_round_trips(tmp_path):
    model = Net().eval()
    save_checkpoint(tmp_path / "m", model, spec="tests:Net", recipe={"seed": 1})
    again = load_checkpoint(tmp_path / "m", Net())
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in again.state_dict().items())
    assert json.loads((tmp_path / "m.json").read_text())["recipe"] == {"seed": 1}


def test_tied_weights_are_stored_once(pruned, tmp_path):
    from safetensors import safe_open

    weights, _ = save_checkpoint(tmp_path / "m", pruned)
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
    assert "last.weight" in names
    assert "again.weight" not in names


def test_the_mask_comes_back(pruned, tmp_path):
    mask = Mask({"first.weight": torch.rand(4, 4) > 0.5})
    save_checkpoint(tmp_path / "m", pruned, mask=mask)
    again = load_mask(tmp_path / "m")
    assert torch.equal(again["first.weight"], mask["first.weight"])


def test_nothing_is_left_half_written(pruned, tmp_path):
    save_checkpoint(tmp_path / "m", pruned)
    save_checkpoint(tmp_path / "m", pruned)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.json", "m.safetensors"]


def test_a_missing_folder_is_named(pruned, tmp_path):
    with pytest.raises(FileError, match=r"nowhere' does not exist; create it"):
        save_checkpoint(tmp_path / "nowhere" / "m", pruned)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileError, match=r"a pair of files, m.safetensors and m.json"):
        load_checkpoint(tmp_path / "m", Net())


def test_a_damaged_tensor_file_is_refused(pruned, tmp_path):
    weights, _ = save_checkpoint(tmp_path / "m", pruned)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(FileError, match=r"is damaged or belongs to another m.json: its sha256"):
        load_checkpoint(tmp_path / "m", Net())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: "{", "not valid JSON"),
        (lambda c: json.dumps({**c, "format": "x"}), "field 'format' is not"),
        (lambda c: json.dumps({**c, "version": 99}), "field 'version' is 99, this release reads 1"),
        (lambda c: json.dumps({**c, "parts": 3}), "field 'parts' is missing or no dict"),
        (lambda c: json.dumps([c]), "field 'format' is not"),
    ],
)
def test_a_damaged_sheet_names_its_field(pruned, tmp_path, change, message):
    _, sheet = save_checkpoint(tmp_path / "m", pruned)
    sheet.write_text(change(json.loads(sheet.read_text())))
    with pytest.raises(FileError, match=message):
        load_checkpoint(tmp_path / "m", Net())


def test_a_model_built_otherwise_is_refused(pruned, tmp_path):
    save_checkpoint(tmp_path / "m", pruned)
    with pytest.raises(ShapeError, match=r"'first.weight' was cut from shape \(6, 4\), but this"):
        load_checkpoint(tmp_path / "m", Net(hidden=8))
    with pytest.raises(ShapeError, match=r"'first.weight' does not exist in this Linear"):
        load_checkpoint(tmp_path / "m", nn.Linear(4, 4))


def test_a_part_that_names_no_operation_of_torch_is_refused(pruned, tmp_path):
    _, sheet = save_checkpoint(tmp_path / "m", pruned)
    content = json.loads(sheet.read_text())
    node = {"name": "a", "op": "call_function", "target": "os.system", "args": [], "kwargs": {}}
    sheet.write_text(json.dumps({**content, "parts": {"first": [node]}}))
    with pytest.raises(FileError, match=r"'os.system' is no operation of torch"):
        load_checkpoint(tmp_path / "m", Net())


@pytest.mark.parametrize("cut_before", [False, True])
def test_thin_layers_come_back_as_they_were(tmp_path, cut_before):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2, stride=2),
        nn.Flatten(), nn.Linear(8 * 9, 2),
    ).eval()  # fmt: skip
    fresh, x = copy.deepcopy(model), torch.randn(2, 1, 8, 8)
    if cut_before:
        graph = trace(model, x)
        sites = channels(graph, include=["0.weight"])
        keep = {name: torch.arange(8) % 4 < 2 for name in sites}
        model = compact(model, graph, scatter(sites, keep), x).model
    width = model[2].weight.shape[1]
    keep = (torch.rand(1, width, 3, 3) < 0.5).expand_as(model[2].weight)
    thin = lowered(model, {"2.weight": keep})
    with torch.no_grad():
        thin[2].bias.add_(1)
    save_checkpoint(tmp_path / "thin", thin)
    back = load_checkpoint(tmp_path / "thin", fresh)
    assert torch.equal(back(x), thin(x))
    assert str(back) == str(thin)
    assert macs(back, x) < macs(fresh, x)
    save_checkpoint(tmp_path / "again", back)
    assert torch.equal(load_checkpoint(tmp_path / "again", fresh)(x), thin(x))


def test_a_thin_layer_without_its_tensors_is_refused(tmp_path):
    conv = nn.Sequential(nn.Conv2d(1, 2, 3))
    keep = (torch.arange(9) < 4).view(1, 1, 3, 3).expand(2, 1, 3, 3)
    save_checkpoint(tmp_path / "thin", lowered(conv, {"0.weight": keep}))
    sheet = tmp_path / "thin.json"
    content = json.loads(sheet.read_text())
    del content["thin"]["0"]["stride"]
    sheet.write_text(json.dumps(content))
    with pytest.raises(FileError, match="'stride' of the thin layer '0' is missing"):
        load_checkpoint(tmp_path / "thin", conv)
