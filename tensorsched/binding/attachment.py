"""Attachment: the schedules on one optimizer, from `attach` on."""

from __future__ import annotations

import dataclasses
import types
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch

from tensorsched.binding.arguments import read_free, read_metrics, with_total
from tensorsched.binding.callers import refuse_pieces
from tensorsched.binding.carried import Carrier, fingerprint_of
from tensorsched.binding.checkpoint import read_state, write_state
from tensorsched.binding.clocked import Tally, check_counted, write_clock
from tensorsched.binding.coverage import coverage
from tensorsched.binding.doors import named_only
from tensorsched.binding.group_names import group_names, index_of_group
from tensorsched.binding.hooks import Hooks, has_hooks
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
from tensorsched.binding.resuming import go_on_from, loaded, saved
from tensorsched.binding.slots import Slot, displaced, give_back, holds, same_number, taken_over
from tensorsched.binding.summary import slot_table
from tensorsched.engine import Where
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place, as_float, param_groups, put_back
from tensorsched.schedules import Schedule
from tensorsched.schedules.check import Finding
from tensorsched.schedules.split import bounded, inputs_of
from tensorsched.schedules.validators import MAX_STEPS, check_count
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
        self._unseen = options.auto  # no step has been made yet: who makes it is looked at once
        self._told = -1  # the step, or position, at which the user last said where to go on
        carried, numbers = self._carrier.read(groups), self._carrier.read_inputs(groups)
        self._began_before = begun(self._places, groups)
        self._hooks = Hooks()
        self._bind()
        self._hooks.register(optimizer, self, auto=options.auto)
        if self._hooks.active:
            self._carrier.mark(groups, self._originals(), self._numbered())
        go_on_from(self, carried, numbers)
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
        """Completed optimizer steps. Synchronises where all slots are tensor slots on a device that is no CPU."""
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
            BindingError: no such slot or group.

        Does not synchronise.
        """
        if name in self.free:
            return self._mode.free_value(name)
        index = index_of_group(self.optimizer.param_groups, group) if isinstance(group, str) else group
        found = [s for s in self.slots if s.place[:2] == (index, name) and element in (None, s.place.element)]
        if len(found) != 1:
            raise BindingError(
                f"{'no' if not found else 'more than one'} slot is {name!r} of group {group}"
                f"{'' if element is None else f', element {element}'}; there are {', '.join(self._schedules())}"
            )
        return self._mode.expected(found[0])

    def step(self) -> None:
        """Advance by one step (only with advance="manual"), after `optimizer.step()`. Does not synchronise.

        With a GradScaler prefer advance="auto": a step that it skipped on the host is not seen from here.

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
        if not self._hooks.active and not self._mode.check(self.optimizer.param_groups):
            self._settle()
        self._advance(self._found_inf)
        self._found_inf = None

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
        if self._options.clock is None:
            self._go(Where.at_step(at))
        else:
            self._go(Where(at, self.step_count, at))

    def _go(self, where: Where) -> None:
        """Be there, as we were told."""
        self._told, self._doubt = where.position, ""
        self._mode.go(where)
        if self._mode.tally is not None:
            self._mode.tally.moved(where)
        self._bind()
        if self._face is not None:
            self._face.moved()

    def state_dict(self) -> dict[str, Any]:
        """The step counter and the schedules that it counts for: plain numbers, strings, lists and dicts.

        Loads with `torch.load(weights_only=True)`, on any device. Synchronises as `step_count` does.
        """
        self._take_in_new_groups()
        return self._state(self._next())

    def load_state_dict(self, state: Mapping[str, Any], *, on_mismatch: str | None = None) -> None:
        """Continue from a saved step. The order with `optimizer.load_state_dict` does not matter.

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
        where, schedules, cells = read_state(state, self._schedules(), how, self._options.clock)
        if schedules:
            self._follow(schedules)
        if self._mode.inputs is not None:
            self._mode.inputs.load(cells)
        self._go(where)

    @named_only("sched.rewrite(lr={})")
    def rewrite(self, *, free: Mapping[str, Schedule | float] | None = None, **hyperparameters: Any) -> None:
        """Follow other schedules from now on, at the same step: extend a run, cool down now, change the peak.

        The tables are overwritten in place, so compiled steps and captured graphs go on with the new values, without
        recompiling or capturing again. Steps are counted from the start of the run as before: to cool down from here,
        pass `old.take(now) >> ts.linear(old(now), 0.0, steps=1000)` with `now = sched.step_count`.

        Args:
            free: other schedules for names that were given to `attach` as `free`.
            **hyperparameters: as for `attach`, for slots that have a schedule; the others keep theirs. `ts.initial` is
                what the group held when it was attached.

        Raises:
            BindingError: a slot or name that has no schedule yet, or a value that does not fit. Nothing has changed.
            ScheduleError: the schedules change later than the tables reach (`attach(..., capacity=steps)`), or slots
                that share a column of the table, because their schedules are equal, would get different ones. Nothing
                has changed.

        Synchronises where a slot is a tensor slot on a device that is no CPU: the table is copied there.

        Example:
            >>> import torch, tensorsched as ts
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
            >>> sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4), capacity=8)
            >>> optimizer.step()
            >>> sched.rewrite(lr=ts.linear(1.0, 0.0, steps=8)), sched.step_count, optimizer.param_groups[0]["lr"]
            (None, 1, 0.875)
        """
        self._require_attached()
        self._take_in_new_groups()
        steps, total = self._options.steps, self._options.total
        schedules = read_rewrite(self.optimizer, self.slots, with_total(hyperparameters, total), steps)
        names = read_free(param_groups(self.optimizer), with_total(free, total)) if free is not None else {}
        if unknown := names.keys() - self.free.keys():
            raise BindingError(
                f"free: {min(unknown)!r} was not given to attach(), so nothing holds its value"
            )
        names = {name: bounded(schedule, steps) for name, schedule in names.items()}
        if not schedules and not names:
            raise BindingError(
                "rewrite() was given nothing to schedule; pass for example lr=ts.constant(1e-4)"
            )
        self._follow({place.name: schedule for place, schedule in schedules.items()} | names)

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
        for slot in self.slots:
            part = slot.place.part + (_AS_NOW if slot.place.part in reactive else "")
            drawn = cast("Schedule", slot.schedule._with_inputs(values))
            parts.setdefault(part, {}).setdefault(drawn, []).append(slot.place.group)
        for name, schedule in self.free.items():
            drawn = cast("Schedule", schedule._with_inputs(values))
            parts[f"{name} (free){_AS_NOW if schedule.inputs() else ''}"] = {drawn: []}
        return list(plot_parts(parts, self.position, steps=steps, log=log))

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
        return _again, (
            self.optimizer,
            slots,
            self.free,
            self._options,
            self._mode.where,
            room,
            flags,
            inputs,
        )

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

    def _follow(self, schedules: Mapping[str, Schedule]) -> None:
        """Follow other schedules, by column, in every mode there is, at the same step."""
        inputs_of(list((self._schedules() | dict(schedules)).values()))  # two of one name are none
        if self._graph is not None:
            self._graph.check_rewrite({p: schedules[p.name] for p in self._places if p.name in schedules})
        modes = [self._eager] if self._graph is None else [self._eager, self._graph]
        for commit in [mode.rewrite(schedules) for mode in modes]:
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
        return write_state(where.steps, self._schedules(), inputs) | write_clock(self._options.clock, where)

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
    return attachment
