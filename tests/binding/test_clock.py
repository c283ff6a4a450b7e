"""An attachment on a clock: what is counted before each step moves its slots, whatever they are."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

import tensorsched as ts
from tests.without_gpu.fake_cuda import HostReads, fake_cuda

TOKENS = ts.clock("tokens")
LR = ts.warmup_cosine(0.5, total=10_000, warmup=1_000)
WD = ts.linear(0.1, 0.0, steps=10_000)
COUNTS = [300, 800, 1, 2_000, 0, 4_000]
SLOTS = {"float": False, "tensor": True}
one_ulp = 2.0**-23


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def sgd(groups: int = 2, **options: Any) -> optim.SGD:
    made = optim.SGD([{"params": [nn.Parameter(torch.ones(3))]} for _ in range(groups)], lr=0.5, **options)
    for group in made.param_groups:
        group["params"][0].grad = torch.ones(3)
    return made


def lr_of(optimizer: Any, group: int = 0) -> float:
    return float(optimizer.param_groups[group]["lr"])


def run(sched: ts.Attachment, step: Callable[[], Any], counts: list[Any]) -> list[float]:
    used = []
    for n in counts:
        used.append(lr_of(sched.optimizer))
        sched.count(n)
        step()
    return used


def positions(counts: list[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


# -- following ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", SLOTS.values(), ids=SLOTS)
def test_a_step_uses_what_the_steps_before_it_consumed(resident):
    optimizer = sgd()
    sched = ts.attach(optimizer, lr=[LR, 0.1 * LR], weight_decay=WD, clock=TOKENS, resident=resident)
    used = run(sched, optimizer.step, COUNTS)
    assert used == pytest.approx([LR(p) for p in positions(COUNTS)], rel=one_ulp, abs=0.5e-6)
    assert (sched.position, sched.step_count) == (sum(COUNTS), len(COUNTS))
    assert lr_of(optimizer, 1) == pytest.approx(0.1 * LR(sum(COUNTS)), rel=1e-6)
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(WD(sum(COUNTS)), rel=1e-6)


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 3_000), min_size=1, max_size=3), min_size=1, max_size=6))
def test_float_and_tensor_slots_train_alike_and_otherwise_than_frozen_ones(runs):
    """Accumulated counts, by ints and by tensors; the partner counts nothing but the last step's."""
    trained = {}
    for name, resident in SLOTS.items():
        optimizer = sgd(1)
        sched = ts.attach(optimizer, lr=LR, clock=TOKENS, resident=resident)
        for counts in runs:
            for n in counts:
                sched.count(n if resident else torch.tensor(n))
            optimizer.step()
        trained[name] = optimizer.param_groups[0]["params"][0].detach().clone()
    by_hand = sgd(1)
    for p in positions([sum(counts) for counts in runs]):
        by_hand.param_groups[0]["lr"] = LR(p)
        by_hand.step()
    wanted = by_hand.param_groups[0]["params"][0].detach()
    bound = len(runs) * (0.5e-6 + 4 * 2.0**-24)
    assert (trained["float"] - wanted).abs().max() <= bound
    assert (trained["tensor"] - wanted).abs().max() <= bound
    moved = sum(LR(p) for p in positions([sum(counts) for counts in runs]))
    if moved > 10 * bound:
        assert (wanted - 1.0).abs().min() > 5 * bound, "a clock that stood still would have left them at 1"


def test_a_step_with_nothing_counted_is_an_error_before_it():
    for options in ({}, {"resident": True}, {"advance": "manual"}):
        optimizer = sgd(1)
        sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=100), clock=TOKENS, **options)
        before = optimizer.param_groups[0]["params"][0].detach().clone()
        for _ in range(2):
            with pytest.raises(ts.BindingError, match="clock of tokens would stand still"):
                optimizer.step()
        assert torch.equal(optimizer.param_groups[0]["params"][0], before)
        sched.count(10)
        optimizer.step()
        if options.get("advance") == "manual":
            sched.step()
        assert (lr_of(optimizer), sched.step_count) == (pytest.approx(0.9), 1)
        with pytest.raises(ts.BindingError, match="would stand still"):
            optimizer.step()


