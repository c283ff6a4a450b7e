"""Configs: a recipe by its name, as YAML, Hydra and argparse hand it over."""

from __future__ import annotations

import argparse
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorsched as ts
from tensorsched import ScheduleError
from tensorsched.schedules.parse import FUNCTIONS
from tests import strategies
from tests.recording.installed import require

CONFIGS = [
    ({"kind": "warmup_cosine", "peak": "3e-4", "total": 20_000, "warmup": 0.025}, "warmup_cosine(3e-4, total=20_000, warmup=0.025)"),
    ({"kind": "warmup_cosine", "peak": "3e-4", "total": "2e4", "warmup": "500"}, "warmup_cosine(3e-4, total=20_000, warmup=500)"),
    ({"kind": "warmup_cosine", "peak": "3e-4", "total": "20_000", "warmup": "0.5"}, "warmup_cosine(3e-4, total=20_000, warmup=0.5)"),
    ({"kind": "wsd", "peak": 1, "total": 100, "warmup": 0.1, "decay": 0.2, "shape": "1-sqrt"}, "wsd(1, total=100, warmup=0.1, decay=0.2, shape='1-sqrt')"),
    ({"kind": "wsd", "peak": 1, "total": 100, "warmup": 10, "decay": 20, "shape": {"kind": "rex", "start": 1, "end": 0, "steps": 20}},
     "wsd(1, total=100, warmup=10, decay=20, shape=rex(1, 0, steps=20))"),
    ({"kind": "chain", "parts": [{"kind": "linear", "start": 0, "end": "1e-3", "steps": "1e3"}, {"kind": "constant", "value": "1e-3"}]},
     "linear(0, 1e-3, steps=1000) >> 1e-3"),
    ({"kind": "adamc", "lr": {"kind": "cosine", "start": 1, "end": 0, "steps": 10}, "wd": "0.1"}, "adamc(cosine(1, 0, steps=10), 0.1)"),
    ({"kind": "multistep", "start": "0.1", "milestones": ["30", 60]}, "multistep(0.1, [30, 60])"),
    ({"kind": "piecewise_linear", "points": [[0, "1e-3"], [9, 0]]}, "piecewise_linear([(0, 1e-3), (9, 0)])"),
    ({"kind": "batch_steps", "text": "0:1 9:2"}, "batch_steps('0:1 9:2')"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "text"), CONFIGS, ids=[text for _, text in CONFIGS])
def test_a_config_is_the_call(config, text):
    assert ts.from_dict(config) == ts.parse(text)
    assert ts.from_json(json.dumps(config)) == ts.parse(text)


def test_yaml_reads_3e_4_as_text_and_it_is_taken():
    yaml = pytest.importorskip("yaml")
    text = "lr:\n  kind: warmup_cosine\n  peak: 3e-4\n  total: 1e5\n  warmup: 0.01\n  floor: 3.0e-5\n"
    config = yaml.safe_load(text)["lr"]
    assert config["peak"] == "3e-4"
    assert ts.from_dict(config) == ts.warmup_cosine(3e-4, total=100_000, warmup=0.01, floor=3e-5)


def test_hydras_target_is_the_function_itself():
    """`_target_: tensorsched.warmup_cosine` calls it with the other keys."""
    require("hydra")
    from hydra.utils import instantiate  # noqa: PLC0415  where it is installed

    config = {"_target_": "tensorsched.warmup_cosine", "peak": 3e-4, "total": 100, "warmup": 10}
    assert instantiate(config) == ts.warmup_cosine(3e-4, total=100, warmup=10)


def test_jsonargparse_takes_the_type(tmp_path):
    """It calls the type a second time, with what the first call made; a config file of its gives numbers as well."""
    require("jsonargparse")
    import jsonargparse  # noqa: PLC0415  where it is installed

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--lr", type=ts.argument)
    parser.add_argument("--wd", type=ts.argument, default=ts.constant(0.1))
    assert parser.parse_args(["--lr", "cosine(1, 0, steps=4)"]).lr == ts.cosine(1, 0, steps=4)
    assert parser.parse_args(["--lr", "cosine(1, 0, steps=?)"]).lr.bind(steps=4) == ts.cosine(1, 0, steps=4)
    config = tmp_path / "config.yaml"
    config.write_text("lr: wsd(3e-4, total=100, warmup=10, decay=20)\nwd: 0.2\n")
    found = parser.parse_args(["--config", str(config)])
    assert (found.lr, found.wd) == (ts.wsd(3e-4, total=100, warmup=10, decay=20), ts.constant(0.2))
    config.write_text("wd: {kind: cosine}\n")
    with pytest.raises(argparse.ArgumentError, match="must be a finite number"):
        parser.parse_args(["--config", str(config)])


