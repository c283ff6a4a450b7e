"""Param_groups by the name that they hold under "name", in the place of their index."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from tensorsched.errors import BindingError
from tensorsched.schedules.validators import is_whole, refuse, shown

__all__ = ["check_address", "entry_of_group", "group_label", "group_names", "index_of_group", "list_by_group"]

Groups = Sequence[Mapping[str, Any]]


def group_names(groups: Groups) -> list[str | None]:
    """The name of each group, None where it has none."""
    return [name if isinstance(name := group.get("name"), str) else None for group in groups]


def check_address(name: object, group: object = 0, element: object = None) -> None:
    """Refuse what is no name of a hyperparameter, no group and no element: a list, an array, a schedule.

    Raises:
        BindingError: it is none.
    """
    if not isinstance(name, str):
        raise BindingError(str(refuse("name", "that of a hyperparameter, such as 'lr'", name)))
    if not isinstance(group, str) and not is_whole(group):
        raise BindingError(str(refuse("group", "the index of a param_group, or its name", group)))
    if element is not None and not is_whole(element):
        raise BindingError(str(refuse("element", "an index into a tuple such as betas", element)))


def group_label(groups: Groups, index: int) -> str:
    """A group for messages: "group 1 ('no_decay')"."""
    name = group_names(groups)[index]
    return f"group {index}" if name is None else f"group {index} ({name!r})"


def index_of_group(groups: Groups, group: str) -> int:
    """Which group has this name.

    Raises:
        BindingError: none, or more than one.
    """
    names = group_names(groups)
    found = [index for index, name in enumerate(names) if name == group]
    if len(found) != 1:
        raise _not_one(groups, group, found)
    return found[0]


def list_by_group(groups: Groups, key: str, rules: Mapping[Any, Any], *, complete: bool = True) -> list[Any]:
    """`{"decay": a, "no_decay": b}` as a list with an entry for each group; None where nothing is said of one.

    Args:
        groups: the optimizer's.
        key: the hyperparameter, for messages.
        rules: an entry for each name.
        complete: whether a group that no rule names is an error.

    Raises:
        BindingError: a name that no group has, or two have, or a group without a rule.
    """
    entries: list[Any] = [None] * len(groups)
    for name, entry in rules.items():
        if not isinstance(name, str):
            raise BindingError(
                f"{key}: a dict has an entry for each group by its name, and {shown(name)} is no name; a list has one "
                "for each group in order"
            )
        try:
            entries[index_of_group(groups, name)] = entry
        except BindingError as error:
            raise BindingError(f"{key}: {error}") from None
    lacking = [i for i, name in enumerate(group_names(groups)) if name not in rules]
    if complete and lacking:
        label = group_label(groups, lacking[0])
        unnamed = (
            ", which has no 'name'; name it, or pass a list" if "(" not in label else "; None leaves it alone"
        )
        raise BindingError(f"{key}: there is no entry for {label}{unnamed}. {_there_are(groups)}")
    return entries


def entry_of_group(groups: Groups, index: int, key: str, rules: Mapping[Any, Any]) -> Any:
    """What rules by name say of one group, such as one that was added late.

    Raises:
        BindingError: it has no name, or one that the rules lack.
    """
    name = group_names(groups)[index]
    if name is None or name not in rules:
        known = ", ".join(repr(rule) for rule in rules) or "nothing"
        raise BindingError(f"{key}: there is no entry for {group_label(groups, index)}, but for {known}")
    return rules[name]


def _not_one(groups: Groups, group: str, found: Sequence[int]) -> BindingError:
    if found:
        return BindingError(
            f"groups {', '.join(map(str, found))} are all named {group!r}; give each a name of its own, or say which "
            "by index (a list of schedules has one for each group in order)"
        )
    if group == "kind":  # what a schedule's document begins with
        return BindingError(
            "a dict has an entry for each group by its name; of a config, write ts.from_dict(config)"
        )
    known = [name for name in group_names(groups) if name is not None]
    near = difflib.get_close_matches(group, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return BindingError(f"no param_group is named {shown(group)}; {hint}{_there_are(groups)}")


def _there_are(groups: Groups) -> str:
    named = [repr(name) for name in group_names(groups) if name is not None]
    if not named:
        return (
            f"There are {len(groups)} param_groups, none with a 'name'"
            if len(groups) > 1
            else "It has no 'name'"
        )
    unnamed = len(groups) - len(named)
    return f"There are {', '.join(named)}" + (f" and {unnamed} without a 'name'" if unnamed else "")
