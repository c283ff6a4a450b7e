"""A short round of tests/fuzz.py; `make fuzz` runs it for ten minutes."""

from __future__ import annotations

import pytest

import tensorsched as ts
from tests import fuzz


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_only_documented_errors_come_out(name):
    fuzz.fuzz(name, 60)  # raises whatever else comes out


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_another_error_is_found(name, monkeypatch):
    """Control: each target would notice."""

    def fails(*_args, **_options):
        raise KeyError("a defect")

    strategy, _ = fuzz.TARGETS[name]
    monkeypatch.setitem(fuzz.TARGETS, name, (strategy, fails))
    with pytest.raises(KeyError, match="a defect"):
        fuzz.fuzz(name, 3)


def test_a_long_or_harmful_message_is_found(monkeypatch):
    for message in ("x" * 10_000, "\x1b[31m"):

        def refuses(_, message=message):
            raise ts.ScheduleError(message)

        monkeypatch.setitem(fuzz.TARGETS, "json", (fuzz.TARGETS["json"][0], refuses))
        with pytest.raises(AssertionError):
            fuzz.fuzz("json", 3)
