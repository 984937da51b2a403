"""Compile the C files of the package beside themselves, with whatever C compiler there is.

`pip install` runs this; `python compiled.py` does the same by hand. A library's name carries
a checksum of its sources, so one that was compiled from others is never loaded. Nothing here
may import the package: it is not installed yet.
"""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

HERE = Path(__file__).parent
CODER = HERE / "coding" / "coder.c"
KERNELS = HERE / "sparse" / "kernels.c"
SOURCES = {CODER: "the slower coder", KERNELS: "torch's dense kernels"}
"""C file → what is used in its place where it cannot be compiled."""


def library(source: Path) -> Path:
    """Return where a compiled source belongs, whether it is there or not."""
    checksum = 0
    for file in (source, *sorted(source.parent.glob("*.h"))):
        checksum = zlib.crc32(file.read_bytes(), checksum)
    return source.with_name(f"{source.stem}-{checksum:08x}.so")


def build(source: Path) -> Path | None:
    """Return the compiled library, or None where there is no compiler or it fails."""
    target = library(source)
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if target.exists() or compiler is None:
        return target if target.exists() else None
    part = target.with_suffix(f".{os.getpid()}")
    flags = ["-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread"]
    command = [*compiler.split(), *flags, "-o", str(part), str(source)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        os.replace(part, target)
    except (OSError, subprocess.SubprocessError) as error:
        instead = SOURCES.get(source, "something slower")
        print(f"{instead} will be used; {compiler} failed: {error}", file=sys.stderr)
        part.unlink(missing_ok=True)
        return None
    for stale in target.parent.glob(f"{source.stem}-*.so"):
        if stale != target:
            stale.unlink(missing_ok=True)
    return target


if __name__ == "__main__":
    for path, instead in SOURCES.items():
        print(build(path) or f"no C compiler: {instead} will be used")
