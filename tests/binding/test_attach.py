"""attach(): the optimizer uses what the schedule says, whatever the implementation; and what bad input gets."""

from __future__ import annotations

import gc
import re
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch._subclasses.fake_tensor import FakeTensorMode

import tensorsched as ts
from tests.binding.test_torch_optim import HostReads

STEPS = 12
LR = ts.linear(0.0, 0.1, steps=4) >> ts.cosine(0.1, 0.01, steps=6)
WD = ts.linear(0.2, 0.0, steps=9)
M = ts.linear(0.8, 0.95, steps=8)
KEYS: dict[type, dict[str, Any]] = {
    optim.SGD: {"lr": LR, "weight_decay": WD, "momentum": M, "dampening": ts.linear(0.0, 0.5, steps=7)},
    optim.Adam: {
        "lr": LR,
        "weight_decay": WD,
        "betas": (M, 0.3 + 0.5 * M),
        "eps": ts.exponential(1e-8, 1e-3, steps=5),
    },
    optim.AdamW: {"lr": LR, "weight_decay": WD, "betas": (None, 0.3 + 0.5 * M)},
}
HOW = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def parameters(count: int = 4) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(5, 3, generator=generator)) for _ in range(count)]


def two_groups(kind: type, **options: Any) -> Any:
    ps = parameters()
    lr = options.pop("lr", 0.05)
    return kind([{"params": ps[:2]}, {"params": ps[2:], "lr": 0.5 * lr}], lr=lr, **options)


def set_gradients(optimizer: Any, step: int) -> None:
    generator = torch.Generator().manual_seed(step + 1)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.randn(p.shape, generator=generator)


def train(optimizer: Any, by_hand: Any = None, steps: int = STEPS) -> list[torch.Tensor]:
    """Train on fixed gradients; `by_hand(step)` may set the groups before each step. Returns the parameters."""
    for step in range(steps):
        set_gradients(optimizer, step)
        if by_hand is not None:
            by_hand(step)
        optimizer.step()
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def floats_by_hand(optimizer: Any, schedules: dict[str, Any], number: Any = float) -> Any:
    """What `train` calls to set the same hyperparameters the way people do without a scheduler."""

    def set_groups(step: int) -> None:
        for group in optimizer.param_groups:
            for key, schedule in schedules.items():
                if isinstance(schedule, tuple):
                    pairs = zip(schedule, group[key], strict=True)
                    group[key] = tuple(old if s is None else number(s(step)) for s, old in pairs)
                else:
                    group[key] = number(schedule(step))

    return set_groups


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def options_for(kind: type) -> dict[str, Any]:
    return {"momentum": 0.9} if kind is optim.SGD else {}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KEYS)
def test_trains_to_the_bit_as_with_floats_set_by_hand(kind, how):
    attached, by_hand, frozen = (two_groups(kind, **options_for(kind), **HOW[how]) for _ in range(3))
    ts.attach(attached, **KEYS[kind])
    reached = train(attached)
    assert equal(reached, train(by_hand, floats_by_hand(by_hand, KEYS[kind])))
    at_start = {
        k: tuple(s and ts.constant(s(5)) for s in v) if isinstance(v, tuple) else ts.constant(v(5))
        for k, v in KEYS[kind].items()
    }
    assert not equal(reached, train(frozen, floats_by_hand(frozen, at_start))), "a frozen value must show"


