"""Batches of images that lie in memory: whole-batch indexing, reproducible order."""

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """How training images are varied: padded, cropped back, and perhaps mirrored."""

    pad: int = 0
    """Pixels of padding on each side; the crop's place is drawn for each image."""
    flip: bool = False
    """Whether half of the images are mirrored left to right."""


@dataclass(frozen=True)
class Pixels:
    """How stored bytes become the numbers a network sees: (x / scale - mean) / std."""

    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class TensorBatches:
    """Re-iterable (images, labels) batches of two tensors, shuffled anew on every pass.

    What a pass yields depends on (seed, epoch) and nothing else: not on earlier passes, not
    on torch's global generator. `set_epoch` says which epoch the next pass is; without it,
    passes count up from 0.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        pixels: Pixels = Pixels(),
        shuffle: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        """Hold uint8 or float images (n, channels, h, w) and labels (n,), on any device."""
        assert len(images) == len(labels)
        self.images, self.labels = images, labels
        self.batch_size = batch_size
        self._pixels, self._augment = pixels, augment
        self._shuffle, self._seed, self._epoch = shuffle, seed, 0

    def __len__(self) -> int:
        """Count the batches of a pass."""
        full, rest = divmod(len(self.labels), self.batch_size)
        # Batch norm cannot learn from one image alone, so training leaves a last one out.
        return full + (rest > (1 if self._shuffle and full else 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the next epoch."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self.epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch's."""
        self._epoch = epoch

    def reseeded(self, seed: int) -> "TensorBatches":
        """Return the same images in the order, and varied as, another seed says."""
        other = copy.copy(self)
        other._seed, other._epoch = seed, 0
        return other

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, without counting it."""
        generator = torch.Generator().manual_seed(mix(self._seed, epoch))
        n, device = len(self.labels), self.images.device
        order = torch.randperm(n, generator=generator) if self._shuffle else torch.arange(n)
        vary = self._vary(n, generator)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            index = order[start : start + self.batch_size].to(device)
            images = self.images[index]
            if vary is not None and self._augment is not None:
                draws = vary[start : start + self.batch_size].to(device)
                images = shift(images, draws, pad=self._augment.pad)
            yield self._scaled(images), self.labels[index]

    def _vary(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Draw (down, right, mirrored) for every image of an epoch at once."""
        if self._augment is None:
            return None
        places = torch.randint(2 * self._augment.pad + 1, (n, 2), generator=generator)
        mirrored = torch.randint(2, (n, 1), generator=generator) * int(self._augment.flip)
        return torch.cat([places, mirrored], dim=1)

    def _scaled(self, images: Tensor) -> Tensor:
        pixels = self._pixels
        images = images.float().div_(pixels.scale)
        if any(pixels.mean) or set(pixels.std) != {1.0}:
            shape = (1, -1, 1, 1)
            images.sub_(torch.tensor(pixels.mean, device=images.device).view(shape))
            images.div_(torch.tensor(pixels.std, device=images.device).view(shape))
        return images


def shift(images: Tensor, draws: Tensor, *, pad: int) -> Tensor:
    """Pad with zeros, crop each image at its own place, mirror some: → the same shape.

    Args:
        images: (n, channels, h, w).
        draws: (n, 3), down and right in 0..2·pad, and 1 where the image is mirrored.
    """
    n, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    rows = draws[:, 0:1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = draws[:, 1:2] + torch.where(draws[:, 2:3] == 1, width - 1 - columns, columns)
    image = torch.arange(n, device=images.device).view(n, 1, 1)
    # Shape: indexing around the channels puts them last, (n, h, w, channels).
    cropped = padded[image, :, rows.unsqueeze(2), columns.unsqueeze(1)]
    return cropped.permute(0, 3, 1, 2).contiguous()


def mix(*numbers: int) -> int:
    """Make one 32-bit seed of several numbers; torch's CPU generator reads no more bits.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")
