"""Times schedules beside torch's own schedulers, on the CPU: `make bench`, or `make bench ARGS='--quick'`.

Part 1: what it costs the host to move a schedule by one step, beside torch, transformers, ignite, a loop as timm's, a
jitted optax schedule (what is not installed is left out, and said so) and a bare loop of writes. Part 2: what that adds to
whole optimizer steps. Part 3: scaled tables beside equal ones. Part 4: building tables. Part 5: handlers in an ignite
engine, beside ignite's own. Part 6: how building grows with the number of steps. Part 7: import time over torch's. Part 8:
where the microseconds of a step go. Part 9: reacting to a metric, beside torch's ReduceLROnPlateau. Part 10: a
clock of tokens beside the step clock. Compiled steps: one_graph.py.
All that is compared runs in turn in one process (timing.py), on one thread and without garbage collection. The absolute
numbers belong to the machine and its load; read the ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import cases
import clocks
import growth
import ignite_cases
import import_time
import live_cases
import peers
import readme
import report
import targets
import torch
import where
from machine import HERE, load, machine
from timing import Competitor, Race, Spread, no_gc, race

import tensorsched as ts

Record = dict[str, object]
FINER = 8  # part 2 has so many times more rounds of shorter blocks: there the differences are small


def main(argv: Sequence[str] | None = None) -> None:
    options = _options(argv)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="torch.optim.lr_scheduler")  # part 1 steps schedulers alone
    here = machine()
    print("  ".join(f"{key}: {value}" for key, value in here.items()))
    result: Record = {
        "machine": here,
        "peers": _peers(),
        "options": {k: v for k, v in vars(options).items() if k != "out"},
    }
    verdicts: list[targets.Verdict] = []
    for name, part in (
        ("schedule_step", _part_1),
        ("whole_step", _part_2),
        ("layout", _part_3),
        ("build", _part_4),
        ("ignite", _part_5),
        ("growth", _part_6),
        ("import", _part_7),
        ("profile", _part_8),
        ("live", _part_9),
        ("clocks", _part_10),
    ):
        result[name], judged = part(options)
        verdicts += judged
    result["targets"] = [dataclasses.asdict(verdict) for verdict in verdicts]
    result["load_at_end"] = load()
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nwrote {options.out}")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time schedules beside torch's own schedulers, on the CPU.")
    add = parser.add_argument
    default_out = HERE / "results" / "cpu.json"
    add(
        "--out",
        type=Path,
        nargs="?",
        const=default_out,
        help=f"write JSON, to {default_out} if no path is given",
    )
    add("--quick", action="store_true", help="about a minute instead of three")
    add(
        "--rounds",
        type=int,
        help=f"blocks that each competitor runs in part 1; part 2 takes {FINER} times as many",
    )
    add("--block-ms", type=float, help="about how long a block lasts")
    add("--groups", type=int, nargs="+", default=[1, 8, 128, 1024], help="param groups in parts 1 and 5")
    add(
        "--tiny-groups",
        type=int,
        nargs="+",
        default=[8, 128],
        help="param groups in part 2, of one tiny parameter",
    )
    add("--slots", type=int, default=1024, help="tensor slots in part 3")
    add("--rows", type=int, default=1_000_000, help="steps that are tabulated in part 4")
    add("--columns", type=int, help="groups that are tabulated in part 4")
    add(
        "--most-rows",
        type=int,
        default=10_000_000,
        help="steps of the longest table in part 6, a power of 10",
    )
    add("--huge", action="store_true", help="part 6 goes on to 100,000,000 steps, where there is the memory")
    add("--repeats", type=int, help="builds of each length in part 6, and imports in part 7")
    add("--profile-calls", type=int, default=5_000, help="steps that are profiled in part 8")
    options = parser.parse_args(argv)
    for name, quick, full in (
        ("rounds", 15, 100),
        ("block_ms", 2.0, 5.0),
        ("columns", 32, 128),
        ("repeats", 3, 7),
    ):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    return options


def _part_1(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    races = {
        groups: race(
            cases.schedule_steps(groups) + peers.schedule_steps(groups),
            rounds=options.rounds,
            block_s=options.block_ms / 1e3,
        )
        for groups in options.groups
    }
    verdicts = targets.judge_schedule_steps(races)
    title = "1. Moving the learning rate of every group by one step, without the optimizer's step"
    report.show(title, report.SCHEDULE_STEP, report.schedule_step_rows(races), verdicts)
    records: list[Record] = [
        {
            "groups": groups,
            "competitors": _times(run, slow=cases.COSINE),
            "float_slots_to_bare_loop": _spread(run.ratio(cases.FLOAT_SLOTS, cases.WRITES)),
        }
        for groups, run in races.items()
    ]
    print("", *readme.lost(records), sep="\n    ")
    for few, many in itertools.pairwise(records):
        many["check_ns_a_group_more"] = round(_slope(few, many), 3)
        print(
            f"    Tensor slots: from {few['groups']} to {many['groups']} groups the check costs "
            f"{many['check_ns_a_group_more']:.1f} ns for each more."
        )
    return records, verdicts


def _slope(few: Record, many: Record) -> float:
    """Nanoseconds of the check for each group that `many` has more."""
    (x, y), (u, v) = (
        (r["groups"], r["competitors"][cases.CHECK]["us"]["median"])  # type: ignore[index]
        for r in (few, many)
    )
    return (v - y) / (u - x) * 1e3


def _part_2(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    settings = [
        (kind, how, 2, "64 parameters in 2 groups", False)
        for kind in cases.OPTIMIZERS
        for how in cases.IMPLEMENTATIONS
    ]
    settings += [
        (kind, "fused", groups, f"{groups} groups of one tiny parameter", True)
        for kind in cases.OPTIMIZERS
        for groups in options.tiny_groups
    ]
    races = {
        (kind, how, what): race(
            cases.whole_steps(kind, how, groups, tiny=tiny),
            rounds=options.rounds * FINER,
            block_s=options.block_ms / 1e3 / FINER,
        )
        for kind, how, groups, what, tiny in settings
    }
    verdicts = targets.judge_whole_steps(races)
    title = f"""2. What a schedule adds to optimizer.step(), over the same optimizer alone: the median of the rounds' differences
   "{cases.CONTROL}" is the optimizer alone, measured twice: the noise. "{cases.EMPTY_HOOKS}" is what torch's calling of hooks
   costs; "{cases.HAND_HOOKS}" compare each group's value by identity before a step and write each after it: the least for
   anything that checks every group. What tensor slots add is over an optimizer that holds a tensor lr."""
    report.show(title, report.WHOLE_STEP, report.whole_step_rows(races), verdicts)
    records: list[Record] = [
        {"optimizer": kind, "implementation": how, "parameters": what, "competitors": _added(run)}
        for (kind, how, what), run in races.items()
    ]
    return records, verdicts


def _added(run: Race) -> dict[str, Record]:
    """As _times, and microseconds over the same optimizer alone, and their share of what torch's scheduler adds."""
    found = _times(run, slow=cases.TORCH)
    for name, floor in cases.ADDED_TO.items():
        if name in found:
            share, sure = targets.share_of_torch(run, name)
            found[name] |= {
                "added_to": floor,
                "added_us": _spread(targets.added(run, name)),
                "of_torch": {"median": round(share, 4), "sure": [round(end, 4) for end in sure]},
            }
    return found


