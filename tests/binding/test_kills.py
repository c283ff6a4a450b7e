"""SIGKILL at any statement of a run and of the package: what is resumed, from either file or both, is the run that was.

    make kills                      two hundred
    pytest tests/binding/test_kills.py --kills 200

To the bit in the values that the optimizer used and in what was trained; or with a warning before the first of them.
"""

from __future__ import annotations

import functools
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.binding import kills
from tests.binding.kills import EVERY, HOWS, SCENARIOS, STEPS, Resumed

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
    pytest.mark.xdist_group("crash"),  # the fork server is started once, by one test worker
]

SEED = 11
APART = "was saved at"  # what is said of files that disagree
OTHER = "was saved under other schedules"  # and of an optimizer's checkpoint from after a change


class Whole:
    """A run that nobody killed: its lines, which of them write a checkpoint, and what it used and trained."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.in_saves, self.used, self.trained = ask(kills.uninterrupted, name, self.folder)


whole = functools.cache(Whole)


def ask(job: Any, *arguments: Any) -> Any:
    """What a process of its own sends; None where it ends without a word."""
    context = kills.forks()
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=job, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    assert mine.poll(120), "the process hangs"
    found = mine.recv()
    process.join(60)
    return found


def kill(name: str, line: int) -> Path:
    """The folder that a run leaves which is killed at this line."""
    folder = Path(tempfile.mkdtemp())
    process = kills.forks().Process(target=kills.killed, args=(name, folder, line), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    return folder


def lines_to_kill_at(name: str, n: int) -> Iterator[int]:
    """Half of them while a checkpoint is written."""
    chance, in_saves = random.Random(f"{SEED} {name}"), whole(name).in_saves  # noqa: S311  no secret
    saves = [line for line, inside in enumerate(in_saves) if inside]
    yield from (chance.choice(saves) if i % 2 else chance.randrange(len(in_saves)) for i in range(n))


def judged(name: str, how: str, found: Resumed | None) -> str:
    """How a resumed run went, in a word; an AssertionError where values differ and nothing was said."""
    if found is None:
        return "no checkpoint yet"
    if found.start is None:
        return "torn, says torch.load"
    said = "\n".join(found.warned)
    if found.apart:
        assert APART in said, (
            f"{name}, {how}: the files are of different steps, and nothing is said: {said!r}"
        )
        return "apart, warned"
    expected = {step: values for step, values in whole(name).used.items() if step >= found.start}
    if (found.used, found.trained) == (expected, whole(name).trained):
        assert not found.warned, f"{name}, {how}: the same, and said {said!r}"
        return "same"
    changed = SCENARIOS[name].changes and found.start > kills.REWRITE
    assert how == "optimizer", f"{name}, {how}, from step {found.start}: {said!r}"
    assert changed, f"{name}, {how}, from step {found.start}: {said!r}"
    assert OTHER in said, f"{name}, {how}, from step {found.start}: {said!r}"
    return "changed since, warned"


def resume(name: str, folder: Path, *, schedule_first: bool, then: str = "") -> dict[str, Resumed | None]:
    found: dict[str, Resumed | None] = ask(
        kills.resumed, name, folder, whole(name).folder, schedule_first, then
    )
    return found


@pytest.fixture(scope="module")
def outcomes(request) -> Counter[tuple[str, str]]:
    """Of every scenario in turn, as many kills as are asked for: how each way of resuming went."""
    n = request.config.getoption("--kills")
    counted: Counter[tuple[str, str]] = Counter()
    for at, name in enumerate(SCENARIOS):
        share = n // len(SCENARIOS) + (at < n % len(SCENARIOS))
        for i, line in enumerate(lines_to_kill_at(name, share)):
            found = resume(name, kill(name, line), schedule_first=bool(i // 2 % 2))
            counted.update((how, judged(name, how, found[how])) for how in HOWS)
    return counted


def test_what_is_resumed_is_the_run_that_was(outcomes, request):
    n = request.config.getoption("--kills")
    for how in HOWS:
        print(how, {what: count for (way, what), count in sorted(outcomes.items()) if way == how})  # noqa: T201  with -s
        assert sum(count for (way, _), count in outcomes.items() if way == how) == n
        assert outcomes[how, "same"] > n // 4


@pytest.mark.parametrize("schedule_first", [False, True])
def test_a_kill_between_the_two_files_is_met(schedule_first):
    """Control: at some line one file is new and the other is old. It is said, and what it advises is the run that was."""
    name, met = "never changed", 0
    for line in _between(name):
        folder = kill(name, line)
        found = resume(name, folder, schedule_first=schedule_first)["both"]
        if found is None or not found.apart:
            continue
        met += 1
        assert judged(name, "both", found) == "apart, warned"
        assert (found.trained == whole(name).trained) == schedule_first, (
            "the file that was loaded last is followed"
        )
        advised = resume(name, folder, schedule_first=schedule_first, then="as advised")["both"]
        assert advised is not None
        assert advised.trained == whole(name).trained
        assert not advised.warned
    assert met


def _between(name: str) -> list[int]:
    """Lines of the second checkpoint, behind its first file."""
    saves = [line for line, inside in enumerate(whole(name).in_saves) if inside]
    each = len(saves) // (STEPS // EVERY)
    return [saves[each + each * part // 4] for part in (1, 2, 3)]


@pytest.mark.parametrize("name", ["floats", "clock, tensors", "plan"])
def test_a_run_that_resumes_a_step_off_is_found(name):
    """Control: `judged` would notice."""
    in_saves = whole(name).in_saves
    line = in_saves.index(False, len(in_saves) // 2)  # both files are there
    found = resume(name, kill(name, line), schedule_first=False, then="a step off")
    for how in HOWS:
        with pytest.raises(AssertionError, match=rf"{name}, {how}, from step \d"):
            judged(name, how, found[how])
