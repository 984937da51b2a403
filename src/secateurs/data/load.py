"""A data set from its name, or from loaders of the user's own."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.example import Example, map_tensors
from secateurs.core.near import near
from secateurs.data.arrays import ARRAYS, Arrays
from secateurs.data.folder import FolderBatches, image_folder, transforms
from secateurs.data.tensors import TensorBatches, mix

DATA = {
    "digits": "scikit-learn's 8 x 8 digits, embedded",
    "mnist": "MNIST, from the data folder",
    "cifar10": "CIFAR-10, from the data folder",
    "folder:PATH": "images in PATH/{train,test}/<class>/",
}
"""What `load` takes, and what it is."""


class Batches(Protocol):
    """Batches that can be iterated over again and again, and counted."""

    def __iter__(self) -> Iterator[Any]:
        """Yield (input, labels) pairs."""

    def __len__(self) -> int:
        """Count the batches of a pass."""


@dataclass(frozen=True)
class Data:
    """Batches to learn from, to watch while learning, and to report on once."""

    name: str
    train: Batches
    valid: Batches | None
    """Held out from the training data; None when nothing is."""
    test: Batches | None
    example: Example
    """One input, (1, ...): what a model is called with."""
    classes: int | None = None
    class_names: tuple[str, ...] = ()

    def batches(self, n: int) -> list[Any]:
        """Return the first n training batches of epoch 0, the same ones each time.

        For evidence, calibration and recalibration; fewer when a pass has fewer.
        """
        ours = isinstance(self.train, TensorBatches | FolderBatches)
        return list(islice(self.train.epoch(0) if ours else self.train, n))  # type: ignore[attr-defined]


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 128,
    valid_fraction: float = 0.1,
    seed: int = 0,
    augment: bool | None = None,
    image_size: int = 224,
    workers: int = 0,
    download: bool = False,
    device: torch.device | str | None = None,
) -> Data:
    """Return a data set by name, split into training, validation and test batches.

    >>> data = load("digits")
    >>> len(data.train), data.example.shape, data.classes
    (11, torch.Size([1, 1, 8, 8]), 10)

    Args:
        name: a key of `DATA`; `folder:PATH` reads image files while training.
        data_dir: where mnist and cifar10 lie; else SECATEURS_DATA, else the user's cache.
        batch_size: images per batch.
        valid_fraction: share of the training images that is held out, drawn with `seed`; a
            folder with both `val` and `test` brings its own. The test images are never used.
        seed: of the split, the order and the augmentation.
        augment: whether training images are cropped and mirrored; by default those of
            cifar10 and folders are.
        image_size: side of the square that images of a folder become.
        workers: processes that read image files.
        download: get mnist or cifar10 from torchvision's source when absent.
        device: where the images of digits, mnist and cifar10 lie, which saves copying them
            to an accelerator batch by batch.

    Raises:
        UnknownNameError: there is no data set of that name; near matches are listed.
        FileError: its files are missing or damaged; says where it looked.
        PruneError: a batch size or fraction that cannot be.
    """
    if batch_size < 1:
        raise PruneError(f"batch size {batch_size} is too small; use 1 or more")
    if not 0 <= valid_fraction < 1:
        raise PruneError(f"cannot hold out {valid_fraction} of the images; use 0 up to 1")
    kind, _, path = name.partition(":")
    if kind == "folder" and path:
        return _folder(
            Path(path), batch_size, valid_fraction, seed, augment is not False, image_size, workers
        )
    if name not in ARRAYS:
        raise UnknownNameError(f"unknown data {name!r}; {near(name, DATA)}")
    root = Path(data_dir) if data_dir is not None else None
    arrays = ARRAYS[name](root, download=download)
    vary = arrays.augments if augment is None else augment
    return _in_memory(name, arrays, batch_size, valid_fraction, seed, vary, device)


def from_loaders(
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    test: Iterable[Any] | None = None,
    *,
    name: str = "own",
    classes: int | None = None,
    example: Example | None = None,
) -> Data:
    """Wrap loaders of the user's own, whose batches are (input, labels) pairs.

    The example is the first input of the first training batch unless given; the class
    names are those of `train.dataset`, where it has any.

    Raises:
        PruneError: a loader can be read only once, is empty, or its batches are no pairs.
    """
    for split, loader in {"train": train, "valid": valid, "test": test}.items():
        if loader is not None and (iter(loader) is loader or not hasattr(loader, "__len__")):
            raise PruneError(
                f"the {split} batches are a {type(loader).__name__}, which cannot be read again "
                f"and counted; pass a DataLoader or a list of (input, labels) batches"
            )
    names = tuple(getattr(getattr(train, "dataset", None), "classes", ()))
    if example is None:
        example = _first_input(train)
    if classes is None:
        classes = len(names) or None
    return Data(name, train, valid, test, example, classes, names)  # type: ignore[arg-type]


def _first_input(train: Iterable[Any]) -> Example:
    for batch in train:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise PruneError(
                f"a training batch is a {type(batch).__name__}, not a pair (input, labels); "
                f"wrap the loader so that it gives pairs"
            )
        return map_tensors(lambda t: t[:1], batch[0])  # type: ignore[no-any-return]
    raise PruneError("the training loader gives no batches")


def _in_memory(
    name: str,
    arrays: Arrays,
    batch_size: int,
    valid_fraction: float,
    seed: int,
    augment: bool,
    device: torch.device | str | None,
) -> Data:
    images, labels = (t.to(device) for t in arrays.train)
    test_images, test_labels = (t.to(device) for t in arrays.test)
    held, rest = (index.to(images.device) for index in _split(len(labels), valid_fraction, seed))

    def watch(x: Tensor, y: Tensor) -> TensorBatches:
        return TensorBatches(x, y, batch_size=batch_size, pixels=arrays.pixels)

    train = TensorBatches(
        images[rest],
        labels[rest],
        batch_size=batch_size,
        pixels=arrays.pixels,
        shuffle=True,
        augment=arrays.augment if augment else None,
        seed=seed,
    )
    test = watch(test_images, test_labels)
    valid = watch(images[held], labels[held]) if len(held) else None
    example = next(iter(test))[0][:1]
    names = arrays.class_names
    return Data(name, train, valid, test, example, len(names), names)


def _folder(
    root: Path,
    batch_size: int,
    valid_fraction: float,
    seed: int,
    augment: bool,
    image_size: int,
    workers: int,
) -> Data:
    splits, names = image_folder(root)
    plain = transforms(image_size, augment=False)

    def watch(samples: list[tuple[str, int]]) -> FolderBatches:
        return FolderBatches(samples, plain, batch_size=batch_size, workers=workers)

    held, kept = splits.get("val", []), splits["train"]
    if "val" not in splits:
        first, rest = _split(len(kept), valid_fraction, seed)
        held, kept = [kept[i] for i in first.tolist()], [kept[i] for i in rest.tolist()]
    train = FolderBatches(
        kept,
        transforms(image_size, augment=True) if augment else plain,
        batch_size=batch_size,
        shuffle=True,
        seed=seed,
        workers=workers,
    )
    test = watch(splits["test"])
    example = next(iter(FolderBatches(splits["test"][:1], plain, batch_size=1)))[0]
    name = f"folder:{root}"
    return Data(name, train, watch(held) if held else None, test, example, len(names), names)


def _split(n: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw round(n · fraction) indices to hold out: → (held out, rest), both ascending."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(mix(seed)))
    count = round(n * fraction)
    return order[:count].sort().values, order[count:].sort().values
