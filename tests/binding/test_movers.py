"""The hot path: every slot of every group is checked, a step is one row further, and an error changes nothing."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tensorsched.binding.movers import Mover, fill_all, float_mover, joined, tensor_mover
from tensorsched.engine import ClockFloatEngine, FloatEngine, ScheduleEngine, tabulate, tabulate_on_clock
from tensorsched.param_groups import Place

STEPS = 40
COUNTS = pytest.mark.parametrize("count", [1, 2, 9, 130])
KINDS = pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])


class Thing:
    """Nothing but param_groups."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups


class Bound:
    """A mover, with the groups of a thing."""

    def __init__(self, thing: Thing, mover: Mover) -> None:
        self.thing, self.mover = thing, mover

    def check(self) -> bool:
        return self.mover.check(self.thing.param_groups)

    def advance(self, found_inf: torch.Tensor | None) -> bool | None:
        return self.mover.advance(self.thing.param_groups, found_inf)


def curve(i: int) -> ts.Schedule:
    return ts.linear(1.0 + i, 0.5, steps=STEPS)


def mover(thing: Thing, places: list[Place], *, tensor: bool) -> Any:
    """A mover with a schedule of its own for each place, and its engine."""
    schedules = {place.name: curve(i) for i, place in enumerate(places)}
    if tensor:
        engine = ScheduleEngine(tabulate(schedules, dtype=torch.float64))
        views = {place: engine.value(place.name) for place in places}
        return Bound(thing, tensor_mover(thing.param_groups, views, engine)), engine
    table = tabulate(schedules, dtype=torch.float64)
    floats = FloatEngine(table)
    columns = {place: table.live_column[place.name] for place in places}
    return Bound(thing, float_mover(thing.param_groups, columns, floats)), floats


Betas = namedtuple("Betas", "first second")  # noqa: PYI024  what is replaced is a namedtuple of any kind


def thing(count: int) -> Thing:
    return Thing(
        [{"params": [], "lr": 0.0, "wd": 0.0, "betas": Betas(0.0, 0.25), "i": i} for i in range(count)]
    )


def all_places(count: int, shape: str) -> list[Place]:
    """One key of all groups in order; of some, out of order; several keys; elements of tuples beside them."""
    lr = [Place(i, "lr") for i in range(count)]
    if shape == "one key":
        return lr
    if shape == "some groups":
        return lr[::-2]
    if shape == "two keys":
        return [p for i in range(count) for p in (Place(i, "wd"), Place(i, "lr"))]
    return [*lr, *(Place(i, "betas", 0) for i in range(count))]


SHAPES = pytest.mark.parametrize("shape", ["one key", "some groups", "two keys", "elements"])


def held(thing: Thing, places: list[Place]) -> list[float]:
    return [float(place.read(thing.param_groups)) for place in places]


@KINDS
@SHAPES
@COUNTS
def test_a_step_puts_the_next_row_into_every_slot_and_nowhere_else(count, shape, tensor):
    it, places = thing(count), all_places(count, shape)
    moves, engine = mover(it, places, tensor=tensor)
    for step in range(STEPS + 5):
        assert engine.step_count == step
        assert moves.check()
        assert held(it, places) == [curve(i)(step) for i in range(len(places))]
        assert moves.advance(None) is not False
    rest = {(g, k) for g in range(count) for k in ("lr", "wd")} - {(p.group, p.key) for p in places}
    assert all(it.param_groups[g][k] == 0.0 for g, k in rest)
    assert all(group["betas"].second == 0.25 and group["i"] == i for i, group in enumerate(it.param_groups))


@KINDS
@SHAPES
@COUNTS
def test_a_write_to_any_one_slot_is_seen_at_once(count, shape, tensor):
    it, places = thing(count), all_places(count, shape)
    moves, engine = mover(it, places, tensor=tensor)
    moves.advance(None)
    for place in places:
        mine = place.read(it.param_groups)
        place.write(it.param_groups, torch.tensor(7.0) if tensor else 7.0)
        assert not moves.check(), place
        place.write(it.param_groups, mine)
        assert moves.check()
    assert engine.step_count == 1


