"""What is done with an input, and what must hold: only documented errors, short and harmless, nothing changed."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import tensorsched as ts
from tensorsched.cli.main import main as command_line
from tensorsched.schedules.node import Node, brief
from tensorsched.schedules.parse import FUNCTIONS
from tensorsched.schedules.template import fill_in, templates
from tensorsched.schedules.views.phases import phases
from tests.fuzz.inputs import Call
from tests.fuzz.worlds import world

DOCUMENTED = (ts.ScheduleError, ts.BindingError)
LONGEST_MESSAGE = 4_000
LONGEST_OUTPUT = 300_000  # characters of a command's output; then whoever reads it has seen enough
MOST_STEPS = 10**6  # of values that are asked for in Python: there that is the asker's own business
STEPS = (0, 1, 7, 10**6, 2**53)


def harmless(message: str) -> None:
    assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters: {message[:200]!r}"
    assert message.replace("\n", "").isprintable(), f"control characters: {message!r}"


def use(made: ts.Schedule) -> ts.Schedule:
    """Everything that looks at a schedule."""
    # The reference adds up step by step what an over has consumed: behind a skip of 2**53 for years.
    added_up = any("over" in pair for pair in kinds_in(made))
    for step in STEPS:
        _tried(made, step)
        if not added_up:
            _tried(ts.reference.value, made, step)
    harmless(brief(made))
    _tried(phases, made)
    for finding in _tried(ts.check, made, steps=200) or ():
        harmless(str(finding))
    if (document := _tried(made.to_dict)) is not None:
        assert ts.from_dict(document) == made
        assert len(made.fingerprint) == len(ts.constant(1.0).fingerprint)
    return made


def _tried(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What it gives, or None where it refuses."""
    try:
        return call(*arguments, **options)
    except DOCUMENTED as error:
        harmless(str(error))
        return None


def expression(text: str) -> ts.Schedule:
    """What is read prints as what reads back."""
    made = use(ts.parse(text))
    if not list(templates(made)):  # they print as what was written, comments and all
        assert ts.parse(repr(made)) == made
    return made


def argument(text: str) -> ts.Schedule:
    """argparse's own error, with the words of parse."""
    said = ""
    try:
        made = ts.parse(text)
    except ts.ScheduleError as error:
        said = str(error)
    try:
        again = ts.argument(text)
    except argparse.ArgumentTypeError as error:
        assert said == str(error)
        raise ts.ScheduleError(said) from None
    assert not said
    assert again == made
    return again


def template(given: tuple[str, dict[str, Any]]) -> ts.Schedule:
    """Bound at once, and later."""
    text, values = given
    made = ts.parse(text)
    holes = list(templates(made))
    missing = {name for hole in holes for name in hole.missing}
    harmless(brief(made))
    for step in (0, 7):
        _tried(made, step)
    _tried(ts.parse, text, **values)
    bound = fill_in(made, **{name: value for name, value in values.items() if name in missing})
    if isinstance(made, type(holes[0]) if holes else ()):
        made.bind(**values)
    return use(bound)


def document(given: Any) -> ts.Schedule:
    """Reading changes nothing in what is read."""
    before = shown(given)
    try:
        made = ts.from_dict(given)
    finally:
        assert shown(given) == before
    return use(made)


def shown(given: Any) -> str:
    try:
        return repr(given)
    except (RecursionError, ValueError):  # too deep, or an int of more digits than Python prints
        return f"<{type(given).__name__} too large to show>"


def json_text(text: str | bytes) -> ts.Schedule:
    return use(ts.from_json(text))


def state(given: tuple[str, Any, Any]) -> None:
    """After an error nothing has changed; what was loaded is gone on with."""
    name, saved, how = given
    there, before = world(name), shown(saved)
    _tried(ts.schedules_of, saved)
    there.whole = False
    try:
        there.run.load_state_dict(saved, on_mismatch=how)
    except DOCUMENTED:
        there.unchanged()
        raise
    finally:
        assert shown(saved) == before
    there.goes_on()


def checkpoint(given: tuple[str, list[tuple[int, str, Any]]]) -> None:
    """What an optimizer's checkpoint carries of ours; its own part is torch's business."""
    name, entries = given
    there = world(name)
    there.whole = False
    optimizer = there.optimizers[0]
    saved = copy.deepcopy(optimizer.state_dict())
    for group, key, value in entries:
        saved["param_groups"][group][key] = value
    optimizer.load_state_dict(saved)
    there.goes_on()


