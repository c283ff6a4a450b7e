"""What `print(sched)` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tensorsched.binding.slots import Slot
from tensorsched.schedules import Schedule
from tensorsched.schedules.node import brief

__all__ = ["slot_table"]

_WIDEST = 72  # of a schedule's text
_WIDEST_NAMES = 32  # of the names of groups that are alike


def slot_table(
    slots: Sequence[Slot],
    free: Mapping[str, Schedule],
    inputs: Mapping[str, tuple[Schedule, float]],
    present: Callable[[str], float],
    at: str,
    *,
    names: Sequence[str | None],
    auto: bool,
    attached: bool,
) -> str:
    """One line for each slot (groups that are alike share one), then why each is where it is.

    Args:
        slots: what follows a schedule.
        free: schedules that belong to no group.
        inputs: the live inputs, and what they are now.
        present: gives the value of a slot or free name now.
        at: where the run stands.
        names: of the groups; a column of its own where one has a name.
        auto: whether hooks advance it.
        attached: whether it drives anything.
    """
    rows: list[tuple[str, ...]] = [("group", "name", "key", "slot", "value", "schedule")]
    rows += _slot_rows(slots, present, names)
    rows += [
        ("-", "", name, "free", f"{present(name):.6g}", _short(schedule)) for name, schedule in free.items()
    ]
    rows += [("-", "", name, "input", f"{value:.6g}", _short(node)) for name, (node, value) in inputs.items()]
    if not any(names):
        rows = [(group, *others) for group, _, *others in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    how = "advances after each optimizer.step()" if auto else "advances with sched.step()"
    lines.insert(0, f"{at}, {how if attached else 'detached'}")
    reasons = dict.fromkeys(f"{_kind(s)}: {s.why}" for s in slots)
    return "\n".join([*lines, *reasons])


def _slot_rows(
    slots: Sequence[Slot], present: Callable[[str], float], names: Sequence[str | None]
) -> list[tuple[str, ...]]:
    runs: dict[tuple[str, ...], list[int]] = {}
    for slot in slots:
        row = (slot.place.part, _kind(slot), f"{present(slot.name):.6g}", _short(slot.schedule))
        runs.setdefault(row, []).append(slot.place.group)
    return [(_ranges(groups), _named(groups, names), *row) for row, groups in runs.items()]


def _named(groups: Sequence[int], names: Sequence[str | None]) -> str:
    found = ", ".join(names[group] or "-" for group in groups if group < len(names))
    return found if len(found) <= _WIDEST_NAMES else found[: _WIDEST_NAMES - 3] + "..."


def _kind(slot: Slot) -> str:
    return "tensor" if slot.tensor else "filled" if slot.filled else "float"


def _ranges(groups: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    parts: list[list[int]] = []
    for group in groups:
        if parts and group == parts[-1][-1] + 1:
            parts[-1].append(group)
        else:
            parts.append([group])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _short(schedule: Schedule) -> str:
    text = brief(schedule)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."
