"""Checkpoints, copies and late groups: slots stay bound, the clock decides, what is malformed changes nothing."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding.checkpoint import read_state
from tensorsched.binding.history import History
from tensorsched.binding.state_format import write_state
from tests.binding.test_attach import (
    LR,
    STEPS,
    WD,
    M,
    equal,
    floats_by_hand,
    hooks_of,
    parameters,
    set_gradients,
    train,
    two_groups,
)

RESIDENT = pytest.mark.parametrize("resident", [True, False])


def attached(resident: bool = False, **schedules: Any) -> tuple[Any, ts.Attachment]:
    """A fresh optimizer under schedules (lr, weight_decay and momentum unless given)."""
    optimizer = two_groups(optim.SGD, momentum=0.9)
    wanted = schedules or {"lr": LR, "weight_decay": WD, "momentum": M}
    return optimizer, ts.attach(optimizer, resident=resident, **wanted)


def saved_and_loaded(obj: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def values(optimizer: Any, key: str = "lr") -> list[float]:
    return [float(group[key]) for group in optimizer.param_groups]


# -- state_dict ---------------------------------------------------------------------------------------------------


@RESIDENT
@pytest.mark.parametrize("sched_first", [True, False])
@pytest.mark.parametrize("cut", [0, 1, 5, STEPS])
def test_resumed_training_equals_uninterrupted(resident, sched_first, cut):
    whole, _ = attached(resident)
    expected = train(whole)

    optimizer, sched = attached(resident)
    train(optimizer, steps=cut)
    weights = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    state = saved_and_loaded({"optimizer": optimizer.state_dict(), "schedule": sched.state_dict()})

    resumed, again = attached(resident)
    for p, saved in zip((p for group in resumed.param_groups for p in group["params"]), weights, strict=True):
        p.data.copy_(saved)
    load = [
        lambda: resumed.load_state_dict(state["optimizer"]),
        lambda: again.load_state_dict(state["schedule"]),
    ]
    for restore in reversed(load) if sched_first else load:
        restore()
    assert again.step_count == cut
    for step in range(cut, STEPS):
        set_gradients(resumed, step)
        resumed.step()
    assert equal(expected, [p.detach() for group in resumed.param_groups for p in group["params"]])


def test_the_optimizer_s_checkpoint_alone_goes_on_where_it_was():
    optimizer, sched = attached()
    train(optimizer, steps=5)
    fresh, again = attached()
    fresh.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    assert again.step_count == 5 == sched.step_count
    assert values(fresh) == values(optimizer)


def test_forgetting_both_is_said_before_the_next_step():
    """Control of the one above: a checkpoint without the step leaves the counter alone."""
    optimizer, _ = attached()
    train(optimizer, steps=5)
    fresh, again = attached()
    fresh.load_state_dict(without_step(optimizer.state_dict()))
    assert again.step_count == 0
    with pytest.warns(UserWarning, match=r"carries no step .* lr\[group 0\] is .* at step 0, which goes on"):
        train(fresh, steps=1)
    train(fresh, steps=1)  # said once
    assert again.step_count == 2


def test_nothing_is_said_where_the_schedule_s_state_follows():
    optimizer, sched = attached()
    train(optimizer, steps=5)
    fresh, again = attached()
    fresh.load_state_dict(without_step(optimizer.state_dict()))
    again.load_state_dict(sched.state_dict())
    train(fresh, steps=1)
    assert again.step_count == 6


@pytest.mark.parametrize("initial", [False, True])
def test_a_checkpoint_that_was_loaded_before_attach_is_gone_on_from(initial):
    lr = ts.initial * LR if initial else LR
    optimizer = two_groups(optim.SGD, lr=0.5)
    ts.attach(optimizer, lr=lr)
    train(optimizer, steps=5)
    fresh = two_groups(optim.SGD, lr=0.25)
    fresh.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    again = ts.attach(fresh, lr=lr)
    assert again.step_count == 5
    assert values(fresh) == values(optimizer)


def test_initial_of_what_no_checkpoint_keeps_is_refused():
    optimizer = two_groups(optim.AdamW)
    ts.attach(optimizer, lr=LR)
    train(optimizer, steps=2)
    fresh = two_groups(optim.AdamW)
    fresh.load_state_dict(optimizer.state_dict())
    with pytest.raises(
        ts.BindingError, match="weight_decay of group 0 holds what a checkpoint saved in the middle"
    ):
        ts.attach(fresh, weight_decay=ts.initial * LR)


def test_a_checkpoint_under_other_schedules_goes_on_and_says_so():
    optimizer, _ = attached(lr=LR)
    train(optimizer, steps=5)
    fresh, again = attached(lr=0.5 * LR)
    fresh.load_state_dict(optimizer.state_dict())
    assert (again.step_count, values(fresh)[0]) == (5, 0.5 * LR(5))
    with pytest.warns(UserWarning, match="saved under other schedules, at step 5: these go on from there"):
        train(fresh, steps=1)


def test_who_was_told_where_to_go_on_stays_there():
    """load_state_dict(on_mismatch=...) in either order with the optimizer's own."""
    optimizer, sched = attached(lr=LR)
    train(optimizer, steps=5)
    for order in (0, 1):
        fresh, again = attached(lr=0.5 * LR)
        loads = [
            lambda f=fresh: f.load_state_dict(optimizer.state_dict()),
            lambda a=again: a.load_state_dict(sched.state_dict(), on_mismatch="restart"),
        ]
        for load in loads[::-1] if order else loads:
            load()
        assert (again.step_count, values(fresh)[0]) == (0, 0.5 * LR(0))
        train(fresh, steps=1)


