"""A model from its name: ours, torchvision's, timm's or the user's own factory."""

from torch import nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.near import near
from secateurs.models.factory import built, find, given, own_model, working_directory
from secateurs.models.libraries import (
    timm_model,
    timm_shape,
    torchvision_model,
    torchvision_shape,
)
from secateurs.models.table import MODELS

_OTHERS = "torchvision:NAME, timm:NAME or package.module:factory"


def create(
    name: str,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Build the model a name stands for, freshly initialised unless `pretrained`.

    Names are keys of `MODELS`, `torchvision:NAME`, `timm:NAME`, or
    `package.module:factory`, imported from the working directory too. A factory of the
    user's is called with those of `classes` (or `num_classes`), `in_channels` (or
    `in_chans`) and `pretrained` that were given and that it takes.

    Pretrained weights come with the source's own head; where `classes` asks for another
    one, everything but the head is pretrained.

    >>> create("lenet5", classes=7).fc2.out_features
    7

    Raises:
        UnknownNameError: nothing has that name; near matches are listed.
        PruneError: the factory failed, or pretrained weights do not exist.
    """
    if name in MODELS:
        if pretrained:
            raise PruneError(
                f"no pretrained weights come with {name!r}; train it, and load its checkpoint"
            )
        options = {"classes": classes, "in_channels": in_channels}
        return built(name, MODELS[name].factory, given(options))
    source, _, rest = name.partition(":")
    if not rest:
        raise UnknownNameError(f"unknown model {name!r}; {near(name, MODELS)}, or {_OTHERS}")
    make = {"torchvision": torchvision_model, "timm": timm_model}.get(source)
    if make:
        return make(rest, classes, in_channels, pretrained)
    return own_model(name, classes, in_channels, pretrained)


def input_shape(name: str) -> tuple[int, ...]:
    """Say which single input, (channels, height, width), a model of that name expects.

    A factory of the user's may carry it as an attribute: `factory.input_shape = (3, 64, 64)`.

    Raises:
        UnknownNameError: nothing has that name.
        PruneError: a user's factory does not say.
    """
    if name in MODELS:
        return MODELS[name].input_shape
    source, _, rest = name.partition(":")
    if source == "torchvision" and rest:
        return torchvision_shape(rest)
    if source == "timm" and rest:
        return timm_shape(rest)
    if not rest:
        raise UnknownNameError(f"unknown model {name!r}; {near(name, MODELS)}, or {_OTHERS}")
    with working_directory():
        shape = getattr(find(name), "input_shape", None)
    if shape is None:
        raise PruneError(
            f"{name!r} does not say what it takes; name the data, "
            f"or set {rest}.input_shape = (channels, height, width)"
        )
    return tuple(shape)
