"""Documents: what they look like, what a bad one gets, and that nothing but a ScheduleError ever comes out of one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched import ScheduleError
from tensorsched.schedules.node import NODES
from tests.strategies import junk, nearly, schedules

HEAD = {"format": "tensorsched/schedule", "version": 1}
LINEAR = {"kind": "linear", "start": 0.0, "end": 1.0, "steps": 4}
fuzz = settings(
    max_examples=max(500, settings.default.max_examples),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def document(schedule: object) -> dict[str, object]:
    return {**HEAD, "schedule": schedule}


def test_a_document_is_plain():
    lr = ts.linear(0, 1, steps=4) >> 0.5 * ts.piecewise_constant([1, 2], [3])
    assert lr.to_dict() == document(
        {
            "kind": "sequence",
            "parts": [
                LINEAR,
                {
                    "kind": "combine",
                    "left": {"kind": "constant", "value": 0.5, "steps": None},
                    "right": {"kind": "piecewise_constant", "levels": [1.0, 2.0], "boundaries": [3]},
                    "op": "*",
                },
            ],
        }
    )
    assert json.loads(lr.to_json()) == lr.to_dict()
    assert lr.to_json(indent=2).startswith('{\n  "format"')


def test_a_document_of_version_1_stays_readable():
    """Written once by hand; whoever changes the format has to keep reading it."""
    text = (
        '{"format": "tensorsched/schedule", "version": 1, "schedule": {"kind": "repeat", "inner": {"kind": "cosine", '
        '"start": 1.0, "end": 0.0, "steps": 10}, "times": 3, "length_mult": 2.0, "value_mult": 0.5}}'
    )
    assert ts.from_json(text) == ts.cosine(1, 0, steps=10).repeat(3, length_mult=2, value_mult=0.5)


def test_fingerprints_stay_the_same():
    """A saved training state holds one: a change of it makes every old state look like another schedule's."""
    assert ts.linear(0.0, 1.0, steps=4).fingerprint == "3a0bf93bf54433dd1441d2aa914f0aef"


@pytest.mark.parametrize("kind", sorted(NODES))
def test_kinds_are_stable_words(kind):
    assert kind == kind.lower()
    assert kind.replace("_", "").isalpha()


# -- bad documents: the document, and what the message has to say ------------------------------------------------------

