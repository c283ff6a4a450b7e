"""Compile simcuda.cpp against the torch that is installed, which must not have been imported yet."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
SOURCE = HERE / "simcuda.cpp"


def simcuda() -> ModuleType:
    """The extension, built where it is not there yet or is older than its source."""
    at = Path(next(iter(importlib.util.find_spec("torch").submodule_search_locations)))
    made = HERE.parents[1] / "build" / f"simulated_gpu-{version('torch')}" / "simcuda.so"
    if not made.exists() or made.stat().st_mtime < SOURCE.stat().st_mtime:
        made.parent.mkdir(parents=True, exist_ok=True)
        mine = made.with_suffix(f".{os.getpid()}")
        includes = [at / "include", at / "include/torch/csrc/api/include", sysconfig.get_paths()["include"]]
        libraries = [
            "-lc10",
            "-ltorch_cpu",
            "-ltorch",
            "-ltorch_python",
            f"-L{at}/lib",
            f"-Wl,-rpath,{at}/lib",
        ]
        command = [
            "g++",
            "-std=c++20",
            "-O1",
            "-shared",
            "-fPIC",
            *(f"-I{i}" for i in includes),
            SOURCE,
            "-o",
            mine,
        ]
        subprocess.run([*command, *libraries], check=True)
        mine.rename(made)  # several workers may be at it
    loader = importlib.machinery.ExtensionFileLoader("simcuda", str(made))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("simcuda", loader))
    loader.exec_module(module)
    sys.modules["simcuda"] = module
    return module
