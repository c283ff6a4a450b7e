"""Attachment: the schedules on one optimizer, from `attach` on."""

from __future__ import annotations

import dataclasses
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch

from tensorsched.binding.arguments import read_free, read_metrics, with_total
from tensorsched.binding.callers import refuse_pieces
from tensorsched.binding.carried import Carrier, fingerprint_of
from tensorsched.binding.changes import chosen, cooled, extended, resolved, resolved_free
from tensorsched.binding.checkpoint import read_state
from tensorsched.binding.clocked import Tally, check_counted, write_clock
from tensorsched.binding.coverage import coverage
from tensorsched.binding.doors import named_only
from tensorsched.binding.group_names import check_address, group_names, index_of_group
from tensorsched.binding.handing_over import let_go
from tensorsched.binding.history import Change, History, Used
from tensorsched.binding.hooks import Hooks, has_hooks, unreported
from tensorsched.binding.late_groups import (
    begun,
    other_groups,
    read_adopted,
    read_late,
    refuse_other_groups,
    take_in,
)
from tensorsched.binding.lr_scheduler import AttachmentLR
from tensorsched.binding.modes import EagerMode, HandedMode, Mode, eager_mode
from tensorsched.binding.placement import Options, live_device, read_rewrite
from tensorsched.binding.registry import attachments_of, forget, remember
from tensorsched.binding.resuming import apart, go_on_from, loaded, saved
from tensorsched.binding.slots import Slot, displaced, give_back, holds, same_number, taken_over
from tensorsched.binding.state_format import write_state
from tensorsched.binding.summary import last_used, slot_table
from tensorsched.binding.workers import refuse_in_worker
from tensorsched.engine import Where
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, as_float, param_groups, put_back
from tensorsched.schedules import Schedule
from tensorsched.schedules.check import Finding
from tensorsched.schedules.node import brief
from tensorsched.schedules.recipes.common import Shape
from tensorsched.schedules.split import bounded, inputs_of
from tensorsched.schedules.validators import MAX_STEPS, check_count, shown
from tensorsched.schedules.views.plot import plot_parts

__all__ = ["Attachment"]

_AS_NOW = ", with its inputs as they are now"


