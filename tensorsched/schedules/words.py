"""The words that people know from elsewhere, answered with what to write here.

A call that does not fit its signature (`cosine(1e-3, 0, 1000)`, `T_max=`, `warmup_steps=`) is a TypeError in Python
that names neither. Shapes and recipes raise an `ArgumentError` in its place.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from tensorsched.errors import ScheduleError
from tensorsched.schedules.validators import shown

__all__ = ["ArgumentError", "answer", "hint", "usage", "worded"]

P = ParamSpec("P")
R = TypeVar("R")

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "T_0": ("period",),
    "T_max": ("steps", "total"),
    "T_mult": ("length_mult",),
    "alpha": ("floor", "end"),
    "base_lr": ("base", "start"),
    "base_value": ("peak", "start"),
    "beta1": ("peak", "start"),
    "boundaries": ("milestones",),
    "boundaries_and_scales": ("milestones",),
    "cycle_decay": ("peak_mult", "value_mult"),
    "cycle_limit": ("times",),
    "cycle_mul": ("length_mult",),
    "decay_rate": ("rate", "factor", "exponent"),
    "decay_steps": ("decay", "steps", "every", "total"),
    "decay_type": ("shape",),
    "decay_style": ("shape",),
    "div_factor": ("start",),
    "end_factor": ("end", "floor"),
    "end_lr": ("end", "floor"),
    "end_value": ("end", "floor"),
    "eta_max": ("peak", "start"),
    "eta_min": ("floor", "end"),
    "final_div_factor": ("end",),
    "gamma": ("rate", "factor", "peak_mult"),
    "init_lr": ("start", "peak"),
    "init_value": ("start", "peak"),
    "initial_learning_rate": ("start", "peak"),
    "iterations": ("total", "steps"),
    "learning_rate": ("peak", "start"),
    "lr": ("peak", "start"),
    "lr_end": ("floor", "end"),
    "lr_min": ("floor", "end"),
    "lr_range_test_min_lr": ("start",),
    "lr_range_test_staircase": ("staircase",),
    "lr_range_test_step_rate": ("rate",),
    "lr_range_test_step_size": ("every",),
    "max_iters": ("total", "steps"),
    "max_lr": ("peak", "start", "max_scale"),
    "max_steps": ("total", "steps"),
    "min_lr": ("floor", "end", "min_scale"),
    "n": ("steps", "total"),
    "num_cycles": ("cycles",),
    "num_steps": ("total", "steps"),
    "num_training_steps": ("total", "steps"),
    "num_warmup_steps": ("warmup",),
    "pct_start": ("rise",),
    "peak_lr": ("peak", "start"),
    "peak_value": ("peak", "start"),
    "slope": ("rate",),
    "start_factor": ("start",),
    "start_value": ("start", "peak"),
    "step_size": ("every",),
    "step_size_down": ("down",),
    "step_size_up": ("up",),
    "t_initial": ("steps", "period", "total"),
    "total_iters": ("steps", "total"),
    "total_steps": ("total", "steps"),
    "transition_steps": ("steps", "every"),
    "value": ("peak", "start"),
    "window_size": ("window",),
    "warmup_fraction": ("warmup",),
    "warmup_iters": ("warmup",),
    "warmup_ratio": ("warmup",),
    "warmup_steps": ("warmup",),
    "warmup_t": ("warmup",),
    "weight_decay": ("wd", "peak", "start"),
    "wd": ("peak", "start"),
}
"""What other libraries call an argument, and the names it may have here; the first that a function has is meant."""

_LONGEST_WORD = 40


class ArgumentError(ScheduleError, TypeError):
    """A call that does not fit: it says what to write. Also a TypeError, as Python's own is."""


def worded(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, with an answer where a call does not fit its signature."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except TypeError as error:
            if not isinstance(error, ArgumentError):
                answer(function.__name__, inspect.signature(function), args, options)
            raise

    return call


def answer(
    name: str, signature: inspect.Signature, args: tuple[Any, ...], options: Mapping[str, Any]
) -> None:
    """Raise an ArgumentError that says how to write the call; nothing where it fits."""
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        said = _misfit(signature, args, options) or str(error)
    else:
        return
    raise ArgumentError(f"{name}: {said}; it is {name}{usage(signature)}") from None


def _misfit(signature: inspect.Signature, args: tuple[Any, ...], options: Mapping[str, Any]) -> str | None:
    parameters = signature.parameters
    unknown = next((key for key in options if key not in parameters), None)
    if unknown is not None:
        return f"it has no argument {shown(unknown)}{hint(unknown, parameters, options[unknown])}"
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(args) > len(positional):
        named = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in options]
        extra = args[len(positional) :]
        written = ", ".join(f"{key}={shown(value)}" for key, value in zip(named, extra, strict=False))
        way_out = f": write {written}" if written else ""
        return (
            f"{len(positional)} arguments go by position ({', '.join(positional)}), got {len(args)}{way_out}"
        )
    return None


def hint(word: str, known: Iterable[str], value: object = None) -> str:
    """What to write instead of an argument that a function does not have."""
    names = list(known)
    for candidate in ELSEWHERE.get(word, ()):
        if candidate in names:
            written = "..." if value is None else shown(value)
            return f": write {candidate}={written}"
    near = difflib.get_close_matches(word[:_LONGEST_WORD], names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(names))}"


def usage(signature: inspect.Signature, *, method: bool = False) -> str:
    """The arguments, as a message shows them."""
    parameters = list(signature.parameters.values())[1 if method else 0 :]
    texts, keyword_only = [], False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            texts.append("*")
        default = "" if parameter.default is inspect.Parameter.empty else "=" + repr(parameter.default)
        texts.append(parameter.name + default)
    return f"({', '.join(texts)})"
