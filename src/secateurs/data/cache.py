"""Arrays that took long to decode, kept for the next time."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor


def cache_dir() -> Path:
    """Return the user's cache folder for this package; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "secateurs"


def cached(
    title: str, fingerprint: str, make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return what `make` made, now or when it was last asked with this fingerprint.

    The file appears whole or not at all; a damaged one is made again. A cache that cannot be
    written costs time, not the result: it is warned about.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    key = hashlib.blake2b(fingerprint.encode(), digest_size=8).hexdigest()
    path = cache_dir() / f"{title}-{key}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            save_file(made, temporary)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError) as error:
        warnings.warn(f"could not keep the decoded {title} in {path}: {error}", stacklevel=2)
    return made
