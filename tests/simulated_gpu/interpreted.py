"""The Triton kernels of a generated module, run in Triton's interpreter on the simulated device's bytes.

Imported by device.py, after simcuda: `run_module` executes what inductor generated, with `Kernel` in the place of
its launcher.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.runtime import triton_heuristics

simcuda = sys.modules["simcuda"]
FOLDER = Path(tempfile.mkdtemp())
launched: list[str] = []  # the kernels, since somebody cleared it
DECORATORS = ("pointwise", "foreach", "reduction", "persistent_reduction", "fixed_config")


class Libdevice:
    """NVIDIA's device library, by numpy: the interpreter has no extern calls."""

    def __getattr__(self, name: str) -> Any:
        import triton.language as tl
        from triton.runtime.interpreter import TensorHandle

        function = {
            "pow": np.power,
            "mul_rn": np.multiply,
            "div_rn": np.divide,
            "sqrt_rn": np.sqrt,
            "fma": lambda a, b, c: np.float64(a) * b + c,
            "nextafter": np.nextafter,
            "rsqrt": lambda x: 1 / np.sqrt(x),
        }.get(name) or getattr(np, name)

        def call(*args: Any) -> Any:
            first = next(a for a in args if isinstance(a, tl.tensor))
            data = [a.handle.data if isinstance(a, tl.tensor) else a for a in args]
            with np.errstate(all="ignore"):
                out = np.asarray(function(*np.broadcast_arrays(*data))).astype(first.handle.data.dtype)
            shape = list(out.shape)
            kind = tl.block_type(first.dtype, shape) if shape else first.dtype
            return tl.tensor(TensorHandle(out, first.dtype.scalar), kind)

        return call


class Kernel:
    """What `async_compile.triton` gives: the generated kernel under Triton's interpreter."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        source = source.replace("triton_helpers.set_driver_to_gpu()", "")
        found: dict[str, Any] = {}

        def keep(*_: Any, **meta: Any) -> Any:
            found.update(meta)
            return lambda fn: fn

        (path := FOLDER / f"{abs(hash(source))}.py").write_text(source)  # Triton reads the source again
        space: dict[str, Any] = {"__file__": str(path), "__name__": name}
        with mock.patch.multiple(triton_heuristics, **dict.fromkeys(DECORATORS, keep)):
            exec(compile(source, path, "exec"), space)
        space["libdevice"] = Libdevice()
        self.fn, self.meta = space[name], found

    def run(self, *args: Any, stream: Any = None, **_: Any) -> None:
        def launch() -> None:
            with np.errstate(all="ignore"), torch.no_grad():
                self._launch(args)

        launched.append(self.name)
        if simcuda.capturing():
            simcuda.record(launch)
        else:
            launch()

    def _launch(self, args: Any) -> None:
        inductor = self.meta["inductor_meta"]
        names = list(self.meta["triton_meta"]["signature"])
        given = [n for n in names if not n.endswith("BLOCK")]
        combo = inductor.get("combo_grid_meta")
        if combo is None:
            sizes = {"XBLOCK": 1024 if "YBLOCK" not in names else 32, "YBLOCK": 32, "R0_BLOCK": 1024}
            if "R0_BLOCK" in names or "r0_numel" in names:
                sizes["XBLOCK"] = 1
            block = {n: sizes[n] for n in names if n in sizes}
            elements = {a: int(args[given.index(f"{a}numel")]) if f"{a}numel" in given else 1 for a in "xy"}
            grid = (*(-(-count // sizes[f"{a.upper()}BLOCK"]) for a, count in elements.items()), 1)
        else:
            block = {}
            size = combo["default_config"]["XBLOCK"]
            grid = (sum(-(-combo[f"xnumel_{i}"] // size) for i in range(combo["num_kernels"])), 1, 1)
        host = [as_host(a) for a in args]
        self.fn[grid](*host, **block)


def as_host(x: Any) -> Any:
    """The same bytes as a CPU tensor, for the interpreter."""
    return simcuda.host(x) if isinstance(x, torch.Tensor) and x.is_cuda else x


def run_module(code: str, path: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__file__": path, "__name__": "generated"}
    code = code.replace(
        "torch._C._dynamo.guards._empty_strided_cuda",
        "(lambda size, stride, dtype: torch.empty_strided(size, stride, dtype=dtype, device='cuda'))",
    )
    code = re.sub(r"async_compile = AsyncCompile\(\)", "async_compile = SimCompile()", code)

    class SimCompile(AsyncCompile):  # C++ kernels are compiled for real
        def triton(self, name: str, source: str, device_str: Any = None) -> Any:
            return Kernel(name, source)

    space["SimCompile"] = SimCompile
    exec(compile(code, path, "exec"), space)
    return space
