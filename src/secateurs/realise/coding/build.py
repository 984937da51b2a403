"""Compile coder.c beside itself, with whatever C compiler there is.

`pip install` runs this; `python build.py` does the same by hand. The library's name carries
a checksum of the source, so one that was compiled from another source is never loaded.
Nothing here may import the package: it is not installed yet.
"""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

SOURCE = Path(__file__).with_name("coder.c")


def library() -> Path:
    """Return where the compiled coder belongs, whether it is there or not."""
    return SOURCE.with_name(f"coder-{zlib.crc32(SOURCE.read_bytes()):08x}.so")


def build() -> Path | None:
    """Return the compiled coder, or None where there is no compiler or it fails."""
    target = library()
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if target.exists() or compiler is None:
        return target if target.exists() else None
    part = target.with_suffix(f".{os.getpid()}")
    command = [
        *compiler.split(),
        "-O3",
        "-std=gnu11",
        "-shared",
        "-fPIC",
        "-o",
        str(part),
        str(SOURCE),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        os.replace(part, target)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"the slower coder will be used; {compiler} failed: {error}", file=sys.stderr)
        part.unlink(missing_ok=True)
        return None
    for stale in target.parent.glob("coder-*.so"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    print(build() or "no C compiler: the slower coder will be used")
