"""Part 6: how the time to build a table, and its bytes, grow with the number of steps."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from timing import Spread, no_gc

import tensorsched as ts

Record = dict[str, object]
FIRST_DECADE = 3
HUGE_BYTES_A_ROW = 40  # at most: the table, and float64 temporaries of the row numbers and of both columns
FITTED_FROM = 100_000
"""Rows from which the exponent is fitted once more: below, what a build costs at any length hides the growth."""

HEAD = ("rows", "ours, s", "by hand, s", "ours / by hand", "ns a row", "bytes")


def part(options: argparse.Namespace) -> Record:
    """Build a warm-up and cosine of 10^3 rows, 10^4, ...; by hand is the same curve in three lines of numpy."""
    points = []
    for rows in _sizes(options):
        spare = _free_bytes()
        if spare is not None and spare < HUGE_BYTES_A_ROW * rows:
            print(
                f"\n  {rows:,} rows are left out: {spare / 1e9:.1f} GB of memory are free, and they may take "
                f"{HUGE_BYTES_A_ROW * rows / 1e9:.1f}"
            )
            continue
        points.append(_point(rows, options.repeats))
    return {"points": points, **_exponents(points)}


def rows_of(record: Record) -> list[Sequence[str]]:
    """The table's lines."""
    return [
        (
            f"{p['rows']:,}",
            f"{p['build_s']:.5f}",
            f"{p['by_hand_s']:.5f}",
            f"{p['to_by_hand']['median']:.2f}x",
            f"{p['build_s'] / p['rows'] * 1e9:.1f}",
            f"{p['nbytes']:,}",
        )
        for p in record["points"]  # type: ignore[attr-defined]
    ]


def sentence(record: Record) -> str:
    """What was fitted."""
    late = record["seconds_exponent_from_1e5"]
    more = "" if late is None else f" (from {FITTED_FROM:,} rows on: rows^{late:.2f})"
    return (
        f"seconds grow as rows^{record['seconds_exponent']:.2f}{more}, "
        f"bytes as rows^{record['bytes_exponent']:.2f}"
    )


def _sizes(options: argparse.Namespace) -> list[int]:
    last = round(math.log10(options.most_rows))
    sizes = [10**decade for decade in range(FIRST_DECADE, last + 1)]
    return [*sizes, 10**8] if options.huge and last < 8 else sizes


def _point(rows: int, repeats: int) -> Record:
    ours, by_hand = [], []
    ts.tabulate({"lr": ts.warmup_cosine(3e-4, total=8, warmup=2)})  # warm-up
    with no_gc():
        for _ in range(repeats):
            ours.append(_seconds(lambda: _table(rows)))
            by_hand.append(_seconds(lambda: _by_hand(rows)))
    spread = Spread.of([a / b for a, b in zip(ours, by_hand, strict=True)])
    return {
        "rows": rows,
        "build_s": round(float(np.median(ours)), 7),
        "by_hand_s": round(float(np.median(by_hand)), 7),
        "to_by_hand": {
            "median": round(spread.median, 4),
            "quartiles": [round(q, 4) for q in spread.quartiles],
        },
        "nbytes": _table(rows).nbytes,
        "repeats": repeats,
    }


def _table(rows: int) -> ts.ScheduleTable:
    return ts.tabulate({"lr": ts.warmup_cosine(3e-4, total=rows - 1, warmup=rows // 100)})


def _by_hand(rows: int) -> torch.Tensor:
    warmup = rows // 100
    t = np.arange(rows, dtype=np.float64)
    cosine = 1.5e-4 * (1.0 + np.cos(np.pi * (t - warmup) / (rows - 1 - warmup)))
    return torch.from_numpy(np.where(t < warmup, 3e-4 * t / max(warmup, 1), cosine).astype(np.float32))


def _seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _exponents(points: Sequence[Record]) -> Record:
    """b of c * rows**b, least squares of the logarithms."""
    late = [p for p in points if p["rows"] >= FITTED_FROM]  # type: ignore[operator]
    return {
        "seconds_exponent": _slope(points, "build_s"),
        "seconds_exponent_from_1e5": _slope(late, "build_s") if len(late) > 1 else None,
        "bytes_exponent": _slope(points, "nbytes"),
    }


def _slope(points: Sequence[Record], key: str) -> float:
    x, y = (np.log([p[name] for p in points]) for name in ("rows", key))
    return round(float(np.polyfit(x, y, 1)[0]), 4) if len(points) > 1 else math.nan


def _free_bytes() -> int | None:
    """Memory that is free now, None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
