"""What a clock that does not count steps adds to an attachment: counting before each step, and three numbers to keep.

A step with nothing counted is an error before it is made: its clock would stand still. What is counted may be a tensor
of the device, which is added there; where a value is a float on the host, that would be a synchronisation, and is
refused.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import torch

from tensorsched.binding.movers import Groups, Mover
from tensorsched.engine import Clock, ClockEngine, ClockFloatEngine, Where
from tensorsched.errors import BindingError
from tensorsched.schedules.validators import check_count, named, refuse

Clocks = Sequence[ClockEngine | ClockFloatEngine]

__all__ = ["Tally", "check_counted", "read_clock", "watched", "write_clock"]

_UNSEEN = (
    "_maybe_opt_step",
    "grad_scaler.py",
)  # where GradScaler decides on the host whether step() is called


class Tally:
    """Whether something was counted for the step that comes. All modes of an attachment share it.

    Attributes:
        clock: what is counted.
        fresh: whether there was a count since the last step.
        told: the position that a progress clock was told last.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.fresh = False
        self.told = 0
        by_hand = "count" if clock.total is None else "progress"
        self._told_by = by_hand if clock.progress is None else ""

    def moved(self, where: Where) -> None:
        """Somebody went there: what was counted for a step that is not made is part of it."""
        self.told, self.fresh = where.counted, where.counted > where.position

    def require(self, clocks: Clocks) -> None:
        """Refuse a step for which nothing was counted; a progress clock that has a function asks it.

        Raises:
            BindingError: nothing was.
        """
        if not self.fresh and self.clock.progress is not None:
            self.go_to(clocks, self.clock.progress())
        if not self.fresh:
            how = (
                "progress(x)"
                if self.clock.total is not None
                else f"count(n), the number of {self.clock.unit},"
            )
            raise BindingError(
                f"nothing was counted for this step, so the clock of {self.clock.unit} would stand still: call "
                f"sched.{how} before each optimizer.step()"
            )
        if self.clock.skipped == "dropped" and _skips_are_unseen(sys._getframe(2)):
            raise BindingError(
                "GradScaler skips steps of this optimizer on the host, without a word to it, so what a skipped step "
                "counted cannot be dropped; use clock(..., skipped='counted'), build the optimizer with fused=True, or "
                "step it with ts.compile_step(sched)"
            )

    def refuse_other_call(self, call: str) -> None:
        """Refuse what this clock is not told by.

        Raises:
            BindingError: count() of a progress clock, progress() of another, or anything of one that asks by itself.
        """
        if call == self._told_by:
            return
        if (call == "progress") != (self.clock.total is not None):
            other = "progress(x)" if self.clock.total is not None else "count(n)"
            raise BindingError(
                f"this is a clock of {self.clock.unit}: call sched.{other} instead of {call}()"
            )
        if self.clock.progress is not None:
            raise BindingError(
                "this clock asks the function that it was made with, so progress() would be overwritten; make it with "
                "ts.clock(progress=True)"
            )

    def go_to(self, clocks: Clocks, part: Any) -> None:
        """Be at this part of the whole after the step that comes.

        Raises:
            BindingError: it is less than before.
            ScheduleError: it is not in [0, 1].
        """
        position = self.clock.position_of(part)
        if position < self.told:
            raise BindingError(
                f"progress went back, from {self.told / (self.clock.total or 1):g} to {part:g}: in a run that is "
                f"resumed it must go on from what was saved (sched.position / {self.clock.total}); seek() goes back on "
                "purpose"
            )
        for engine in clocks:
            engine.count_to(position)
        self.told, self.fresh = position, True

    def shown(self, clocks: Clocks) -> str:
        """What `print` says of the clock."""
        tables = [engine.table for engine in clocks]
        rows = max(table.used for table in tables)
        if self.clock.between == "hold":
            return f"{self.clock!r}: {rows} rows, each held for {self.clock.resolution} {self.clock.unit}"
        error = max(table.error for table in tables)
        return f"{self.clock!r}: {rows} rows, linear in between, at most {error:.1g} of the peak off"


