"""What `by_parameter` has sorted: param_groups, their schedules, and who is in which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

from torch import nn

from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief

__all__ = ["Member", "ParameterGroups"]

_WIDEST, _WIDEST_VALUE = 60, 40  # of a list of parameter names, of a schedule's text


class Member(NamedTuple):
    """A parameter and every name that it has: tied ones have several."""

    names: tuple[str, ...]
    parameter: nn.Parameter


class ParameterGroups(Sequence[dict[str, Any]]):
    """What `by_parameter` returns: param_groups for an optimizer's constructor, and the schedules for `attach`.

    Each look at it gives dicts of their own, so that two optimizers never share one. `print` shows who got what.

    Attributes:
        schedules: for `attach(optimizer, **groups.schedules)`: for each hyperparameter a dict by group name.
        parameter_names: of each group, by its name.
        rest: what rules of None left to another optimizer, as (name, parameter): the `model` of the next call.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        schedules: dict[str, dict[str, Any]],
        members: Mapping[str, Sequence[Member]],
        rest: Sequence[Member],
        frozen: Sequence[Member],
    ) -> None:
        self._groups = tuple(groups)
        self.schedules = schedules
        self.parameter_names = {name: [m.names[0] for m in found] for name, found in members.items()}
        self.rest = [(member.names[0], member.parameter) for member in rest]
        self._shown = [*members.items(), ("(left out)", rest), ("(frozen)", frozen)]

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [_copied(group) for group in self._groups[index]]
        return _copied(self._groups[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(_copied, self._groups)

    def __str__(self) -> str:
        own = {group["name"]: group for group in self._groups}
        keys = dict.fromkeys(
            [*self.schedules, *(k for g in self._groups for k in g if k not in {"params", "name"})]
        )
        rows = [("group", "tensors", "numbers", *keys, "parameters")]
        for name, members in self._shown:
            if members:
                found = [self.schedules.get(key, {}).get(name, own.get(name, {}).get(key)) for key in keys]
                count = sum(member.parameter.numel() for member in members)
                listed = _cut(", ".join(" = ".join(member.names) for member in members), _WIDEST)
                rows.append((name, str(len(members)), f"{count:,}", *map(_text, found), listed))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
            for row in rows
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<ParameterGroups {', '.join(map(repr, self.parameter_names))}>"


def _copied(group: Mapping[str, Any]) -> dict[str, Any]:
    return {**group, "params": list(group["params"])}


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return _cut(brief(value) if isinstance(value, Schedule) else str(value), _WIDEST_VALUE)


def _cut(text: str, widest: int) -> str:
    return text if len(text) <= widest else text[: widest - 3] + "..."
