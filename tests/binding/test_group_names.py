"""Rules by the name of a group: attach, new_groups, adopt, rewrite, value and print."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts

A = ts.linear(1.0, 0.0, steps=4)
B = ts.linear(0.5, 0.25, steps=4)


def named(*names: str | None, **options: Any) -> optim.AdamW:
    groups = [{"params": [nn.Parameter(torch.zeros(2))]} | ({"name": n} if n else {}) for n in names]
    return optim.AdamW(groups, **options)


def lrs(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def test_each_group_follows_the_schedule_of_its_name_in_whatever_order():
    optimizer = named("decay", "no_decay")
    sched = ts.attach(
        optimizer,
        lr={"no_decay": B, "decay": A},
        weight_decay={"decay": 0.1 * A, "no_decay": None},
        betas={"decay": (None, ts.linear(0.9, 0.99, steps=4)), "no_decay": None},
    )
    for step in range(6):
        assert lrs(optimizer) == [A(step), B(step)]
        optimizer.step()
    assert lrs(optimizer) != [A(0), B(0)], "the control: a frozen value"
    assert [slot.name for slot in sched.slots] == [
        "lr[group 0]", "weight_decay[group 0]", "betas[1][group 0]", "lr[group 1]"
    ]  # fmt: skip


def test_value_and_print_know_the_names():
    optimizer = named("decay", None, "no_decay")
    sched = ts.attach(optimizer, lr=[A, A, B])
    assert sched.value("lr", group="no_decay") == B(0)
    assert sched.value("lr", "decay") == A(0)
    assert str(sched).splitlines()[1:4] == [
        "group  name      key  slot   value  schedule",
        "0-1    decay, -  lr   float  1      linear(1.0, 0.0, steps=4)",
        "2      no_decay  lr   float  0.5    linear(0.5, 0.25, steps=4)",
    ]
    with pytest.raises(ts.BindingError, match="no param_group is named 'nodecay'; did you mean 'no_decay'"):
        sched.value("lr", "nodecay")
    with pytest.raises(ts.BindingError, match="no slot is 'eps' of group 'decay'"):
        sched.value("eps", "decay")


@pytest.mark.parametrize(
    ("names", "rule", "text"),
    [
        (("decay", "no_decay"), {"decay": A}, r"lr: there is no entry for group 1 \('no_decay'\); None leaves it"),
        (("decay", None), {"decay": A}, "no entry for group 1, which has no 'name'; name it, or pass a list"),
        (("decay", "rest"), {"decy": A, "rest": B}, "no param_group is named 'decy'; did you mean 'decay'"),
        (("decay", "rest"), {"x": A, "rest": B}, "no param_group is named 'x'; There are 'decay', 'rest'"),
        (("a", "b", "a"), {"a": A, "b": B}, "groups 0, 2 are all named 'a'; give each a name"),
        ((None, None), {"a": A}, "There are 2 param_groups, none with a 'name'"),
        (("a", "b"), {0: A, 1: B}, "lr: a dict has an entry for each group by its name, and 0 is no name"),
        (("a", "b"), {}, r"no entry for group 0 \('a'\)"),
        (("a", "b"), {"a": None, "b": None}, "nothing but None for lr"),
        (("a", "b"), {"a": {"b": A}, "b": A}, "lr of group 0: expected a schedule or a number, got dict"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_that_lists_what_there_is(names, rule, text):
    optimizer = named(*names)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ts.BindingError, match=text):
        ts.attach(optimizer, lr=rule)
    assert optimizer.param_groups == before


def test_rewrite_takes_some_names_and_leaves_the_others_their_schedules():
    optimizer = named("decay", "no_decay", None)
    sched = ts.attach(optimizer, lr=[A, A, A])
    sched.rewrite(lr={"no_decay": B})
    assert lrs(optimizer) == [A(0), B(0), A(0)]
    with pytest.raises(ts.BindingError, match="no param_group is named 'other'"):
        sched.rewrite(lr={"decay": B, "other": B})
    assert lrs(optimizer) == [A(0), B(0), A(0)]


def test_late_groups_follow_the_rule_of_their_name():
    optimizer = named("decay")
    ts.attach(optimizer, lr={"decay": A}, new_groups={"lr": {"head": B, "adapter": 0.5 * B}})
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "name": "head"})
    optimizer.step()
    assert lrs(optimizer) == [A(1), B(1)]
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "name": "tail"})
    with pytest.raises(ts.BindingError, match=r"no entry for group 2 \('tail'\), but for 'head', 'adapter'"):
        optimizer.step()


def test_adopt_takes_the_names_of_the_new_groups():
    optimizer = named("decay")
    sched = ts.attach(optimizer, lr=A)
    for name in ("head", "tail"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "name": name})
    with pytest.raises(ts.BindingError, match="no param_group is named 'decay'; There are 'head', 'tail'"):
        sched.adopt(lr={"decay": A, "head": B, "tail": A})
    sched.adopt(lr={"tail": B, "head": None})
    assert lrs(optimizer) == [A(0), 1e-3, B(0)]


def test_a_checkpoint_keeps_the_names_and_the_schedules():
    optimizer, other = named("decay", "no_decay"), named("decay", "no_decay")
    sched = ts.attach(optimizer, lr={"decay": A, "no_decay": B})
    optimizer.step()
    again = ts.attach(other, lr={"no_decay": B, "decay": A})
    other.load_state_dict(optimizer.state_dict())
    again.load_state_dict(sched.state_dict())
    assert lrs(other) == [A(1), B(1)]
    assert again.value("lr", "no_decay") == B(1)
