"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from secateurs.core.errors import FileError


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that a reader meets the old or the new one, never half of it.

    A full disk or a killed process leaves what was there before. The folder must exist.

    Raises:
        FileError: the file cannot be written.
    """
    target = Path(path)
    part: str | None = None
    try:
        handle, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, target)
    except OSError as error:
        raise FileError(
            f"cannot write {str(target)!r}: {error.strerror}; "
            f"free some space or choose another folder"
        ) from error
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