BAD = {
    "not a dict": ([], "document must be a dict, got list"),
    "no format": ({}, "format: must be 'tensorsched/schedule', got None.*to_dict"),
    "another format": ({**HEAD, "format": "x"}, "format: must be 'tensorsched/schedule', got 'x'"),
    "a newer version": ({**HEAD, "version": 2}, "version: .* reads version 1, got 2; update tensorsched"),
    "an older version": ({**HEAD, "version": 0}, "version: .* reads version 1, got 0; write it again"),
    "a version that is no int": ({**HEAD, "version": 1.0}, "version: .* got 1.0"),
    "a version that is a flag": ({**HEAD, "version": True}, "version: .* got True"),
    "no version": ({"format": HEAD["format"]}, "version: .* got None"),
    "an entry too many": ({**document(LINEAR), "author": "me"}, "author: unknown entry"),
    "no schedule": (HEAD, "schedule: must be a dict that describes a schedule, got NoneType"),
    "a schedule that is a number": (document(1.0), "schedule: must be a dict .* got float"),
    "no kind": (document({}), "schedule.kind: unknown kind None; known are .*linear"),
    "an unknown kind": (document({"kind": "spiral"}), "schedule.kind: unknown kind 'spiral'; known are .*linear"),
    "a kind that is no word": (document({"kind": ["linear"]}), r"schedule.kind: unknown kind \['linear'\]"),
    "an argument missing": (document({"kind": "linear", "start": 0.0, "end": 1.0}), "schedule.steps: missing; linear needs it"),
    "an argument too many": (document({**LINEAR, "power": 2}), "schedule.power: linear has no such argument"),
    "a text for a number": (document({**LINEAR, "start": "0"}), "schedule: linear: start must be a finite number, got '0'"),
    "a flag for a number": (document({**LINEAR, "start": True}), "schedule: linear: start must be a finite number, got True"),
    "a NaN": (document({**LINEAR, "end": math.nan}), "schedule: linear: end must be a finite number, got nan"),
    "an infinity": (document({**LINEAR, "end": math.inf}), "schedule: linear: end must be a finite number, got inf"),
    "a huge int": (document({**LINEAR, "end": 10**5000}), "schedule: linear: end must be a finite number that fits a float64"),
    "negative steps": (document({**LINEAR, "steps": -1}), "schedule: linear: steps must be a whole number of steps of at least 0"),
    "fractional steps": (document({**LINEAR, "steps": 4.0}), "schedule: linear: steps must be a whole number of steps .*got 4.0"),
    "endless steps": (document({**LINEAR, "steps": 2**54}), r"schedule: linear: steps must be at most 2\*\*53"),
    "a schedule for a number": (document({**LINEAR, "end": LINEAR}), "schedule: linear: end must be a finite number, got linear"),
    "a number for a schedule": (document({"kind": "delay", "inner": 1, "n": 2}), "schedule: delay: inner must be a schedule, got 1"),
    "a number for a list": (document({"kind": "from_values", "entries": 1}), "schedule: from_values: entries must be a one-dim"),
    "a text for a list": (document({"kind": "from_values", "entries": "12"}), "schedule: from_values: entries must be a one-dim"),
    "a list with a hole": (document({"kind": "from_values", "entries": [1, None]}), r"schedule: from_values: entries\[1\] must be a finite"),
    "a short chain": (document({"kind": "sequence", "parts": [LINEAR]}), "schedule: sequence: parts must be a list of at least two"),
    "a bad part": (document({"kind": "sequence", "parts": [LINEAR, {"kind": "x"}]}), r"schedule\.parts\[1\]\.kind: unknown kind 'x'"),
    "a part that is no schedule": (document({"kind": "sequence", "parts": [LINEAR, 1]}), r"schedule\.parts\[1\]: must be a dict"),
    "an unknown operator": (
        document({"kind": "combine", "left": LINEAR, "right": LINEAR, "op": "%"}),
        r"schedule: combine: op must be one of '\+'.*got '%'",
    ),
    "a bad leaf, deep": (
        document({"kind": "take", "n": 1, "inner": {"kind": "combine", "op": "+", "left": LINEAR, "right": {**LINEAR, "end": None}}}),
        r"schedule\.inner\.right: linear: end must be a finite number, got None",
    ),
    "a rule between arguments": (
        document({"kind": "sequence", "parts": [{"kind": "exponential", "start": 1.0, "end": 0.0, "steps": 3}, LINEAR]}),
        r"schedule\.parts\[0\]: exponential: end must not be 0",
    ),
    "keys that are no text": (document({**LINEAR, 3: 4}), r"schedule\.3: linear has no such argument"),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "text"), BAD.values(), ids=BAD)
def test_a_bad_document_is_refused_by_path(bad, text):
    with pytest.raises(ScheduleError, match=text):
        ts.from_dict(bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON document"),
        ("{", "not a JSON document"),
        ("null", "document must be a dict, got NoneType"),
        ("[" * 100_000, "not a JSON document"),
        ("1" * 5_000, "not a JSON document"),
        (b"\xff\xfe\x00", "not a JSON document"),
        (None, "not a JSON document"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": -Infinity}', "-Infinity is not a finite number"),
        ('{"a": 1, "a": 1}', "the key 'a' occurs twice"),
        ('{"a": 1e999}', "format: must be"),
        (json.dumps(document(LINEAR)).replace("1.0", "1e999"), "end must be a finite number, got inf"),
    ],
)
def test_a_bad_text_is_refused(text, message):
    with pytest.raises(ScheduleError, match=message):
        ts.from_json(text)


def nested(depth: int) -> dict[str, object]:
    entry: dict[str, object] = LINEAR
    for _ in range(depth):
        entry = {"kind": "delay", "inner": entry, "n": 1}
    return document(entry)


def test_deep_documents():
    assert ts.from_dict(nested(99)).steps == 103
    for depth in (100, 50_000):
        with pytest.raises(ScheduleError, match="nested more than 100 levels deep"):
            ts.from_dict(nested(depth))
    deep_list: list[object] = []
    for _ in range(50_000):
        deep_list = [deep_list]
    with pytest.raises(ScheduleError, match="start must be a finite number, got <list too large to show>"):
        ts.from_dict(document({**LINEAR, "start": deep_list}))
    for depth in range(900, 1_000, 5):  # around what the JSON parser itself still takes
        with pytest.raises(ScheduleError):
            ts.from_json(json.dumps(document(LINEAR)).replace("1.0", "[" * depth + "]" * depth))


