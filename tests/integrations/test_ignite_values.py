"""Event by event the values, the state and the history of the installed ignite, over random arguments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integrations.beside_ignite import (
    GROUPS,
    LIBRARIES,
    Engine,
    Events,
    Spec,
    agree,
    drive,
    indices,
    make,
    milestones,
    ours,
    sgd,
    specs,
    theirs,
    through_a_file,
    values,
)  # fmt: skip

EVENTS = 300


def largest(rows):
    return max((abs(value) for row in rows for value in row), default=0.0)


@settings(max_examples=80)
@given(spec=specs(), stop=st.integers(0, EVENTS), way=st.sampled_from(["ours", "from ignite", "to ignite"]))
def test_values_and_state_are_ignites_through_save_and_load(spec, stop, way):
    optimizer, reference = sgd(), sgd()
    scheduler, wanted = make(ours, spec, optimizer), make(theirs, spec, reference)
    rows, expected = drive(scheduler, optimizer, stop), drive(wanted, reference, stop)
    states = scheduler.state_dict(), wanted.state_dict()
    # Resumed from a checkpoint, in each library or across.
    saved = through_a_file(states[1] if way == "from ignite" else states[0])
    again = sgd()
    library = theirs if way == "to ignite" else ours
    resumed = make(library, spec, again)
    resumed.load_state_dict(saved)
    expected_rest = drive(wanted, reference, EVENTS - stop)
    rest = drive(resumed, again, EVENTS - stop)
    scale = largest(expected + expected_rest)
    assert agree(rows, expected, scale)
    assert agree(*states, scale)
    # The groups that nothing was written to since the resume hold what the fresh optimizer held.
    started = [
        [new if new != 0.1 else old for new, old in zip(*pair, strict=True)]
        for pair in zip(rest, expected_rest, strict=True)
    ]
    assert agree(started, expected_rest, scale)
    assert agree(resumed.state_dict(), wanted.state_dict(), scale)


@settings(max_examples=30)
@given(spec=specs())
def test_a_frozen_value_would_be_noticed(spec):
    """Control: what the test above compares moves, wherever ignite's moves."""
    reference, optimizer = sgd(), sgd()
    expected = drive(make(theirs, spec, reference), reference, 40)
    scheduler = make(ours, spec, optimizer)
    frozen = drive(scheduler, optimizer, 1) * 40
    if any(row != expected[0] for row in expected):
        assert not agree(frozen, expected)


@settings(max_examples=40)
@given(spec=specs(), name=st.none() | st.just("rate"), save_history=st.booleans())
def test_history_is_ignites(spec, name, save_history):
    if spec.kind in {"ConcatScheduler", "ParamGroupScheduler"}:
        spec = Spec(spec.kind, dict(spec.options) | {"save_history": save_history}, spec.parts)
    else:
        spec = Spec(spec.kind, dict(spec.options) | {"save_history": save_history})
    found = {}
    for which, library in LIBRARIES.items():
        engine = Engine(lambda _engine, _batch: None)
        scheduler = make(library, spec, sgd())
        engine.add_event_handler(
            Events.ITERATION_STARTED, scheduler, **({} if name is None else {"name": name})
        )
        engine.run([0] * 10, max_epochs=2)
        found[which] = getattr(engine.state, "param_history", None)
    assert agree(found["ours"], found["ignite"], 10.0)
    assert bool(found["ours"]) is save_history


