"""Ours beside ignite's: one description of a scheduler, built with either library and driven event by event."""

from __future__ import annotations

import dataclasses
import functools
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hypothesis import strategies as st

import tensorsched.integrations.ignite as ours

with warnings.catch_warnings():
    # ignite 0.5.5 imports torch.distributed.optim, which decorates with torch.jit, which torch 2.13 deprecates.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning)
    import ignite.engine
    import ignite.handlers as theirs

Engine, Events = ignite.engine.Engine, ignite.engine.Events
LIBRARIES = {"ours": ours, "ignite": theirs}
GROUPS = 5  # enough that a ParamGroupScheduler tabulates its members together

__all__ = [
    "GROUPS", "LIBRARIES", "Engine", "Events", "Spec", "agree", "drive", "make", "ours", "sgd", "specs", "theirs", "through_a_file",
]  # fmt: skip


def sgd(groups: int = GROUPS, **options: Any) -> torch.optim.SGD:
    params = [{"params": [torch.nn.Parameter(torch.zeros(2))]} for _ in range(groups)]
    return torch.optim.SGD(params, **({"lr": 0.1, "momentum": 0.9} | options))


@dataclasses.dataclass(frozen=True)
class Spec:
    """A scheduler in no library's terms: the class, its arguments behind (optimizer, "lr"), and what it is made of."""

    kind: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parts: Sequence[Spec] = ()


@functools.cache
def own_classes(lib: Any) -> dict[str, type]:
    """What a user may write on top of either library."""

    class Own(lib.ParamScheduler):
        def get_param(self):
            return 1.0 / (1 + self.event_index)

    class OwnPerGroup(lib.ParamScheduler):
        def get_param(self):
            return [i + 0.5 * self.event_index for i in range(len(self.optimizer_param_groups))]

    class OwnCycle(lib.CyclicalScheduler):
        def get_param(self):
            return (
                self.start_value
                + (self.end_value - self.start_value) * (self.event_index / self.cycle_size) ** 2
            )

    class OwnCosine(lib.CosineAnnealingScheduler):
        def get_param(self):
            return 2 * super().get_param()

    return {cls.__name__: cls for cls in (Own, OwnPerGroup, OwnCycle, OwnCosine)}


def make(lib: Any, spec: Spec, optimizer: Any) -> Any:
    if spec.kind == "ConcatScheduler":
        return lib.ConcatScheduler([make(lib, part, optimizer) for part in spec.parts], **spec.options)
    if spec.kind == "ParamGroupScheduler":
        return lib.ParamGroupScheduler([make(lib, part, optimizer) for part in spec.parts], **spec.options)
    cls = own_classes(lib).get(spec.kind) or getattr(lib, spec.kind)
    return cls(optimizer, **({"param_name": "lr"} | spec.options))


def drive(scheduler: Any, optimizer: Any, events: int, key: str = "lr") -> list[list[float]]:
    """What the groups hold after each of the next events."""
    rows = []
    for _ in range(events):
        scheduler(None)
        rows.append([group[key] for group in optimizer.param_groups])
    return rows


def agree(a: Any, b: Any, scale: float = 0.0) -> bool:
    """Equal to 1e-12 relative to the value, or to `scale`, the largest value of the schedule: near its zero, a cosine's
    1 - cos(x) has the absolute error of cos(x), in either library."""
    if isinstance(b, Mapping):
        return isinstance(a, Mapping) and set(a) == set(b) and all(agree(a[k], b[k], scale) for k in b)
    if isinstance(b, (list, tuple)):
        return (
            type(a) is type(b) and len(a) == len(b) and all(map(functools.partial(agree, scale=scale), a, b))
        )
    if isinstance(b, float):
        return a == b or abs(a - b) <= 1e-12 * max(abs(a), abs(b), scale)
    return a == b


