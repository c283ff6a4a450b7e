"""Look-up and optimizer step in one graph: the function that torch.compile traces.

Why `optimizer.step()` cannot be traced as it is, and how each obstacle is handled:

1.  `torch.compile(optimizer.step, fullgraph=True)` cannot work: torch's wrapper around `step` breaks the graph on
    purpose, and the hooks are Python. So the undecorated step is traced, under no_grad, and the hooks run around the
    compiled function, before and after it (step.py).
2.  A float in a param_group is a constant of the graph, or recompiles it when it changes. So in graph mode every slot
    is a tensor slot: a 0-dim view of the engine's live values (graph_mode.py).
3.  Views of one buffer that a graph both reads and writes send it down a slow path: every parameter is copied, no
    address counts as static, DTensors raise. So the graph never sees those views. It takes live whole, cuts it up
    inside, puts the pieces into the groups, calls the step, and puts the views back:

        live (1, K) --index_select, unbind--> pieces -> groups -> step() -> groups <- views
        step counter + 1 -> row of the table -> live

    That is Python, run while torch traces. What is left in the graph is one gather of K numbers and one addition. Which
    numbers are a group's is read from a tensor: as constants they would give each group a kernel of its own to compile.
4.  Some lines of torch.optim look at a hyperparameter on the host (`if weight_decay != 0`), or pass it where only a
    number may be (`alpha=momentum`). While tracing, a TorchFunctionMode answers the first for scheduled values and
    rewrites the second as a multiplication. "Not zero" is always the answer: adding 0 * p and multiplying by
    1 - lr * 0 change nothing. Momentum is the exception, since torch leaves its buffer alone at 0: supported.py
    refuses a schedule that touches 0.
5.  A step that GradScaler skips leaves everything as it was: each tensor gets either its new or its old contents, which
    costs a graph that writes it anyway one selection and no copy. Gradients are unscaled before the graph: a CUDA graph
    may write only what stays at its address, and they do not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from tensorsched.binding.attachment import Attachment
from tensorsched.binding.modes import Mode
from tensorsched.engine import ReactiveEngine, ScheduleEngine
from tensorsched.errors import BindingError
from tensorsched.param_groups import with_element

NAMES = (
    *("parts", "with_element", "_update_one"),
    *(
        "_copies",
        "_TracingMode",
        "_SPECIAL",
        "_true_if_scheduled",
        "_false_if_scheduled",
        "_sum",
        "_sum_",
        "_lerp_",
    ),
)
"""What the traced function reads beside the optimizer and its arguments; only this package can change it."""


class Part(NamedTuple):
    """What is traced of one attachment, beside its optimizer: all that can be known before."""

    sched: Attachment
    step: Callable[[Any], object]
    engines: tuple[ScheduleEngine | ReactiveEngine, ...]
    places: tuple[tuple[int, str, int | None, int, int], ...]
    reads: tuple[tuple[int, torch.Tensor], ...]
    answered: bool
    group_count: int


def update_function(scheds: Sequence[Attachment], graphs: Sequence[Mode]) -> Callable[..., bool]:
    """The function that is traced: each optimizer's own step with pieces of live in its groups, then the next rows."""
    optimizers = tuple(sched.optimizer for sched in scheds)
    parts = tuple(map(_part, scheds, graphs))

    def update(found_inf: torch.Tensor | None) -> bool:
        if not torch.compiler.is_compiling():
            return False
        for optimizer, part in zip(optimizers, parts, strict=True):
            _update_one(optimizer, part, found_inf)
        return True

    return update


def _part(sched: Attachment, graph: Mode) -> Part:
    optimizer = sched.optimizer
    engines = tuple(graph.engines)
    places, reads = _reads(sched, engines)
    return Part(
        sched=sched,
        step=inspect.unwrap(type(optimizer).step),
        engines=engines,
        places=places,
        reads=reads,
        answered=any(
            key != "lr" for _, key, *_ in places
        ),  # the compiler deals with tensors for lr by itself
        group_count=len(optimizer.param_groups),
    )


def _update_one(optimizer: Any, part: Part, found_inf: torch.Tensor | None) -> None:
    groups = optimizer.param_groups
    if len(groups) != part.group_count or not part.sched._mode.in_graph:
        raise BindingError(
            "compile_step: param_groups were added, the schedule is detached, or an eager step failed: call step() "
            "once by itself, or make a new one"
        )
    # The values of slots with live inputs are computed anew: an input may have been turned since.
    current = [engine.current() for engine in part.engines]
    pieces = [current[number].index_select(0, columns).unbind(0) for number, columns in part.reads]
    values = [pieces[read][position] for *_, read, position in part.places]
    views = [groups[index][key] for index, key, *_ in part.places]
    for (index, key, element, *_), value in zip(part.places, values, strict=True):
        # Place.write, spelt out: what is traced is made of tuples and functions.
        group = groups[index]
        group[key] = value if element is None else with_element(group[key], element, value)
    before = [] if found_inf is None else _copies(optimizer)
    if part.answered:
        with _TracingMode(values):
            part.step(optimizer)
    else:
        part.step(optimizer)
    for (index, key, *_), view in zip(part.places, views, strict=True):
        groups[index][key] = view
    for tensor, old in before:
        tensor.copy_(torch.where(found_inf.reshape(()) != 0, old, tensor))  # type: ignore[union-attr]  # not None here
    for engine in part.engines:
        engine.advance_in_graph(found_inf)