@settings(max_examples=40)
@given(spec=specs(), events=st.integers(0, 60))
def test_simulated_values_are_those_that_events_set(spec, events):
    """Beside ignite where it simulates what it sets; a ParamGroupScheduler's and a Concat's are driven instead."""
    optimizer = sgd()
    if spec.kind in {"ConcatScheduler", "ParamGroupScheduler"}:
        parts = [make(ours, part, optimizer) for part in spec.parts]
        before = [part.state_dict() for part in parts]
        held = [dict(group) for group in optimizer.param_groups]
        simulated = getattr(ours, spec.kind).simulate_values(events, parts, **spec.options)
        assert [part.state_dict() for part in parts] == before
        assert [dict(group) for group in optimizer.param_groups] == held
        scheduler = getattr(ours, spec.kind)(parts, **spec.options)
        for event, *row in simulated:
            scheduler(None)
            if spec.kind == "ConcatScheduler":
                assert row == [group["lr"] for group in scheduler.optimizer_param_groups], event
            else:
                assert row == [
                    group["lr"] if isinstance(value, float) else value
                    for value, group in zip(row, scheduler.optimizer_param_groups, strict=True)
                ]
        assert len(simulated) == events
        return
    options = {key: value for key, value in spec.options.items() if key != "param_group_index"}
    if spec.kind[:3] != "Own":
        found = [
            getattr(lib, spec.kind).simulate_values(events, param_name="lr", **options)
            for lib in (ours, theirs)
        ]
        assert agree(*found, 10.0)


@settings(max_examples=40)
@given(spec=specs(), stop=st.integers(0, 60))
def test_get_param_between_events_is_ignites(spec, stop):
    optimizer, reference = sgd(), sgd()
    scheduler, wanted = make(ours, spec, optimizer), make(theirs, spec, reference)
    for _ in range(stop):
        assert agree(scheduler.get_param(), wanted.get_param(), 10.0)
        scheduler(None)
        wanted(None)


STATE_SPECS = st.one_of(
    st.tuples(st.just("ExpStateScheduler"), st.fixed_dictionaries({"initial_value": values, "gamma": st.floats(-1.5, 1.5)})),
    st.tuples(
        st.just("StepStateScheduler"),
        st.fixed_dictionaries(
            {"initial_value": values | st.integers(-3, 3), "gamma": st.floats(-1.5, 1.5), "step_size": st.integers(1, 40)}
        ),
    ),
    st.tuples(
        st.just("MultiStepStateScheduler"),
        st.fixed_dictionaries(
            {
                "initial_value": values,
                "gamma": st.floats(-3.0, 3.0),
                "milestones": st.lists(st.integers(0, 90), max_size=5).map(sorted),
            }
        ),
    ),
    st.tuples(st.just("PiecewiseLinearStateScheduler"), st.fixed_dictionaries({"milestones_values": milestones()})),
    st.tuples(st.just("LambdaStateScheduler"), st.just({"lambda_obj": abs})),
)  # fmt: skip


@settings(max_examples=50)
@given(drawn=STATE_SPECS, stop=st.integers(0, 100), save_history=st.booleans())
def test_state_schedulers_are_ignites(drawn, stop, save_history):
    kind, options = drawn
    found = []
    for library in (ours, theirs):
        schedulers = [
            getattr(library, kind)(param_name="p", save_history=save_history, create_new=True, **options)
            for _ in range(2)
        ]
        engine, rows = Engine(lambda _engine, _batch: None), []
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e, rows=rows: rows.append(e.state.p))
        for scheduler, length in zip(schedulers, (stop, 100), strict=True):
            if scheduler is schedulers[1]:  # takes over from the first
                scheduler.load_state_dict(schedulers[0].state_dict())
                del engine.state.p
            scheduler.attach(engine, Events.ITERATION_STARTED)
            if length:
                engine.run([0] * length, max_epochs=1)
            engine.remove_event_handler(scheduler, Events.ITERATION_STARTED)
        state = schedulers[1].state_dict()
        found.append([rows, state, engine.state.param_history if save_history else None])
        found[-1].append(getattr(library, kind).simulate_values(num_events=30, param_name="p", **options))
    assert agree(*found)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 20), min_size=5, max_size=5), save_history=st.booleans())
def test_batch_sizes_are_ignites(sizes, save_history):
    found = []
    for library in (ours, theirs):
        loader = torch.utils.data.DataLoader(list(range(40)), batch_size=3)
        scheduler = library.BatchSizeScheduler(
            loader, lambda event: sizes[event % 5], save_history=save_history
        )
        engine, seen = Engine(lambda _engine, batch: len(batch)), []
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e, seen=seen: seen.append(e.state.output))
        scheduler.attach(engine)
        engine.run(loader, max_epochs=4, epoch_length=10)
        found.append([
            seen, scheduler.state_dict(), scheduler.get_param(), scheduler.simulate_values(7, scheduler_fn=scheduler.scheduler_fn),
            getattr(engine.state, "param_history", None),
        ])  # fmt: skip
    assert found[0] == found[1]
    assert set(found[0][0]) & set(sizes)