# -- fuzz -------------------------------------------------------------------------------------------------------------


def loads_or_refuses(load, source) -> None:
    with contextlib.suppress(ScheduleError):
        made = load(source)
        assert ts.from_dict(made.to_dict()) == made


@given(junk | junk.map(document))
@fuzz
def test_junk_never_breaks_from_dict(source):
    loads_or_refuses(ts.from_dict, source)


@given(nearly(schedules(3).map(ts.Schedule.to_dict)))
@fuzz
def test_a_damaged_document_never_breaks_from_dict(source):
    loads_or_refuses(ts.from_dict, source)


@given(
    nearly(schedules(3).map(ts.Schedule.to_dict)).map(json.dumps)
    | st.text(max_size=30)
    | st.binary(max_size=30)
)
@fuzz
def test_damaged_text_never_breaks_from_json(source):
    loads_or_refuses(ts.from_json, source)


@given(schedules(3).map(ts.Schedule.to_json), st.data())
@fuzz
def test_a_cut_or_flipped_text_never_breaks_from_json(text, data):
    at = data.draw(st.integers(0, len(text) - 1))
    loads_or_refuses(ts.from_json, text[:at])
    loads_or_refuses(ts.from_json, text[:at] + data.draw(st.characters()) + text[at + 1 :])


# -- nothing is executed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["__import__", "os.system", "eval", "Schedule", "from_function", "warmup_cosine", "Linear"]
)
def test_a_kind_is_a_word_of_a_list_and_no_python_name(kind):
    for arguments in ({}, {"fn": "print(1)", "steps": 1}, {"command": "true"}):
        with pytest.raises(ScheduleError, match="unknown kind"):
            ts.from_dict(document({"kind": kind, **arguments}))


@pytest.mark.parametrize(
    "word", ["__import__('os').system('true')", "__class__", "__init__", "__post_init__", "_depth"]
)
def test_source_text_in_a_document_stays_text(word, monkeypatch):
    def refuse(*_args: object, **_options: object) -> None:
        pytest.fail("executed")

    for module, name in ((os, "system"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, refuse)
    for entry in ({"kind": word}, {**LINEAR, "start": word}, {**LINEAR, word: 1}, word):
        with pytest.raises(ScheduleError):
            ts.from_json(json.dumps(document(entry)))


def test_the_loader_has_nothing_to_execute_with():
    source = Path(ts.schedules.serialize.__file__).read_text(encoding="utf-8")
    for word in ("eval(", "exec(", "pickle", "marshal", "importlib", "__import__", "getattr(ts", "globals("):
        assert word not in source


def test_small_documents_cannot_cost_much():
    """Each would take minutes or more if it were walked naively."""
    nested = ts.linear(0.0, 1.0, steps=9)
    for n in range(90):
        nested = nested.take(8 + n % 3)
    assert nested.constant_from == 8
    slow = {
        "kind": "repeat",
        "inner": ts.constant(1.0, steps=2**30).to_dict()["schedule"],
        "times": 2**50,
        "value_mult": 1.0,
    }
    for length_mult in (1 + 2**-30, 1 - 2**-30):
        document = {**ts.constant(1.0).to_dict(), "schedule": {**slow, "length_mult": length_mult}}
        with pytest.raises(ts.ScheduleError, match="gives more than 100000 cycles of different lengths"):
            ts.from_dict(document)
    doubled = ts.linear(0.0, 1.0, steps=9)
    for _ in range(14):
        doubled = doubled * doubled
    with pytest.raises(
        ts.ScheduleError, match="has over 50000 parts; tabulate a part of it with from_values"
    ):
        doubled * doubled


def test_messages_elide_long_tables():
    long = ts.from_values([1.0 + i for i in range(100_000)])
    with pytest.raises(ts.ScheduleError) as caught:
        ts.tabulate({"x": 1.0 / (long - 1.0)})
    assert len(str(caught.value)) < 1_000
    assert "... 99994 more ..." in str(caught.value)
    assert len(repr(long)) > 100_000, "repr itself is whole, so that it evaluates back"


def test_a_sequence_must_not_start_a_part_beyond_the_exact_steps():
    far = ts.linear(1.0, 1.0, steps=2**53 - 1)
    with pytest.raises(ts.ScheduleError, match="sequence: total length"):
        far >> ts.linear(0.0, 1.0, steps=5) >> ts.constant(1.0)