@SHAPES
@COUNTS
def test_a_step_over_a_float_that_somebody_wrote_changes_nothing(count, shape):
    it, places = thing(count), all_places(count, shape)
    moves, engine = mover(it, places, tensor=False)
    moves.advance(None)
    for place in places:
        mine = place.read(it.param_groups)
        place.write(it.param_groups, 7.0)
        before = held(it, places)
        assert moves.advance(None) is False
        assert (held(it, places), engine.step_count) == (before, 1)
        place.write(it.param_groups, mine)
    assert moves.advance(None) is True
    assert held(it, places) == [curve(i)(2) for i in range(len(places))], "no row was lost"


@KINDS
@pytest.mark.parametrize("shape", ["one key", "elements"])
def test_a_key_that_is_gone_and_groups_that_are_others_are_seen(shape, tensor):
    it, places = thing(3), all_places(3, shape)
    moves, engine = mover(it, places, tensor=tensor)
    key = places[-1].key
    mine = it.param_groups[2].pop(key)
    assert not moves.check()
    if not tensor:
        assert moves.advance(None) is False
        assert (held(it, places[:2]), engine.step_count) == ([1.0, 2.0], 0)
    it.param_groups[2][key] = mine
    assert moves.check()
    it.param_groups.append({"params": []})
    assert not moves.check()
    it.param_groups.pop()
    group = it.param_groups[0]
    it.param_groups[0] = group | {
        "params": [nn.Parameter(torch.ones(3))]
    }  # parameters do not compare as one value
    assert not moves.check()
    it.param_groups[0] = group
    assert moves.check()


@KINDS
def test_groups_that_change_places_are_seen_even_if_they_hold_the_same(tensor):
    it = Thing([{"params": [torch.ones(1)], "lr": 0.0} for _ in range(2)])
    moves, _ = mover(it, all_places(2, "one key"), tensor=tensor)
    it.param_groups.reverse()
    for index, place in enumerate(all_places(2, "one key")):
        place.write(it.param_groups, it.param_groups[1 - index]["lr"])
    assert not moves.check()


def test_a_tensor_that_is_filled_is_seen():
    it, places = thing(9), all_places(9, "one key")
    moves, engine = mover(it, places, tensor=True)
    it.param_groups[4]["lr"].fill_(7.0)
    assert not moves.check()
    engine.seek(0)
    assert moves.check()


@KINDS
def test_found_inf_stops_the_count(tensor):
    it, places = thing(2), all_places(2, "one key")
    moves, engine = mover(it, places, tensor=tensor)
    moves.advance(torch.ones(1))
    assert (engine.step_count, held(it, places)) == (0, [1.0, 2.0])
    moves.advance(torch.zeros(1))
    assert (engine.step_count, held(it, places)) == (1, [curve(0)(1), curve(1)(1)])


def test_joined_movers_count_together_or_not_at_all():
    it = thing(2)
    (floats, a), (tensors, b) = (
        mover(it, [Place(0, "lr")], tensor=False),
        mover(it, [Place(1, "wd")], tensor=True),
    )
    both = Bound(it, joined([tensors.mover, floats.mover], floats=True))
    both.advance(None)
    assert (a.step_count, b.step_count) == (1, 1)
    both.advance(torch.ones(1))
    assert (a.step_count, b.step_count) == (1, 1)
    it.param_groups[0]["lr"] = 7.0
    assert not both.check()
    assert both.advance(None) is False
    assert (a.step_count, b.step_count) == (1, 1)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("columns", [1, 3, 700])
def test_rows_go_on_across_the_pieces_that_they_are_unpacked_in(columns, scaled):
    base = ts.cosine(1.0, 0.0, steps=3_000)
    schedules = {f"c{i}": (1.0 + i) * base for i in range(columns)}
    table = tabulate(schedules, dtype=torch.float64, scale=scaled)
    exact = np.stack([s.values(3_010) for s in schedules.values()], axis=1)
    engine = FloatEngine(table)
    for start in (0, 1, 2_500, 2_999, 5_000):
        engine.seek(start)
        rows = engine.following()
        for step in range(start + 1, min(start + 1_200, 3_010)):
            assert next(rows) == tuple(exact[step])


@pytest.mark.parametrize("columns", [1, 700])
def test_a_scaled_cpu_table_goes_on_across_its_windows(columns):
    """Products are computed a window of rows at a time; a seek may land before, in and behind the present one."""
    base = ts.cosine(1.0, 0.0, steps=20_000 if columns == 1 else 300)
    schedules = {f"c{i}": (1.0 + i) * base for i in range(columns)}
    scaled, equal = (ScheduleEngine(tabulate(schedules, scale=scale)) for scale in (True, False))
    for start in (0, 250, 16_000, 40, 19_990, 10**9):
        for engine in (scaled, equal):
            engine.seek(start)
        for _ in range(700 if columns == 1 else 60):
            assert torch.equal(scaled.live, equal.live)
            scaled.advance(), equal.advance()