def through_a_file(state: Any) -> Any:
    """What a checkpoint does to it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


values = st.sampled_from([0.0, 1.0, -1.0, 1e-3]) | st.floats(-10.0, 10.0, allow_subnormal=False)
mults = st.sampled_from([1.0, 1.0, 0.5, 2.0]) | st.floats(0.3, 1.2)
growths = st.sampled_from([1.0, 1.0, 1.5, 2.0]) | st.floats(1.0, 2.5)
indices = st.none() | st.integers(-GROUPS, GROUPS - 1)


def cyclical(index: st.SearchStrategy[Any], *, warmups: bool) -> st.SearchStrategy[dict[str, Any]]:
    required = {"start_value": values, "end_value": values, "cycle_size": st.integers(2, 30)}
    optional = {
        "cycle_mult": growths,
        "start_value_mult": mults,
        "end_value_mult": mults,
        "warmup_duration": st.integers(0, 12) if warmups else st.just(0),
    }
    return st.fixed_dictionaries({**required, "param_group_index": index}, optional=optional)


def milestones() -> st.SearchStrategy[list[tuple[int, float]]]:
    at = st.lists(st.integers(0, 80), min_size=1, max_size=6).map(sorted)
    return at.flatmap(lambda ms: st.tuples(*(st.tuples(st.just(m), values) for m in ms)).map(list))


def simple(index: st.SearchStrategy[Any], *, own: bool = True) -> st.SearchStrategy[Spec]:
    """One scheduler; `own`: of a user's own class, too."""
    monotonic = cyclical(index, warmups=True).map(lambda options: options | {"monotonic": True})
    kinds = {
        "LinearCyclicalScheduler": cyclical(index, warmups=False) | monotonic,
        "CosineAnnealingScheduler": cyclical(index, warmups=True),
        "PiecewiseLinear": st.fixed_dictionaries(
            {"milestones_values": milestones(), "param_group_index": index}
        ),
        "Own": st.fixed_dictionaries({"param_group_index": index}),
        "OwnPerGroup": st.fixed_dictionaries({"param_group_index": index}),
        "OwnCycle": cyclical(index, warmups=True),
        "OwnCosine": cyclical(index, warmups=True),
    }
    return st.one_of(
        *(
            st.builds(Spec, st.just(kind), options)
            for kind, options in kinds.items()
            if own or kind[:3] != "Own"
        )
    )


def side_by_side(*, own: bool = True) -> st.SearchStrategy[Spec]:
    """A ParamGroupScheduler with one scheduler for each of some groups, sometimes of tabulated ones only."""

    def members(order: list[int]) -> st.SearchStrategy[tuple[Spec, ...]]:
        return st.tuples(*(simple(st.just(index), own=own) for index in order))

    def tabulated(order: list[int]) -> st.SearchStrategy[tuple[Spec, ...]]:
        return st.tuples(*(simple(st.just(index), own=False) for index in order))

    orders = st.permutations(range(GROUPS)).flatmap(
        lambda order: st.integers(1, GROUPS).map(lambda n: order[:n])
    )
    parts = orders.flatmap(members) | st.permutations(range(GROUPS)).flatmap(tabulated)
    return st.builds(
        lambda parts, named: Spec("ParamGroupScheduler", names_of(parts) if named else {}, parts),
        parts,
        st.booleans(),
    )


def names_of(parts: Sequence[Spec]) -> dict[str, Any]:
    return {"names": [f"lr ({i})" for i in range(len(parts))]}


def specs(*, own: bool = True) -> st.SearchStrategy[Spec]:
    """Schedulers of schedulers, three levels deep."""
    groups = side_by_side(own=own)

    def chained(inner: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
        several = st.lists(inner | groups, min_size=2, max_size=4)
        # A duration of 0 that is not the first makes ignite stay there for ever: see test_ignite_errors.
        return several.flatmap(
            lambda parts: st.lists(st.integers(1, 25), min_size=len(parts) - 1, max_size=len(parts) - 1).map(
                lambda durations: Spec("ConcatScheduler", {"durations": durations}, parts)
            )
        )

    return st.recursive(simple(indices, own=own), chained, max_leaves=5) | groups