POWERS = st.tuples(
    st.floats(-1e6, 1e6) | st.floats(-1.0, 1.0),
    st.floats(-1.3, 1.3) | st.sampled_from([0.9, 0.98, 0.999, 0.1, 0.5]),
)


@settings(max_examples=200)
@given(
    powers=POWERS,
    step_size=st.integers(1, 9),
    milestones=st.lists(st.integers(0, 400), max_size=40).map(sorted),
)
def test_powers_are_ignites_to_the_last_bit(powers, step_size, milestones):
    initial, gamma = powers
    for kind, options in {
        "ExpStateScheduler": {},
        "StepStateScheduler": {"step_size": step_size},
        "MultiStepStateScheduler": {"milestones": milestones},
    }.items():
        found = [
            getattr(library, kind).simulate_values(
                num_events=400, param_name="p", initial_value=initial, gamma=gamma, **options
            )
            for library in (ours, theirs)
        ]
        assert found[0] == found[1]


def test_a_power_that_overflows_is_an_error_at_its_event_and_not_before():
    """There ignite raises an OverflowError, or goes on with an infinity."""
    engine = type("Engine", (), {"state": type("State", (), {})()})()
    for initial, gamma, last in ((1.0, 1e10, 30), (1e300, 1e4, 2)):
        scheduler = ours.ExpStateScheduler(initial, gamma, "p")
        for _ in range(last):
            scheduler(engine)
        assert engine.state.p == initial * gamma**last
        for _ in range(2):
            with pytest.raises(ValueError, match=f"at event_index {last}: .* Nothing was changed"):
                scheduler(engine)
        assert scheduler.event_index == last


WRONG = {
    "cycle_size": [1, 0, -3, None, "4"],
    "warmup_duration": ["2", None],
    "optimizer": [None, 3, torch.zeros(1), type("Half", (), {"param_groups": 4})()],
}  # fmt: skip
CYCLE = {"start_value": 1.0, "end_value": 0.0, "cycle_size": 4}


@pytest.mark.parametrize("kind", ["LinearCyclicalScheduler", "CosineAnnealingScheduler"])
@pytest.mark.parametrize(
    ("argument", "value"), [(name, value) for name, bad in WRONG.items() for value in bad]
)
def test_what_ignite_refuses_is_refused_with_the_same_exception(kind, argument, value):
    arguments = {"optimizer": sgd(), "param_name": "lr"} | CYCLE | {argument: value}
    with pytest.raises(Exception) as wanted:  # noqa: PT011  any: it says which ours must be
        getattr(theirs, kind)(**arguments)
    with pytest.raises(wanted.type):
        getattr(ours, kind)(**arguments)


POINTS = [
    None, 4, {0: 1.0}, [], [(0, 1.0), 3], [(0, 1.0, 2.0)], [[0, 1.0]], [(0.5, 1.0)], [("1", 1.0)], [(5, 1.0), (3, 0.0)], (), {1, 2},
]  # fmt: skip


@pytest.mark.parametrize("points", POINTS, ids=repr)
@pytest.mark.parametrize("kind", ["PiecewiseLinear", "PiecewiseLinearStateScheduler"])
def test_milestones_that_ignite_refuses(kind, points):
    first = () if kind.endswith("StateScheduler") else (sgd(),)
    with pytest.raises((TypeError, ValueError)) as wanted:
        getattr(theirs, kind)(*first, param_name="lr", milestones_values=points)
    with pytest.raises(wanted.type):
        getattr(ours, kind)(*first, param_name="lr", milestones_values=points)


def cosines(library, optimizer, count, **options):
    return [library.CosineAnnealingScheduler(optimizer, "lr", **CYCLE, **options) for _ in range(count)]