def test_two_attachments_have_their_own_steps_in_one_checkpoint():
    def both() -> tuple[Any, Any, Any]:
        optimizer = two_groups(optim.SGD, momentum=0.9)
        return optimizer, ts.attach(optimizer, lr=LR), ts.attach(optimizer, momentum=M, advance="manual")

    optimizer, a, b = both()
    train(optimizer, steps=4)
    b.step()
    fresh, c, d = both()
    fresh.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    assert (c.step_count, d.step_count) == (a.step_count, b.step_count) == (4, 1)


def test_a_plain_optimizer_takes_the_checkpoint_and_detach_leaves_nothing_in_the_groups():
    optimizer, sched = attached()
    before = set(two_groups(optim.SGD, momentum=0.9).param_groups[0])
    train(optimizer, steps=3)
    plain = two_groups(optim.SGD, momentum=0.9)
    plain.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    train(plain, steps=1)
    sched.detach()
    assert set(optimizer.param_groups[0]) == before


def without_step(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of an optimizer as torch's own schedulers leave it."""
    for group in state["param_groups"]:
        for name in ("schedule_step", "schedule_fingerprint"):
            del group[name]
    return state


def test_the_state_is_plain_and_its_json_is_too():
    _, sched = attached()
    sched.seek(7)
    state = sched.state_dict()
    assert state["step"] == 7
    assert {name for name, _ in state["schedules"]} == {
        f"{key}[group {g}]" for key in ("lr", "weight_decay", "momentum") for g in (0, 1)
    }
    assert json.loads(json.dumps(state)) == state == saved_and_loaded(state)


@RESIDENT
def test_an_optimizer_checkpoint_is_floats_and_fits_a_plain_optimizer(resident):
    optimizer, _ = attached(resident)
    train(optimizer, steps=3)
    state = optimizer.state_dict()
    plain = two_groups(optim.SGD, momentum=0.9)
    plain.load_state_dict(saved_and_loaded(state))
    assert values(plain) == [LR(3), LR(3)]
    assert all(
        type(group[key]) is float
        for group in state["param_groups"]
        for key in ("lr", "weight_decay", "momentum")
    )
    train(optimizer, steps=2)
    assert state["param_groups"][0]["lr"] == LR(3), "the snapshot does not move"


FOREIGN = {
    "floats of a plain run": lambda: two_groups(optim.SGD, momentum=0.9, lr=0.7).state_dict(),
    "a tensor lr": lambda: two_groups(optim.SGD, momentum=0.9, lr=torch.tensor(0.7)).state_dict(),
    "another schedule": attached(lr=ts.constant(0.7))[0].state_dict,
    "without the key": lambda: _without(two_groups(optim.SGD, momentum=0.9).state_dict(), "weight_decay"),
}


def _without(state: dict[str, Any], key: str) -> dict[str, Any]:
    for group in state["param_groups"]:
        del group[key]
    return state


@RESIDENT
@pytest.mark.parametrize("foreign", FOREIGN)
def test_after_a_foreign_checkpoint_the_clock_decides(resident, foreign):
    optimizer, sched = attached(resident)
    train(optimizer, steps=4)
    optimizer.load_state_dict(FOREIGN[foreign]())
    if foreign == "another schedule":  # it was saved at step 0
        sched.seek(4)
    for step in (4, 5, 6):
        for group in (0, 1):
            assert optimizer.param_groups[group]["lr"] is sched.value("lr", group) or not resident
            assert (
                float(sched.value("lr", group))
                == values(optimizer)[group]
                == pytest.approx(LR(step), rel=2**-23)
            )
        doubtful = step == 4 and foreign != "another schedule"
        with pytest.warns(UserWarning, match="carries no step") if doubtful else contextlib.nullcontext():
            train(optimizer, steps=1)


def test_a_checkpoint_without_betas_gets_them_back():
    optimizer = two_groups(optim.AdamW)
    ts.attach(optimizer, betas=(M, None))
    optimizer.load_state_dict(_without(two_groups(optim.AdamW).state_dict(), "betas"))
    assert optimizer.param_groups[1]["betas"] == (M(0), 0.999)


# -- under other schedules ----------------------------------------------------------------------------------------


def test_another_schedule_is_an_error_that_shows_both_and_where():
    _, before = attached(lr=LR, weight_decay=WD)
    before.seek(6)
    optimizer, sched = attached(lr=ts.linear(0.0, 0.1, steps=4) >> ts.cosine(0.1, 0.02, steps=6), momentum=M)
    sched.seek(2)
    with pytest.raises(ts.BindingError) as caught:
        sched.load_state_dict(before.state_dict())
    text = str(caught.value)
    assert "this state (step 6) was saved under other schedules" in text
    assert f"lr[group 0]: saved {LR!r}, now linear(0.0, 0.1, steps=4) >> cosine(0.1, 0.02, steps=6); " in text
    assert f"they first differ at step 5: {LR(5)!r} and " in text
    assert f"weight_decay[group 1]: saved {WD!r}, not scheduled now" in text
    assert f"momentum[group 0]: not in the state, now {M!r}" in text
    assert "on_mismatch='saved'" in text
    assert (sched.step_count, values(optimizer)) == (2, [0.05, 0.05])


@pytest.mark.parametrize(("on_mismatch", "step"), [("keep_step", 6), ("restart", 0)])
def test_another_schedule_on_purpose(on_mismatch, step):
    _, before = attached(lr=LR)
    before.seek(6)
    optimizer, sched = attached(lr=WD)
    sched.load_state_dict(before.state_dict(), on_mismatch=on_mismatch)
    assert (sched.step_count, values(optimizer)[0]) == (step, WD(step))


def test_the_same_values_written_differently_are_the_same_schedule():
    a, before = attached(lr=ts.linear(0.0, 1.0, steps=4))
    before.seek(3)
    b, sched = attached(lr=ts.piecewise_linear([(0, 0.0), (4, 1.0)]))
    sched.load_state_dict(before.state_dict())
    assert sched.step_count == 3
    del a, b  # held until here


def test_a_longer_run_of_what_never_settles_differs_where_the_shorter_one_held():
    noam = ts.inverse_sqrt(1.0, timescale=10)
    optimizers = [two_groups(optim.SGD) for _ in range(3)]
    before = ts.attach(optimizers[0], lr=noam, steps=100)
    sched = ts.attach(optimizers[1], lr=noam, steps=200)
    with pytest.raises(
        ts.BindingError, match=r"take\(100\), now .*take\(200\); they first differ at step 101"
    ):
        sched.load_state_dict(before.state_dict())
    again = ts.attach(optimizers[2], lr=0.0 + noam, steps=100)
    again.load_state_dict(before.state_dict())


def test_schedules_too_long_to_compare_must_be_the_same_expression():
    far = ts.linear(1.0, 1.0, steps=2**40)
    with pytest.raises(ts.BindingError, match="they are equal for 1048576 steps, but need not stay so"):
        read_state(write_state(0, {"x": far}, History({"x": far})), {"x": far + 0.0}, "error")


# -- malformed ----------------------------------------------------------------------------------------------------


def _changed(**changes: Any) -> Any:
    return lambda state: {**state, **changes}


def _first_version(state: dict[str, Any]) -> dict[str, Any]:
    """The state as version 1 of the format had it."""
    documents = [json.loads(text) for text in state["documents"]]
    prints = [ts.from_dict(document).fingerprint for document in documents]
    return {
        "format": state["format"],
        "version": 1,
        "step": state["step"],
        "schedules": {name: prints[at] for name, at in state["schedules"]},
        "documents": dict(zip(prints, documents, strict=True)),
    }


def _first(**changes: Any) -> Any:
    return lambda state: {**_first_version(state), **changes}


def _documents(change: Any) -> Any:
    def changed(state: dict[str, Any]) -> dict[str, Any]:
        first = _first_version(state)
        return {**first, "documents": {k: change(v) for k, v in first["documents"].items()}}

    return changed


MALFORMED = [
    (lambda _: None, "state must be the dict that state_dict\\(\\) returned, got None"),
    (lambda _: {}, "format must be 'tensorsched/attachment', got None"),
    (_changed(format="torch"), "format must be 'tensorsched/attachment', got 'torch'"),
    (_changed(version=3), "version must be 1 or 2 \\(update tensorsched to read a newer one\\), got 3"),
    (_changed(version=True), "version must be 1 or 2, got True"),
    (_changed(version=1), "history: unknown entry of the state"),
    (_changed(extra=1), "extra: unknown entry of the state"),
    (lambda state: {k: v for k, v in state.items() if k != "step"}, "step: missing from the state"),
    (lambda state: {k: v for k, v in state.items() if k != "history"}, "history: missing from the state"),
    (_changed(step=-1), "step must be a whole number of steps of at least 0, got -1"),
    (_changed(step=1.0), "step must be a whole number of steps"),
    (_changed(step=float("nan")), "step must be a whole number of steps"),
    (_changed(step="7"), "step must be a whole number of steps"),
    (_changed(step=2**60), "step must be at most 2\\*\\*53"),
    (_changed(schedules={}), "schedules must be a list, got {}"),
    (_changed(schedules=[3]), "schedules must be a list of \\[name, index\\], got 3"),
    (_changed(schedules=[[3, 0]]), "schedules must be a list of \\[name, index\\], got \\[3, 0\\]"),
    (_changed(schedules=[["x", 1]]), "schedules\\['x'\\] must be the index of one of the documents, got 1"),
    (_changed(schedules=[["x", True]]), "schedules\\['x'\\] must be the index of one of the documents, got True"),
    (_changed(schedules=[["x", -1]]), "schedules\\['x'\\] must be the index of one of the documents, got -1"),
    (_changed(schedules=[["x", None]]), "schedules\\['x'\\] must be the index of one of the documents, got None"),
    (_changed(schedules=[["x", 0], ["x", 0]]), "schedules: 'x' is there twice"),
    (_changed(documents=3), "documents must be a list, got 3"),
    (_changed(documents=[3]), "documents\\[0\\] must be the JSON of a schedule, got 3"),
    (_changed(documents=["{"]), "documents\\[0\\]\\.not a JSON document"),
    (_changed(documents=['{"format": "x"}']), "documents\\[0\\]\\.format: must be 'tensorsched/schedule'"),
    (_changed(history=3), "history must be a list, got 3"),
    (_changed(history=[]), "history must be a list of at least one change, got \\[\\]"),
    (_changed(history=[[0, "attach", 0]]), "history\\[0\\] must be \\[step, what, where it went on, names\\]"),
    (_changed(history=[[-1, "attach", 0, []]]), "history\\[0\\]: step must be a whole number"),
    (_changed(history=[[0, "attach", "0", []]]), "history\\[0\\]: where it went on must be a whole number"),
    (_changed(history=[[0, 7, 0, []]]), "history\\[0\\] must be \\[step, what"),
    (_changed(history=[[0, "attach", 0, [["x", 9]]]]), "history\\[0\\]\\['x'\\] must be the index of one of the doc"),
    (_first(schedules=[]), "schedules must be a dict, got \\[\\]"),
    (_first(schedules={3: {}}), "schedules: a name must be a string, got 3"),
    (_first(schedules={"x": {}}), "schedules\\['x'\\] must be the fingerprint of one of the documents, got {}"),
    (_first(schedules={"x": "0"}), "schedules\\['x'\\] must be the fingerprint of one of the documents, got '0'"),
    (_first(documents=3), "documents must be a dict, got 3"),
    (_documents(lambda _: {"format": "x"}), "documents\\['[0-9a-f]{32}'\\]\\.format: must be 'tensorsched/schedule'"),
    (_documents(lambda _: ts.constant(9.0).to_dict()), "must be under the fingerprint of its schedule"),
]  # fmt: skip


@RESIDENT
def test_the_first_version_is_read(resident):
    optimizer, sched = attached(resident)
    train(optimizer, steps=5)
    first = _first_version(sched.state_dict())
    assert ts.schedules_of(first) == ts.schedules_of(sched.state_dict())
    fresh, again = attached(resident)
    again.load_state_dict(first)
    assert (again.step_count, values(fresh)) == (5, values(optimizer))
    train(fresh, steps=2)
    assert again.used("lr").steps.tolist() == [5, 6], "nothing is known of what was before"
    fresh, other = attached(resident, lr=0.5 * LR)
    with pytest.raises(ts.BindingError, match="saved under other schedules"):
        other.load_state_dict(first)


@pytest.mark.parametrize(("change", "text"), MALFORMED)
@RESIDENT
def test_a_malformed_state_names_the_field_and_changes_nothing(change, text, resident):
    optimizer, sched = attached(resident, lr=LR)
    train(optimizer, steps=3)
    good, before = sched.state_dict(), values(optimizer)
    with pytest.raises(ts.ScheduleError, match=text):
        sched.load_state_dict(change(good))
    assert (sched.step_count, values(optimizer)) == (3, before)
    with pytest.raises(
        ts.ScheduleError,
        match="on_mismatch must be one of 'error', 'saved', 'keep_step', 'restart', got 'maybe'",
    ):
        sched.load_state_dict(good, on_mismatch="maybe")


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
junk = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def mutated(document: Any, draw: Any) -> Any:
    """The document with one part, at any depth, replaced, removed or added."""
    if isinstance(document, dict) and document and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(document, key=str)))
        action = draw(st.integers(0, 5))
        rest = {k: v for k, v in document.items() if k != key}
        if action == 0:
            return rest
        if action == 1:
            return {**document, draw(st.text(max_size=5)): draw(junk)}
        return {**rest, key: mutated(document[key], draw)}
    if isinstance(document, list) and document and draw(st.booleans()):
        at = draw(st.integers(0, len(document) - 1))
        return [*document[:at], mutated(document[at], draw), *document[at + 1 :]]
    return draw(junk)


