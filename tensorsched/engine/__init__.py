"""Schedules compiled to tensors and read by step. Knows nothing of optimizers."""

from __future__ import annotations

from tensorsched.engine.engine import FloatEngine, ScheduleEngine
from tensorsched.engine.inputs import Inputs
from tensorsched.engine.reactive import ReactiveEngine, ReactiveFloatEngine
from tensorsched.engine.table import ScheduleTable
from tensorsched.engine.tabulate import tabulate

__all__ = [
    "FloatEngine",
    "Inputs",
    "ReactiveEngine",
    "ReactiveFloatEngine",
    "ScheduleEngine",
    "ScheduleTable",
    "tabulate",
]
