"""The tables that the benchmark prints: plain text, one line for each competitor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from cases import ADDED_TO, COSINE, EQUAL, SCALED, WRITES
from targets import Verdict, added, share_of_torch
from timing import Race


@dataclasses.dataclass(frozen=True)
class Columns:
    """The head of a table; `text` counts the columns at its left that hold words."""

    names: Sequence[str]
    text: int


SCHEDULE_STEP = Columns(
    (
        "groups",
        "schedule",
        "us a step",
        "min .. max",
        "faster than torch's float lr",
        "IQR",
        "of a bare loop of writes",
    ),
    text=2,
)
WHOLE_STEP = Columns(
    ("optimizer", "schedule", "us a step", "adds, us", "95 %", "of what torch adds", "95 %"), text=2
)
LAYOUT = Columns(("what is called", "equal, us", "scaled, us", "scaled / equal", "IQR"), text=1)
BUILD = Columns(("schedules", "build, s", "bytes on the device", "unshared", "advance(), us"), text=1)


REACTION = Columns(("groups", "what", "scheduler", "us a call", "faster than torch", "IQR"), text=3)
HANDLER_CALL = Columns(("groups", "handler", "ignite, us", "ours, us", "ignite / ours", "IQR"), text=2)


def show(
    title: str,
    columns: Columns,
    rows: Iterable[Sequence[str]],
    verdicts: Sequence[Verdict] = (),
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
        print("\n  Targets, in this run:")
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
                _times(race.ratio(name, WRITES).median),
            )


def reaction_rows(races: Mapping[tuple[str, int], Race]) -> Iterable[Sequence[str]]:
    for (kind, groups), race in races.items():
        slow = next(iter(race.us))
        for name in race.us:
            ratio = race.ratio(slow, name)
            yield (
                f"{groups}",
                kind,
                name,
                _us(race.time(name).median),
                _times(ratio.median),
                f"{_times(ratio.quartiles[0])} .. {_times(ratio.quartiles[1])}",
            )


def whole_step_rows(races: Mapping[tuple[str, str, str], Race]) -> Iterable[Sequence[str]]:
    for (kind, implementation, groups), race in races.items():
        for number, name in enumerate(race.us):
            what = f"{kind} {implementation}, {groups}" if number == 0 else ""
            row = (what, name, f"{race.time(name).median:.1f}")
            if name not in ADDED_TO:
                yield (*row, "", "", "", "")
                continue
            more, (share, sure) = added(race, name), share_of_torch(race, name)
            yield (
                *row,
                f"{more.median:+.2f}",
                f"{more.sure[0]:+.2f} .. {more.sure[1]:+.2f}",
                f"{share:.2f}",
                f"{sure[0]:.2f} .. {sure[1]:.2f}",
            )


def layout_rows(races: Mapping[str, Race]) -> Iterable[Sequence[str]]:
    for how, race in races.items():
        ratio = race.ratio(SCALED, EQUAL)
        yield (
            how,
            *(_us(race.time(name).median) for name in (EQUAL, SCALED)),
            _times(ratio.median),
            f"{_times(ratio.quartiles[0])} .. {_times(ratio.quartiles[1])}",
        )


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
