"""Options, profiles and markers of the whole suite."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator

import pytest
import torch
from hypothesis import Phase, settings

from tensorsched.engine import clocked, drivers
from tests.recording import installed

settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.register_profile("nightly", parent=settings.get_profile("default"), max_examples=10_000)
settings.register_profile(  # a mutant's first run: one that fails need not say how little it takes
    "mutants", settings.get_profile("ci"), max_examples=20, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device-driver", action="store_true", help="move CPU tensors as a device's are moved")
    parser.addoption(
        "--kills", type=int, default=30, help="how often tests/binding/test_kills.py kills a run"
    )
    parser.addoption("--rewrite-golden", action="store_true", help="write tests/golden/*.json anew, and fail")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device-driver"):
        drivers.CpuDriver = drivers.DeviceDriver
        clocked.CpuClock = clocked.DeviceClock


def pytest_report_header(config: pytest.Config) -> str | None:
    if any("frameworks" in arg for arg in config.args):
        return None
    return "left out: tests/frameworks, which has an environment of its own (make test-frameworks)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skips = {
        "gpu": (torch.cuda.is_available(), "needs a CUDA device"),
        "h100_code": (
            # Inductor makes a tensor or two outside of fake mode: a CUDA build asks the driver for their memory.
            importlib.util.find_spec("triton") and torch.version.cuda is None,
            "needs Triton and a torch without CUDA: make test-h100-code",
        ),
    }
    for item in items:
        for mark, (there, reason) in skips.items():
            if mark in item.keywords and not there:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the peers have to be there (make test-peers), a test that skips for want of one fails, whoever skipped it."""
    report = yield
    if installed.NEEDED and report.skipped:
        report.outcome = "failed"
    return report
