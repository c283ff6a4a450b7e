"""Inputs: the live inputs of a run in one small vector, and the metrics that they react to.

    memory    float64, (M,)    the cells of every input, its value first: `live` has one, a reaction what it remembers

It is allocated once and only ever filled: a graph reads it at its address, and each value that is handed out is a 0-dim
view of it. On a CPU a reaction is decided with Python floats; on a device, and wherever torch traces, with tensors, and
nothing is read on the host. Both run the same lines, in float64.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsched.engine.fields import Field, flat
from tensorsched.errors import ScheduleError
from tensorsched.schedules.live import FLOATS, Arithmetic, Input, Reaction
from tensorsched.schedules.validators import refuse

__all__ = ["Inputs"]

_ROOM = 256  # cells for inputs that come later, with other groups or schedules: the vector stays where it is


class Inputs:
    """The live inputs of one run, on one device.

    Args:
        nodes: by name.
        device: where their values are.

    Attributes:
        nodes: by name.
        reactions: the names of those that a metric can be shown.
        memory: see above.
    """

    def __init__(self, nodes: Mapping[str, Input], device: torch.device) -> None:
        self.nodes: dict[str, Input] = {}
        self.reactions: list[str] = []
        self._at: dict[str, Field] = {}
        self._used = 0
        width = sum(_width(held) for held in nodes.values()) + _ROOM
        with torch.inference_mode(mode=False):  # it would have no version counter
            self.memory = torch.zeros(width, dtype=torch.float64, device=device)
        self._cells = self.memory.unbind(0)
        self.before: dict[
            str, dict[str, Any]
        ] = {}  # what reactions remembered before the last metric, on the host
        # Past torch, reading and writing costs a tenth of what it costs through it (fake tensors have no memory).
        plain = device.type == "cpu" and type(self.memory) is torch.Tensor
        self._bytes = memoryview(self.memory.numpy().data).cast("B") if plain else None
        self._all = struct.Struct("")  # the numbers in use
        self.extend(nodes)

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.memory.device

    @property
    def version(self) -> int:
        """Raised by every write of torch's to a value, from anywhere. Does not synchronise."""
        return self.memory._version  # noqa: SLF001  torch has no public name for it

    def __getitem__(self, name: str) -> torch.Tensor:
        """The value: a 0-dim float64 tensor, always the same one."""
        return self._cells[self._at[name].start]

    def cell(self, name: str) -> int:
        """Where in the memory the value is."""
        return self._at[name].start

    # -- other inputs ---------------------------------------------------------------------------------------------

    def check(self, nodes: Mapping[str, Input]) -> None:
        """Whether these can join, or take the place of one that remembers the same (a plateau of another patience).

        Raises:
            ScheduleError: a name is taken by an input of another kind, or there is no room.
        """
        for name, held in nodes.items():
            if not _alike(self.nodes.get(name, held), held):
                raise ScheduleError(
                    f"the input {name!r} is {self.nodes[name]!r}, which goes on, and cannot become {held!r}: give the "
                    "new one another name="
                )
        needed = sum(_width(held) for name, held in nodes.items() if name not in self.nodes)
        if self._used + needed > len(self._cells):
            raise ScheduleError(
                f"there is room for {len(self._cells) - self._used} more numbers of live inputs, and {needed} are "
                "needed; detach() and attach() again"
            )

    def extend(self, nodes: Mapping[str, Input]) -> None:
        """Add those that are not here yet, at their start; one that is here goes on as it is. See `check`."""
        self.check(nodes)
        for name, held in nodes.items():
            if name in self.nodes:
                self.nodes[name] = held
            else:
                cells = held._cells()  # noqa: SLF001  an input is described by its node
                self.nodes[name] = held
                self._at[name] = Field(self._used, cells)
                self._used += self._at[name].width
                self._put(name, cells)
        self.reactions = [name for name, held in self.nodes.items() if isinstance(held, Reaction)]
        self._all = struct.Struct(f"{self._used}d")

    # -- metrics --------------------------------------------------------------------------------------------------

    def observe(self, metrics: Mapping[str, torch.Tensor | float]) -> bool:
        """Show each of these reactions a metric: a number, or a tensor of one element.

        Returns:
            False where no value has changed; on a device nobody knows, and it is True.

        Does not synchronise, unless a metric is on a device and these inputs are on the CPU.
        """
        memory = None if torch.compiler.is_compiling() else self._bytes
        changed = False
        if memory is not None:
            self.before = {}
        for name, metric in metrics.items():
            held: Any = self.nodes[name]
            if memory is None:
                self._react(name, held, metric)
                changed = True
                continue
            # Asking a float whether it is a tensor costs more than the decision: torch's isinstance is Python.
            x = metric if type(metric) is float else _number(metric)
            at = self._at[name]
            before = self.before[name] = at.read(memory)
            after = held._observed(before, x, FLOATS)  # noqa: SLF001
            changed |= after["value"] != before["value"]
            at.write(memory, after)
        return changed

    @torch.no_grad()
    def _react(self, name: str, held: Any, metric: torch.Tensor | float) -> None:
        """In tensor operations: traced in a graph, captured, and with nothing that waits for the device."""
        part = self._slice(name)
        if isinstance(metric, torch.Tensor):
            x = metric.detach().reshape(()).to(self.device, torch.float64, non_blocking=True)
        else:
            x = torch.full((), metric, dtype=torch.float64, device=self.device)
        fields = self._at[name].counts
        pieces = part.split([1 if many is None else many for many in fields.values()])
        cells = {
            key: piece.view(()) if many is None else piece
            for piece, (key, many) in zip(pieces, fields.items(), strict=True)
        }
        after = held._observed(cells, x, _TENSORS)  # noqa: SLF001  a reaction is described by its node
        part.copy_(torch.cat([after[key].reshape(-1) for key in fields]))

    def _slice(self, name: str) -> torch.Tensor:
        at = self._at[name]
        return self.memory.narrow(0, at.start, at.width)

    def all_cells(self) -> Sequence[float]:
        """Every number there is. Synchronises where they are on a device."""
        if self._bytes is not None:
            return self._all.unpack_from(self._bytes)
        numbers: list[float] = self.memory[: self._used].tolist()
        return numbers

    def _put(self, name: str, cells: Mapping[str, Any]) -> None:
        numbers = list(flat(cells[key] for key in self._at[name].counts))
        with torch.no_grad():
            self._slice(name).copy_(torch.tensor(numbers, dtype=torch.float64))

    # -- state ----------------------------------------------------------------------------------------------------

    def values(self) -> dict[str, float]:
        """The value of each input. Synchronises where they are on a device."""
        numbers = self.all_cells()
        return {name: numbers[at.start] for name, at in self._at.items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """All cells, as plain numbers and lists of them. Synchronises where they are on a device."""
        numbers = self.all_cells()
        return {name: at.unpacked(numbers[at.start : at.start + at.width]) for name, at in self._at.items()}

    def names(self) -> list[str]:
        """A name for each number: "plateau.best", "greedy.window.3"."""
        return list(_named({name: held._cells() for name, held in self.nodes.items()}))  # noqa: SLF001

    def numbers(self) -> dict[str, float]:
        """All of them by these names. Synchronises where they are on a device."""
        return _named(self.state())

    def read_numbers(self, numbers: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Cells for `load` from such numbers, of the inputs that they are complete for."""
        return {
            name: {
                key: [numbers[f"{name}.{key}.{i}"] for i in range(len(start))]
                if isinstance(start, list)
                else numbers[f"{name}.{key}"]
                for key, start in held._cells().items()  # noqa: SLF001  an input is described by its node
            }
            for name, held in self.nodes.items()
            if _named({name: held._cells()}).keys() <= numbers.keys()  # noqa: SLF001
            and math.isfinite(numbers[f"{name}.value"])
        }

    def read(self, state: Any, *, exact: bool = True) -> dict[str, dict[str, Any]]:
        """The cells of each input according to a state.

        Args:
            state: from `state`.
            exact: False: what is not in it, or does not fit, starts anew.

        Raises:
            ScheduleError: the state is malformed; the message starts with the entry. Nothing has changed.
        """
        if not isinstance(state, Mapping):
            raise refuse("inputs", "a dict", state)
        found: dict[str, dict[str, Any]] = {}
        for name, held in self.nodes.items():
            start = held._cells()  # noqa: SLF001  an input is described by its node
            saved: Any = state.get(name)
            if not exact and not _fits(saved, start):
                found[name] = start
                continue
            if not _fits(saved, start):
                raise refuse(f"inputs[{name!r}]", f"numbers for {', '.join(start)}, a finite value", saved)
            found[name] = {key: saved[key] for key in start}
        return found

    def load(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what `read` found. May synchronise: it is copied to the device."""
        for name, each in cells.items():
            self._put(name, each)

    def follow(self, other: Inputs) -> None:
        """Take over the values of others of the same kind, which may be on another device."""
        self.extend(other.nodes)
        if self.memory is not other.memory:
            self.load(self.read(other.state()))


def _number(metric: torch.Tensor | float) -> float:
    return float(metric.item() if isinstance(metric, torch.Tensor) else metric)


def _alike(held: Input, other: Input) -> bool:
    """Whether both remember numbers under the same names."""
    mine, theirs = _named({"": held._cells()}), _named({"": other._cells()})  # noqa: SLF001
    return type(held) is type(other) and mine.keys() == theirs.keys()


def _width(held: Input) -> int:
    return len(list(flat(held._cells().values())))  # noqa: SLF001  an input is described by its node


def _named(state: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, cells in state.items():
        for key, cell in cells.items():
            if isinstance(cell, list):
                found |= {f"{name}.{key}.{i}": number for i, number in enumerate(cell)}
            else:
                found[f"{name}.{key}"] = cell
    return found


def _is_number(entry: Any) -> bool:
    """Also inf and nan, and no int that is beyond all floats."""
    return type(entry) is float or (type(entry) is int and abs(entry) < 1 << 1023)


def _fits(saved: Any, start: Mapping[str, Any]) -> bool:
    if not isinstance(saved, Mapping) or set(saved) != set(start):
        return False
    for key, cell in start.items():
        given = saved[key]
        if isinstance(cell, list) != isinstance(given, list):
            return False
        if isinstance(cell, list) and len(given) != len(cell):
            return False
        if not all(map(_is_number, given if isinstance(cell, list) else [given])):
            return False
    return math.isfinite(saved["value"])


def _where(condition: Any, a: Any, b: Any) -> torch.Tensor:
    return torch.where(condition, a, b)


def _shifted(window: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return window[0], torch.cat([window[1:], x.reshape(1)])


_TENSORS = Arithmetic(_where, _shifted)
