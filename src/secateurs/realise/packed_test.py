import pytest
import torch
from torch import nn

from secateurs.budget.uniform import uniform
from secateurs.core.cut import score, select
from secateurs.core.errors import FileError, ShapeError
from secateurs.criteria.magnitude import l2
from secateurs.evidence.weights import weights
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.models.create import create
from secateurs.realise.coding.container import write
from secateurs.realise.compact import compact
from secateurs.realise.packed import about, held, load

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_file_is_enough_to_build_its_model_again(tmp_path):
    model = create("resnet20", classes=7).eval()
    told = about(model, "resnet20", classes=7, in_channels=3)
    assert told == {"model": "resnet20", "classes": 7, "in_channels": 3}
    write(tmp_path / "a.secz", model.state_dict(), told)
    again = load(tmp_path / "a.secz")
    assert not again.training
    assert torch.equal(again(IMAGES), model(IMAGES))


def test_what_goes_without_saying_is_not_said():
    assert about(create("lenet5"), "lenet5", classes=10, in_channels=1) == {"model": "lenet5"}


def test_removed_channels_stay_removed(tmp_path):
    model = create("resnet20").eval()
    graph = trace(model, IMAGES)
    sites = channels(graph)
    scores = score(sites, l2, weight=weights(model))
    small = compact(model, graph, select(sites, scores, uniform(sites, 0.5)), IMAGES).model.eval()
    told = about(small, "resnet20")
    assert told == {"model": "resnet20"}
    write(tmp_path / "a.secz", held(small), told)
    again = load(tmp_path / "a.secz")
    assert again.layer1[0].conv1.out_channels == small.layer1[0].conv1.out_channels == 8
    assert torch.equal(again(IMAGES), small(IMAGES))


def test_a_model_of_ones_own_is_filled_and_the_given_one_left_alone(tmp_path):
    torch.manual_seed(0)
    packed, given = nn.Linear(3, 2), nn.Linear(3, 2)
    write(tmp_path / "a.secz", packed.state_dict(), about(packed, None))
    before = given.weight.clone()
    again = load(tmp_path / "a.secz", given)
    assert torch.equal(again.weight, packed.weight)
    assert isinstance(again.weight, nn.Parameter)
    assert torch.equal(given.weight, before)


def test_what_cannot_be_built_is_said(tmp_path):
    path = tmp_path / "a.secz"
    write(path, nn.Linear(3, 2).state_dict(), {})
    with pytest.raises(FileError, match=r"a.secz does not name its model; pass load\(FILE, model"):
        load(path)
    with pytest.raises(ShapeError, match=r"'weight' is \(2, 3\) in the file and \(2, 4, 5, 5\) in"):
        load(path, nn.Conv2d(4, 2, 5))
    with pytest.raises(ShapeError, match="holds 'bias', unknown to this Linear"):
        load(path, nn.Linear(3, 2, bias=False))
    with pytest.raises(ShapeError, match=r"has no '0.weight'; build the model as it was packed"):
        load(path, nn.Sequential(nn.Linear(3, 2)))
    write(path, {}, {"model": "lenet6"})
    with pytest.raises(FileError, match=r"unknown model 'lenet6'.*or pass load\(FILE, model\)"):
        load(path)
    write(path, {}, {"model": "lenet5", "traced": True})
    with pytest.raises(FileError, match="holds the tensors of a traced program"):
        load(path)
