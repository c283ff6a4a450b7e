"""Filled slots: the group's own tensor stays the object that it is, and holds the schedule's value at every step."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding import filled, hooks, known
from tensorsched.binding.known import record_of
from tensorsched.engine import drivers
from tests.binding.stand_ins import AdamW8bit, Dion2, FusedAdam
from tests.binding.test_attach import equal, parameters, set_gradients
from tests.recording.installed import require
from tests.without_gpu.fake_cuda import HostReads, fake_cuda

STEPS = 6
LR = ts.linear(0.05, 0.01, steps=5)
WD = ts.linear(0.3, 0.01, steps=5)


class Holds(optim.SGD):
    """Nothing is known of it; its groups hold tensors."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if not isinstance(group["lr"], torch.Tensor):
            group["lr"] = torch.tensor(group["lr"])


def two(kind: type = AdamW8bit, **options: Any) -> Any:
    ps = parameters()
    return kind([{"params": ps[:2]}, {"params": ps[2:], "lr": 0.02}], **options)


def trained(optimizer: Any, steps: range = range(STEPS), lr: ts.Schedule | None = None) -> list[torch.Tensor]:
    """Train; where an lr is given, fill it in by hand, as the optimizer's error says."""
    for step in steps:
        set_gradients(optimizer, step)
        for group in optimizer.param_groups if lr is not None else ():
            group["lr"].fill_(lr(step))
        optimizer.step()
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("kind", [AdamW8bit, Holds])
def test_it_trains_as_when_it_is_filled_by_hand_to_the_bit(kind):
    optimizer = two(kind)
    own = [group["lr"] for group in optimizer.param_groups]
    sched = ts.attach(optimizer, lr=LR)
    reached = trained(optimizer)
    assert equal(reached, trained(two(kind), lr=LR))
    assert not equal(reached, trained(two(kind), lr=ts.constant(LR(0)))), "the control"
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, own, strict=True))
    assert (sched.step_count, sched.value("lr", 1)) == (STEPS, own[1])


