"""What a text or a document may cost its reader is bounded before the work is done: work is counted, not timed."""

from __future__ import annotations

import functools
import json

import pytest

import tensorsched as ts
from tensorsched import ScheduleError
from tensorsched.schedules import work
from tensorsched.schedules.repeat import Repeat
from tensorsched.schedules.views.picture import picture
from tensorsched.schedules.work import bounded_work, spend

SLOW = "constant(1, steps=100_000).repeat(60_000, length_mult=1.00001)"  # 60,000 cycles, nearly all of other lengths


def document(*parts: object) -> dict[str, object]:
    chain = {"kind": "sequence", "parts": list(parts)}
    return {"format": "tensorsched/schedule", "version": 1, "schedule": chain}


@pytest.fixture
def walked(monkeypatch):
    """How many cycles were walked, in a list of one."""
    count = [0]
    after = Repeat._after

    def counted(self, length):
        count[0] += 1
        return after(self, length)

    monkeypatch.setattr(Repeat, "_after", counted)
    return count


def test_a_few_slow_parts_are_read(walked):
    slow = ts.parse(SLOW)
    assert walked[0] > 60_000  # control: this is what one of them costs
    chained = ts.from_dict(document(*[slow.to_dict()["schedule"]] * 3))
    assert chained.steps == 3 * slow.steps


@pytest.mark.parametrize("count", [5, 2_000])
def test_many_slow_parts_are_refused_before_they_are_walked(walked, count):
    part = ts.parse(SLOW).to_dict()["schedule"]
    for read in (
        lambda: ts.from_dict(document(*[part] * count)),
        lambda: ts.from_json(json.dumps(document(*[part] * count))),
        lambda: ts.parse(f"chain([{', '.join([SLOW] * count)}])"),
    ):
        walked[0] = 0
        with pytest.raises(ScheduleError, match="takes too much work"):
            read()
        assert walked[0] <= work.MOST + 1_000


def test_what_is_written_in_python_is_the_writers_own_business(walked):
    slow = ts.constant(1, steps=100_000)
    made = ts.chain(slow.repeat(60_000, length_mult=1.00001) for _ in range(5))
    assert len(made.parts) == 5
    assert walked[0] > work.MOST


def test_peaks_that_are_looked_for_are_counted(monkeypatch):
    looked = []
    monkeypatch.setattr(
        "tensorsched.schedules.recipes.coupled.sample",
        lambda _, steps: (looked.append(len(steps)), steps[-1:] + 1)[1],
    )
    text = "adamc(cosine(1, 0, steps=10**7), 0.1)"
    assert ts.parse(text).steps == 10**7
    once = sum(looked)
    assert max(looked) <= 1 << 16  # piece by piece: what it holds in memory does not grow with the length
    with pytest.raises(ScheduleError, match="takes too much work"):
        ts.parse(f"chain([{', '.join([text] * 100)}])")
    assert once < sum(looked) < 10 * once


def test_a_document_of_too_many_parts_is_refused_while_it_is_read():
    part = {"kind": "constant", "value": 1.0, "steps": 1}
    assert len(ts.from_dict(document(*[part] * 1_000)).parts) == 1_000
    with pytest.raises(ScheduleError, match=r"takes too much work|over 50000 parts"):
        ts.from_dict(document(*[part] * (work.MOST + 10)))


def test_a_doubled_key_is_found_in_one_walk():
    """Two hundred thousand keys; looked for pair by pair, this would not end."""
    keys = ", ".join(f'"k{i}": 1' for i in range(200_000))
    with pytest.raises(ScheduleError, match="the key 'k7' occurs twice"):
        ts.from_json(f'{{{keys}, "k7": 2}}')


def test_a_bound_within_a_bound_counts_for_both():
    with bounded_work(10):
        for _ in range(2):
            with bounded_work(6):
                spend(5)
        with bounded_work(6), pytest.raises(ScheduleError):
            spend(1)
    spend(10**9)  # nothing is read


# -- long messages, and what a terminal would obey --------------------------------------------------------------------

