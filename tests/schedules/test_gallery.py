"""The gallery shows every shape and every recipe, and is what its table says."""

from __future__ import annotations

import nbformat
import pytest

import tensorsched as ts
from tensorsched.schedules import recipes
from tensorsched.schedules.node import SHAPES
from tests.schedules import gallery

EXAMPLES = gallery.RECIPES | gallery.SHAPES | gallery.LIVE


def test_every_shape_and_recipe_is_shown():
    assert set(gallery.RECIPES) == set(recipes.__all__)
    assert set(gallery.SHAPES) | set(gallery.LIVE) == set(SHAPES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_of_what_it_stands_under_and_has_a_picture(name):
    assert EXAMPLES[name].startswith(f"ts.{name}(")
    shown = eval(EXAMPLES[name], {"ts": ts})  # noqa: S307  our own page
    assert "<polyline" in shown._repr_svg_()


@pytest.mark.parametrize("name", sorted({name for _, name, _ in gallery.CHOICES}))
def test_what_is_recommended_is_in_the_gallery(name):
    assert name in EXAMPLES


@pytest.mark.parametrize("name", sorted(set(gallery.RECIPES) - {"warmup_constant"}))
def test_every_recipe_names_its_source(name):
    """`warmup_constant` is a warm-up and nothing else."""
    assert "Source:" in gallery.described(name)


def test_the_page_is_the_table():
    def sources(text):
        return [(cell.cell_type, cell.source) for cell in nbformat.reads(text, as_version=4).cells]

    assert sources(gallery.PAGE.read_text(encoding="utf-8")) == sources(gallery.page()), (
        "run python -m tests.schedules.gallery, then make notebooks ARGS='--write notebooks/07_gallery.ipynb'"
    )
