"""Schedules compiled to tensors and read by step. Knows nothing of optimizers."""

from __future__ import annotations

from tensorsched.engine.engine import ScheduleEngine
from tensorsched.engine.table import ScheduleTable, tabulate

__all__ = ["ScheduleEngine", "ScheduleTable", "tabulate"]
