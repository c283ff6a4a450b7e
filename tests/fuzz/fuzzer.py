"""One kind of input after another, within a bound on work and memory; what leads somewhere new is kept.

Where an input is refused, and which node stands in which, says whether it was new: that costs nothing, and leads as
deep as a slow trace of every line would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from random import Random
from types import FrameType
from typing import Any

import tensorsched as ts
from tests.fuzz import trees
from tests.fuzz.inputs import MAKERS, Corpus
from tests.fuzz.targets import DOCUMENTED, TARGETS, harmless, kinds_in

MOST_CALLS = 30_000_000
"""Python and C calls of one input; what takes long is counted."""

MOST_SECONDS = 20  # of the processor, of one input: what takes longer hangs
MOST_MEMORY = 400 * 2**10  # KiB that one input may add to the most that the process has ever held
SLOW = 0.5  # seconds of the processor, from which on calls are counted
DEEP = 3  # frames of ours that tell one refusal from another
SHELVES = {"expressions": "texts", "documents": "documents", "configs": "documents"}


class TooMuchWork(BaseException):
    """An input takes too long; no `except Exception` may catch it."""


@dataclasses.dataclass
class Finding:
    """An input that did what none may do."""

    kind: str
    given: Any
    error: BaseException

    @property
    def where(self) -> tuple[Any, ...]:
        """What tells it from other findings."""
        return self.kind, type(self.error), place_of(self.error)[-1:]


def place_of(error: BaseException) -> tuple[Any, ...]:
    """The last frames of ours on the way to an error, and those of the one that it came from."""
    frames: list[tuple[str, int]] = []
    for each in (error.__context__, error):
        trace, own = each and each.__traceback__, []
        while trace is not None:
            if "tensorsched" in trace.tb_frame.f_code.co_filename:
                own.append((trace.tb_frame.f_code.co_filename.rpartition("tensorsched")[2], trace.tb_lineno))
            trace = trace.tb_next
        frames += own[-DEEP:]
    return tuple(frames)


class Fuzzer:
    """All kinds of inputs, from one seed.

    Attributes:
        tried: inputs by kind.
        refused: those that ended in a documented error.
        places: by kind, where they ended: refusals by their lines, accepted ones by which node stands in which.
        findings: those that did what none may do, the first of each sort.
        slowest: of each kind, seconds of the processor, calls where they were counted, and the input.
    """

    def __init__(self, seed: int = 0) -> None:
        self.corpus = Corpus(Random(seed))  # noqa: S311  no secret
        self.tried = dict.fromkeys(TARGETS, 0)
        self.refused = dict.fromkeys(TARGETS, 0)
        self.spent = dict.fromkeys(TARGETS, 0.0)
        self.places: dict[str, set[Any]] = {kind: set() for kind in TARGETS}
        self.findings: dict[tuple[Any, ...], Finding] = {}
        self.slowest: dict[str, tuple[float, int, Any]] = dict.fromkeys(TARGETS, (0.0, 0, None))
        self.longest = 0
        self.memory = 0

    def feed(self, kind: str, n: int, *, counted: bool = False) -> None:
        """So many inputs of a kind; `counted`: the calls of each are counted, and not its seconds."""
        for _ in range(n):
            given = MAKERS[kind](self.corpus)
            self.tried[kind] += 1
            start, held = time.process_time(), _peak()
            try:
                self._run(kind, given, counted=counted)
                took = time.process_time() - start
                self.spent[kind] += took
                if took > self.slowest[kind][0]:
                    self.slowest[kind] = (took, 0, given)
                if took > SLOW:
                    self.slowest[kind] = (took, calls_of(TARGETS[kind], given), given)
                grown = _peak() - held
                self.memory = max(self.memory, grown)
                assert grown <= MOST_MEMORY, f"{grown} KiB more memory than ever before"
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  every kind is a finding
                finding = Finding(kind, given, error)
                self.findings.setdefault(finding.where, finding)

    def _run(self, kind: str, given: Any, *, counted: bool) -> None:
        try:
            made = calls_of(TARGETS[kind], given, raises=True) if counted else TARGETS[kind](given)
        except DOCUMENTED as error:
            harmless(str(error))
            self.longest = max(self.longest, len(str(error)))
            self.refused[kind] += 1
            new = {place_of(error) or re.sub(r"[^a-z ]+.*", "", str(error).rpartition("error: ")[2])}
        else:
            new = set(kinds_in(made)) if isinstance(made, ts.Schedule) else {"accepted"}
        if not new <= self.places[kind]:
            self.places[kind] |= new
            if kind in SHELVES:
                self.corpus.keep(SHELVES[kind], given)
            elif kind == "states":
                self.corpus.keep("states", given[1])


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def calls_of(run: Callable[[Any], Any], given: Any, *, raises: bool = False) -> int:
    """How many Python and C calls it makes.

    Raises:
        TooMuchWork: more than MOST_CALLS.
    """
    calls = 0

    def counts(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        if event in {"call", "c_call"}:
            calls += 1
            if calls > MOST_CALLS:
                raise TooMuchWork(f"more than {MOST_CALLS} calls")

    suppressed = () if raises else DOCUMENTED
    before = sys.getprofile()
    sys.setprofile(counts)
    try:
        with contextlib.suppress(*suppressed):
            run(given)
    finally:
        sys.setprofile(before)
    return calls


@contextlib.contextmanager
def a_limit() -> Iterator[None]:
    """An input that has used the processor for too long is stopped: the clock is that of the process."""

    def late(*_: object) -> None:
        raise TooMuchWork(f"more than {MOST_SECONDS} s of the processor")

    def limited(run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def timed(given: Any) -> Any:
            signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
            try:
                return run(given)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)

        return timed

    targets, before = dict(TARGETS), signal.signal(signal.SIGVTALRM, late)
    TARGETS.update({kind: limited(run) for kind, run in targets.items()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        TARGETS.update(targets)
        signal.signal(signal.SIGVTALRM, before)


def reduced(finding: Finding, tries: int = 300) -> Any:
    """A smaller input with the same finding."""
    given, shrinks = finding.given, not isinstance(finding.error, TooMuchWork)
    with contextlib.suppress(RecursionError):  # nested too deep to be cut
        while shrinks:
            shrinks = False
            for less in itertools.islice(trees.smaller(given), tries):
                tries -= 1
                if _finds(finding, less):
                    given, shrinks = less, True
                    break
    return given


def _finds(finding: Finding, given: Any) -> bool:
    try:
        try:
            TARGETS[finding.kind](given)
        except DOCUMENTED as error:
            harmless(str(error))
    except (Exception, TooMuchWork) as error:  # noqa: BLE001  compared with the one that was found
        return Finding(finding.kind, given, error).where == finding.where
    return False
