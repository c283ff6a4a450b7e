"""README as a new user takes it: its code runs top to bottom, and what it names is there."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from torch import nn

import tensorsched as ts

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PERFORMANCE = ROOT / "tests" / "benchmarks" / "readme.py"
RESULTS = PERFORMANCE.with_name("RESULTS.md")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = [
    (TEXT.count("\n", 0, m.start()) + 2, m[2]) for m in FENCE.finditer(TEXT) if m[1] in {"python", "py"}
]
"""The first line's number and the source of each block."""
SHELL = [
    line for m in FENCE.finditer(TEXT) if m[1] in {"", "sh", "bash"} for line in m[2].split("\n") if line
]


def stand_ins() -> dict[str, object]:
    """What a reader has of their own: a model, data, a loss."""
    torch.manual_seed(0)
    batches = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(3)]
    return {"model": nn.Linear(2, 1), "loader": batches, "loss_fn": nn.functional.mse_loss}


def for_ignite() -> dict[str, object]:
    """The handlers schedule an optimizer that has a momentum, and a trainer's update function."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.9)
    return {"optimizer": optimizer, "update": lambda _engine, _batch: None}


def run(blocks: list[tuple[int, str]]) -> list[dict[str, object]]:
    """Execute the blocks in one namespace, and give what was in it after each."""
    names, after = stand_ins(), []
    for line, source in blocks:
        if "ignite" in source:
            names |= for_ignite()
        exec(compile("\n" * (line - 1) + source, "README.md", "exec"), names)  # noqa: S102  it is our own
        after.append(dict(names))
    return after


@pytest.fixture(scope="module")
def after():
    if any("ignite" in source for _, source in PYTHON):
        pytest.importorskip("ignite", reason="a block of README uses ignite, which is not installed")
    return run(PYTHON)


def test_every_block_runs_after_the_ones_above_it(after):
    assert len(after) == len(PYTHON) >= 2


def test_the_training_loop_follows_its_schedule(after):
    names = after[0]
    assert names["sched"].step_count == len(names["loader"])
    (group,) = names["optimizer"].param_groups
    assert group["lr"] == names["lr"](3) > 0  # a frozen value would be 0


def test_a_block_that_fails_is_found_with_its_line():
    with pytest.raises(NameError) as caught:
        run([*PYTHON[:1], (77, "\nsched.step_count\nnothing_of_this_name")])
    assert caught.traceback[-1].lineno == 79 - 1  # pytest counts from 0


def test_no_python_hides_in_another_kind_of_block():
    assert not any(re.match(r"(import|from) \w+|\w+ = ", line) for line in SHELL)


MADE = re.compile(r"^([a-z][a-z0-9-]*):(?!=)", re.MULTILINE)
NAMED = sorted({word for code in [*SHELL, *re.findall(r"`([^`\n]+)`", TEXT)] for word in re.findall(r"^make ([a-z][\w-]*)", code)})  # fmt: skip


@pytest.mark.parametrize("target", NAMED)
def test_a_make_target_that_is_named_exists_and_has_a_line_of_help(target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert target in MADE.findall(makefile)
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)


def test_make_targets_are_named():
    assert {"demo", "test"} <= set(NAMED)


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", TEXT))))
def test_a_module_that_is_run_exists(module):
    assert importlib.util.find_spec(module)


@pytest.mark.parametrize("extra", sorted(set(re.findall(r"pip install '\.\[(\w+)\]'", TEXT))))
def test_an_extra_that_is_installed_exists(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_a_file_that_is_linked_exists(link):
    assert (ROOT / link).is_file() or (ROOT / link).is_dir()


METHODS = sorted(set(re.findall(r"\b(?:a|lr)\.(\w+)", TEXT)))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_schedules_that_is_named_exists(name):
    assert hasattr(ts.Schedule, name)


def test_methods_are_named():
    assert {"over", "mirror", "stretch"} <= set(METHODS)


# -- the picture ------------------------------------------------------------------------------------------------------


def parts_of(picture: Path) -> tuple[str, int]:
    """Its text, and how many curves it has."""
    root = ET.parse(picture).getroot()  # noqa: S314  our own file
    words = [node.text or "" for node in root.iter() if node.tag.endswith("}text")]
    groups = [node.get("id", "") for node in root.iter() if node.tag.endswith("}g")]
    return " ".join(words), sum(name.startswith("line2d") for name in groups)


def test_the_picture_is_small_and_shows_the_loop_s_schedules():
    picture = ROOT / "notebooks" / "schedule.svg"
    words, lines = parts_of(picture)
    assert picture.stat().st_size < 60_000
    assert f"]({picture.relative_to(ROOT)})" in TEXT
    assert {"lr", "weight_decay", "6,000"} <= set(words.split())
    assert lines > 2


def test_the_picture_is_what_the_library_draws(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the picture is drawn with matplotlib")
    monkeypatch.syspath_prepend(str(PERFORMANCE.parent))
    import readme_picture  # noqa: PLC0415  its folder holds programs, and is no package

    readme_picture.draw(tmp_path / "new.svg")
    assert parts_of(tmp_path / "new.svg") == parts_of(ROOT / "notebooks" / "schedule.svg")


# -- the performance section ------------------------------------------------------------------------------------------


def performance(*options):
    return subprocess.run(
        [sys.executable, PERFORMANCE, *options], capture_output=True, text=True, check=False
    )


def test_the_performance_section_is_that_of_the_committed_numbers():
    done = performance("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_performance_section_is_found_and_written_anew(tmp_path):
    result = json.loads((ROOT / "tests" / "benchmarks" / "results" / "cpu.json").read_text(encoding="utf-8"))
    floats = result["schedule_step"][0]["competitors"]["ours, float slots"]
    floats["us"]["median"], floats["ratio"]["median"] = 1234.0, 0.5
    other, numbers = tmp_path / "README.md", tmp_path / "cpu.json"
    other.write_text(TEXT, encoding="utf-8")
    numbers.write_text(json.dumps(result), encoding="utf-8")
    options = ("--readme", other, "--result", numbers)
    stale = performance("--check", *options)
    says = [
        f"{name} is stale: run make readme" for name in ("README.md", "RESULTS.md")
    ]  # there is no such page yet
    assert (stale.returncode, stale.stdout.splitlines()) == (1, says)
    assert other.read_text(encoding="utf-8") == TEXT
    assert performance(*options).returncode == performance("--check", *options).returncode == 0
    new = other.read_text(encoding="utf-8")
    assert "1,234 (" in new
    assert "- Slower: ours, float slots than torch `CosineAnnealingLR`, 2.0x at 1 group." in new
    assert "## One compiled graph" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")


def test_one_table_of_figures_is_on_the_page():
    section = TEXT.partition("<!-- performance: `")[2].partition("<!-- performance: end")[0]
    assert len(re.findall(r"^\| ---", section, re.MULTILINE)) == 1


@pytest.mark.parametrize(
    "link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", RESULTS.read_text(encoding="utf-8"))))
)
def test_a_file_that_the_page_of_results_links_exists(link):
    assert (RESULTS.parent / link).resolve().exists()


def test_the_sections_of_gpus_and_of_versions_say_what_was_measured_and_what_failed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PERFORMANCE.parent))
    import readme_runs  # noqa: PLC0415  its folder holds programs, and is no package

    (tmp_path / "cpu.json").write_text('{"machine": {}}')
    assert readme_runs.gpu(tmp_path) == readme_runs.NO_GPU
    card = {
        "machine": {"gpu": "Card", "driver": "1", "cuda": "13", "torch": "2.13"},
        "tensor_lr": [{"eager_ratio": 1.2}, {"eager_ratio": 1.0}],
        "tests": {"status": 0, "printed": ["==== 21 passed in 3 s ===="]},
        "replay": [{"groups": 8, "ratio": 1.004, "kernels": {"constant": 2, "scheduled": 4}}],
        "host": {"error": "Traceback"},
        "training": {"captured, lr, over eager": 1.5},
    }
    (tmp_path / "Card.json").write_text(json.dumps(card))
    text = readme_runs.gpu(tmp_path)
    for said in ("On an Card", "21 passed", "1.004x", "`host` failed", "lr: 1.50x", "over 5 % in 1 of 2"):
        assert said in text
    row = {
        "torch": "2.14.1",
        "python": "3.11.7",
        "date": "2026-11-24",
        "passed": 4000,
        "failed": ["a"],
        "skipped": 7,
    }
    (tmp_path / "torch.json").write_text(json.dumps([row]))
    assert "| 2.14.1 | 3.11.7 | 4,000 | 1 | 7 | 2026-11-24 |" in readme_runs.versions(tmp_path / "torch.json")


def test_a_readme_without_the_marks_is_refused(tmp_path):
    other = tmp_path / "README.md"
    other.write_text(TEXT.replace("<!-- performance: end -->", ""), encoding="utf-8")
    done = performance("--readme", other)
    assert done.returncode == 1
    assert "README.md has lost a mark" in done.stderr
