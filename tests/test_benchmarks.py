"""The benchmark runs, and writes what it measured. What it measured is not tested: a test must not depend on load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent / "benchmarks" / "bench.py"
ROOT = BENCH.parent.parent.parent
TINY = {
    "--rounds": "2", "--block-ms": "0.05", "--groups": "2", "--rows": "200", "--columns": "3",
    "--tiny-groups": "3", "--slots": "4",
    "--most-rows": "10000", "--repeats": "1", "--profile-calls": "20",
}  # fmt: skip
SPREAD = {"median", "low", "high", "quartiles", "rounds"}
FLOATS = {
    "no schedule", "no schedule, again", "two empty hooks", "two hooks by hand", "torch CosineAnnealingLR",
    "ours, float slots",
}  # fmt: skip
TENSORS = {"no schedule, tensor lr", "torch CosineAnnealingLR, tensor lr", "ours, tensor slots"}


def test_the_benchmark_writes_what_it_measured(tmp_path):
    out = tmp_path / "new" / "cpu.json"
    options = [word for option in TINY.items() for word in option]
    command = [sys.executable, BENCH, "--quick", *options, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert list(result) == [
        "machine", "peers", "options", "schedule_step", "whole_step", "layout", "build", "ignite", "growth", "import",
        "profile", "live", "clocks", "targets", "load_at_end",
    ]  # fmt: skip
    assert list(result["machine"]) == [
        "cpu", "cores", "system", "python", "torch", "numpy", "commit", "load",
    ]  # fmt: skip
    check_times(result)
    assert [(part["rows"], part["groups"]) for part in result["build"]] == [(201, 1), (201, 3), (201, 3)]
    for part in result["build"]:
        assert part["nbytes"] <= part["unshared_nbytes"] == 201 * 4 * part["groups"]
        assert part.keys() >= {"written_as", "build_s", "advance_us"}
    # By part: at 2 groups the bare loop alone; whole steps and what is added to fused ones; layouts; bytes; handlers.
    assert len(result["targets"]) == 1 + (6 + 2 + 2 * (2 + 2)) + 3 + 2 + 3
    for verdict in result["targets"]:
        assert f"{verdict['target']}: {verdict['measured']}: " in done.stdout
    assert "issue" not in done.stdout
    check_growth_import_profile(result)
    check_readme(out, tmp_path / "README.md")
    assert all(
        ("left out" in line) == (None in result["peers"].values()) for line in done.stdout.split("\n")[1:2]
    )


def check_times(result):
    (steps,) = result["schedule_step"]
    assert steps["groups"] == 2
    missing = [name for name, version in result["peers"].items() if version is None]
    assert len(steps["competitors"]) == 11 + 1 + 3 - len(missing)
    assert all(not any(name in each for each in steps["competitors"]) for name in missing)
    assert steps["float_slots_to_bare_loop"].keys() == SPREAD
    timed = [(part["optimizer"], part["implementation"]) for part in result["whole_step"]]
    ways = ("loop", "foreach", "fused")
    assert timed == [(kind, how) for kind in ("SGD", "AdamW") for how in ways] + [
        ("SGD", "fused"),
        ("AdamW", "fused"),
    ]
    for part in result["whole_step"]:
        assert part["competitors"].keys() == FLOATS | (
            TENSORS if part["implementation"] == "fused" else set()
        )
        for name, competitor in part["competitors"].items():
            if name in {"no schedule", "no schedule, tensor lr"}:
                assert "added_us" not in competitor
            else:
                assert competitor["added_to"] in part["competitors"]
                assert competitor["added_us"].keys() == SPREAD
                assert competitor["of_torch"].keys() == {"median", "sure"}
    assert [part["called"] for part in result["layout"]] == [
        "ScheduleEngine.advance()",
        "sched.step()",
        "both hooks",
    ]
    assert [part["groups"] for part in result["ignite"]] == [2] * 4
    assert all(part["competitors"].keys() == {"ignite", "ours"} for part in result["ignite"])
    assert [(part["call"], part["groups"]) for part in result["live"]] == [
        ("observing", 2),
        ("reducing", 2),
        ("a step and observing", 2),
    ]
    for part in (steps, *result["whole_step"], *result["layout"], *result["ignite"], *result["live"]):
        for competitor in part["competitors"].values():
            assert competitor["us"].keys() == competitor["ratio"].keys() == SPREAD
            assert competitor["us"]["low"] > 0


def check_growth_import_profile(result):
    growth = result["growth"]
    assert [(p["rows"], p["nbytes"]) for p in growth["points"]] == [(1_000, 4_000), (10_000, 40_000)]
    assert abs(growth["bytes_exponent"] - 1.0) < 1e-9
    assert growth["seconds_exponent_from_1e5"] is None  # two lengths are needed, and all are shorter
    assert result["import"]["ours_s"] > 0
    assert result["import"]["ratio"] > 0
    names = [part["name"] for part in result["profile"]]
    assert len(names) == len(set(names)) == 3
    for part in result["profile"]:
        assert abs(sum(line["share"] for line in part["lines"]) - 1.0) < 0.01
        assert abs(sum(part["by_package"].values()) - 1.0) < 0.01
        assert part["by_package"]["tensorsched"] > 0


def check_readme(result, readme):
    """Every part has a place in README's section or on the page of results; what is in the committed one is tested in test_readme."""
    readme.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, BENCH.with_name("readme.py"), "--readme", readme, "--result", result]
    subprocess.run(command, check=True)
    new = readme.read_text(encoding="utf-8")
    results = readme.with_name("RESULTS.md").read_text(encoding="utf-8")
    assert "| timm-style loop |" in new
    assert "target" not in results
    for head in (
        "| two empty hooks |",
        "10,000 rows take",
        "`import tensorsched` takes",
    ):
        assert head in results
    assert "target" not in new.partition("<!-- performance: `")[2].partition("<!-- performance: end")[0]
