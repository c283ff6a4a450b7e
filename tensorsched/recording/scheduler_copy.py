"""A scheduler's double: its own copy, on an optimizer that is nothing but param_groups; stepping it moves nothing else.

copy.deepcopy is no help here: it shares functions, and with them the counters in their closures; it copies the model
that a callback may hold; and it gives up on a generator anywhere inside. `Copier` copies what a scheduler may change
and leaves alone what it only reads.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import random
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from tensorsched.errors import ScheduleError

_DEEPEST = 6  # objects inside objects that are copied; what lies deeper is not the scheduler's own
_SHARED = (
    torch.nn.Module,
    torch.nn.Parameter,
    torch.optim.Optimizer,  # another one than the scheduler's
    enum.Enum,
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
)
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Group(dict[str, Any]):
    """A param_group that notes which of its keys are written."""

    def __init__(self, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.written: set[str] = set()

    def __setitem__(self, key: str, value: Any) -> None:
        self.written.add(key)
        super().__setitem__(key, value)

    def update(self, *args: Any, **options: Any) -> None:
        """As of a dict."""
        new = dict(*args, **options)
        self.written |= new.keys()
        super().update(new)


class StandIn(torch.optim.Optimizer):
    """An optimizer with copies of another one's hyperparameters, a parameter of one element a group, and no step."""

    param_groups: list[Group]  # type: ignore[assignment]  # they are dicts

    def __init__(self, groups: list[Group], defaults: Mapping[str, Any]) -> None:
        # Not super().__init__(): it would check and complete the groups, which are to stay as they are.
        self.param_groups = groups
        self.defaults = dict(defaults)
        self.state = defaultdict(dict)
        self._optimizer_step_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self._opt_called = True  # torch's schedulers warn where no step came before their own
        self.step = _no_step  # type: ignore[method-assign, assignment]

    def __repr__(self) -> str:
        return f"StandIn({len(self.param_groups)} groups)"


def _no_step(*_: Any, **__: Any) -> None:
    """Nothing is optimized."""


_no_step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]  # torch's schedulers look for it


def double(scheduler: Any, optimizer: Any) -> tuple[Any, StandIn]:
    """A copy of a scheduler, and the stand-in that it drives in place of `optimizer`."""
    copier = Copier()
    groups = [
        Group({key: [] if key == "params" else copier(value) for key, value in group.items()})
        for group in optimizer.param_groups
    ]
    for group in groups:
        group["params"] = [torch.nn.Parameter(torch.zeros(1))]
        group.written.clear()
    stand_in = StandIn(groups, copier(dict(getattr(optimizer, "defaults", {}))))
    copier.put(optimizer, stand_in)
    copier.put(optimizer.param_groups, groups)
    for theirs, ours in zip(optimizer.param_groups, groups, strict=True):
        copier.put(theirs, ours)
    return copier(scheduler), stand_in


class Copier:
    """Copies what may change: objects, containers, tensors, and what functions have closed over.

    Shared are modules, parameters, classes, enums, and whatever Python cannot copy; a generator becomes something that
    refuses to be used. An object that is reached twice is copied once.
    """

    def __init__(self) -> None:
        self._copies: dict[
            int, tuple[Any, Any]
        ] = {}  # by id: the original, which keeps the id its own, and the copy
        self._depth = 0

    def put(self, original: Any, made: Any) -> None:
        """From now on `made` is the copy of `original`."""
        self._copies[id(original)] = (original, made)

    def __call__(self, value: Any) -> Any:
        """The copy of a value."""
        if isinstance(value, _PLAIN):
            return value
        if id(value) in self._copies:
            return self._copies[id(value)][1]
        if isinstance(value, _SHARED):
            return value
        made = self._copied(value)
        self.put(value, made)
        return made

    def _copied(self, value: Any) -> Any:  # noqa: C901, PLR0911  one case for each kind of thing
        match value:
            case torch.Tensor():
                return value.detach().clone()
            case torch.Generator():
                return value.clone_state()
            case np.ndarray() | np.random.Generator() | np.random.RandomState() | random.Random():
                return copy.deepcopy(value)
            case dict() | list() | set() | deque() | tuple():
                return self._container(value)
            case types.FunctionType():
                return self._function(value)
            case types.MethodType():
                return types.MethodType(self(value.__func__), self(value.__self__))
            case functools.partial():
                return functools.partial(self(value.func), *map(self, value.args), **self(value.keywords))
            case types.CellType():
                return self._cell(value)
            case weakref.ref():
                return weakref.ref(self(value()))
            case types.GeneratorType():
                return _UsedUp(value.__name__)
            case Iterator() if not hasattr(value, "__dict__"):
                return _iterator(value)
            case _ if hasattr(value, "__dict__"):
                return self._object(value)
        return value

    def _container(self, value: Any) -> Any:
        if isinstance(value, tuple):
            items = [self(item) for item in value]
            return (
                tuple(items)
                if type(value) is tuple
                else type(value)(*items)
                if hasattr(value, "_fields")
                else value
            )
        made = copy.copy(value)
        self.put(value, made)  # before what is inside, which may hold the container
        if isinstance(made, dict):
            for key, item in value.items():
                dict.__setitem__(made, key, self(item))
        elif isinstance(made, (list, deque)):
            for i, item in enumerate(value):
                made[i] = self(item)
        return made

    def _function(self, value: types.FunctionType) -> types.FunctionType:
        if not (value.__closure__ or value.__defaults__ or value.__kwdefaults__):
            return value
        cells = value.__closure__
        made = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, None, cells and tuple(map(self, cells))
        )
        self.put(value, made)
        made.__defaults__ = value.__defaults__ and tuple(map(self, value.__defaults__))
        made.__kwdefaults__ = value.__kwdefaults__ and {k: self(v) for k, v in value.__kwdefaults__.items()}
        made.__dict__.update(value.__dict__)
        return made

    def _cell(self, value: types.CellType) -> types.CellType:
        made = types.CellType()
        self.put(value, made)
        with contextlib.suppress(ValueError):  # empty so far
            made.cell_contents = self(value.cell_contents)
        return made

    def _object(self, value: Any) -> Any:
        if self._depth >= _DEEPEST:
            return value
        try:
            made = object.__new__(type(value))
        except TypeError:  # something of C: only its own class can make one
            return value
        self.put(value, made)
        self._depth += 1
        try:
            made.__dict__.update({name: self(item) for name, item in value.__dict__.items()})
            for name in _slots(type(value)):
                if hasattr(value, name):
                    object.__setattr__(made, name, self(getattr(value, name)))
        finally:
            self._depth -= 1
        return made


def _slots(kind: type) -> list[str]:
    declared = (base.__dict__.get("__slots__", ()) for base in kind.__mro__)
    names = [name for slots in declared for name in ([slots] if isinstance(slots, str) else slots)]
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _iterator(value: Any) -> Any:
    try:
        return copy.copy(value)
    except TypeError:
        return _UsedUp(type(value).__name__)


class _UsedUp:
    """In place of a generator, which has no copy: drawing from the real one would use it up."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __iter__(self) -> _UsedUp:
        return self

    def __next__(self) -> Any:
        raise ScheduleError(
            f"the scheduler draws from the generator {self._name!r}, which cannot be copied: recording would use it "
            "up; make a list of its values, or give ts.from_values those"
        )

    send = throw = __next__
