"""Changing the plan in the middle of a run: functions of the old schedule, cool-downs, longer runs, handing over."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim.swa_utils import SWALR

import tensorsched as ts
from tests.binding.test_attach import LR, WD, M, set_gradients, train, two_groups

KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
STABLE = ts.linear(0.0, 1.0, steps=4) >> ts.constant(1.0)


def run(lr: Any, steps: int = 0, **options: Any) -> tuple[optim.Optimizer, ts.Attachment]:
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=lr, **options)
    train(optimizer, steps=steps)
    return optimizer, sched


def rates(optimizer: optim.Optimizer, key: str = "lr") -> list[float]:
    return [float(group[key]) for group in optimizer.param_groups]


def f32(*values: float) -> list[float]:
    return torch.tensor(values).tolist()


def by_name(steps: int = 0) -> tuple[optim.Optimizer, ts.Attachment]:
    optimizer = optim.SGD(
        [{"params": [nn.Parameter(torch.ones(2))], "name": n, "lr": 0.1} for n in ("a", "b")]
    )
    sched = ts.attach(optimizer, lr={"a": LR, "b": 0.5 * LR})
    train(optimizer, steps=steps)
    return optimizer, sched


# -- functions of (old, now) -------------------------------------------------------------------------------------------


def test_a_function_for_a_group_by_its_name():
    optimizer, sched = by_name(3)
    sched.rewrite(lr={"b": lambda old, now: old * 0.5})
    assert rates(optimizer) == [LR(3), 0.5 * LR(3) * 0.5]
    with pytest.raises(ts.BindingError, match="no param_group is named 'c'"):
        sched.rewrite(lr={"c": lambda old, now: old})
    with pytest.raises(ts.BindingError, match=r"takes \(old, now\)"):
        sched.rewrite(lr={"a": lambda old: old})


def test_what_depends_on_live_inputs_is_not_made_longer():
    optimizer, sched = run(LR * ts.live("x", 1.0), 3)
    before = rates(optimizer)
    with pytest.raises(ts.ScheduleError, match=r"extend: .*depends on live inputs"):
        sched.extend(10)
    assert rates(optimizer) == before


@KINDS
def test_a_function_is_called_for_every_slot_with_its_own_schedule(tensor):
    optimizer, sched = run([LR, 0.5 * LR], 3, resident=tensor)
    seen = []

    def change(old: ts.Schedule, now: int) -> ts.Schedule:
        seen.append((old, now))
        return old.take(now) >> ts.linear(old(now), 0.0, steps=200)

    sched.rewrite(lr=change)
    assert seen == [(LR, 3), (0.5 * LR, 3)]
    for step in range(3, 9):
        expected = [old(3) * (203 - step) / 200 for old in (LR, 0.5 * LR)]
        assert rates(optimizer) == pytest.approx(expected, rel=2**-22)
        assert rates(optimizer) != pytest.approx([LR(step), 0.5 * LR(step)], rel=2**-22) or step == 3
        train(optimizer, steps=1)


def test_a_function_may_use_initial_give_a_number_and_stand_for_one_group_or_element():
    optimizer = optim.AdamW([{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.25, 0.5)])
    sched = ts.attach(optimizer, lr=LR, betas=(M, WD), free={"kl": LR})
    sched.seek(2)
    sched.rewrite(
        lr=[None, lambda old, now: ts.initial * ts.constant(2.0) + 0.0 * old(now)],
        betas=(lambda old, now: old(now) / 2, None),
        free={"kl": lambda old, now: 7.0},
    )
    assert rates(optimizer) == [LR(2), 1.0]
    assert optimizer.param_groups[0]["betas"] == (M(2) / 2, WD(2))
    assert sched.value("kl").item() == 7.0
    sched.rewrite(betas=lambda old, now: 0.5 * old)
    assert optimizer.param_groups[1]["betas"] == (0.5 * (M(2) / 2), 0.5 * WD(2))


def test_a_function_for_all_leaves_groups_alone_that_follow_nothing():
    optimizer, sched = run([None, LR], 1)
    before = rates(optimizer)[0]
    sched.rewrite(lr=lambda old, now: 3.0)
    assert rates(optimizer) == [before, 3.0]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"lr": lambda: 1.0}, r"lr\[group 0\]: a function for rewrite\(\) takes \(old, now\)"),
        ({"lr": lambda step: 1.0}, r"takes \(old, now\), .*from_function"),
        ({"lr": lambda old, now: "x"}, "expected a schedule or a number, got str"),
        ({"lr": lambda old, now: None}, "given nothing but None"),
        ({"momentum": lambda old, now: old}, "momentum has no schedule that could be replaced"),
        (
            {"lr": [lambda old, now: old, lambda old, now: old]},
            r"lr\[group 1\] has no schedule that could be",
        ),
        ({"free": {"kl": lambda old: old}}, r"kl: a function for rewrite\(\) takes"),
        ({"free": {"x": lambda old, now: old}}, "expected a schedule for each name, got 'x'"),
        ({"free": 3}, "free must be a dict of names and schedules, got int"),
    ],
)
def test_what_no_function_can_mean_changes_nothing(wanted, text):
    optimizer, sched = run([LR, None], 2, free={"kl": LR})
    before = (rates(optimizer), sched.state_dict())
    with pytest.raises(ts.BindingError, match=text):
        sched.rewrite(**wanted)
    assert (rates(optimizer), sched.state_dict()) == before


def test_an_error_of_the_function_itself_changes_nothing():
    optimizer, sched = run(LR, 2)
    with pytest.raises(ZeroDivisionError):
        sched.rewrite(lr=lambda old, now: old / 1 if now < 0 else 1 / 0)
    assert sched.schedule("lr") == LR
    train(optimizer, steps=1)


# -- tables that grow --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True])
def test_tables_of_tensors_grow_where_no_graph_reads_them(monkeypatch, scaled):
    if scaled:
        monkeypatch.setattr("tensorsched.engine.sharing.SCALE_ABOVE", 0)
    optimizer, sched = run([LR, 0.5 * LR], 3, resident=True, free={"kl": LR})
    views = [group["lr"] for group in optimizer.param_groups]
    kl = sched.value("kl")
    longer = ts.linear(0.75, 0.25, steps=10_000)
    sched.rewrite(lr=[longer, 0.5 * longer], free={"kl": longer})
    assert [group["lr"] for group in optimizer.param_groups] == views
    assert all(group["lr"] is view for group, view in zip(optimizer.param_groups, views, strict=True))
    for step in (3, 4, 5):
        assert sched.step_count == step
        assert [*rates(optimizer), kl.item()] == f32(longer(step), 0.5 * longer(step), longer(step))
        train(optimizer, steps=1)
    sched.seek(9_999)
    assert kl.item() == f32(longer(9_999))[0] != 0.25
    other, twin = copy.deepcopy((optimizer, sched))
    twin.seek(12_000)
    assert rates(other) == [0.25, 0.125]


def test_a_table_that_a_compiled_step_reads_says_what_capacity_it_takes():
    optimizer, sched = run(LR, 2, resident=True)
    step = ts.compile_step(sched, backend="aot_eager")
    with pytest.raises(
        ts.ScheduleError, match=r"cannot grow, because a compiled step .* capacity=102\) or more"
    ):
        sched.cool_down(100)
    assert sched.schedule("lr") == LR
    set_gradients(optimizer, 2)
    step(), step()
    step.release()
    sched.cool_down(100)
    assert (sched.step_count, sched.schedule("lr").steps) == (4, 104)
    again = ts.compile_step(sched, backend="aot_eager")
    again(), again()
    assert rates(optimizer) == f32(sched.schedule("lr")(6), sched.schedule("lr")(6))


def test_a_table_that_a_captured_graph_reads_does_not_grow(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    capturing = False
    monkeypatch.setattr("tensorsched.binding.hooks.capturing", lambda: capturing)
    optimizer, sched = run(LR, 2, resident=True)
    capturing = True
    train(optimizer, steps=1)
    capturing = False
    with pytest.raises(ts.ScheduleError, match="a captured graph reads it where it is"):
        sched.cool_down(100)
    sched.rewrite(lr=0.5 * LR)


def test_slots_that_were_equal_may_part_where_no_graph_reads_them():
    optimizer, sched = run(LR, 3, resident=True)
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    sched.rewrite(lr=[None, ts.linear(1.0, 0.0, steps=40)])
    for step in range(3, 6):
        assert rates(optimizer) == f32(LR(step), 1.0 - step / 40)
        train(optimizer, steps=1)
    assert sched.step_count == 6


# -- cool_down ---------------------------------------------------------------------------------------------------------


@KINDS
def test_cool_down_goes_from_each_live_value_to_another(tensor):
    optimizer, sched = run([STABLE, 0.5 * STABLE], 6, resident=tensor)
    sched.cool_down(4, to=0.25)
    for value in (1.0, 0.8125, 0.625, 0.4375, 0.25, 0.25):
        lower = 0.5 + (0.25 - 0.5) * (1.0 - value) / 0.75
        assert rates(optimizer) == [value, lower]
        train(optimizer, steps=1)
    assert sched.schedule("lr") == ts.linear(0.0, 1.0, steps=4) >> ts.constant(1.0, steps=2) >> ts.linear(
        1.0, 0.25, steps=4
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("cosine", ts.cosine(1.0, 0.0, steps=4)),
        ("1-sqrt", ts.polynomial(1.0, 0.0, 0.5, steps=4, of="elapsed")),
        (ts.cosine, ts.cosine(1.0, 0.0, steps=4)),
        (ts.rex(1.0, 0.0, steps=100), 1.0 * ts.rex(1.0, 0.0, steps=100).span(4)),
    ],
)
def test_cool_down_takes_the_shapes_of_wsd(shape, expected):
    _, sched = run(STABLE, 5)
    sched.cool_down(4, shape=shape)
    assert sched.schedule("lr").values(12)[5:].tolist() == expected.values(7).tolist()


def test_cool_down_of_a_cool_down_of_other_keys_of_free_names_and_at_once():
    optimizer = two_groups(optim.SGD, momentum=0.9)
    sched = ts.attach(optimizer, lr=STABLE, momentum=M, free={"kl": STABLE})
    train(optimizer, steps=5)
    sched.cool_down(10)
    train(optimizer, steps=5)
    sched.cool_down(0, to=0.125)
    assert rates(optimizer) == [0.125, 0.125]
    assert sched.used("lr").values.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6]
    momentum = M(10)
    assert rates(optimizer, "momentum") == [momentum] * 2
    sched.cool_down(2, keys=["momentum", "kl"])
    train(optimizer, steps=1)
    assert (rates(optimizer, "momentum")[0], sched.value("kl").item()) == (momentum / 2, 0.5)
    _, fresh = run(STABLE)
    fresh.cool_down(4, to=2.0)
    assert fresh.schedule("lr") == ts.linear(0.0, 2.0, steps=4), "nothing was used before"


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"steps": -1}, ts.ScheduleError, "cool_down: steps must be a whole number"),
        ({"steps": 0.1}, ts.ScheduleError, "cool_down: steps must be a whole number"),
        ({"steps": True}, ts.ScheduleError, "cool_down: steps must be"),
        ({"steps": 4, "to": float("nan")}, ts.ScheduleError, "cool_down: to must be a finite number"),
        ({"steps": 4, "shape": "cubic"}, ts.ScheduleError, "cool_down: shape must be one of"),
        ({"steps": 4, "shape": "exponential"}, ts.ScheduleError, "cool_down: shape: exponential: end must not be 0"),
        ({"steps": 4, "shape": ts.constant(1.0)}, ts.ScheduleError, "cool_down: shape must go from 1 at step 0"),
        ({"steps": 4, "keys": "rl"}, ts.BindingError, "nothing is scheduled under 'rl'; there are schedules for lr"),
        ({"steps": 4, "keys": ["lr", "wd"]}, ts.BindingError, "nothing is scheduled under 'wd'"),
        ({"steps": 4, "keys": 3}, ts.BindingError, "keys must be a name such as 'lr', or a list of names, got 3"),
        ({"steps": 4, "keys": []}, ts.BindingError, "keys must be a name"),
    ],
)  # fmt: skip
def test_what_cool_down_refuses_changes_nothing(arguments, kind, text):
    optimizer, sched = run(STABLE, 5)
    before = (rates(optimizer), sched.state_dict())
    with pytest.raises(kind, match=text):
        sched.cool_down(**arguments)
    assert (rates(optimizer), sched.state_dict()) == before
    sched.detach()
    with pytest.raises(ts.BindingError, match="detached"):
        sched.cool_down(4)


# -- extend ------------------------------------------------------------------------------------------------------------


def test_extend_stretches_what_is_left_without_a_jump():
    lr = ts.warmup_cosine(1.0, total=20, warmup=4)
    optimizer, sched = run(lr, 12)
    sched.extend(8)
    values = sched.schedule("lr").values(30)
    assert values[:13].tolist() == lr.values(13).tolist()
    assert values[12::2][:8].tolist() == pytest.approx(lr.values(20)[12:].tolist(), rel=1e-15)
    assert (values[28:].tolist(), sched.schedule("lr").steps) == ([0.0, 0.0], 28)
    train(optimizer, steps=1)
    assert rates(optimizer)[0] == values[13] > lr(13)


def test_extend_by_holding_makes_a_stable_phase_longer():
    _, sched = run(ts.wsd(1.0, total=20, warmup=4, decay=6), 8)
    sched.extend(5, how="hold")
    assert (
        sched.schedule("lr").values(30).tolist()
        == ts.wsd(1.0, total=25, warmup=4, decay=6).values(30).tolist()
    )


def test_extend_leaves_alone_what_has_no_end_or_is_over():
    optimizer = two_groups(optim.SGD, momentum=0.9)
    noam = ts.inverse_sqrt(1.0, timescale=10)
    sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=40), momentum=ts.linear(0.5, 0.9, steps=3))
    train(optimizer, steps=20)
    sched.extend(20)
    assert sched.schedule("momentum") == ts.linear(0.5, 0.9, steps=3)
    assert sched.schedule("lr")(40) == 0.25
    sched.seek(100)
    with pytest.raises(
        ts.BindingError, match=r"extend: at step 100 nothing is left of .* that changes; pass .* rewrite"
    ):
        sched.extend(10)
    third = two_groups(optim.SGD)
    other = ts.attach(third, lr=noam, steps=50)
    other.extend(10)  # it was cut at 50
    assert other.schedule("lr").steps == 60


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"steps": -1}, ts.ScheduleError, "extend: steps must be a whole number"),
        (
            {"steps": 4, "how": "longer"},
            ts.ScheduleError,
            "extend: how must be one of 'stretch', 'hold', got 'longer'",
        ),
        ({"steps": 4, "keys": "rl"}, ts.BindingError, "extend: nothing is scheduled under 'rl'"),
    ],
)
def test_what_extend_refuses_changes_nothing(arguments, kind, text):
    _, sched = run(LR, 3)
    before = sched.state_dict()
    with pytest.raises(kind, match=text):
        sched.extend(**arguments)
    assert sched.state_dict() == before


# -- schedule ----------------------------------------------------------------------------------------------------------


def test_schedule_is_the_expression_that_is_followed():
    optimizer = optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.5)
    sched = ts.attach(optimizer, lr=ts.initial * LR, betas=(None, M), free={"kl": WD})
    assert sched.schedule("lr") == 0.5 * LR
    assert sched.schedule("betas") == sched.schedule("betas", element=1) == M
    assert sched.schedule("kl") == WD
    with pytest.raises(ts.BindingError, match=r"no slot is 'lr' of group 3; there are lr\[group 0\]"):
        sched.schedule("lr", group=3)


# -- hand_over ---------------------------------------------------------------------------------------------------------


def swa(optimizer: optim.Optimizer) -> SWALR:
    return SWALR(optimizer, swa_lr=0.05, anneal_epochs=2, anneal_strategy="linear")


@KINDS
def test_swalr_takes_over_where_that_is_meant(tensor):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, resident=tensor)
    train(optimizer, steps=3)
    scheduler = swa(optimizer)
    train(optimizer, steps=1)
    scheduler.step()
    with pytest.raises(ts.BindingError, match=r"remove that writer, or call hand_over\('lr'\)"):
        train(optimizer, steps=1)
    sched.seek(4)
    sched.hand_over("lr")
    assert all(type(group["lr"]) is float for group in optimizer.param_groups)
    scheduler.step()
    train(optimizer, steps=3)
    assert rates(optimizer) == [0.05, 0.05]
    assert rates(optimizer, "weight_decay")[0] == pytest.approx(WD(7), rel=2**-23)
    sched.hand_over("weight_decay")
    assert not sched.attached, "nothing was left"


@KINDS
def test_the_other_slots_go_on_and_the_one_that_was_let_go_is_forgotten(tensor):
    optimizer = two_groups(optim.SGD, momentum=0.9)
    sched = ts.attach(optimizer, lr=LR, momentum=M, resident=tensor, free={"kl": WD})
    train(optimizer, steps=3)
    kl = sched.value("kl")
    sched.hand_over("lr", group=1)
    assert (optimizer.param_groups[1]["lr"], "initial_lr" in optimizer.param_groups[1]) == (LR(3), False)
    optimizer.param_groups[1]["lr"] = 7.0
    for step in range(3, 7):
        assert rates(optimizer) == pytest.approx([LR(step), 7.0], rel=2**-23)
        assert [*rates(optimizer, "momentum"), kl.item()] == pytest.approx(
            [M(step), M(step), WD(step)], rel=2**-23
        )
        train(optimizer, steps=1)
    with pytest.raises(ts.BindingError, match="no slot is 'lr' of group 1"):
        sched.value("lr", group=1)
    assert "lr[group 1]" not in dict(sched.state_dict()["schedules"])
    sched.rewrite(lr=0.5 * LR)
    assert rates(optimizer) == pytest.approx([0.5 * LR(7), 7.0], rel=2**-23)
    state = sched.state_dict()
    other, twin = copy.deepcopy((optimizer, sched))
    twin.seek(2)
    assert rates(other)[1] == 7.0
    sched.load_state_dict(state)
    sched.hand_over("lr", "momentum")
    train(optimizer, steps=1)
    assert (sched.attached, sched.step_count, kl.item()) == (True, 8, pytest.approx(WD(8), rel=2**-23))


def test_one_element_is_let_go_and_a_compiled_step_goes_on():
    optimizer = optim.AdamW([nn.Parameter(torch.ones(2))])
    sched = ts.attach(optimizer, lr=LR, betas=(M, M))
    step = ts.compile_step(sched, backend="aot_eager")
    for number in range(3):
        set_gradients(optimizer, number)
        step()
    sched.hand_over("betas[1]")
    optimizer.param_groups[0]["betas"] = (optimizer.param_groups[0]["betas"][0], 0.5)
    sched.seek(3)
    for number in range(3):
        set_gradients(optimizer, number)
        step()
    assert float(optimizer.param_groups[0]["betas"][0]) == f32(M(6))[0]
    assert optimizer.param_groups[0]["betas"][1] == 0.5


@pytest.mark.parametrize(
    ("keys", "options", "text"),
    [
        ((), {}, "hand_over: no slot is named"),
        (("rl",), {}, r"hand_over: no slot is 'rl'; there are lr\[group 0\], lr\[group 1\]"),
        (("lr",), {"group": 2}, "hand_over: no slot is 'lr' of group 2"),
    ],
)
def test_what_hand_over_refuses(keys, options, text):
    _, sched = run(LR, 1)
    with pytest.raises(ts.BindingError, match=text):
        sched.hand_over(*keys, **options)
    assert len(sched.slots) == 2
