"""The shape of the project itself: which way imports go, what an import costs, what is public."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import torch

import tensorsched as ts

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tensorsched"
FILES = sorted(PACKAGE.rglob("*.py"))

# A part may import from its own line or from a line above it, never from below; and two names on one line must not
# import each other. A new name at the top level has to be placed here. Inside a part, no module needs one that needs it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("schedules", "param_groups"),
    ("engine", "batch_sampler"),
    ("binding",),
    ("compiled", "recording"),
    ("plan",),
    ("__init__",),  # the public names, gathered; only the programs below may use the package as a user does
    ("integrations", "demo"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

REQUIRED = {"torch", "numpy"}
OPTIONAL = {"ignite", "matplotlib", "tqdm", "transformers"}
# What a part, or a module, may import from outside the package, where that is less than REQUIRED and the standard
# library.
NARROWER = {
    "errors": set(sys.stdlib_module_names),
    "schedules": set(sys.stdlib_module_names) | {"numpy", "matplotlib"},
    "schedules.reference": {
        *(
            "__future__",
            "collections",
            "dataclasses",
            "fractions",
            "functools",
            "itertools",
            "math",
            "typing",
        ),
    },
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


def allowed(module: str) -> set[str]:
    """What a module may import from outside the package: as its own name says, or that of a package around it."""
    parts = module.removeprefix("tensorsched.").split(".")
    around = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    narrower = (NARROWER[name] for name in around if name in NARROWER)
    return next(narrower, REQUIRED | set(sys.stdlib_module_names))


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
            if there not in LEVEL:
                wrong.append(f"{module} imports {name}, which has no place in LAYERS")
            elif LEVEL[there] > LEVEL[here] or (LEVEL[there] == LEVEL[here] and there != here):
                wrong.append(f"{module} imports {name}: imports go down only")
        elif root in OPTIONAL:
            if at_import:
                wrong.append(
                    f"{module} imports {name} at its top level: optional packages are imported where used"
                )
        elif root not in allowed(module):
            wrong.append(f"{module} imports {name}, which its layer may not")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down(path):
    source = path.read_text(encoding="utf-8")
    assert violations(source, module_name(path), package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "text"),
    [
        ("tensorsched.engine.table", "from tensorsched.binding.slots import Slot", "imports go down only"),
        ("tensorsched.engine.table", "from ..binding import slots", "imports go down only"),
        (
            "tensorsched.engine.table",
            "def late():\n    from tensorsched import binding",
            "imports go down only",
        ),
        ("tensorsched.engine.table", "import tensorsched as ts", "imports go down only"),
        ("tensorsched.schedules.shapes", "from ..binding.attach import attach", "imports go down only"),
        ("tensorsched.schedules.views.plot", "import tensorsched.demo", "imports go down only"),
        ("tensorsched.param_groups", "from tensorsched.schedules import Schedule", "imports go down only"),
        ("tensorsched.engine.engine", "import tensorsched.helpers", "no place in LAYERS"),
        ("tensorsched.helpers", "", "no place in LAYERS"),
        ("tensorsched.schedules.shapes", "import torch", "its layer may not"),
        ("tensorsched.schedules.shapes", "def late():\n    import torch.nn", "its layer may not"),
        ("tensorsched.schedules.reference", "import numpy as np", "its layer may not"),
        ("tensorsched.schedules.reference.arithmetic", "import numpy as np", "its layer may not"),
        ("tensorsched.engine.engine", "import scipy", "its layer may not"),
        ("tensorsched.schedules.views.plot", "import matplotlib.pyplot as plt", "imported where used"),
        (
            "tensorsched.schedules.views.plot",
            "try:\n    import matplotlib\nexcept ImportError:\n    pass",
            "imported where used",
        ),
        ("tensorsched.demo", "class Run:\n    from tqdm import tqdm", "imported where used"),
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


def test_a_relative_import_in_a_package_starts_at_the_package():
    found = imports(
        "from .shapes import linear\nfrom .. import errors", "tensorsched.schedules", package=True
    )
    assert [name for name, _ in found] == ["tensorsched.schedules.shapes", "tensorsched.errors"]


def arrows() -> dict[str, set[str]]:
    """Which modules each one imports, at any time: in functions and for type checkers too."""
    graph = {}
    for path in FILES:
        name = module_name(path)
        found = imports(path.read_text(encoding="utf-8"), name, package=path.name == "__init__.py")
        graph[name] = {other for other, _ in found if other in MODULES and other != name}
    return graph


def order(graph: dict[str, set[str]]) -> list[str]:
    return list(TopologicalSorter(graph).static_order())


def test_there_is_no_circle():
    assert set(order(arrows())) == MODULES


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("tensorsched.schedules.node", "tensorsched.schedules.views.plot"),
        ("tensorsched.engine.table", "tensorsched.engine.engine"),
        ("tensorsched.binding.movers", "tensorsched.binding.parts"),
        ("tensorsched.compiled.graph_mode", "tensorsched.compiled.step"),
    ],
)
def test_a_planted_circle_is_found(module, imported):
    graph = arrows()
    graph[module].add(imported)
    with pytest.raises(CycleError):
        order(graph)


LONGEST = 330
"""Lines of a module: what a reader takes in at one sitting. A longer one has to say why it is not two."""
LONGER = {
    "binding.movers": (450, "all that runs at every step, in one place"),
    "compiled.step": (390, "one compiled step, from the first call to its release"),
    "engine.clocked": (370, "the counts of one clock, as floats and as tensors, line by line the same"),
    "integrations.ignite.compositions": (345, "ignite's handlers that hold others, one function each"),
    "plan.plan": (400, "most of it docstrings of the methods of one class"),
    "schedules.node": (360, "what every node is"),
    "schedules.schedule": (470, "most of it docstrings of the methods of one class"),
}


def too_long(lengths: dict[str, int]) -> list[str]:
    """Modules over their limit, and exceptions that no module needs any more."""
    over = [f"{n}: {lines} lines" for n, lines in lengths.items() if lines > LONGER.get(n, (LONGEST,))[0]]
    return over + [f"{n} needs no exception" for n in LONGER if lengths.get(n, 0) <= LONGEST]


def lengths() -> dict[str, int]:
    return {
        module_name(path).removeprefix("tensorsched."): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }


def test_modules_stay_as_long_as_they_are_read():
    assert too_long(lengths()) == []


@pytest.mark.parametrize(
    ("module", "lines", "found"),
    [
        ("binding.slots", LONGEST + 1, "binding.slots: 331 lines"),
        ("binding.movers", 451, "binding.movers: 451 lines"),
        ("binding.movers", LONGEST, "binding.movers needs no exception"),
    ],
)
def test_a_module_that_grows_is_found(module, lines, found):
    assert found in too_long(lengths() | {module: lines})
    assert found not in too_long(lengths())


def imported_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after running `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.splitlines()[-1].split())  # what it printed itself comes before


def test_importing_the_package_imports_no_optional_package():
    # torch itself may import tqdm or the like where it is installed: only what tensorsched adds counts.
    added = imported_by("from tensorsched import *") - imported_by("import torch, numpy")
    assert "tensorsched" in added
    assert added & OPTIONAL == set()


@pytest.mark.parametrize(
    "statement",
    [
        "import tensorsched",
        "import tensorsched.schedules",
        "from tensorsched import warmup_cosine, parse, check, Schedule",
        "import tensorsched as ts; ts.parse(repr(ts.from_json(ts.wsd(1, total=9, warmup=1, decay=2).to_json())))",
        "import tensorsched as ts; ts.check(ts.cosine(1, 0, steps=9)); dir(ts), ts.__all__, hasattr(ts, 'attachh')",
        "import pickle, tensorsched as ts; pickle.loads(pickle.dumps(ts.cosine(1, 0, steps=9)))",
        *(
            f"from tensorsched.cli.main import main; main({arguments})"
            for arguments in (
                ["show", "cosine(1, 0, steps=9)"],
                ["values", "cosine(1, 0, steps=9)"],
                ["check", "cosine(1, 0, steps=9)"],
                ["diff", "cosine(1, 0, steps=9)", "linear(1, 0, steps=9)"],
                ["show", "no schedule"],
            )
        ),
    ],
)
def test_the_language_does_not_import_torch(statement):
    assert "torch" not in imported_by(statement)


@pytest.mark.parametrize("name", sorted(ts._LATER))
def test_what_needs_torch_imports_it_when_it_is_asked_for(name):
    """Control of the test above: the first use of such a name imports torch, and finds the same object."""
    assert getattr(ts, name) is getattr(sys.modules[f"tensorsched.{ts._LATER[name]}"], name)
    if name == "attach":
        assert "torch" in imported_by(f"from tensorsched import {name}")


def test_type_checkers_are_told_of_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (told,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    names = {
        alias.asname: node.module.removeprefix("tensorsched.")
        for node in told.body
        for alias in node.names
        if alias.name == alias.asname
    }
    assert names == ts._LATER


def test_a_fresh_interpreter_has_every_name():
    """By attribute, by `*`, in dir(); and in the module's dict once it was asked for, where pdoc looks for it."""
    code = (
        "import tensorsched as ts\nassert set(ts.__all__) <= set(dir(ts))\nfrom tensorsched import *\n"
        "assert all(globals()[name] is getattr(ts, name) is vars(ts)[name] for name in ts.__all__)\nprint(len(ts.__all__))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(run.stdout) == len(ts.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tensorsched' has no attribute 'atach'"):
        ts.atach  # noqa: B018