@settings(max_examples=max(500, settings().max_examples))
@given(data=st.data())
def test_fuzzed_states_raise_what_is_documented_and_load_nothing_by_half(data):
    thing = type("Thing", (), {})()
    thing.param_groups = [{"lr": 1.0}]
    sched = ts.attach(thing, lr=0.5 * LR.repeat(3) + ts.from_values([1.0, 2.0]), advance="manual")
    sched.seek(3)
    before = dict(thing.param_groups[0])
    try:
        sched.load_state_dict(mutated(sched.state_dict(), data.draw))
    except (ts.ScheduleError, ts.BindingError):
        assert sched.step_count == 3
        assert thing.param_groups[0] == before
    assert thing.param_groups[0]["lr"] == (0.5 * LR.repeat(3) + ts.from_values([1.0, 2.0]))(sched.step_count)


# -- groups that come later ---------------------------------------------------------------------------------------


@RESIDENT
@pytest.mark.parametrize(
    "rule", [{"lr": ts.initial * LR}, lambda group: {"lr": ts.initial * LR} if group["tag"] == "new" else {}]
)
def test_a_late_group_follows_what_new_groups_says(resident, rule):
    optimizer = two_groups(optim.SGD, momentum=0.9)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, new_groups=rule, resident=resident)
    train(optimizer, steps=3)
    optimizer.add_param_group({"params": parameters(1), "lr": 10.0, "tag": "new"})
    train(optimizer, steps=2)
    assert sched.step_count == 5
    assert values(optimizer) == pytest.approx([LR(5), LR(5), 10.0 * LR(5)], rel=2**-23)
    assert values(optimizer, "weight_decay") == pytest.approx([WD(5), WD(5), 0.0], rel=2**-23)
    assert "lr[group 2]" in dict(sched.state_dict()["schedules"])
    if resident:
        assert all(isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups)
    sched.detach()
    assert all(type(group["lr"]) is float for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("rule", "text"),
    [({"lrr": LR}, "group 2 has no hyperparameter 'lrr'"), (None, "pass new_groups=\\{'lr': schedule")],
)
def test_a_late_group_that_cannot_follow_is_an_error_before_the_step(rule, text):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, new_groups=rule)
    train(optimizer, steps=2)
    optimizer.add_param_group({"params": parameters(1)})
    before = [p.clone() for p in optimizer.param_groups[0]["params"]]
    for _ in range(2):
        with pytest.raises(ts.BindingError, match=text):
            optimizer.step()
    assert equal(before, optimizer.param_groups[0]["params"])
    assert sched.step_count == 2
    sched.detach()
    optimizer.step()