def read(given: tuple[str, Call]) -> ts.Schedule | None:
    """What is asked of a schedule in Python."""
    text, (name, arguments, options) = given
    schedule = ts.parse(text)
    if name == "values" and any(
        isinstance(n, int) and n > MOST_STEPS for n in (schedule.steps, *options.values())
    ):
        return None
    asked = {
        "check": functools.partial(ts.check, schedule),
        "reference": functools.partial(ts.reference.value, schedule),
    }
    with _pythons_own():
        made = (asked.get(name) or getattr(schedule, name))(*arguments, **options)
        return use(made) if isinstance(made, ts.Schedule) else None
    return None


def construct(given: Call) -> ts.Schedule | None:
    """A shape or a recipe that is called from Python."""
    name, arguments, options = given
    with _pythons_own():
        return use(FUNCTIONS[name](*arguments, **options))
    return None


def change(given: tuple[str, Call]) -> None:
    """What is asked of a run in its middle: after an error nothing has changed."""
    name, (call, arguments, options) = given
    there = world(name)
    if not hasattr(there.run, call):
        return
    there.whole = False
    try:
        with _pythons_own():
            getattr(there.run, call)(*arguments, **options)
    except DOCUMENTED:
        there.unchanged()
        raise
    if there.look() == there.seen:
        there.whole = True
    else:
        there.goes_on()


@contextlib.contextmanager
def _pythons_own() -> Iterator[None]:
    """A call without an argument that it needs, or an operator between strangers, is Python's TypeError, at the call."""
    try:
        yield
    except TypeError as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        ours = trace is not None and f"tensorsched{os.sep}" in trace.tb_frame.f_code.co_filename
        if ours and not re.search(
            r"missing \d+ required|unexpected keyword", str(error)
        ):  # a plan hands calls on
            raise
        raise ts.ScheduleError(f"Python: {str(error)[:200]}") from error


# -- command lines ----------------------------------------------------------------------------------------------------


class Pipe(io.StringIO):
    """An output of which no more is read after a while, as `| head` does."""

    def __init__(self, sink: int) -> None:
        super().__init__()
        self.sink = sink

    def write(self, text: str) -> int:
        if self.tell() > LONGEST_OUTPUT:
            raise BrokenPipeError
        return super().write(text)

    def fileno(self) -> int:
        return self.sink


@functools.cache
def _folder() -> tuple[Path, int]:
    """With files to name; and where the rest of an output goes."""
    folder = Path(tempfile.mkdtemp())
    (folder / "good.json").write_text(ts.linear(0.0, 1.0, steps=9).to_json())
    (folder / "bad.json").write_text('{"format": "tensorsched/schedule", "version": 1, "schedule": {}}')
    (folder / "latin.json").write_bytes(b"\xff\xfe\0")
    (folder / "folder.json").mkdir()
    return folder, os.open(os.devnull, os.O_WRONLY)


def command(given: tuple[list[str], str]) -> None:
    """Its status, and no traceback."""
    arguments, typed = given
    folder, sink = _folder()
    out, err, before = Pipe(sink), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(typed)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: Any = command_line(arguments)
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.stdin = before
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert status in {0, 1, 2}, status
    assert status != 1 or arguments[0] in {"check", "diff"}
    harmless(err.getvalue())
    assert out.getvalue().replace("\n", "").isprintable(), "control characters in the output"
    if status == 2:
        raise ts.ScheduleError(err.getvalue())


TARGETS: dict[str, Callable[[Any], Any]] = {
    "expressions": expression, "arguments": argument, "templates": template, "documents": document, "configs": document, "json": json_text,
    "states": state, "checkpoints": checkpoint, "command lines": command, "reads": read, "changes": change, "constructors": construct,
}  # fmt: skip
SHARES = {
    "expressions": 20, "arguments": 4, "templates": 10, "documents": 20, "configs": 12, "json": 12,
    "states": 5, "checkpoints": 1, "command lines": 4, "reads": 6, "changes": 2, "constructors": 4,
}  # fmt: skip
"""Of a hundred inputs, how many are of each kind."""


def kinds_in(made: Node) -> Iterator[tuple[str, str]]:
    """What stands in what."""
    left: list[Node] = [made]
    while left:
        node = left.pop()
        for child in node.children():
            yield node.kind, child.kind
            left.append(child)


torch.set_num_threads(1)
