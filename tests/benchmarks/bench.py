"""Times schedules beside torch's own schedulers, on the CPU: `make bench`, or `make bench ARGS='--quick'`.

Part 1: what it costs the host to move a schedule by one step, beside torch, transformers, ignite, a loop as timm's and
a jitted optax schedule (what is not installed is left out, and said so). Part 2: whole optimizer steps. Part 3: building
tables. Part 4: handlers in an ignite engine, beside ignite's own. Part 5: how building grows with the number of steps.
Part 6: import time over torch's. Part 7: where the microseconds of a step go. Compiled steps: one_graph.py.
All that is compared runs in turn in one process (timing.py), on one thread and without garbage collection. The absolute
numbers belong to the machine and its load; read the ratios.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import cases
import growth
import ignite_cases
import import_time
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
        ("build", _part_3),
        ("ignite", _part_4),
        ("growth", _part_5),
        ("import", _part_6),
        ("profile", _part_7),
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
        help="blocks that each competitor runs in part 1; part 2 takes 8 times as many",
    )
    add("--block-ms", type=float, help="about how long a block lasts")
    add("--groups", type=int, nargs="+", default=[1, 8, 128, 1024], help="param groups in parts 1 and 4")
    add("--rows", type=int, default=1_000_000, help="steps that are tabulated in part 3")
    add("--columns", type=int, help="groups that are tabulated in part 3")
    add(
        "--most-rows",
        type=int,
        default=10_000_000,
        help="steps of the longest table in part 5, a power of 10",
    )
    add("--huge", action="store_true", help="part 5 goes on to 100,000,000 steps, where there is the memory")
    add("--repeats", type=int, help="builds of each length in part 5, and imports in part 6")
    add("--profile-calls", type=int, default=5_000, help="steps that are profiled in part 7")
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
        {"groups": groups, "competitors": _times(run, slow=cases.COSINE)} for groups, run in races.items()
    ]
    print("", *readme.lost(records), sep="\n    ")
    return records, verdicts


def _part_2(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    rounds = options.rounds * FINER
    races = {
        (kind, how): race(cases.whole_steps(kind, how), rounds=rounds, block_s=options.block_ms / 1e3 / FINER)
        for kind in cases.OPTIMIZERS
        for how in cases.IMPLEMENTATIONS
    }
    verdicts = targets.judge_whole_steps(races)
    title = """2. optimizer.step() and its schedule: 64 parameters of 32 x 32 in 2 groups
   Each "adds" is to the optimizer alone; "nothing adds" is the optimizer alone measured twice: the noise."""
    report.show(title, report.WHOLE_STEP, report.whole_step_rows(races), verdicts)
    records: list[Record] = [
        {"optimizer": kind, "implementation": how, "competitors": _times(run, slow=cases.TORCH)}
        for (kind, how), run in races.items()
    ]
    return records, verdicts


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
    ways = cases.tables(options.rows, options.columns)
    records = [_build(name, make, options) for name, make in ways.items()]
    sizes = {str(record["written_as"]): record["nbytes"] for record in records[1:]}
    verdicts = targets.judge_bytes(options.rows, sizes)  # type: ignore[arg-type]
    title = f"3. Building a table of {options.rows:,} steps"
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


def _part_4(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    races = {
        (kind, groups): race(
            ignite_cases.handler_calls(kind, groups), rounds=options.rounds, block_s=options.block_ms / 1e3
        )
        for groups in options.groups
        for kind in ignite_cases.KINDS
    }
    verdicts = ignite_cases.judge(races)
    title = "4. A call of a handler that sets the learning rate, without the optimizer's step"
    report.show(title, report.HANDLER_CALL, report.handler_call_rows(races), verdicts, issue=5)
    records: list[Record] = [
        {"handler": kind, "groups": groups, "competitors": _times(run, slow=ignite_cases.IGNITE)}
        for (kind, groups), run in races.items()
    ]
    return records, verdicts


def _peers() -> dict[str, str | None]:
    found = peers.versions()
    print("  ".join(f"{name}: {version or 'NOT INSTALLED, left out'}" for name, version in found.items()))
    return found


def _part_5(options: argparse.Namespace) -> tuple[Record, list[targets.Verdict]]:
    record = growth.part(options)
    title = "5. Building a table of one warm-up and cosine, beside three lines of numpy by hand"
    report.show(title, report.Columns(growth.HEAD, text=0), growth.rows_of(record))
    print(f"\n  {growth.sentence(record)}")
    return record, []


def _part_6(options: argparse.Namespace) -> tuple[Record, list[targets.Verdict]]:
    record = import_time.part(options.repeats)
    print(f"\n6. {import_time.sentence(record)}")
    return record, []


def _part_7(options: argparse.Namespace) -> tuple[list[Record], list[targets.Verdict]]:
    records = where.part(options)
    title = "7. Where the time of a step goes: the functions' own time, by cProfile, which makes small ones dearer"
    report.show(title, report.Columns(where.HEAD, text=1), where.rows_of(records))
    print("\n  By where the functions are written:", *map(where.sentence, records), sep="\n    ")
    return records, []


if __name__ == "__main__":
    main()
