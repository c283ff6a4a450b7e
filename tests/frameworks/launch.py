"""One of two processes that train together over gloo: python -m tests.frameworks.launch MODULE FOLDER NAME...

Each name is an entry of the module's RUNS. What came of it is left in FOLDER, for the test that started us to judge.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from pathlib import Path

import torch

# torchvision's wheels on PyPI are built for CUDA: on a CPU build of torch its library does not load, and its import then
# fails because two operators have no declaration. Nobody calls them here.
_DECLARED = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _DECLARED.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main(module: str, folder: Path, names: list[str]) -> None:
    """Compare and resume each run, and report."""
    torch.set_num_threads(1)
    warnings.filterwarnings("error", module="tensorsched")
    beside = importlib.import_module("tests.frameworks.beside")
    runs, results = importlib.import_module(module).RUNS, {}
    for name in names:
        try:
            whole = beside.compare(runs[name], folder / name)
            beside.resume(runs[name], folder / name, whole)
            results[name] = ""
        except Exception:  # noqa: BLE001  the test's to judge
            results[name] = traceback.format_exc()
    torch.save(results, folder / f"rank{os.environ['RANK']}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
