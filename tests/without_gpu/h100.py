"""The code that inductor generates for an H100, on a machine without one: real code generation, nothing is run.

    with h100() as made:
        ...                         # parameters on device="cuda"; a compiled step, called twice
    made.modules[0]                 # the Python source of the module that holds the Triton kernels and launches them

Tensors are fake (fake_cuda.py); Triton's driver is a stub that says sm_90; what inductor would ask the card, PROPERTIES
answers. `ptxas` compiles a kernel for sm_90 for real and tells what it uses.
"""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._inductor.config
from torch._dynamo import device_interface
from torch._inductor import codecache, compile_fx
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime import triton_heuristics
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.without_gpu.fake_cuda import fake_cuda

PROPERTIES = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, total_memory=80 << 30, warp_size=32,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, max_threads_per_block=1024,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 << 20, gcnArchName="", is_integrated=False, is_multi_gpu_board=False,
)  # fmt: skip
CUDA = {
    "is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0, "is_initialized": lambda: False,
    "get_device_properties": lambda _=None: PROPERTIES, "get_device_capability": lambda _=None: (9, 0),
    "get_device_name": lambda _=None: PROPERTIES.name, "synchronize": lambda _=None: None, "memory_allocated": lambda _=None: 0,
    "is_current_stream_capturing": lambda: False, "is_bf16_supported": lambda *_, **__: True, "_exchange_device": lambda _: 0,
    "_maybe_exchange_device": lambda _: 0, "set_rng_state": lambda *_: None,
    "get_rng_state": lambda _=None: torch.zeros(16, dtype=torch.uint8, device="cpu"),
}  # fmt: skip
INTERFACE = {
    name: CUDA[name]
    for name in ("get_device_properties", "synchronize", "memory_allocated", "is_bf16_supported", "current_device", "device_count")
} | dict.fromkeys(("exchange_device", "maybe_exchange_device", "get_raw_stream"), lambda _: 0)  # fmt: skip
SHARED = {"max_shared_mem": PROPERTIES.shared_memory_per_block_optin, "multiprocessor_count": 132}


class Made:
    """What was generated and read between `h100()` and now.

    Attributes:
        modules: the source of each generated module.
        reads: what eager code read on the host.
        cuda_graphs: for each module that mode="reduce-overhead" would make a CUDA graph, its static and its mutated
            inputs.
    """

    def __init__(self, reads: list[str]) -> None:
        self.modules: list[str] = []
        self.reads = reads
        self.cuda_graphs: list[tuple[set[int], set[int]]] = []

    def launches(self) -> list[str]:
        """The kernels that the one module launches, in order."""
        (module,) = self.modules
        return re.findall(r"(triton_\w+|extern_kernels\.\w+)(?:\.run)?\(", body(module))


def body(module: str) -> str:
    """The function that runs at each call: what it launches, without comments."""
    code = "\n".join(line for line in module.splitlines() if not line.lstrip().startswith("#"))
    return code[code.index("def call(self, args)") : code.index("runner = Runner")]


@contextlib.contextmanager
def h100() -> Iterator[Made]:
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415  optional
    from triton.runtime import driver  # noqa: PLC0415

    stub = types.SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_active_torch_device=lambda: torch.device("cuda", 0),
        utils=types.SimpleNamespace(get_device_properties=lambda _: SHARED),
    )
    with contextlib.ExitStack() as stack:
        made = Made(stack.enter_context(fake_cuda()))
        patches = [mock.patch.object(torch.cuda, name, value) for name, value in CUDA.items()]
        patches += [
            mock.patch.object(device_interface.CudaInterface, name, staticmethod(value))
            for name, value in INTERFACE.items()
        ]
        patches += [
            mock.patch.object(driver, "_active", stub),
            mock.patch.object(GraphLowering, "_compile_to_module", functools.partialmethod(_kept, made)),
            mock.patch.object(compile_fx, "cudagraphify", functools.partial(_cuda_graph, made)),
            mock.patch.object(
                torch._C, "_cuda_cudaCachingAllocator_is_enabled", return_value=True, create=True
            ),
            mock.patch.object(torch.version, "cuda", "13.0"),
            mock.patch.object(FakeTensorMode, "avoid_device_init", new=True),
            # Padding of matrix products is decided by timing them.
            torch._inductor.config.patch(fx_graph_cache=False, compile_threads=1, shape_padding=False),
        ]
        if not torch.cuda._is_compiled():
            stack.callback(_constants_on_the_host()._destroy)
        device_interface.caching_worker_device_properties.pop("cuda", None)
        stack.callback(device_interface.caching_worker_device_properties.pop, "cuda", None)
        for patch in patches:
            stack.enter_context(patch)
        yield made