@RESIDENT
@pytest.mark.parametrize("event", ["seek", "load the optimizer", "load the schedule", "save"])
def test_a_late_group_is_taken_in_whatever_comes_first(resident, event):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, new_groups={"lr": LR}, resident=resident)
    optimizer.add_param_group({"params": parameters(1), "lr": 7.0})
    {
        "seek": lambda: sched.seek(0),
        "load the optimizer": lambda: optimizer.load_state_dict(optimizer.state_dict()),
        "load the schedule": lambda: sched.load_state_dict(sched.state_dict()),
        "save": sched.state_dict,
    }[event]()
    train(optimizer, steps=3)
    assert values(optimizer) == pytest.approx([LR(3)] * 3, rel=2**-23)


def test_late_groups_without_a_rule_are_an_error_even_after_seek():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR)
    optimizer.add_param_group({"params": parameters(1)})
    sched.seek(2)
    with pytest.raises(ts.BindingError, match="has 3 param_groups and had 2"):
        optimizer.step()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (lambda _: None, "must give a dict for group 2, got None"),
        ({"lr": LR, "momentum": M}, "momentum.group 2. already follows"),
    ],
)
def test_a_rule_that_does_not_fit_is_an_error(rule, text):
    optimizer = two_groups(optim.SGD, momentum=0.5)
    ts.attach(optimizer, momentum=M, new_groups={"momentum": M})
    ts.attach(optimizer, lr=LR, new_groups=rule)
    optimizer.add_param_group({"params": parameters(1)})
    with pytest.raises(ts.BindingError, match=text):
        optimizer.step()