@pytest.mark.parametrize("kind", KEYS)
def test_each_key_by_itself_is_used(kind):
    """Control for the test above: freezing any one key changes the parameters."""
    reference = two_groups(kind, **options_for(kind))
    moving = train(reference, floats_by_hand(reference, KEYS[kind]))
    for key, schedule in KEYS[kind].items():
        frozen = two_groups(kind, **options_for(kind))
        still = (
            tuple(s and ts.constant(s(0)) for s in schedule)
            if isinstance(schedule, tuple)
            else ts.constant(schedule(3))
        )
        assert not equal(moving, train(frozen, floats_by_hand(frozen, KEYS[kind] | {key: still}))), key


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (optim.SGD, "loop"),
        (optim.SGD, "foreach"),
        (optim.AdamW, "loop"),
        (optim.AdamW, "fused"),
        (optim.Adam, "fused"),
        (optim.SGD, "fused"),
    ],
)
def test_resident_slots_train_as_with_float32_tensors_set_by_hand(kind, how):
    attached, by_hand = (two_groups(kind, **options_for(kind), **HOW[how]) for _ in range(2))
    sched = ts.attach(attached, lr=LR, resident=True)
    views = [group["lr"] for group in attached.param_groups]
    assert equal(train(attached), train(by_hand, floats_by_hand(by_hand, {"lr": LR}, torch.tensor)))
    assert [group["lr"] for group in attached.param_groups] == views
    assert all(group["lr"] is view for group, view in zip(attached.param_groups, views, strict=True)), (
        "never replaced"
    )
    assert sched.step_count == STEPS


@pytest.mark.parametrize("resident", [True, False])
def test_the_value_at_each_step_is_the_schedule_s(resident):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=[LR, ts.initial * LR], resident=resident)
    for step in range(STEPS):
        assert sched.step_count == step
        for group, factor in enumerate((1.0, 0.025)):
            exact = factor * LR(step)
            held = optimizer.param_groups[group]["lr"]
            assert float(held) == (torch.tensor(exact).item() if resident else exact)
            assert float(sched.value("lr", group)) == float(held)
        set_gradients(optimizer, step)
        optimizer.step()


def test_numbers_lists_none_tuples_and_initial():
    optimizer = two_groups(optim.AdamW, lr=0.04)
    sched = ts.attach(
        optimizer, lr=ts.initial * M, weight_decay=[None, 0.25], betas=[(M, None), (None, M)], eps=1e-5
    )
    first, second = optimizer.param_groups
    assert (first["lr"], second["lr"]) == (0.04 * M(0), 0.02 * M(0))
    assert (first["weight_decay"], second["weight_decay"]) == (0.01, 0.25)
    assert (first["betas"], second["betas"]) == ((M(0), 0.999), (0.9, M(0)))
    assert first["eps"] == second["eps"] == 1e-5
    train(optimizer, steps=3)
    assert (first["betas"], second["betas"]) == ((M(3), 0.999), (0.9, M(3)))
    assert sched.value("betas") == M(3)
    with pytest.raises(
        ts.BindingError, match=re.escape("no slot is 'weight_decay' of group 0; there are lr[group 0], ")
    ):
        sched.value("weight_decay")


def test_any_object_with_param_groups_is_stepped_by_hand():
    thing = SimpleNamespace(param_groups=[{"temperature": 1.0}, {"temperature": 2}])
    sched = ts.attach(thing, temperature=ts.initial * ts.linear(1.0, 0.0, steps=4), advance="manual")
    for step in range(6):
        assert [g["temperature"] for g in thing.param_groups] == [
            1.0 - min(step, 4) / 4,
            2.0 * (1.0 - min(step, 4) / 4),
        ]
        sched.step()
    sched.seek(2)
    assert thing.param_groups[1]["temperature"] == 1.0


@pytest.mark.parametrize("resident", [True, False])
def test_manual_advance_does_not_count_a_step_that_a_fused_optimizer_skipped(resident):
    optimizer = two_groups(optim.SGD, fused=True)
    sched = ts.attach(optimizer, lr=LR, advance="manual", resident=resident)
    for found_inf, count in ((0.0, 1), (1.0, 1), (0.0, 2)):
        set_gradients(optimizer, 0)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor([1.0]), torch.tensor([found_inf])
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        sched.step()
        assert sched.step_count == count


def test_past_steps_everything_says_what_the_table_holds():
    optimizer = two_groups(optim.SGD)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    endless = ts.inverse_sqrt(1.0, timescale=1)
    sched = ts.attach(optimizer, lr=endless, steps=3, free={"a": ts.linear(0.0, 1.0, steps=100)})
    train(optimizer, steps=8)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [endless(3), endless(3)] == [0.5, 0.5]
    assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.5
    assert str(sched).count("  0.5  ") == 2
    sched.detach()
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.5, 0.5]


