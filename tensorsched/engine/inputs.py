"""Inputs: the live inputs of a run in one small vector, and the metrics that they react to.

    memory    float64, (M,)    the cells of every input, its value first: `live` has one, a reaction what it remembers

It is allocated once and only ever filled: a graph reads it at its address, and each value that is handed out is a 0-dim
view of it. On a CPU a reaction is decided with Python floats; on a device, and wherever torch traces, with tensors, and
nothing is read on the host. Both run the same lines, in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch

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
        memory: see above.
    """

    def __init__(self, nodes: Mapping[str, Input], device: torch.device) -> None:
        self.nodes: dict[str, Input] = {}
        # Of each input its first cell, and how many each field has; None: one, a number.
        self._at: dict[str, tuple[int, dict[str, int | None]]] = {}
        width = sum(_width(held) for held in nodes.values()) + _ROOM
        with torch.inference_mode(mode=False):  # it would have no version counter
            self.memory = torch.zeros(width, dtype=torch.float64, device=device)
        self._cells = self.memory.unbind(0)
        self.extend(nodes)

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.memory.device

    @property
    def version(self) -> int:
        """Raised by every write of torch's to a value, from anywhere. Does not synchronise."""
        return self.memory._version  # noqa: SLF001  torch has no public name for it

    @property
    def reactions(self) -> dict[str, Reaction]:
        """Those that a metric can be shown."""
        return {name: held for name, held in self.nodes.items() if isinstance(held, Reaction)}

    def __getitem__(self, name: str) -> torch.Tensor:
        """The value: a 0-dim float64 tensor, always the same one."""
        return self._cells[self._at[name][0]]

    def cell(self, name: str) -> int:
        """Where in the memory the value is."""
        return self._at[name][0]

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
                start = self._used
                cells = held._cells()  # noqa: SLF001  an input is described by its node
                self.nodes[name] = held
                self._at[name] = (
                    start,
                    {key: len(v) if isinstance(v, list) else None for key, v in cells.items()},
                )
                self._put(name, cells)

    @property
    def _used(self) -> int:
        return sum(map(_width, self.nodes.values()))

    # -- metrics --------------------------------------------------------------------------------------------------

    def observe(self, metrics: Mapping[str, torch.Tensor | float]) -> None:
        """Show each of these reactions a metric: a number, or a tensor of one element.

        Does not synchronise, unless a metric is on a device and these inputs are on the CPU.
        """
        on_host = self.device.type == "cpu" and not torch.compiler.is_compiling()
        for name, metric in metrics.items():
            held: Any = self.nodes[name]
            if on_host:
                x = float(metric.detach().item()) if isinstance(metric, torch.Tensor) else float(metric)
                self._put_on_host(name, held._observed(self._on_host(name), x, FLOATS))  # noqa: SLF001
            else:
                self._react(name, held, metric)

    @torch.no_grad()
    def _react(self, name: str, held: Any, metric: torch.Tensor | float) -> None:
        """In tensor operations: traced in a graph, captured, and with nothing that waits for the device."""
        part = self._slice(name)
        if isinstance(metric, torch.Tensor):
            x = metric.detach().reshape(()).to(self.device, torch.float64, non_blocking=True)
        else:
            x = torch.full((), metric, dtype=torch.float64, device=self.device)
        pieces = part.split([1 if many is None else many for many in self._at[name][1].values()])
        fields = self._at[name][1]
        cells = {
            key: piece.view(()) if many is None else piece
            for piece, (key, many) in zip(pieces, fields.items(), strict=True)
        }
        after = held._observed(cells, x, _TENSORS)  # noqa: SLF001  a reaction is described by its node
        part.copy_(torch.cat([after[key].reshape(-1) for key in fields]))

    def _slice(self, name: str) -> torch.Tensor:
        start, _ = self._at[name]
        return self.memory.narrow(0, start, _width(self.nodes[name]))

    def _on_host(self, name: str) -> dict[str, Any]:
        coming = iter(self._slice(name).tolist())
        return {
            key: next(coming) if many is None else list(itertools.islice(coming, many))
            for key, many in self._at[name][1].items()
        }

    def _put_on_host(self, name: str, cells: Mapping[str, Any]) -> None:
        """Through numpy: an operation of torch's costs more than the decision."""
        flat = list(_flat(cells[key] for key in self._at[name][1]))
        at = self.cell(name)
        self.memory.numpy()[at : at + len(flat)] = flat

    def _put(self, name: str, cells: Mapping[str, Any]) -> None:
        flat = list(_flat(cells[key] for key in self._at[name][1]))
        with torch.no_grad():
            self._slice(name).copy_(torch.tensor(flat, dtype=torch.float64))

    # -- state ----------------------------------------------------------------------------------------------------

    def values(self) -> dict[str, float]:
        """The value of each input. Synchronises where they are on a device."""
        numbers = self.memory.tolist()
        return {name: numbers[at] for name, (at, _) in self._at.items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """All cells, as plain numbers and lists of them. Synchronises where they are on a device."""
        numbers = self.memory.tolist()
        found: dict[str, dict[str, Any]] = {}
        for name, (at, fields) in self._at.items():
            coming = iter(numbers[at:])
            found[name] = {
                key: next(coming) if many is None else list(itertools.islice(coming, many))
                for key, many in fields.items()
            }
        return found

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
                raise refuse(f"inputs[{name!r}]", f"numbers for {', '.join(start)}", saved)
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


def _alike(held: Input, other: Input) -> bool:
    """Whether both remember numbers under the same names."""
    mine, theirs = _named({"": held._cells()}), _named({"": other._cells()})  # noqa: SLF001
    return type(held) is type(other) and mine.keys() == theirs.keys()


def _width(held: Input) -> int:
    return len(list(_flat(held._cells().values())))  # noqa: SLF001  an input is described by its node


def _named(state: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, cells in state.items():
        for key, cell in cells.items():
            if isinstance(cell, list):
                found |= {f"{name}.{key}.{i}": number for i, number in enumerate(cell)}
            else:
                found[f"{name}.{key}"] = cell
    return found


def _flat(cells: Iterable[Any]) -> Iterable[Any]:
    return itertools.chain.from_iterable(cell if isinstance(cell, list) else [cell] for cell in cells)


def _fits(saved: Any, start: Mapping[str, Any]) -> bool:
    if not isinstance(saved, Mapping) or set(saved) != set(start):
        return False
    for key, cell in start.items():
        given = saved[key]
        if isinstance(cell, list) != isinstance(given, list):
            return False
        if isinstance(cell, list) and len(given) != len(cell):
            return False
        if not all(type(number) in {int, float} for number in (given if isinstance(cell, list) else [given])):
            return False
    return True


def _where(condition: Any, a: Any, b: Any) -> torch.Tensor:
    return torch.where(condition, a, b)


def _shifted(window: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return window[0], torch.cat([window[1:], x.reshape(1)])


_TENSORS = Arithmetic(_where, _shifted)
