"""pytest -p tests.simulated_gpu.plugin tests/gpu: the tests that need a GPU, on the simulated one."""

from __future__ import annotations

import pytest

from tests.simulated_gpu import device  # before torch

device.install()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if hasattr(item.module, "kernels"):  # there is no profiler
            item.module.kernels = device.kernels
        if hasattr(item.module, "MANY"):  # a generated kernel takes 10 ms in Triton's interpreter
            item.module.MANY = 100
