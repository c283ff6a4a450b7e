"""LRScheduler against stepping torch's schedulers directly; warm-ups; the plateau."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_lr

import tensorsched as ts
from tensorsched.errors import ScheduleError
from tests.integrations.beside_ignite import Engine, Events, agree, drive, ours, theirs, through_a_file


def optimizer_of(lrs, *, tensor=False, **options):
    groups = [
        {
            "params": [torch.nn.Parameter(torch.zeros(1))],
            "lr": torch.tensor(lr, dtype=torch.float64) if tensor else lr,
        }
        for lr in lrs
    ]
    return torch.optim.SGD(groups, lr=0.1, **({"momentum": 0.9} | options))


def half(epoch):
    return 0.5 ** (epoch // 3)


class Tripling:
    """A callable object, which LambdaLR saves by its attributes."""

    def __init__(self):
        self.rate = 1.5

    def __call__(self, epoch):
        return self.rate**epoch


def sequence(optimizer):
    parts = [
        torch_lr.LinearLR(optimizer, 0.1, total_iters=4),
        torch_lr.ExponentialLR(optimizer, 0.8),
        torch_lr.ConstantLR(optimizer, 0.5, 3),
    ]
    return torch_lr.SequentialLR(optimizer, parts, milestones=[5, 11])


def chained(optimizer):
    return torch_lr.ChainedScheduler(
        [torch_lr.ConstantLR(optimizer, 0.1, 4), torch_lr.ExponentialLR(optimizer, 0.9)]
    )


class Mine(torch_lr.LRScheduler):
    """What a user may write: recursive, on what the group holds."""

    def get_lr(self):
        return [
            group["lr"] if self.last_epoch == 0 else group["lr"] / (1 + self.last_epoch)
            for group in self.optimizer.param_groups
        ]


TORCH = {
    "LambdaLR": lambda o: torch_lr.LambdaLR(o, half),
    "LambdaLR of objects": lambda o: torch_lr.LambdaLR(o, [Tripling() for _ in o.param_groups]),
    "MultiplicativeLR": lambda o: torch_lr.MultiplicativeLR(o, lambda epoch: 0.9 if epoch % 2 else 1.05),
    "StepLR": lambda o: torch_lr.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: torch_lr.MultiStepLR(o, [2, 2, 9], 0.5),
    "ConstantLR": lambda o: torch_lr.ConstantLR(o, 0.25, 5),
    "LinearLR": lambda o: torch_lr.LinearLR(o, 0.25, total_iters=5),
    "ExponentialLR": lambda o: torch_lr.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: torch_lr.PolynomialLR(o, 12, power=2.0),
    "CosineAnnealingLR": lambda o: torch_lr.CosineAnnealingLR(o, 7, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 4, T_mult=2),
    "CyclicLR": lambda o: torch_lr.CyclicLR(o, 0.01, 0.1, step_size_up=4, mode="triangular2"),
    "CyclicLR exp_range": lambda o: torch_lr.CyclicLR(o, 0.01, 0.1, step_size_up=4, mode="exp_range", gamma=0.9, cycle_momentum=False),
    "OneCycleLR": lambda o: torch_lr.OneCycleLR(o, 0.5, total_steps=40),
    "SequentialLR": sequence,
    "ChainedScheduler": chained,
    "a user's own": Mine,
}  # fmt: skip
COUNT = 30


def test_every_scheduler_of_torch_is_here():
    made = {type(build(optimizer_of([0.1]))).__name__ for build in TORCH.values()}
    there = {
        name for name, cls in vars(torch_lr).items()
        if isinstance(cls, type) and issubclass(cls, torch_lr.LRScheduler) and name[0] != "_"
    }  # fmt: skip
    assert there - made == {"LRScheduler", "ReduceLROnPlateau"}


def directly(build, lrs, count, **options):
    """What the groups hold when a loop steps the optimizer and then the scheduler."""
    optimizer = optimizer_of(lrs, **options)
    scheduler, rows = build(optimizer), []
    for _ in range(count):
        rows.append([dict(group, params=0, lr=float(group["lr"])) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return rows


def with_a_handler(handler, optimizer, count):
    rows = []
    for _ in range(count):
        handler(None)
        optimizer.step()
        rows.append([dict(group, params=0, lr=float(group["lr"])) for group in optimizer.param_groups])
    return rows


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("lrs", [[0.1], [0.1, 0.3, 0.02]])
@pytest.mark.parametrize("kind", TORCH)
def test_the_optimizer_holds_what_stepping_the_scheduler_directly_gives(kind, lrs, tensor):
    build = TORCH[kind]
    wanted = directly(build, lrs, COUNT, tensor=tensor)
    optimizer = optimizer_of(lrs, tensor=tensor)
    handler = ours.LRScheduler(build(optimizer))
    held = [group["lr"] for group in optimizer.param_groups]
    rows = with_a_handler(handler, optimizer, COUNT)
    assert rows == wanted  # every entry of every group, bit by bit
    assert len({row[0]["lr"] for row in rows}) > 1  # and not frozen
    if tensor:
        assert all(group["lr"] is was for group, was in zip(optimizer.param_groups, held, strict=True))


@pytest.mark.parametrize("kind", TORCH)
def test_the_warm_up_or_anybody_else_may_write_in_between(kind):
    build = TORCH[kind]
    wanted = [[group["lr"] for group in row] for row in directly(build, [0.1, 0.3], COUNT)]
    optimizer = optimizer_of([0.1, 0.3])
    handler, rows = ours.LRScheduler(build(optimizer)), []
    for event in range(COUNT):
        for group in optimizer.param_groups:
            group["lr"] = 5.0 + event
        handler(None)
        rows.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
    assert rows == wanted


@pytest.mark.parametrize("kind", TORCH)
def test_looking_and_simulating_move_nothing(kind):
    build = TORCH[kind]
    wanted = [[group["lr"] for group in row] for row in directly(build, [0.1, 0.3], COUNT)]
    optimizer = optimizer_of([0.1, 0.3])
    scheduler = build(optimizer)
    handler = ours.LRScheduler(scheduler)
    before = [dict(group) for group in optimizer.param_groups], copy.deepcopy(plain(scheduler.state_dict()))
    simulated = ours.LRScheduler.simulate_values(COUNT, scheduler)
    assert simulated == [[i, *row] for i, row in enumerate(wanted)]
    assert ([dict(group) for group in optimizer.param_groups], plain(scheduler.state_dict())) == before
    for row in wanted[:8]:
        assert handler.get_param() == row
        assert handler.get_param() == row
        handler(None)
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == row


def test_simulating_moves_nothing_however_deep_it_lies():
    optimizer = optimizer_of([0.1])
    inner = scheduler = ours.LRScheduler(sequence(optimizer))

    def last():
        return ours.PiecewiseLinear(optimizer, "lr", [(0, 1.0)])

    for _ in range(9):
        scheduler = ours.ConcatScheduler([scheduler, last()], [50])
    simulated = ours.ConcatScheduler.simulate_values(COUNT, [scheduler, last()], [40])
    deepest = inner.lr_scheduler._schedulers[0]
    assert (inner.event_index, inner.lr_scheduler.last_epoch, deepest.last_epoch) == (0, 0, 0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1 * 0.1]
    optimizer.step()
    assert [row[1:] for row in simulated] == drive(scheduler, optimizer, COUNT)


def plain(state):
    """What can be compared of a torch scheduler's state."""
    return {
        key: value
        for key, value in state.items()
        if isinstance(value, (int, float, str, list)) and "lambda" not in key and key != "_schedulers"
    }


