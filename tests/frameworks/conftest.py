"""Only here: one thread, since the order of sums is theirs, and warnings of ours alone are errors."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.frameworks import launch  # noqa: F401  declares what torchvision wants, before anybody imports it

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """The frameworks warn of much, on import too; ours must not, where nothing is wrong."""
    config.addinivalue_line("filterwarnings", "ignore")
    config.addinivalue_line("filterwarnings", r"error:::tensorsched")
