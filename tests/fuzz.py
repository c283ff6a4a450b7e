"""Fuzz what comes from outside: texts, configs and documents, states, command lines.

    python -m tests.fuzz [--minutes 10] [--only NAME]

Whatever comes in, only the documented errors come out, with a message that is short and harmless to a terminal; nothing
has changed after one; and no example may take more than a few seconds of work. A short round is in `make test`
(tests/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import io
import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException, HypothesisWarning

import tensorsched as ts
from tensorsched.binding.checkpoint import ON_MISMATCH
from tensorsched.binding.history import History
from tensorsched.binding.state_format import write_state
from tensorsched.cli.main import main as command_line
from tensorsched.schedules.node import brief
from tensorsched.schedules.parse import FUNCTIONS, METHODS
from tensorsched.schedules.template import templates
from tensorsched.schedules.views.phases import phases
from tests.strategies import junk, nearly, schedules

MOST_SECONDS = 20  # of one example: what takes longer hangs
LONGEST_MESSAGE = 4_000
STEPS = (0, 1, 7, 10**6, 2**53)

# -- texts ------------------------------------------------------------------------------------------------------------

NUMBERS = [
    "0", "1", "-1", "2", "3", "9", "0.5", "1e-3", "1.5", "100", "1000", "10**6", "2**53", "2**53-1", "10**400", "1e308",
    "5e-324", "-0.0", "1e999", "True", "None", "'cosine'", "'1-sqrt'", "'x'", "''", "?", "[1, 2]", "[(0, 1), (5, 2)]", "[]", "()",
    "9" * 30, "9" * 400, "1.00001", "0.999", "'0:1 9:2'", "initial",
]  # fmt: skip
numbers = st.sampled_from(NUMBERS) | st.integers(-5, 50).map(str) | st.floats(width=32).map(repr)
PARAMETERS = {
    name: list(inspect.signature(function).parameters)[name in METHODS :]
    for name, function in [*FUNCTIONS.items(), *METHODS.items()]
}


def calls(inner: st.SearchStrategy[str], names: list[str]) -> st.SearchStrategy[str]:
    """A call by name: mostly with its own arguments, mostly all of them."""

    @st.composite
    def call(draw):
        name = draw(st.sampled_from(names))
        known = draw(st.permutations(PARAMETERS[name]))
        kept = known[: len(known) - draw(st.sampled_from([0, 0, 0, 1, 2]))]
        extra = draw(st.sampled_from([[], [], [], ["T_max"], ["steps"], ["x"]]))
        return f"{name}({', '.join(f'{key}={draw(inner)}' for key in [*kept, *extra])})"

    return call()


def texts() -> st.SearchStrategy[str]:
    """Expressions that are right more often than not, and what a slip of the keyboard makes of them."""
    leaf = numbers | calls(numbers, sorted(FUNCTIONS)) | schedules(2).map(repr)

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        operators = st.sampled_from([" >> ", " + ", " - ", " * ", " / ", " ** ", " << ", ", "])
        return (
            st.tuples(inner, operators, inner).map("".join)
            | inner.map(lambda text: f"({text})")
            | inner.map(lambda text: f"-{text}")
            | calls(inner, ["chain", "maximum", "minimum", "adamc", "independent", "wsd"])
            | st.tuples(inner, calls(numbers, sorted(METHODS))).map(lambda pair: f"({pair[0]}).{pair[1]}")
        )

    return st.recursive(leaf, grow, max_leaves=6) | slips(st.recursive(leaf, grow, max_leaves=4))


@st.composite
def slips(draw, whole):
    text = draw(whole)
    at = draw(st.integers(0, max(0, len(text) - 1)))
    width = draw(st.integers(0, 3))
    return text[:at] + draw(st.sampled_from(["", "(", ")", ".", "=", "?", "\x1b[31m", "\0", "é", "'"]) | st.characters()) + text[at + width :]  # fmt: skip


def read_text(text: str) -> None:
    """What is read prints as what reads back."""
    made = ts.parse(text)
    use(made)
    if not list(templates(made)):  # they print as what was written, comments and all
        assert ts.parse(repr(made)) == made


def use(made: ts.Schedule) -> None:
    """Everything that looks at a schedule."""
    for step in STEPS:
        for read in (made, functools.partial(ts.reference.value, made)):
            with contextlib.suppress(ts.ScheduleError):
                read(step)
    harmless(brief(made))
    with contextlib.suppress(ts.ScheduleError):
        phases(made)
    with contextlib.suppress(ts.ScheduleError):
        ts.check(made, steps=200)
    with contextlib.suppress(ts.ScheduleError):
        document = made.to_dict()
        assert ts.from_dict(document) == made


# -- documents, configs, states ---------------------------------------------------------------------------------------

good_documents = schedules(3).map(ts.Schedule.to_dict)
documents = good_documents | nearly(good_documents) | junk
configs = st.fixed_dictionaries(
    {"kind": st.sampled_from(sorted(FUNCTIONS))},
    optional=dict.fromkeys(sorted({name for names in PARAMETERS.values() for name in names}), junk),
)


def read_document(document: object) -> None:
    use(ts.from_dict(document))


def read_json(text: str) -> None:
    use(ts.from_json(text))


def attached() -> tuple[torch.optim.Optimizer, ts.Attachment]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    curve = ts.warmup_cosine(1e-3, total=20, warmup=4)
    sched = ts.attach(optimizer, lr=curve, betas=(ts.constant(0.9), None), free={"kl": 1.0 - curve}, steps=50)
    sched.seek(3)
    return optimizer, sched


SLOTS = ["lr[group 0]", "betas[0][group 0]", "kl"]


def saved(made: list[ts.Schedule]) -> dict[str, object]:
    """A state of step 7, in the middle of a run that was changed once."""
    named = dict(zip(SLOTS, made, strict=True))
    history = History(named)
    history.add("rewrite", 5, after={SLOTS[0]: made[1]})
    return write_state(7, named | {SLOTS[0]: made[1]}, history)


good_states = st.lists(schedules(2), min_size=3, max_size=3).map(saved)
states = st.tuples(good_states | nearly(good_states) | junk, st.sampled_from([*ON_MISMATCH, "x", None]))


def load_state(drawn: tuple[object, str | None]) -> None:
    """After an error nothing has changed."""
    state, how = drawn
    optimizer, sched = attached()
    before = sched.step_count, sched.value("lr"), repr(sched.slots)
    with contextlib.suppress(ts.ScheduleError, ts.BindingError):
        ts.schedules_of(state)
    try:
        sched.load_state_dict(state, on_mismatch=how)
    except (ts.ScheduleError, ts.BindingError):
        assert (sched.step_count, sched.value("lr"), repr(sched.slots)) == before
        raise
    finally:
        optimizer.step()


# -- command lines ----------------------------------------------------------------------------------------------------

options = st.lists(
    st.sampled_from(["--width=9", "--height=3", "--steps=50", "--scale=log", "--format=json", "--format=table", "--rtol=0.1", "--peak=1", "--allow=jump", "--steps=x", "--\x1bc", "-", "--steps=0:9:3"]),
    max_size=3,
)  # fmt: skip
command_lines = st.tuples(
    st.sampled_from(["show", "check", "diff", "values", "shw"]), st.lists(texts(), min_size=0, max_size=2), options
).map(lambda drawn: [drawn[0], *drawn[2], *(["--steps=20"] if drawn[0] == "values" else []), "--", *drawn[1]])  # fmt: skip


def run_command(arguments: list[str]) -> None:
    """Its status, and no traceback."""
    out, err, given = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO("constant(1)")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command_line(arguments)
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.stdin = given
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert status in {0, 1, 2}
    assert status != 1 or arguments[0] in {"check", "diff"}
    harmless(err.getvalue())
    assert all(c.isprintable() or c == "\n" for c in out.getvalue())


# -- running them -----------------------------------------------------------------------------------------------------

Target = tuple[st.SearchStrategy, Callable[..., None]]
TARGETS: dict[str, Target] = {
    "expressions": (texts(), read_text),
    "documents": (documents | configs, read_document),
    "json": ((documents | configs).map(lambda made: json.dumps(made, default=str)) | slips(schedules(3).map(ts.Schedule.to_json)), read_json),
    "states": (states, load_state),
    "command lines": (command_lines, run_command),
}  # fmt: skip


def harmless(message: str) -> None:
    assert len(message) < LONGEST_MESSAGE, len(message)
    assert all(c.isprintable() or c == "\n" for c in message), message


def fuzz(name: str, examples: int) -> int:
    """Try so many examples of a target; how many of them were refused."""
    strategy, run = TARGETS[name]
    refused = 0

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    @given(strategy)
    def attempt(drawn: object) -> None:
        nonlocal refused
        try:
            run(drawn)
        except (ts.ScheduleError, ts.BindingError) as error:
            refused += 1
            harmless(str(error))

    attempt()
    return refused


@contextlib.contextmanager
def a_limit() -> Iterator[None]:
    """Each call of `run` may take some seconds: an alarm is set anew at each."""

    def late(*_: object) -> None:
        raise AssertionError(f"an example took more than {MOST_SECONDS} s")

    def limited(run: Callable[..., None]) -> Callable[..., None]:
        def timed(drawn: object) -> None:
            signal.alarm(MOST_SECONDS)
            try:
                run(drawn)
            finally:
                signal.alarm(0)

        return timed

    before = dict(TARGETS)
    signal.signal(signal.SIGALRM, late)
    TARGETS.update({name: (strategy, limited(run)) for name, (strategy, run) in before.items()})
    try:
        yield
    finally:
        TARGETS.update(before)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", choices=sorted(TARGETS))
    chosen = parser.parse_args()
    names = [chosen.only] if chosen.only else list(TARGETS)
    end = time.monotonic() + 60 * chosen.minutes
    tried, refused = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    failed = 0
    warnings.simplefilter("ignore", HypothesisWarning)  # our strategies have long names
    with a_limit():
        while time.monotonic() < end:
            for name in names:
                try:
                    refused[name] += fuzz(name, 200)
                except (AssertionError, HypothesisException, Exception) as error:  # noqa: BLE001  every kind is a finding
                    failed += 1
                    print(
                        f"\n{name}: {type(error).__name__}: {error}",
                        *getattr(error, "__notes__", ()),
                        sep="\n",
                    )
                tried[name] += 200
    for name in names:
        print(f"{name}: {tried[name]} examples, {refused[name]} of them refused")
    print(f"{sum(tried.values())} examples, {failed} findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