@settings(max_examples=40)
@given(
    kind=st.sampled_from(sorted(set(TORCH) - {"MultiplicativeLR", "LambdaLR"})), stop=st.integers(0, COUNT)
)
def test_saved_and_resumed_at_any_event(kind, stop):
    build = TORCH[kind]
    wanted = directly(build, [0.1, 0.3], COUNT)
    optimizer = optimizer_of([0.1, 0.3])
    handler = ours.LRScheduler(build(optimizer), save_history=True)
    rows = with_a_handler(handler, optimizer, stop)
    saved = {"handler": handler.state_dict(), "optimizer": optimizer.state_dict()}
    # torch's schedulers of schedulers keep more than plain numbers in their state, as they do without a handler.
    nested = kind in {"SequentialLR", "ChainedScheduler"}
    state = copy.deepcopy(saved) if nested else through_a_file(saved)
    again = optimizer_of([0.1, 0.3])
    resumed = ours.LRScheduler(build(again))
    again.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["handler"])
    rows += with_a_handler(resumed, again, COUNT - stop)
    assert rows == wanted
    assert resumed.save_history


@pytest.mark.parametrize("kind", ["ExponentialLR", "CosineAnnealingWarmRestarts"])
def test_a_state_of_ignites_is_refused_since_it_cannot_go_on(kind):
    """The other handlers' states go both ways, see test_ignite_values."""
    theirs_handler = theirs.LRScheduler(TORCH[kind](optimizer := optimizer_of([0.1])))
    drive(theirs_handler, optimizer, 5)
    handler = ours.LRScheduler(TORCH[kind](mine := optimizer_of([0.1])))
    with pytest.raises(ScheduleError, match="ignite's LRScheduler"):
        handler.load_state_dict(theirs_handler.state_dict())
    assert drive(handler, mine, 1) == [[0.1]]


