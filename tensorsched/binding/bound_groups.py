"""The param_groups that an attachment has bound: they must be there, in their order, whatever is behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorsched.binding.carried import carries, initial_key
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place

__all__ = ["begun", "other_groups", "refuse_other_groups"]

Groups = Sequence[dict[str, Any]]


def begun(places: Iterable[Place], groups: Sequence[Mapping[str, Any]]) -> set[Place]:
    """The places whose initial_lr somebody else has written, such as a torch scheduler: it stays there."""
    return {p for p in places if initial_key(p.key) in groups[p.group] and not carries(groups[p.group])}


def refuse_other_groups(bound: Groups, groups: Groups) -> None:
    """The groups that were bound must be there, in their order; others behind them are not ours yet.

    Raises:
        BindingError: a group is missing, or in another place.
    """
    if len(groups) < len(bound):
        raise other_groups(len(groups), len(bound))
    for index, (mine, group) in enumerate(zip(bound, groups, strict=False)):
        if mine is not group and not _same_parameters(mine, group):
            raise BindingError(
                f"group {index} holds other parameters than when the schedule was attached: param_groups were "
                "reordered or exchanged, and each would follow another one's schedule; put them back in order, or "
                "call detach(), attach() again and seek() to the step"
            )


def other_groups(count: int, bound: int) -> BindingError:
    """The error for an optimizer that has more groups, or fewer, than were bound."""
    way_out = "call detach() and attach() again, which starts at step 0: seek() to the step that it had"
    if count > bound:
        way_out = (
            "call sched.adopt(lr=schedule, ...) for what is new, or pass new_groups={'lr': schedule, ...} (or a "
            "function of the group that returns such a dict) to attach() beforehand"
        )
    return BindingError(
        f"the optimizer has {count} param_groups and had {bound} when the schedule was attached; {way_out}"
    )


def _same_parameters(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    mine, theirs = a.get("params", ()), b.get("params", ())
    return len(mine) == len(theirs) and all(x is y for x, y in zip(mine, theirs, strict=True))
