"""Whose entries are whose in an optimizer's checkpoint: several attachments, in any order."""

from __future__ import annotations

import copy
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import optim

import tensorsched as ts
from tensorsched.binding.carried import Carrier, shared_out
from tests.binding.test_attach import LR, WD, M, train, two_groups

TOKENS = ts.clock("tokens")
WAYS = {
    "lr": lambda o: ts.attach(o, lr=LR),
    "weight_decay": lambda o: ts.attach(o, weight_decay=WD, clock=TOKENS),
    "momentum": lambda o: ts.attach(o, momentum=M * ts.live("x", 1.0)),
}


def attached(order: tuple[str, ...]) -> tuple[optim.Optimizer, dict[str, ts.Attachment]]:
    optimizer = two_groups(optim.SGD, momentum=0.9)
    return optimizer, {name: WAYS[name](optimizer) for name in order}


def run(optimizer: optim.Optimizer, scheds: dict[str, ts.Attachment], steps: int) -> None:
    for _ in range(steps):
        if "weight_decay" in scheds:
            scheds["weight_decay"].count(3)
        train(optimizer, steps=1)


def saved(order: tuple[str, ...]) -> dict[str, Any]:
    """After 3 steps and one more that two of them were sought away from: each is at a place of its own."""
    optimizer, scheds = attached(order)
    run(optimizer, scheds, 3)
    scheds["lr"].seek(5)
    scheds["momentum"].inputs["x"].fill_(0.5)
    return copy.deepcopy(optimizer.state_dict())


def places(scheds: dict[str, ts.Attachment]) -> dict[str, Any]:
    return {name: sched.position for name, sched in scheds.items()} | {
        "x": scheds["momentum"].inputs["x"].item()
    }


@pytest.mark.parametrize("loads", ["before", "after"])
@pytest.mark.parametrize("order", list(itertools.permutations(WAYS)))
def test_each_finds_its_own_in_whatever_order_they_are_attached(order, loads):
    state = saved(("lr", "weight_decay", "momentum"))
    optimizer = two_groups(optim.SGD, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if loads == "before":
            optimizer.load_state_dict(state)
        scheds = {name: WAYS[name](optimizer) for name in order}
        if loads == "after":
            optimizer.load_state_dict(state)
        expected = {"lr": 5, "weight_decay": 9, "momentum": 3, "x": 0.5}
        assert places(scheds) == expected
        again = copy.deepcopy(optimizer.state_dict())
        run(optimizer, scheds, 1)
        optimizer.load_state_dict(again)  # what this run saves is found by this run
        assert places(scheds) == expected
    other, theirs = attached(order[::-1])
    other.load_state_dict(again)
    assert places(theirs) == expected


def test_one_that_is_changed_takes_what_the_others_leave():
    state = saved(("lr", "weight_decay", "momentum"))
    optimizer = two_groups(optim.SGD, momentum=0.9)
    optimizer.load_state_dict(state)
    scheds = {name: WAYS[name](optimizer) for name in ("momentum", "weight_decay")}
    scheds["lr"] = ts.attach(optimizer, lr=0.5 * LR)
    assert places(scheds) == {"lr": 5, "weight_decay": 9, "momentum": 3, "x": 0.5}
    with pytest.warns(UserWarning, match="saved under other schedules"):
        run(optimizer, scheds, 1)


def test_one_alone_finds_itself_behind_one_that_is_gone():
    optimizer, scheds = attached(("lr", "momentum"))
    run(optimizer, scheds, 2)
    scheds["lr"].detach()
    run(optimizer, scheds, 1)
    state = copy.deepcopy(optimizer.state_dict())
    assert "schedule_step" not in state["param_groups"][0]
    fresh, theirs = attached(("momentum",))
    fresh.load_state_dict(state)
    assert theirs["momentum"].step_count == 3


def test_no_two_have_the_same_entries():
    group = {Carrier(0).schedules: 11, Carrier(2).schedules: torch.tensor(22)}
    wanted = [(Carrier(0), 22), (Carrier(1), 11), (Carrier(2), 33)]
    assert [c.number for c in shared_out(wanted, group)] == [2, 0, 1]
    assert [c.number for c in shared_out(wanted, {})] == [0, 1, 2]
    assert [c.number for c in shared_out([(Carrier(), 22)], group, [Carrier(0), Carrier(2)])] == [1]
