"""Write README's sections of figures, and the page of results, from the committed numbers: `make readme`.

README has one table, RESULTS.md all of them. `--check` writes nothing and says whether one is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from readme_runs import gpu, versions

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "cpu.json"
README = HERE.parent.parent / "README.md"
ONE_GRAPH = HERE / "results" / "one_graph_cpu.json"
PAGE = "RESULTS.md"
INTRODUCTION = (
    "`make readme` writes this page from the files in [results/](results/), which the benchmarks write. Read the ratios: the\n"
    "microseconds belong to the machine and its load. The move of a step beside other libraries is in\n"
    "[README](../../README.md).\n"
)


def mark(name: str, source: str) -> str:
    """The line before a section."""
    return f"<!-- {name}: `make readme` writes this from {source} -->\n"


BEGIN = mark("performance", "tests/benchmarks/results/cpu.json")
END = "<!-- performance: end -->\n"

Numbers = Mapping[str, Any]

COSINE = "torch CosineAnnealingLR, float lr"
WRITES = "a bare loop of writes"
ROWS = {
    COSINE: "torch `CosineAnnealingLR`",
    "torch CosineAnnealingLR, tensor lr": "the same, tensor lr",
    'transformers get_scheduler("cosine")': "transformers",
    "ignite ParamGroupScheduler, one a group": "ignite",
    "timm-style loop: formula, then assign": "timm-style loop",
    "optax cosine_decay_schedule, jitted": "optax, jitted",
    WRITES: 'a bare loop: `g["lr"] = v`',
    "ours, float slots": "ours, float slots",
    "ours, float slots, both hooks": "ours, float slots, both hooks",
    "ours, tensor slots": "ours, tensor slots",
    "ours, tensor slots, both hooks": "ours, tensor slots, both hooks",
}
"""Competitors of part 1 and their rows; peers that a run had not installed have none."""
OURS = [name for name in ROWS if name.startswith("ours")]

ADDED = {
    "torch CosineAnnealingLR": "torch's scheduler",
    "ours, float slots": "ours, float slots",
    "ours, tensor slots": "ours, tensor slots",
    "two hooks by hand": "two hooks by hand",
    "two empty hooks": "two empty hooks",
    "no schedule, again": "noise",
}
"""Competitors of part 2 and their columns."""


def section(result: Numbers) -> str:
    """Everything between the marks."""
    return "\n".join([_machine(result), _schedule_steps(result), _whole_step(result)])


def page(result: Numbers, one_graph: Numbers) -> str:
    """The page of results: what README has no room for."""
    return "\n".join(
        [
            "# Results\n",
            INTRODUCTION,
            f"## Whole steps\n\n{_machine(result, 'results/cpu.json')}",
            _added(result),
            *(f"## {title}\n\n{show(result[name])}" for name, title, show in _LATER if name in result),
            f"## Tables\n\n{_sentences(result)}",
            f"## One compiled graph\n\n{_one_graph(one_graph)}",
        ]
    )


def replaced(text: str, result: Numbers) -> str:
    """README with every section of figures in the place of the old one."""
    for begin, end, body in (
        (BEGIN, END, section(result)),
        (mark("gpu", "tests/benchmarks/results/"), END.replace("performance", "gpu"), gpu()),
        (mark("versions", "tests/torch_versions.json"), END.replace("performance", "versions"), versions()),
    ):
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise SystemExit(f"README.md has lost a mark: it needs the lines\n{begin}{end}")
        text = f"{before}{begin}\n{body}\n{end}{after}"
    return text


def _machine(result: Numbers, file: str = "tests/benchmarks/results/cpu.json") -> str:
    m = result["machine"]
    return (
        f"Measured on {m['cores']} cores of an {m['cpu']} ({m['system']}), Python {m['python']}, torch {m['torch']}, "
        f"numpy {m['numpy']};\n[all numbers]({file}), with their spread.\n"
    )


def _schedule_steps(result: Numbers) -> str:
    runs = result["schedule_step"]
    names = [name for name in ROWS if all(name in run["competitors"] for run in runs)]
    if missing := {COSINE, WRITES, *OURS}.difference(names):
        raise SystemExit(f"cpu.json has no {min(missing)!r}: name it in readme.py as the benchmark does")
    rows = [[ROWS[name], *(_cell(run["competitors"][name], name) for run in runs)] for name in names]
    table = _table(
        "What it costs the host to move the learning rate of every group by one step, in microseconds (in brackets: how many\n"
        "times faster than the first row; below 1 is slower). Ours is `sched.step()`, and below it what happens at a step in all:\n"
        "the check for external writes before `optimizer.step()`, the move after it. The bare loop writes other values at every\n"
        "step, and does nothing else:",
        ["", *(f"{run['groups']} group{'s' * (run['groups'] > 1)}" for run in runs)],
        rows,
        words=1,
    )
    return "\n".join([table, *lost(runs), ""])


def lost(runs: Sequence[Numbers]) -> Iterator[str]:
    """Where part 1 has ours slower than another library, one sentence for each of them."""
    found = False
    for ours in OURS:
        for other in (name for name in ROWS if name not in {WRITES, *OURS}):
            factors = []
            for run in runs:
                both = run["competitors"]
                if other not in both:
                    continue
                # Both were compared with the same competitor, round by round: that is surer than two medians.
                factor = both[other]["ratio"]["median"] / both[ours]["ratio"]["median"]
                if factor > 1.0:
                    factors.append(f"{factor:.1f}x at {run['groups']} group{'s' * (run['groups'] > 1)}")
            if factors:
                found = True
                yield f"- Slower: {ROWS[ours]} than {ROWS[other]}, {', '.join(factors)}."
    if not found:
        yield "Ours is not slower than any of them in this run."


def _cell(competitor: Numbers, name: str) -> str:
    us, ratio = competitor["us"]["median"], competitor["ratio"]["median"]
    return _short(us) if name == COSINE else f"{_short(us)} ({_short(ratio)}x)"


def _whole_step(result: Numbers) -> str:
    """One sentence on the first AdamW of part 2."""
    part = next(
        p for p in result["whole_step"] if (p["optimizer"], p["implementation"]) == ("AdamW", "fused")
    )
    both = part["competitors"]
    torch, floats, tensors = (both[name]["added_us"]["median"] for name in list(ADDED)[:3])
    return (
        f"A fused AdamW step ({part['parameters']}) takes {_short(both['no schedule']['us']['median'])} us. torch's scheduler adds "
        f"{torch:.1f} us to it, ours {floats:.1f} with float slots,\n{tensors:.1f} with tensor slots. "
        f"`import tensorsched` takes {result['import']['ours_s'] * 1e3:.0f} ms after `import torch`.\n"
        "[Other optimizers, tables of ten million steps, compiled graphs](tests/benchmarks/RESULTS.md).\n"
    )


def _live(records: Sequence[Numbers]) -> str:
    rows = []
    for record in records:
        theirs, floats, tensors = record["competitors"].values()
        ours = (f"{_short(c['us']['median'])} ({_short(c['ratio']['median'])}x)" for c in (floats, tensors))
        rows.append([record["call"], str(record["groups"]), _short(theirs["us"]["median"]), *ours])
    return _table(
        "A metric, a float, is shown to `lr * ts.plateau(...)` and to torch's `ReduceLROnPlateau`, in microseconds a call (in\n"
        'brackets: how many times faster than torch\'s; below 1 is slower). "reducing" lowers every lr at every call:',
        ["", "groups", "torch's", "ours, float slots", "ours, tensor slots"],
        rows,
        words=1,
    )


def _clocks(records: Sequence[Numbers]) -> str:
    rows = [
        [
            r["slots"],
            str(r["groups"]),
            *(_short(us) for us in r["us"].values()),
            f"{r['ratio']['median']:.2f}x",
        ]
        for r in records
    ]
    return _table(
        "A step on a clock of tokens, with `sched.count(n)` of an int, beside the clock of steps: both hooks, in microseconds. A\n"
        "device's driver launches its kernels on the CPU here:",
        ["", "groups", "steps", "tokens", "tokens / steps"],
        rows,
        words=1,
    )


_LATER = (("live", "Reacting to a metric", _live), ("clocks", "A clock of tokens", _clocks))
"""Parts that a file of older figures has not."""


def _one_graph(result: Numbers) -> str:
    """What schedules add to one compiled step."""
    m, rows = result["machine"], []
    for record in result["records"]:
        scheduled, stock = record["scheduled"], record["stock"]
        ratios = (
            scheduled["to_constant"]["median"],
            scheduled["compile_to_constant"],
            stock["to_constant"]["median"],
        )
        rows.append([str(record["groups"]), *(f"{ratio:.2f}x" for ratio in ratios)])
    return _table(
        "AdamW with one small parameter a group and lr, weight decay and a beta of every group scheduled differently, compiled by\n"
        "inductor on a CPU, against the same graph with constants (`make bench-graph`, "
        f"[numbers](results/one_graph_cpu.json);\n{m['cores']} cores of an {m['cpu']}, torch {m['torch']}, load {m['load']} at the "
        "start). The optimizer's hooks run around the graph:",
        ["groups", "step", "compiling", "a compiled step with a tensor lr, and torch's scheduler"],
        rows,
    )


def _added(result: Numbers) -> str:
    rows = []
    for part in result["whole_step"]:
        if part["implementation"] != "fused":
            continue
        both = part["competitors"]
        cells = [_added_cell(both[name], name) for name in ADDED]
        name = f"{part['optimizer']}, {part['parameters']}"
        rows.append([name, _short(both["no schedule"]["us"]["median"]), *cells])
    return _table(
        "What a schedule adds to `optimizer.step()` (fused), in microseconds over the same optimizer alone (in brackets: of what\n"
        "torch's scheduler adds). Two empty hooks are what torch's calling of hooks costs; two hooks by hand compare each group's\n"
        "value before the step and write each after it; the noise is the optimizer alone, measured twice; ± is 95 %:",
        ["optimizer", "alone", *ADDED.values()],
        rows,
        words=1,
    )


def _added_cell(competitor: Numbers, name: str) -> str:
    added = competitor["added_us"]
    low, high = _sure(added)
    text = f"{added['median']:.1f} ± {(high - low) / 2:.1f}"
    is_share = name not in {"torch CosineAnnealingLR", "no schedule, again"}
    return f"{text} ({competitor['of_torch']['median']:.2f})" if is_share else text


def _sure(spread: Numbers) -> tuple[float, float]:
    """As Spread.sure in timing.py."""
    low, high = spread["quartiles"]
    half = 1.57 * (high - low) / spread["rounds"] ** 0.5
    return spread["median"] - half, spread["median"] + half


def _sentences(result: Numbers) -> str:
    growth, found = result["growth"], result["import"]
    builds = "; ".join(
        f"{b['written_as']}: {b['build_s']:.2g} s, {b['nbytes'] / 1e6:.1f} MB" for b in result["build"]
    )
    late = growth["seconds_exponent_from_1e5"]
    more = "" if late is None else f" (rows^{late:.2f} from 100,000 on)"
    longest = growth["points"][-1]
    return (
        f"Tables of {result['build'][0]['rows'] - 1:,} steps take, with\n{builds}.\n"
        f"Building grows as rows^{growth['seconds_exponent']:.2f}{more}; {longest['rows']:,} rows take "
        f"{longest['build_s']:.2g} s, {longest['to_by_hand']['median']:.2f}x three lines of\nnumpy by hand. "
        f"`import tensorsched` takes {found['ours_s'] * 1e3:.0f} ms after `import torch`, which takes "
        f"{found['torch_s'] * 1e3:.0f} ms.\n"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(text: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 0) -> str:
    """A sentence and a Markdown table; the first `words` columns hold words, the others numbers."""

    def lines() -> Iterator[str]:
        yield from (text, "", f"| {' | '.join(head)} |")
        yield f"| {' | '.join(['---'] * words + ['---:'] * (len(head) - words))} |"
        yield from (f"| {' | '.join(row)} |" for row in rows)

    return "\n".join(lines()) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write, or check; the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if README is stale")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument(
        "--results", type=Path, help="the page of results; default: RESULTS.md here, or beside --readme"
    )
    options = parser.parse_args(argv)
    text = options.readme.read_text(encoding="utf-8")
    result = json.loads(options.result.read_text(encoding="utf-8"))
    new = {options.readme: replaced(text, result)}
    results = options.results or (HERE if options.readme == README else options.readme.parent) / PAGE
    new[results] = page(result, json.loads(ONE_GRAPH.read_text(encoding="utf-8")))
    if options.check:
        stale = [
            file.name for file, text in new.items() if not file.exists() or file.read_text("utf-8") != text
        ]
        for name in stale:
            print(f"{name} is stale: run make readme")
        if not stale:
            print("README.md is up to date")
        return int(bool(stale))
    for file, text in new.items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