def _reads(
    sched: Attachment, engines: Sequence[ScheduleEngine | ReactiveEngine]
) -> tuple[tuple[tuple[int, str, int | None, int, int], ...], tuple[tuple[int, torch.Tensor], ...]]:
    """What a graph reads of the live values: for each place the number of a read and the position in it; the reads.

    A read is the number of an engine, and which of its values it takes.
    """
    columns: dict[tuple[int, int], list[int]] = {}  # of each group and engine
    places = []
    for slot in sched.slots:
        number = next(n for n, engine in enumerate(engines) if slot.name in engine.column_of)
        of_group = columns.setdefault((slot.place.group, number), [])
        places.append((slot.place, (slot.place.group, number), len(of_group)))
        of_group.append(engines[number].column_of[slot.name])
    order = {at: read for read, at in enumerate(columns)}
    reads = []
    for (_, number), of_group in columns.items():
        indices = torch.tensor(of_group, device=engines[number].table.device)
        torch._dynamo.mark_static_address(indices)  # the documented name; there is no public one
        reads.append((number, indices))
    return tuple((*place, order[at], position) for place, at, position in places), tuple(reads)


def _copies(optimizer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every tensor that a step changes, and what it holds before (in a graph that is no copy)."""
    tensors: list[torch.Tensor] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                tensors.append(parameter)
                if parameter in optimizer.state:
                    tensors += [v for v in optimizer.state[parameter].values() if isinstance(v, torch.Tensor)]
    return [(tensor, tensor.clone()) for tensor in tensors]


# -- what stands in the way in the steps of torch.optim ----------------------------------------------------------


class _TracingMode(TorchFunctionMode):
    """While tracing: scheduled values are not 0, and a tensor may stand where torch takes a number only."""

    def __init__(self, values: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.values = frozenset(values)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        special = _SPECIAL.get(func)  # the one question for each operation: all of this is traced
        return (
            func(*args, **(kwargs or {}))
            if special is None
            else special(self.values, func, args, kwargs or {})
        )


def _true_if_scheduled(values: frozenset[torch.Tensor], func: Any, args: Any, kwargs: Any) -> Any:
    """Value != 0, value > 0."""
    return True if args[0] in values else func(*args, **kwargs)


def _false_if_scheduled(values: frozenset[torch.Tensor], func: Any, args: Any, kwargs: Any) -> Any:
    return False if args[0] in values else func(*args, **kwargs)


def _sum(_: object, func: Any, args: Any, kwargs: Any) -> Any:
    """The sum x + alpha * y. The compiler deals with the `value=` of addcmul and addcdiv itself."""
    alpha = kwargs.get("alpha")
    return (
        torch.addcmul(args[0], args[1], alpha) if isinstance(alpha, torch.Tensor) else func(*args, **kwargs)
    )


def _sum_(_: object, func: Any, args: Any, kwargs: Any) -> Any:
    alpha = kwargs.get("alpha")
    return args[0].addcmul_(args[1], alpha) if isinstance(alpha, torch.Tensor) else func(*args, **kwargs)


def _addmm(_: object, func: Any, args: Any, kwargs: Any) -> Any:
    """The sum beta * x + alpha * (a @ b), rounded once more than by torch: the product, to the type of x."""
    factors = [kwargs.get(name, 1) for name in ("beta", "alpha")]
    if not any(isinstance(factor, torch.Tensor) for factor in factors):
        return func(*args, **kwargs)
    x, a, b = args
    return (factors[0] * x.float() + factors[1] * (a @ b).float()).to(x.dtype)


def _lerp_(_: object, func: Any, args: Any, kwargs: Any) -> Any:
    """As torch computes x + w (y - x) for numbers w below 1/2. For a tensor it would compile both of its formulas."""
    x, y, weight = args
    return x.addcmul_(y - x, weight) if isinstance(weight, torch.Tensor) else func(*args, **kwargs)


T = torch.Tensor
_SPECIAL: Mapping[Any, Callable[..., Any]] = {
    T.ne: _true_if_scheduled,
    T.__ne__: _true_if_scheduled,
    T.gt: _true_if_scheduled,
    T.__gt__: _true_if_scheduled,
    T.ge: _true_if_scheduled,
    T.__ge__: _true_if_scheduled,
    T.eq: _false_if_scheduled,
    T.__eq__: _false_if_scheduled,
    T.lt: _false_if_scheduled,
    T.__lt__: _false_if_scheduled,
    T.le: _false_if_scheduled,
    T.__le__: _false_if_scheduled,
    T.add: _sum,
    torch.add: _sum,
    T.add_: _sum_,
    T.lerp_: _lerp_,
    torch.addmm: _addmm,
}
