"""Which tests reach a line, and what they say of a mutant: the slow half of `make mutants`, made quick.

One process imports torch and never the package; every run is a fork of it, so that a run costs its tests and no more.
The tests are run once under coverage, test by test: a mutant then meets those only that reach its line, first those of
its own folder that are quick or have killed others, Hypothesis with few examples first and then with all.
"""

from __future__ import annotations

import ast
import bisect
import hashlib
import importlib
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import pytest

ROOT = Path(__file__).resolve().parent.parent
QUIET = [
    "-q",
    "-x",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "--no-header",
    "--show-capture=no",
    "--tb=line",
]
DEVICE = ["tests/engine/test_engine.py", "tests/engine/test_clock.py", *(
    f"tests/binding/test_{name}.py" for name in ("amp", "rewrite", "attach", "checkpoint", "clock", "live", "lifecycle_machine")
)]  # fmt: skip
PASSES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "schedules": (["tests/schedules", "tests/cli", "tests/test_doctests.py"], []),
    "engine": (["tests/engine"], []),
    "binding": (["tests/binding", "tests/test_batch_sampler.py"], []),
    "plan": (["tests/plan"], []),
    "recording": (["tests/recording", "tests/integrations"], []),
    "device": (DEVICE, ["--device-driver", "-k", "not machine_would_notice"]),
    "compiled": (
        ["tests/compiled", "tests/without_gpu/test_live_reads.py", "tests/without_gpu/test_graph_inputs.py", "tests/gpu/test_cuda.py"],
        ["-p", "tests.simulated_gpu.plugin"],
    ),
}  # fmt: skip
"""The tests by the folder that they are about, and the options that they are run with."""
FOLDERS: Mapping[str, Sequence[str]] = {
    "schedules": ["schedules", "engine"],
    "cli": ["schedules"],
    "engine": ["engine", "binding", "device", "plan"],
    "binding": ["binding", "device", "schedules", "plan"],
    "param_groups.py": ["binding", "plan", "recording"],
    "plan": ["plan", "binding"],
    "recording": ["recording"],
    "compiled": ["compiled"],
}
"""The passes that a mutant of each folder has to survive, in order."""
QUICK = 15  # seconds of the tests of a pass that `--quick` runs, as they were measured
PASSES_OF_QUICK = 3
FIRST = 24  # tests of the first call: collecting all that reach a line takes longer than most mutants live
BYTES = 12 << 30  # of a run's address space: a table of a mutant's length must not take the machine's memory


class Test(NamedTuple):
    name: str  # its node, without parameters
    seconds: float  # of all its parameters
    passed: bool


class Outcome(NamedTuple):
    status: int | None  # pytest's; None where the time was up
    output: str

    def verdict(self) -> str:
        """What noticed the mutant; "" if nothing did."""
        if self.status is None:
            return "time-out"
        if self.status in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            return ""
        failed = [line for line in self.output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0][:160] if failed else f"status {self.status}: {self.output[-80:]!r}"


def passes_of(path: str, *, quick: bool) -> Sequence[str]:
    """The passes that a mutant of a file has to survive."""
    return FOLDERS[path.partition("/")[0]][: PASSES_OF_QUICK if quick else None]


def prepare(copy: Path) -> None:
    """Import what every run needs, but for the package and its tests."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False  # what pytest rewrites it rewrites once
    here = {ROOT, ROOT / "tests"}
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ".").resolve() not in here)]
    os.chdir(copy)
    for name in ("torch._dynamo", "hypothesis.stateful", "ignite.handlers", "transformers.optimization", "matplotlib.pyplot"):  # fmt: skip
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    if "tensorsched" in sys.modules:
        raise SystemExit("a library imports tensorsched: a run would not see the mutant")


def forked(run: Callable[[], int], seconds: float) -> Outcome:
    """What a fork of this process says: a run and what it starts are stopped when the time is up."""
    with tempfile.TemporaryFile() as log:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            os.setsid()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
            status = 70
            try:
                status = int(run())
            except BaseException:  # noqa: BLE001  whatever it is, the fork ends here
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = _wait(child, seconds)
        log.seek(0)
        return Outcome(status, log.read().decode(errors="replace"))


def _wait(child: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        return None
    finally:
        try:
            os.killpg(child, signal.SIGKILL)  # the tests that it started, and itself
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


class _ByTest:
    """A pytest plugin: coverage by test function."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured = measured
        self.seconds: Counter[str] = Counter()
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.measured.switch_context(item.nodeid.partition("[")[0])
        try:
            return (yield)
        finally:
            self.measured.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        self.seconds[name] += report.duration
        if report.failed:
            self.failed.add(name)


