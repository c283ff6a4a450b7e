"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent


def machine() -> dict[str, object]:
    """The processor, the versions and the commit; `load` is the number of busy processes when the run began."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": _commit(),
        "load": load(),
    }


def load() -> float | None:
    """Load average of the last minute, None where the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def _commit() -> str | None:
    """The short hash, with a + where the working tree differs from it; None outside of a checkout."""
    git = shutil.which("git")
    if git is None:
        return None
    run = [
        subprocess.run([git, "-C", HERE, *command], capture_output=True, text=True, check=False)
        for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    if any(result.returncode for result in run):
        return None
    return run[0].stdout.strip() + ("+" if run[1].stdout.strip() else "")
