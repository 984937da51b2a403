"""Where something was measured."""

import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch


def environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """Return what a reader needs to judge a measurement: versions, machine, threads, date."""
    device = torch.device(device)
    facts = {
        "secateurs": _version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": str(os.cpu_count() or "unknown"),
        "threads": str(torch.get_num_threads()),
        "load": _load(),
        "device": str(device),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if device.type == "cuda":
        facts["device"] = f"{device} ({torch.cuda.get_device_name(device)})"
    return facts


def _version() -> str:
    try:
        return metadata.version("secateurs")
    except metadata.PackageNotFoundError:
        return "not installed"


def _load() -> str:
    """Return how many processes wanted a core over the last minute; many spoil timings."""
    if not hasattr(os, "getloadavg"):  # Windows does not say
        return "unknown"
    return f"{os.getloadavg()[0]:.1f} over the last minute"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
