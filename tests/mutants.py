"""Change the package's code by little, and see whether a test notices: `make mutants`.

Cosmic Ray makes the mutants (another operator, another number, a condition turned round, ...); a sample of them, drawn
with a seed, is run against the tests that reach its line (mutants_runs.py). A mutant that no test kills is either
missing a test or equivalent: those that are known to be are in mutants_equivalent.json, by their function and their
text, with the reason.

    make mutants ARGS='--sample 100 --seed 1'
    make mutants ARGS='--under compiled --under engine/drivers.py --sample 30'
    make mutants ARGS='--only "_bisect: low = middle + 1 -> low = middle + 2"'
"""

from __future__ import annotations

import argparse
import ast
import difflib
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cosmic_ray.plugins
import mutants_runs
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "tests" / "mutants_equivalent.json"
MEASURED = ROOT / "build" / "mutants"

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
    """The code without its hints, docstrings and messages."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(0)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def _parses(source: str) -> bool:
    """Whether it is Python: of a `def f(*, a)` that became `def f(+, a)` no test has to say anything."""
    try:
        compile(source, "", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _change(original: str, mutated: str) -> str:
    """`old -> new`: the text of the lines that differ."""
    lines = difflib.unified_diff(original.splitlines(), mutated.splitlines(), n=0, lineterm="")
    old, new = [], []
    for line in itertools.islice(lines, 2, None):
        if text := line[1:].strip():
            {"-": old, "+": new}.get(line[0], []).append(text)
    return f"{' '.join(old)} -> {' '.join(new)}".rstrip()


def _tested(name: str, under: Sequence[str]) -> bool:
    return name.partition("/")[0] in mutants_runs.FOLDERS and any(name.startswith(start) for start in under)


def sample(package: Path, under: Sequence[str], count: int, seed: int) -> Iterator[tuple[Mutant, str]]:
    """`count` mutants and their sources; lines are drawn, so that one with many operators counts once."""
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    sources: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package))
        if _tested(name, under):
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
        if _parses(mutated) and _meaning(mutated) != _meaning(original):  # else a hint, or a text for people
            yield mutant, mutated
            count -= 1
            if not count:
                return


def _place(source: str, mutated: str, line: int) -> str:
    """Where and what, without a number: `Class.function: old -> new`, which outlives code that moves."""
    names: list[str] = []
    body: Sequence[ast.AST] = ast.parse(source).body
    while body:
        body = [
            node for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and line in mutants_runs.lines_of(node)
        ]  # fmt: skip
        names += [node.name for node in body]  # type: ignore[attr-defined]
        body = [inner for node in body for inner in ast.iter_child_nodes(node)]
    return f"{'.'.join(names)}: {_change(source, mutated)}"


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8"))
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve() / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
        mutants_runs.prepare(copy)
        runs = mutants_runs.Runs(mutants_runs.Reach(copy, MEASURED, stale=options.stale))
        for number, (mutant, mutated) in enumerate(_chosen(copy / "tensorsched", options)):
            for name in mutants_runs.passes_of(mutant.path, quick=options.quick):
                runs.reach.of(name)
            path = copy / "tensorsched" / mutant.path
            source = path.read_text(encoding="utf-8")
            place = _place(source, mutated, mutant.line)
            start = time.perf_counter()
            path.write_text(mutated, encoding="utf-8")
            os.utime(
                path, (number, number)
            )  # byte code is known by a file's size and time: no two mutants share it
            try:
                by = runs.noticed(mutant.path, mutant.line, source, quick=options.quick)
            finally:
                path.write_text(source, encoding="utf-8")
            outcome = "killed" if by else "equivalent" if place in known else "survived"
            outcomes[mutant.path.partition("/")[0]][outcome] += 1
            seconds = time.perf_counter() - start
            print(f"{outcome:10} {seconds:4.0f} s  {mutant.path}:{mutant.line}  {place}  {by}", flush=True)
        alone = runs.fail_without_a_mutant()
    for name, counts in outcomes.items():
        rate = counts["killed"] / max(1, counts["killed"] + counts["survived"])
        print(f"{name}: {dict(counts)}: {rate:.1%} of those that are not equivalent were killed")
    if alone:
        print("these fail without a mutant too, so that what they killed may live: " + " ".join(alone))
    return int(bool(alone) or any(counts["survived"] for counts in outcomes.values()))


def _chosen(package: Path, options: argparse.Namespace) -> Iterator[tuple[Mutant, str]]:
    under = options.under or [""]
    if not options.only:
        drawn = sample(package, under, options.sample, options.seed)
        yield from itertools.islice(drawn, options.skip, None)
        return
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    for path, source in sources.items():
        name = str(path.relative_to(package))
        if _tested(name, under):
            lines = source.splitlines()
            for mutant in mutants(source, name):
                if any(
                    lines[mutant.line - 1].strip() in text for text in options.only
                ):  # most are quickly told
                    mutated = mutant.of(source)
                    if _parses(mutated) and _place(source, mutated, mutant.line) in options.only:
                        yield mutant, mutated


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--under", action="append", help="files and folders of the package; default: all that are tested"
    )
    parser.add_argument(
        "--only", action="append", help="this mutant, `function: old -> new`, as it was printed"
    )
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument(
        "--skip", type=int, default=0, help="so many of the sample, to go on where a run ended"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="the quicker tests only: look at the survivors again with --only"
    )
    parser.add_argument(
        "--stale", action="store_true", help="use what was last measured of which tests reach which lines"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
