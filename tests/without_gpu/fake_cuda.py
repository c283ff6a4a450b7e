"""Fake CUDA tensors that can be stepped and traced on a machine without CUDA: shapes and devices, no numbers.

with fake_cuda() as reads:
    ...                 # parameters on device="cuda"; steps, compiled steps with a backend that looks at the graph
    reads.clear()
    step()
    assert not reads    # what was read on the host in between, by operation
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

READ = torch.ops.aten._local_scalar_dense.default
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
using namespace c10::impl;
static DeviceGuardImplRegistrar registered(c10::DeviceType::CUDA, new NoOpDeviceGuardImpl<c10::DeviceType::CUDA>());
"""
BUILD = Path(__file__).parents[2] / "build" / "without_gpu"


def device_guard() -> None:
    """Give a CPU build of torch a CUDA device guard that does nothing: its Python bindings (copy_, indexing) ask for one."""
    if torch.cuda._is_compiled():
        return
    made = BUILD / f"guard-{torch.__version__}.so"
    if not made.exists():
        compiler = shutil.which("g++") or pytest.skip(
            "a CPU build of torch needs g++ for a CUDA device guard"
        )
        BUILD.mkdir(parents=True, exist_ok=True)
        (source := BUILD / "guard.cpp").write_text(GUARD)
        at, mine = Path(torch.__file__).parent, made.with_suffix(f".{os.getpid()}")
        flags = ["-std=c++20", "-shared", "-fPIC", f"-I{at}/include", f"-L{at}/lib", "-lc10"]
        subprocess.run([compiler, source, "-o", mine, *flags], check=True)
        mine.rename(made)  # several workers may be at it
    ctypes.CDLL(str(made))


class HostReads(TorchDispatchMode):
    """Around eager code: counts what makes the host wait for the device, reads and copies to it. `seen` has the names."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        kwargs = kwargs or {}
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        to = (
            args[0].device
            if func is torch.ops.aten.copy_.default
            else torch.device(kwargs.get("device") or "cuda")
        )
        if tensors and tensors[-1].device.type == "cuda" and (func is READ or to.type == "cpu"):
            self.seen.append(str(func))
        return func(*args, **kwargs)


@contextlib.contextmanager
def fake_cuda() -> Iterator[list[str]]:
    """Fake tensors on a device "cuda"; yields the list of reads on the host, which eager code gets made-up answers to.

    A read while torch traces is left to torch: it becomes a node of the graph.
    """
    device_guard()
    reads: list[str] = []
    implementations = fake_impls.op_implementations_dict
    traced = implementations[READ]

    def read(mode: Any, func: Any, tensor: Any) -> Any:
        if torch._guards.TracingContext.try_get() is not None:
            return traced(mode, func, tensor)
        if tensor.fake_device.type != "cpu":
            reads.append(str(func))
        return {torch.bool: True, torch.int64: 1}.get(tensor.dtype, 0.9)

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        mock.patch.dict(implementations, {READ: read}),
        mock.patch("torch.cuda._lazy_init"),
        mock.patch("torch.cuda.mem_get_info", return_value=(1 << 36, 1 << 36)),
    ):
        yield reads