def test_jsonargparse_writes_what_it_read():
    require("jsonargparse")
    import jsonargparse  # noqa: PLC0415  where it is installed
    from jsonargparse.typing import register_type  # noqa: PLC0415

    class Model:
        def __init__(self, lr: ts.Schedule) -> None:
            self.lr = lr

    register_type(ts.Schedule, serializer=repr, deserializer=ts.argument)
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(Model, "model")
    for text in ("warmup_cosine(3e-4, total=100, warmup=10)", "wsd(3e-4, total=?, warmup=0.01, decay=0.2)"):
        found = parser.parse_args(["--model.lr", text])
        assert parser.parse_string(parser.dump(found)) == found
        assert parser.instantiate(found).model.lr == ts.parse(text)


@pytest.mark.parametrize("given", [ts.cosine(1, 0, steps=4), ts.parse("cosine(1, 0, steps=?)"), 0.25])
def test_an_argument_that_is_no_text_is_given_back(given):
    assert ts.argument(given) == given or ts.argument(given) == ts.constant(given)


def test_an_argument_that_is_nothing_of_the_kind_is_refused():
    with pytest.raises(ScheduleError, match="must be a finite number, got None"):
        ts.argument(None)


def test_a_total_that_is_not_known_yet():
    plan = ts.from_dict(
        {"kind": "wsd", "peak": "3e-4", "total": "?", "warmup": 0.01, "decay": "0.2", "shape": "cosine"}
    )
    assert plan.bind(total=1000) == ts.wsd(3e-4, total=1000, warmup=0.01, decay=0.2, shape="cosine")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"kind": "warmup_cosin"}, "unknown kind 'warmup_cosin'; did you mean warmup_cosine?"),
        ({"kind": 3}, "unknown kind 3"),
        ({"kind": "seesaw"}, "unknown kind 'seesaw'"),
        ({"kind": "cosine", "start": "x", "end": 0, "steps": 3}, "cosine: start must be a finite number, got 'x'"),
        ({"kind": "cosine", "start": "1e999", "end": 0, "steps": 3}, "cosine: start must be a finite number"),
        ({"kind": "cosine", "start": 1, "end": 0, "T_max": 3}, "it has no argument 'T_max': write steps=3"),
        ({"kind": "warmup_cosine", "peak": "nan", "total": 3, "warmup": 1}, "warmup_cosine: peak must be a finite number, got 'nan'"),
        ({"kind": "cosine", "start": 1, "end": 0, "steps": "1.5e0"}, "cosine: steps must be a whole number of steps"),
        ({"kind": "chain", "parts": [{"kind": "cosine", "start": 1, "end": 0}]}, "parts[0]: cosine: missing a required argument"),
        ({"kind": "adamc", "wd": 1, "lr": {"kind": "x"}}, "lr: unknown kind 'x'"),
        ({"kind": "wsd", "peak": [1], "total": "?", "warmup": 0.01, "decay": 0.2}, "peak: beside a ? there is room for numbers"),
    ],
)  # fmt: skip
def test_a_bad_config_is_refused(config, says):
    with pytest.raises(ScheduleError) as caught:
        ts.from_dict(config)
    assert says in str(caught.value)


def test_a_config_that_nests_without_end_is_refused():
    config = {"kind": "constant", "value": 1}
    for _ in range(200):
        config = {"kind": "chain", "parts": [config]}
    with pytest.raises(ScheduleError, match="nested more than 100 levels deep"):
        ts.from_dict(config)


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["?", "1e9", "-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "steps", "peak", "total", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(FUNCTIONS)), st.dictionaries(st.sampled_from(["start", "end", "steps", "peak", "total", "warmup", "shape"]), junk))  # fmt: skip
def test_nothing_but_a_schedule_error_comes_out(kind, options):
    try:
        made = ts.from_dict({"kind": kind, **options})
    except ScheduleError as error:
        assert len(str(error)) < 1500  # noqa: PT017  whatever else comes out is a failure
    else:
        assert isinstance(made, ts.Schedule)


@given(strategies.schedules())
def test_a_document_is_read_as_before(schedule):
    assert ts.from_dict(schedule.to_dict()) == schedule


def test_what_later_versions_added_is_not_in_old_documents():
    """A repeat without the field that came later has the document, and the fingerprint, that it always had."""
    plain = ts.cosine(1, 0, steps=10).repeat(3, length_mult=1.5)
    assert set(plain.to_dict()["schedule"]) == {"kind", "inner", "times", "length_mult", "value_mult"}
    other = ts.cosine(1, 0, steps=10).repeat(3, length_mult=1.5, round_lengths=False)
    assert other.to_dict()["schedule"]["round_lengths"] is False
    assert ts.from_dict(other.to_dict()) == other != plain
    assert other.fingerprint != plain.fingerprint


def test_recorded_values_keep_their_bits():
    """What was tabulated is a number for each step: no formula has a part in it."""
    values = [0.1 + 0.2, 1 / 3, 1e-300, 5e-324, 3e-4]
    schedule = ts.from_json(ts.from_values(values).to_json())
    assert schedule.values().tolist() == values
    assert [ts.reference.value(schedule, t) for t in range(5)] == values
