"""Every network we define, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from secateurs.models.alexnet import AlexNetCaffe, AlexNetCIFAR, AlexNetQuick
from secateurs.models.digits import DigitsCNN, TinyViT
from secateurs.models.lenet import LeNet5, LeNet300
from secateurs.models.mobile import MobileCIFAR
from secateurs.models.resnet import resnet
from secateurs.models.vgg import vgg16_bn_cifar, vgg16_cifar, vgg19_bn_cifar


@dataclass(frozen=True)
class Reference:
    """How to build one network and what it takes."""

    factory: Callable[..., nn.Module]
    """Takes `classes` and `in_channels`, both optional."""
    input_shape: tuple[int, int, int]
    """(channels, height, width) of one image."""
    about: str
    """One line for a list of models."""


_DIGIT, _GREY, _COLOUR = (1, 8, 8), (1, 28, 28), (3, 32, 32)

MODELS = {
    "digits_cnn": Reference(DigitsCNN, _DIGIT, "small residual CNN for the digits"),
    "tiny_vit": Reference(TinyViT, _DIGIT, "small vision transformer for the digits"),
    "lenet300": Reference(LeNet300, _GREY, "LeNet-300-100"),
    "lenet5": Reference(LeNet5, _GREY, "LeNet-5 of Caffe"),
    "resnet20": Reference(resnet(20), _COLOUR, "ResNet-20, option-A shortcuts"),
    "resnet32": Reference(resnet(32), _COLOUR, "ResNet-32, option-A shortcuts"),
    "resnet44": Reference(resnet(44), _COLOUR, "ResNet-44, option-A shortcuts"),
    "resnet56": Reference(resnet(56), _COLOUR, "ResNet-56, option-A shortcuts"),
    "resnet110": Reference(resnet(110), _COLOUR, "ResNet-110, option-A shortcuts"),
    "vgg16_cifar": Reference(vgg16_cifar, _COLOUR, "VGG-16 without batch norm"),
    "vgg16_bn_cifar": Reference(vgg16_bn_cifar, _COLOUR, "VGG-16 with batch norm"),
    "vgg19_bn_cifar": Reference(vgg19_bn_cifar, _COLOUR, "VGG-19 with batch norm"),
    "alexnet_cifar": Reference(AlexNetCIFAR, _COLOUR, "AlexNet for 32 x 32 images"),
    "alexnet_quick": Reference(AlexNetQuick, _COLOUR, "small AlexNet for 32 x 32 images"),
    "alexnet_caffe": Reference(AlexNetCaffe, (3, 227, 227), "AlexNet as the papers count it"),
    "mobile_cifar": Reference(MobileCIFAR, _COLOUR, "small MobileNetV2"),
}