@pytest.mark.parametrize("kind", ["StepLR", "CosineAnnealingLR", "OneCycleLR"])
def test_the_same_handler_goes_back_to_the_start(kind):
    optimizer = optimizer_of([0.1, 0.3])
    handler = ours.LRScheduler(TORCH[kind](optimizer))
    start = copy.deepcopy((handler.state_dict(), optimizer.state_dict()))
    first = with_a_handler(handler, optimizer, 9)
    handler.load_state_dict(start[0])
    optimizer.load_state_dict(start[1])
    assert with_a_handler(handler, optimizer, 9) == first


def test_ignite_is_wrong_here_and_we_are_not():
    """ignite counts last_epoch without stepping: on torch >= 2.8 the recursive schedulers then start one factor late, or
    go wrong altogether. Ours is what torch's own loop gives, which the tests above check for every class."""
    wrong = []
    for kind in (
        "ExponentialLR",
        "MultiplicativeLR",
        "LinearLR",
        "ConstantLR",
        "PolynomialLR",
        "CosineAnnealingLR",
    ):
        optimizer = optimizer_of([0.1])
        rows = drive(theirs.LRScheduler(TORCH[kind](optimizer)), optimizer, 12)
        if rows != [[row[0]["lr"]] for row in directly(TORCH[kind], [0.1], 12)]:
            wrong.append(kind)
    assert wrong, "ignite has been mended: compare with it, and say so in the README"


def test_no_advice_about_the_order_of_steps_that_the_engine_decides():
    optimizer = optimizer_of([0.1])
    handler = ours.LRScheduler(torch_lr.ExponentialLR(optimizer, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drive(handler, optimizer, 3) == [[0.1], [0.05], [0.025]]


def test_legacy_starts_one_step_later_and_says_where_to_attach():
    found = []
    for library in (ours, theirs):
        optimizer = optimizer_of([0.1])
        with pytest.warns(UserWarning, match="ITERATION_COMPLETED"):
            handler = library.LRScheduler(torch_lr.StepLR(optimizer, 3, 0.5), use_legacy=True)
        engine, seen = Engine(lambda _e, _b, o=optimizer: o.param_groups[0]["lr"]), []
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e, seen=seen: seen.append(e.state.output))
        handler.attach(engine, Events.ITERATION_COMPLETED)
        engine.run([0] * 12)
        found.append((seen, handler.event_index, set(handler.state_dict())))
    assert agree(*[list(one) for one in found])


def test_what_is_no_scheduler_of_torch_is_refused():
    for library in (ours, theirs):
        for wrong in (None, 3, optimizer_of([0.1])):
            with pytest.raises(TypeError, match="lr_scheduler"):
                library.LRScheduler(wrong)
            with pytest.raises(TypeError, match="lr_scheduler"):
                library.LRScheduler.simulate_values(3, wrong)
            with pytest.raises(TypeError, match="lr_scheduler"):
                library.create_lr_scheduler_with_warmup(wrong, 0.0, 3)
    with pytest.raises(ScheduleError, match="ReduceLROnPlateauScheduler"):
        ours.LRScheduler(torch_lr.ReduceLROnPlateau(optimizer_of([0.1])))


# -- warm-up --------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    lrs=st.lists(st.sampled_from([0.1, 0.5]), min_size=1, max_size=5),
    start=st.floats(0.0, 1.0),
    duration=st.integers(2, 12),
    end=st.none() | st.sampled_from([0.1, 0.5, 0.7]),
    kind=st.sampled_from(["StepLR", "MultiStepLR", "CosineAnnealingScheduler", "PiecewiseLinear"]),
    count=st.integers(0, 30),
    save_history=st.booleans(),
)
def test_a_warm_up_in_front_is_ignites(lrs, start, duration, end, kind, count, save_history):
    """In front of handlers, and of the torch schedulers that ignite still gets right (see the next test)."""
    assume(kind not in TORCH or len(lrs) == 1 or end is None)
    found = []
    for library in (ours, theirs):
        optimizer = optimizer_of(lrs)
        if kind in TORCH:
            main = {"StepLR": torch_lr.StepLR, "MultiStepLR": torch_lr.MultiStepLR}[kind](
                optimizer, 10_000 if kind == "StepLR" else [10_000]
            )
        elif kind == "PiecewiseLinear":
            main = library.PiecewiseLinear(optimizer, "lr", [(0, 0.5), (9, 0.1)])
        else:
            main = library.CosineAnnealingScheduler(optimizer, "lr", 0.5, 0.0, 9)
        simulated = [None] * count
        scheduler = library.create_lr_scheduler_with_warmup(
            main, start, duration, end, save_history, simulated
        )
        engine = Engine(lambda _e, _b: None)
        rows = []
        scheduler.attach(engine)
        engine.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda _e, o=optimizer, rows=rows: rows.append([g["lr"] for g in o.param_groups]),
        )
        engine.run([0] * 40)
        found.append(
            [
                rows,
                simulated if library is ours or kind not in TORCH else found[0][1],
                getattr(engine.state, "param_history", None),
            ]
        )
    assert agree(*found, 1.0)
    assert [row[1:] for row in found[0][1]] == found[0][0][:count]


