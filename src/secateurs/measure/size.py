"""How many numbers a model holds, how many are not zero, how long a file is."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs.core.errors import FileError


def parameters(model: nn.Module) -> int:
    """Count the model's parameters; a tied one counts once, buffers do not.

    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in model.parameters())


def nonzeros(model: nn.Module) -> int:
    """Count the parameter entries that are not zero as the forward pass sees them.

    A masked parameter counts with its mask applied; a tied one counts once.
    """
    return sum(int(torch.count_nonzero(value)) for _, value in effective(model))


def effective(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (plain name, value the forward pass uses) of each parameter, tied ones once."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        prefix = f"{path}." if path else ""
        for name, value in _values(module, seen):
            yield prefix + name, value


def _values(module: nn.Module, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            yield name, parameter.detach()
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for name, stages in module.parametrizations.items():
            originals = {id(p) for p in stages.parameters()}
            if not originals <= seen:
                seen |= originals
                with torch.no_grad():
                    yield name, getattr(module, name).detach()


def file_bytes(path: str | os.PathLike[str]) -> int:
    """Return the length in bytes of a file, or of all files under a folder.

    Raises:
        FileError: nothing is there.
    """
    where = Path(path)
    if where.is_file():
        return where.stat().st_size
    if where.is_dir():
        return sum(f.stat().st_size for f in where.rglob("*") if f.is_file())
    raise FileError(f"there is no file {str(where)!r} to measure; save the model there first")