def test_namedtuples_stay_namedtuples():
    betas = namedtuple("Betas", "first second")  # noqa: PYI024  what a user may have
    optimizer = two_groups(optim.AdamW)
    optimizer.param_groups[0]["betas"] = betas(0.9, 0.99)
    ts.attach(optimizer, betas=(M, None))
    assert optimizer.param_groups[0]["betas"] == betas(M(0), 0.99)
    assert optimizer.param_groups[0]["betas"].second == 0.99


def test_attach_works_where_torch_s_defaults_are_changed():
    with torch.inference_mode():
        optimizer = two_groups(optim.SGD)
        sched = ts.attach(optimizer, lr=LR, resident=True)
        sched.seek(4)
    torch.set_default_device("meta")
    try:
        engine = ts.ScheduleEngine(ts.tabulate({"lr": LR}))
        engine.advance()
    finally:
        torch.set_default_device(None)
    assert engine.value("lr").item() == torch.tensor(LR(1)).item()


def test_manual_advance_ignores_optimizer_steps():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, advance="manual")
    train(optimizer, steps=3)
    assert sched.step_count == 0
    sched.step()
    assert (sched.step_count, optimizer.param_groups[0]["lr"]) == (1, LR(1))


def test_free_values_belong_to_no_group():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, free={"kl_weight": ts.linear(0.0, 1.0, steps=4)})
    weight = sched.value("kl_weight")
    assert isinstance(weight, torch.Tensor)
    seen = []
    for step in range(6):
        seen.append(weight.item())
        train(optimizer, steps=1)
        assert sched.step_count == step + 1
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert "kl_weight" in str(sched)


def test_attachment_works_without_being_kept():
    optimizer = two_groups(optim.SGD)
    ts.attach(optimizer, lr=LR)
    gc.collect()
    train(optimizer, steps=3)
    assert optimizer.param_groups[0]["lr"] == LR(3)


# -- residency -------------------------------------------------------------------------------------------