def test_what_the_optimizer_raises_without_it():
    optimizer = two()
    optimizer.param_groups[0]["lr"] = 0.1
    with pytest.raises(RuntimeError, match="lr was changed to a non-Tensor object"):
        trained(optimizer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_dtype_and_shape_stay_and_the_value_is_rounded_once(dtype, shape):
    optimizer = Holds(parameters(), lr=torch.full(shape, 0.1, dtype=dtype))
    ts.attach(optimizer, lr=LR)
    for step in range(STEPS):
        held = optimizer.param_groups[0]["lr"]
        assert (held.dtype, held.shape) == (dtype, shape)
        assert held.item() == torch.tensor(LR(step), dtype=torch.float64).to(dtype).item()
        optimizer.step()


def test_elements_of_a_tuple_are_filled_where_they_are():
    class Betas(optim.AdamW):
        pass

    betas = (torch.tensor(0.9), torch.tensor(0.99))
    optimizer = Betas(parameters(), lr=torch.tensor(0.1), betas=betas, foreach=False)
    schedule = ts.linear(0.8, 0.9, steps=4)
    ts.attach(optimizer, betas=(schedule, None))
    optimizer.step()
    assert optimizer.param_groups[0]["betas"][0] is betas[0]
    assert betas[0].item() == torch.tensor(schedule(1)).item()
    assert betas[1].item() == torch.tensor(0.99).item()


@pytest.mark.parametrize(("skipped", "position"), [("dropped", 20), ("counted", 30)])
def test_on_a_clock_what_a_skipped_step_consumed_is_dropped_where_that_is_asked_for(skipped, position):
    class Told(Holds):
        def step(self, closure=None):
            """It would look at found_inf by itself."""

    optimizer = Told(parameters(), lr=torch.tensor(0.1, dtype=torch.float64))
    schedule = ts.linear(1.0, 0.0, steps=100)
    sched = ts.attach(optimizer, lr=schedule, clock=ts.clock("tokens", skipped=skipped))
    for found_inf in (0.0, 1.0, 0.0):
        sched.count(10)
        optimizer.found_inf = torch.tensor(found_inf)  # as GradScaler leaves it on what handles it
        optimizer.step()
    assert (sched.step_count, sched.position) == (2, position)
    assert optimizer.param_groups[0]["lr"].item() == pytest.approx(schedule(position), rel=1e-12)


def test_it_is_printed_as_filled():
    text = str(ts.attach(two(), lr=LR))
    assert "lr   filled" in text
    assert "filled: AdamW8bit wants the tensor that it has" in text


def test_a_tensor_on_a_device_is_filled_there_without_a_read():
    with fake_cuda() as reads:
        ps = [nn.Parameter(torch.zeros(4, 4, device="cuda")) for _ in range(2)]
        optimizer = Holds([{"params": p, "lr": torch.tensor(0.1, device="cuda")} for p in ps])
        own = [group["lr"] for group in optimizer.param_groups]
        sched = ts.attach(optimizer, lr=[LR, 0.5 * LR])
        reads.clear()
        with HostReads() as between:
            assert sched._mode.check(optimizer.param_groups)
            assert sched._mode.advance(optimizer.param_groups, None) is not False
            assert sched._mode.advance(optimizer.param_groups, torch.zeros(1, device="cuda")) is not False
        assert (reads, between.seen) == ([], [])
        assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, own, strict=True))
        own[0].item()
        assert reads, "the control: a read is seen"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_on_a_device_the_live_values_are_copied_in(dtype, monkeypatch):
    """With a device's driver, on tensors of the CPU."""
    monkeypatch.setattr(drivers, "CpuDriver", drivers.DeviceDriver)
    monkeypatch.setattr(filled, "on_host", lambda _: False)
    optimizer = Holds(parameters(), lr=torch.tensor(0.1, dtype=dtype))
    own = optimizer.param_groups[0]["lr"]
    sched = ts.attach(optimizer, lr=LR)
    (part,) = sched._mode.parts
    assert isinstance(part, filled.FilledTensors)
    for step in range(STEPS):
        assert optimizer.param_groups[0]["lr"] is own
        assert own.item() == torch.tensor(LR(step), dtype=torch.float64).to(dtype).item()
        optimizer.step()
    own.fill_(0.5)
    with pytest.raises(ts.BindingError, match="no longer follows"):
        optimizer.step()


# -- foreign writes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["filled", "replaced", "float", "scheduler"])
def test_what_somebody_else_writes_is_an_error_before_the_step(how):
    optimizer = two()
    sched = ts.attach(optimizer, lr=LR)
    trained(optimizer, range(2))
    group = optimizer.param_groups[1]
    if how == "filled":
        group["lr"].fill_(0.5)
    elif how == "replaced":
        group["lr"] = group["lr"].clone()  # of the same value, and yet nothing would fill it
    elif how == "float":
        group["lr"] = 0.5
    else:
        optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5)
    before = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
    with pytest.raises(ts.BindingError, match=r"lr\[group \d\] no longer follows its schedule"):
        optimizer.step()
    assert equal([p.detach() for g in optimizer.param_groups for p in g["params"]], before)
    assert sched.step_count == 2


def test_the_same_value_written_by_somebody_else_is_no_harm():
    optimizer = two()
    sched = ts.attach(optimizer, lr=LR)
    trained(optimizer, range(2))
    optimizer.param_groups[0]["lr"].fill_(LR(2))
    trained(optimizer, range(2, STEPS))
    assert sched.step_count == STEPS


# -- shared tensors ----------------------------------------------------------------------------------------------------


def shared() -> Any:
    ps = parameters()
    return Holds([{"params": ps[:2]}, {"params": ps[2:]}], lr=torch.tensor(0.1))


@pytest.mark.parametrize("wanted", [[LR, 0.5 * LR], [LR, None], [None, LR]])
def test_one_tensor_cannot_follow_two_schedules(wanted):
    optimizer = shared()
    with pytest.raises(ts.BindingError, match=r"hold the same tensor.*\.clone\(\)"):
        ts.attach(optimizer, lr=wanted)
    assert optimizer.param_groups[0]["lr"].item() == torch.tensor(0.1).item()
    for group in optimizer.param_groups:  # the way out
        group["lr"] = group["lr"].clone()
    ts.attach(optimizer, lr=wanted)


