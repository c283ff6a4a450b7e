"""A text's tree -> a value, by a list of what is allowed."""

from __future__ import annotations

import ast
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from tensorsched.errors import ScheduleError
from tensorsched.schedules.algebra import chain, initial
from tensorsched.schedules.parse import names
from tensorsched.schedules.parse.text import Text, spoken
from tensorsched.schedules.schedule import Schedule
from tensorsched.schedules.validators import shown
from tensorsched.schedules.words import ArgumentError, hint
from tensorsched.schedules.work import spend

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.RShift: operator.rshift,
}
_MODULE = ("ts", "tensorsched")  # what a name may be an attribute of
_LARGEST_POWER = 64  # 10**10**10 would fill the memory before anything could refuse it
_LARGEST_BASE = 1e6
_SUPPOSED = 1 << 30  # what a number that is not known yet is taken for, to find mistakes in the rest
_LARGEST = 1e308  # of a number; what is larger is no float64
_LONGEST_WORD = 40


class Reader:
    """One text on its way to a schedule."""

    def __init__(self, text: str, known: Mapping[str, float]) -> None:
        self.text = Text(text)
        self.known = known
        self.checking = False

    @property
    def holes(self) -> dict[int, str]:
        """Where a `?` stands, and the name in front of it."""
        return self.text.holes

    def read(self, *, check: bool = False) -> Any:
        """The value; with `check` a `?` is read as a large number."""
        self.checking = check
        tree = self.text.tree()
        try:
            return self._value(tree)
        except RecursionError:
            raise ScheduleError(
                "the expression is nested too deep; save the schedule with to_json() and name the file"
            ) from None

    def check_names(self) -> None:
        """Refuse what is wrong whatever a `?` stands for: the syntax, and names of functions and their arguments."""
        for node in ast.walk(self.text.tree()):
            if isinstance(node, ast.Call):
                name, _, _, known = self._called(node.func)
                for keyword in node.keywords:
                    self._option(name, keyword, known)

    def _hole(self, keyword: ast.keyword) -> Any:
        """What a `?` stands for; None where the value is something else."""
        node = keyword.value
        if not isinstance(node, ast.Name) or node.id != "_" or keyword.arg not in self.text.unknown:
            return None
        return _SUPPOSED if self.checking else self.known[keyword.arg or ""]

    # -- the tree ----------------------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.BinOp():
                return self._chain(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                return self._sign(node)
            case ast.Call():
                return self._call(node)
            case ast.Name() | ast.Attribute() if self._name(node) == "initial":
                return initial
            case ast.List() | ast.Tuple():
                return [self._entry(item) for item in node.elts]
            case ast.Name() | ast.Attribute():
                raise self._refused_name(node)
            case _:
                raise self.text.refused(node, f"{spoken(node)} is not part of the expression syntax")

    def _constant(self, node: ast.Constant) -> Any:
        value = node.value
        if isinstance(value, str) and len(value) <= _LONGEST_WORD:
            return value
        if isinstance(value, (int, float)) or value is None:  # True and False are ints
            return self._number(node, value)
        raise self.text.refused(node, f"a {type(value).__name__} has no place in a schedule; write numbers")

    def _number(self, node: ast.expr, value: Any) -> Any:
        if isinstance(value, complex) or (value is not None and not abs(value) <= _LARGEST):
            raise self.text.refused(node, "a number must fit a float64")
        return value

    def _entry(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, str) or value is None:
            raise self.text.refused(node, "a list holds numbers, or schedules for chain")
        return value

    def _sign(self, node: ast.UnaryOp) -> Any:
        value = self._operand(node.operand)
        if isinstance(node.op, ast.UAdd) and isinstance(value, Schedule):
            raise self.text.refused(node, "a + in front of a schedule is not part of the expression syntax")
        return -value if isinstance(node.op, ast.USub) else value

    def _operand(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, (bool, str, list)) or value is None:
            raise self.text.refused(node, f"an operator needs a schedule or a number, got {shown(value)}")
        return value

    def _chain(self, node: ast.BinOp) -> Any:
        """Operators of one line from left to right: a loop, since a long chain is deep in the tree."""
        spine = [node]
        while isinstance(spine[-1].left, ast.BinOp):
            spine.append(spine[-1].left)
        value = self._operand(spine[-1].left)
        for joins, steps in itertools.groupby(reversed(spine), lambda step: isinstance(step.op, ast.RShift)):
            if joins:
                value = self._join(value, list(steps))
            else:
                for step in steps:
                    value = self._operate(step, value, self._operand(step.right))
        return value

    def _join(self, first: Any, steps: list[ast.BinOp]) -> Any:
        """`first >> b >> c ...` as one node: made pair by pair, each would copy all that is before it."""
        parts = [first]
        for step in steps:
            left, right = parts[-1], self._operand(step.right)
            if not isinstance(left, Schedule) or left.steps is None:
                self._operate(step, left, right)  # says what is wrong
            parts.append(right)
        spend(len(parts))
        try:
            return chain(parts)
        except ScheduleError as error:
            raise self.text.refused(steps[-1].right, str(error)) from None

    def _operate(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        spend()
        numbers = not isinstance(left, Schedule) and not isinstance(right, Schedule)
        apply: Callable[[Any, Any], Any]
        if isinstance(node.op, ast.Pow):
            if numbers and (abs(right) > _LARGEST_POWER or abs(left) > _LARGEST_BASE):
                raise self.text.refused(
                    node.right,
                    f"** between numbers goes up to {_LARGEST_BASE:g} to the power of {_LARGEST_POWER}",
                )
            apply = operator.pow
        elif type(node.op) not in _OPERATORS or (numbers and isinstance(node.op, ast.RShift)):
            sign = (
                ">> between two numbers"
                if isinstance(node.op, ast.RShift)
                else f"the operator {spoken(node.op)}"
            )
            raise self.text.refused(
                node.right, f"{sign} is not part of the expression syntax; known are + - * / >> **"
            )
        else:
            apply = _OPERATORS[type(node.op)]
        try:
            value = apply(left, right)
        except (ScheduleError, ArithmeticError) as error:
            raise self.text.refused(node.right, str(error)) from None
        return self._number(node, value) if numbers else value

    def _call(self, node: ast.Call) -> Schedule:
        spend()
        name, function, inner, known = self._called(node.func)
        receiver: tuple[Any, ...] = ()
        if inner is not None:
            receiver = (self._value(inner),)
            if not isinstance(receiver[0], Schedule):
                raise self.text.refused(inner, f"{name}() is a method of schedules")
        arguments = [self._argument(argument) for argument in node.args]
        options = self._options(name, node.keywords, known)
        try:
            if receiver:
                names.signature(function).bind(*receiver, *arguments, **options)
            return function(*receiver, *arguments, **options)
        except ArgumentError as error:
            raise self.text.refused(node, str(error)) from None
        except TypeError as error:
            way = names.usage(function, method=bool(receiver))
            raise self.text.refused(node, f"{name}: {error}; it is {name}{way}") from None
        except (ScheduleError, ArithmeticError) as error:
            raise self.text.refused(node, str(error)) from None

    def _called(self, node: ast.expr) -> tuple[str, Callable[..., Schedule], ast.expr | None, list[str]]:
        """The name of what is called, itself, what it is a method of (or None), and the names of its arguments."""
        name = self._name(node)
        if name is not None and name in names.FUNCTIONS:
            function = names.FUNCTIONS[name]
            return name, function, None, list(names.signature(function).parameters)
        if isinstance(node, ast.Attribute) and node.attr in names.METHODS:
            function = names.METHODS[node.attr]
            return node.attr, function, node.value, list(names.signature(function).parameters)[1:]
        raise self._refused_name(node)

    def _options(self, name: str, keywords: list[ast.keyword], known: list[str]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for keyword in keywords:
            argument = self._option(name, keyword, known)
            if argument in options:
                raise self.text.refused(keyword, f"the argument {argument} is given twice")
            hole = self._hole(keyword)
            options[argument] = self._argument(keyword.value) if hole is None else hole
        return options

    def _option(self, name: str, keyword: ast.keyword, known: list[str]) -> str:
        """The name of an argument that what is called `name` has."""
        if keyword.arg is None:
            raise self.text.refused(
                keyword.value, "write the arguments one by one: ** is not part of the expression syntax"
            )
        if keyword.arg not in known:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            text = f"{name} has no argument {shown(keyword.arg)}{hint(keyword.arg, known, value)}"
            raise self.text.refused(keyword, text)
        return keyword.arg

    def _argument(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Starred):
            raise self.text.refused(
                node, "write the arguments one by one: * is not part of the expression syntax"
            )
        return self._value(node)

    # -- names -------------------------------------------------------------------------------------------------------

    def _name(self, node: ast.expr) -> str | None:
        """The library's name that is meant, with or without `ts.` in front; None where it is no such name."""
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _MODULE:
            return node.attr
        return None

    def _refused_name(self, node: ast.expr) -> ScheduleError:
        name = self._name(node)
        if name is None and isinstance(node, ast.Attribute) and node.attr in names.METHODS:
            way = names.usage(names.METHODS[node.attr], method=True)
            return self.text.refused(node, f"{node.attr} needs its arguments: .{node.attr}{way}", at_end=True)
        if name is None and isinstance(node, ast.Attribute):
            return self.text.refused(
                node, f"no such method: .{node.attr}{hint(node.attr, names.METHODS)}", at_end=True
            )
        if name is None:
            return self.text.refused(
                node, f"{spoken(node)} cannot be called; known are {', '.join(sorted(names.FUNCTIONS))}"
            )
        if name in names.FUNCTIONS:
            return self.text.refused(
                node, f"{name} needs its arguments: {name}{names.usage(names.FUNCTIONS[name])}"
            )
        if name in names.ELSEWHERE:
            return self.text.refused(node, f"{name} cannot be used here: {names.ELSEWHERE[name]}")
        return self.text.refused(node, f"unknown name {shown(name)}{hint(name, names.FUNCTIONS)}")