def _measure(name: str, copy: Path, to: Path) -> int:
    """Run the tests of a pass, and write which of them reach which lines."""
    paths, options = PASSES[name]
    measured = coverage.Coverage(
        data_file=None, source=[str(copy / "tensorsched")], config_file=False, messages=False
    )
    plugin = _ByTest(measured)
    measured.start()
    status = pytest.main(
        [option for option in QUIET if option != "-x"] + [*paths, *options], plugins=[plugin]
    )
    measured.stop()
    data = measured.get_data()
    lines = {
        str(Path(file).relative_to(copy / "tensorsched")): {
            str(line): sorted(filter(None, contexts))
            for line, contexts in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    tests = [Test(name, seconds, name not in plugin.failed) for name, seconds in plugin.seconds.items()]
    to.write_text(json.dumps({"lines": lines, "tests": tests}), encoding="utf-8")
    return status


class Reach:
    """The tests that reach a line, pass by pass; measured where the code has changed since."""

    def __init__(self, copy: Path, folder: Path, *, stale: bool) -> None:
        self._copy = copy
        self._folder = folder
        self._stale = stale
        self._passes: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        """The lines and the tests of a pass. The first call runs it: the copy must be without a mutant."""
        if name not in self._passes:
            digest = hashlib.sha256(repr(PASSES[name]).encode())
            for path in sorted([*self._copy.glob("tensorsched/**/*.py"), *self._copy.glob("tests/**/*.py")]):
                if "mutants" not in path.name:
                    digest.update(path.read_bytes())
            file = self._folder / f"{name}-{'last' if self._stale else digest.hexdigest()[:16]}.json"
            if not file.exists():
                start = time.perf_counter()
                self._folder.mkdir(parents=True, exist_ok=True)
                outcome = forked(lambda: _measure(name, self._copy, file), 3600)
                if not file.exists():
                    raise SystemExit(f"cannot measure {name}: {outcome}")
                print(
                    f"measured {name} in {time.perf_counter() - start:.0f} s: {outcome.output.splitlines()[-1:]}",
                    flush=True,
                )
                (self._folder / f"{name}-last.json").write_bytes(file.read_bytes())
            found = json.loads(file.read_text(encoding="utf-8"))
            self._passes[name] = found["lines"], {test[0]: Test(*test) for test in found["tests"]}
        return self._passes[name]

    def tests(self, name: str, path: str, line: int, source: str) -> list[Test]:
        """Of a pass: those that reach the line, else the function around it, else the file."""
        lines, tests = self.of(name)
        by_line: Mapping[str, Sequence[str]] = lines.get(path, {})
        for numbers in ([line], _around(source, line), map(int, by_line)):
            reaching = {test for number in numbers for test in by_line.get(str(number), ())}
            if reaching:
                return [tests[test] for test in sorted(reaching) if tests[test].passed]
        return []


def lines_of(node: ast.FunctionDef | ast.ClassDef) -> range:
    """Those of a function or class, and of its decorators."""
    first = min(part.lineno for part in (node, *node.decorator_list))
    return range(first, (node.end_lineno or first) + 1)


def _around(source: str, line: int) -> range:
    """The lines of the body of the innermost function around a line; none outside of one."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    around = [node for node in functions if line in lines_of(node)]
    if not around:
        return range(0)
    return range(around[-1].body[0].lineno, lines_of(around[-1]).stop)


class Runs:
    """Runs the tests on the copy as it is now."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.killers: dict[str, list[str]] = {}  # a test, and the pass of each of its kills

    def noticed(self, path: str, line: int, source: str, *, quick: bool = False) -> str:
        """What notices the mutant that is in the copy; "" if nothing does."""
        for name in (passes := passes_of(path, quick=quick)):
            tests = self.reach.tests(name, path, line, source)
            stem = Path(path).stem
            tests.sort(
                key=lambda test: (
                    f"test_{stem}.py" not in test.name,
                    -len(self.killers.get(test.name, ())),
                    test.seconds,
                )
            )
            if quick:
                spent = list(itertools.accumulate(test.seconds for test in tests))
                tests = tests[: bisect.bisect(spent, QUICK)]
            for chosen, options, profile in (
                (tests[:FIRST], [], "mutants"),
                (tests[FIRST:], [], "mutants"),
                (tests if name == passes[0] and not quick else [], ["-m", "hypothesis"], "ci"),
            ):
                verdict = self._call(chosen, [*PASSES[name][1], *options], profile).verdict()
                if verdict:
                    killer = verdict.partition(" ")[2].partition(" - ")[0].partition("[")[0]
                    self.killers.setdefault(killer, []).append(name)
                    return verdict
        return ""

    def fail_without_a_mutant(self) -> list[str]:
        """Of the tests that killed: those that fail alone, on the code as it is."""
        return [
            test
            for test, passes in sorted(self.killers.items())
            if "::" in test
            and self._call([Test(test, 10, passed=True)], PASSES[passes[0]][1], "mutants").verdict()
        ]

    def _call(self, tests: Sequence[Test], options: Iterable[str], profile: str) -> Outcome:
        if not tests:
            return Outcome(0, "")

        def run() -> int:
            os.environ["HYPOTHESIS_PROFILE"] = profile
            return int(pytest.main([*QUIET, *(test.name for test in tests), *options]))

        return forked(run, 60 + 5 * sum(test.seconds for test in tests))