def test_one_tensor_may_follow_one_schedule():
    optimizer = shared()
    sched = ts.attach(optimizer, lr=LR)
    trained(optimizer)
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    assert optimizer.param_groups[0]["lr"].item() == torch.tensor(LR(STEPS)).item()
    with pytest.raises(ts.BindingError, match="hold the same tensor"):
        sched.rewrite(lr=[LR, 0.5 * LR])
    sched.rewrite(lr=0.5 * LR)
    assert optimizer.param_groups[0]["lr"].item() == torch.tensor(0.5 * LR(STEPS)).item()


def test_two_views_of_one_number_are_one_tensor():
    lrs = torch.full((2,), 0.1)
    ps = parameters()
    optimizer = Holds([{"params": ps[:2], "lr": lrs[0]}, {"params": ps[2:], "lr": lrs[0]}])
    with pytest.raises(ts.BindingError, match="hold the same tensor"):
        ts.attach(optimizer, lr=[LR, 0.5 * LR])
    optimizer = Holds([{"params": ps[:2], "lr": lrs[0]}, {"params": ps[2:], "lr": lrs[1]}])
    ts.attach(optimizer, lr=[LR, 0.5 * LR])
    trained(optimizer)
    assert lrs.tolist() == torch.tensor([LR(STEPS), 0.5 * LR(STEPS)]).tolist()


def test_a_late_group_that_shares_a_tensor_is_refused():
    optimizer = shared()
    sched = ts.attach(optimizer, lr=LR)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    with pytest.raises(ts.BindingError, match="hold the same tensor"):
        sched.adopt(lr=0.5 * LR)
    with pytest.raises(ts.BindingError, match="hold the same tensor"):
        sched.adopt()
    sched.adopt(lr=LR)
    trained(optimizer)


# -- saved, copied, given back -----------------------------------------------------------------------------------------


def test_a_checkpoint_has_a_tensor_that_does_not_move_and_resumes_to_the_bit():
    whole = two()
    ts.attach(whole, lr=LR)
    reached = trained(whole)
    optimizer = two()
    ts.attach(optimizer, lr=LR)
    weights = trained(optimizer, range(3))
    saved = optimizer.state_dict()
    state = copy.deepcopy(saved)
    trained(optimizer, range(3, 5))
    held = saved["param_groups"][0]["lr"]
    assert isinstance(held, torch.Tensor)
    assert held.item() == torch.tensor(LR(3)).item()
    again = two()
    own = again.param_groups[0]["lr"]
    sched = ts.attach(again, lr=LR)
    again.load_state_dict(state)
    assert again.param_groups[0]["lr"] is own
    assert sched.step_count == 3
    with torch.no_grad():
        for p, weight in zip((p for g in again.param_groups for p in g["params"]), weights, strict=True):
            p.copy_(weight)
    assert equal(trained(again, range(3, STEPS)), reached)
    plain = two()
    plain.load_state_dict(state)
    trained(plain, range(1))  # takes what was saved


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_copy_fills_its_own(how):
    optimizer = two(Holds)
    sched = ts.attach(optimizer, lr=LR)
    trained(optimizer, range(3))
    other, other_sched = how((optimizer, sched))
    held = optimizer.param_groups[0]["lr"]
    value = held.item()
    reached = trained(other, range(3, STEPS))
    assert (other_sched.step_count, sched.step_count, held.item()) == (STEPS, 3, value)
    assert equal(trained(optimizer, range(3, STEPS)), reached)


def test_detach_leaves_the_tensor_there():
    optimizer = shared()
    own = optimizer.param_groups[0]["lr"]
    sched = ts.attach(optimizer, lr=LR)
    trained(optimizer, range(3))
    sched.detach()
    sched.detach()
    assert all(group["lr"] is own for group in optimizer.param_groups)
    assert own.item() == torch.tensor(LR(3)).item()
    trained(optimizer, range(3))
    assert own.item() == torch.tensor(LR(3)).item()


