"""Part 7: what `import tensorsched` takes on top of `import torch`, in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tensorsched as ts

CODE = """
import time
start = time.perf_counter()
import numpy, torch
middle = time.perf_counter()
from tensorsched import *  # all of it: what needs torch is imported when it is asked for
print(middle - start, time.perf_counter() - middle)
"""


def part(runs: int) -> dict[str, object]:
    """The best of several, each of the two by itself: what disturbs an import only ever adds to it."""
    source = str(Path(ts.__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": source}
    found = []
    for _ in range(runs + 1):
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=environment
        )
        found.append(tuple(map(float, done.stdout.split())))
    torch_s, ours_s = (min(times) for times in zip(*found[1:], strict=True))  # the first fills the file cache
    return {
        "torch_s": round(torch_s, 4),
        "ours_s": round(ours_s, 4),
        "ratio": round(ours_s / torch_s, 4),
        "runs": runs,
    }


def sentence(record: dict[str, object]) -> str:
    """In words."""
    return (
        f"import tensorsched takes {record['ours_s'] * 1e3:.0f} ms after torch and numpy, "  # type: ignore[operator]
        f"which take {record['torch_s'] * 1e3:.0f} ms: {record['ratio']:.1%} more (best of {record['runs']})"  # type: ignore[operator]
    )
