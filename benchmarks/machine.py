"""What the machine is, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.clock import race

PACKAGES = ("brewlens", "torch", "transformers", "transformer-lens", "nnsight", "scikit-learn", "numpy")


def facts(device: str) -> dict[str, object]:
    """Of this machine and what is installed on it, for the record."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": cores(),
        "accelerator": None if device == "cpu" else torch.cuda.get_device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def processor() -> str:
    """Name of the processor as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed(name: str) -> str | None:
    """Version of a distribution, or None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def gemm_peak(sides: tuple[int, ...], dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations per second of the fastest square matrix product, of as many threads as torch now has."""
    best = 0.0
    for side in sides:
        a = torch.randn(side, side, device=device).to(dtype)
        out = torch.empty_like(a)
        torch.mm(a, a, out=out)
        timed = race({"gemm": lambda a=a, out=out: torch.mm(a, a, out=out)}, 5, device)["gemm"]
        best = max(best, 2 * side**3 / timed.best)
    return best