def two_optimizers(library):
    return [*cosines(library, sgd(), 1), *cosines(library, sgd(), 1)]


def two_names(library):
    optimizer = sgd()
    return [*cosines(library, optimizer, 1), library.CosineAnnealingScheduler(optimizer, "momentum", **CYCLE)]


CONCATS = {
    "no sequence": lambda library: ({1: cosines(library, sgd(), 1)}, [1]),
    "one": lambda library: (cosines(library, sgd(), 1), []),
    "durations a set": lambda library: (cosines(library, sgd(), 2), {3}),
    "durations floats": lambda library: (cosines(library, sgd(), 2), [3.0]),
    "too many durations": lambda library: (cosines(library, sgd(), 2), [3, 4]),
    "too few durations": lambda library: (cosines(library, sgd(), 3), [3]),
    "no schedulers inside": lambda _library: (["a", "b"], [3]),
    "two optimizers": lambda library: (two_optimizers(library), [3]),
    "two names": lambda library: (two_names(library), [3]),
}
SIDES = {
    "no sequence": lambda _library: ({1: 2},),
    "something else inside": lambda library: ([*cosines(library, sgd(), 1), 3],),
    "names a str": lambda library: (cosines(library, sgd(), 2), "ab"),
    "names no str": lambda library: (cosines(library, sgd(), 2), [1, 2]),
    "too few names": lambda library: (cosines(library, sgd(), 2), ["a"]),
}


@pytest.mark.parametrize(
    ("kind", "build"),
    [("ConcatScheduler", build) for build in CONCATS.values()]
    + [("ParamGroupScheduler", build) for build in SIDES.values()],
    ids=[*CONCATS, *SIDES],
)
def test_compositions_that_ignite_refuses(kind, build):
    with pytest.raises((TypeError, ValueError)) as wanted:
        getattr(theirs, kind)(*build(theirs))
    with pytest.raises(wanted.type):
        getattr(ours, kind)(*build(ours))


@settings(max_examples=40)
@given(spec=specs(), data=st.data())
def test_states_that_ignite_refuses_change_nothing_here(spec, data):
    optimizer = sgd()
    scheduler, reference = make(ours, spec, optimizer), make(theirs, spec, sgd())
    drive(scheduler, optimizer, 7)
    before = scheduler.state_dict()
    state = dict(scheduler.state_dict())
    missing = data.draw(st.sampled_from(sorted(state)))
    del state[missing]
    wrong = data.draw(st.sampled_from([None, [1], 4, state]))
    with pytest.raises((TypeError, ValueError)) as wanted:
        reference.load_state_dict(wrong)
    with pytest.raises(wanted.type):
        scheduler.load_state_dict(wrong)
    assert scheduler.state_dict() == before


def test_the_wrong_number_of_values_is_an_error_as_with_ignite():
    for library in (ours, theirs):

        class Three(library.ParamScheduler):
            def get_param(self):
                return [1.0, 2.0, 3.0]

        optimizer = sgd()
        with pytest.raises(ValueError, match="5"):
            Three(optimizer, "lr")(None)
        assert [group["lr"] for group in optimizer.param_groups] == [0.1] * GROUPS


ABSTRACT = {
    "BaseParamScheduler": ("p",),
    "ParamScheduler": (None, "lr"),
    "CyclicalScheduler": (None, "lr", 0.0, 1.0, 4),
    "StateParamScheduler": ("p",),
}  # fmt: skip


@pytest.mark.parametrize("name", ABSTRACT)
def test_what_is_abstract_in_ignite_is_abstract_here(name):
    for library in (theirs.param_scheduler if name == "BaseParamScheduler" else theirs, ours):
        with pytest.raises(TypeError, match="abstract"):
            getattr(library, name)(*ABSTRACT[name])


@given(spec=specs(), index=indices)
@settings(max_examples=5)
def test_groups_that_nobody_means_stay_as_they_are(spec, index):
    spec = Spec("Own", {"param_group_index": index})
    optimizer = sgd()
    (row,) = drive(make(ours, spec, optimizer), optimizer, 1)
    assert row.count(1.0) == (GROUPS if index is None else 1)
