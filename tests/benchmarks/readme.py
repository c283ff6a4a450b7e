"""Write README's performance section from the committed numbers: `make readme`; `--check` says whether it is stale."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "cpu.json"
README = HERE.parent.parent / "README.md"
BEGIN = "<!-- performance: `make readme` writes this from tests/benchmarks/results/cpu.json -->\n"
END = "<!-- performance: end -->\n"

Numbers = Mapping[str, Any]

COSINE = "torch CosineAnnealingLR, float lr"
COLUMNS = {
    COSINE: "torch `CosineAnnealingLR`",
    "torch CosineAnnealingLR, tensor lr": "the same, tensor lr",
    'transformers get_scheduler("cosine")': "transformers",
    "timm-style loop: formula, then assign": "timm-style loop",
    "ignite ParamGroupScheduler, one a group": "ignite",
    "optax cosine_decay_schedule, jitted": "optax, jitted",
    "ours, attached, resident": "ours, resident",
    "ours, attached, host": "ours, host",
}
"""Competitors of part 1 and their columns; peers that a run had not installed have none."""
OURS = {"ours, attached, resident", "ours, attached, host"}


def section(result: Numbers) -> str:
    """Everything between the marks."""
    parts = [_machine(result), _schedule_steps(result), _whole_steps(result), _build(result)]
    parts += [_growth(result["growth"])] if "growth" in result else []
    parts += [_import_time(result["import"])] if "import" in result else []
    parts += [_profile(result["profile"])] if "profile" in result else []
    return "\n".join([*parts, _missed(result)])


def replaced(text: str, result: Numbers) -> str:
    """README with the section in the place of the old one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has lost a mark: it needs the lines\n{BEGIN}{END}")
    return f"{before}{BEGIN}\n{section(result)}\n{END}{after}"


def _machine(result: Numbers) -> str:
    m = result["machine"]
    return (
        f"Measured on {m['cores']} cores of an {m['cpu']} ({m['system']}), Python {m['python']}, torch {m['torch']}, "
        f"numpy {m['numpy']};\n[all numbers](tests/benchmarks/results/cpu.json), with their spread.\n"
    )


def _schedule_steps(result: Numbers) -> str:
    runs = result["schedule_step"]
    names = [name for name in COLUMNS if all(name in run["competitors"] for run in runs)]
    if missing := ({COSINE} | OURS).difference(names):
        raise SystemExit(f"cpu.json has no {min(missing)!r}: name it in readme.py as the benchmark does")
    rows = []
    for run in runs:
        cells = [_cell(run["competitors"][name], name) for name in names]
        rows.append([f"{run['groups']}", *cells])
    table = _table(
        "What it costs the host to move the learning rate of every group by one step, in microseconds (in brackets: how "
        "many\ntimes faster than the first column; below 1 is slower):",
        ["groups", *(COLUMNS[name] for name in names)],
        rows,
    )
    return "\n".join([table, *lost(runs), ""])


def lost(runs: Sequence[Numbers]) -> Iterator[str]:
    """Where part 1 has ours slower than another library, one sentence for each of them."""
    found = False
    for ours in (name for name in COLUMNS if name in OURS):
        for other in (name for name in COLUMNS if name not in OURS):
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
                yield f"- Slower: {COLUMNS[ours]} than {COLUMNS[other]}, {', '.join(factors)}."
    if not found:
        yield "Ours is not slower than any of them in this run."


def _cell(competitor: Numbers, name: str) -> str:
    us, ratio = competitor["us"]["median"], competitor["ratio"]["median"]
    return _short(us) if name == COSINE else f"{_short(us)} ({_short(ratio)}x)"


def _whole_steps(result: Numbers) -> str:
    rows = []
    for part in result["whole_step"]:
        both = part["competitors"]
        torch, ours = both["torch CosineAnnealingLR"], both["ours, attached"]
        low, high = _sure(ours["ratio"])
        name = f"{part['optimizer']} {part['implementation']}"
        ratio = f"{ours['ratio']['median']:.3f} ({low:.3f} to {high:.3f})"
        rows.append([name, _short(torch["us"]["median"]), _short(ours["us"]["median"]), ratio])
    return _table(
        "A whole `optimizer.step()` of 64 small parameters in 2 groups, schedule included, in microseconds. The last column "
        "is the\nmedian of the ratios in each round, and where it lies with 95 %; above 1, ours is faster:",
        ["optimizer", "torch's scheduler", "ours", "torch's / ours"],
        rows,
        words=1,
    )


def _build(result: Numbers) -> str:
    rows = [
        [f"{b['rows'] - 1:,} steps, {b['written_as']}", f"{b['build_s']:.2g}", f"{b['nbytes'] / 1e6:.1f}"]
        for b in result["build"]
    ]
    return _table("Building a table:", ["table", "seconds", "MB on the device"], rows, words=1)


def _growth(growth: Numbers) -> str:
    rows = [
        [
            f"{p['rows']:,}",
            _short(p["build_s"] * 1e3),
            _short(p["by_hand_s"] * 1e3),
            f"{p['to_by_hand']['median']:.2f}x",
            f"{p['nbytes']:,}",
        ]
        for p in growth["points"]
    ]
    late = growth["seconds_exponent_from_1e5"]
    more = "" if late is None else f" (rows^{late:.2f} from 100,000 on)"
    text = (
        "One warm-up and cosine, beside three lines of numpy that do the same by hand, in milliseconds. Time grows as\n"
        f"rows^{growth['seconds_exponent']:.2f}{more}, memory as rows^{growth['bytes_exponent']:.2f}:"
    )
    return _table(text, ["rows", "ours", "by hand", "ours / by hand", "bytes"], rows)


def _import_time(found: Numbers) -> str:
    return (
        f"`import tensorsched` takes {found['ours_s'] * 1e3:.0f} ms after `import torch`, which takes "
        f"{found['torch_s'] * 1e3:.0f} ms: {found['ratio']:.1%} more (best of {found['runs']}).\n"
    )


def _profile(parts: Sequence[Numbers]) -> str:
    packages = list(dict.fromkeys(name for p in parts for name in p["by_package"]))
    rows = [
        [p["name"], _short(p["us"]), *(f"{p['by_package'].get(name, 0):.0%}" for name in packages)]
        for p in parts
    ]
    head = ["step", "microseconds", *(f"in {name}" for name in packages)]
    return _table("Where the time of a step goes, by profiler:", head, rows, words=1)


def _missed(result: Numbers) -> str:
    missed = [f"- {t['target']}: {t['measured']}" for t in result["targets"] if t["met"] is False]
    if not missed:
        return "No target was missed in this run.\n"
    return "\n".join(["Targets that this run missed:", "", *missed, ""])


def _sure(ratio: Numbers) -> tuple[float, float]:
    """As Spread.sure in timing.py."""
    low, high = ratio["quartiles"]
    half = 1.57 * (high - low) / ratio["rounds"] ** 0.5
    return ratio["median"] - half, ratio["median"] + half


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
    options = parser.parse_args(argv)
    text = options.readme.read_text(encoding="utf-8")
    new = replaced(text, json.loads(options.result.read_text(encoding="utf-8")))
    if options.check:
        print("README.md is up to date" if new == text else "README.md is stale: run make readme")
        return int(new != text)
    options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