def test_a_warm_up_of_several_groups_to_another_value_shows_the_first_value_once():
    """As ignite's documentation says; its code adds that event for the first group only, and then never reaches it, so
    that a recursive torch scheduler goes on from the end of the warm-up."""
    found = []
    for library in (ours, theirs):
        optimizer = optimizer_of([0.1, 0.3])
        scheduler = library.create_lr_scheduler_with_warmup(torch_lr.StepLR(optimizer, 2, 0.5), 0.0, 3, 0.8)
        found.append(drive(scheduler, optimizer, 6))
    assert found[0] == [[0.0, 0.0], [0.4, 0.4], [0.8, 0.8], [0.1, 0.3], [0.1, 0.3], [0.05, 0.15]]
    assert found[1][3:] == [[0.8, 0.8], [0.4, 0.4], [0.4, 0.4]]


@pytest.mark.parametrize("kind", TORCH)
def test_a_warm_up_in_front_of_any_torch_scheduler(kind):
    """The scheduler's first value ends the warm-up; then come the values after 1, 2, ... steps."""
    build = TORCH[kind]
    wanted = [[group["lr"] for group in row] for row in directly(build, [0.1, 0.3], COUNT)]
    optimizer = optimizer_of([0.1, 0.3])
    scheduler = ours.create_lr_scheduler_with_warmup(build(optimizer), 0.0, 5)
    rows = []
    for _ in range(4 + COUNT):
        scheduler(None)
        optimizer.step()
        rows.append([group["lr"] for group in optimizer.param_groups])
    assert agree(rows[:4], [[value * k / 4 for value in wanted[0]] for k in range(4)])
    assert agree(rows[4:], wanted)


