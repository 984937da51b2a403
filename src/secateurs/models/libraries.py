"""Models of torchvision and timm, by name."""

from typing import Any

from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.near import near
from secateurs.core.require import require
from secateurs.models.factory import built, given


def torchvision_model(
    name: str, classes: int | None, in_channels: int | None, pretrained: bool
) -> nn.Module:
    """Build a model of torchvision; see `create`."""
    import torchvision

    title, weights = f"torchvision:{name}", _torchvision_weights(name)
    if in_channels not in (None, 3):
        raise PruneError(
            f"{title} takes 3 channels, not {in_channels}; "
            f"repeat the channel, or use timm:NAME, which takes any number"
        )
    make, options = torchvision.models.get_model, given({"num_classes": classes})
    if name.startswith("vit_"):
        options["image_size"] = torchvision_shape(name)[-1]
    if not pretrained:
        return built(title, make, options, name, weights=None)
    model = built(title, make, {}, name, weights=weights)
    if classes is not None:
        _take_head_(model, built(title, make, options, name, weights=None))
    return model


def _take_head_(model: nn.Module, other: nn.Module) -> None:
    """Move the layers of `other` whose parameters have other shapes into `model`."""
    there = dict(model.named_modules())
    for path, module in other.named_modules():
        if path in there and _shapes(module) != _shapes(there[path]):
            parent, _, attribute = path.rpartition(".")
            setattr(there[parent], attribute, module)


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in module.parameters(recurse=False)]


def _torchvision_weights(name: str) -> Any:
    """Return the default weights of a model."""
    import torchvision

    known = torchvision.models.list_models()
    if name not in known:
        raise UnknownNameError(f"torchvision has no model {name!r}; {near(name, known)}")
    return torchvision.models.get_model_weights(name).DEFAULT


def torchvision_shape(name: str) -> tuple[int, ...]:
    """Read the size from the default weights' own transforms; 224 where they have none."""
    import torchvision

    transforms = _torchvision_weights(name).transforms()
    size = getattr(transforms, "crop_size", None) or [224]
    clip = (16,) if name in torchvision.models.list_models(torchvision.models.video) else ()
    return (3, *clip, size[0], size[-1])


def timm_model(
    name: str, classes: int | None, in_channels: int | None, pretrained: bool
) -> nn.Module:
    """Build a model of timm; see `create`."""
    timm = require("timm", extra="timm")
    _timm_known(name)
    options = given({"num_classes": classes, "in_chans": in_channels})
    return built(f"timm:{name}", timm.create_model, options, name, pretrained=pretrained)


def _timm_known(name: str) -> None:
    timm = require("timm", extra="timm")
    if not timm.is_model(name):
        raise UnknownNameError(f"timm has no model {name!r}; {near(name, timm.list_models())}")


def timm_shape(name: str) -> tuple[int, ...]:
    """Read the size from the model's configuration."""
    _timm_known(name)
    config = require("timm", extra="timm").models.get_pretrained_cfg(name)
    return tuple(config.input_size) if config else (3, 224, 224)
