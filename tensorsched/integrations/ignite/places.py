"""Where a scheduled value lives in a param group: under a key, or as one element of a tuple ("betas[0]").

A tensor is filled in place and stays the same object: compiled and captured steps read it. A number is replaced.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch

from tensorsched.errors import ScheduleError
from tensorsched.schedules.validators import shown

__all__ = ["Writer", "check_places", "put", "read"]

Group = MutableMapping[str, Any]

WINDOW = 8
"""Of more groups than these, so many are looked at for tensors before each event, in turn."""

_ELEMENT = re.compile(r"(.+)\[(\d+)\]")
_LABEL = re.compile(r"(.+?) \(.*\)")


@functools.lru_cache(maxsize=256)
def _element(name: str) -> tuple[str, int] | None:
    """("betas", 0) for "betas[0]", None for a plain key."""
    found = _ELEMENT.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def _inside(group: Group, name: str) -> tuple[str, int] | None:
    """The (key, element) that `name` stands for in this group, None where it stands for itself."""
    place = None if name in group else _element(name)
    return place if place is not None and place[0] in group else None


def put(group: Group, name: str, value: Any) -> None:
    """Set one value; a tuple is replaced by one of its own type, with the other elements as they are."""
    held = group.get(name)
    if type(held) is float:  # the common case, before anything that costs
        group[name] = value
    elif isinstance(held, torch.Tensor):
        _fill(held, value)
    elif (place := _inside(group, name)) is None:
        group[name] = value
    else:
        key, element = place
        whole = group[key]
        if isinstance(whole[element], torch.Tensor):
            _fill(whole[element], value)
            return
        parts = list(whole)
        parts[element] = value
        group[key] = whole._make(parts) if hasattr(whole, "_make") else type(whole)(parts)


def _fill(tensor: torch.Tensor, value: Any) -> None:
    if tensor is not value:
        tensor.detach().fill_(value)


def read(group: Group, name: str) -> Any:
    """What the group holds there; of a tensor its number (which synchronises with its device), since it will change."""
    place = _inside(group, name)
    held = group[name] if place is None else group[place[0]][place[1]]
    return held.item() if isinstance(held, torch.Tensor) and held.numel() == 1 else held


class Writer:
    """Writes one value to many groups; remembers that none of them holds a tensor.

    All are looked at for tensors the first time and whenever the groups are others, and a window of them before
    each event: a loop that put tensors into all groups is seen at once, a single group of many perhaps not.
    """

    def __init__(self) -> None:
        self._first: Group | None = None
        self._known: tuple[str, int] = ("", 0)
        self._plain = False
        self._at = 0

    def write(self, groups: Sequence[Group], name: str, value: Any) -> None:
        """Put `value` into every group."""
        if len(groups) <= WINDOW or not self._all_plain(groups, [name]):
            for group in groups:
                put(group, name, value)
            return
        for group in groups:
            group[name] = value

    def write_row(self, groups: Sequence[Group], names: list[str], row: Sequence[float]) -> None:
        """Put row[i] into groups[i], under names[i]; a single name is meant for all."""
        plain = self._all_plain(groups, names)
        if plain and len(names) == 1:
            name = names[0]
            for group, value in zip(groups, row, strict=True):
                group[name] = value
            return
        for group, name, value in zip(
            groups, names * len(groups) if len(names) == 1 else names, row, strict=True
        ):
            if plain:
                group[name] = value
            else:
                put(group, name, value)

    def _all_plain(self, groups: Sequence[Group], names: list[str]) -> bool:
        """Whether each group holds something under its name, and no tensor; a single name is meant for all."""
        known = (names[0], len(groups))
        if groups[0] is not self._first or known != self._known:
            self._first, self._known = groups[0], known
            self._plain = _plain(groups, names, 0, len(groups))
        elif self._plain:
            self._at = self._at + WINDOW if self._at + WINDOW < len(groups) else 0
            self._plain = _plain(groups, names, self._at, min(self._at + WINDOW, len(groups)))
        return self._plain


def _plain(groups: Sequence[Group], names: list[str], low: int, high: int) -> bool:
    if len(names) == 1:
        name = names[0]
        for group in groups[low:high]:
            if type(held := group.get(name)) is not float and _needs_care(held):
                return False
        return True
    return not any(
        _needs_care(group.get(name)) for group, name in zip(groups[low:high], names[low:high], strict=True)
    )


def _needs_care(held: Any) -> bool:
    """A tensor, or nothing: an element of a tuple, or an entry that is yet to be made."""
    return held is None or isinstance(held, torch.Tensor)


def check_places(groups: Sequence[Group], name: object, index: object) -> None:
    """Refuse a group index that is out of range, and a name that no group knows.

    A name such as "lr (base)" is a label: an entry of its own, beside a key that must exist.

    Raises:
        ScheduleError: says what the groups hold instead.
    """
    if not isinstance(name, str):
        raise ScheduleError(f"param_name must be a str such as 'lr', got {shown(name)}")
    if index is not None:
        if isinstance(index, bool) or not isinstance(index, int) or not -len(groups) <= index < len(groups):
            raise ScheduleError(
                f"param_group_index must be None or an int that counts one of the {len(groups)} param_groups "
                f"from 0, got {shown(index)}"
            )
        groups = [groups[index]]
    for group in groups:
        if not _holds(group, name):
            known = [key for key in group if key != "params"]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ScheduleError(
                f"no param group entry {name!r} to schedule: {hint}The group holds {', '.join(map(repr, known))}; a "
                "tuple's element is written 'betas[0]', an entry for show 'lr (base)'"
            )


def _holds(group: Group, name: str) -> bool:
    if name in group:
        return True
    if (place := _inside(group, name)) is not None:
        held = group[place[0]]
        return isinstance(held, Sequence) and place[1] < len(held)
    label = _LABEL.fullmatch(name)
    return label is not None and label[1] in group
