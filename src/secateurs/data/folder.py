"""Images in one folder per class, read from disk while training."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from secateurs.core.errors import FileError
from secateurs.data.tensors import mix

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FolderBatches:
    """Re-iterable (images, labels) batches of image files, shuffled anew on every pass.

    Order and augmentation depend on (seed, epoch, image) only, not on the number of workers.
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, int]],
        transform: Callable[[Any], Tensor],
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        """Read (path, label) samples; `transform` makes a PIL image a tensor."""
        self._files = _Files(samples, transform, seed)
        self.batch_size, self._workers = batch_size, workers
        self._shuffle, self._seed, self._epoch = shuffle, seed, 0

    def __len__(self) -> int:
        """Count the batches of a pass."""
        full, rest = divmod(len(self._files), self.batch_size)
        # Batch norm cannot learn from one image alone, so training leaves a last one out.
        return full + (rest > (1 if self._shuffle and full else 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the next epoch."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self.epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch's."""
        self._epoch = epoch

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, without counting it."""
        generator = torch.Generator().manual_seed(mix(self._seed, epoch))
        n, size = len(self._files), self.batch_size
        order = torch.randperm(n, generator=generator) if self._shuffle else torch.arange(n)
        index = [order[i * size : (i + 1) * size].tolist() for i in range(len(self))]
        files = _Files(self._files.samples, self._files.transform, self._seed, epoch)
        loader = DataLoader(
            files, batch_sampler=index, num_workers=self._workers, generator=generator
        )
        return iter(loader)


class _Files(Dataset[tuple[Tensor, int]]):
    """Images by index, each transformed with random numbers of its own."""

    def __init__(
        self,
        samples: Sequence[tuple[str, int]],
        transform: Callable[[Any], Tensor],
        seed: int,
        epoch: int = 0,
    ) -> None:
        self.samples, self.transform, self._seed, self._epoch = samples, transform, seed, epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        path, label = self.samples[index]
        try:
            image = Image.open(path).convert("RGB")
        except (OSError, SyntaxError) as error:
            raise FileError(f"cannot read the image {path}: {error}; remove it") from None
        with torch.random.fork_rng(devices=()):
            # Not torch.manual_seed, which would seed the accelerators too.
            torch.default_generator.manual_seed(mix(self._seed, self._epoch, index))
            return self.transform(image), label


def image_folder(root: Path) -> tuple[dict[str, list[tuple[str, int]]], tuple[str, ...]]:
    """List the samples of `root/train`, of `val` and `test` where present, and the classes.

    Without `test`, the images of `val` are for testing.

    Raises:
        FileError: a folder is missing or empty, or the splits have other classes.
    """
    from torchvision.datasets import ImageFolder

    splits: dict[str, list[tuple[str, int]]] = {}
    names: list[str] = []
    for split, spellings in {"train": ["train"], "val": ["val", "valid"], "test": ["test"]}.items():
        folder = next((root / s for s in spellings if (root / s).is_dir()), None)
        if folder is None:
            continue
        try:
            found = ImageFolder(str(folder))
        except OSError as error:
            raise FileError(f"cannot use the images in {folder}: {error}") from None
        names = names or found.classes
        if found.classes != names:
            other = ", ".join(sorted(set(found.classes) ^ set(names)))
            raise FileError(f"{folder} and {root / 'train'} have different classes: {other}")
        splits[split] = found.samples
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    if "train" not in splits or "test" not in splits:
        lacking = "train" if "train" not in splits else "test (or val)"
        raise FileError(
            f"no folder {lacking} in {root}; expected {root}/train/<class>/*.jpg and "
            f"{root}/test/<class>/*.jpg"
        )
    return splits, tuple(names)


def transforms(image_size: int, *, augment: bool) -> Callable[[Any], Tensor]:
    """Return the usual way from a PIL image to a normalised (3, image_size, image_size)."""
    from torchvision import transforms as t

    if augment:
        steps = [t.RandomResizedCrop(image_size), t.RandomHorizontalFlip()]
    else:
        steps = [t.Resize(round(image_size * 256 / 224)), t.CenterCrop(image_size)]
    return t.Compose([*steps, t.ToTensor(), t.Normalize(_MEAN, _STD)])  # type: ignore[no-any-return]