def test_an_attachment_is_unpickled_in_a_fresh_interpreter():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
    sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=4))
    optimizer.step()
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).value('lr'))"
    run = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(sched), capture_output=True, check=True, cwd=ROOT
    )
    assert run.stdout.decode().strip() == "0.75"


@pytest.mark.parametrize("name", ts.__all__)
def test_a_public_name_exists_and_is_documented(name):
    doc = getattr(ts, name).__doc__
    assert doc
    assert not doc.startswith(f"{name}(")  # what dataclass writes where nobody wrote anything


RETURNED = {"Clock", "CompiledStep", "Finding", "ScheduleTable", "__version__"}
"""Public names that the page of the package does not list: what others give, and the version."""


@pytest.mark.parametrize("name", sorted(set(ts.__all__) - RETURNED))
def test_the_page_of_the_package_says_where_a_name_belongs(name):
    assert f"`{name}`" in ts.__doc__


def on_an_optimizer() -> Iterator[tuple[str, str]]:
    """What may touch a device, with its docstring: functions, and methods and properties of classes (with the class's)."""
    for name in ts.__all__:
        held = getattr(ts, name)
        if inspect.isclass(held) and not held.__module__.startswith(
            ("tensorsched.schedules", "tensorsched.errors")
        ):
            whole = re.search("[Nn]othing here synchronises", held.__doc__) is not None
            for method in (each for each in dir(held) if not each.startswith("_")):
                doc = inspect.getdoc(inspect.getattr_static(held, method)) or ""
                if isinstance(getattr(held, method), property) or callable(getattr(held, method)):
                    yield f"{name}.{method}", doc + held.__doc__ * whole
        elif inspect.isfunction(held) and not held.__module__.startswith("tensorsched.schedules"):
            yield name, held.__doc__


def test_what_works_on_an_optimizer_says_whether_it_synchronises():
    found = dict(on_an_optimizer())
    assert {"attach", "Attachment.log", "Plan.extend", "ScheduleEngine.seek"} <= found.keys()
    assert [name for name, doc in found.items() if not re.search("synchronis", doc, re.IGNORECASE)] == []


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


@pytest.mark.parametrize("name", sorted(set(readme(r"\bplan\.(\w+)"))))
def test_the_readme_names_what_a_plan_has(name):
    assert hasattr(ts.Plan, name)


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == ts.__version__
    assert f"[{ts.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_runtime_needs_torch_and_numpy_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {line.split(">")[0] for line in project["dependencies"]} == REQUIRED
