"""What was timed on this machine before, so that the same layer is not timed twice."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch

from secateurs.core.errors import FileError
from secateurs.measure.environment import environment
from secateurs.measure.report import write_whole
from secateurs.realise.compiled import KERNELS, library
from secateurs.realise.sparse.choice import Choice, Chosen

MOST = 20_000
"""Timings a file may hold; the oldest are dropped."""


def default_path() -> Path:
    """Return where timings are kept: in SECATEURS_CACHE, or in the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SECATEURS_CACHE") or home / "secateurs") / "timings.json"


def machine() -> str:
    """Name what timings depend on besides the layer: processor, kernels, torch."""
    facts = environment()
    return (
        f"{facts['cpu']} | {facts['cores']} cores | {library(KERNELS).stem} | {torch.__version__}"
    )


@contextmanager
def timings(path: Path | None) -> Iterator[dict[str, Chosen]]:
    """Yield what was timed on this machine, layer → choice; what is added is kept.

    A file that cannot be read counts as empty, one that cannot be written is not: timings
    are a convenience.
    """
    everything = _read(path)
    here = machine()
    known = {k.removeprefix(here): c for k, c in everything.items() if k.startswith(here)}
    before = len(known)
    yield known
    if path is not None and len(known) > before:
        everything.update({here + key: chosen for key, chosen in known.items()})
        kept = list(everything.items())[-MOST:]
        with suppress(FileError):
            write_whole(path, json.dumps({key: asdict(chosen) for key, chosen in kept}))


def _read(path: Path | None) -> dict[str, Chosen]:
    if path is None:
        return {}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {k: Chosen(**{**v, "choice": Choice(**v["choice"])}) for k, v in held.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
