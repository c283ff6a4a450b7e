"""The examples in the docstrings say what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from operator import attrgetter

import pytest

import tensorsched

MODULES = sorted(
    m.name for m in pkgutil.walk_packages(tensorsched.__path__, "tensorsched.") if "demo" not in m.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    """Control: every recipe and shape has one."""
    found = sum(
        doctest.testmod(importlib.import_module(name)).attempted
        for name in MODULES
        if name.startswith(("tensorsched.schedules.shapes.", "tensorsched.schedules.recipes."))
    )
    assert found > 40


PUBLIC = sorted(set(tensorsched.__all__) - {"__version__", "reference"})
METHODS = [name for name, method in vars(tensorsched.Schedule).items() if name[0] != "_" and callable(method)]


@pytest.mark.parametrize("name", [*PUBLIC, *(f"Schedule.{name}" for name in METHODS)])
def test_every_public_name_has_an_example(name):
    assert ">>> " in attrgetter(name)(tensorsched).__doc__