EXPRESSED = {
    "StepLR": lambda o: torch_lr.StepLR(o, 30, 0.7),
    "MultiStepLR": lambda o: torch_lr.MultiStepLR(o, [2, 2, 90, 5000], 0.5),
    "ConstantLR": lambda o: torch_lr.ConstantLR(o, 0.3, 50),
    "LinearLR": lambda o: torch_lr.LinearLR(o, 0.3, 0.9, total_iters=9000),
    "ExponentialLR": lambda o: torch_lr.ExponentialLR(o, 0.999),
    "PolynomialLR": lambda o: torch_lr.PolynomialLR(o, 9000, power=1.7),
    "CosineAnnealingLR": lambda o: torch_lr.CosineAnnealingLR(o, 3000, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: torch_lr.CosineAnnealingWarmRestarts(o, 7, T_mult=2, eta_min=0.01),
}  # fmt: skip


@pytest.mark.parametrize("lrs", [[0.1], [0.1, 0.1], [0.1, 0.3]])
@pytest.mark.parametrize("kind", EXPRESSED)
def test_a_warm_up_in_front_of_a_torch_scheduler_is_expressed_in_the_core(kind, lrs):
    """To within 1e-9 of the largest value in 10,000 events: torch's recursions gather rounding errors."""
    optimizer = optimizer_of(lrs)
    scheduler = ours.create_lr_scheduler_with_warmup(EXPRESSED[kind](optimizer), 0.0, 5)
    drive(scheduler, optimizer, 2)
    found = scheduler.as_schedule()
    assert isinstance(found, list) == (len(set(lrs)) > 1)
    columns = found if isinstance(found, list) else [found] * len(lrs)
    rows = drive(scheduler, optimizer, 10_000)
    for column, schedule in zip(zip(*rows, strict=True), columns, strict=True):
        errors = [abs(a - b) for a, b in zip(column, schedule.values(10_000).tolist(), strict=True)]
        assert max(errors) <= 1e-9 * max(column)
        assert len(set(column)) > 1
    after = scheduler.as_schedule()  # and from where it is now
    (first,) = drive(scheduler, optimizer, 1)
    later = after if isinstance(after, list) else [after] * len(lrs)
    assert [schedule(0) for schedule in later] == pytest.approx(first, rel=1e-9)


@pytest.mark.parametrize("kind", [*EXPRESSED, "legacy"])
def test_a_torch_scheduler_as_a_handler_is_expressed_too(kind):
    optimizer = optimizer_of([0.1, 0.3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        handler = ours.LRScheduler(
            EXPRESSED.get(kind, TORCH["StepLR"])(optimizer), use_legacy=kind == "legacy"
        )
    for count in (0, 3, 4):
        drive(handler, optimizer, count)
        columns = handler.as_schedule()
        (row,) = drive(handler, optimizer, 1)
        assert [schedule(0) for schedule in columns] == pytest.approx(row, rel=1e-12)


@pytest.mark.parametrize("kind", sorted(set(TORCH) - set(EXPRESSED)))
def test_torch_schedulers_without_an_expression_say_so(kind):
    scheduler = ours.create_lr_scheduler_with_warmup(TORCH[kind](optimizer_of([0.1])), 0.0, 5)
    with pytest.raises(
        ScheduleError, match=r"no equivalent core expression, StepLR, .* have; use tensorsched\.record"
    ):
        scheduler.as_schedule()


def test_a_torch_scheduler_that_is_not_where_its_arguments_say_has_no_expression():
    changed = torch_lr.ExponentialLR(optimizer_of([0.1]), 0.9)
    changed.optimizer.param_groups[0]["lr"] = 0.7
    changed.optimizer.step()
    changed.step()
    with pytest.raises(ScheduleError, match="changed by hand or a case of torch's own"):
        ours.LRScheduler(changed).as_schedule()


def test_a_torch_scheduler_of_no_steps_stays_at_its_first_value():
    scheduler = torch_lr.LinearLR(optimizer_of([0.1]), 0.5, total_iters=0)  # torch's own case
    assert ours.LRScheduler(scheduler).as_schedule() == ts.constant(0.05)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"warmup_duration": 1}, ValueError),
        ({"warmup_duration": -3}, ValueError),
        ({"warmup_duration": 3.0}, TypeError),
        ({"output_simulated_values": 7}, TypeError),
        ({"output_simulated_values": (None,)}, TypeError),
    ],
)
def test_a_warm_up_that_ignite_refuses(arguments, error):
    for library in (ours, theirs):
        main = library.CosineAnnealingScheduler(optimizer_of([0.1]), "lr", 0.5, 0.0, 9)
        with pytest.raises(error):
            library.create_lr_scheduler_with_warmup(
                **({"lr_scheduler": main, "warmup_start_value": 0.0, "warmup_duration": 3} | arguments)
            )


# -- plateau ---------------------------------------------------------------------------------------------------------


def plateau(library, optimizer, metrics, trainer=None, **options):
    scheduler = library.ReduceLROnPlateauScheduler(optimizer, "loss", trainer=trainer, patience=1, **options)
    evaluator = Engine(lambda _e, _b: None)
    rows = []
    for metric in metrics:
        evaluator.state.metrics = {"loss": metric}
        scheduler(evaluator)
        rows.append([group["lr"] for group in optimizer.param_groups])
    return scheduler, rows


METRICS = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0]


