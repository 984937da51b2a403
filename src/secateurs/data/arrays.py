"""The data sets that fit in memory, as arrays of bytes."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateurs.core.errors import FileError
from secateurs.data.cache import cache_dir, cached
from secateurs.data.tensors import Augment, Pixels

_SPLITS = ("train", "test")
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")


@dataclass(frozen=True)
class Arrays:
    """Images (n, channels, h, w), uint8, and labels (n,), int64, of both splits."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    class_names: tuple[str, ...]
    pixels: Pixels
    augment: Augment
    """What varies a training image without changing what it shows."""
    augments: bool = False
    """Whether training usually does vary them."""


def digits(data_dir: Path | None, *, download: bool) -> Arrays:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels in 0..16, a fifth of them for testing.

    They come with scikit-learn. The test images are the same whatever the seed.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]
    return Arrays(
        (images[train], labels[train]),
        (images[test], labels[test]),
        tuple(map(str, range(10))),
        Pixels(scale=16.0),
        Augment(pad=1),
    )


def mnist(data_dir: Path | None, *, download: bool) -> Arrays:
    """Return MNIST, 28 x 28 pixels, from `MNIST/raw` as torchvision keeps it.

    Pixels become 0 to 1, as the LeNets of the papers take them (Caffe divides by 256, we by
    255); networks with batch norm need no other scale.

    Raises:
        FileError: the files are not there.
    """
    from torchvision.datasets import MNIST

    root = _root(data_dir)
    try:
        train, test = (MNIST(str(root), train=t, download=download) for t in (True, False))
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        raise _unusable("mnist", root, "MNIST", error=error) from None
    return Arrays(
        (train.data.unsqueeze(1), train.targets.long()),
        (test.data.unsqueeze(1), test.targets.long()),
        tuple(map(str, range(10))),
        Pixels(),
        Augment(pad=2),
    )


def cifar10(data_dir: Path | None, *, download: bool) -> Arrays:
    """Return CIFAR-10, 32 x 32 pixels, from the first of these in the data folder.

    `cifar10/{train,test}/<class>/*.jpg` or png; `cifar10-jpeg.zip`, which holds the same;
    `cifar-10-batches-py`, torchvision's copy. Images from the first two are decoded once
    and kept in the user's cache folder.

    Raises:
        FileError: none of them is there, or one is damaged.
    """
    root = _root(data_dir)
    folder, archive = root / "cifar10", root / "cifar10-jpeg.zip"
    if folder.is_dir():
        tensors, names = _decoded(_files(folder), folder)
    elif archive.is_file():
        tensors, names = _decoded(_members(archive), archive)
    else:
        tensors, names = _torchvision_cifar10(root, download)
    return Arrays(
        (tensors["train_images"], tensors["train_labels"]),
        (tensors["test_images"], tensors["test_labels"]),
        names,
        Pixels(255.0, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        Augment(pad=4, flip=True),
        augments=True,
    )


ARRAYS: dict[str, Callable[..., Arrays]] = {"digits": digits, "mnist": mnist, "cifar10": cifar10}


@dataclass(frozen=True)
class _Picture:
    """One image file: its split and class, a fingerprint, and how to read it."""

    split: str
    label: str
    mark: str
    read: Callable[[], bytes]


def _files(folder: Path) -> list[_Picture]:
    pictures = []
    for split in _SPLITS:
        for path in sorted(folder.glob(f"{split}/*/*")):
            if path.suffix.lower() in _IMAGES:
                about = path.stat()
                mark = f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}"
                pictures.append(_Picture(split, path.parent.name, mark, path.read_bytes))
    return pictures


def _members(archive: Path) -> list[_Picture]:
    try:
        content = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise FileError(f"{archive} is not a readable zip archive ({error}); get it anew") from None
    pictures = []
    for name in sorted(content.namelist()):
        parts = name.split("/")
        if len(parts) == 4 and parts[1] in _SPLITS and name.lower().endswith(_IMAGES):
            mark = f"{name} {content.getinfo(name).CRC}"
            read = partial(content.read, name)
            pictures.append(_Picture(parts[1], parts[2], mark, read))
    return pictures


def _decoded(pictures: list[_Picture], source: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    names = tuple(sorted({picture.label for picture in pictures}))
    if {picture.split for picture in pictures} != set(_SPLITS):
        raise FileError(
            f"{source} lacks images in train/<class>/ or test/<class>/; "
            f"unpack CIFAR-10 there, or point --data-dir elsewhere"
        )

    def make() -> dict[str, Tensor]:
        tensors = {}
        for split in _SPLITS:
            own = [picture for picture in pictures if picture.split == split]
            tensors[f"{split}_images"] = _pixels(own, source)
            labels = [names.index(picture.label) for picture in own]
            tensors[f"{split}_labels"] = torch.tensor(labels)
        return tensors

    fingerprint = "\n".join(picture.mark for picture in pictures)
    return cached("cifar10", fingerprint, make), names


def _pixels(pictures: Iterable[_Picture], source: Path) -> Tensor:
    """Decode images of 32 x 32 pixels: → (n, 3, 32, 32), uint8."""
    import numpy as np
    from PIL import Image

    arrays = []
    for picture in pictures:
        where = picture.mark.split(" ")[0]
        try:
            array = np.asarray(Image.open(io.BytesIO(picture.read())).convert("RGB"))
        except (OSError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
            raise FileError(f"cannot read {where} of {source}: {error}; get it anew") from None
        if array.shape != (32, 32, 3):
            raise FileError(
                f"{where} of {source} has {array.shape[1]} x {array.shape[0]} pixels, CIFAR-10 has "
                f"32 x 32; for other images use folder:{source}"
            )
        arrays.append(array)
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _torchvision_cifar10(root: Path, download: bool) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    from torchvision.datasets import CIFAR10

    tensors, names = {}, ()
    for split in _SPLITS:
        try:
            part: Any = CIFAR10(str(root), train=split == "train", download=download)
        except (RuntimeError, OSError) as error:
            wanted = ("cifar-10-batches-py", "cifar10", "cifar10-jpeg.zip")
            raise _unusable("cifar10", root, *wanted, error=error) from None
        tensors[f"{split}_images"] = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        tensors[f"{split}_labels"] = torch.tensor(part.targets)
        names = tuple(part.classes)
    return tensors, names


def _root(data_dir: Path | None) -> Path:
    """Choose the data folder: the one asked for, SECATEURS_DATA, or one in the user's cache."""
    if data_dir is not None:
        return data_dir
    named = os.environ.get("SECATEURS_DATA")
    return Path(named) if named else cache_dir() / "data"


def _unusable(name: str, root: Path, *wanted: str, error: Exception) -> FileError:
    """Tell files that are not there from files that cannot be read."""
    if (root / wanted[0]).is_dir():
        return FileError(f"{root / wanted[0]} is damaged or incomplete ({error}); get it anew")
    found = f"which has no {' or '.join(wanted)}" if root.is_dir() else "which does not exist"
    return FileError(
        f"cannot find {name} in {root}, {found}; name the folder that holds it with --data-dir "
        f"or SECATEURS_DATA, or download it there once in Python with "
        f"secateurs.data.load({name!r}, data_dir={str(root)!r}, download=True) "
        f"[{' '.join(str(error).split())}]"
    )
