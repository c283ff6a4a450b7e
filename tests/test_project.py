"""The shape of the project itself: which way imports go, what an import costs, what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tensorsched as ts

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tensorsched"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own line or from a line above it, never from below; and two names on one line
# must not import each other. A new module at the top level has to be placed here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("schedules",),
    ("expression",),
    ("reference",),
    ("memory",),
    ("table",),
    ("engine",),
    ("binding",),
    ("one_graph",),
    ("compiled_step",),
    ("stand_in",),
    ("plot", "record"),
    ("__init__",),  # the public names, gathered; only the programs below may use the package as a user does
    ("integrations", "demo"),
    ("cli",),
    ("__main__",),
)
# Methods that hand themselves up to the module that draws them, when they are called: (module, imported module).
HANDED_UP = {
    ("tensorsched.schedules.algebra", "tensorsched.schedules.views.plot"),
    ("tensorsched.binding.attachment", "tensorsched.schedules.views.plot"),
}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

REQUIRED = {"torch", "numpy"}
OPTIONAL = {"ignite", "matplotlib", "tqdm", "transformers"}
# What a layer may import from outside the package, where that is less than REQUIRED and the standard library.
NARROWER = {
    "errors": set(sys.stdlib_module_names),
    "schedules": set(sys.stdlib_module_names) | {"numpy"},
    "expression": set(sys.stdlib_module_names),
    "reference": {"__future__", "collections", "dataclasses", "functools", "math", "typing"},
}


def module_name(path: Path) -> str:
    """The dotted name: tensorsched/schedules/shapes.py is tensorsched.schedules.shapes."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def imports(source: str, module: str, *, package: bool) -> list[tuple[str, bool]]:
    """Every module that `source` imports, anywhere in it, and whether it does so while it is itself imported.

    `from . import x` and `from tensorsched import x` count as an import of the module x where there is one.
    """
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, *, at_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + package]
                origin = ".".join([*parents, origin] if origin else parents)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                found.append((inner if inner in MODULES else origin, at_import))
        for_checkers = isinstance(node, ast.If) and ast.unparse(node.test) in {
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        }
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inside = at_import and not later and not for_checkers
        for child in ast.iter_child_nodes(node):
            visit(child, at_import=inside)

    visit(ast.parse(source), at_import=True)
    return found