@KINDS
@pytest.mark.parametrize("count", [1, 130])
def test_an_attached_optimizer_finds_a_write_to_any_group_before_its_step(count, tensor):
    params = [nn.Parameter(torch.ones(1)) for _ in range(count)]
    optimizer = optim.SGD([{"params": [p]} for p in params], lr=0.5)
    sched = ts.attach(optimizer, lr=ts.linear(0.5, 0.0, steps=9), resident=tensor)
    for p in params:
        p.grad = torch.ones(1)
    for index in {0, count // 2, count - 1}:
        optimizer.step()
        before = [p.item() for p in params]
        mine = optimizer.param_groups[index]["lr"]
        optimizer.param_groups[index]["lr"] = 0.125
        with pytest.raises(ts.BindingError, match=rf"lr\[group {index}\] no longer follows.*holds 0.125"):
            optimizer.step()
        assert [p.item() for p in params] == before
        optimizer.param_groups[index]["lr"] = mine
    optimizer.step()
    assert sched.step_count == len({0, count // 2, count - 1}) + 1


def test_a_pre_hook_that_writes_after_ours_is_found_before_the_count():
    optimizer = optim.SGD([nn.Parameter(torch.ones(1)) for _ in range(2)], lr=0.5)
    sched = ts.attach(optimizer, lr=ts.linear(0.5, 0.0, steps=8))
    optimizer.register_step_pre_hook(lambda o, *_: o.param_groups[0].update(lr=0.125))
    with pytest.raises(ts.BindingError, match=r"holds 0\.125"):
        optimizer.step()
    assert sched.step_count == 0


def test_the_handle_shows_what_users_use():
    sched = ts.attach(optim.SGD([nn.Parameter(torch.ones(1))]), lr=0.5)
    assert [name for name in dir(sched) if name[0] != "_"] == [
        *("adopt", "attached", "check", "cool_down", "count", "detach", "extend", "free", "hand_over"),
        *(
            "history",
            "inputs",
            "load_state_dict",
            "log",
            "lr_scheduler",
            "observe",
            "optimizer",
            "plot",
            "position",
            "progress",
        ),
        *("rewrite", "schedule", "seek", "slots", "state_dict", "step", "step_count", "used", "value"),
    ]


def test_an_attachment_that_is_never_compiled_carries_nothing_of_it():
    sched = ts.attach(optim.SGD([nn.Parameter(torch.ones(1))]), lr=0.5)
    assert sched._graph is None


@COUNTS
def test_on_a_clock_a_write_between_check_and_move_moves_neither_slots_nor_counts(count):
    places = [Place(i, "lr") for i in range(count)]
    table = tabulate_on_clock({place.name: curve(i) for i, place in enumerate(places)}, ts.clock("tokens"))
    engine, it = ClockFloatEngine(table), thing(count)
    bound = Bound(it, float_mover(it.param_groups, {p: table.live_column[p.name] for p in places}, engine))
    engine.count(7)
    assert bound.check()
    it.param_groups[-1]["lr"] = 5.0
    held = [group["lr"] for group in it.param_groups]
    assert bound.advance(None) is False
    assert engine.where == (0, 0, 7)
    assert all(group["lr"] is before for group, before in zip(it.param_groups, held, strict=True))
    bound = Bound(it, float_mover(it.param_groups, {p: table.live_column[p.name] for p in places}, engine))
    assert bound.advance(torch.ones(1)) is None
    assert engine.where == (0, 0, 7)
    assert bound.advance(None) is True
    assert engine.where == (7, 1, 7)
    assert bound.check()
    assert [group["lr"] for group in it.param_groups] == table.at(7).tolist()


def test_a_tensor_that_a_group_holds_is_filled_and_stays():
    tensor, last = torch.tensor(0.5), 0.25
    groups = [{"lr": last}, {"lr": tensor}]
    fill_all(groups, "lr", last, 0.125)
    assert groups == [{"lr": 0.125}, {"lr": tensor}]
    assert groups[1]["lr"] is tensor
    assert tensor.item() == 0.125
