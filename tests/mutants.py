"""Change the package's code by little, and see whether a test notices: `make mutants`.

Cosmic Ray makes the mutants (another operator, another number, a condition turned round, ...); a sample of them, drawn
with a seed, is run against the tests of the folder that it is in. A mutant that no test kills is either missing a test
or equivalent: those that are known to be are in mutants_equivalent.json, with the reason.

    make mutants ARGS='--sample 100 --seed 1'
    make mutants ARGS='--under compiled --under engine/drivers.py --sample 30'
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "mutants_equivalent.json"
PYTEST = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "--show-capture=no"]
TESTS: Mapping[str, Sequence[Sequence[str]]] = {
    "schedules": (["tests/schedules", "tests/cli"],),
    "engine": (["tests/engine", "tests/binding/test_attach.py"], ["--device-driver", "tests/engine/test_engine.py", "tests/compiled", "tests/gpu", "-p", "tests.simulated_gpu.plugin"]),
    "binding": (["tests/binding"],),
    "compiled": (["tests/compiled", "tests/without_gpu"], ["-p", "tests.simulated_gpu.plugin", "tests/gpu/test_cuda.py"]),
}  # fmt: skip
"""The pytest calls, in order, that a mutant of each folder has to survive."""
SECONDS = 400  # of one call: a mutant that loops for ever is killed


OPERATORS = [
    name for name in cosmic_ray.plugins.operator_names() if "Variable" not in name
]  # those need names


class Mutant(NamedTuple):
    path: str  # in the package
    line: int
    operator: str
    occurrence: int

    def of(self, source: str) -> str:
        """The source with the change."""
        return str(mutate_code(source, _operator(self.operator), self.occurrence))


def _operator(name: str) -> Any:
    return cosmic_ray.plugins.get_operator(name)()


def mutants(source: str, name: str) -> Iterator[Mutant]:
    """All of a file."""
    nodes = list(ast_nodes(get_ast(source)))
    for operator_name in OPERATORS:
        operator = _operator(operator_name)
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, _) in enumerate(positions):
            yield Mutant(name, line, operator_name, occurrence)


def _meaning(source: str) -> str:
    """The code without its hints, docstrings and messages; as it is where it no longer parses."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(0)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def _change(original: str, mutated: str) -> str:
    lines = difflib.unified_diff(original.splitlines(), mutated.splitlines(), n=0, lineterm="")
    return " -> ".join(
        line[1:].strip() for line in lines if line[:1] in "+-" and line[:3] not in {"+++", "---"}
    )


def sample(package: Path, under: Sequence[str], count: int, seed: int) -> Iterator[tuple[Mutant, str]]:
    """`count` mutants and their sources; lines are drawn, so that one with many operators counts once."""
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    sources: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package))
        if name.partition("/")[0] in TESTS and any(name.startswith(start) for start in under):
            sources[name] = path.read_text(encoding="utf-8")
            for mutant in mutants(sources[name], name):
                by_line.setdefault((name, mutant.line), []).append(mutant)
    print(f"{sum(map(len, by_line.values()))} mutants on {len(by_line)} lines", flush=True)
    draw = random.Random(seed)  # noqa: S311  a sample, no secret
    lines = sorted(by_line)
    draw.shuffle(lines)
    for line in lines:
        mutant = draw.choice(by_line[line])
        original = sources[mutant.path]
        mutated = mutant.of(original)
        if count and _meaning(mutated) != _meaning(original):  # else it is a hint, or a text for people
            count -= 1
            yield mutant, mutated


def killed_by(copy: Path, mutant: Mutant, mutated: str) -> str:
    """What noticed the mutant: a test, a time-out; "" if it survived."""
    path = copy / "tensorsched" / mutant.path
    original = path.read_text(encoding="utf-8")
    path.write_text(mutated, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])}
    try:
        for options in TESTS[mutant.path.partition("/")[0]]:
            try:
                done = subprocess.run(
                    [sys.executable, *PYTEST, *options], cwd=copy, capture_output=True, text=True, check=False,
                    timeout=SECONDS, env=environment,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return "time-out"
            if done.returncode:
                failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
                return failed[0][:160] if failed else f"status {done.returncode}"
    finally:
        path.write_text(original, encoding="utf-8")
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--under", action="append", help="files and folders of the package; default: all that are tested"
    )
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    counts = {"killed": 0, "equivalent": 0, "survived": 0}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
        package = copy / "tensorsched"
        for mutant, mutated in sample(package, options.under or [""], options.sample, options.seed):
            change = _change((package / mutant.path).read_text(encoding="utf-8"), mutated)
            start = time.perf_counter()
            by = killed_by(copy, mutant, mutated)
            outcome = "killed" if by else "equivalent" if f"{mutant.path}: {change}" in known else "survived"
            counts[outcome] += 1
            seconds = time.perf_counter() - start
            print(f"{outcome:10} {seconds:4.0f} s  {mutant.path}:{mutant.line}  {change}  {by}", flush=True)
    rate = counts["killed"] / max(1, counts["killed"] + counts["survived"])
    print(f"{counts}: {rate:.1%} of those that are not equivalent were killed")
    return int(counts["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