def test_seek_rewrite_and_late_groups():
    optimizer = two()
    sched = ts.attach(optimizer, lr=LR, new_groups={"lr": 0.5 * LR})
    sched.seek(4)
    assert optimizer.param_groups[0]["lr"].item() == torch.tensor(LR(4)).item()
    sched.rewrite(lr=2.0 * LR)
    assert optimizer.param_groups[1]["lr"].item() == torch.tensor(2.0 * LR(4)).item()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    trained(optimizer, range(1))
    assert optimizer.param_groups[2]["lr"].item() == torch.tensor(0.5 * LR(5)).item()
    assert isinstance(optimizer.param_groups[2]["lr"], torch.Tensor)


def test_the_face_for_trainers_shows_floats():
    optimizer = two()
    face = ts.attach(optimizer, lr=LR).lr_scheduler()
    for step in range(3):
        assert face.get_last_lr() == [LR(step)] * 2
        trained(optimizer, range(1))
        face.step()


# -- refused -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_filled_is_refused():
    with torch.inference_mode():
        frozen = torch.tensor(0.1)
    for held, text in ((torch.tensor(1), "torch.int64"), (frozen, "inference mode")):
        optimizer = Holds(parameters(), lr=0.1)
        optimizer.param_groups[0]["lr"] = held
        with pytest.raises(ts.BindingError, match=text):
            ts.attach(optimizer, lr=LR)
        assert optimizer.param_groups[0]["lr"] is held


def test_a_float_is_refused_where_the_optimizer_would_raise_and_no_graph_is_made():
    optimizer = two()
    for key, text in (("lr", "wants the tensor"), ("weight_decay", "compile anew")):
        with pytest.raises(ts.BindingError, match=f"cannot be a float slot.*{text}"):
            ts.attach(optimizer, resident=False, **{key: LR})
    with pytest.raises(ts.BindingError, match="nothing is known of how"):
        ts.compile_step(ts.attach(optimizer, lr=LR))


def test_registered_by_a_user(monkeypatch):
    class Mine(Holds):
        pass

    monkeypatch.setattr(known, "RECORDS", dict(known.RECORDS))
    ts.register_optimizer(Mine, filled=["lr"], no_capture="it draws random numbers on the host")
    assert record_of(Mine(parameters())).filled == {"lr"}
    optimizer = two(Mine)
    assert [slot.filled for slot in ts.attach(optimizer, lr=LR, weight_decay=WD).slots] == [True, False] * 2
    for wrong, text in (
        ({"tensors": ["lr"], "filled": ["lr"]}, "in tensors and in filled"),
        ({"filled": ["lr"], "floats_only": {"lr": "why"}}, "in filled and in floats_only"),
        ({"filled": ["lr"], "one_graph": True}, "one_graph"),
        ({"filled": "lr"}, r"such as \['lr'\]"),
    ):
        with pytest.raises(ts.BindingError, match=text):
            ts.register_optimizer(Mine, **wrong)
    assert record_of(optimizer).filled == {"lr"}


# -- other packages' optimizers, by name -------------------------------------------------------------------------------


@pytest.fixture
def captured(monkeypatch):
    """Call it, and steps believe that they are captured."""
    now = []
    monkeypatch.setattr(hooks, "capturing", lambda: bool(now))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return lambda: now.append(1)


def test_torchao_compiles_nothing_anew_and_is_not_captured(captured):
    optimizer = two()
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD, betas=(None, ts.linear(0.9, 0.99, steps=5)))
    assert {slot.place.part for slot in sched.slots if slot.tensor} == {"weight_decay", "betas[1]"}
    trained(optimizer)
    assert len(optimizer.compiled) == 1, "the values were constants of the step"
    plain = two()
    for step in range(3):
        for group in plain.param_groups:
            group["weight_decay"] = WD(step)
        trained(plain, range(1))
    assert len(plain.compiled) == 3, "the control"
    captured()
    with pytest.raises(ts.BindingError, match="step count on the host"):
        optimizer.step()


