"""Place: the address of one hyperparameter. The only code that knows how a param_group holds a value.

A group is a dict. Under a key it holds a number, a tensor of one element, or a tuple such as betas, of which an element
may be meant: `Place(0, "lr")`, `Place(1, "betas", 0)`.
"""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch

from tensorsched.errors import BindingError

__all__ = [
    "Group",
    "Place",
    "as_float",
    "common_device",
    "entries",
    "hold_equal",
    "known_keys",
    "param_groups",
    "put_back",
    "with_element",
]

Group = MutableMapping[str, Any]

_ABSENT = "absent"  # a string, because copies must stay equal to it
_ELEMENT = re.compile(r"(.+)\[(\d+)\]")


class Place(NamedTuple):
    """Where a hyperparameter is: the index of its group, its key, and of a tuple the element.

    Example:
        >>> groups = [{"params": [], "lr": 0.1, "betas": (0.9, 0.999)}]
        >>> place = Place.parse("betas[1]", 0, groups[0])
        >>> place.write(groups, 0.95), place.read(groups), place.name, groups[0]["betas"]
        (None, 0.95, 'betas[1][group 0]', (0.9, 0.95))
    """

    group: int
    key: str
    element: int | None = None

    @classmethod
    def parse(cls, text: str, index: int, group: Mapping[str, Any]) -> Place:
        """The place that `text` means in this group: "betas[0]" is an element, unless the group has such a key."""
        found = None if text in group else _ELEMENT.fullmatch(text)
        if found is None or found[1] not in group:
            return cls(index, text)
        return cls(index, found[1], int(found[2]))

    @property
    def part(self) -> str:
        """The key, and of a tuple the element: "lr", "betas[1]"."""
        return self.key if self.element is None else f"{self.key}[{self.element}]"

    @property
    def name(self) -> str:
        """For people, and for columns: "lr" of group 0 is `lr[group 0]`."""
        return f"{self.part}[group {self.group}]"

    def read(self, groups: Sequence[Mapping[str, Any]]) -> Any:
        """What is held here.

        Raises:
            KeyError, IndexError, TypeError: there is no such group, key or element.
        """
        held = groups[self.group][self.key]
        return held if self.element is None else held[self.element]

    def write(self, groups: Sequence[Group], value: Any) -> None:
        """Put `value` here in the place of what is held; a tuple is replaced whole, by one of its own type.

        Raises:
            KeyError, IndexError, TypeError: there is no such group or element.
        """
        group = groups[self.group]
        group[self.key] = (
            value if self.element is None else with_element(group[self.key], self.element, value)
        )

    def fill(self, groups: Sequence[Group], value: float) -> None:
        """As `write`, but a tensor that is held stays the same object: it is filled. Does not synchronise."""
        held = groups[self.group].get(self.key)
        if self.element is not None and held is not None:
            held = held[self.element]
        if isinstance(held, torch.Tensor):
            held.detach().fill_(value)
        else:
            self.write(groups, value)

    def exists(self, groups: Sequence[Mapping[str, Any]]) -> bool:
        """Whether there is something to read."""
        try:
            self.read(groups)
        except (KeyError, IndexError, TypeError):
            return False
        return True


def with_element(whole: Any, element: int, value: Any) -> Any:
    """A tuple (a list, a namedtuple) like `whole` with one element replaced."""
    parts = list(whole)
    parts[element] = value
    return whole._make(parts) if hasattr(whole, "_make") else type(whole)(parts)


def param_groups(optimizer: object) -> list[dict[str, Any]]:
    """The optimizer's own list of groups.

    Raises:
        BindingError: it has none.
    """
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, Sequence) or not groups or not all(isinstance(g, dict) for g in groups):
        raise BindingError(
            f"{type(optimizer).__name__} has no param_groups (a non-empty list of dicts), so there is nothing to "
            f"attach a schedule to; {_way_out(optimizer)}"
        )
    return groups  # type: ignore[return-value]  # torch's is a list; any sequence of dicts serves


def _way_out(given: object) -> str:
    """What to pass instead of what people pass in the place of an optimizer."""
    if isinstance(given, (torch.nn.Module, torch.nn.Parameter, Iterator)) or (
        isinstance(given, (list, tuple)) and given and all(isinstance(p, torch.Tensor) for p in given)
    ):
        return "parameters are the optimizer's: build optimizer = torch.optim.AdamW(model.parameters()) and pass that"
    if isinstance(given, type):
        return f"it is a class: build {given.__name__}(model.parameters()) and pass that"
    if isinstance(given, (list, tuple, Mapping)):
        return "attach to each optimizer by itself"
    for name in ("optimizer", "sched"):  # a scheduler, a compiled step, an attachment, a wrapper
        if getattr(given, name, None) is not None:
            return f"pass the optimizer itself, its .{name}"
    return "pass the optimizer itself"


def as_float(held: object) -> float | None:
    """A number or one-element tensor as a float (a tensor on a device synchronises); None for anything else."""
    found = held.item() if isinstance(held, torch.Tensor) and held.numel() == 1 else held
    if not isinstance(found, numbers.Real) or (isinstance(found, bool) and found is held):
        return None
    try:
        return float(found)
    except OverflowError:  # an int of hundreds of digits
        return None


def known_keys(group: Mapping[str, Any], missing: str) -> str:
    """What an error says of a key that the group does not have: one that is spelt like it, or all there are."""
    keys = [name for name in group if name != "params"]
    near = difflib.get_close_matches(missing, keys, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it has {', '.join(keys)}" if keys else "it holds no hyperparameter at all"


def entries(group: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What a group has under these names, for `put_back`."""
    return {name: group.get(name, _ABSENT) for name in names}


def put_back(groups: Sequence[Group], held: Sequence[Mapping[str, Any]]) -> None:
    """Put entries back that `entries` took of each group; what was not there is taken away."""
    for group, own in zip(groups, held, strict=False):
        for name, value in own.items():
            if value == _ABSENT:
                group.pop(name, None)
            else:
                group[name] = value


def common_device(group: Mapping[str, Any]) -> torch.device | None:
    """The one device of the group's parameters; None if there are none, or several."""
    devices = {p.device for p in group.get("params", ()) if isinstance(p, torch.Tensor)}
    return devices.pop() if len(devices) == 1 else None


def hold_equal(
    groups: Sequence[Mapping[str, Any]], blocks: Iterable[Any], row: Iterable[Iterable[float]]
) -> bool:
    """Whether places hold the floats of a row, perhaps as other objects: somebody wrote what was there.

    Args:
        groups: the optimizer's.
        blocks: places with key and element in common, each with `of`, which takes its groups of all.
        row: for each block, what its places are to hold.
    """
    try:
        return all(
            type(found := group[b.key] if b.element is None else group[b.key][b.element]) is float
            and found == value
            for b, values in zip(blocks, row, strict=True)
            for group, value in zip(b.of(groups), values, strict=True)
        )
    except (KeyError, IndexError, TypeError, ValueError):  # it is not there, or its group is not
        return False