def watched(mover: Mover, tally: Tally, clocks: Clocks, *, floats: bool) -> Mover:
    """The mover of slots on a clock: nothing moves without a count.

    Args:
        mover: theirs.
        tally: says whether something was counted.
        clocks: their engines.
        floats: whether there are float slots, for which the host reads whether a step was skipped.
    """
    check, advance = mover
    dropping = tally.clock.skipped == "dropped"

    def check_counted(groups: Groups) -> bool:
        if not tally.fresh or dropping:
            tally.require(clocks)
        return check(groups)

    def advance_counted(groups: Groups, found_inf: torch.Tensor | None) -> bool | None:
        if not tally.fresh or dropping:
            tally.require(clocks)
        moved = advance(groups, found_inf)
        if moved is not False:
            tally.fresh = False
            if dropping and floats and moved is None:  # on a device the engine drops by itself
                for engine in clocks:
                    engine.drop()
        return moved

    return Mover(check_counted, advance_counted)


def check_counted(n: Any, *, floats: bool) -> int | torch.Tensor:
    """What `count` takes: an int of at least 0, or a tensor of one whole number.

    Raises:
        BindingError: a tensor of a device, with float slots.
        ScheduleError: it is neither.
    """
    if not isinstance(n, torch.Tensor):
        if isinstance(n, bool) or not isinstance(n, numbers.Integral):
            raise refuse("count: n", "a whole number (an int, or a tensor of one)", n)
        return check_count("count: n", n)
    if n.numel() != 1 or n.is_floating_point() or n.is_complex() or n.dtype == torch.bool:
        raise refuse(
            "count: n", "a whole number (an int, or a tensor of one)", n.dtype if n.numel() == 1 else n.shape
        )
    if floats and n.device.type != "cpu":
        raise BindingError(
            f"count: n is a tensor on {n.device} and there are float slots (print(sched) shows which), for which the "
            "host would wait for it at each step; pass an int, attach with resident=True, or step with "
            "ts.compile_step(sched)"
        )
    return check_count("count: n", int(n.item())) if n.device.type == "cpu" else n


def write_clock(clock: Clock | None, where: Where) -> dict[str, Any]:
    """What a state has beside the step: nothing where the clock counts steps."""
    if clock is None:
        return {}
    return {"clock": {"unit": clock.unit, "position": where.position, "counted": where.counted}}


def read_clock(state: Mapping[str, Any], clock: Clock | None, step: int) -> Where:
    """Where a state says that the run stood, which is at a step in any case.

    Raises:
        ScheduleError: the entry is malformed.
        BindingError: it was saved on another clock.
    """
    saved = state.get("clock")
    if saved is None and clock is None:
        return Where.at_step(step)
    if saved is not None and (
        not isinstance(saved, Mapping) or set(saved) != {"unit", "position", "counted"}
    ):
        raise refuse("clock", "a dict of unit, position and counted", saved)
    theirs = "steps" if saved is None else saved["unit"]
    if not isinstance(theirs, str):
        raise refuse("clock: unit", "a word", theirs)
    mine = "steps" if clock is None else clock.unit
    if saved is None or theirs != mine:
        raise BindingError(
            f"this state (step {step}) was saved on a clock of {named(theirs)}, and this schedule counts {mine}; "
            "attach with the clock that it was saved with, or call seek() to where the run should go on"
        )
    if step == 0 and saved["position"] == 0:
        return Where(0, 0, check_count("clock: counted", saved["counted"]))
    return Where(
        check_count("clock: position", saved["position"]),
        step,
        check_count("clock: counted", saved["counted"]),
    )


def _skips_are_unseen(frame: FrameType | None) -> bool:
    """Whether a GradScaler is calling step() of an optimizer that it does not tell of skipped steps."""
    name, file = _UNSEEN
    for _ in range(16):
        if frame is None:
            return False
        if frame.f_code.co_name == name and frame.f_code.co_filename.endswith(file):
            return True
        frame = frame.f_back
    return False
