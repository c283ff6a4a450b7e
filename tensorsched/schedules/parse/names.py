"""What text may call: the shapes, the recipes, a few functions, and the methods of a schedule."""

from __future__ import annotations

import functools
import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from tensorsched.schedules import recipes, words
from tensorsched.schedules.algebra import chain
from tensorsched.schedules.node import SHAPES
from tensorsched.schedules.schedule import Schedule, maximum, minimum

_OTHERS: dict[str, Any] = {"chain": chain, "maximum": maximum, "minimum": minimum}
ELSEWHERE = {
    "seesaw": "it gives two schedules, lr and batch size; make them in Python and save each with to_json()",
    "from_function": "it needs a function; tabulate it in Python and save it with to_json()",
    "from_dict": "save the document as a .json file and name that",
    "from_json": "save the document as a .json file and name that",
}
_RECIPES: dict[str, Any] = {name: getattr(recipes, name) for name in recipes.__all__ if name not in ELSEWHERE}
_SHAPES: dict[str, Any] = SHAPES  # the registry itself: a shape that is made later is known as well
FUNCTIONS: Mapping[str, Callable[..., Schedule]] = ChainMap(_OTHERS, _RECIPES, _SHAPES)
METHODS: dict[str, Callable[..., Schedule]] = {
    method.__name__: method
    for method in (
        Schedule.clamp,
        Schedule.delay,
        Schedule.floor,
        Schedule.hold_each,
        Schedule.mirror,
        Schedule.over,
        Schedule.repeat,
        Schedule.round,
        Schedule.skip,
        Schedule.span,
        Schedule.stretch,
        Schedule.take,
        Schedule.warp,
    )
}
signature = functools.cache(inspect.signature)


def usage(function: Callable[..., Schedule], *, method: bool = False) -> str:
    """How it is called, as a message shows it."""
    return words.usage(signature(function), method=method)
