"""Two real processes over gloo: every rank has the schedule's values, whatever shards and checkpoints the optimizer."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tests.binding import distributed_worker as worker
from tests.binding.distributed_worker import (
    CASES,
    HALF,
    LR,
    SAVED,
    STEPS,
    WD,
    WORLD,
    WRAPS,
    bound,
    equal,
    whole,
)

ROOT = Path(__file__).parents[2]
RESIDENT = [(kind, resident) for kind, resident in CASES if resident]

# A plain load in one process, which is what is wanted: torch says that it takes it for one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninit:UserWarning"),
    pytest.mark.xdist_group("ranks"),  # the pair of processes is started once, by one test worker
]


def run_workers(folder: Path) -> list[dict[str, Any]]:
    """Start the processes, wait for them, and return what each of them saw."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    logs = [(folder / f"rank{rank}.log").open("w+") for rank in range(WORLD)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.binding.distributed_worker", str(folder), str(rank)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        texts = [(log.seek(0), log.read(), log.close())[1] for log in logs]
    assert codes == [0] * WORLD, "\n".join(texts)
    # The facts hold tuples, paths and the like; these processes are ours.
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    return run_workers(tmp_path_factory.mktemp("ranks"))


def facts_of(ranks: list[dict[str, Any]], scenario: str) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """Each case of a scenario, with the facts of all ranks."""
    for seen in ranks:
        assert "failed" not in seen[scenario], seen[scenario]["failed"]
    assert ranks[0][scenario], "no case was run"
    for case in ranks[0][scenario]:
        yield case, [seen[scenario][case] for seen in ranks]


# -- training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["ddp", "fsdp2", "zero"])
def test_all_ranks_train_with_the_schedule_s_value_at_every_step(ranks, scenario):
    for (kind, resident), facts in facts_of(ranks, scenario):
        number = (lambda x: torch.tensor(x).item()) if resident else float
        exact = [[number(f(t)) for f in (LR, WD, LR, HALF)] for t in range(STEPS)]
        for seen in facts:
            assert seen["attached"]["seen"] == exact, (kind, resident)
            assert seen["attached"]["steps"] == STEPS
            assert seen["attached"]["bound"]


@pytest.mark.parametrize("scenario", ["ddp", "fsdp2", "zero"])
def test_trains_to_the_bit_as_with_values_set_by_hand(ranks, scenario):
    for case, facts in facts_of(ranks, scenario):
        for seen in facts:
            reached = seen["attached"]["params"]
            assert equal(reached, seen["by hand"]["params"]), case
            assert equal(reached, facts[0]["attached"]["params"]), case
            assert not equal(reached, seen["frozen"]["params"]), f"{case}: a frozen value must show"


def test_a_fused_decay_on_sharded_parameters_is_that_of_floats_to_the_bit(ranks):
    for _, facts in facts_of(ranks, "decay on fsdp2"):
        for seen in facts:
            assert seen["decays"] == [False, True]
            assert equal(seen["attached"], seen["by hand"])
            assert not equal(seen["attached"], seen["frozen"]), "a frozen value must show"


def test_ranks_had_different_data(ranks):
    """Control: with one and the same data, ranks that are out of step could end alike."""
    del ranks
    assert not torch.equal(worker.batch(0, 0), worker.batch(0, 1))


def test_a_step_that_one_rank_s_infinity_skips_is_counted_on_none(ranks):
    for case, facts in facts_of(ranks, "skipped steps of fsdp2"):
        for seen in facts:
            assert seen["moved"] == [True, True, False, False, True, True], case
            assert seen["counts"] == [1, 2, 2, 2, 3, 4], case
            assert seen["bound"], case


