import sys

import pytest
import torch
import torchvision
from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.models.create import create, input_shape
from secateurs.models.table import MODELS


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with a module of the user's own."""
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def plain(): return nn.Linear(4, 3)\n"
        "def sized(num_classes=2, in_chans=1): return nn.Linear(in_chans, num_classes)\n"
        "sized.input_shape = (1, 4, 4)\n"
        "def broken(): raise ValueError('no such width')\n"
        "def text(): return 'net'\n"
        "ready = nn.Linear(2, 2)\n"
        "number = 3\n"
        "class Nets:\n"
        "    @staticmethod\n"
        "    def inner(classes): return nn.Linear(1, classes)\n"
    )
    (tmp_path / "needy.py").write_text("import a_package_nobody_has\n")
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("mynets", "needy", "wrong"):
        sys.modules.pop(name, None)


def test_our_own_names_are_built_with_the_options_given():
    model = create("lenet5", classes=4, in_channels=2)
    assert (model.fc2.out_features, model.conv1.in_channels) == (4, 2)


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_0", "timm:resnet10t"])
def test_a_library_name_takes_classes(name):
    pytest.importorskip(name.split(":")[0])
    model = create(name, classes=5).eval()
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)


def test_timm_takes_other_channel_counts():
    pytest.importorskip("timm")
    assert create("timm:resnet10t", in_channels=1).eval()(torch.randn(1, 1, 64, 64)).dim() == 2


def test_a_factory_of_the_users_is_found_in_the_working_directory(project):
    before = list(sys.path)
    assert create("mynets:plain", classes=10).out_features == 3
    assert create("mynets:sized", classes=10, in_channels=3).weight.shape == (10, 3)
    assert create("mynets:Nets.inner", classes=6).out_features == 6
    assert isinstance(create("mynets:ready"), nn.Linear)
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lenet6", "unknown model 'lenet6'; did you mean lenet5"),
        ("zzz", "unknown model 'zzz'; known: alexnet_caffe, .*, or torchvision:NAME, timm:NAME or"),
        ("torchvision:resnet51", "torchvision has no model 'resnet51'; did you mean .*resnet5"),
        ("nosuchpackage.sub:f", "no module 'nosuchpackage.sub' for model"),
        ("mynets:plane", "'mynets' has no 'plane'; did you mean plain"),
    ],
)
@pytest.mark.parametrize("ask", [create, input_shape])
def test_an_unknown_name_lists_near_ones(ask, name, said, project):
    with pytest.raises(UnknownNameError, match=said):
        ask(name)


def test_an_unknown_timm_name_lists_near_ones():
    pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match="timm has no model 'resnet5O'; did you mean"):
        create("timm:resnet5O")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "mynets:broken",
            {},
            "'mynets:broken' with no arguments failed: ValueError: no such width",
        ),
        ("mynets:Nets.inner", {}, "failed: TypeError: .*missing 1 required"),
        ("mynets:text", {}, "'mynets:text' returned a str, not a torch.nn.Module"),
        ("mynets:number", {}, "'mynets:number' is a int, not a function or class"),
        ("mynets:plain", {"pretrained": True}, "takes no argument `pretrained`"),
        ("needy:f", {}, "importing 'needy' failed: .*a_package_nobody_has"),
        ("wrong:f", {}, "importing 'wrong' failed: ZeroDivisionError"),
        ("lenet5", {"pretrained": True}, "no pretrained weights come with 'lenet5'"),
        ("torchvision:resnet18", {"in_channels": 1}, "takes 3 channels, not 1"),
        ("lenet5", {"classes": -1}, "building 'lenet5' with classes=-1 failed"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(name, options, said, project):
    with pytest.raises(PruneError, match=said):
        create(name, **options)


@pytest.fixture
def offline(monkeypatch):
    """Let torchvision's pretrained models be ones whose every weight is 0.5."""
    real = torchvision.models.get_model

    def get_model(name, *, weights=None, **options):
        model = real(name, weights=None, **options)
        if weights is not None:
            for parameter in model.parameters():
                nn.init.constant_(parameter, 0.5)
        return model

    monkeypatch.setattr(torchvision.models, "get_model", get_model)


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "shufflenet_v2_x0_5"])
def test_everything_but_a_head_for_other_classes_is_pretrained(name, offline):
    whole = create(f"torchvision:{name}", pretrained=True)
    assert all(bool((p == 0.5).all()) for p in whole.parameters())
    model = create(f"torchvision:{name}", classes=7, pretrained=True)
    fresh = [n for n, p in model.named_parameters() if not (p == 0.5).all()]
    assert {n.rsplit(".", 1)[0] for n in fresh} <= {"fc", "classifier.1"}
    assert len(fresh) >= 1
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("name", MODELS)
def test_our_models_say_what_they_take(name):
    assert input_shape(name) == MODELS[name].input_shape


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision:inception_v3", (3, 299, 299)),
        ("torchvision:resnet18", (3, 224, 224)),
        ("torchvision:r3d_18", (3, 16, 112, 112)),
        ("torchvision:fcn_resnet50", (3, 224, 224)),
        ("torchvision:vit_h_14", (3, 518, 518)),
    ],
)
def test_torchvision_models_say_what_they_take(name, shape):
    assert input_shape(name) == shape


def test_a_vision_transformer_is_built_for_the_size_it_says():
    with torch.device("meta"):
        model = create("torchvision:vit_h_14")
    assert model.image_size == 518


def test_timm_models_say_what_they_take():
    pytest.importorskip("timm")
    assert input_shape("timm:test_vit") == (3, 160, 160)


def test_a_factory_of_the_users_may_say_what_it_takes(project):
    assert input_shape("mynets:sized") == (1, 4, 4)
    with pytest.raises(PruneError, match=r"set plain.input_shape = \(channels, height, width\)"):
        input_shape("mynets:plain")