def test_counts_that_are_none_are_refused():
    sched = ts.attach(sgd(), lr=LR, clock=TOKENS)
    for wrong in (
        -1,
        1.5,
        True,
        "3",
        None,
        torch.tensor(1.5),
        torch.tensor([1, 2]),
        torch.tensor(True),
        torch.tensor(-4),
    ):
        with pytest.raises(ts.ScheduleError, match="count: n must be"):
            sched.count(wrong)
    assert sched.position == 0
    with pytest.raises(ts.BindingError, match=r"call sched\.count\(n\) instead of progress"):
        sched.progress(0.5)
    for call in (lambda s: s.count(3), lambda s: s.progress(0.5)):
        with pytest.raises(ts.BindingError, match=r"pass clock=ts\.clock"):
            call(ts.attach(sgd(), lr=LR))
    with pytest.raises(ts.BindingError, match="attach: clock must be"):
        ts.attach(sgd(), lr=LR, clock="tokens")
    sched.detach()
    with pytest.raises(ts.BindingError, match="detached"):
        sched.count(3)


# -- the device --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amp", [False, True], ids=["", "amp"])
def test_a_device_s_counts_are_never_read(amp):
    with fake_cuda():
        optimizer = optim.AdamW([nn.Parameter(torch.zeros(3, device="cuda"))], capturable=True)
        optimizer._warned_capturable_if_run_uncaptured = True  # by torch, of a step outside a capture
        optimizer.param_groups[0]["params"][0].grad = torch.zeros(3, device="cuda")
        sched = ts.attach(optimizer, lr=LR, clock=TOKENS)
        assert sched.slots[0].tensor
        consumed = torch.ones(1, dtype=torch.int64, device="cuda")
        with HostReads() as reads:
            for n in (7, consumed, consumed.to(torch.int32).view(())):
                sched.count(n)
                if amp:  # what the hook does after a fused step, which has no fake kernel
                    sched._mode.advance(optimizer.param_groups, torch.zeros(1, device="cuda"))
                else:
                    optimizer.step()
        assert reads.seen == []
        with HostReads() as reads:
            assert sched.step_count is not None
        assert len(reads.seen) == 1, "the probe sees a read"


def test_a_device_s_count_for_a_float_slot_is_refused_with_the_way_out():
    with fake_cuda():
        optimizer = optim.AdamW([nn.Parameter(torch.zeros(3, device="cuda"))], capturable=True)
        sched = ts.attach(optimizer, lr=LR, eps=WD + 1e-8, clock=TOKENS)
        assert {slot.tensor for slot in sched.slots} == {True, False}
        with pytest.raises(ts.BindingError, match=r"count: n is a tensor on cuda.*compile_step"):
            sched.count(torch.ones(1, dtype=torch.int64, device="cuda"))
        sched.count(3)


# -- one graph ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", ["auto", True])
def test_a_compiled_step_follows_the_clock_and_goes_back_and_forth(resident):
    optimizer = sgd()
    sched = ts.attach(
        optimizer, lr=LR, weight_decay=WD + 1e-3, clock=TOKENS, resident=resident, capacity=20_000
    )
    step = ts.compile_step(sched, backend="aot_eager")
    counts = [*COUNTS, 5, 6]
    with torch._dynamo.config.patch(error_on_recompile=True):
        used = run(sched, step, counts)
        with pytest.raises(ts.BindingError, match="would stand still"):
            step()
        assert used == pytest.approx([LR(p) for p in positions(counts)], rel=2 * one_ulp, abs=0.5e-6)
        sched.count(torch.tensor(400))
        optimizer.step()  # an eager one in between
        sched.count(500)
        step()
        assert (sched.position, sched.step_count) == (sum(counts) + 900, len(counts) + 2)
        sched.rewrite(lr=LR.take(sched.position) >> ts.linear(0.25, 0.0, steps=9_000))
        sched.count(4_500)
        step()
        assert lr_of(optimizer) == pytest.approx(0.125, rel=1e-6)
    step.release()
    assert sched.position == sum(counts) + 5_400


def test_counting_in_a_graph_of_one_s_own():
    optimizer = sgd(1)
    sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=1_000), clock=TOKENS)
    step = ts.compile_step(sched, backend="aot_eager")
    sched.count(100)
    step()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def train_step(n: torch.Tensor) -> None:
        sched.count(n)
        sched.count(1)
        step()

    for n in (99, 49, 149):
        train_step(torch.tensor(n))
    assert (sched.position, sched.step_count) == (400, 4)
    assert lr_of(optimizer) == pytest.approx(0.6)


