"""Stored outputs that are not what a notebook shows are found, whatever the machine; what may differ is not."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from tests.run_notebooks import LARGEST_PNG, NOTEBOOKS, differences, kept, same_text, shown, store

PAGES = sorted(NOTEBOOKS.glob("*.ipynb"))


def notebook(*outputs, tags=(), count=1):
    cell = v4.new_code_cell("1", outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)})
    return v4.new_notebook(cells=[v4.new_markdown_cell("text"), cell])


def stream(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def data(**kinds):
    return v4.new_output(
        "display_data", data={kind.replace("_", "/", 1): held for kind, held in kinds.items()}
    )


SVG = '<svg><polyline points="1.0,2.0 3.0,{}"/></svg>'
STALE = {
    "a word": (stream("lr is 0.1"), stream("lr was 0.1")),
    "a number": (stream("0.1"), stream("0.10001")),
    "a number more": (stream("0.1"), stream("0.1 0.2")),
    "a point": (data(text_html=SVG.format(2.0)), data(text_html=SVG.format(2.5))),
    "a kind": (data(text_plain="1"), data(text_html="1")),
    "no picture": (data(image_png="AAAA", text_plain="1"), data(text_plain="1")),
}
FRESH = {
    "the last digit": (stream("0.1"), stream("0.10000000000000002")),
    "pieces": (stream("ab"), stream("ab")),
    "a tenth of a pixel": (data(text_html=SVG.format(2.0)), data(text_html=SVG.format(2.1))),
    "another picture": (data(image_png="AAAA"), data(image_png="BBBB")),
    "an address": (data(text_plain="<f at 0x7fa1>"), data(text_plain="<f at 0x7fb2>")),
}


@pytest.mark.parametrize("what", STALE)
def test_what_is_stale_is_found(what):
    old, new = STALE[what]
    assert list(differences(notebook(old), notebook(new)))
    assert list(differences(notebook(new), notebook(old)))
    assert not list(differences(notebook(old), notebook(old)))


@pytest.mark.parametrize("what", FRESH)
def test_what_depends_on_the_machine_is_let_through(what):
    old, new = FRESH[what]
    assert not list(differences(notebook(old), notebook(new)))


def test_a_cell_that_says_so_may_vary_but_not_vanish():
    old, new = stream("3 us"), stream("4 us")
    assert list(differences(notebook(old), notebook(new)))
    assert not list(differences(notebook(old, tags=["varies"]), notebook(new)))
    assert list(differences(notebook(old, tags=["varies"]), notebook()))


def test_what_was_saved_without_outputs_or_is_too_large_is_found():
    (why,) = differences(notebook(count=None), notebook(stream("1")))
    assert "without its output" in why
    large = data(image_png="A" * (2 * LARGEST_PNG))
    (why,) = differences(notebook(large), notebook(large))
    assert "bytes, more than 40000" in why


def test_streams_are_joined_and_warnings_left_out():
    cell = notebook(stream("a"), stream("hm", name="stderr"), stream("b")).cells[1]
    assert shown(cell) == [{"stream": "ab"}]


def test_a_picture_is_stored_once(tmp_path):
    assert kept({"image/svg+xml": "1", "text/html": "1", "text/plain": "1"}).keys() == {
        "image/svg+xml",
        "text/plain",
    }
    assert kept({"text/html": "1"}) == {"text/html": "1"}
    made = notebook(stream("hm", name="stderr"), data(text_html="1", text_plain="2"))
    store(copy.deepcopy(made), tmp_path / "a.ipynb")
    read = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert [shown(cell) for cell in read.cells if cell.cell_type == "code"] == [
        [{"text/html": "1", "text/plain": "2"}]
    ]
    assert len(read.cells[1].outputs) == 1


def test_numbers_are_told_from_names():
    assert not same_text("cell1 is 2", "cell2 is 2")
    assert same_text("1e-3 and -2.50", "0.001 and -2.5")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_page_has_its_outputs(path: Path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count is not None for cell in code), (
        f"make notebooks ARGS='--write notebooks/{path.name}'"
    )
    assert any(shown(cell) for cell in code)
    assert path.stat().st_size < 150_000
