"""What every attachment of a plan does when the plan is asked to, by the name of the method.

A table, and no `__getattr__`: what is not in it is asked of one attachment, `plan["muon"].hand_over("lr")`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["forwarded"]


class Planned(Protocol):
    """A plan, as these methods see it."""

    def _to_all(
        self, name: str, args: tuple[Any, ...], options: dict[str, Any], *, change: bool
    ) -> dict[str, Any]: ...


def _change(name: str) -> Callable[..., None]:
    def call(plan: Planned, *args: Any, **options: Any) -> None:
        plan._to_all(name, args, options, change=True)

    return call


def _by_name(name: str) -> Callable[..., dict[str, Any]]:
    def call(plan: Planned, *args: Any, **options: Any) -> dict[str, Any]:
        return plan._to_all(name, args, options, change=False)

    return call


def _flat(name: str) -> Callable[..., dict[str, Any]]:
    def call(plan: Planned, *args: Any, **options: Any) -> dict[str, Any]:
        found = plan._to_all(name, args, options, change=False)
        return {f"{each}/{key}": value for each, part in found.items() for key, value in part.items()}

    return call


_TABLE: dict[str, tuple[Callable[[str], Callable[..., Any]], str]] = {
    "cool_down": (
        _change,
        "of all, at the step where each is, or of none. What a key says has to be scheduled in each",
    ),
    "extend": (_change, "of all, or of none"),
    "history": (_by_name, "of each, by its name"),
    "log": (_flat, "of all in one dict: the names begin with the attachment's, `muon/lr/0`"),
}
"""How each is forwarded, and what the docstring says of it."""


def forwarded() -> dict[str, Callable[..., Any]]:
    """The methods of the table, for a class of plans."""
    methods = {}
    for name, (how, text) in _TABLE.items():
        methods[name] = call = how(name)
        call.__name__, call.__qualname__ = name, f"Plan.{name}"
        call.__doc__ = (
            f"As `Attachment.{name}`, {text}. Takes what that takes, and synchronises as that does; errors begin with "
            "the name."
        )
    return methods