@pytest.mark.parametrize(
    "module", ["apex.optimizers.fused_adam", "transformer_engine.pytorch.optimizers.fused_adam"]
)
def test_a_fused_adam_of_nvidia_reads_lr_and_bakes_in_the_rest(module, captured):
    kind = type("FusedAdam", (FusedAdam,), {"__module__": module})
    optimizer, by_hand = two(kind, capturable=True), two(kind, capturable=True)
    ts.attach(optimizer, lr=LR)
    assert equal(trained(optimizer), trained(by_hand, lr=LR))
    captured()
    with pytest.raises(ts.BindingError, match=r"lr\[group 0\] is a tensor on the host"):
        optimizer.step()
    ts.detach(optimizer)
    ts.attach(optimizer, weight_decay=WD)
    with pytest.raises(
        ts.BindingError, match=r"weight_decay\[group 0\] is a float slot.*kernel takes lr alone"
    ):
        optimizer.step()
    assert not any(slot.filled for slot in ts.attach(two(kind), lr=LR).slots), (
        "not capturable: lr is a number"
    )


@pytest.mark.filterwarnings(
    "ignore:GradScaler is going to stop passing itself"
)  # torch says so of apex's contract
@pytest.mark.parametrize("advance", ["auto", "manual"])
def test_a_step_that_was_handed_the_scaler_and_skipped_is_not_counted(advance):
    kind = type("FusedAdam", (FusedAdam,), {"__module__": "apex.optimizers.fused_adam"})
    optimizer = two(kind, capturable=True)
    sched = ts.attach(optimizer, lr=LR, advance=advance)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100)
    counts = []
    for step in range(STEPS):
        set_gradients(optimizer, step)
        scaler.scale(torch.zeros(()))  # or it has no scale
        if step in (1, 4):
            optimizer.param_groups[0]["params"][0].grad[0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        if advance == "manual":
            sched.step()
        counts.append(sched.step_count)
    assert counts == [1, 1, 2, 3, 3, 4]


def test_dion_makes_its_tensors_when_it_is_attached():
    optimizer, by_hand = two(Dion2), two(Dion2)
    ts.attach(optimizer, lr=LR)
    own = optimizer.param_groups[0]["lr"]
    assert isinstance(own, torch.Tensor)
    by_hand._sync_hyperparam_tensors()
    assert equal(trained(optimizer), trained(by_hand, lr=LR))
    assert optimizer.param_groups[0]["lr"] is own
    state = copy.deepcopy(optimizer.state_dict())
    assert state["param_groups"][0]["lr"] == torch.tensor(LR(STEPS)).item()
    optimizer.load_state_dict(state)
    trained(optimizer, range(2))
    assert optimizer.param_groups[0]["lr"] is own


def test_a_class_of_the_same_name_from_elsewhere_is_not_meant():
    assert record_of(two(type("FusedAdam", (Holds,), {"__module__": "mine.optimizers"}))).baked == ""


def test_torchao_itself():
    require("torchao")
    from torchao import optim as low_bit  # noqa: PLC0415  where it is installed

    for name in ("Adam8bit", "Adam4bit", "AdamFp8", "AdamW8bit", "AdamW4bit", "AdamWFp8"):
        kind = getattr(low_bit, name)
        optimizer, by_hand = two(kind), two(kind)
        ts.attach(optimizer, lr=LR)
        assert equal(trained(optimizer), trained(by_hand, lr=LR)), name


def test_one_that_comes_to_follow_a_live_input_is_refused_and_beside_one_that_does_it_stays():
    class Both(Holds):
        def add_param_group(self, param_group: dict[str, Any]) -> None:
            super().add_param_group(param_group)
            self.param_groups[-1]["weight_decay"] = 0.1

    optimizer = two(Both)
    own = optimizer.param_groups[0]["lr"]
    sched = ts.attach(optimizer, lr=LR, weight_decay=WD)
    with pytest.raises(ts.ScheduleError, match="cannot come to follow a live input"):
        sched.rewrite(lr=LR * ts.live("x", 1.0))
    sched.rewrite(weight_decay=WD * ts.live("y", 0.5))
    trained(optimizer, range(1))
    assert optimizer.param_groups[0]["lr"] is own
    assert own.item() == torch.tensor(LR(1)).item()
    assert optimizer.param_groups[0]["weight_decay"] == 0.5 * WD(1)