@pytest.fixture
def fake_cuda(monkeypatch):
    """Fake CUDA tensors; how much memory such a device has cannot be asked."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**40, 2**40))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    with FakeTensorMode():
        yield


def on_cuda(kind: type, **options: Any) -> Any:
    optimizer = kind([nn.Parameter(torch.zeros(4, 4, device="cuda")) for _ in range(2)], **options)
    optimizer._warned_capturable_if_run_uncaptured = (
        True  # else torch warns of a capturable step outside a capture
    )
    return optimizer


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize(
    ("kind", "options", "resident"),
    [
        (optim.AdamW, {"capturable": True}, {"lr", "weight_decay"}),
        (optim.AdamW, {"capturable": True, "foreach": False}, {"lr", "betas[0]", "weight_decay"}),
        (optim.Adam, {"capturable": True}, {"lr"}),
        (optim.AdamW, {"fused": True}, {"lr"}),
        (optim.AdamW, {}, set()),
        (optim.SGD, {"momentum": 0.9}, set()),
        (optim.SGD, {"momentum": 0.9, "fused": True}, {"lr"}),
        (optim.RAdam, {}, {"lr"}),
        (type("Custom", (optim.AdamW,), {}), {"capturable": True}, set()),
    ],
)
def test_on_a_gpu_a_slot_is_resident_exactly_where_that_needs_no_sync(kind, options, resident):
    optimizer = on_cuda(kind, **options)
    betas = {} if kind is optim.SGD else {"betas": (M, M)}
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, **betas)
    found = {slot.name.removesuffix("[group 0]") for slot in sched.slots if slot.tensor}
    assert found == resident
    for slot in sched.slots:
        value = sched.value(slot.place.key, 0, slot.place.element)
        assert value.device.type == "cuda" if slot.tensor else type(value) is float


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("options", [{"capturable": True}, {"capturable": True, "foreach": False}, {}])
def test_on_a_gpu_a_step_reads_nothing_on_the_host(options):
    attached, plain, forced = (on_cuda(optim.AdamW, weight_decay=0.1, **options) for _ in range(3))
    ts.attach(attached, lr=LR, weight_decay=WD, betas=(M, M))
    forced.param_groups[0]["weight_decay"] = torch.tensor(0.1, device="cuda")
    counts = []
    for optimizer in (attached, plain, forced):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.zeros_like(p)
        for _ in range(2):  # the second is a steady step
            with HostReads() as reads:
                optimizer.step()
        counts.append(reads.count)
    assert counts[0] == counts[1] == 0
    assert counts[2] > 0, "the control: a tensor where torch reads it on the host is counted"


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize(("kind", "key"), [(optim.AdamW, "lr"), (optim.SGD, "momentum")])
def test_resident_true_refuses_what_would_synchronise(kind, key):
    optimizer = on_cuda(kind)
    with pytest.raises(
        ts.BindingError, match=rf"{key}\[group 0\] cannot be a tensor slot without a synch.*resident='auto'"
    ):
        ts.attach(optimizer, resident=True, **{key: LR})
    assert isinstance(optimizer.param_groups[0][key], (int, float))


def test_on_a_cpu_a_tensor_stays_a_tensor_and_a_float_a_float():
    optimizer = two_groups(optim.SGD)
    optimizer.param_groups[1]["lr"] = torch.tensor(0.3)
    sched = ts.attach(optimizer, lr=LR)
    assert [slot.tensor for slot in sched.slots] == [False, True]
    train(optimizer, steps=2)
    assert optimizer.param_groups[0]["lr"] == LR(2)
    assert torch.equal(optimizer.param_groups[1]["lr"], torch.tensor(LR(2)))


# -- taking it back --------------------------------------------------------------------------------------


def hooks_of(optimizer: optim.Optimizer) -> int:
    return sum(len(value) for name, value in vars(optimizer).items() if name.endswith("_hooks"))


@pytest.mark.parametrize("resident", [True, False])
def test_detach_leaves_plain_floats_and_no_hook(resident):
    optimizer = two_groups(optim.AdamW, fused=True)
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    assert hooks_of(optimizer) > 0
    train(optimizer, steps=3)
    sched.detach()
    sched.detach()
    assert hooks_of(optimizer) == 0
    assert [group["lr"] for group in optimizer.param_groups] == [LR(3), LR(3)]
    assert all(type(group["lr"]) is float for group in optimizer.param_groups)
    train(optimizer, steps=2)
    assert optimizer.param_groups[0]["lr"] == LR(3)
    assert str(sched).startswith("step 3, detached")
    for call in (sched.step, lambda: sched.seek(1)):
        with pytest.raises(ts.BindingError, match=r"(detached|advances by itself)"):
            call()
    ts.attach(optimizer, lr=LR)
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_detach_gives_the_same_tensor_back():
    optimizer, mine = two_groups(optim.SGD), torch.tensor(0.3)
    optimizer.param_groups[0]["lr"] = mine
    sched = ts.attach(optimizer, lr=LR)
    train(optimizer, steps=3)
    assert mine.item() == pytest.approx(0.3), "the schedule has a tensor of its own"
    sched.detach()
    assert optimizer.param_groups[0]["lr"] is mine
    assert mine.item() == torch.tensor(LR(3)).item()


def test_detach_gives_groups_that_shared_a_tensor_one_each():
    optimizer = optim.SGD([{"params": [p]} for p in parameters(2)], lr=torch.tensor(0.3))
    sched = ts.attach(optimizer, lr=[LR, 0.5 * LR])
    train(optimizer, steps=3)
    sched.detach()
    assert [group["lr"].item() for group in optimizer.param_groups] == [
        torch.tensor(f * LR(3)).item() for f in (1.0, 0.5)
    ]


def test_the_module_s_detach_needs_no_handle():
    optimizer = two_groups(optim.SGD, momentum=0.9)
    ts.attach(optimizer, lr=LR)
    ts.attach(optimizer, momentum=M)
    ts.detach(optimizer)
    ts.detach(optimizer)
    assert hooks_of(optimizer) == 0
    assert optimizer.param_groups[0]["momentum"] == M(0)


# -- other writers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", [True, False])
def test_another_scheduler_on_the_same_key_is_named_before_the_next_step(resident):
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, resident=resident)
    other = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    train(optimizer, steps=2)
    other.step()
    before = [p.clone() for p in optimizer.param_groups[0]["params"]]
    set_gradients(optimizer, 2)
    with pytest.raises(
        ts.BindingError, match=r"lr\[group 0\] no longer follows its schedule: at step 2 .* torch scheduler"
    ):
        optimizer.step()
    assert equal(before, optimizer.param_groups[0]["params"])
    assert sched.step_count == 2


@pytest.mark.parametrize("group", range(6))
@pytest.mark.parametrize("value", [7.0, torch.tensor(7.0)])
@pytest.mark.parametrize("resident", [True, False])
def test_a_write_to_a_single_group_is_found_and_not_overwritten(group, value, resident):
    optimizer = optim.SGD([{"params": [p]} for p in parameters(6)], lr=0.1)
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    train(optimizer, steps=2)
    optimizer.param_groups[group]["lr"] = value
    with pytest.raises(ts.BindingError, match=rf"lr\[group {group}\] no longer follows its schedule"):
        train(optimizer, steps=6)
    assert optimizer.param_groups[group]["lr"] is value
    assert all(
        float(g["lr"]) == float(sched.value("lr", i))
        for i, g in enumerate(optimizer.param_groups)
        if i != group
    )


@pytest.mark.parametrize("value", [float("nan"), 7.0])
@pytest.mark.parametrize("resident", [True, False])
def test_a_foreign_value_stays_an_error_until_it_is_gone(resident, value):
    optimizer = optim.SGD([{"params": [p]} for p in parameters(20)], lr=0.1)
    sched = ts.attach(optimizer, lr=[(1 + i) * M for i in range(20)], resident=resident)
    if resident:
        optimizer.param_groups[3]["lr"].fill_(value)
    else:
        optimizer.param_groups[3]["lr"] = value
    for _ in range(5):
        with pytest.raises(ts.BindingError, match=r"lr\[group 3\] no longer follows its schedule"):
            optimizer.step()
    sched.seek(1)
    train(optimizer, steps=2)
    assert sched.step_count == 3


def test_a_write_of_the_same_value_is_no_harm_and_costs_once():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, resident=True)
    optimizer.param_groups[0]["lr"].mul_(1.0)
    assert not sched._mode.engines[0].intact()
    train(optimizer, steps=2)
    assert sched._mode.engines[0].intact()
    assert sched.step_count == 2


def test_a_later_hook_of_somebody_else_that_writes_is_found():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR)
    optimizer.register_step_pre_hook(lambda opt, *_: opt.param_groups[0].update(lr=5.0))
    with pytest.raises(ts.BindingError, match=r"lr\[group 0\] no longer follows its schedule"):
        optimizer.step()
    assert sched.step_count == 0


@pytest.mark.parametrize(
    "change", [lambda g: g.pop("betas"), lambda g: g.update(betas=None), lambda g: g.update(betas=(0.5,))]
)
def test_a_key_that_is_taken_away_is_named(change):
    optimizer = two_groups(optim.AdamW)
    ts.attach(optimizer, betas=(None, M))
    change(optimizer.param_groups[1])
    with pytest.raises(
        ts.BindingError, match=r"betas\[1\]\[group 1\] no longer follows its schedule.* now holds nothing"
    ):
        optimizer.step()


def test_a_group_added_later_is_no_silent_exception():
    optimizer = two_groups(optim.SGD)
    ts.attach(optimizer, lr=LR)
    optimizer.add_param_group({"params": parameters(1)})
    with pytest.raises(ts.BindingError, match="has 3 param_groups and had 2 when"):
        optimizer.step()


def test_checkpoints_hold_plain_floats_and_the_step():
    optimizer = two_groups(optim.SGD)
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, resident=True)
    train(optimizer, steps=3)
    saved = optimizer.state_dict()
    assert [type(group["lr"]) for group in saved["param_groups"]] == [float, float]
    assert saved["param_groups"][0]["lr"] == LR(3)
    train(optimizer, steps=2)
    assert saved["param_groups"][0]["lr"] == LR(3), "a snapshot does not move"
    optimizer.load_state_dict(saved)
    assert float(optimizer.param_groups[0]["lr"]) == torch.tensor(LR(3)).item()
    train(optimizer, steps=1)
    assert optimizer.param_groups[0]["lr"] is sched.value("lr")
    assert float(optimizer.param_groups[0]["lr"]) == torch.tensor(LR(4)).item()


# -- text ------------------------------------------------------------------------------------------------


def test_print_shows_every_slot():
    optimizer = two_groups(optim.AdamW)
    sched = ts.attach(optimizer, lr=LR, weight_decay=[WD, None])
    train(optimizer, steps=4)
    assert str(sched).splitlines() == [
        "step 4, advances after each optimizer.step()",
        "group  key           slot   value     schedule",
        "0-1    lr            float  0.1       linear(0.0, 0.1, steps=4) >> cosine(0.1, 0.01, steps=6)",
        "0      weight_decay  float  0.111111  linear(0.2, 0.0, steps=9)",
        "float: on a CPU a float is exact and fastest",
    ]
    assert repr(sched) == "<Attachment of 3 slots to AdamW>"


# -- bad input -------------------------------------------------------------------------------------------

BAD = [
    ({}, "attach\\(\\) was given nothing to schedule; pass for example lr="),
    ({"lr": [None, None]}, "nothing but None for lr; pass a schedule for one group"),
    ({"weigth_decay": WD}, "group 0 has no hyperparameter 'weigth_decay'; did you mean 'weight_decay'\\?"),
    ({"zzz": WD}, "group 0 has no hyperparameter 'zzz'; it has lr, betas"),
    ({"params": WD}, "group 0 has no hyperparameter 'params'"),
    ({"extra": WD}, "'extra'; groups \\[1\\] have it: pass a list with None for the others"),
    ({"lr": [LR]}, "lr: the list has 1 entries but the optimizer has 2 param_groups; give one schedule for each group"),
    ({"betas": M}, "holds 2 values, got a single schedule; pass a tuple of 2 such as betas=\\(sch"),
    ({"betas": (M, M, M)}, "betas of group 0 holds 2 values, got a tuple of 3"),
    ({"lr": (LR, None)}, "lr of group 0 holds a single value, not 2; pass one schedule instead of a tuple"),
    ({"lr": "fast"}, "lr of group 0: expected a schedule or a number, got str"),
    ({"lr": lambda step: step}, "got function \\(write lr=ts.from_function\\(fn, steps=n"),
    ({"lr": True}, "expected a schedule or a number, got bool"),
    ({"amsgrad": WD}, "amsgrad of group 0 holds False, which is not a number"),
    ({"lr": LR, "advance": "sometimes"}, "attach: advance must be 'auto' or 'manual', got 'sometimes'"),
    ({"lr": LR, "resident": "maybe"}, "attach: resident must be 'auto', True or False, got 'maybe'"),
    ({"lr": 10**400}, "lr of group 0 must be a finite number that fits a float64"),
    ({"lr": LR, "free": [LR]}, "free must be a dict of names and schedules, got list"),
    ({"free": {"kl": ts.initial * LR}}, "free: 'kl' belongs to no group, so ts.initial means nothing"),
    ({"lr": LR, "resident": True, "free": {"lr[group 0]": LR}}, "free: 'lr\\[group 0\\]' is the name of a slot"),
    ({"lr": LR, "resident": 1.0}, "attach: resident must be 'auto', True or False, got 1.0"),
    ({"lr": float("nan")}, "lr of group 0 must be a finite number, got nan"),
    ({"lr": ts.noam(512, warmup=10)}, "'lr\\[group 0\\]' never settles, so its table needs a length: pass steps=n"),
    ({"lr": LR, "steps": 1.5}, "steps must be a whole number of steps"),
    ({"lr": 1.0 / ts.linear(1.0, 0.0, steps=4)}, "the value at step 4 is inf"),
    ({"lr": LR, "betas": (1.0 / ts.linear(1.0, 0.0, steps=4), None)}, "the value at step 4 is inf"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "text"), BAD)
def test_bad_input_is_an_error_at_once_and_changes_nothing(arguments, text):
    optimizer = two_groups(optim.AdamW)
    optimizer.param_groups[1]["extra"] = 1.0
    groups = [dict(group) for group in optimizer.param_groups]
    with pytest.raises((ts.BindingError, ts.ScheduleError), match=text):
        ts.attach(optimizer, **arguments)
    assert [dict(group) for group in optimizer.param_groups] == groups
    assert hooks_of(optimizer) == 0
    ts.attach(optimizer, lr=LR).detach()  # nothing was claimed


def test_initial_after_a_torch_scheduler_is_refused():
    optimizer = two_groups(optim.AdamW)
    optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    with pytest.raises(
        ts.BindingError, match=r"lr of group 0 holds 0.0, but its initial_lr is 0.05: a torch scheduler"
    ):
        ts.attach(optimizer, lr=ts.initial * LR)
    for group in optimizer.param_groups:
        group["lr"] = group.pop("initial_lr")
    ts.attach(optimizer, lr=ts.initial * M)
    assert optimizer.param_groups[1]["lr"] == 0.025 * M(0)


def test_a_slot_has_one_schedule():
    optimizer = two_groups(optim.AdamW)
    first = ts.attach(optimizer, lr=[LR, None], betas=(M, None))
    for arguments in ({"lr": LR}, {"betas": (M, M)}):
        with pytest.raises(
            ts.BindingError,
            match=r"\[group 0\] already follows the schedule of another attachment; call detach",
        ):
            ts.attach(optimizer, **arguments)
    second = ts.attach(optimizer, lr=[None, LR], betas=(None, M))
    train(optimizer, steps=3)
    assert first.step_count == second.step_count == 3
    assert [group["lr"] for group in optimizer.param_groups] == [LR(3), LR(3)]
    assert optimizer.param_groups[0]["betas"] == (M(3), M(3))


@pytest.mark.parametrize("thing", [SimpleNamespace(), SimpleNamespace(param_groups=[]), None, "AdamW"])
def test_what_has_no_param_groups(thing):
    with pytest.raises(ts.BindingError, match=r"has no param_groups .* pass the optimizer itself"):
        ts.attach(thing, lr=LR)


def test_what_has_no_hooks_cannot_advance_by_itself():
    thing = SimpleNamespace(param_groups=[{"lr": 1.0}])
    with pytest.raises(ts.BindingError, match=r"SimpleNamespace has no step hooks .* pass advance='manual'"):
        ts.attach(thing, lr=LR)
    assert thing.param_groups == [{"lr": 1.0}]


def test_step_by_hand_is_refused_where_the_optimizer_does_it():
    sched = ts.attach(two_groups(optim.SGD), lr=LR)
    with pytest.raises(
        ts.BindingError, match=r"advances by itself after each optimizer\.step.* pass advance='manual'"
    ):
        sched.step()


@pytest.mark.parametrize("resident", [False, True])
def test_attach_leaves_an_optimizers_attributes_where_they_are_read_fast(resident):
    """CPython keeps attributes beside an object until its __dict__ is looked at; torch's step reads some for each parameter."""
    looks: list[str] = []

    class Watched(optim.AdamW):
        def __getattribute__(self, name: str) -> Any:
            if name == "__dict__":
                looks.append(name)
            return super().__getattribute__(name)

    optimizer = two_groups(Watched)
    optimizer.step()
    looks.clear()
    sched = ts.attach(optimizer, lr=ts.linear(0.1, 0.2, steps=9), resident=resident)
    for step in range(3):
        set_gradients(optimizer, step)
        optimizer.step()
    sched.seek(1)
    sched.detach()
    assert not looks
    vars(optimizer)
    assert looks, "the probe sees a look"