@pytest.mark.parametrize("index", [None, 0, 1])
def test_the_plateau_is_ignites_where_that_is_right(index):
    found = []
    for library in (ours, theirs):
        trainer = Engine(lambda _e, _b: None)
        scheduler, rows = plateau(
            library,
            optimizer_of([0.1, 0.3]),
            METRICS,
            trainer,
            factor=0.5,
            save_history=True,
            param_group_index=index,
        )
        state = scheduler.state_dict()
        for private in (
            "_reduce_lr",
            "_last_lr",
        ):  # a method of ignite's; torch's note, which counts all groups
            state["scheduler"].pop(private, None)
        found.append([rows, trainer.state.param_history, state, scheduler.get_param()])
    assert agree(*found)
    assert len({row[0 if index is None else index] for row in found[0][0]}) > 2


@pytest.mark.parametrize("index", [None, 0, 1])
def test_the_plateau_keeps_min_lr(index):
    """ignite drops min_lr unless an index is given, and then reads that of group 0."""
    _, rows = plateau(
        ours, optimizer_of([0.1, 0.3]), METRICS * 3, factor=0.5, min_lr=0.04, param_group_index=index
    )
    meant = [0, 1] if index is None else [index]
    assert all(rows[-1][i] == 0.04 for i in meant)
    assert all(rows[-1][i] == [0.1, 0.3][i] for i in {0, 1} - set(meant))
    _, wrong = plateau(
        theirs, optimizer_of([0.1, 0.3]), METRICS * 3, factor=0.5, min_lr=0.04, param_group_index=index
    )
    assert any(wrong[-1][i] < 0.04 for i in meant) or index == 0


def test_the_plateau_s_state_is_plain_and_resumes():
    optimizer = optimizer_of([0.1])
    scheduler, rows = plateau(ours, optimizer, METRICS[:5], factor=0.5)
    state = through_a_file({"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()})
    again = optimizer_of([0.1])
    resumed = ours.ReduceLROnPlateauScheduler(again, "loss", patience=1, factor=0.5)
    resumed.load_state_dict(state["scheduler"])
    again.load_state_dict(state["optimizer"])
    evaluator = Engine(lambda _e, _b: None)
    for metric in METRICS[5:]:
        evaluator.state.metrics = {"loss": metric}
        resumed(evaluator)
        rows.append([again.param_groups[0]["lr"]])
    assert rows == plateau(ours, optimizer_of([0.1]), METRICS, factor=0.5)[1]


def test_the_plateau_takes_over_from_ignite():
    theirs_plateau, rows = plateau(theirs, optimizer := optimizer_of([0.1]), METRICS[:6], factor=0.5)
    mine = ours.ReduceLROnPlateauScheduler(again := optimizer_of([optimizer.param_groups[0]["lr"]]), "loss")
    mine.load_state_dict(theirs_plateau.state_dict())
    evaluator = Engine(lambda _e, _b: None)
    for metric in METRICS[6:]:
        evaluator.state.metrics = {"loss": metric}
        mine(evaluator)
        rows.append([again.param_groups[0]["lr"]])
    assert rows == plateau(ours, optimizer_of([0.1]), METRICS, factor=0.5)[1]
    through_a_file(mine.state_dict())  # their method did not come along


def test_the_plateau_refuses_what_ignite_refuses():
    for library in (ours, theirs):
        with pytest.raises(TypeError, match="min_lr"):
            library.ReduceLROnPlateauScheduler(optimizer_of([0.1]), "loss", min_lr=[0.1], param_group_index=0)
        with pytest.raises(ValueError, match="loss"):
            library.ReduceLROnPlateauScheduler(optimizer_of([0.1]), "loss")(Engine(lambda _e, _b: None))
        with pytest.raises(ValueError, match="metric_values"):
            library.ReduceLROnPlateauScheduler.simulate_values(3, [1.0], 0.1)
        with pytest.raises(ValueError, match="Factor"):
            library.ReduceLROnPlateauScheduler(optimizer_of([0.1]), "loss", factor=2.0)
        found = library.ReduceLROnPlateauScheduler.simulate_values(
            len(METRICS), METRICS, 0.1, patience=1, factor=0.5
        )
        assert found == [
            [i, row[0]] for i, row in enumerate(plateau(ours, optimizer_of([0.1]), METRICS, factor=0.5)[1])
        ]
    with pytest.warns(UserWarning, match="`verbose` is ignored; use save_history=True"):
        ours.ReduceLROnPlateauScheduler(optimizer_of([0.1]), "loss", verbose=True)
