"""Schedules compiled to tensors and read by step. Knows nothing of optimizers."""

from __future__ import annotations

from tensorsched.engine.clock import Clock, Where, clock
from tensorsched.engine.clock_table import ClockTable, replacement_on_clock, tabulate_on_clock
from tensorsched.engine.clocked import ClockEngine, ClockFloatEngine
from tensorsched.engine.engine import FloatEngine, ScheduleEngine
from tensorsched.engine.inputs import Inputs
from tensorsched.engine.reactive_floats import ReactiveFloatEngine
from tensorsched.engine.reactive_tensors import ReactiveEngine
from tensorsched.engine.table import ScheduleTable
from tensorsched.engine.tabulate import tabulate

__all__ = [
    "Clock",
    "ClockEngine",
    "ClockFloatEngine",
    "ClockTable",
    "FloatEngine",
    "Inputs",
    "ReactiveEngine",
    "ReactiveFloatEngine",
    "ScheduleEngine",
    "ScheduleTable",
    "Where",
    "clock",
    "replacement_on_clock",
    "tabulate",
    "tabulate_on_clock",
]