class Attachment:
    """The schedules on one optimizer: what `attach` returns.

    `print(sched)` shows every slot: where it is, its value now, its schedule, and why it is a tensor or a float. A deep
    copy or a pickle of it belongs to a copy of its optimizer and goes on from the same step.

    Attributes:
        free: the schedules that belong to no hyperparameter, by name.
        attached: False after `detach`.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
        >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
        >>> print(sched)
        step 0, advances after each optimizer.step()
        group  key  slot   value  schedule
        0      lr   float  1      linear(1.0, 0.0, steps=4)
        float: on a CPU a float is exact and fastest
        >>> sched.seek(3)
        >>> sched.step_count, sched.value("lr"), sched.state_dict()["step"]
        (3, 0.25, 3)
        >>> sched.detach()
    """

    def __init__(
        self, optimizer: Any, slots: Sequence[Slot], free: Mapping[str, Schedule], options: Options
    ) -> None:
        self._optimizer = _weakly(optimizer)
        self.free = {name: bounded(schedule, options.steps) for name, schedule in free.items()}
        self.attached = True
        self._options = options
        self._found_inf: torch.Tensor | None = None  # of the last optimizer.step(), for step() by hand
        # Everything that can fail comes first; the optimizer is touched by _bind() and the hooks alone.
        if clash := self.free.keys() & {slot.name for slot in slots}:
            raise BindingError(f"free: {min(clash)!r} is the name of a slot; rename it")
        groups = param_groups(optimizer)
        self._eager: EagerMode = eager_mode(
            slots, self.free, live_device(groups), options.capacity, options.clock
        )
        self._mode: Mode = self._eager
        self._graph: HandedMode | None = None  # handed in by compile_step
        self._places = [slot.place for slot in slots]
        self._group_count = len(groups)
        self._carrier = Carrier.beside((other._carrier for other in attachments_of(optimizer)), options.clock)
        self._known_as: int | None = None
        self._doubt = ""  # what is to be said before the next step, unless a seek settles it
        self._face: AttachmentLR | None = None  # of a trainer: the schedule moves when that is stepped
        self._told_uncounted = False
        self._history = History({slot.name: slot.schedule for slot in slots} | self.free)
        self._unseen = options.auto  # no step has been made yet: who makes it is looked at once
        self._read_from: tuple[str, Where] | None = None  # the file that said it, "optimizer" or "state"; see resuming
        self._told = -1  # the step, or position, at which the user last said where to go on
        carried, numbers = self._carrier.read(groups), self._carrier.read_inputs(groups)
        other_clock = carried is None and bool(groups[0].get(self._carrier.schedules))
        self._began_before = begun(self._places, groups)
        self._hooks = Hooks()
        self._bind()
        self._hooks.register(optimizer, self, auto=options.auto)
        # Whether step() by hand counts without an optimizer step that was reported, and whether one waits for it.
        self._uncertain = self._stepped = not self._hooks.active or unreported(optimizer)
        if self._hooks.active:
            self._carrier.mark(groups, self._originals(), self._numbered())
        go_on_from(self, carried, numbers)
        if other_clock:
            self._doubt = (
                f"the optimizer's checkpoint was saved under schedules on another clock, and these begin at "
                f"{self._words(self._mode.where)}: load the schedule's own state, call seek(), or attach with the "
                "clock of before (of several attachments in the order of before)"
            )
        self._bind()
        for other in attachments_of(optimizer):
            other._make_graphs_stale()  # a compiled step of it must look again at what else is there
        remember(self)

    @property
    def optimizer(self) -> Any:
        """Whose hyperparameters follow the schedules. It is not kept alive by its schedules.

        Raises:
            BindingError: it is gone.
        """
        optimizer = self._optimizer()
        if optimizer is None:
            raise BindingError("the optimizer of this schedule is gone; keep a reference to it")
        return optimizer

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every scheduled (group, key, element): its place, its schedule, whether it is a tensor slot, and why."""
        at = self._mode.slot_at
        return tuple(at[place] for place in self._places)

    @property
    def step_count(self) -> int:
        """Completed optimizer steps. Synchronises where all slots are tensor slots on a device that is no CPU.

        Raises:
            BindingError: it is read in a worker of a DataLoader, where it would stand still.
        """
        refuse_in_worker("step_count")
        return self._mode.step_count

    @property
    def position(self) -> int:
        """Where the schedules are read: on a clock what the completed steps have consumed, else `step_count`.

        Synchronises as `step_count` does.
        """
        return self._mode.where.position

    def value(self, name: str, group: int | str = 0, element: int | None = None) -> torch.Tensor | float:
        """What a slot or free name holds now: a float, or of a tensor slot or a free name the 0-dim live tensor.

        Of a filled slot it is the group's own tensor.

        Args:
            name: the param_group key, or a name from `free`.
            group: index of the param_group, or what it holds under "name".
            element: index into a tuple such as betas; not needed where only one element is scheduled.

        Raises:
            BindingError: no such slot or group, or it is asked for in a worker of a DataLoader: every value would stand
                still there. The tensor of a free name may be handed to the data set: workers see what it holds.

        Does not synchronise.
        """
        refuse_in_worker("value()")
        check_address(name, group, element)
        if name in self.free:
            return self._mode.free_value(name)
        return self._mode.expected(self._slot(name, group, element))

    def schedule(self, name: str, group: int | str = 0, element: int | None = None) -> Schedule:
        """The schedule that a slot or free name follows; `ts.initial` in it is a number by now.

        Args:
            name: the param_group key, or a name from `free`.
            group: index of the param_group, or its name.
            element: index into a tuple such as betas; not needed where only one element is scheduled.

        Raises:
            BindingError: no such slot.

        Does not synchronise.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.5)
            >>> ts.attach(optimizer, lr=ts.initial * ts.linear(1.0, 0.0, steps=4)).schedule("lr")
            0.5 * linear(1.0, 0.0, steps=4)
        """
        check_address(name, group, element)
        return self.free[name] if name in self.free else self._slot(name, group, element).schedule

    def step(self) -> None:
        """Advance by one step (only with advance="manual"), after `optimizer.step()`. Does not synchronise.

        Without an optimizer step since the last call nothing is counted, and that is said once: a wrapper that steps
        only every few calls (gradient accumulation in Accelerate), or a step that GradScaler skipped. Of an object
        without torch's hooks nothing is known: every call counts.

        Raises:
            BindingError: the schedule advances by itself, is detached, or something else wrote to a slot.
        """
        if self._options.auto or not self.attached:
            self._require_attached()
            raise BindingError(
                "this schedule advances by itself after each optimizer.step(), so step() would count twice; "
                "pass advance='manual' to attach() to call it yourself"
            )
        # Floats are checked as they are written. Tensors are, before the next optimizer.step(), where that is reported.
        if self._hooks.active:
            if not self._stepped:
                self._say_uncounted()
                return
        elif not self._mode.check(self.optimizer.param_groups):
            self._settle()
        self._advance(self._found_inf)
        self._found_inf, self._stepped = None, self._uncertain

    def count(self, n: int | torch.Tensor) -> None:
        """Say what the optimizer step that comes consumes, in the unit of the clock that was given to `attach`.

        It is used for the steps after that one. Several calls before a step are summed (gradient accumulation); a step
        without any is an error. In a distributed run every process must count the same number: reduce it first.

        Args:
            n: an int, or a tensor of one whole number on any device, which is added there. It may be called in a
                function that torch.compile traces, together with a compiled step, and captured in a CUDA graph.

        Raises:
            BindingError: there is no such clock, it is detached, or n is a tensor of a device and there are float
                slots, which would have to wait for it.
            ScheduleError: n is no whole number of at least 0. (A tensor of a device is not looked at.)

        Does not synchronise.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=1000), clock=ts.clock("tokens"))
            >>> sched.count(100), sched.count(150), optimizer.step(), sched.value("lr")
            (None, None, None, 0.75)
        """
        if not torch.compiler.is_compiling():
            self._count(n)
        elif self._mode.in_graph and self._mode.tally is not None:
            for engine in self._mode.clocks:
                engine.count_in_graph(n)
            self._mode.tally.fresh = True
        else:
            self._count_between_graphs(n)

    def _count(self, n: int | torch.Tensor) -> None:
        tally = self._on_clock("count")
        if type(n) is not int or not 0 <= n <= MAX_STEPS:
            n = check_counted(n, floats=self._mode.floats)
        self._mode.count(n)
        tally.fresh = True

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types for it
    def _count_between_graphs(self, n: int | torch.Tensor) -> None:
        self._count(n)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch has no types for it
    def progress(self, part: float) -> None:
        """Say which part of the run will be over after the optimizer step that comes, of a progress clock.

        Args:
            part: a number in [0, 1]; in a distributed run the same in every process. It may only grow.

        Raises:
            BindingError: there is no progress clock, it asks a function of its own, it is detached, or the part is
                less than before.
            ScheduleError: part is not in [0, 1].

        Does not synchronise (a tensor of a device is read, which does).

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> lr = ts.wsd(1.0, total=1_000_000, warmup=0.01, decay=0.5)
            >>> sched = ts.attach(optimizer, lr=lr, clock=ts.clock(progress=True))
            >>> sched.progress(0.75), optimizer.step(), sched.value("lr")
            (None, None, 0.5)
        """
        self._on_clock("progress").go_to(self._mode.clocks, part)

    def _on_clock(self, call: str) -> Tally:
        self._require_attached()
        tally = self._mode.tally
        if tally is None:
            raise BindingError(
                f"{call}() is for clocks that do not count steps, and these schedules do: pass clock=ts.clock(...) to "
                "attach()"
            )
        tally.refuse_other_call(call)
        return tally

    def seek(self, step: int) -> None:
        """Continue as if `step` steps had been completed; the groups hold that step's values at once.

        On a clock it is a position, in its unit; the step count stays as it is, and what was counted is forgotten.

        Raises:
            ScheduleError: step is negative or not an int.
            BindingError: the schedule is detached.

        Does not synchronise.
        """
        self._require_attached()
        at = check_count("seek: step", step)
        self._take_in_new_groups()
        self._history.add("seek", self._made(), goes_on=at)
        if self._options.clock is None:
            self._go(Where.at_step(at))
        else:
            self._go(Where(at, self.step_count, at))

    def state_dict(self) -> dict[str, Any]:
        """The step counter, the schedules that it counts for, and every change of them: plain numbers and strings.

        Loads with `torch.load(weights_only=True)`, on any device. Its keys are the same for all schedules, as formats
        want that save entry by entry (torch.distributed.checkpoint). Synchronises as `step_count` does.
        """
        self._take_in_new_groups()
        return self._state(self._next())

    def load_state_dict(self, state: Mapping[str, Any], *, on_mismatch: str | None = None) -> None:
        """Continue from a saved step, with its history. The order with `optimizer.load_state_dict` does not matter.

        (An object without torch's hooks cannot tell that it was loaded: call this, or `seek`, after its own loading.)

        Args:
            state: what `state_dict()` returned.
            on_mismatch: what to do if it was saved under other schedules: "error", "saved" (the schedules of the state,
                from the saved step), "keep_step" (these schedules, from the saved step) or "restart" (these schedules,
                from step 0). Default: what was given to `attach`, which is "error" by default.

        Raises:
            ScheduleError: the state is malformed; the message starts with the field. Nothing has changed.
            BindingError: it was saved under other schedules (both are shown, and the first step at which they
                differ), or this one is detached. Nothing has changed.
        """
        self._require_attached()
        self._take_in_new_groups()
        how = self._options.on_mismatch if on_mismatch is None else on_mismatch
        where, schedules, cells, history = read_state(state, self._schedules(), how, self._options.clock)
        restarts = how == "restart" and where.position == 0  # on purpose
        other = "" if restarts else apart(self, "state", where)
        if schedules:
            self._follow(schedules)
        if self._mode.inputs is not None:
            self._mode.inputs.load(cells)
        self._go(where)
        self._history = history
        self._read_from = None if restarts else ("state", where)
        if other:
            self._doubt = f"{other} {self._words(where)}"
            self._hooks.follow(self._mode.fast(self))

    @named_only("sched.rewrite(lr={})")
    def rewrite(self, *, free: Mapping[str, Any] | None = None, **hyperparameters: Any) -> None:
        """Follow other schedules from now on, at the same step: extend a run, cool down now, change the peak.

        The tables are overwritten in place, so compiled steps and captured graphs go on with the new values, without
        recompiling or capturing again. Where there is neither, a table grows as the schedules need. Steps are counted
        from the start of the run as before.

        Args:
            free: other schedules for names that were given to `attach` as `free`.
            **hyperparameters: as for `attach`, for slots that have a schedule; the others keep theirs. `ts.initial` is
                what the group held when it was attached. In the place of a schedule may stand a function of (old, now),
                the schedule so far and the step count, which is called for every slot and returns its new schedule.

        Raises:
            BindingError: a slot or name that has no schedule yet, or a value that does not fit. Nothing has changed.
            ScheduleError: a compiled step or a captured graph reads the table, and the schedules change later than it
                reaches (`attach(..., capacity=steps)`), or tensor slots that share a column of it, because their
                schedules are equal, would get different ones; so would one that shares it with a free name. Nothing has
                changed.

        What `value` gave for a slot stays current, but for tensor slots whose schedules were equal and part now: ask
        for it again. Synchronises where a slot is a tensor slot on a device that is no CPU: the table is copied there.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
            >>> optimizer.step()
            >>> sched.rewrite(lr=ts.linear(1.0, 0.0, steps=8)), sched.step_count, optimizer.param_groups[0]["lr"]
            (None, 1, 0.875)
            >>> sched.rewrite(lr=lambda old, now: old.take(now) >> 0.5 * old.skip(now))
            >>> optimizer.param_groups[0]["lr"], sched.schedule("lr")
            (0.4375, linear(1.0, 0.0, steps=8).take(1) >> 0.5 * linear(1.0, 0.0, steps=8).skip(1))
        """
        self._require_attached()
        self._take_in_new_groups()
        groups, now = param_groups(self.optimizer), self.position
        steps, total = self._options.steps, self._options.total
        wanted = resolved(groups, self.slots, hyperparameters, now)
        schedules = read_rewrite(self.optimizer, self.slots, with_total(wanted, total), steps)
        names = (
            read_free(groups, with_total(resolved_free(self.free, free, now), total))
            if free is not None
            else {}
        )
        if unknown := names.keys() - self.free.keys():
            raise BindingError(
                f"free: {min(unknown)!r} was not given to attach(), so nothing holds its value"
            )
        names = {name: bounded(schedule, steps) for name, schedule in names.items()}
        if not schedules and not names:
            raise BindingError(
                "rewrite() was given nothing to schedule; pass for example lr=ts.constant(1e-4)"
            )
        self._change("rewrite", {place.name: schedule for place, schedule in schedules.items()} | names)

    def cool_down(
        self, steps: int, to: float = 0.0, shape: Shape = "linear", keys: str | Sequence[str] = "lr"
    ) -> None:
        """Go down from now on: from the present value of each slot to another one, in so many steps, and stay there.

        The same as `rewrite(lr=lambda old, now: old.take(now) >> ...)`. From one checkpoint of the stable phase of a
        long run, several models can be made: load it, cool down over as many steps as you like, and load it again (from
        its file: torch trains on in the tensors that it was given) for the next one, or to go on. Each is to the bit
        the run that would have been planned with `wsd` (Haegele et al. 2024, arXiv 2405.18392).

        Args:
            steps: its length, an int >= 0 (in the unit of the clock, where there is one); 0 is a jump.
            to: the value reached then, and held.
            shape: of the way down, as in `wsd`: "linear", "cosine", "1-sqrt" (the paper's), ..., a shape, or a schedule
                from 1 to 0.
            keys: which hyperparameters (every group that has a schedule for one), or free names.

        Raises:
            BindingError: nothing is scheduled under a key. Nothing has changed.
            ScheduleError: an argument is out of range; or as `rewrite`, where a compiled step or a captured graph reads
                the table. Nothing has changed.

        Synchronises as `rewrite` does.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(0.0, 1.0, steps=2) >> ts.constant(1.0))
            >>> for _ in range(3): optimizer.step()
            >>> stable = optimizer.state_dict(), sched.state_dict()  # and the model's
            >>> for length in (2, 4):
            ...     optimizer.load_state_dict(stable[0])
            ...     sched.load_state_dict(stable[1], on_mismatch="saved")  # not the cool-down of the last branch
            ...     sched.cool_down(length, shape="cosine")
            ...     for _ in range(length): optimizer.step()
            ...     print(sched.used("lr").values.round(3).tolist())
            [0.0, 0.5, 1.0, 1.0, 0.5]
            [0.0, 0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        self._require_attached()
        self._take_in_new_groups()
        now = self.position
        old = chosen("cool_down", keys, self.slots, self.free)
        live = {name: self._mode.at(name, now) for name, s in old.items() if s.inputs()}
        cool = {name: cooled(s, now, steps, to, shape, live=live.get(name)) for name, s in old.items()}
        self._change("cool_down", cool)

    def extend(self, steps: int, how: str = "stretch", keys: str | Sequence[str] | None = None) -> None:
        """Make the run longer by so many steps; every slot goes on from its present value.

        Args:
            steps: how much later the end comes, an int >= 0.
            how: "stretch" (default): what is left of each curve takes that much longer, in all its phases. A cosine
                goes on down to the same end; the stable phase and the decay of `wsd` keep their proportion. "hold": it
                stays at the present value for `steps`, and then goes on as planned: a longer stable phase.
            keys: which hyperparameters or free names; None (default): all whose schedules still change.

        Raises:
            BindingError: nothing is scheduled under a key, or nothing is left that changes: the run is over
                (`rewrite`). Nothing has changed.
            ScheduleError: an argument is out of range; or as `rewrite`, where a compiled step or a captured graph reads
                the table. Nothing has changed.

        Synchronises as `rewrite` does.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
            >>> sched.seek(2)
            >>> sched.extend(2)
            >>> sched.schedule("lr").values(7).tolist()
            [1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0]
        """
        self._require_attached()
        self._take_in_new_groups()
        now = self.position
        old = chosen("extend", keys, self.slots, self.free)
        longer = {name: extended(s, now, steps, how) for name, s in old.items()}
        schedules = {name: schedule for name, schedule in longer.items() if schedule is not None}
        if not schedules:
            raise BindingError(
                f"extend: at step {now} nothing is left of {', '.join(old)} that changes; pass what comes now to "
                "rewrite(), such as lr=lambda old, now: old.take(now) >> ts.cosine(old(now), 0.0, steps=1000)"
            )
        self._change("extend", schedules)

    def hand_over(self, *keys: str, group: int | str | None = None) -> None:
        """Let somebody else have these hyperparameters from now on: SWALR, a finder of learning rates, you.

        The groups keep their present values, as plain floats (or in the tensors that they held before `attach`), and
        nobody watches them any more. With nothing left to schedule this is `detach`.

        Args:
            *keys: such as "lr"; or of one element of a tuple, "betas[1]".
            group: index or name of the one param_group that is meant; None (default): every group.

        Raises:
            BindingError: no slot is meant, or this one is detached. Nothing has changed.

        May synchronise, as `step_count`.

        Example:
            >>> import torch, tensorsched as ts
            >>> from torch.optim.swa_utils import SWALR
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], weight_decay=0.1)
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=8), weight_decay=ts.linear(0.1, 0.0, steps=8))
            >>> optimizer.step(), sched.hand_over("lr")
            (None, None)
            >>> swa = SWALR(optimizer, swa_lr=0.05, anneal_epochs=1)
            >>> optimizer.step(), swa.step(), optimizer.param_groups[0]["lr"], round(sched.value("weight_decay"), 6)
            (None, None, 0.05, 0.075)
        """
        self._require_attached()
        self._take_in_new_groups()
        for key in keys:
            check_address(key, 0 if group is None else group)
        index = None if group is None else self._group(group)
        meant = [
            s
            for s in self.slots
            if (s.place.key in keys or s.place.part in keys) and index in (None, s.place.group)
        ]
        if not keys or not meant:
            raise BindingError(
                f"hand_over: no slot is {' or '.join(map(shown, keys)) or 'named'}"
                f"{'' if group is None else f' of group {shown(group)}'}; there are {', '.join(s.name for s in self.slots)}"
            )
        step = self._made()
        if len(meant) == len(self.slots) and not self.free:
            self.detach()
        else:
            let_go(self, meant)
        self._history.add("hand_over", step, after=dict.fromkeys(slot.name for slot in meant))

    def history(self) -> list[Change]:
        r"""Every change of the run, from `attach` on, in order: what was done at which step, and what followed what.

        It is part of `state_dict`, and of the run that loads it.

        Returns:
            A list of `Change`s: step, what, goes_on (another step where the counter was set), and schedules (by name,
            before and after); `print(*sched.history(), sep="\n")` shows a line each.

        Synchronises as `step_count` where a change was made while only the device knew the step.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.constant(1.0))
            >>> optimizer.step(), sched.cool_down(4)
            (None, None)
            >>> print(*sched.history(), sep="\n")
            step 0, attach: lr[group 0]: no schedule -> constant(1.0)
            step 1, cool_down: lr[group 0]: constant(1.0) -> constant(1.0, steps=1) >> linear(1.0, 0.0, steps=4)
        """
        return self._history.changes()

    def used(self, name: str, group: int | str = 0, element: int | None = None) -> Used:
        """What a slot or free name really used at every completed step of the run, across changes and checkpoints.

        Args:
            name: the param_group key, or a name from `free`.
            group: index of the param_group, or its name.
            element: index into a tuple such as betas; not needed where only one element was scheduled.

        Returns:
            `Used`, two arrays with an entry for each completed step that is known of, in the order in which they were
            made: steps (int64) and values (float64; a tensor slot used their rounding to float32). Steps come twice
            where the run was set back. Unknown is what was before a `seek` at the start, or before a checkpoint of the
            optimizer alone, or of version 1.

        Raises:
            BindingError: nothing of that name was ever scheduled; or the values depend on a clock's positions or on
                live inputs, which are not kept for each step.

        Synchronises as `step_count` does.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.constant(1.0))
            >>> optimizer.step(), sched.cool_down(2), optimizer.step(), optimizer.step()
            (None, None, None, None)
            >>> steps, values = sched.used("lr")  # plt.plot(steps, values)
            >>> values.tolist()
            [1.0, 1.0, 0.5]
        """
        column = self._column(name, group, element)
        self._refuse_unknown("used()", self._history.ever(column))
        return self._history.used(column, self.step_count)

    def log(self) -> dict[str, float]:
        """What the last completed step used, as plain floats, for a logger.

        TensorBoard: `for name, value in sched.log().items(): writer.add_scalar(name, value, sched.step_count)`;
        Weights & Biases: `wandb.log(sched.log())`; Lightning: `self.log_dict(sched.log())`.

        Returns:
            A value for each slot, "lr/0" of group 0, "lr/decay" where groups have different "name"s, "betas[1]/0" of an
            element, and for each free name, "kl". Of a tensor slot the float32 that it held. Nothing before the first
            step that is known of (`used`), and nothing when all was handed over or is detached: others' steps follow.

        Raises:
            BindingError: the values depend on a clock's position or on live inputs, which are not kept; or it is asked
                for in a worker of a DataLoader.

        Does not synchronise, unless only the device knows which step that was: after a fused step under GradScaler, and
        while steps run in a graph. (Values that a group holds between two steps are those of the next one.)

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4), free={"kl": ts.constant(0.5)})
            >>> sched.log(), optimizer.step(), sched.log()
            ({}, None, {'lr/0': 1.0, 'kl': 0.5})
        """
        refuse_in_worker("log()")
        self._refuse_unknown("log()", self._schedules().values())
        return last_used(self) if self.attached else {}

    def lr_scheduler(self) -> AttachmentLR:
        """A torch LRScheduler over these schedules, for trainers: from now on they move when the trainer steps it.

        At most once for each optimizer step that was not skipped, however often it is called. Its state_dict is this
        attachment's, with the `on_mismatch` that was given to `attach`.

        Returns:
            The scheduler, the same one at each call: isinstance(..., torch.optim.lr_scheduler.LRScheduler).

        Raises:
            BindingError: it was attached with advance="manual", has a compiled step, or is detached.

        Does not synchronise, but where `step_count` does.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> scheduler = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4)).lr_scheduler()
            >>> optimizer.step(), scheduler.step(), scheduler.step(), scheduler.get_last_lr()
            (None, None, None, [0.75])
        """
        self._require_attached()
        if not self._options.auto:
            raise BindingError(
                "lr_scheduler() needs to know of the optimizer's steps: attach with advance='auto' (the default)"
            )
        if self._mode.in_graph:
            raise BindingError(
                "a compiled step counts by itself, so the schedule cannot wait for a trainer: call release() on what "
                "compile_step() returned first, or use it without lr_scheduler()"
            )
        if self._face is None:
            self._face = AttachmentLR(self, self._options.on_mismatch)
            self._hooks.follow(self._mode.fast(self))
        return self._face

    @named_only("sched.adopt(lr={})")
    def adopt(self, **hyperparameters: Any) -> None:
        """Let the param_groups that were added since follow schedules too, from the step where the others are.

        Args:
            **hyperparameters: as for `attach`, for the new groups alone: a schedule for each of them, or a list with an
                entry for each (None leaves one alone, as does no argument at all).

        Raises:
            BindingError: no group was added, or a key or list does not fit. Nothing has changed.
            ScheduleError: a schedule cannot be tabulated. Nothing has changed.

        May synchronise, as `attach`.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
            >>> optimizer.step()
            >>> optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))]})
            >>> sched.adopt(lr=ts.linear(0.1, 0.0, steps=4)), optimizer.param_groups[1]["lr"]
            (None, 0.07500000000000001)
        """
        self._require_attached()
        groups = param_groups(self.optimizer)
        self._refuse_other_groups(groups)
        take_in(
            self,
            groups,
            read_adopted(groups, self._group_count, with_total(hyperparameters, self._options.total)),
        )

    def check(self, *models: torch.nn.Module) -> list[Finding]:
        """What is odd about which group has which parameter, as `Plan.check`; empty if nothing is.

        Args:
            *models: all that the optimizer trains.

        Returns:
            Findings: parameters that no group has, that two have, that are frozen or of another model; groups whose lr
            follows no schedule.

        Raises:
            BindingError: no model, or something that is none.

        Does not synchronise.

        Example:
            >>> import torch, tensorsched as ts
            >>> model = torch.nn.Linear(2, 2)
            >>> optimizer = torch.optim.SGD([{"params": [model.weight], "name": "matrix"}, {"params": [model.bias]}])
            >>> print(*ts.attach(optimizer, lr=[ts.linear(0.1, 0.0, steps=9), None]).check(model))
            follows-nothing: the lr of group 1 follows no schedule and stays as it is
        """
        return coverage({"": self.optimizer}, models)

    def plot(self, *, steps: int | None = None, log: bool | None = None) -> list[Any]:
        """Draw every slot and free name over the steps, the current one marked, with matplotlib.

        Up to the current step that is what was used (see `used`), from there on the plan.
        What depends on live inputs is drawn with these as they are now, and labelled so.

        Args:
            steps: the last step to show; default: as far as the longest schedule needs.
            log: logarithmic value axes: True, False, or None (default) where it shows more.

        Returns:
            The matplotlib Axes, a panel for each hyperparameter and for each free name. Synchronises as `step_count`
            does.

        Raises:
            ModuleNotFoundError: matplotlib is not installed (`pip install 'tensorsched[plot]'`).
        """
        inputs = self._mode.inputs
        values = {} if inputs is None else inputs.values()
        reactive = {s.place.part for s in self.slots if s.schedule.inputs()}
        parts: dict[str, dict[Schedule, list[int]]] = {}
        now = self.position

        def fixed(schedule: Schedule) -> Schedule:
            return cast("Schedule", schedule._with_inputs(values))

        drawn: dict[Any, Schedule] = {}  # slots that followed the same all along are drawn once
        for slot in self.slots:
            part = slot.place.part + (_AS_NOW if slot.place.part in reactive else "")
            followed = self._history.followed(slot.name)
            if followed not in drawn:
                drawn[followed] = self._history.drawn(slot.name, slot.schedule, now, fixed)
            parts.setdefault(part, {}).setdefault(drawn[followed], []).append(slot.place.group)
        for name, schedule in self.free.items():
            line = self._history.drawn(name, schedule, now, fixed)
            parts[f"{name} (free){_AS_NOW if schedule.inputs() else ''}"] = {line: []}
        return list(plot_parts(parts, now, steps=steps, log=log))

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]:
        """The live inputs in the schedules by name, each a 0-dim float64 tensor; write it and the next step uses it.

        `sched.inputs["lr_scale"].fill_(0.5)`: any operation of torch in place. It is on the device of the tensor slots
        that depend on it, where a captured step reads it too; where float slots do, on the CPU (ask again after
        `compile_step`, which puts it on the device). A factor that reacts to a metric is written the same way; what
        else it remembers stays.

        Raises:
            BindingError: the schedule is detached.

        Does not synchronise.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=0.5 * ts.live("lr_scale", 1.0))
            >>> sched.inputs["lr_scale"].fill_(0.5).item()
            0.5
            >>> optimizer.step(), optimizer.param_groups[0]["lr"]
            (None, 0.25)
        """
        self._require_attached()
        inputs = self._mode.inputs
        return types.MappingProxyType({} if inputs is None else {name: inputs[name] for name in inputs.nodes})

    def observe(self, metric: Any = None, /, **metrics: Any) -> None:
        """Show a metric to what reacts to one (`ts.plateau`, `ts.greedy`, `ts.spike`): the next step uses what follows.

        Call it as often as you would call torch's ReduceLROnPlateau.step(metric): once an evaluation, once an epoch, or
        after every step. A skipped or repeated optimizer step makes no difference.

        Args:
            metric: for all of them: a number, or a tensor of one element, on any device (float32 is taken as it is).
            **metrics: for each by its `name`.

        Raises:
            BindingError: nothing reacts, no metric, an unknown name, or something that is no number. Nothing has
                changed.

        Where tensor slots depend on it, it is decided on the device and nothing synchronises; it may be part of a graph
        of yours, and of what torch.compile traces. Where float slots do, a tensor on a device is read, which waits for
        it. In a distributed run each process decides for itself, and the same if the metric is: all_reduce it first.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=0.5 * ts.plateau(factor=0.5, patience=0))
            >>> sched.observe(1.0), sched.observe(torch.tensor(2.0)), optimizer.param_groups[0]["lr"]
            (None, None, 0.25)
        """
        self._require_attached()
        inputs = self._mode.inputs
        shown_metrics = read_metrics(self._reactions(), metric, metrics)
        assert inputs is not None  # noqa: S101  something reacts
        changed = inputs.observe(shown_metrics)
        if changed and not torch.compiler.is_compiling():  # else the next step looks
            self._mode.refresh(self.optimizer.param_groups)

    def detach(self) -> None:
        """Give the optimizer back: plain floats with the current values in the groups, every hook removed.

        Where a group held a tensor before, that same tensor gets the current value. A second call does nothing.
        """
        if not self.attached:
            return
        self.attached = False
        forget(self)
        if (optimizer := self._optimizer()) is None:
            return  # gone, and with it all that there was to give back
        self._hooks.remove(optimizer)
        self._make_graphs_stale()
        where = self._mode.where
        if self._graph is not None and self._mode.in_graph:
            # Without binding: groups may have been taken away, which is a reason to detach.
            self._graph.leave(optimizer, for_good=True)
            self._mode = self._eager
            self._mode.go(where)
        groups = optimizer.param_groups
        give_back(self.slots, groups, {s.name: self._mode.at(s.name, where.position) for s in self.slots})
        self._carrier.unmark(groups, [place for place in self._places if place not in self._began_before])

    def __str__(self) -> str:
        where, mode = self._mode.where, self._mode
        values = {} if mode.inputs is None else mode.inputs.values()
        optimizer = self._optimizer()
        text = slot_table(
            self.slots,
            self.free,
            {} if mode.inputs is None else {n: (node, values[n]) for n, node in mode.inputs.nodes.items()},
            lambda name: mode.at(name, where.position),
            self._words(where),
            names=[] if optimizer is None else group_names(optimizer.param_groups),
            auto=self._options.auto,
            attached=self.attached,
        )
        return text if mode.tally is None else f"{text}\n{mode.tally.shown(mode.clocks)}"

    def __repr__(self) -> str:
        optimizer = self._optimizer()
        to = "an optimizer that is gone" if optimizer is None else type(optimizer).__name__
        return f"<Attachment of {len(self.slots)} slots to {to}>"

    def __reduce__(self) -> tuple[Any, ...]:
        self._require_attached()
        at = self._eager.slot_at
        slots = [at[place] for place in self._places]
        flags = self._graph.flags if self._graph is not None and self._mode.in_graph else []
        room = self._eager.room
        inputs = None if self._mode.inputs is None else self._mode.inputs.state()
        more = (self._mode.where, room, flags, self._history.copy(), self._stepped, inputs)
        return _again, (self.optimizer, slots, self.free, self._options, *more)

    # -- what the hooks, the modes and compiled steps call ------------------------------------------------------------

    def _bind(self) -> None:
        """Put every slot's value into the optimizer's present param_groups, whatever they hold."""
        groups = param_groups(self.optimizer)
        if len(groups) < self._group_count:
            raise other_groups(len(groups), self._group_count)
        for slot in self.slots:
            if slot.template is not None:  # a checkpoint without the key may have taken it away
                groups[slot.place.group].setdefault(slot.place.key, slot.template)
        # A group that was added, and that nobody has said anything about, is none of ours: the next check says so.
        self._bound = groups[: self._group_count]
        self._mode.bind(self.optimizer, self._bound)
        self._hooks.follow(self._mode.fast(self))

    def _group(self, group: int | str) -> int:
        return index_of_group(self.optimizer.param_groups, group) if isinstance(group, str) else group

    def _slot(self, name: str, group: int | str, element: int | None) -> Slot:
        index = self._group(group)
        found = [s for s in self.slots if s.place[:2] == (index, name) and element in (None, s.place.element)]
        if len(found) != 1:
            raise BindingError(
                f"{'no' if not found else 'more than one'} slot is {shown(name)} of group {shown(group)}"
                f"{'' if element is None else f', element {shown(element)}'}; there are {', '.join(self._schedules())}"
            )
        return found[0]

    def _column(self, name: str, group: int | str, element: int | None) -> str:
        """The name of what is, or was, scheduled there."""
        check_address(name, group, element)
        ever = self._history.names() | self._schedules().keys()
        if name in self.free or (element is None and name in ever):
            return name
        column = Place(self._group(group), name, element).name
        return column if column in ever else self._slot(name, group, element).name

    def _refuse_unknown(self, what: str, schedules: Iterable[Schedule]) -> None:
        """What steps used is not kept: it follows from the step, unless there is more that it depends on."""
        clock, live = self._options.clock, [s for s in schedules if s.inputs()]
        if clock is None and not live:
            return
        if clock is not None:
            why = f"on a clock of {clock.unit}: at which positions steps were made"
        else:
            why = f"of a schedule with live inputs ({brief(live[0])}): what these were at each step"
        raise BindingError(
            f"{what} is not known {why} is not kept; log sched.value(...) before each optimizer.step()"
        )

    def _made(self) -> int | torch.Tensor:
        """Steps that were made, of which the last may wait to be counted, by a trainer or by hand; or the position."""
        by_hand = self._hooks.active and not self._options.auto and not self._uncertain
        waits = self._stepped if by_hand else self._face is not None and self._face._stepped
        return self._mode.counter + int(waits and self._options.clock is None)

    def _say_uncounted(self) -> None:
        """Warn, once, of a step() by hand that no optimizer step came before."""
        if not self._told_uncounted:
            self._told_uncounted = True
            warnings.warn(
                f"sched.step() was called and {type(self.optimizer).__name__}.step() was not since the last time, so "
                "nothing is counted: gradients are accumulated, or GradScaler skipped the step. With advance='auto' "
                "(the default) there is nothing to call; a trainer takes sched.lr_scheduler()",
                UserWarning,
                stacklevel=3,
            )

    def _go(self, where: Where) -> None:
        """Be there, as we were told."""
        self._told, self._doubt, self._read_from = where.position, "", None
        self._stepped = self._uncertain  # a step that waits to be counted is none of those
        self._mode.go(where)
        if self._mode.tally is not None:
            self._mode.tally.moved(where)
        self._bind()
        if self._face is not None:
            self._face.moved()

    def _change(self, what: str, schedules: Mapping[str, Schedule]) -> None:
        """Follow other schedules, by column, and keep what was followed before."""
        before, step = self._schedules(), self._made()
        self._follow(schedules)
        after = {name: schedule for name, schedule in schedules.items() if schedule != before[name]}
        self._history.add(what, step, after=after)

    def _follow(self, schedules: Mapping[str, Schedule]) -> None:
        """Follow other schedules, by column, in every mode there is, at the same step."""
        inputs_of(list((self._schedules() | dict(schedules)).values()))  # two of one name are none
        in_use = self._graph is not None and self._graph.in_use
        if self._graph is not None:
            self._graph.check_rewrite({p: schedules[p.name] for p in self._places if p.name in schedules})
        modes = [self._eager] if self._graph is None else [self._eager, self._graph]
        for commit in [mode.rewrite(schedules, grow=not in_use) for mode in modes]:
            commit()
        self.free |= {name: schedules[name] for name in self.free.keys() & schedules.keys()}
        self._known_as = None
        self._bind()

    def _settle(self) -> None:
        """A check has failed: name the slot that somebody wrote to, or find that all is as it should be.

        A write of the same value is no harm, and groups that are new may be adopted.

        Raises:
            BindingError: a slot holds something else, or a param_group was added and nothing says what it gets.
                Nothing has changed.
        """
        self._require_attached()
        groups = self._whole(self.optimizer.param_groups)
        self._refuse_other_groups(groups)
        where, mode = self._mode.where, self._mode
        for slot in self.slots:
            expected = mode.at(slot.name, where.position)
            if not holds(slot, groups, expected, mode.expected(slot)):
                if self._left_to_swalr():
                    return
                raise displaced(slot, groups, expected, self._words(where))
        for name in self.free:
            found, expected = mode.free_value(name).item(), mode.at(name, where.position)
            if not same_number(found, expected):
                raise BindingError(
                    f"free: somebody wrote to {name!r}: at {self._words(where)} its schedule has {expected!r} and it "
                    f"holds {found!r}. Its tensor is for reading (clone() it to change it); seek({where.position}) "
                    "puts the value back"
                )
        if groups is self._bound:
            return  # the others are put aside for the moment, and this is not the time to bind
        if len(groups) > self._group_count:
            self._adopt(groups)
        self._mode.go(where)
        self._bind()

    def _left_to_swalr(self) -> bool:
        """Detach, and leave the values that there are, if torch's SWALR is there and has all that we have."""
        where, slots, groups = self._mode.where, self.slots, self._bound
        if self.free or not all(taken_over(slot, groups) for slot in slots):
            return False
        held = [as_float(slot.place.read(groups)) for slot in slots]
        self.detach()
        for slot, value in zip(slots, held, strict=True):
            if value is not None:
                slot.place.fill(groups, value)
        warnings.warn(
            f"SWALR has taken over lr at {self._words(where)}, and the schedule is detached; before a run is resumed "
            "from here, attach no schedule to lr",
            UserWarning,
            stacklevel=2,
        )
        return True

    def _whole(self, groups: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """All groups, where a trainer steps some of them at a time (DeepSpeed's ZeRO); otherwise these."""
        some = self._face is not None and 0 < len(groups) < self._group_count
        return self._bound if some and all(any(g is b for b in self._bound) for g in groups) else groups

    def _advance(self, found_inf: torch.Tensor | None) -> None:
        """One step further, unless the tensor is not 0."""
        self._require_attached()
        groups = self.optimizer.param_groups
        try:
            if self._mode.advance(groups, found_inf) is False:
                self._settle()
                self._mode.advance(groups, found_inf)
        except KeyboardInterrupt:
            self._resynchronise()
            raise

    def _now(self, key: str, step: int) -> list[float]:
        """What each group has under a key at `step`, the present one: of a tensor what its table says.

        On a clock it synchronises as `position` does.
        """
        position = step if self._options.clock is None else self.position
        tensors = {
            slot.place: slot for slot in self.slots if (slot.tensor or slot.filled) and slot.place.key == key
        }
        groups = self.optimizer.param_groups
        return [
            self._mode.at(tensors[place].name, position)
            if (place := Place(index, key)) in tensors
            else as_float(group[key]) or 0.0
            for index, group in enumerate(groups)
        ]

    def _resynchronise(self) -> None:
        """A step was interrupted half-way: all counters and slots go to the step that one of them has reached."""
        furthest = max(self._mode.parts, key=lambda part: part.engine.step_count)
        self._mode.go(furthest.engine.where)
        self._bind()

    def _drives(self, optimizer: object) -> bool:
        return self._optimizer() is optimizer

    def _saved(self, groups: Sequence[dict[str, Any]]) -> None:
        saved(self, groups)

    def _loaded(self) -> None:
        loaded(self)

    def _say(self) -> None:
        """Warn, once and before it matters, of what a checkpoint left in doubt; look once at who makes steps."""
        if self._unseen:
            if self._face is None:
                refuse_pieces(self.optimizer, self._group_count)
            self._unseen = False
            self._hooks.follow(self._mode.fast(self))
        if self._doubt:
            doubt, self._doubt = self._doubt, ""
            self._hooks.follow(self._mode.fast(self))
            warnings.warn(doubt, UserWarning, stacklevel=2)

    def _reactions(self) -> list[str]:
        return [] if self._mode.inputs is None else list(self._mode.inputs.reactions)

    def _numbered(self) -> list[str]:
        return [] if self._mode.inputs is None else self._mode.inputs.names()

    def _originals(self) -> dict[Place, Any]:
        return {slot.place: slot.original for slot in self.slots}

    def _next(self) -> Where:
        """Where the next optimizer step stands, also if a trainer has yet to count the one that was made."""
        return self._mode.where.after(0 if self._face is None else self._face.pending)

    def _fingerprint(self) -> int:
        if self._known_as is None:
            self._known_as = fingerprint_of(self._schedules(), self._options.clock)
        return self._known_as

    def _make_graphs_stale(self) -> None:
        """What compiled steps know of this optimizer is no longer so."""
        if self._graph is not None:
            self._graph.make_stale()

    def _use(self, mode: Mode, where: Where | None = None) -> None:
        """Be in another mode, at the same place, which is read from the one before where it is not given."""
        if mode.inputs is not None and self._mode.inputs is not None:
            mode.inputs.follow(self._mode.inputs)
        if mode.parts != self._mode.parts:  # else the same engines count on
            mode.go(self._mode.where if where is None else where)
        self._mode = mode
        self._bind()

    def _use_eager(self, *, for_good: bool = False) -> None:
        """Be in eager mode, for a step or for good."""
        if self._graph is not None and self._mode.in_graph:
            self._use(self._eager, self._graph.leave(self.optimizer, for_good=for_good))

    def _take_in_new_groups(self) -> None:
        """Adopt late groups now where `new_groups` says how (otherwise the next step raises); refuse lost ones."""
        if self._optimizer() is None:
            return  # gone: what it held can still be saved
        groups = self.optimizer.param_groups
        self._refuse_other_groups(groups)
        if self._options.new_groups is not None and len(groups) > self._group_count:
            self._adopt(groups)

    def _adopt(self, groups: Sequence[dict[str, Any]]) -> None:
        """Schedule the hyperparameters of groups that were added since, as `new_groups` says."""
        self._require_attached()
        take_in(
            self, groups, read_late(groups, self._group_count, self._options.new_groups, self._options.total)
        )

    def _refuse_other_groups(self, groups: Sequence[dict[str, Any]]) -> None:
        refuse_other_groups(self._bound, groups)

    def _state(self, where: Where) -> dict[str, Any]:
        inputs = None if self._mode.inputs is None else self._mode.inputs.state()
        return write_state(where.steps, self._schedules(), self._history, inputs) | write_clock(
            self._options.clock, where
        )

    def _words(self, where: Where) -> str:
        clock = self._options.clock
        return f"step {where.steps}" + ("" if clock is None else f", {clock.unit} {where.position:,}")

    def _schedules(self) -> dict[str, Schedule]:
        return {slot.name: slot.schedule for slot in self.slots} | self.free

    def _require_attached(self) -> None:
        if not self.attached:
            raise BindingError("this schedule is detached and controls nothing; attach() again")


def _weakly(optimizer: Any) -> Callable[[], Any]:
    """A reference that does not keep an optimizer alive that holds us by its hooks: the two would wait in a circle."""
    return weakref.ref(optimizer) if has_hooks(optimizer) else lambda: optimizer


def _again(  # noqa: PLR0917  pickle's
    optimizer: Any,
    slots: Sequence[Slot],
    free: Mapping[str, Schedule],
    options: Options,
    where: Where,
    room: int,
    flags: Sequence[dict[str, Any]],
    history: History,
    stepped: bool,  # noqa: FBT001
    inputs: Mapping[str, Any] | None = None,
) -> Attachment:
    """An attachment from its copied or unpickled parts, at its step, with the same room for other schedules."""
    put_back(optimizer.param_groups, flags)  # no compiled step is copied with it
    attachment = Attachment(optimizer, slots, free, dataclasses.replace(options, capacity=room))
    attachment._optimizer = lambda: optimizer  # copied with it: perhaps nobody else holds this one
    if attachment._mode.inputs is not None:
        attachment._mode.inputs.load(attachment._mode.inputs.read(inputs))
    attachment._options = options  # groups that are added later are not bound to that room
    attachment._go(where)
    attachment._history, attachment._stepped = history, stepped
    return attachment
