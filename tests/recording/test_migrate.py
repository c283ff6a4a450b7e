"""Every row of the page "coming from another library": their call and ours give the same numbers."""

from __future__ import annotations

import functools
import inspect

import nbformat
import pytest
from torch.optim import lr_scheduler as torch_lr

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tests.recording import migrate
from tests.recording.drivers import LR, names, sgd, values

CLOSE = 1e-11  # relative to the largest value: peers multiply their way from step to step, and round at each
NAMES = {"ts": ts, "lr": LR, "fn": lambda step: 1.0 / (1 + step)}

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


def evaluated(code: str, **names):
    return eval(code, {**NAMES, **names})  # noqa: S307  our own page


def build(code: str, names):
    return evaluated(code, **names)


ROWS = [
    pytest.param(migrate.LIBRARIES.get(name, name.lower()), row, id=f"{name} {row.theirs} {row.key}")
    for name, rows in migrate.TABLES.items()
    for row in rows
]
EQUAL = [row for row in ROWS if row.values[1].ours]
METRIC = [row for row in ROWS if not row.values[1].ours]


def apart(ours: ts.Schedule, theirs: list[float]) -> float:
    reach = max(map(abs, theirs))
    return max(abs(ours(step) - value) for step, value in enumerate(theirs)) / reach


@pytest.mark.parametrize(("library", "row"), EQUAL)
def test_both_give_the_same_numbers(library, row):
    theirs = values(library, functools.partial(build, row.theirs), row.steps, row.key)
    ours = evaluated(row.ours)
    assert len(theirs) == row.steps
    assert apart(ours, theirs) < CLOSE
    # Controls: a curve that is frozen or one step off is told apart.
    if ours.settled != 0:
        for wrong in (ts.constant(ours(0)), ours.delay(1)):
            assert apart(wrong, theirs) > 1e-6


@pytest.mark.parametrize(("library", "row"), METRIC)
def test_what_has_no_expression_follows_a_metric(library, row):
    scheduler = evaluated(row.theirs, **{**names(library), "optimizer": sgd()})
    with pytest.raises(ScheduleError, match="follows a metric"):
        ts.record(scheduler, 5)


def test_every_scheduler_of_torch_and_every_name_of_transformers_has_a_row():
    public = {name for name in torch_lr.__all__ if isinstance(getattr(torch_lr, name), type)} - {
        "LRScheduler"
    }
    assert {row.theirs.partition("(")[0] for row in migrate.TORCH} == public
    assert len(public) == 15
    utils = pytest.importorskip("transformers.trainer_utils", reason="transformers is not installed")
    assert {row.theirs.split('"')[1] for row in migrate.TRANSFORMERS} == {
        kind.value for kind in utils.SchedulerType
    }


# Base classes and protocols; what only hands on to others; what follows the optimizer.
WITHOUT_A_ROW = {
    "timm": {"Scheduler"},
    "fvcore": {"ParamScheduler"},
    "composer": {"ComposerScheduler"},
    "nemo": {"WarmupAnnealHoldPolicy", "SquareRootConstantPolicy"},
    "keras": {"LearningRateSchedule"},
    "mmengine": set(),
    "deepspeed": set(),
}


@pytest.mark.parametrize("library", WITHOUT_A_ROW)
def test_every_scheduler_of_the_others_has_a_row(library):
    rows = [row.theirs for _, row in (each.values for each in ROWS if each.values[0] == library)]
    classes = {
        name for name, held in names(library).items() if inspect.isclass(held) and _schedules(library, held)
    }
    assert len(classes) >= 5
    missing = {name for name in classes if not any(f"{name}(" in text for text in rows)}
    assert missing - WITHOUT_A_ROW[library] == set()


def _schedules(library: str, kind: type) -> bool:
    """Whether it is a scheduler of the library's own; of mmengine's many for one shape, that of the learning rate."""
    if library == "mmengine":
        return kind.__name__.endswith("LR")
    own = kind.__module__.startswith(library)
    return own and ("step" in dir(kind) or "__call__" in vars(kind)) and "TimeUnit" not in kind.__name__


def test_the_page_is_the_table():
    assert sources(migrate.PAGE.read_text(encoding="utf-8")) == sources(migrate.page()), (
        "run python -m tests.recording.migrate, then make notebooks ARGS='--write notebooks/05_migrate.ipynb'"
    )


def sources(notebook: str) -> list[tuple[str, str]]:
    """What somebody wrote, without what running it gave."""
    return [(cell.cell_type, cell.source) for cell in nbformat.reads(notebook, as_version=4).cells]
