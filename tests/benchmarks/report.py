"""The tables that the benchmark prints: plain text, one line for each competitor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from cases import CONTROL, COSINE, FLOOR, OURS, TORCH
from targets import Verdict
from timing import Race


@dataclasses.dataclass(frozen=True)
class Columns:
    """The head of a table; `text` counts the columns at its left that hold words."""

    names: Sequence[str]
    text: int


SCHEDULE_STEP = Columns(
    ("groups", "schedule", "us a step", "min .. max", "faster than torch's float lr", "IQR"), text=2
)
WHOLE_STEP = Columns(
    (
        "optimizer",
        "alone, us",
        "torch, us",
        "ours, us",
        "torch adds",
        "ours adds",
        "nothing adds",
        "torch / ours",
        "IQR",
    ),
    text=1,
)
BUILD = Columns(("schedules", "build, s", "bytes on the device", "unshared", "advance(), us"), text=1)


HANDLER_CALL = Columns(("groups", "handler", "ignite, us", "ours, us", "ignite / ours", "IQR"), text=2)


def show(
    title: str,
    columns: Columns,
    rows: Iterable[Sequence[str]],
    verdicts: Sequence[Verdict] = (),
    issue: int = 2,
) -> None:
    """A title, the table, and what became of the targets."""
    lines = [columns.names, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}\n")
    for line in lines:
        cells = [
            cell.ljust(width) if index < columns.text else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  " + "  ".join(cells))
    if verdicts:
        print(f"\n  Targets of issue {issue}, in this run:")
    for verdict in verdicts:
        print(f"    {verdict}")


def schedule_step_rows(races: Mapping[int, Race]) -> Iterable[Sequence[str]]:
    for groups, race in races.items():
        for name in race.us:
            time, ratio = race.time(name), race.ratio(COSINE, name)
            yield (
                f"{groups}",
                name,
                _us(time.median),
                f"{_us(time.low)} .. {_us(time.high)}",
                _times(ratio.median),
                f"{_times(ratio.quartiles[0])} .. {_times(ratio.quartiles[1])}",
            )


def whole_step_rows(races: Mapping[tuple[str, str], Race]) -> Iterable[Sequence[str]]:
    for (kind, implementation), race in races.items():
        ratio = race.ratio(TORCH, OURS)
        yield (
            f"{kind} {implementation}",
            *(f"{race.time(name).median:.1f}" for name in (FLOOR, TORCH, OURS)),
            *(_added(race, name) for name in (TORCH, OURS, CONTROL)),
            f"{ratio.median:.3f}x",
            f"{ratio.quartiles[0]:.3f}x .. {ratio.quartiles[1]:.3f}x",
        )


def _added(race: Race, name: str) -> str:
    added = race.added(name, FLOOR)
    return f"{added.median:+.1f} +- {(added.sure[1] - added.sure[0]) / 2:.1f}"


def handler_call_rows(races: Mapping[tuple[str, int], Race]) -> Iterable[Sequence[str]]:
    for (kind, groups), race in races.items():
        ratio = race.ratio("ignite", "ours")
        yield (
            f"{groups}",
            kind,
            *(_us(race.time(name).median) for name in ("ignite", "ours")),
            _times(ratio.median),
            f"{_times(ratio.quartiles[0])} .. {_times(ratio.quartiles[1])}",
        )


def build_rows(records: Iterable[Mapping[str, object]]) -> Iterable[Sequence[str]]:
    for record in records:
        yield (
            str(record["written_as"]),
            f"{record['build_s']:.2f}",
            f"{record['nbytes']:,}",
            f"{record['unshared_nbytes']:,}",
            f"{record['advance_us']:.2f}",
        )


def _us(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _times(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"