LONG = "x" * 100_000
ESCAPES = "\x1b]0;owned\x07\x1b[31m" * 5_000
BAD = [
    {LONG: 1}, {ESCAPES: 1}, {"format": LONG}, {"kind": ESCAPES}, {"kind": 10**5000}, {"kind": "cosine", 10**5000: 1},
    {"kind": "cosine", LONG: 1}, {"kind": "cosine", ESCAPES: 1}, {"kind": "cosine", "start": ESCAPES}, {"kind": "cosine", 3: 1},
    {"kind": "cosine", "start": "?", ESCAPES: 1}, {"kind": "cosine", "a=?": "?"}, {"kind": "wsd", "peak": 1, "shape": LONG, "total": "?"},
    document({"kind": "constant", "value": 1, "steps": 1, ESCAPES: 1}), document({"kind": ESCAPES}), document({LONG: 1}),
    document({"kind": "constant", "value": 1, 10**5000: 1}), {**document(), ESCAPES: 1}, {**document(), 10**5000: 1},
    {**document(), "version": 10**5000}, functools.reduce(lambda inner, _: {"kind": "chain", LONG: inner}, range(90), {"kind": "x"}),
    {"kind": "batch_steps", "text": "0:1 " + "1" * 5000 + ":2"},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[str(i) for i in range(len(BAD))])
def test_messages_are_short_and_harmless(bad):
    with pytest.raises(ScheduleError) as caught:
        ts.from_dict(bad)
    said = str(caught.value)
    assert len(said) < 1_000
    assert all(c.isprintable() or c == "\n" for c in said)


@pytest.mark.parametrize("text", [f'{{"{LONG}": 1, "{LONG}": 2}}', '{"\\u001b[31m": 1, "\\u001b[31m": 2}'], ids=["long", "escape"])  # fmt: skip
def test_a_doubled_key_is_shown_harmlessly(text):
    with pytest.raises(ScheduleError) as caught:
        ts.from_json(text)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_a_template_is_shown_harmlessly():
    plan = ts.parse(f"cosine(1, 0, steps=?)  # {ESCAPES.replace('[', 'c').replace(']', 'c')}")
    for use in (lambda: plan(0), lambda: plan.bind(total=3)):
        with pytest.raises(ScheduleError) as caught:
            use()
        assert len(str(caught.value)) < 800
        assert str(caught.value).isprintable()


# -- positions that no float64 holds ----------------------------------------------------------------------------------


def test_a_chain_of_hold_each_settles_at_the_last_step_there_is():
    held = ts.piecewise_constant([1.0, 2.0], [3])
    assert held.hold_each(7).constant_from == 21
    for _ in range(40):
        held = held.hold_each(2**53)
    assert held.constant_from == 2**53
    moved = held.stretch(2.0).delay(5).stretch(1e300).skip(3).hold_each(2**53).stretch(3.0)
    assert moved.constant_from >= 2**53
    assert moved(2**53) == ts.reference.value(moved, 2**53) == 1.0
    assert picture([moved]).lines[0].values[0] == 1.0


def test_cycles_that_grow_beyond_every_number_have_a_picture():
    phases = ts.linear(0, 1, steps=3) >> ts.linear(1, 0, steps=3)
    for mult in (1e308, 1e17):
        for whole in (True, False):
            endless = phases.repeat(length_mult=mult, round_lengths=whole)
            assert endless.values(7).tolist() == [*phases.values().tolist(), 0.0]
            assert picture([endless], last=7).lines[0].phases[1].start == 3


def test_a_number_in_front_of_a_schedule_never_ends():
    with pytest.raises(
        ScheduleError, match=r"nothing can follow an unbounded schedule with >>: constant\(1.0\)"
    ):
        1.0 >> ts.linear(0, 1, steps=3)
    with pytest.raises(ScheduleError, match="column 6: nothing can follow an unbounded schedule"):
        ts.parse("1 >> linear(0, 1, steps=3)")
    with pytest.raises(TypeError):
        "1" >> ts.linear(0, 1, steps=3)
