"""Plan: the attachments of several optimizers as one run."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from tensorsched.binding.arguments import read_metrics
from tensorsched.binding.attachment import Attachment
from tensorsched.binding.clocked import check_counted
from tensorsched.binding.coverage import coverage
from tensorsched.binding.methods.running import take_back
from tensorsched.errors import BindingError
from tensorsched.plan.arguments import (
    FORMAT,
    VERSION,
    about,
    read_attachments,
    read_state,
    refuse_different_units,
    share_out,
)
from tensorsched.plan.drift import Drift, apart, listed
from tensorsched.plan.forwarded import forwarded
from tensorsched.plan.lr_scheduler import PlanLR
from tensorsched.plan.undo import all_or_none
from tensorsched.schedules import Schedule
from tensorsched.schedules.check import Finding
from tensorsched.schedules.validators import refuse, shown
from tensorsched.schedules.views.plot import plot_parts

__all__ = ["Plan"]


class Plan:
    """Several attachments as one run: one state, one print, one plot, one `lr_scheduler()`, one compiled step.

    Each attachment is there by its name, `plan["muon"]`, and keeps its own step counter. Optimizers that were meant to
    step together and do not are a warning, once they are two steps apart.

    Args:
        attachments: by name, as a dict; or as keyword arguments, which come after it.
        together: whether the optimizers step together, once an iteration. False where that is not meant (a GAN that
            steps its discriminator more often): nothing is said then.
        **named: attachments by name.

    Raises:
        BindingError: no attachment, something that is none or is detached, two of one optimizer, or a name that is
            none or a hyperparameter's.

    Does not synchronise.

    Example:
        >>> import torch, tensorsched as ts
        >>> matrix, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.zeros(2))
        >>> muon, adamw = torch.optim.Muon([matrix], lr=0.02), torch.optim.AdamW([bias])
        >>> decay = ts.linear(1.0, 0.0, steps=4)
        >>> plan = ts.Plan(muon=ts.attach(muon, lr=0.02 * decay), adamw=ts.attach(adamw, lr=1e-3 * decay))
        >>> muon.step(), adamw.step(), plan.step_counts
        (None, None, {'muon': 1, 'adamw': 1})
        >>> print(plan)
        2 optimizers, at step 1
        muon (Muon):
          step 1, advances after each optimizer.step()
          group  key  slot   value  schedule
          0      lr   float  0.015  0.02 * linear(1.0, 0.0, steps=4)
          float: on a CPU a float is exact and fastest
        adamw (AdamW):
          step 1, advances after each optimizer.step()
          group  key  slot   value    schedule
          0      lr   float  0.00075  0.001 * linear(1.0, 0.0, steps=4)
          float: on a CPU a float is exact and fastest
        >>> step = ts.compile_step(plan, backend="aot_eager")  # both optimizers in one graph
    """

    def __init__(
        self,
        attachments: Mapping[str, Attachment] | None = None,
        /,
        *,
        together: bool = True,
        **named: Attachment,
    ) -> None:
        self._attachments = read_attachments(attachments, named)
        if not isinstance(together, bool):
            raise BindingError(str(refuse("Plan: together", "True or False", together)))
        self._together = together
        self._face: PlanLR | None = None
        self._drift = Drift(self._attachments) if together else None

    @property
    def attachments(self) -> Mapping[str, Attachment]:
        """Each attachment by its name, in the order in which a compiled step steps their optimizers.

        Does not synchronise.
        """
        return MappingProxyType(self._attachments)

    def __getitem__(self, name: str) -> Attachment:
        try:
            return self._attachments[name]
        except (KeyError, TypeError):
            raise BindingError(
                f"the plan has no attachment {shown(name)}; there are {', '.join(map(repr, self))}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._attachments)

    def __len__(self) -> int:
        return len(self._attachments)

    def __contains__(self, name: object) -> bool:
        return name in self._attachments

    @property
    def step_counts(self) -> dict[str, int]:
        """Completed steps of each optimizer, by name. Synchronises as `Attachment.step_count` does."""
        return {name: sched.step_count for name, sched in self._attachments.items()}

    def seek(self, step: int) -> None:
        """Continue as if each optimizer had completed `step` steps. For one of them: `plan["muon"].seek(step)`.

        On a clock that all have it is a position, in its unit.

        Raises:
            ScheduleError: step is negative or not an int. Nothing has changed.
            BindingError: an attachment is detached, or its groups are others; or they are on clocks of different
                units, of which one number is no place. Nothing has changed.

        Synchronises as `step_counts` does, to go back where one refuses.
        """
        refuse_different_units(self._attachments)
        with all_or_none(self._attachments):
            for name, sched in self._attachments.items():
                with about(name):
                    sched.seek(step)
        if self._drift is not None:
            self._drift.reset()

    def count(self, n: int | torch.Tensor) -> None:
        """Say what the steps that come consume, to all attachments that are on such a clock: `Attachment.count`.

        Args:
            n: an int, or a tensor of one whole number.

        Raises:
            BindingError: none is on such a clock, or as `Attachment.count`.
            ScheduleError: n is no whole number of at least 0.

        Does not synchronise. In a function that torch.compile traces call `plan[name].count(n)` of each.

        Example:
            >>> import torch, tensorsched as ts
            >>> a, b = (torch.optim.SGD([torch.nn.Parameter(torch.ones(2))]) for _ in range(2))
            >>> tokens, lr = ts.clock("tokens"), ts.linear(1.0, 0.0, steps=1000)
            >>> plan = ts.Plan(a=ts.attach(a, lr=lr, clock=tokens), b=ts.attach(b, lr=lr, clock=tokens))
            >>> plan.count(250), a.step(), b.step(), a.param_groups[0]["lr"], b.param_groups[0]["lr"]
            (None, None, None, 0.75, 0.75)
        """
        every = list(self._attachments.values())
        counted = [sched for sched in every if (tally := sched._mode.tally) and tally.clock.total is None]
        for sched in counted:  # before the first of them has counted
            sched._on_clock("count")
            check_counted(n, floats=sched._mode.floats)
        for sched in counted or every[:1]:
            sched.count(n)

    def rewrite(self, **changes: Any) -> None:
        """Follow other schedules from now on, at the same steps: `Attachment.rewrite` of several.

        Args:
            **changes: a hyperparameter, for all attachments that have a schedule for it, as `Attachment.rewrite` takes
                it; or the name of an attachment with a dict of what it alone gets: `adamw={"lr": lr}`.

        Raises:
            BindingError: as `Attachment.rewrite`, with the name; or nobody has a schedule for it. Nothing has changed.
            ScheduleError: as `Attachment.rewrite`, with the name. Nothing has changed.

        Synchronises where `Attachment.rewrite` does, and to read the step counters.

        Example:
            >>> import torch, tensorsched as ts
            >>> a, b = (torch.optim.SGD([torch.nn.Parameter(torch.ones(2))]) for _ in range(2))
            >>> plan = ts.Plan(a=ts.attach(a, lr=0.1), b=ts.attach(b, lr=0.2, momentum=0.5))
            >>> plan.rewrite(lr=ts.constant(0.3), b={"momentum": 0.9})
            >>> a.param_groups[0]["lr"], b.param_groups[0]["lr"], b.param_groups[0]["momentum"]
            (0.3, 0.3, 0.9)
        """
        with all_or_none(self._attachments):
            for name, arguments in share_out(self._attachments, changes).items():
                with about(name):
                    self._attachments[name].rewrite(**arguments)

    def observe(self, metric: Any = None, /, **metrics: Any) -> None:
        """As `Attachment.observe`, of every optimizer whose schedules react to a metric; all decide, or none.

        Raises:
            BindingError: as there, with the name; a name is unknown to all of them, or an attachment is detached.
                Nothing has changed.
            ScheduleError: as there, with the name. Nothing has changed.

        Synchronises as there.
        """
        for name, sched in self._attachments.items():
            with about(name):
                sched._require_attached()
        reacting = {name: each for name, each in self._attachments.items() if each._reactions()}
        names = dict.fromkeys(name for each in reacting.values() for name in each._reactions())
        found = read_metrics(list(names), metric, metrics)
        done: list[Attachment] = []
        # On a device nothing is refused any more: what may be comes first.
        for each, sched in sorted(reacting.items(), key=lambda item: _on_device(item[1])):
            if mine := {name: found[name] for name in sched._reactions() if name in found}:
                try:
                    with about(each):
                        sched.observe(**mine)
                except BaseException:
                    for other in done:
                        take_back(other)
                    raise
                done.append(sched)

    def state_dict(self) -> dict[str, Any]:
        """The step counters and the schedules of all: plain numbers, strings, lists and dicts.

        Loads with `torch.load(weights_only=True)`. Synchronises as `step_counts` does.
        """
        states = {name: sched.state_dict() for name, sched in self._attachments.items()}
        if self._drift is not None:
            self._drift.say({name: state["step"] for name, state in states.items()})
        return {"format": FORMAT, "version": VERSION, "attachments": states}

    def load_state_dict(self, state: Mapping[str, Any], *, on_mismatch: str | None = None) -> None:
        """Continue from a saved state. The order with `optimizer.load_state_dict` does not matter.

        Args:
            state: what `state_dict()` returned.
            on_mismatch: as in `Attachment.load_state_dict`, for all.

        Raises:
            ScheduleError: the state is malformed; the message starts with the field. Nothing has changed.
            BindingError: it has other names, or an attachment refuses its part. Nothing has changed.

        May synchronise, as `Attachment.load_state_dict`.
        """
        states = read_state(state, self._attachments)
        with all_or_none(self._attachments):
            for name, sched in self._attachments.items():
                with about(name):
                    sched.load_state_dict(states[name], on_mismatch=on_mismatch)
        if self._drift is not None:
            self._drift.reset()
            self._drift.say(self.step_counts)

    def lr_scheduler(self) -> PlanLR:
        """One torch LRScheduler over all: from now on the schedules move when the trainer steps it.

        Returns:
            The scheduler, the same one at each call; `get_last_lr()` has the groups of all optimizers in order, and
            `optimizer` is the first. For a trainer that wants one scheduler for each optimizer:
            `plan["muon"].lr_scheduler()`.

        Raises:
            BindingError: as `Attachment.lr_scheduler`, with the name. None of them waits for a trainer then.

        Does not synchronise, but where `step_counts` does.
        """
        if self._face is None:
            alone = [sched for sched in self._attachments.values() if sched._face is None]
            faces = []
            try:
                for name, sched in self._attachments.items():
                    with about(name):
                        faces.append(sched.lr_scheduler())
            except BindingError:
                for sched in alone:
                    sched._face = None
                    sched._hooks.follow(sched._mode.fast(sched))
                raise
            self._face = PlanLR(self, faces)
        return self._face

    def check(self, *models: nn.Module) -> list[Finding]:
        """What is odd about which optimizer has which parameter; empty if nothing is.

        Args:
            *models: all that the optimizers train.

        Returns:
            Findings: parameters that are in no optimizer, in two, frozen, or not in the model at all; groups whose lr
            follows no schedule. `binding.coverage.CODES` has their codes; `step` is None.

        Raises:
            BindingError: no model, or something that is none.

        Does not synchronise.

        Example:
            >>> import torch, tensorsched as ts
            >>> model = torch.nn.Linear(2, 2)
            >>> optimizer = torch.optim.SGD([model.weight])
            >>> plan = ts.Plan(sgd=ts.attach(optimizer, lr=ts.linear(0.1, 0.0, steps=9)))
            >>> print(*plan.check(model))
            no-optimizer: bias is in no optimizer, and will not be trained; add it, or set requires_grad=False
        """
        return coverage({name: sched.optimizer for name, sched in self._attachments.items()}, models)

    def plot(self, *, steps: int | None = None, log: bool | None = None) -> list[Any]:
        """Draw every slot and free name of all over the steps, each with its own step marked.

        Args:
            steps: the last step to show; default: as far as the longest schedule needs.
            log: logarithmic value axes: True, False, or None (default) where it shows more.

        Returns:
            The matplotlib Axes, a panel for each hyperparameter and free name of each attachment. Synchronises as
            `step_counts` does.

        Raises:
            ModuleNotFoundError: matplotlib is not installed (`pip install 'tensorsched[plot]'`).
        """
        parts: dict[str, dict[Schedule, list[int]]] = {}
        marks: list[int] = []
        units: list[str] = []
        for name, sched in self._attachments.items():
            for slot in sched.slots:
                panel = parts.setdefault(f"{name}: {slot.place.part}", {})
                panel.setdefault(slot.schedule, []).append(slot.place.group)
            parts |= {f"{name}: {key} (free)": {schedule: []} for key, schedule in sched.free.items()}
            new, clock = len(parts) - len(marks), sched._options.clock
            marks += [sched.position] * new
            units += ["step" if clock is None else clock.unit] * new
        return list(plot_parts(parts, marks, steps=steps, log=log, unit=units))

    def detach(self) -> None:
        """Give every optimizer back: `Attachment.detach` of each. May synchronise, as that."""
        if self._drift is not None:
            self._drift.stop()
        for sched in self._attachments.values():
            sched.detach()

    def __str__(self) -> str:
        counts = self.step_counts
        head = f"{len(self)} optimizer{'s' * (len(self) > 1)}"
        if not apart(counts):
            head += f", at step {min(counts.values())}"
        else:
            meant = " (they were meant to step together)" if self._together else ""
            head += f": {listed(counts)}{meant}"
        lines = [head]
        for name, sched in self._attachments.items():
            optimizer = sched._optimizer()
            lines.append(f"{name} ({'gone' if optimizer is None else type(optimizer).__name__}):")
            lines.append(textwrap.indent(str(sched), "  "))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Plan of {', '.join(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (dict(self._attachments), self._together)

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _to_all(
        self, name: str, args: tuple[Any, ...], options: dict[str, Any], *, change: bool
    ) -> dict[str, Any]:
        """What a method of each attachment returns; of one that changes something, after an error none has changed."""
        found = {}
        with all_or_none(self._attachments) if change else contextlib.nullcontext():
            for each, sched in self._attachments.items():
                with about(each):
                    found[each] = getattr(sched, name)(*args, **options)
        return found


for _name, _method in forwarded().items():
    setattr(Plan, _name, _method)


def _on_device(sched: Attachment) -> bool:
    return (inputs := sched._mode.inputs) is not None and inputs.device.type != "cpu"


def _again(attachments: Mapping[str, Attachment], together: bool) -> Plan:  # noqa: FBT001  pickle's
    return Plan(attachments, together=together)
