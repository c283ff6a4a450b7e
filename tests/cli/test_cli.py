"""The command line: as a process where a process is what matters (pipes, statuses, terminals), called elsewhere."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tensorsched as ts
from tensorsched.cli.main import main
from tensorsched.schedules.check import CODES
from tensorsched.schedules.views.numerals import number

COSINE = "linear(0, 3e-4, steps=500) >> cosine(3e-4, 3e-5, steps=19_500)"
SCHEDULE = ts.linear(0.0, 3e-4, steps=500) >> ts.cosine(3e-4, 3e-5, steps=19_500)
SHELL = f"{sys.executable} -m tensorsched"


@pytest.fixture
def run(capsys):
    """The command line in this process: (status, standard output, standard error)."""

    def call(*arguments):
        try:
            status = main(arguments)
        except SystemExit as stop:  # argparse's
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def shell(command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/env", "bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


# -- as a process -----------------------------------------------------------------------------------------------------


def test_a_pipe_carries_documents_and_no_colour():
    document = json.dumps(SCHEDULE.to_dict())
    done = shell(f"{SHELL} show - --width 60 --height 6", input=document)
    assert (done.returncode, done.stderr) == (0, "")
    assert "20,000 steps" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error():
    done = shell(f"{SHELL} values 'noam(512, warmup=4000)' --steps 10000000 | head -n 3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:2] == ["step,value", "0,0.0"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [("diff 'constant(1)' 'constant(1.0)'", 0), ("check 'constant(1)'", 1), ("show 'cosin(1)'", 2)],
)
def test_exit_statuses(arguments, status):
    done = shell(f"{SHELL} {arguments}")
    assert done.returncode == status
    assert bool(done.stderr) == (status == 2)
    assert "Traceback" not in done.stderr


def test_an_ascii_terminal_gets_ascii():
    done = shell(f"{SHELL} show '{COSINE}'", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "***" in done.stdout


def test_the_package_has_the_script():
    project = Path(__file__).parents[1].with_name("pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(project)["project"]["scripts"] == {"tensorsched": "tensorsched.cli.main:main"}


# -- colour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_a_terminal_gets_colour_unless_it_is_unwanted(monkeypatch, environment, coloured):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["check", "constant(1)"]) == 1
    monkeypatch.undo()
    assert (b"\x1b[" in os.read(controller, 10_000)) == coloured
    os.close(controller)


# -- show -------------------------------------------------------------------------------------------------------------


def test_show_says_what_the_schedule_is(run):
    status, out, err = run("show", COSINE)
    assert (status, err) == (0, "")
    lines = out.split("\n")
    assert lines[0] == "linear(0, 3e-4, steps=500) >> cosine(3e-4, 3e-5, steps=19500)"
    assert ts.parse(lines[0]) == SCHEDULE
    facts = dict(re.findall(r"^(first|peak|lowest|last|length|area) +(.*)$", out, re.MULTILINE))
    area = float(SCHEDULE.values().sum())
    assert facts == {
        "first": "0 at step 0",
        "peak": "3e-4 at step 500",
        "lowest": "0 at step 0",
        "last": "3e-5 from step 20,000 on (holds)",
        "length": "20,000 steps",
        "area": f"{area:.6g}, the sum of the values at steps 0..19,999; mean {number(area / 20_000)}",
    }
    assert re.search(r"^warm-up +linear +0 +499 +0 ", out, re.MULTILINE)
    assert re.search(r"^decay +cosine +500 +19,999 +3e-4 ", out, re.MULTILINE)
    assert re.search(r"^holds +20,000 +3e-5$", out, re.MULTILINE)


@pytest.mark.parametrize("wide", [30, 80])
def test_the_curve_goes_where_the_values_go(run, wide):
    """The filled cell of each column lies at the height of the value; of a falling line, not of a rising one."""

    def tops(expression):
        _, out, _ = run("show", expression, "--width", str(wide), "--height", "8", "--steps", "100")
        rows = [re.split("[│┤]", line)[1] for line in out.split("\n") if re.search("[│┤]", line)]
        columns = max(map(len, rows))
        assert len(rows) == 8
        return [
            next(i for i, row in enumerate(rows) if row[column : column + 1].strip())
            for column in range(columns)
        ]

    down, up = tops("linear(1, 0, steps=100)"), tops("linear(0, 1, steps=100)")
    assert down == sorted(down)
    assert (down[0], down[-1]) == (0, 7)
    assert up == sorted(up, reverse=True)


@pytest.mark.parametrize(
    "expression",
    [
        "constant(0)", "constant(-3)", "linear(0, 1, steps=0)", "linear(0, 1, steps=1)", "noam(512, warmup=4000)",
        "warm_restarts(1, period=7, length_mult=1.5)", "cyclic(0, 1, up=3, mode='exp_range', gamma=0.99)",
        "step_decay(1, every=30)", "initial * warmup_cosine(1, total=100, warmup=10)",
        "warmup_cosine(1, total=10**12, warmup=0.1)", "linear(0, 1, steps=2**53)", "constant(1, steps=2**53)",
        "cosine(1, 0, steps=1).repeat().skip(10**15)", "cosine(1, 0, steps=2).repeat(10**15)", "exponential(1, 1e-300, steps=50)",
        "multistep(1, [3, 5]).hold_each(10).stretch(0.3).delay(4)", "1", "5e-324", "linear(0, 5e-324, steps=3)",
        "(linear(0, 1, steps=3) >> 0.5).skip(2) * exponential_decay(1, 0.999999, every=1000000)",
        "exponential_decay(1, 1, every=3)", "constant(2, steps=3) >> constant(1, steps=3)", "inverse_sqrt(1, timescale=1e300)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [("20", "3"), ("1", "1"), ("500", "40")], ids=str)
def test_show_draws_everything(run, expression, size):
    status, out, err = run("show", expression, "--width", size[0], "--height", size[1])
    assert (status, err) == (0, "")
    assert "nan" not in out.replace("initial", "")


def rows_of(out: str) -> list[str]:
    return [re.split("[│┤]", line)[1] for line in out.split("\n") if re.search("[│┤]", line)]


@pytest.mark.parametrize("count", [2, 3, 16])
def test_show_names_every_one_of_several(run, count):
    curves = [f"linear(1, {i / 16}, steps=100)" for i in range(count)]
    status, out, err = run("show", *curves, "--width", "100", "--height", "40")
    assert (status, err) == (0, "")
    letters = "abcdefghijklmnop"[:count]
    drawn = rows_of(out)
    assert set("".join(drawn)) - {" "} == set(letters)
    assert [row.rstrip()[-1] for row in drawn if row.strip()][-1] == "a"  # the lowest end is the first's
    for letter, curve in zip(letters, curves, strict=True):
        (told,) = re.findall(rf"^{letter}  (linear.*)$", out, re.MULTILINE)
        assert ts.parse(told) == ts.parse(curve)
        assert re.search(rf"^{letter} +1 +1 +0 ", out, re.MULTILINE)


def test_show_lets_equal_curves_take_turns(run):
    _, out, _ = run("show", "constant(1)", "constant(1)")
    assert "abab" in out


def test_show_has_letters_for_sixteen(run):
    status, out, err = run("show", *["constant(1)"] * 17)
    assert (status, out) == (2, "")
    assert "show draws up to 16 schedules, got 17" in err


def test_show_draws_steps_as_steps(run):
    """Between two levels one column is filled, over all the rows there; of a line there are many."""

    def widest(expression):
        _, out, _ = run("show", expression, "--width", "80", "--height", "20")
        columns = [{i for i, c in enumerate(row) if c != " "} for row in rows_of(out)]
        return max(len(filled) for filled in columns[1:-1])

    assert widest("piecewise_constant([1, 0], [500])") == 1
    assert widest("linear(1, 0, steps=600)") > 1


def test_show_cuts_a_log_axis(run):
    def labelled(*arguments):
        _, out, _ = run("show", *arguments)
        return re.findall(r"^ *([\d.e-]+) ┤", out, re.MULTILINE)

    assert labelled("cosine(1, 0, steps=1000)", "--scale", "log")[-1] == "1e-4"
    assert labelled("exponential(1e-7, 10, steps=300)")[-1] == "1e-7"


def test_show_says_what_is_counted(run):
    _, out, _ = run("show", "batch_steps('0:768 250B:1536')", "--unit", "tokens")
    assert re.search(r"^tokens  0 +", out, re.MULTILINE)
    assert "1536 at 250,000,000,000 tokens" in out
    for wrong in ("", "x" * 13, "\x1bc"):
        status, _, err = run("show", "1", "--unit", wrong)
        assert status == 2
        assert "--unit" in err


# -- values -----------------------------------------------------------------------------------------------------------


def test_values_as_csv_are_exact(run):
    _, out, _ = run("values", COSINE)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [int(row["step"]) for row in rows] == list(range(20_001))
    assert [float(row["value"]) for row in rows] == SCHEDULE.values(20_001).tolist()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("5", [0, 1, 2, 3, 4]), ("3:6", [3, 4, 5]), ("0:100:40", [0, 40, 80]), ("9,0,500", [9, 0, 500]),
        ("100000000000000:100000000000002", [10**14, 10**14 + 1]), (f"0:{70_000 * 3}:3", list(range(0, 210_000, 3))),
    ],
)  # fmt: skip
def test_values_as_json_are_exact(run, steps, expected):
    _, out, _ = run("values", COSINE, "--steps", steps, "--format", "json")
    document = json.loads(out)
    assert document["steps"] == expected
    assert document["values"] == [SCHEDULE(step) for step in expected]


@pytest.mark.parametrize("steps", ["0:100:40", "9,0,500", f"0:{70_000 * 3}:3"])
def test_values_of_several_stand_beside_each_other(run, steps):
    other = "linear(0, 1, steps=1000)"
    _, out, _ = run("values", COSINE, other, "--steps", steps)
    head, *rows = csv.reader(io.StringIO(out))
    assert head == ["step", repr(SCHEDULE), "linear(0.0, 1.0, steps=1000)"]
    _, out, _ = run("values", COSINE, other, "--steps", steps, "--format", "json")
    document = json.loads(out)
    assert document["schedules"] == head[1:]
    assert [int(step) for step, _, _ in rows] == document["steps"]
    for i, schedule in enumerate([SCHEDULE, ts.parse(other)]):
        expected = [schedule(step) for step in document["steps"][:50]]
        assert document["values"][i][:50] == expected
        assert [float(row[i + 1]) for row in rows] == document["values"][i]


def test_values_as_a_table(run):
    _, out, _ = run("values", "cosine(1, 0, steps=3)", "linear(2, 0, steps=2)", "--format", "table")
    lines = out.split("\n")
    assert lines[:3] == ["1  cosine(1.0, 0.0, steps=3)", "2  linear(2.0, 0.0, steps=2)", ""]
    assert [line.split() for line in lines[3:-1]] == [
        ["step", "1", "2"], ["0", "1", "2"], ["1", "0.75", "1"], ["2", "0.25", "0"], ["3", "0", "0"],
    ]  # fmt: skip
    assert len({len(line) for line in lines[3:-1]}) == 1  # aligned
    _, out, _ = run("values", "3e-4", "--steps", "0:2", "--format", "table")
    assert [line.split() for line in out.split("\n")[:-1]] == [
        ["step", "value"],
        ["0", "0.0003"],
        ["1", "0.0003"],
    ]


# -- diff -------------------------------------------------------------------------------------------------------------


def test_diff_finds_the_first_and_the_largest(run):
    status, out, _ = run("diff", "linear(1, 0, steps=8)", "linear(1, 0, steps=4) >> linear(0, 1, steps=4)")
    assert status == 1
    assert re.search(r"steps that differ +8 of 9", out)
    assert re.search(r"first difference +step 1: 0.875 and 0.75", out)
    assert re.search(r"largest difference +1 at step 8: 0.0 and 1.0", out)
    assert "o" in out.split("first")[0]


def test_diff_keeps_the_largest_of_a_long_run(run):
    _, out, _ = run("diff", "linear(1, 0, steps=200_000)", "constant(0)")
    assert re.search(r"steps that differ +200000 of 200001", out)
    assert re.search(r"largest difference +1 at step 0: 1.0 and 0.0", out)


def test_diff_of_what_is_written_differently_is_silent_to_a_tolerance(run):
    pair = "0.1 * cosine(3, 0, steps=100)", "cosine(0.3, 0, steps=100)"
    assert run("diff", *pair)[0] == 1
    assert run("diff", *pair, "--rtol", "1e-15")[0] == 0
    assert run("diff", COSINE, repr(SCHEDULE)) == (0, "the same at all steps 0..20000\n", "")


# -- check ------------------------------------------------------------------------------------------------------------

CLEAN = [
    (COSINE,), (COSINE, "--steps", "20000"), (COSINE, "--steps", "30000"), (COSINE, "--peak", "3e-4"),
    ("wsd(1, total=100, warmup=10, decay=10)",), ("noam(512, warmup=100)",), ("multistep(1, [3, 5])",),
    ("constant(1, steps=10) >> constant(0.1, steps=10)",), ("constant(0.5, steps=10) >> constant(1, steps=10)",), ("warm_restarts(1, period=10)",),
    ("warmup_cosine(1, total=100, warmup=10, ramp='skip_start')",), ("one_cycle(1, total=100)",),
    ("warmup_constant(1, warmup=500)", "--steps", "2000"), ("one_cycle(0.85, total=100, start=0.95, end=0.95)",),
    ("linear(0.1, 0.2, steps=9) + linear(0.5, 0.1, steps=20)",),
    # At a low value for long, and meant so: a constant, levels, a level line, a factor that has warmed up
    ("cosine(1, 0.1, steps=500) >> 0.1", "--steps", "5000"), ("cosine(1, 0.1, steps=500) >> constant(0.1, steps=500)", "--steps", "1200"),
    ("wsd(1, total=100, warmup=10, decay=10, floor=0.1)",), ("wsd(1, total=100, warmup=10, decay=10, floor=0.1)", "--steps", "180"),
    ("multistep(0.1, [100, 200])", "--steps", "900"), ("0.5 * (cosine(1, 0.1, steps=500) >> 0.1) * plateau()", "--steps", "5000"),
    ("linear(0, 1, steps=10) * multistep(0.1, [100, 200])", "--steps", "900"), ("infinite(1, warmup=5, cooldown=20, level=0.1)", "--steps", "900"),
    ("piecewise_linear([(0, 1), (100, 0.1), (900, 0.1)])",), ("linear(0.9, 0.95, steps=100) >> constant(0.95)", "--steps", "900"),
    ("maximum(exponential_decay(1, 0.5, every=10), 0.1)",), ("linear_growth(1, -0.1).clamp(low=0.5)",),
    ("(cosine(1, 0.1, steps=5) >> 0.1).hold_each(100)", "--steps", "5000"),
]  # fmt: skip
FOUND = [
    (("linear(0, 1, steps=10) >> cosine(0.9, 0, steps=10)",), ["jump: from 1 to 0.9 at step 10"]),
    (("0.5 * (linear(0, 1, steps=10) >> cosine(0.9, 0, steps=10))",), ["jump" ]),
    (("cosine(1, 0, steps=20).take(10)",), ["unreachable-end: take(10) cuts"]),
    ((COSINE, "--steps", "10000"), ["unreachable-end: the schedule is 20000 steps long and the run 10000"]),
    (("warmup_cosine(1, total=100, warmup=0)",), ["zero-length: linear(0.0, 1.0, steps=0) at step 0"]),
    ((COSINE, "--peak", "1e-4"), ["above-peak: 0.0003 at step 500 (first at step 167)"]),
    (("linear(0, 1, steps=10) >> linear(1, 2, steps=10)",), ["ends-at-peak: it rises to 2", "above-peak: 2 at step 20 (first at step 11)"]),
    ((COSINE, "--steps", "400"), ["long-warm-up: it takes 500 steps, the run 400"]),
    (("cosine(1, 0, steps=500)", "--steps", "1000"), ["held-at-0: 0 from step 500 on, for 500 of the 1000 steps"]),
    (("linear(0, 1, steps=10) >> cosine(1, 0, steps=90) >> constant(0, steps=100)",), ["held-at-0: 0 from step 100 on"]),
    (("warmup_cosine(1, total=100, warmup=10, floor=0.1)", "--steps", "201"),
     ["held-at-floor: 0.1 from step 100 on, for 101 of the 201 steps: the schedule is 100 steps long, and its end is held; where that is meant, write >> 0.1"]),
    (("cosine(1, 0.1, steps=500) >> constant(0.1, steps=500)", "--steps", "2000"), ["held-at-floor: 0.1 from step 500 on, for 1500 of the 2000 steps: the schedule is 1000 steps long"]),
    (("0.5 * wsd(2, total=100, warmup=10, decay=10, floor=0.2)", "--steps", "200"), ["held-at-floor: 0.1 from step 100 on"]),
    (("maximum(exponential_decay(1, 0.5, every=10), 0.1)", "--steps", "200"), ["held-at-floor: 0.1 from step 34 on, for 166 of the 200 steps"]),
    (("spline([(0, 1), (50, 0.1), (100, 0.1)])", "--steps", "900"), ["held-at-floor: 0.1 from step 50 on, for 850 of the 900 steps: the schedule is 100 steps"]),
    (("cosine(1, 0.1, steps=5).hold_each(100)", "--steps", "5000"), ["held-at-floor: 0.1 from step 500 on"]),
    (("from_values([1, 0.5, 0.1, 0.1, 0.1, 0.1])",), ["held-at-floor: 0.1 from step 2 on"]),
    (("warmup_cosine(1, total=1000, warmup=1)",), ["one-step-warm-up: the warm-up is one of 1001 steps"]),
    (("linear(0, 1, steps=100)",), ["ends-at-peak: it rises to 1 at its end, step 100"]),
    (("linear(0, 1, steps=10) + cosine(1, 0, steps=20)",), ["sum-of-phases: + adds linear(0.0, 1.0, steps=10)"]),
    (("constant(1)",), ["never-changes: 1 at every step"]),
    (("linear(1, -1, steps=10)",), ["below-0: -1 at step 10 (first at step 6)"]),
    (("1 / linear(1, 0, steps=4)",), ["not-finite: the value at step 4"]),
]  # fmt: skip


@pytest.mark.parametrize("arguments", CLEAN, ids=" ".join)
def test_check_finds_nothing(run, arguments):
    assert run("check", *arguments) == (0, "nothing found\n", "")


@pytest.mark.parametrize(("arguments", "says"), FOUND, ids=[" ".join(row[0]) for row in FOUND])
def test_check_finds(run, arguments, says):
    status, out, err = run("check", *arguments)
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert len(lines) == len(says)
    assert all(line.startswith(start) for line, start in zip(lines, says, strict=True))


def test_every_code_of_check_has_a_row():
    assert {start.partition(":")[0] for _, says in FOUND for start in says} == set(CODES)


def test_check_is_a_function_too():
    (found,) = ts.check(ts.constant(1.0))
    assert (found.code, found.step, found.sentence) == ("never-changes", 0, "1 at every step")
    assert str(found) == "never-changes: 1 at every step"


def test_check_takes_several_and_lets_through_what_is_allowed(run):
    status, out, _ = run("check", COSINE, "constant(1)", "cosine(1, 0, steps=9).take(3)")
    assert status == 1
    assert [line.split(": ")[1] for line in out.splitlines()] == [
        "nothing found",
        "never-changes",
        "unreachable-end",
    ]
    assert out.startswith(f"{COSINE}: ") or COSINE[:50] in out
    status, out, _ = run("check", "constant(1)", "--allow", "never-changes", "--allow", "jump")
    assert (status, out) == (0, "nothing found (1 allowed)\n")
    assert run("check", "constant(1)", "--allow", "jump")[0] == 1
    assert run("check", "constant(1)", "--allow", "jumps")[0] == 2
    assert run("check", "-", "-")[0] == 2


def test_the_version(run):
    assert run("--version") == (0, f"tensorsched {ts.__version__}\n", "")


def test_show_takes_a_logarithmic_axis_where_it_serves(run):
    """Of an lr range test: a straight line, and a wall on a linear axis."""

    def heights(*options):
        _, out, _ = run(
            "show", "exponential(1e-7, 1, steps=1000)", "--width", "60", "--height", "12", *options
        )
        rows = [re.split("[│┤]", line)[1].ljust(60) for line in out.split("\n") if re.search("[│┤]", line)]
        return [next(i for i, row in enumerate(rows) if row[column].strip()) for column in range(2, 48)]

    assert heights() == heights("--scale", "log") != heights("--scale", "linear")
    assert len(set(heights())) == 12 or len(set(heights())) >= 10
    assert len(set(heights("--scale", "linear"))) < 8
    assert run("show", "cosine(1, -1, steps=9)", "--scale", "log")[0] == 0


# -- where EXPR comes from, and errors --------------------------------------------------------------------------------


def test_a_json_file_is_read(run, tmp_path):
    path = tmp_path / "schedule.JSON"
    path.write_text(SCHEDULE.to_json(indent=1), encoding="utf-8")
    assert run("diff", str(path), COSINE)[0] == 0
    assert run("diff", str(path), "2 * " + COSINE)[0] == 1


@pytest.mark.parametrize("text", [COSINE, SCHEDULE.to_json()], ids=["expression", "document"])
def test_standard_input_is_read(run, monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert run("diff", "-", COSINE)[0] == 0


ERRORS = [
    (("show", "cosin(1, 0, steps=4)"), "column 1: unknown name 'cosin'"),
    (("show", ""), "the expression is empty"),
    (("show", "nowhere.json"), "nowhere.json cannot be read: No such file"),
    (("show", "\0.json"), "is no file name"),
    (("show", "1 / linear(1, 0, steps=4)"), "the value at step 4 is inf"),
    (("show", "constant(1e308, steps=3) >> constant(-1e308)"), "too far apart to draw"),
    (("show", "constant(1)", "--steps", "0"), "--steps"),
    (("show", "constant(1)", "--height", "1000000"), "--height"),
    (("show",), "required: EXPR"),
    (("values", "noam(512, warmup=4)"), "values of an unbounded schedule need --steps"),
    (("values", "constant(1)", "--steps", "-5"), "--steps"),
    (("values", "constant(1)", "--steps", "1:2:3:4"), "--steps"),
    (("values", "constant(1)", "--steps", "9:0"), "--steps"),
    (("values", "initial", "--steps", "3"), "ts.initial has no value of its own"),
    (("values", "constant(1)", "--format", "xml"), "--format"),
    (("values", "constant(1)", "noam(512, warmup=4)"), "values of an unbounded schedule need --steps"),
    (("values", "-", "-"), "only one of the schedules"),
    (("diff", "linear(0, 1, steps=3)", "1 >> linear(0, 1, steps=3)"), "nothing can follow an unbounded schedule"),
    (("check", "(1 >> linear(0, 1, steps=3)) * 2"), "nothing can follow an unbounded schedule"),
    (("diff", "-", "-"), "only one of the schedules"),
    (("diff", "constant(1)", "linear(0, 1, steps=10**9)"), "pass a shorter --steps"),
    (("check", "linear(0, 1, steps=10**9)"), "pass a shorter --steps"),
    (("plot", "constant(1)", "-o", "x.gif"), "must end in .png, .svg or .pdf"),
    (("plot", "constant(1)", "-o", "nowhere/x.png"), "there is no such folder"),
    (("plot", "constant(1)"), "-o/--output"),
    (("bench", "--groups", "0"), "--groups"),
    ((), "COMMAND"),
    (("frobnicate",), "invalid choice"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), ERRORS, ids=[" ".join(row[0]) for row in ERRORS])
def test_errors(run, arguments, says):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert says in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "\x1bc"), ("show", "\x1b]0;x\x07.json"), ("show", "constant(1)", "--\x1bc"), ("\x1bc",),
        ("check", "constant(1)  # \x1bc", "constant(2)"), ("values", "constant(1)", "--steps", "\x1bc"),
        ("plot", "constant(1)", "-o", "\x1bc"), ("diff", "constant(1)", "'\x9b31m'"), ("show", "x" * 200_000),
        ("show", "constant(1)", "--" + "x" * 200_000), ("show", "x" * 200_000 + ".json"),
    ],
    ids=lambda arguments: ascii(arguments)[:60],
)  # fmt: skip
def test_no_argument_reaches_the_terminal_as_it_is(run, arguments):
    status, out, err = run(*(text[:300_000] for text in arguments))
    assert status in {1, 2}
    assert all(c.isprintable() or c == "\n" for c in out + err)
    assert len(out + err) < 3_000


def test_a_defect_is_no_difference_found(run, monkeypatch):
    """Status 1 says that something was found: what we did not foresee must not."""

    def fails(_):
        raise TypeError("a defect")

    monkeypatch.setattr("tensorsched.cli.commands.evaluate", lambda *_: fails(0))
    status, _, err = run("diff", "constant(1)", "constant(2)")
    assert status == 2
    assert "TypeError: a defect" in err
    assert "this is a bug" in err


def test_standard_input_that_is_no_schedule(run, monkeypatch):
    for text, says in (
        ("{}", "standard input: format: must be"),
        ("1 +", "standard input: column"),
        ("", "empty"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        status, _, err = run("show", "-")
        assert status == 2
        assert says in err


def test_the_help_documents_the_statuses(run):
    for arguments in (["--help"], ["check", "--help"]):
        status, out, _ = run(*arguments)
        assert status == 0
        assert "exit status: 0 done" in out


# -- the other commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["0.5 * " + COSINE]], ids=["one", "two"])
@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot_writes_a_picture(run, tmp_path, suffix, magic, more):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"curve.{suffix}"
    assert run("plot", COSINE, *more, "-o", str(path)) == (0, "", "")
    assert path.read_bytes().startswith(magic)


def test_plot_without_matplotlib_says_what_to_install(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = run("plot", COSINE, "-o", str(tmp_path / "curve.png"))
    assert status == 2
    assert "pip install 'tensorsched[plot]'" in err


def test_bench_prints_and_writes_its_table(run, tmp_path):
    path = tmp_path / "bench.json"
    status, out, _ = run("bench", "--groups", "1", "2", "--rounds", "2", "--json", str(path))
    assert status == 0
    record = json.loads(path.read_text(encoding="utf-8"))
    assert set(record["us"]) == {"1", "2"}
    for times in record["us"].values():
        assert set(times) == {
            "torch CosineAnnealingLR", "torch CosineAnnealingLR, tensor lr", "tensorsched, float slots",
            "tensorsched, tensor slots",
        }  # fmt: skip
        assert all(len(us) == 2 and min(us) > 0 for us in times.values())
    assert out.count("tensorsched, tensor slots") == 2


def test_demo_has_its_own_command_line(run):
    status, out, _ = run("demo", "--help")
    assert status == 0
    assert "optimizer steps of each run" in out


def test_the_readmes_command_lines_run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = Path(__file__).parents[1].with_name("README.md").read_text(encoding="utf-8")
    lines = [shlex.split(line, comments=True) for line in text.split("\n") if line.startswith("tensorsched ")]
    assert {words[1] for words in lines} == {"show", "diff", "check", "values", "plot", "bench"}
    for _, *words in lines:
        status, _, err = run(*words)
        assert (status, err) == (1 if words[0] in {"diff", "check"} else 0, "")
    assert (tmp_path / "curve.svg").is_file()
