"""A schedule whose total is not known yet: text with `total=?` in it, bound when the number of steps is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn, cast

from tensorsched.errors import ScheduleError
from tensorsched.schedules import validators as f
from tensorsched.schedules.node import CALL, Array, Node, brief
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.validators import shown

__all__ = ["Template", "fill_in", "templates"]


def _unread(text: str, **values: float) -> NoReturn:
    raise ScheduleError(
        f"bind: {shown(text)} was not made by parse(), which alone reads it with {shown(values)}"
    )


@dataclasses.dataclass(frozen=True, repr=False)
class Template(Schedule):
    """What `parse` makes of text with `name=?`: it has no values until `.bind(name=n)` says what is missing.

    It prints as its text, compares by it, and is no document: bind it first. In front of `>>` it has no length.

    Args:
        text: the expression.
        missing: the names that are to be bound.
        reader: `parse`, which made it.

    Example:
        >>> import tensorsched as ts
        >>> plan = ts.parse("wsd(3e-4, total=?, warmup=0.1, decay=0.2)")
        >>> plan.missing
        ('total',)
        >>> plan.bind(total=100)
        linear(0.0, 0.0003, steps=10) >> constant(0.0003, steps=70) >> linear(0.0003, 0.0, steps=20)
    """

    kind: ClassVar[str] = "template"
    text: str = f.declare(f.check_text)
    missing: tuple[str, ...] = ()
    reader: Callable[..., Schedule] = dataclasses.field(default=_unread, compare=False)

    def bind(self, **values: float) -> Schedule:
        """The schedule with these numbers in the place of `?`; still a template where one is missing.

        Raises:
            ScheduleError: a name that is not missing, or what the schedule's own arguments refuse.
        """
        extra = sorted(values.keys() - set(self.missing))
        if extra:
            raise ScheduleError(
                f"bind: {extra[0]} is not missing in {brief(self)}; missing are {', '.join(self.missing)}"
            )
        return self.reader(self.text, **values)

    def _at(self, t: Array) -> Array:  # noqa: ARG002  it has no values
        self._refuse()

    def _document(self) -> dict[str, Any]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        written = ", ".join(f"{name}=n" for name in self.missing)
        raise ScheduleError(
            f"{', '.join(self.missing)} of {brief(self)} is not known yet; write .bind({written}) when it is"
        )

    def _source(self) -> tuple[str, int]:
        return self.text, CALL


def templates(schedule: Node) -> Iterator[Template]:
    """Those that an expression is made of."""
    if isinstance(schedule, Template):
        yield schedule
    for child in schedule.children():
        yield from templates(child)


def fill_in(schedule: Schedule, **values: float) -> Schedule:
    """The expression with every template in it bound, as far as these values go; itself where there is none.

    Raises:
        ScheduleError: as `Template.bind`.
    """

    def bound(node: Node) -> Node:
        if isinstance(node, Template):
            return node.bind(**{name: values[name] for name in node.missing if name in values})
        return node._rebuilt(bound)

    return cast("Schedule", bound(schedule))