def _times(run: Race, slow: str) -> dict[str, Record]:
    """For each competitor: microseconds a step, and how many times less that is than `slow` takes."""
    return {
        name: {"us": _spread(run.time(name)), "ratio": _spread(run.ratio(slow, name)), "compared_with": slow}
        for name in run.us
    }


def _spread(spread: Spread) -> Record:
    return {
        key: [round(v, 5) for v in value] if isinstance(value, tuple) else round(value, 5)
        for key, value in dataclasses.asdict(spread).items()
    }


def _part_3(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    made = cases.layouts(options.slots, cases.STEPS)
    races = {
        how: race(both, rounds=options.rounds, block_s=options.block_ms / 1e3) for how, both in made.items()
    }
    verdicts = targets.judge_layouts(options.slots, races)
    title = f"3. A step of {options.slots:,} tensor slots on a CPU whose columns are proportional, in both kinds of table"
    report.show(title, report.LAYOUT, report.layout_rows(races), verdicts)
    records: list[Record] = [
        {"called": how, "slots": options.slots, "competitors": _times(run, slow=cases.EQUAL)}
        for how, run in races.items()
    ]
    return records, verdicts


def _part_4(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    ways = cases.tables(options.rows, options.columns)
    records = [_build(name, make, options) for name, make in ways.items()]
    sizes = {str(record["written_as"]): record["nbytes"] for record in records[1:]}
    verdicts = targets.judge_bytes(options.rows, sizes)  # type: ignore[arg-type]
    title = f"4. Building a table of {options.rows:,} steps"
    report.show(title, report.BUILD, report.build_rows(records), verdicts)
    return records, verdicts


def _build(name: str, make: cases.Make, options: argparse.Namespace) -> Record:
    """Time from nothing to the table, once (it takes long), and then what a step in that table costs."""
    with no_gc():
        start = time.perf_counter()
        schedules = make()
        table = ts.tabulate(schedules)
        seconds = time.perf_counter() - start
    engine = ts.ScheduleEngine(table)
    run = race(
        [Competitor(name, engine.advance, lambda: engine.seek(0), most_calls=max(options.rows - 1, 2))],
        rounds=options.rounds,
        block_s=options.block_ms / 1e3,
    )
    return {
        "written_as": name,
        "rows": table.rows,
        "groups": len(schedules),
        "build_s": round(seconds, 4),
        "nbytes": table.nbytes,
        "unshared_nbytes": table.rows * len(schedules) * table.dtype.itemsize,
        "advance_us": round(run.time(name).median, 5),
    }


def _part_5(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    races = {
        (kind, groups): race(
            ignite_cases.handler_calls(kind, groups), rounds=options.rounds, block_s=options.block_ms / 1e3
        )
        for groups in options.groups
        for kind in ignite_cases.KINDS
    }
    verdicts = ignite_cases.judge(races)
    title = "5. A call of a handler that sets the learning rate, without the optimizer's step"
    report.show(title, report.HANDLER_CALL, report.handler_call_rows(races), verdicts)
    records: list[Record] = [
        {"handler": kind, "groups": groups, "competitors": _times(run, slow=ignite_cases.IGNITE)}
        for (kind, groups), run in races.items()
    ]
    return records, verdicts


def _peers() -> dict[str, str | None]:
    found = peers.versions()
    print("  ".join(f"{name}: {version or 'NOT INSTALLED, left out'}" for name, version in found.items()))
    return found


def _part_6(options: argparse.Namespace) -> tuple[Record, list[targets.Verdict]]:
    record = growth.part(options)
    title = "6. Building a table of one warm-up and cosine, beside three lines of numpy by hand"
    report.show(title, report.Columns(growth.HEAD, text=0), growth.rows_of(record))
    print(f"\n  {growth.sentence(record)}")
    return record, []


def _part_7(options: argparse.Namespace) -> tuple[Record, list[targets.Verdict]]:
    record = import_time.part(options.repeats)
    print(f"\n7. {import_time.sentence(record)}")
    return record, []


def _part_8(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    records = where.part(options)
    title = "8. Where the time of a step goes: the functions' own time, by cProfile, which makes small ones dearer"
    report.show(title, report.Columns(where.HEAD, text=1), where.rows_of(records))
    print("\n  By where the functions are written:", *map(where.sentence, records), sep="\n    ")
    return records, []


def _part_9(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    races = {
        (kind, groups): race(
            live_cases.competitors(kind, groups), rounds=options.rounds, block_s=options.block_ms / 1e3
        )
        for groups in options.groups
        for kind in live_cases.KINDS
    }
    title = "9. Reacting to a metric, a float, without the optimizer's step"
    report.show(title, report.REACTION, report.reaction_rows(races))
    records: list[Record] = [
        {"call": kind, "groups": groups, "competitors": _times(run, slow=live_cases.TORCH)}
        for (kind, groups), run in races.items()
    ]
    return records, []


def _part_10(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    records = clocks.part(options)
    title = "10. A clock of tokens beside the step clock: both hooks, and count() in front of them"
    report.show(title, report.Columns(clocks.HEAD, text=2), clocks.rows_of(records))
    return records, []


if __name__ == "__main__":
    main()