def test_ranks_that_are_shown_the_loss_of_all_decide_alike(ranks):
    """And as torch's ReduceLROnPlateau does of the mean; each shown its own loss, they part: the control."""
    probe = optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    torchs = optim.lr_scheduler.ReduceLROnPlateau(probe, factor=0.5, patience=0)
    factors = []
    for ours in zip(worker.losses(0), worker.losses(1), strict=True):
        factors.append(probe.param_groups[0]["lr"])
        torchs.step(sum(ours) / WORLD)
    assert len(set(factors)) > 2
    for (kind, resident, reduced), facts in facts_of(ranks, "observing"):
        number = (lambda x: torch.tensor(x).item()) if resident else float
        exact = [number(LR(step) * factor) for step, factor in enumerate(factors)]
        case = (kind, resident)
        assert all(seen["log"] == seen["lrs"][-1] for seen in facts), case
        if reduced:
            assert [seen["lrs"] for seen in facts] == [exact] * WORLD, case
            assert equal(facts[0]["params"], facts[1]["params"]), case
        else:
            assert facts[0]["lrs"] != facts[1]["lrs"], case
            assert not equal(facts[0]["params"], facts[1]["params"]), case


# -- ZeroRedundancyOptimizer: which of the two ----------------------------------------------------------------------


def test_the_optimizer_inside_zero_is_never_silently_without_its_schedule(ranks):
    """At each step the outer optimizer copies its own values over those of the inner one. Attach to the outer one.

    On the inner one it is an error before the first step; or, if the outer value is the float that the schedule starts
    with, it works, since the outer one copies the new values back after each step.
    """
    for (resident, starts_alike), facts in facts_of(ranks, "inner of zero"):
        for seen in facts:
            if starts_alike and not resident:
                ramp = ts.linear(0.05, 0.01, steps=6)
                assert (seen["error"], seen["steps"]) == ("", 3)
                assert seen["lr"] == [ramp(t) for t in range(3)]
                assert not seen["untouched"]
            else:
                assert "lr[group 0] no longer follows its schedule: at step 0" in seen["error"]
                assert (seen["steps"], seen["lr"], seen["untouched"]) == (0, [], True)


@pytest.mark.parametrize("resident", [True, False])
def test_a_group_of_which_this_rank_has_no_parameter_is_no_obstacle(resident):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = optim.SGD([{"params": [parameter]}, {"params": []}], lr=0.1)
    sched = ts.attach(optimizer, lr=LR, resident=resident)
    parameter.grad = torch.ones(2)
    optimizer.step()
    assert bound(optimizer, sched)
    assert sched.step_count == 1


# -- checkpoints of one rank ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["checkpoint of ddp", "checkpoint of zero"])
@pytest.mark.parametrize("order", ["optimizer first", "schedule first"])
def test_resumes_to_the_bit_on_all_ranks_in_either_order(ranks, scenario, order):
    for case, facts in facts_of(ranks, scenario):
        for seen in facts:
            assert equal(seen[order]["params"], seen["uninterrupted"]), case
            assert seen[order]["steps"] == STEPS
            assert seen[order]["bound"]


@pytest.mark.parametrize("scenario", ["checkpoint of ddp", "checkpoint of zero"])
def test_without_the_schedule_s_state_it_goes_on_all_the_same(ranks, scenario):
    for case, facts in facts_of(ranks, scenario):
        for seen in facts:
            assert equal(seen["schedule forgotten"]["params"], seen["uninterrupted"]), case
            assert seen["schedule forgotten"]["steps"] == STEPS, "the optimizer's checkpoint has the step"
            assert seen["schedule forgotten"]["bound"]


# -- torch.distributed.checkpoint -----------------------------------------------------------------------------------


def test_the_hidden_step_neither_counts_nor_decays(ranks):
    for case, facts in facts_of(ranks, "hidden step"):
        *_, wd_only, call = case
        unscheduled = LR(2) if call.startswith("set") else 0.05  # set loads the lr of the donor's third step
        for seen in facts:
            assert seen["hidden steps"] == 1, (
                f"{case}: torch takes no hidden step any more; is the guard of use?"
            )
            assert seen["error"] == "", case
            # set loads the donor's checkpoint, of two steps, which carries them
            steps = 2 if call.startswith("set") and not wd_only else 3  # or others: we were told 3
            assert seen["steps"] == steps, case
            assert seen["bound"], case
            assert seen["untouched"], case
            lr = unscheduled if wd_only else LR(steps)
            assert seen["used next"] == pytest.approx([lr, WD(steps), lr, HALF(steps)], rel=2**-24), case
            assert (seen["steps later"], seen["moved next"], seen["bound later"]) == (
                steps + 1,
                True,
                True,
            ), case


