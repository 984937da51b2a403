"""What is learnt from? Digits, MNIST, CIFAR-10, folders of images, or the user's own loaders."""

from secateurs.data.folder import FolderBatches
from secateurs.data.load import DATA, Batches, Data, from_loaders, load
from secateurs.data.tensors import Augment, Pixels, TensorBatches

__all__ = [
    "DATA",
    "Augment",
    "Batches",
    "Data",
    "FolderBatches",
    "Pixels",
    "TensorBatches",
    "from_loaders",
    "load",
]