@RESIDENT
def test_removed_groups_are_an_error_and_detach_still_works(resident):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    optimizer.param_groups.pop()
    for call in (optimizer.step, lambda: sched.seek(1)):
        with pytest.raises(ts.BindingError, match=r"has 1 param_groups and had 2 .*; call detach"):
            call()
    optimizer.state_dict()
    sched.detach()
    assert values(optimizer) == [LR(0)]
    ts.attach(optimizer, lr=LR)


@RESIDENT
def test_replaced_group_dicts_are_bound_again(resident):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    optimizer.param_groups[0] = dict(optimizer.param_groups[0])
    train(optimizer, steps=4)
    assert values(optimizer) == pytest.approx([LR(4), LR(4)], rel=2**-23)
    assert optimizer.param_groups[0]["lr"] is sched.value("lr") or not resident


def test_new_groups_is_checked_at_attach():
    with pytest.raises(
        ts.BindingError, match="attach: new_groups must be a dict like the hyperparameters, or a function"
    ):
        ts.attach(two_groups(optim.SGD), lr=LR, new_groups=[LR])


# -- copies -------------------------------------------------------------------------------------------------------


@RESIDENT
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"]
)
def test_a_copy_with_its_optimizer_goes_on_by_itself(resident, duplicate):
    optimizer, sched = attached(resident)
    train(optimizer, steps=3)
    twin, again = duplicate((optimizer, sched))
    assert again.optimizer is twin is not optimizer
    assert equal(train(twin, steps=4), train(optimizer, steps=4))
    assert again.step_count == sched.step_count == 7
    train(twin, steps=1)
    assert (again.step_count, sched.step_count) == (8, 7), "they do not share a clock"
    again.detach()
    assert all(type(group["lr"]) is float for group in twin.param_groups)