def test_without_the_guard_the_hidden_step_would_count_or_fail(ranks):
    counted = failed = 0
    for case, facts in facts_of(ranks, "hidden step"):
        if case[-1] != "get_state_dict":
            continue
        for seen in facts:
            unguarded = seen["unguarded"]
            counted += unguarded["steps"] == 4
            failed += "lr[group 0] no longer follows its schedule" in unguarded["error"]
            assert (unguarded["steps"] == 4) != bool(unguarded["error"]), case
    assert counted
    assert failed


def test_a_sharded_checkpoint_resumes_to_the_bit(ranks):
    for case, facts in facts_of(ranks, "sharded checkpoint"):
        for seen in facts:
            assert seen["saving moved nothing"], case
            assert equal(seen["loaded"], seen["saved"]), case
            assert (seen["steps"], seen["bound"]) == (SAVED, True), case
            assert equal(seen["resumed"], seen["uninterrupted"]), case
            assert not equal(seen["resumed"], seen["saved"]), case


@pytest.mark.parametrize("forget", [False, True])
@pytest.mark.parametrize("style", worker.STYLES)
@pytest.mark.parametrize("wrap", WRAPS)
def test_one_process_goes_on_from_the_checkpoint_of_two(ranks, wrap, style, forget):
    """To the bit: the ranks had the same data, so that the mean over both is the gradient itself."""
    for kind, resident in CASES:
        _, facts = next(
            found
            for found in facts_of(ranks, "sharded checkpoint")
            if found[0] == (wrap, kind, resident, style)
        )
        seen = facts[0]
        model = worker.make_model()
        optimizer = worker.make_optimizer(model, kind)
        sched = worker.attach(optimizer, resident=resident)
        worker.STYLES[style](model, optimizer, sched, seen["checkpoint"], load=True)
        assert sched.step_count == SAVED
        assert bound(optimizer, sched)
        assert equal(whole(model), seen["saved"])
        if forget:
            sched.seek(0)
        worker.train(model, optimizer, range(SAVED, STEPS), rank=0)
        assert equal(whole(model), seen["uninterrupted"]) != forget, (kind, resident)
        assert sched.step_count == (STEPS - SAVED if forget else STEPS)


def test_dtensors_in_one_graph_reach_what_eager_steps_reach(ranks):
    """SGD with powers of two to the bit. AdamW: torch computes its bias corrections in float32 in a graph, and 1 - b**t
    with b = 0.999 is then off by up to U / (1 - b) of itself, which is what each update, of at most about lr, is off by;
    doubled, for the gradients that are off in their turn.
    """
    for kind, seen in facts_of(ranks, "one graph of fsdp2"):
        limit = 0.0 if kind == "SGD" else 2.0 * STEPS * 0.1 * 2.0**-24 / (1.0 - 0.999)
        for facts in seen:
            assert (facts["graphs"], facts["steps"], facts["bound"]) == (1, STEPS, True)
            for a, b, still in zip(facts["graph"], facts["eager"], facts["frozen"], strict=True):
                assert (a - b).abs().max() <= limit
                assert (still - b).abs().max() > 100 * limit, "the control"


def test_every_case_was_run(ranks):
    """Control for the loops above: host and tensor slots, with and without momentum, on all ranks."""
    assert len(ranks) == WORLD
    assert RESIDENT
    for seen in ranks:
        assert set(seen["ddp"]) == set(seen["fsdp2"]) == set(seen["zero"]) == set(CASES)
        assert set(seen["sharded checkpoint"]) == {
            (wrap, *case, style) for wrap, case, style in itertools.product(WRAPS, CASES, worker.STYLES)
        }
