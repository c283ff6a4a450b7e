"""The words that people bring from elsewhere: each is answered with what to write here, and nothing has changed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn, optim

import tensorsched as ts

LR = ts.cosine(1e-3, 0.0, steps=100)


def adamw(groups: int = 1) -> optim.AdamW:
    return optim.AdamW([{"params": [nn.Parameter(torch.ones(2))]} for _ in range(groups)], lr=0.5)


def plain(optimizer: optim.Optimizer) -> list[dict[str, object]]:
    return [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]


BY_NAME = "attach() takes every hyperparameter by its name: write attach(optimizer, lr="
LONG = LR >> ts.linear(0.0, 0.001, steps=10) >> ts.exponential(0.001, 0.0001, steps=100)
CALLS = [
    (lambda o: ts.attach(o, LR), BY_NAME + "cosine(0.001, 0.0, steps=100))"),
    (lambda o: ts.attach(o, 1e-3), BY_NAME + "0.001)"),
    (lambda o: ts.attach(o, LONG), BY_NAME + f"{LONG!r})"),  # whole, to be copied
    (lambda o: ts.attach(o, 10**5000), BY_NAME + "<int too large to show>)"),
    (lambda o: ts.attach(LR, o), BY_NAME + "cosine(0.001, 0.0, steps=100))"),
    (lambda o: ts.attach(o, LR, ts.constant(0.1)), BY_NAME),
    (lambda _: ts.attach(lr=LR), BY_NAME + "schedule)"),
    (lambda o: ts.attach(o, optimizer=o, lr=LR), BY_NAME),
    (lambda o: ts.attach(o, learning_rate=LR), "no hyperparameter 'learning_rate'; write lr=schedule"),
    (lambda o: ts.attach(o, wd=LR), "no hyperparameter 'wd'; write weight_decay=schedule"),
    (lambda o: ts.attach(o, beta2=LR), "no hyperparameter 'beta2'; write betas=(None, schedule)"),
    (lambda o: ts.attach(o, T_max=100), "no hyperparameter 'T_max'; that is said to a schedule", "lr=ts.cosine(peak, floor, steps=n)"),
    (lambda o: ts.attach(o, lr=LR, gamma=0.1), "'gamma'", "lr=ts.step_decay(start, every=n, factor=gamma)"),
    (lambda o: ts.attach(o, total_steps=9), "'total_steps'", "lr=ts.warmup_cosine(peak, total=n, warmup=w)"),
    (lambda o: ts.attach(o, lr=LR, warmup_steps=9), "'warmup_steps'", "lr=ts.warmup_cosine(peak, total=n, warmup=w)"),
    (lambda o: ts.attach(o, scheduler=LR), "'scheduler'", "**ts.record(scheduler, steps)"),
    (lambda o: ts.attach(o, lr=np.linspace(1, 0, 9)), "got ndarray (values: write lr=ts.from_values(values))"),
    (lambda o: ts.attach(o, lr=torch.linspace(1, 0, 9)), "got Tensor (values: write lr=ts.from_values(values))"),
    (lambda o: ts.attach(o, lr=torch.tensor(0.1)), "got Tensor (one number: write lr=value.item())"),
    (lambda o: ts.attach(o, lr=[[0.1, 0.2]]), "got list (values: write lr=ts.from_values(values))"),
    (lambda o: ts.attach(o, lr=[0.3, 0.2, 0.1]), "if it holds a value for each step, write lr=ts.from_values([0.3, 0.2, 0.1])"),
    (lambda o: ts.attach(o, betas=[ts.linear(0.8, 0.9, steps=4), None]), "for the elements of betas write a tuple: betas=(linear(0.8, 0.9, steps=4), None)"),
    (lambda o: ts.attach(o, lr="cosine(1e-3, 0, steps=9)"), "write lr=ts.parse('cosine(1e-3, 0, steps=9)')"),
    (lambda o: ts.attach(o, lr={"kind": "cosine"}), "write ts.from_dict(config)"),
    (lambda o: ts.attach(o, lr=lambda step: step), "write lr=ts.from_function(fn, steps=n)"),
    (lambda o: ts.attach(o, lr=optim.lr_scheduler.LambdaLR(adamw(), lambda _: 1.0)), "a torch scheduler drives the optimizer by itself", "**ts.record(scheduler, steps)"),
    (lambda o: ts.attach(o.param_groups[0]["params"], lr=LR), "has no param_groups", "build optimizer = torch.optim.AdamW(model.parameters())"),
    (lambda _: ts.attach(nn.Linear(2, 2).parameters(), lr=LR), "generator has no param_groups", "build optimizer = torch.optim.AdamW"),
    (lambda _: ts.attach(nn.Linear(2, 2), lr=LR), "Linear has no param_groups", "build optimizer = torch.optim.AdamW"),
    (lambda _: ts.attach(optim.AdamW, lr=LR), "it is a class: build AdamW(model.parameters())"),
    (lambda o: ts.attach([o, adamw()], lr=LR), "attach to each optimizer by itself"),
    (lambda _: ts.attach(optim.lr_scheduler.LambdaLR(adamw(), lambda _: 1.0), lr=LR), "pass the optimizer itself, its .optimizer"),
    (ts.compile_step, "compile_step: it takes what attach() returned, or a ts.Plan of several, got AdamW: write sched = ts.attach(optimizer, lr=schedule)"),
    (lambda o: ts.compile_step(o.step), "compile_step: it takes what attach() returned, or a ts.Plan of several, got "),
    (lambda o: ts.record(o, 100), "record() takes a scheduler, and AdamW is an optimizer: write ts.record(scheduler, steps)"),
    (lambda _: ts.record(optim.lr_scheduler.LambdaLR(adamw(), lambda _: 1.0)), "record: missing a required argument: 'steps'; it is record(scheduler, steps, *, every=1, increment=None, at=None)"),
    (lambda o: ts.record(o, total_steps=9), "record: it has no argument 'total_steps': write steps=9"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "parts"), [(row[0], row[1:]) for row in CALLS], ids=[row[1][:60] for row in CALLS]
)
def test_the_answer_is_what_to_write(call, parts):
    optimizer = adamw()
    before = plain(optimizer)
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        call(optimizer)
    message = str(caught.value)
    assert isinstance(caught.value, (ts.BindingError, ts.ScheduleError))
    assert all(part in message for part in parts)
    assert len(message) < 500
    assert plain(optimizer) == before
    ts.attach(optimizer, lr=LR)  # nothing is left behind


def test_a_key_that_the_group_has_is_not_taken_for_a_word_from_elsewhere():
    optimizer = adamw()
    optimizer.param_groups[0]["T_max"] = 3.0
    assert ts.attach(optimizer, T_max=ts.linear(1.0, 0.0, steps=4), advance="manual").value("T_max") == 1.0


def test_the_other_doors_answer_as_well():
    optimizer = adamw()
    sched = ts.attach(optimizer, lr=LR)
    for change in (sched.rewrite, sched.adopt):
        with pytest.raises(ts.BindingError, match=r"by its name: write sched\.\w+\(lr=constant\(0\.1\)\)"):
            change(ts.constant(0.1))
    with pytest.raises(ts.BindingError, match="'learning_rate'; write lr=schedule"):
        sched.rewrite(learning_rate=LR)


# -- a total that was not known ---------------------------------------------------------------------------------------

PLAN = "wsd(3e-4, total=?, warmup=0.1, decay=0.2)"


def wsd(total: int) -> ts.Schedule:
    return ts.wsd(3e-4, total=total, warmup=0.1, decay=0.2)


def test_the_total_is_bound_wherever_a_template_stands():
    optimizer = adamw(2)
    plan = ts.parse(PLAN)
    decay = ts.parse("initial * linear(1, 0, steps=10) + 0 * cosine(0, 0.1, steps=?)").bind(steps=7)
    sched = ts.attach(
        optimizer, lr=[0.5 * plan, plan], betas=(ts.parse("warmup_linear(0.9, total=?, warmup=1)"), None),
        weight_decay=decay, free={"kl": 1.0 - plan}, total=100,
    )  # fmt: skip
    found = {slot.place.name: slot.schedule for slot in sched.slots} | sched.free
    assert found["lr[group 0]"] == 0.5 * wsd(100)
    assert found["lr[group 1]"] == wsd(100) != wsd(101)
    assert found["betas[0][group 0]"] == ts.warmup_linear(0.9, total=100, warmup=1)
    assert found["kl"] == 1.0 - wsd(100)
    sched.rewrite(lr=ts.initial * plan)
    assert sched.slots[0].schedule == ts.constant(0.5) * wsd(100)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    sched.adopt(lr=2.0 * plan)
    assert sched.slots[-1].schedule == 2.0 * wsd(100)


@pytest.mark.parametrize(
    "rule", [{"lr": ts.parse(PLAN)}, lambda _: {"lr": ts.parse(PLAN)}], ids=["dict", "function"]
)
def test_late_groups_get_the_total_too(rule):
    optimizer = adamw()
    sched = ts.attach(optimizer, lr=LR, new_groups=rule, total=50)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    optimizer.step()
    assert sched.slots[-1].schedule == wsd(50)


@pytest.mark.parametrize(
    ("text", "total", "says"),
    [
        (PLAN, None, "lr of group 0: total of wsd(3e-4, total=?, warmup=0.1, decay=0.2) is not known yet; pass attach(..., total=n), the number of steps of the run, or write .bind(total=n)"),
        ("cosine(1, 0, steps=?)", None, "steps of cosine(1, 0, steps=?) is not known yet; write .bind(steps=n)"),
        ("wsd(1, total=?, warmup=?, decay=2)", 10, "warmup of wsd(1, total=?, warmup=?, decay=2) is not known yet; write .bind(warmup=n)"),
        (PLAN, 0, "attach: total must be a whole number of steps of at least 1, got 0"),
        (PLAN, 10.0, "attach: total must be a whole number of steps"),
        (PLAN, "100", "attach: total must be a whole number of steps"),
        ("wsd(1, total=?, warmup=60, decay=60)", 100, "wsd: warmup (60) and decay (60) are 120 steps, longer than the total of 100"),
        ("wsd(1, total=100, warmup=6, decay=6)", 100, "no schedule here has one; a schedule that was made with a total has its own"),
    ],
)  # fmt: skip
def test_a_total_that_is_missing_or_wrong(text, total, says):
    optimizer = adamw()
    before = plain(optimizer)
    for schedule in (ts.parse(text), 0.5 * ts.parse(text)):
        with pytest.raises(ValueError, match=re.escape(says)):
            ts.attach(optimizer, lr=schedule, total=total)
        with pytest.raises(ValueError, match=re.escape(says.partition(" of group 0: ")[2] or says)):
            ts.attach(optimizer, free={"kl": schedule}, total=total)
    assert plain(optimizer) == before


def test_a_table_says_what_is_missing():
    with pytest.raises(ts.ScheduleError, match=r"total of wsd.* is not known yet; write \.bind\(total=n\)"):
        ts.tabulate({"x": ts.parse(PLAN)})
