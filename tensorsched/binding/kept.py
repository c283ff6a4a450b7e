"""What is kept of the last completed step where nobody could tell afterwards: on a clock, and with live inputs.

The engines keep it, one position or one row of values; nothing else is recorded while steps run. Here is what happens
to it when tables are changed, modes are left, and runs are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorsched.binding.modes import Mode
from tensorsched.engine import ClockEngine, ClockFloatEngine, ReactiveEngine, ReactiveFloatEngine

__all__ = ["KEEPING", "LastUsed", "keeping"]

_ON_HOST = (ClockFloatEngine, ReactiveFloatEngine)
KEEPING = (*_ON_HOST, ClockEngine, ReactiveEngine)
"""The engines that do."""


def keeping(mode: Mode) -> list[Any]:
    """Those of a mode."""
    return [part.engine for part in mode.parts if isinstance(part.engine, KEEPING)]


class LastUsed:
    """What engines keep of the last step beyond their own end: tables are changed, modes are left.

    Engines of two modes that hold the same slots take turns: the one that has made a step since has the truth.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        self._before = dict(before or {})
        self._left: list[Any] = []  # engines on a device, of a mode that was left: read when somebody asks

    def before(self) -> dict[str, float]:
        """What engines kept that are not in use any more. Synchronises where a device has it."""
        for engine in self._left:
            self._before |= engine.used()
        self._left = []
        return self._before

    def all(self, mode: Mode) -> dict[str, float]:
        """All that is kept, by name. Synchronises where a device has it."""
        return self.before() | {name: v for engine in keeping(mode) for name, v in engine.used().items()}

    def keep(self, mode: Mode) -> None:
        """Tables are about to change, after which nobody could tell. Synchronises as `all`."""
        if engines := keeping(mode):
            self._before = self.all(mode)
            for engine in engines:
                engine.forget_used()

    def switch(self, left: Mode, entered: Mode) -> None:
        """Other engines take over the same slots. Does not synchronise."""
        old, new = keeping(left), keeping(entered)
        leaving = [engine for engine in old if engine not in new]
        found = {n: v for e in leaving if isinstance(e, _ON_HOST) for n, v in e.used().items()}
        self._before |= found
        waiting = [] if found else self._left  # a step has been made since those were left
        for engine in new:
            if engine not in old and engine not in waiting:
                engine.forget_used()
        on_device = [engine for engine in leaving if not isinstance(engine, _ON_HOST)]
        self._left = [engine for engine in waiting if engine not in new] + on_device

    def forget(self, mode: Mode) -> None:
        """Another run goes on here. Does not synchronise."""
        self._before, self._left = {}, []
        for engine in keeping(mode):
            engine.forget_used()
