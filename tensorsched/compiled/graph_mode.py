"""Graph mode: what an optimizer needs while its steps run in a compiled graph, and what is undone afterwards.

slots       all of them tensor slots: a graph would keep a Python float for ever
capturable  True in every group: the implementations that never read a value on the host. Eager steps on a CPU refuse
            it, which is why it is undone for them
foreach     False in the groups where it would read a scheduled value on the host (`Record.one_graph`)
state       all of it on the device; torch's own steps keep counts on the host, where they go with the flags (state.py)
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch

from tensorsched.binding.attachment import Attachment
from tensorsched.binding.capture import refuse_frozen_capture
from tensorsched.binding.known import record_of
from tensorsched.binding.modes import Driving, HandedMode, Mode
from tensorsched.binding.movers import Groups
from tensorsched.binding.parts import FloatSlots, TensorSlots, tensor_slots
from tensorsched.binding.placement import live_device
from tensorsched.binding.reactive_parts import (
    Part,
    ReactiveFloatSlots,
    ReactiveTensorSlots,
    reactive_tensor_slots,
)
from tensorsched.binding.slots import Slot
from tensorsched.compiled.state import State, bring_to_host
from tensorsched.compiled.supported import refuse_zero_momentum
from tensorsched.engine import Inputs, Where, tabulate
from tensorsched.errors import BindingError
from tensorsched.param_groups import entries, put_back
from tensorsched.schedules import Schedule

__all__ = ["GraphMode", "enter"]

_WHY = "ts.compile_step reads every value on the device"


class User(Protocol):
    """A compiled step, as its mode sees it."""

    def _remake(self) -> None: ...  # built anew now: functions that users compile have traced the old one

    def _make_stale(self) -> None:
        """Be built anew before the next step."""


class GraphMode(HandedMode):
    """Between the compiled steps of an attachment: the groups hold what graphs read, and the flags that go with it.

    Args:
        sched: the attachment.
        before: its graph mode of fewer groups, whose tensors stay what they are: somebody may hold them.
    """

    in_graph = True

    def __init__(self, sched: Attachment, before: GraphMode | None) -> None:
        self.eager = sched._eager
        self._kind, self._clock = type(sched.optimizer), sched._options.clock
        device = live_device(sched.optimizer.param_groups)
        known = {} if before is None else {_followed(part): part for part in before.parts}
        inputs = self.eager.inputs if before is None or before.inputs is None else before.inputs
        if inputs is not None and inputs.device != device:
            inputs = Inputs(inputs.nodes, device)
        elif inputs is not None and self.eager.inputs is not None:
            inputs.extend(self.eager.inputs.nodes)
        super().__init__(_on_device(self.eager.parts, device, known, inputs), self.eager.tally)
        self.decays = self.eager.decays  # of eager steps; the graph has weight_decay among its values
        self._state: State = State() if before is None else before._state
        self.users: weakref.WeakSet[User] = weakref.WeakSet() if before is None else before.users
        self.stepping = InGraphStep(self)
        self.captured = before is not None and before.captured  # by the user, whose graph reads its tensors
        self.outdated = False
        fits = record_of(sched.optimizer).one_graph or frozenset()
        self._loops = {place.group for place in self.slot_at if place.part not in fits}
        self._own: list[tuple[dict[str, Any], dict[str, Any]]] = []  # of each group: its dict, its own flags

    def bind(self, optimizer: Any, groups: Groups) -> None:
        """Put the live views into the groups and set the flags, those of groups that a checkpoint replaced too."""
        super().bind(optimizer, groups)
        self._left_at = None if self.eager.inputs is None else self.eager.inputs.version
        self._enter(optimizer)

    def refresh(self, groups: Groups) -> None:
        """As in any mode.

        Raises:
            BindingError: an input of the eager mode, which compiled steps do not read, was written.
        """
        before = self.eager.inputs
        if before is not None and before is not self.inputs and before.version != self._left_at:
            self._left_at = before.version
            raise BindingError(
                "a live input was written through a tensor that sched.inputs gave before compile_step(): compiled "
                "steps have their inputs on the device, and do not read it; ask sched.inputs again and write that one"
            )
        super().refresh(groups)

    def before_step(self, sched: Driving) -> None:
        """The optimizer is stepped eagerly, which needs its own flags: leave for that long (see `resume`)."""
        self.before_closure(sched)
        sched._mode.decay(sched.optimizer)

    def before_closure(self, sched: Driving) -> None:
        """The same, without a decay."""
        sched._say()
        self.require_counted()
        self.refresh(sched.optimizer.param_groups)
        if not self.check(sched.optimizer.param_groups):
            sched._settle()
        sched._use_eager()

    def after_step(self, sched: Driving, found_inf: torch.Tensor | None) -> None:
        """An eager step that entered this mode in between; it has been counted by nobody."""
        self.move(sched, found_inf)

    def before_capture(self, sched: Driving) -> None:  # noqa: ARG002  of the other modes
        """An eager step would be captured, with values that belong to compiled ones.

        Raises:
            BindingError: always.
        """
        raise BindingError(
            "optimizer.step() is being captured while a compiled step has the values; capture that step "
            "(step() in the place of optimizer.step()), or call step.release() first"
        )

    def saved(self, groups: Sequence[dict[str, Any]]) -> None:
        """Put the groups' own flags into those of a state_dict."""
        put_back(groups, self.flags)

    def saved_state(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        """Put what torch's own step reads on the host into the state_dict as copies there. Synchronises for them."""
        bring_to_host(optimizer, state_dict)

    def hide(self, optimizer: Any, *, hidden: bool) -> None:
        """For the step by which distributed checkpointing makes state: without the flags that eager steps refuse."""
        if hidden:
            put_back(optimizer.param_groups, self.flags)
        else:
            self._enter(optimizer)

    def resume(self, sched: Attachment) -> None:
        """After an eager step: back to where compiled steps, and graphs of the user's own, find the values."""
        if self.users and sched.attached:
            enter(sched)

    def make_stale(self) -> None:
        """Compiled steps are built anew before they run again."""
        for step in self.users:
            step._make_stale()

    def remake(self) -> None:
        """What compiled steps read is in other tensors from now on: each is compiled once more."""
        self.outdated = True
        for step in list(self.users):
            step._remake()

    def check_rewrite(self, moved: Sequence[tuple[Slot, Schedule]]) -> None:
        """Refuse schedules that a compiled step's graph cannot follow.

        Raises:
            BindingError: a momentum touches 0.
        """
        if self.users:
            for slot, schedule in moved:
                refuse_zero_momentum(self._kind, slot, schedule, self._clock)

    @property
    def in_use(self) -> bool:
        """Whether there is a compiled step."""
        return bool(self.users)

    @property
    def flags(self) -> list[dict[str, Any]]:
        """Each group's own flags."""
        return [own for _, own in self._own]

    def _enter(self, optimizer: Any) -> None:
        before, self._own = self._own, []
        for index, group in enumerate(optimizer.param_groups):
            flags: dict[str, Any] = {"capturable": True}
            if index in self._loops and "foreach" in group:
                flags["foreach"] = False
            entered = index < len(before) and before[index][0] is group
            self._own.append((group, before[index][1] if entered else entries(group, flags)))
            group.update(flags)
        self._state.enter(optimizer)

    def leave(self, optimizer: Any, *, for_good: bool) -> Where | None:
        """Give the groups their flags back, and torch's own step the counts that it reads on the host.

        Returns:
            Where it stands, read in the same copy; None, and nothing was read, where no float slot needs it.
        """
        put_back(optimizer.param_groups, self.flags)
        self._own = []
        for each in self.engines:
            each.driver.lose_count()
        engine = self.engines[0]
        read = self._state.leave(optimizer, engine.clock, for_good=for_good, clocked=self.eager.floats)
        return None if read is None else engine.where_from(read)


class InGraphStep(Mode):
    """A compiled step is running, between the optimizer's hooks: the graph counts and fills by itself."""

    in_graph = True

    def __init__(self, graph: GraphMode) -> None:
        super().__init__(graph.parts, graph.tally)
        self._graph = graph

    def bind(self, optimizer: Any, groups: Groups) -> None:
        """As in graph mode."""
        self._graph.bind(optimizer, groups)

    def before_step(self, sched: Driving) -> None:
        """Check every slot."""
        sched._say()
        self.require_counted()
        self._graph.refresh(sched.optimizer.param_groups)
        if not self._graph.check(sched.optimizer.param_groups):
            sched._settle()

    def after_step(self, sched: Driving, found_inf: torch.Tensor | None) -> None:  # noqa: ARG002
        """What live holds now was written by the graph."""
        for engine in self.engines:
            engine.written()
        if self.tally is not None:
            self.tally.fresh = False

    def before_capture(self, sched: Driving) -> None:
        """Every slot is a tensor; parameters may still lack a gradient."""
        refuse_frozen_capture(sched.optimizer, self.slot_at.values())
        self._graph.captured = True

    def saved_state(self, optimizer: Any, state_dict: dict[str, Any]) -> None:
        """As in graph mode."""
        bring_to_host(optimizer, state_dict)

    def saved(self, groups: Sequence[dict[str, Any]]) -> None:
        """As in graph mode: a hook of somebody else saves during the step."""
        self._graph.saved(groups)

    def hide(self, optimizer: Any, *, hidden: bool) -> None:
        """As in graph mode."""
        self._graph.hide(optimizer, hidden=hidden)


def enter(sched: Attachment) -> GraphMode:
    """Put an attachment into graph mode, for steps that run in a graph, at the step where it is.

    Eager steps in between go back for their duration, until no compiled step is left.

    Raises:
        BindingError: it is detached.
    """
    sched._require_attached()
    sched._take_in_new_groups()
    graph = sched._graph
    # None, or other parts are there since, or groups were adopted.
    if not isinstance(graph, GraphMode) or graph.outdated or graph.eager is not sched._eager:
        graph = sched._graph = GraphMode(sched, graph if isinstance(graph, GraphMode) else None)
    if not sched._mode.in_graph:
        sched._use(graph)
    return graph


def _followed(part: Part) -> tuple[tuple[str, Schedule], ...]:
    held = part.engine if isinstance(part, (ReactiveFloatSlots, ReactiveTensorSlots)) else part.engine.table
    return tuple((name, held.schedules[name]) for name in part.columns)


def _on_device(
    parts: Iterable[Part],
    device: torch.device,
    known: Mapping[tuple[tuple[str, Schedule], ...], Part],
    inputs: Inputs | None,
) -> list[Part]:
    """The parts with every slot a tensor slot; those that are `known` already are what they were.

    Float slots join the tensor slots that were bound with them, in one engine: a graph then counts and looks up once.
    """
    found: list[Part] = []
    for part in parts:
        if isinstance(part, (TensorSlots, ReactiveTensorSlots)):
            found.append(part)
            continue
        slots = [dataclasses.replace(slot, tensor=True, why=_WHY) for slot in part.slots]
        table = part.engine.table
        beside = found[-1] if found and isinstance(found[-1], TensorSlots) else None
        names = _followed(part)
        if isinstance(part, ReactiveFloatSlots):
            assert inputs is not None  # noqa: S101  there are such slots
            found.append(known.get(names) or reactive_tensor_slots(slots, {}, inputs, table.last))
        elif beside and (both := known.get((*_followed(beside), *names)) or _joined(beside, slots, part)):
            found[-1] = both
        else:
            found.append(known.get(names) or tensor_slots(slots, {}, device, table.last, clock=table.clock))
    return found


def _joined(tensors: TensorSlots, slots: Sequence[Slot], floats: FloatSlots) -> TensorSlots | None:
    """Both in one engine, with the same room; None where the engine of the tensor slots cannot be extended."""
    engine = tensors.engine
    if engine.table.clock is not None:
        return None
    columns = engine.table.schedules | {slot.name: slot.schedule for slot in slots}
    last = max(engine.table.last, floats.engine.table.last)
    extended = engine.extended(tabulate(columns, device=engine.table.device, capacity=last))
    return None if extended is None else TensorSlots(extended, [*tensors.slots, *slots])
