"""A short round of tests/fuzz; `make fuzz` runs it for ten minutes. And what it found, one row each."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import tensorsched as ts
from tensorsched.schedules import parse
from tests.fuzz import fuzzer, targets
from tests.fuzz.fuzzer import Fuzzer, a_limit, reduced
from tests.fuzz.inputs import MAKERS


@pytest.fixture(scope="module")
def fed():
    """A thousand inputs, the calls of each counted: the clock does not matter."""
    found = Fuzzer(seed=7)
    with a_limit():
        for kind, share in targets.SHARES.items():
            found.feed(kind, 10 * share, counted=True)
    return found


def test_only_documented_errors_come_out(fed):
    assert [(finding.kind, finding.given, finding.error) for finding in fed.findings.values()] == []


@pytest.mark.parametrize("kind", targets.TARGETS)
def test_inputs_are_both_right_and_wrong(fed, kind):
    """What is always refused looks at nothing, and what never is finds nothing."""
    assert 0 < fed.refused[kind] < fed.tried[kind]


@pytest.mark.parametrize("kind", targets.TARGETS)
def test_a_planted_defect_is_found(kind, monkeypatch):
    """Control: each target would notice."""

    def fails(_given):
        raise KeyError("a defect")

    monkeypatch.setitem(targets.TARGETS, kind, fails)
    found = Fuzzer(seed=1)
    found.feed(kind, 3)
    (finding,) = found.findings.values()
    assert isinstance(finding.error, KeyError)


def test_a_defect_in_the_package_is_found_and_reduced(monkeypatch):
    """Control: a delay of exactly 7 steps fails, somewhere inside of a text."""
    original = ts.Schedule.delay

    def delay(self, n):
        if n == 7:
            raise ZeroDivisionError
        return original(self, n)

    monkeypatch.setattr(parse, "METHODS", parse.METHODS | {"delay": delay})
    monkeypatch.setattr(ts.Schedule, "delay", delay)
    found = Fuzzer(seed=2)
    for _ in range(100):
        found.feed("reads", 100)
        if found.findings:
            break
    (finding,) = found.findings.values()
    assert isinstance(finding.error, ZeroDivisionError)
    text, (name, _, options) = reduced(finding)
    assert len(text) <= len(finding.given[0])
    assert (name, options) == ("delay", {"n": 7}) or "delay" in text


@pytest.mark.parametrize("message", ["x" * 10_000, "\x1b[31m"])
def test_a_long_or_harmful_message_is_found(monkeypatch, message):
    def refuses(_given):
        raise ts.ScheduleError(message)

    monkeypatch.setitem(targets.TARGETS, "json", refuses)
    found = Fuzzer(seed=1)
    found.feed("json", 3)
    assert found.findings


def test_too_much_work_is_found_by_its_calls(monkeypatch):
    def works(_given):
        for _ in range(10_000):
            len("")

    monkeypatch.setattr(fuzzer, "MOST_CALLS", 5_000)
    monkeypatch.setitem(targets.TARGETS, "json", works)
    found = Fuzzer(seed=1)
    found.feed("json", 1, counted=True)
    (finding,) = found.findings.values()
    assert isinstance(finding.error, fuzzer.TooMuchWork)


def test_a_change_after_an_error_is_found(monkeypatch):
    original = ts.Attachment.load_state_dict

    def load(self, state, **options):
        try:
            original(self, state, **options)
        except ts.ScheduleError:
            self.seek(5)
            raise

    monkeypatch.setattr(ts.Attachment, "load_state_dict", load)
    found = Fuzzer(seed=1)
    with a_limit():
        found.feed("states", 60)
    assert any("an error has changed something" in str(finding.error) for finding in found.findings.values())


def test_the_same_seed_makes_the_same_inputs():
    made = [[MAKERS["expressions"](found.corpus) for _ in range(50)] for found in map(Fuzzer, (3, 3, 4))]
    assert made[0] == made[1] != made[2]


# -- what was found ----------------------------------------------------------------------------------------------------

DEEP: list = []
for _ in range(400):
    DEEP = [DEEP]
COSINE = {"kind": "cosine", "start": 1.0, "end": 0.0, "steps": 9}
DOCUMENT = {"format": "tensorsched/schedule", "version": np.array([]), "schedule": {}}
PAIR = np.array([1.0, 2.0])
FOUND = {
    "a peak that is a word": (lambda: ts.check(ts.constant(1.0), peak="x"), "check: peak must be a finite number"),
    "lists in lists": (lambda: ts.from_dict({"kind": "chain", "parts": DEEP}), "nested more than"),
    "an argument named self": (lambda: ts.from_dict(COSINE | {"self": 1}), "cosine has no argument 'self'"),
    "an array where a ? may be": (lambda: ts.from_dict(COSINE | {"x": PAIR}), "no argument 'x'"),
    "a version that is an array": (lambda: ts.from_dict(DOCUMENT), "version: this tensorsched reads"),
    "a format that is an array": (lambda: ts.from_dict({"format": PAIR}), "format: must be"),
    "cycles beyond all steps": (lambda: ts.wave(1.0, total=9, warmup=1, cycles=1e308), "wave: cycles must be at most 2"),
    "parts that are a tensor": (lambda: ts.chain(torch.tensor(3.0)), "chain: parts must be a sequence"),
    "a mode that is an array": (lambda: ts.cyclic(1.0, 2.0, up=9, mode=np.array([])), "cyclic: mode must be one of"),
    "a factor that is an array": (lambda: ts.warm_restarts(1.0, period=2, peak_mult=PAIR), "peak_mult must be a finite number"),
    "a long word for a schedule": (lambda: ts.reference.value("x" * 10_000, 1), "needs a schedule, got 'xxx"),
    "a multiple beyond all floats": (lambda: ts.reference.value(ts.constant(1.0).round(to=5e-324), 1), "not a finite number"),
    "a batch that is no number": (
        lambda: ts.reference.value(
            ts.cosine(1.0, 6.0, steps=0).over(ts.linear(0.0, 1.0, steps=2) / ts.linear(0.0, 1.0, steps=4)), 1), "not a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_refused(name):
    call, says = FOUND[name]
    with pytest.raises(ts.ScheduleError, match=re.escape(says)) as caught:
        call()
    targets.harmless(str(caught.value))


@pytest.mark.parametrize(
    "schedule",
    [
        ts.linear(1.0, 0.0, steps=9).over(1e308),
        ts.power(15.0, warmup=6, scale=11.0, exponent=3.0, tokens=5e-324),
    ],
    ids=repr,
)
def test_the_reference_has_a_value_where_the_table_has(schedule):
    for step in (0, 1, 7, 1_000):
        assert ts.reference.value(schedule, step) == pytest.approx(schedule(step), rel=1e-12, abs=1e-300)


def test_a_base_that_no_float_holds_is_raised_in_the_reference():
    """1 + 7 / 5e-324; the table, which cannot divide so, has an error there."""
    assert ts.reference.value(ts.power_law(8.0, 1.0, timescale=5e-324), 7) == 0.0


def test_phases_that_are_over_at_the_offset_of_a_span_are_not_all_walked():
    """They were listed, 10**12 of them."""
    made = ts.linear(0.0, 1.0, steps=2).repeat(10**12).span(100.0, 99.5)
    assert fuzzer.calls_of(targets.phases, made) < 1_000_000


def attached():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    return optimizer, ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=9) * ts.plateau())


@pytest.mark.parametrize("name", [{}, [], PAIR, 3, "\x1b[31m", "9" * 5_000], ids=lambda name: repr(name)[:20])
@pytest.mark.parametrize("call", ["value", "schedule", "used", "hand_over"])
def test_what_is_no_name_is_refused_in_a_short_message(call, name):
    _, sched = attached()
    with pytest.raises(ts.BindingError) as caught:
        getattr(sched, call)(name)
    targets.harmless(str(caught.value))


@pytest.mark.parametrize(
    "options", [{"group": PAIR}, {"group": "9" * 5_000}, {"element": "\x1b[31m"}], ids=list
)
def test_what_is_no_group_or_element_is_refused_in_a_short_message(options):
    _, sched = attached()
    with pytest.raises(ts.BindingError) as caught:
        sched.value("lr", **options)
    targets.harmless(str(caught.value))


@pytest.mark.parametrize("key", ["schedule_fingerprint", "schedule_step"])
def test_a_number_that_is_no_count_in_an_optimizers_checkpoint_is_refused(key):
    optimizer, _ = attached()
    optimizer.step()
    saved = optimizer.state_dict()
    saved["param_groups"][0][key] = float("inf")
    with pytest.raises(ts.ScheduleError, match="in the optimizer's checkpoint"):
        optimizer.load_state_dict(saved)


def test_a_picture_of_no_number_of_steps_is_refused():
    _, sched = attached()
    with pytest.raises(ts.ScheduleError, match="plot: steps must be a whole number"):
        sched.plot(steps=object)


def test_a_free_value_that_is_a_long_word_is_refused_in_a_short_message():
    _, sched = attached()
    with pytest.raises(ts.BindingError) as caught:
        sched.rewrite(free={"kl": "9" * 5_000})
    targets.harmless(str(caught.value))


def test_a_metric_that_no_float_holds_is_refused():
    _, sched = attached()
    with pytest.raises(ts.BindingError, match="must be a number"):
        sched.observe(10**400)


DAMAGES = {
    "an entry that moves the cursor": (lambda s: s | {"\x1b[31m": 1}, r"'\x1b[31m': unknown entry"),
    "a format that is an array": (lambda s: s | {"format": PAIR}, "format must be"),
    "an input beyond all floats": (
        lambda s: s | {"inputs": {"plateau": s["inputs"]["plateau"] | {"value": 10**400}}}, "inputs['plateau'] must be"),
    "a clock without a name": (lambda s: s | {"clock": {"unit": "\0", "position": 0, "counted": 0}}, r"on a clock of '\x00'"),
    "a clock of an array": (lambda s: s | {"clock": {"unit": PAIR, "position": 0, "counted": 0}}, "clock: unit must be"),
    "a long name": (lambda s: s | {"schedules": [["\0" * 5_000, 0]]}, "saved under other schedules"),
    "many names": (lambda s: s | {"schedules": [[f"x{i}", 0] for i in range(2_000)]}, "... and 1991 more"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_refused_in_a_short_message(name):
    damage, says = DAMAGES[name]
    _, sched = attached()
    with pytest.raises((ts.ScheduleError, ts.BindingError), match=re.escape(says)) as caught:
        sched.load_state_dict(damage(sched.state_dict()))
    targets.harmless(str(caught.value))


def test_a_group_that_no_optimizer_has_does_not_fill_the_memory():
    _, sched = attached()
    state = sched.state_dict() | {"schedules": [["lr[group 99999999]", 0]]}
    with pytest.raises(ts.ScheduleError, match="a name is of group 99999999"):
        ts.schedules_of(state)