def top(module: str) -> str:
    """The part of a dotted name that LAYERS knows: schedules for tensorsched.schedules.shapes."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def violations(source: str, module: str, *, package: bool = False) -> list[str]:
    """What `source`, standing as `module`, may not import, one sentence each."""
    here = top(module)
    if here not in LEVEL:
        return [f"{module} has no place in LAYERS"]
    wrong = []
    for name, at_import in imports(source, module, package=package):
        root = name.split(".")[0]
        if root == "tensorsched":
            there = top(name)
            if (module, name) in HANDED_UP and not at_import:
                continue
            if there not in LEVEL:
                wrong.append(f"{module} imports {name}, which has no place in LAYERS")
            elif LEVEL[there] > LEVEL[here] or (LEVEL[there] == LEVEL[here] and there != here):
                wrong.append(f"{module} imports {name}: imports go down only")
        elif root in OPTIONAL:
            if at_import or here in NARROWER:
                wrong.append(
                    f"{module} imports {name} at its top level: optional packages are imported where used"
                )
        elif root not in NARROWER.get(here, REQUIRED | sys.stdlib_module_names):
            wrong.append(f"{module} imports {name}, which its layer may not")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down(path):
    source = path.read_text(encoding="utf-8")
    assert violations(source, module_name(path), package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "text"),
    [
        (
            "tensorsched.engine.table",
            "from tensorsched.engine.engine import ScheduleEngine",
            "imports go down only",
        ),
        ("tensorsched.engine.table", "from .engine import ScheduleEngine", "imports go down only"),
        ("tensorsched.engine.table", "from . import engine", "imports go down only"),
        (
            "tensorsched.engine.table",
            "def late():\n    from tensorsched import engine",
            "imports go down only",
        ),
        ("tensorsched.engine.table", "import tensorsched as ts", "imports go down only"),
        ("tensorsched.schedules.shapes", "from ..binding.attach import attach", "imports go down only"),
        ("tensorsched.schedules.views.plot", "import tensorsched.demo", "imports go down only"),
        ("tensorsched.engine.engine", "import tensorsched.helpers", "no place in LAYERS"),
        ("tensorsched.helpers", "", "no place in LAYERS"),
        ("tensorsched.schedules.shapes", "import torch", "its layer may not"),
        ("tensorsched.schedules.shapes", "def late():\n    import torch.nn", "its layer may not"),
        ("tensorsched.schedules.reference", "import numpy as np", "its layer may not"),
        ("tensorsched.engine.engine", "import scipy", "its layer may not"),
        ("tensorsched.schedules.views.plot", "import matplotlib.pyplot as plt", "imported where used"),
        (
            "tensorsched.schedules.views.plot",
            "try:\n    import matplotlib\nexcept ImportError:\n    pass",
            "imported where used",
        ),
        ("tensorsched.demo", "class Run:\n    from tqdm import tqdm", "imported where used"),
        (
            "tensorsched.schedules.algebra",
            "from tensorsched.schedules.views.plot import plot_schedule",
            "imports go down only",
        ),
        (
            "tensorsched.schedules.shapes",
            "def late():\n    import tensorsched.schedules.views.plot",
            "imports go down only",
        ),
    ],
)
def test_a_bad_import_is_found(module, source, text):
    (message,) = violations(source, module)
    assert text in message


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tensorsched.engine.table", "import numpy, torch\nfrom tensorsched.schedules import Schedule"),
        ("tensorsched.schedules.shapes", "from .algebra import Schedule\nfrom ..errors import ScheduleError"),
        ("tensorsched.schedules.reference", "import math\nfrom collections.abc import Callable"),
        ("tensorsched.demo", "import tensorsched as ts\ndef draw():\n    import matplotlib"),
        ("tensorsched.schedules.views.plot", "if TYPE_CHECKING:\n    from matplotlib.axes import Axes"),
    ],
)
def test_a_good_import_is_let_through(module, source):
    assert violations(source, module) == []


def test_every_import_that_may_go_up_is_there():
    for module, name in HANDED_UP:
        path = ROOT / (module.replace(".", "/") + ".py")
        assert (name, False) in imports(path.read_text(encoding="utf-8"), module, package=False)


def test_a_relative_import_in_a_package_starts_at_the_package():
    found = imports(
        "from .shapes import linear\nfrom .. import errors", "tensorsched.schedules", package=True
    )
    assert [name for name, _ in found] == ["tensorsched.schedules.shapes", "tensorsched.errors"]


def order(graph: dict[str, set[str]]) -> list[str]:
    return list(TopologicalSorter(graph).static_order())


def test_no_two_modules_need_each_other_to_be_imported():
    graph = {}
    for path in FILES:
        name = module_name(path)
        found = imports(path.read_text(encoding="utf-8"), name, package=path.name == "__init__.py")
        graph[name] = {
            other for other, at_import in found if at_import and other in MODULES and other != name
        }
    assert set(order(graph)) == MODULES


def test_a_cycle_is_found():
    with pytest.raises(CycleError):
        order({"tensorsched.a": {"tensorsched.b"}, "tensorsched.b": {"tensorsched.a"}})


def imported_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after running `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


def test_importing_the_package_imports_no_optional_package():
    # torch itself may import tqdm or the like where it is installed: only what tensorsched adds counts.
    added = imported_by("import tensorsched") - imported_by("import torch, numpy")
    assert "tensorsched" in added
    assert added & OPTIONAL == set()


@pytest.mark.parametrize("name", ts.__all__)
def test_a_public_name_exists_and_is_documented(name):
    doc = getattr(ts, name).__doc__
    assert doc
    assert not doc.startswith(f"{name}(")  # what dataclass writes where nobody wrote anything


def test_no_public_name_is_listed_twice():
    assert len(ts.__all__) == len(set(ts.__all__))


def readme(pattern: str) -> list[str]:
    return re.findall(pattern, (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", sorted(set(readme(r"\bts\.(\w+)"))))
def test_the_readme_names_what_exists(name):
    assert hasattr(ts, name)


@pytest.mark.parametrize("name", sorted(set(readme(r"\bsched\.(\w+)"))))
def test_the_readme_names_what_an_attachment_has(name):
    assert hasattr(ts.Attachment, name)


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == ts.__version__
    assert f"[{ts.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_runtime_needs_torch_and_numpy_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {line.split(">")[0] for line in project["dependencies"]} == REQUIRED