@RESIDENT
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["deepcopy", "pickle"]
)
def test_a_copied_optimizer_alone_is_a_snapshot_that_can_be_attached(resident, duplicate):
    optimizer, _ = attached(resident)
    train(optimizer, steps=3)
    twin = duplicate(optimizer)
    assert hooks_of(twin) == 0
    train(optimizer, steps=2)
    assert values(twin) == pytest.approx([LR(3), LR(3)], rel=2**-23), "it does not follow the original"
    sched = ts.attach(twin, lr=LR, resident=resident)
    sched.seek(3)
    train(twin, steps=1)
    assert values(twin) == pytest.approx([LR(4), LR(4)], rel=2**-23)


def test_saving_the_whole_optimizer_saves_no_table():
    optimizer, _ = attached(True, lr=ts.cosine(1.0, 0.0, steps=1_000_000))
    buffer = io.BytesIO()
    torch.save(optimizer, buffer)
    assert buffer.tell() < 50_000, "the table alone is 4 MB"


def test_a_shared_schedule_is_saved_once():
    thing = type("Thing", (), {"param_groups": [{"lr": 1.0} for _ in range(16)]})()
    sched = ts.attach(thing, lr=ts.from_values([float(i) for i in range(20_000)]), advance="manual")
    assert len(json.dumps(sched.state_dict())) < 250_000
    assert len(str(sched)) < 1_000
    sched.load_state_dict(sched.state_dict())
    with pytest.raises(ts.BindingError) as caught:
        sched.load_state_dict(
            ts.attach(
                type("Thing", (), {"param_groups": [{"lr": 1.0}]})(), lr=LR, advance="manual"
            ).state_dict()
        )
    assert len(str(caught.value)) < 10_000


