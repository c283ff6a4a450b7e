"""What holds an optimizer's slots to their schedules: called by the hooks, by compiled steps and by Attachment."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.arguments import Request, as_float, param_groups, read_requests
from tensorsched.binding.hooks import Hooks, displaced
from tensorsched.binding.placement import Options, engine_device, place_slot
from tensorsched.binding.slots import Slot, held, put
from tensorsched.binding.wiring import Wiring
from tensorsched.compiled.graph_mode import GraphMode
from tensorsched.engine.tabulate import bounded
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import check_count, shown

__all__ = ["Controls", "attachments_of", "forget", "refuse_claimed"]

_ATTACHMENTS: weakref.WeakSet[Controls] = weakref.WeakSet()
_LOCK = threading.Lock()  # of the set above: optimizers may be attached from several threads


def attachments_of(optimizer: object) -> list[Controls]:
    """All that control this optimizer."""
    with _LOCK:
        return [attachment for attachment in _ATTACHMENTS if attachment.optimizer is optimizer]


def forget(attachment: Controls) -> None:
    """It controls its optimizer no longer."""
    with _LOCK:
        _ATTACHMENTS.discard(attachment)


def refuse_claimed(optimizer: object, requests: Sequence[Request]) -> None:
    """One slot has one schedule.

    Raises:
        BindingError: another attachment has a schedule for one of these.
    """
    claimed = {slot.place for other in attachments_of(optimizer) for slot in other.slots}
    for request in requests:
        if request.place in claimed:
            raise BindingError(
                f"{request.name} already follows the schedule of another attachment; call detach() on that one first "
                "(ts.detach(optimizer) detaches all), or give this one other keys"
            )


class Controls:
    """The slots of an optimizer, the wiring that feeds them, and the hooks that move it."""

    def __init__(
        self, optimizer: Any, slots: Sequence[Slot], free: Mapping[str, Schedule], options: Options
    ) -> None:
        self.optimizer = optimizer
        self.free = {name: bounded(schedule, options.steps) for name, schedule in free.items()}
        self.found_inf: torch.Tensor | None = None  # of the last optimizer.step(), for step() by hand
        self._options = options
        self._suspect = False
        # Everything that can fail comes first; the optimizer is touched by bind() and the hooks alone.
        if clash := self.free.keys() & {slot.name for slot in slots}:
            raise BindingError(f"free: {min(clash)!r} is the name of a slot; rename it")
        groups = param_groups(optimizer)
        self._wiring = self._eager = Wiring.build(slots, self.free, engine_device(groups), options.capacity)
        self._places = [slot.place for slot in slots]
        self._group_count = len(groups)
        self._graph: GraphMode | None = None
        self._before_graph: Wiring | None = None  # the graph wiring of fewer groups
        self.graph_users: weakref.WeakSet[Any] = weakref.WeakSet()  # the compiled steps that are not released
        self.has_graph = False  # whether there is a wiring for graphs
        self.graph_active = (
            False  # whether the groups hold what graphs read; a graph of the user's own looks at it
        )
        self.in_graph_step = False  # set while a compiled step runs between the optimizer's hooks
        self.generation = 0  # counts what makes a graph of the step stale
        self.attached = True
        self.bind()
        self._hooks = Hooks(optimizer, self, auto=options.auto)
        for other in attachments_of(optimizer):
            other.generation += 1  # a compiled step of it must look again at what else is there
        with _LOCK:
            _ATTACHMENTS.add(self)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every scheduled (group, key, element), where it lives and why."""
        at = self._wiring.slot_at
        return tuple(at[place] for place in self._places)

    @property
    def step_count(self) -> int:
        """Completed optimizer steps. Synchronises where all slots are resident on a device that is no CPU."""
        return self._wiring.step_count

    @property
    def advances_by_itself(self) -> bool:
        """Whether it was attached with advance="auto"."""
        return self._options.auto

    @property
    def writes_floats(self) -> bool:
        """Whether there are host slots, which the next advance will overwrite."""
        return self._wiring.writes_floats

    def seek(self, step: int) -> None:
        """Continue as if `step` steps had been completed; the groups hold that step's values at once.

        Raises:
            ScheduleError: step is negative or not an int.
            BindingError: the schedule is detached.
        """
        self._require_attached()
        at = check_count("seek: step", step)
        self.take_in_new_groups()
        self._wiring.seek(at)
        self.bind()

    def bind(self) -> None:
        """Put every slot's value into the optimizer's present param_groups, whatever they hold."""
        groups = param_groups(self.optimizer)
        if len(groups) < self._group_count:
            raise self._other_groups(len(groups))
        for slot in self.slots:
            if slot.template is not None:  # a checkpoint without the key may have taken it away
                groups[slot.request.group].setdefault(slot.request.key, slot.template)
        self._wiring.bind(groups)
        if self._graph is not None and self.graph_active:
            self._graph.enter(groups)

    def loaded(self) -> None:
        """The optimizer's groups and state were replaced by a checkpoint's."""
        self.generation += 1
        self.bind()

    def verify(self) -> None:
        """Check that the slots hold what was put there, and take in groups that are new.

        Raises:
            BindingError: a slot holds something else, or a param_group was added and nothing says what it gets.
                Nothing has changed.
        """
        groups = self.optimizer.param_groups
        if len(groups) != self._group_count:
            self._adopt(groups)
        try:
            intact = not self._suspect and self._wiring.intact(groups)
        except (KeyError, IndexError, TypeError):  # a key, or an element of a tuple, is gone
            intact = False
        if not intact:
            self._name_displaced(groups)

    def refuse_frozen_capture(self) -> None:
        """Check that every replay of the step that is being captured will use new values, and train every parameter.

        Raises:
            BindingError: a slot is a float on the host, or a parameter has no gradient yet.
        """
        if self.graph_active and not self.in_graph_step:
            raise BindingError(
                "optimizer.step() is being captured while a compiled step has the values; capture that step "
                "(step() in the place of optimizer.step()), or call step.release() first"
            )
        for slot in self.slots:
            if not slot.resident:
                raise BindingError(
                    f"{slot.name} is a host slot ({slot.why}): a CUDA graph would replay today's value for ever. Use "
                    "ts.compile_step(sched), which keeps every value on the device, or build the optimizer with "
                    "capturable=True and attach again"
                )
        for index, group in enumerate(self.optimizer.param_groups):
            for number, parameter in enumerate(group["params"]):
                if parameter.requires_grad and parameter.grad is None:
                    raise BindingError(
                        f"parameter {number} of group {index}, of shape {tuple(parameter.shape)}, requires grad and "
                        "has no .grad yet: the CUDA graph would leave it out of every replay. Run a backward pass "
                        "before the capture (and zero_grad(set_to_none=False) after it), or set requires_grad=False"
                    )

    def advance(self, found_inf: torch.Tensor | None = None) -> None:
        """Count one step and fill the slots, unless `found_inf` is not 0; after a step in a graph, which did both."""
        if self.in_graph_step:
            for engine in self._wiring.engines:
                engine.written()
        else:
            self._wiring.advance(found_inf)

    def write_plain(self, groups: Sequence[dict[str, Any]]) -> None:
        """Replace the live views in the groups of a state_dict by the floats that they stand for."""
        if self._graph is not None and self.graph_active:
            self._graph.write_plain(groups)
        on_device = [slot for slot in self.slots if slot.resident and slot.request.group < len(groups)]
        step = self.step_count if on_device else 0
        for slot in on_device:
            put(groups[slot.request.group], slot.request.key, slot.request.element, slot.schedule(step))

    def take_in_new_groups(self) -> None:
        """Adopt late groups now where `new_groups` says how (otherwise the next step raises); refuse lost ones."""
        groups = self.optimizer.param_groups
        if len(groups) < self._group_count:
            raise self._other_groups(len(groups))
        if self._options.new_groups is not None and len(groups) > self._group_count:
            self._adopt(groups)

    def use_graph(self, why: str) -> Wiring:
        """Make every slot resident, for steps that run in a graph.

        Eager steps in between go back for their duration (`resume_graph`), until no compiled step is left.

        Raises:
            BindingError: it is detached.
        """
        self._require_attached()
        if self._graph is None:
            device = engine_device(self.optimizer.param_groups)
            self._graph = GraphMode(self.optimizer, self._eager.on_device(device, why, self._before_graph))
            self.has_graph = True
        if not self.graph_active:
            step = self.step_count
            self._wiring, self.graph_active = self._graph.wiring, True
            self.seek(step)
        return self._wiring

    def resume_graph(self) -> None:
        """After an eager step: back to where compiled steps, and graphs of the user's own, find the values."""
        if self.graph_users and self._graph is not None and self.attached:
            self.use_graph("")

    def use_eager(self, *, for_good: bool = False) -> None:
        """Put the slots back where they were before `use_graph`, at the same step."""
        if self._graph is not None and self.graph_active:
            step = self.step_count
            self._graph.leave(self.optimizer, for_good=for_good)
            self._wiring, self.graph_active = self._eager, False
            self._wiring.seek(step)
            self._wiring.bind(self.optimizer.param_groups[: self._group_count])

    def hide_graph(self, *, hidden: bool) -> None:
        """For the step by which distributed checkpointing makes state: without the flags that eager steps refuse."""
        if self._graph is not None and self.graph_active:
            if hidden:
                self._graph.write_plain(self.optimizer.param_groups)
            else:
                self._graph.enter(self.optimizer.param_groups)

    def _adopt(self, groups: Sequence[dict[str, Any]]) -> None:
        """Schedule the hyperparameters of groups that were added since, as `new_groups` says."""
        self._require_attached()
        first, rule = self._group_count, self._options.new_groups
        if rule is None or len(groups) < first:
            raise self._other_groups(len(groups))
        device = engine_device(groups)
        slots: list[Slot] = []
        for index in range(first, len(groups)):
            wanted = rule(groups[index]) if callable(rule) else rule
            if not isinstance(wanted, Mapping):
                raise BindingError(f"new_groups must give a dict for group {index}, got {shown(wanted)}")
            alone = {key: [None] * index + [value] for key, value in wanted.items() if value is not None}
            requests = read_requests(groups[: index + 1], alone) if alone else []
            refuse_claimed(self.optimizer, requests)
            slots += [place_slot(self.optimizer, groups[index], r, self._options, device) for r in requests]
        wiring = self._eager.extended(slots, device, self._options.capacity)
        step = self.step_count
        self.use_eager()
        wiring.seek(step)
        self._wiring = self._eager = wiring
        if self._graph is not None:  # the next one goes on with its tensors: somebody may hold them
            self._before_graph, self._graph = self._graph.wiring, None
        self._places += [slot.place for slot in slots]
        self._group_count = len(groups)
        self.generation += 1
        self.bind()

    def _other_groups(self, count: int) -> BindingError:
        way_out = "call detach() and attach() again"
        if count > self._group_count:
            way_out = (
                "pass new_groups={'lr': schedule, ...} (or a function of the group that returns such a dict) to "
                f"attach(), or {way_out}"
            )
        return BindingError(
            f"the optimizer has {count} param_groups and had {self._group_count} when the schedule was attached; "
            f"{way_out}"
        )

    def _name_displaced(self, groups: Sequence[dict[str, Any]]) -> None:
        """Find the slot that holds something else than its value, and raise; a write of the same value is no harm."""
        self._require_attached()
        self._suspect = True  # until every slot has been found to be right
        step = self.step_count
        for slot in self.slots:
            index, key, element = slot.place
            try:
                found = held(groups[index], key, element)
            except (KeyError, IndexError, TypeError):
                found = None
            expected, number = slot.schedule(step), as_float(found)
            same = (
                found is self._wiring.expected(slot) if slot.resident else not isinstance(found, torch.Tensor)
            )
            # Two float32 roundings: what is read from a resident slot has one, and so may what was written.
            near = number is not None and abs(number - expected) <= abs(expected) * 2**-23 + 2**-149
            if not (same and near):
                raise displaced(slot.name, expected, found, step)
        self._suspect = False
        self.seek(step)

    def _schedules(self) -> dict[str, Schedule]:
        return {slot.name: slot.schedule for slot in self.slots} | self.free

    def _require_attached(self) -> None:
        if not self.attached:
            raise BindingError("this schedule is detached and controls nothing; attach() again")