def _constants_on_the_host() -> torch.library.Library:
    """Inductor folds constants by running aten.full on the device: on the CPU, here."""
    library = torch.library.Library("aten", "IMPL")

    def empty(size: Any, dtype: Any = None, **_: Any) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="cpu")

    def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> torch.Tensor:
        return torch.empty_strided(size, stride, dtype=dtype, device="cpu")

    library.impl("empty.memory_format", empty, "CUDA")
    library.impl("empty_strided", empty_strided, "CUDA")
    return library


def _kept(self: Any, made: Made) -> Any:
    """In the place of GraphLowering._compile_to_module: the code is generated, kept and never run."""
    code, _ = self.codegen()
    made.modules.append(code.value)
    self.cache_key, self.cache_path = codecache.PyCodeCache.write(code.value)
    self.cache_linemap = []
    outputs = len(self.graph_outputs)

    def call(args: list[Any]) -> tuple[None, ...]:
        args.clear()
        return (None,) * outputs

    def of_partitions(functions: Sequence[Callable[..., Any]]) -> None:
        for function in functions:
            function(call)

    runner = types.SimpleNamespace(recursively_apply_fns=of_partitions, partitions=[])
    return types.SimpleNamespace(call=call, runner=runner, __file__=self.cache_path, value=code.value)


def _cuda_graph(
    made: Made, model: Any, static_input_idxs: Any = (), *, mutated_input_idxs: Any = (), **_: Any
) -> Any:
    made.cuda_graphs.append((set(static_input_idxs), set(mutated_input_idxs)))
    return model


# -- ptxas -------------------------------------------------------------------------------------------------------------


def kernels(module: str) -> dict[str, str]:
    """The source of each Triton kernel in a module, by name."""
    return dict(
        re.findall(
            r"^(triton_\w+) = async_compile\.triton\('\w+', '''\n(.*?)''', device_str",
            module,
            re.DOTALL | re.MULTILINE,
        )
    )


def ptxas(name: str, source: str, folder: Path) -> dict[str, int]:
    """Compile one kernel for sm_90, within `h100()`: the registers and bytes of stack (spills) that it takes."""
    import triton  # noqa: PLC0415  optional
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    function, meta = _undecorated(name, source, folder)
    signature, constants = dict(meta["triton_meta"]["signature"]), dict(meta["triton_meta"]["constants"])
    if "XBLOCK" in signature:
        constants["XBLOCK"] = 1024
    names = list(signature)
    made = triton.compile(
        ASTSource(
            fn=function,
            signature=signature,
            constexprs={(names.index(k),): v for k, v in constants.items() if k in names},
            attrs=meta["triton_meta"]["configs"][0],
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": meta.get("num_warps", 4), "num_stages": 1},
    )
    (cubin := folder / f"{name}.cubin").write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    used = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    return {what: int(re.search(rf"{what}:(\d+)", used)[1]) for what in ("REG", "STACK")}


def _undecorated(name: str, source: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The Triton function of a generated kernel without inductor's launcher, and what inductor says of it."""
    meta: dict[str, Any] = {}

    def keep(*_: Any, **given: Any) -> Callable[[Any], Any]:
        meta.update(given)
        return lambda function: function

    (path := folder / f"{name}.py").write_text(source.replace("triton_helpers.set_driver_to_gpu()", ""))
    space: dict[str, Any] = {"__file__": str(path), "__name__": name}
    fakes = dict.fromkeys(("pointwise", "foreach", "reduction", "persistent_reduction"), keep)
    with mock.patch.multiple(triton_heuristics, **fakes):
        exec(compile(path.read_text(), path, "exec"), space)  # noqa: S102  inductor's own code
    return space[name], meta