# -- mixed precision ---------------------------------------------------------------------------------------------------


def scaled(optimizer: Any, step: Any, *, overflow: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.full((3,), float("inf") if overflow else 4.0)
    scaler.step(step)
    scaler.update()


@pytest.mark.parametrize("skipped", ["counted", "dropped"])
@pytest.mark.parametrize("how", ["float", "tensor", "graph"])
def test_what_a_skipped_step_consumed_is_counted_with_the_next_or_dropped(how, skipped):
    clock = ts.clock("tokens", skipped=skipped)
    fused = how != "graph"
    optimizer = sgd(1, fused=fused)
    sched = ts.attach(optimizer, lr=ts.linear(1.0, 0.0, steps=1_000), clock=clock, resident=how == "tensor")
    step = optimizer if fused else ts.compile_step(sched, backend="aot_eager")
    for n, overflow in ((100, False), (200, True), (50, False), (50, False)):
        sched.count(n)
        scaled(optimizer, step, overflow=overflow)
    consumed = 400 if skipped == "counted" else 200
    assert (sched.position, sched.step_count) == (consumed, 3)
    assert lr_of(optimizer) == pytest.approx(1.0 - consumed / 1_000)


def test_steps_that_are_skipped_on_the_host_are_counted_or_refused():
    optimizer = sgd(1)
    sched = ts.attach(optimizer, lr=LR, clock=TOKENS)
    for n, overflow in ((100, False), (200, True), (50, False)):
        sched.count(n)
        scaled(optimizer, optimizer, overflow=overflow)
    assert (sched.position, sched.step_count) == (350, 2)
    sched.detach()
    sched = ts.attach(optimizer, lr=LR, clock=ts.clock("tokens", skipped="dropped"))
    sched.count(5)
    optimizer.step()  # without a scaler there is nothing to drop
    sched.count(5)
    with pytest.raises(ts.BindingError, match="without a word to it"):
        scaled(optimizer, optimizer, overflow=False)
    assert sched.step_count == 1


# -- a run -------------------------------------------------------------------------------------------------------------


def attached(resident: Any = "auto", **options: Any) -> tuple[Any, ts.Attachment]:
    optimizer = sgd(2, momentum=0.9)
    given = {"lr": LR, "clock": TOKENS, "resident": resident, **options}
    return optimizer, ts.attach(optimizer, **given)


def saved(thing: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("resident", SLOTS.values(), ids=SLOTS)
@pytest.mark.parametrize("what", ["optimizer", "schedule", "both"])
def test_a_run_goes_on_from_its_checkpoint_where_it_was(what, resident):
    optimizer, sched = attached(resident)
    run(sched, optimizer.step, COUNTS[:3])
    sched.count(11)  # as of a step that was skipped
    checkpoint = saved({"optimizer": optimizer.state_dict(), "schedule": sched.state_dict()})
    run(sched, optimizer.step, COUNTS[3:])

    other, again = attached(resident)
    if what != "schedule":
        other.load_state_dict(checkpoint["optimizer"])
    if what != "optimizer":
        again.load_state_dict(checkpoint["schedule"])
    assert (again.position, again.step_count) == (sum(COUNTS[:3]), 3)
    assert isinstance(checkpoint["optimizer"]["param_groups"][0]["lr"], float)
    run(again, other.step, COUNTS[3:])
    assert (again.position, again.step_count) == (sched.position, sched.step_count) == (sum(COUNTS) + 11, 6)
    assert lr_of(other) == lr_of(optimizer)


def test_states_of_another_clock_are_refused_and_those_of_other_schedules_compared():
    _, tokens = attached()
    _, samples = attached(clock=ts.clock("samples"))
    _, steps = attached(clock=None)
    for one, other in ((tokens, samples), (tokens, steps), (steps, tokens)):
        with pytest.raises(ts.BindingError, match="was saved on a clock of"):
            other.load_state_dict(one.state_dict())
    long = ts.warmup_cosine(1.0, total=10**12, warmup=10**9)
    _kept, a = attached(lr=long)
    _too, b = attached(lr=long * ts.linear(1.0, 0.5, steps=10**12))
    a.seek(10**9)
    with pytest.raises(ts.BindingError, match="first differ at step"):
        b.load_state_dict(a.state_dict())
    b.load_state_dict(a.state_dict(), on_mismatch="keep_step")
    assert b.position == 10**9
    b.load_state_dict(a.state_dict(), on_mismatch="saved")
    assert lr_of(b.optimizer) == 1.0
    state = a.state_dict()
    for wrong in ({"unit": "tokens"}, 3, {"unit": "tokens", "position": -1, "counted": 0}):
        with pytest.raises(ts.ScheduleError, match="clock"):
            a.load_state_dict(state | {"clock": wrong})


@pytest.mark.parametrize("resident", SLOTS.values(), ids=SLOTS)
def test_copies_late_groups_rewrites_and_detaching_keep_the_clock(resident):
    optimizer, sched = attached(resident, new_groups={"lr": 0.5 * LR}, capacity=20_000)
    run(sched, optimizer.step, [1_000, 500])
    for other in (copy.deepcopy(sched), pickle.loads(pickle.dumps(sched))):
        assert (other.position, other.step_count, lr_of(other.optimizer)) == (1_500, 2, lr_of(optimizer))
        run(other, other.optimizer.step, [500])
        assert lr_of(other.optimizer) == pytest.approx(LR(2_000), rel=1e-6)
    assert sched.position == 1_500, "a copy's clock is its own"
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    run(sched, optimizer.step, [500])
    assert lr_of(optimizer, 2) == pytest.approx(0.5 * LR(2_000), rel=1e-6)
    sched.rewrite(lr=ts.linear(1.0, 0.0, steps=20_000))
    assert (lr_of(optimizer), sched.position, sched.step_count) == (pytest.approx(0.9), 2_000, 3)
    sched.seek(10_000)
    assert (lr_of(optimizer, 2), sched.position, sched.step_count) == (pytest.approx(0.5), 10_000, 3)
    sched.detach()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    assert not any("schedule" in key for key in optimizer.param_groups[0])
    optimizer.step()  # no clock, no count


def test_another_writer_is_found_and_the_same_value_is_no_harm():
    optimizer, sched = attached()
    run(sched, optimizer.step, [123])
    sched.count(5)
    optimizer.param_groups[0]["lr"] = float(str(lr_of(optimizer)))
    optimizer.step()
    sched.count(5)
    optimizer.param_groups[0]["lr"] = 0.3
    with pytest.raises(ts.BindingError, match=r"at step 2, tokens 128 the schedule put"):
        optimizer.step()


def test_print_says_where_it_is_and_how_far_the_lines_are_off():
    _, sched = attached(lr=ts.warmup_cosine(3e-4, total=10**12, warmup=10**9))
    assert str(sched).splitlines()[0] == "step 0, tokens 0, advances after each optimizer.step()"
    assert (
        str(sched).splitlines()[-1]
        == "clock('tokens'): 7456 rows, linear in between, at most 1e-08 of the peak off"
    )
    assert sched.plot(steps=1_000)


def test_free_values_and_a_trainer_s_face():
    optimizer = sgd(1)
    sched = ts.attach(optimizer, lr=LR, free={"kl": ts.linear(0.0, 1.0, steps=1_000)}, clock=TOKENS)
    kl = sched.value("kl")
    face = sched.lr_scheduler()
    for n in (100, 150):
        sched.count(n)
        optimizer.step()
        face.step()
        face.step()  # as Accelerate does, once a process
    assert (kl.item(), sched.position, face.last_epoch, face.get_last_lr()) == (
        0.25,
        250,
        2,
        [lr_of(optimizer)],
    )
    with pytest.raises(ts.BindingError, match="on a clock of tokens"):
        face.last_epoch = 7


def test_a_compiled_momentum_that_touches_0_is_found_on_a_clock_of_billions():
    optimizer = sgd(1, momentum=0.9)
    sched = ts.attach(optimizer, momentum=ts.linear(0.9, 0.0, steps=10**12), clock=TOKENS)
    with pytest.raises(ts.BindingError, match="is 0 at tokens 1000000000000"):
        ts.compile_step(sched, backend="aot_eager")


# -- the part of the run that is over ----------------------------------------------------------------------------------


def test_a_progress_clock_is_told_or_asks():
    lr = ts.wsd(1.0, total=1_000_000, warmup=0.1, decay=0.5)
    hours = iter([0.05, 0.5, 0.75, 1.0])
    asked, told = sgd(1), sgd(1)
    by_function = ts.attach(asked, lr=lr, clock=ts.clock(progress=lambda: next(hours)))
    by_hand = ts.attach(told, lr=lr, clock=ts.clock(progress=True))
    for part in (0.05, 0.5, 0.75, 1.0):
        by_hand.progress(part)
        told.step()
        asked.step()
        assert lr_of(asked) == lr_of(told) == pytest.approx(lr(round(part * 1_000_000)), abs=1e-6)
    with pytest.raises(ts.BindingError, match=r"call sched\.progress\(x\) before each"):
        told.step()
    with pytest.raises(ts.BindingError, match=r"progress went back, from 1 to 0\.5"):
        by_hand.progress(0.5)
    for wrong in (1.5, -0.1, float("nan"), "x", True):
        with pytest.raises(ts.ScheduleError, match="progress"):
            by_hand.progress(wrong)
    for call, text in (
        (lambda: by_function.progress(0.5), "asks the function"),
        (lambda: by_hand.count(3), "instead of count"),
    ):
        with pytest.raises(ts.BindingError, match=text):
            call()


def test_a_progress_clock_is_resumed_by_the_part_that_was_saved():
    lr = ts.linear(1.0, 0.0, steps=1_000_000)
    optimizer, again = sgd(1), sgd(1)
    sched = ts.attach(optimizer, lr=lr, clock=ts.clock(progress=True))
    sched.progress(0.25)
    optimizer.step()
    resumed = ts.attach(again, lr=lr, clock=ts.clock(progress=True))
    resumed.load_state_dict(saved(sched.state_dict()))
    assert (resumed.position / 1_000_000, lr_of(again)) == (0.25, 0.75)
    with pytest.raises(ts.BindingError, match="went back"):
        resumed.progress(0.1)
    resumed.progress(0.5)
    again.step()
    assert lr_of(again) == 0.5


# -- epochs and fractions, where the number of steps is not known beforehand -------------------------------------------


def test_epochs_of_a_loader_of_unknown_length():
    """A schedule of 10 epochs, on a clock of samples: an epoch is the data's length, however it is batched."""
    data, epochs = 23, 10
    lr = ts.warmup_cosine(1.0, total=epochs, warmup=1)
    optimizer = sgd(1)
    sched = ts.attach(optimizer, lr=lr.stretch(data), clock=ts.clock("samples"))
    for epoch in range(epochs):
        assert lr_of(optimizer) == pytest.approx(lr(epoch), abs=1e-6)
        for batch in torch.arange(data).split(5):  # the last one is smaller
            sched.count(len(batch))
            optimizer.step()
    assert (sched.position, lr_of(optimizer)) == (data * epochs, pytest.approx(0.0, abs=1e-6))


def test_fractions_are_bound_when_the_length_is_known():
    template = ts.parse("wsd(0.5, total=?, warmup=0.1, decay=0.2)")
    optimizer = sgd(1)
    sched = ts.attach(optimizer, lr=template.bind(total=2_000), clock=TOKENS)
    used = run(sched, optimizer.step, [100, 100, 1_400, 200, 200])
    assert [*used, lr_of(optimizer)] == pytest.approx([0.0, 0.25, 0.5, 0.5, 0.25, 0.0], abs=1e-6)


def test_a_checkpoint_of_another_clock_that_was_loaded_before_is_said():
    lr = ts.linear(1.0, 0.0, steps=1000)
    saved = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])
    sched = ts.attach(saved, lr=lr)
    saved.step()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])
    optimizer.load_state_dict(saved.state_dict())
    resumed = ts.attach(optimizer, lr=lr, clock=ts.clock("tokens"))
    resumed.count(10)
    with pytest.warns(UserWarning, match="under schedules on another clock, and these begin at step 0"):
        optimizer.step()
    assert (sched.step_count, resumed.position) == (1, 10)
