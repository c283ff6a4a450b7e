"""Only here: one thread, as reductions are ordered by them, and what the frameworks' imports need without a GPU."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402  reads the variable

from tests.frameworks import launch  # noqa: E402, F401  declares what torchvision wants, before anybody imports it

torch.set_num_threads(1)
