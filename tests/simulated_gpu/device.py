"""A simulated CUDA device for torch: `install()` makes "cuda" the host's memory. Must be imported before torch.

simcuda.cpp is the device: memory, operations, capture, replay, counted synchronisations. This module is what torch asks
of Python beside that, in three parts:

    torch.cuda           device queries, streams, CUDAGraph and graph, over simcuda
    inductor             generates its Triton code for an H100, as for a real one; mode="reduce-overhead" makes its CUDA
                         graph by the same capture
    generated kernels    run in Triton's interpreter on the same bytes (interpreted.py)
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from tests.simulated_gpu.build import simcuda as _built

simcuda = _built()  # before torch: its hooks must be there when torch asks for them first

import contextlib
import gc
import time
import types
import warnings
from typing import Any

import torch

from tests.simulated_gpu import interpreted

MODES = {"default": 0, "warn": 1, "error": 2, 0: 0, 1: 1, 2: 2}
PROPS = types.SimpleNamespace(
    name="Simulated H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=80 << 30,
    warp_size=32,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 << 20,
    gcnArchName="",
)
cuda_graphs: list[tuple[Any, ...]] = []  # what mode="reduce-overhead" would make a CUDA graph each


def set_sync_debug_mode(mode: Any, said: list[int] | None = None) -> None:
    if said is None:
        said = []
    if not said:  # csrc/cuda/Module.cpp: once
        said.append(1)
        warnings.warn(
            "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations",
            stacklevel=2,
        )
    simcuda.set_sync_mode(MODES[mode])


class CUDAGraph:
    def __init__(self, keep_graph: bool = False) -> None:
        self.tape = None

    def replay(self) -> None:
        simcuda.replay(self.tape)

    def reset(self) -> None:
        self.tape = None


class graph(contextlib.AbstractContextManager):
    def __init__(self, cuda_graph: CUDAGraph, **_: Any) -> None:
        self.graph = cuda_graph

    def __enter__(self) -> None:
        gc.collect()
        simcuda.capture_begin()

    def __exit__(self, *error: object) -> None:
        self.graph.tape = simcuda.capture_end()
        if not simcuda.length(self.graph.tape):  # CUDAGraph.cpp, capture_end
            warnings.warn(
                "The CUDA Graph is empty. This usually means that the graph was attempted to be captured on wrong device or stream.",
                stacklevel=2,
            )


class Stream:
    def __init__(self, *a: Any, **k: Any) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    cuda_stream = 0


class Event:
    """Times of the host, which is the device."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: Any) -> float:
        return (end.at - self.at) * 1e3


CUDA: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "_lazy_init": lambda: None,
    "is_initialized": lambda: True,
    "get_device_properties": lambda d=None: PROPS,
    "get_device_capability": lambda d=None: (9, 0),
    "get_device_name": lambda d=None: PROPS.name,
    "mem_get_info": lambda d=None: (79 << 30, 80 << 30),
    "synchronize": lambda d=None: None,
    "is_current_stream_capturing": simcuda.capturing,
    "is_bf16_supported": lambda *a, **k: True,
    "_exchange_device": lambda i: 0,
    "_maybe_exchange_device": lambda i: 0,
    "memory_allocated": lambda d=None: 0,
    "memory_reserved": lambda d=None: 0,
    "set_device": lambda d: None,
    "_is_in_bad_fork": lambda: False,
    "get_rng_state": lambda d=None: torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": lambda s, d=None: None,
    "set_sync_debug_mode": set_sync_debug_mode,
    "Event": Event,
    "Stream": Stream,
    "stream": lambda s: contextlib.nullcontext(),
    "current_stream": lambda d=None: Stream(),
    "CUDAGraph": CUDAGraph,
    "graph": graph,
    "empty_cache": lambda: None,
    "manual_seed_all": lambda s: None,
    "manual_seed": lambda s: None,
}


def _storage(data: bytes) -> Any:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to("cuda").untyped_storage()