def test_attach_detach_attach_continues_by_hand():
    optimizer, sched = attached(lr=LR)
    train(optimizer, steps=4)
    step = sched.step_count
    sched.detach()
    again = ts.attach(optimizer, lr=LR)
    again.seek(step)
    assert values(optimizer) == [LR(4), LR(4)]


# -- values that are no optimizer's -------------------------------------------------------------------------------


# Dynamo looks at .grad of the graph's inputs, and torch warns where such an input is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_free_values_in_real_training():
    """A scheduled loss weight and EMA decay, in a compiled loss: as the same loop with Python floats."""
    kl, decay = ts.linear(0.0, 1.0, steps=6), 1.0 - ts.exponential(0.5, 0.05, steps=8)

    def run(
        weight: Any, ema_decay: Any, optimizer: Any, model: nn.Linear, by_hand: Any = None
    ) -> list[torch.Tensor]:
        ema = [torch.zeros_like(p) for p in model.parameters()]
        loss_fn = torch.compile(
            lambda out, w: out.square().mean() + w * out.abs().mean(), backend="aot_eager", fullgraph=True
        )
        for step in range(STEPS):
            if by_hand is not None:
                by_hand(step)
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            loss_fn(model(x), weight(step)).backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for average, p in zip(ema, model.parameters(), strict=True):
                    average.mul_(ema_decay(step)).add_(p * (1.0 - ema_decay(step)))
        return [*ema, *(p.detach() for p in model.parameters())]

    def fresh() -> tuple[nn.Linear, Any]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        return model, optim.SGD(model.parameters(), lr=0.1)

    model, optimizer = fresh()
    sched = ts.attach(optimizer, lr=LR, free={"kl": kl, "ema": decay})
    weight, ema_decay = sched.value("kl"), sched.value("ema")
    scheduled = run(lambda _: weight, lambda _: ema_decay, optimizer, model)

    results = {}
    for name, frozen in {"by hand": False, "frozen": True}.items():
        model, optimizer = fresh()
        # The loss of step t reads the value of step t; the EMA is updated after optimizer.step(), so at t + 1.
        results[name] = run(
            lambda t, frozen=frozen: torch.tensor(kl(3 if frozen else t)),
            lambda t: torch.tensor(decay(t + 1)),
            optimizer,
            model,
            floats_by_hand(optimizer, {"lr": LR}),
        )
    assert equal(scheduled, results["by hand"])
    assert not equal(scheduled, results["frozen"])


@pytest.mark.parametrize(
    ("free", "text"),
    [
        ({"kl": "x"}, "free: expected a schedule for each name, got 'kl': 'x'"),
        ({3: LR}, "free: expected a schedule for each name, got 3: "),
        ({"lr": LR}, "free: 'lr' is a hyperparameter of the optimizer; pass it as lr="),
    ],
)
def test_what_is_no_free_value(free, text):
    with pytest.raises(ts.BindingError, match=text):
        ts.attach(two_groups(optim.SGD), lr=LR, free=free)


# -- work -------------------------------------------------------------------------------------------------------------


def test_reading_a_state_is_bounded_work():
    """Each document of it is short and slow to read; together they are refused before they are read."""
    slow = [ts.constant(1.0, steps=100_000 + i).repeat(60_000, length_mult=1.00001) for i in range(40)]
    few, many = (
        write_state(3, named, History(named))
        for named in ({f"x{i}": schedule for i, schedule in enumerate(part)} for part in (slow[:2], slow))
    )
    assert set(ts.schedules_of(few)["free"]) == {"x0", "x1"}
    for state in (many, _first_version(many)):
        with pytest.raises(ts.ScheduleError, match=r"^documents\[.*takes too much work"):
            ts.schedules_of(state)