def _install_torch() -> None:
    for name, value in CUDA.items():
        setattr(torch.cuda, name, value)
    torch.version.cuda = "13.0"
    plain = torch.UntypedStorage.clone

    def clone(storage: Any) -> Any:  # the constructor of a CPU build knows no such device
        if storage.device.type != "cuda":
            return plain(storage)
        view = torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage)
        return view.clone().untyped_storage()

    torch.UntypedStorage.clone = clone
    plain_to = torch.UntypedStorage.__reduce__

    def reduce(storage: Any) -> Any:  # copies and pickles of storages: by way of tensors
        if storage.device.type != "cuda":
            return plain_to(storage)
        whole = torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage)
        return _storage, (whole.cpu().numpy().tobytes(),)

    torch.UntypedStorage.__reduce__ = reduce
    torch.cuda._DeviceGuard = lambda i: contextlib.nullcontext()
    for name, value in {
        "_cuda_getCurrentRawStream": lambda i: 0,
        "_cuda_cudaCachingAllocator_is_enabled": lambda: True,
    }.items():
        setattr(torch._C, name, value)


def _install_inductor() -> None:
    from torch._dynamo import device_interface as di
    from torch._inductor import codecache, compile_fx, config
    from torch._inductor.graph import GraphLowering
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    for name in [
        "get_device_properties",
        "synchronize",
        "memory_allocated",
        "is_bf16_supported",
        "current_device",
        "device_count",
        "set_device",
    ]:
        setattr(di.CudaInterface, name, staticmethod(CUDA[name]))
    for name in ["exchange_device", "maybe_exchange_device", "get_raw_stream"]:
        setattr(di.CudaInterface, name, staticmethod(lambda i: 0))
    driver._active = types.SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_active_torch_device=lambda: torch.device("cuda", 0),
        utils=types.SimpleNamespace(
            get_device_properties=lambda i: {"max_shared_mem": 232448, "multiprocessor_count": 132}
        ),
    )

    def to_module(self: Any) -> Any:
        code, _ = self.codegen()
        self.cache_key, self.cache_path = codecache.PyCodeCache.write(code.value)
        self.cache_linemap = []
        module = interpreted.run_module(code.value, self.cache_path)
        return types.SimpleNamespace(
            call=module["call"], runner=module["runner"], __file__=self.cache_path, value=code.value
        )

    def cudagraphify(
        model: Any,
        static_input_idxs: Any = (),
        *,
        placeholders: Any = (),
        mutated_input_idxs: Any = (),
        **_: Any,
    ) -> Any:
        cuda_graphs.append(
            (tuple(static_input_idxs), tuple(mutated_input_idxs), [p.name for p in placeholders])
        )
        return replayed(model, static_input_idxs)

    GraphLowering._compile_to_module = to_module
    compile_fx.cudagraphify = cudagraphify
    config.fx_graph_cache = False
    config.compile_threads = 1
    config.shape_padding = False  # is decided by timing


def replayed(model: Any, static: Any) -> Any:
    """A CUDA graph of `model` as cudagraph trees make one: inputs that are not static are copied to where they were."""
    state: dict[str, Any] = {}

    def run(inputs: Any) -> Any:
        if "warm" not in state:
            state["warm"] = True
            return model(inputs)
        if "graph" not in state:
            state["kept"] = [
                x if i in set(static) or not isinstance(x, torch.Tensor) else x.clone()
                for i, x in enumerate(inputs)
            ]
            state["pointers"] = {i: inputs[i].data_ptr() for i in static}
            state["graph"] = CUDAGraph()
            with graph(state["graph"]):
                state["out"] = model(list(state["kept"]))
            state["graph"].replay()
            return state["out"]
        for i, pointer in state["pointers"].items():
            if inputs[i].data_ptr() != pointer:
                raise AssertionError(f"static input {i} moved: cudagraph trees would record again")
        for i, (kept, new) in enumerate(zip(state["kept"], inputs, strict=False)):
            if i not in state["pointers"] and isinstance(new, torch.Tensor):
                kept.copy_(new)
        inputs.clear()
        state["graph"].replay()
        return state["out"]

    return run


def kernels(call: Any) -> int:
    """Kernels that a call launches: aten operations on the device, and generated kernels."""
    call()  # as the real one: the first call may make state
    simcuda.clear()
    interpreted.launched.clear()
    call()
    return len([n for n in simcuda.launched() if n != "aten::_local_scalar_dense"]) + len(
        interpreted.launched
    )


def install() -> None:
    """Make it the device "cuda" of this process, for good."""
    _install_torch()
    _install_inductor()
