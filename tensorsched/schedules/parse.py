"""Text -> schedule, for configs and the command line: the library's own expression syntax, and nothing else of Python.

The text is parsed by Python's `ast`, and the tree is walked with a list of what is allowed: numbers, `+ - * / >>` and
`**` (between small numbers), the names of shapes and recipes (also as `ts.name`), the methods of a schedule, and as
their arguments lists and tuples of numbers, words, True, False and None. Nothing is evaluated by Python, no attribute
is looked up by a name from the text, and the text's length, nesting and numbers are bounded before they are used. What
is refused is shown with a caret under the column.

`parse(repr(schedule)) == schedule` for every schedule whose text is short enough.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import itertools
import operator
import re
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from tensorsched.errors import ScheduleError
from tensorsched.schedules import recipes
from tensorsched.schedules.algebra import chain, constant, initial
from tensorsched.schedules.node import SHAPES
from tensorsched.schedules.schedule import Schedule, maximum, minimum
from tensorsched.schedules.template import Template
from tensorsched.schedules.validators import refuse, shown
from tensorsched.schedules.words import ArgumentError, hint, usage
from tensorsched.schedules.work import bounded_work, spend

__all__ = ["argument", "parse"]

MAX_TEXT = 1_000_000
"""Most characters of an expression: room for a table of 50,000 numbers."""

MAX_NESTING = 150
"""Deepest nesting of the text; schedules nest less deeply (100), and Python's parser has room for more."""

_OTHERS: dict[str, Any] = {"chain": chain, "maximum": maximum, "minimum": minimum}
_ELSEWHERE = {
    "seesaw": "it gives two schedules, lr and batch size; make them in Python and save each with to_json()",
    "from_function": "it needs a function; tabulate it in Python and save it with to_json()",
    "from_dict": "save the document as a .json file and name that",
    "from_json": "save the document as a .json file and name that",
}
_RECIPES: dict[str, Any] = {
    name: getattr(recipes, name) for name in recipes.__all__ if name not in _ELSEWHERE
}
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
_signature = functools.cache(inspect.signature)
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
# Possessive, and from the start of a word: a long word costs one look, not one for each of its letters.
_HOLE = re.compile(r"\b(\w++)\s*+=\s*+(\?)")
_SUPPOSED = 1 << 30  # what a number that is not known yet is taken for, to find mistakes in the rest
_LARGEST = 1e308  # of a number; what is larger is no float64
_LONGEST_WORD = 40
_SHOWN = 100  # characters of a long line that an error repeats


def parse(text: str, **known: float) -> Schedule:
    """The schedule that the text describes, for example `linear(0, 3e-4, steps=500) >> cosine(3e-4, 0, steps=9500)`.

    Args:
        text: a Python expression over the shapes, recipes and operators of this package; line breaks are white
            space. `name=?` stands for a number that is not known yet.
        known: the numbers that stand for `?`, by the name in front of it.

    Returns:
        The schedule; a number alone is a constant. With a `?` that is not known a `Template`: `.bind(total=n)` makes
        the schedule.

    Raises:
        ScheduleError: anything else. The message says what, and points at the column.

    Example:
        >>> import tensorsched as ts
        >>> ts.parse("0.5 * ts.warmup_cosine(3e-4, total=100, warmup=0.1)")
        0.5 * (linear(0.0, 0.0003, steps=10) >> cosine(0.0003, 0.0, steps=90))
        >>> ts.parse("cosine(1, 0, steps=?)").bind(steps=4)
        cosine(1.0, 0.0, steps=4)
    """
    if not isinstance(text, str):
        raise refuse("parse: text", "text", text)
    with bounded_work():
        return _parse(text, known)


def _parse(text: str, known: Mapping[str, float]) -> Schedule:
    reader = _Reader(text, known)
    missing = tuple(name for name in dict.fromkeys(reader.holes.values()) if name not in known)
    if missing:
        if {"steps", "total"}.issuperset(
            missing
        ):  # whatever these are, what is wrong elsewhere shows at once
            reader.read(check=True)
        return Template(text.strip(), missing, parse)
    value = reader.read()
    if not isinstance(value, (Schedule, int, float)) or isinstance(value, bool):
        raise ScheduleError(f"an expression must be a schedule or a number, got {shown(value)}")
    return value if isinstance(value, Schedule) else constant(value)


def argument(text: str | float | Schedule) -> Schedule:
    """`parse` for argparse: `parser.add_argument("--lr", type=ts.argument)`; argparse shows the message as it is.

    For jsonargparse and Lightning's command line, which write the configuration as well, a type of its own:
    `register_type(ts.Schedule, serializer=repr, deserializer=ts.argument)`, then `lr: ts.Schedule`.

    Args:
        text: what stands on the command line; `?` for a number that is not known yet. A schedule is given back, since
            jsonargparse calls a type again with what came of it; a number is a constant, as in its config files.

    Returns:
        The schedule, or a `Template`.

    Raises:
        argparse.ArgumentTypeError: the text is no schedule; the message points at the column.
        ScheduleError: it is neither text nor any of the others.

    Example:
        >>> import argparse, tensorsched as ts
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--lr", type=ts.argument)
        >>> parser.parse_args(["--lr", "cosine(3e-4, 0, steps=100)"]).lr
        cosine(0.0003, 0.0, steps=100)
    """
    if isinstance(text, Schedule):
        return text
    if not isinstance(text, str):
        return constant(text)
    try:
        return parse(text)
    except ScheduleError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Reader:
    """One text on its way to a schedule."""

    def __init__(self, text: str, known: Mapping[str, float]) -> None:
        if len(text) > MAX_TEXT:
            raise ScheduleError(
                f"the expression has {len(text)} characters, more than {MAX_TEXT}; save the schedule with to_json() "
                "and name the file"
            )
        self.text = text.strip()
        # Where a `?` stands, and the name in front of it; Python reads a name of one character there.
        self.holes = {found.start(2): found[1] for found in _HOLE.finditer(self.text)}
        self.unknown = frozenset(self.holes.values())
        self.known = known
        self.lines = self.text.split("\n")
        if not self.text:
            raise ScheduleError("the expression is empty; write for example 'cosine(3e-4, 0, steps=1000)'")

    def read(self, *, check: bool = False) -> Any:
        """The value; with `check` a `?` is read as a large number."""
        self._bound_nesting()
        self.checking = check
        # In parentheses, so that line breaks are white space; `_refused_at` takes the added one back.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as "invalid escape sequence": refused below anyway
                tree = ast.parse(f"({self._filled()}\n)", mode="eval")
        except SyntaxError as error:
            raise self._refused_at(
                error.lineno or 1, (error.offset or 1) - 1, f"not an expression: {error.msg}"
            ) from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise ScheduleError(
                f"the expression cannot be read ({str(error) or 'nested too deep'}); save the schedule with to_json() "
                "and name the file"
            ) from None
        try:
            return self._value(tree.body)
        except RecursionError:
            raise ScheduleError(
                "the expression is nested too deep; save the schedule with to_json() and name the file"
            ) from None

    def _filled(self) -> str:
        characters = list(self.text)
        for position in self.holes:
            characters[position] = "_"
        return "".join(characters)

    def _hole(self, keyword: ast.keyword) -> Any:
        """What a `?` stands for; None where the value is something else."""
        node = keyword.value
        if not isinstance(node, ast.Name) or node.id != "_" or keyword.arg not in self.unknown:
            return None
        return _SUPPOSED if self.checking else self.known[keyword.arg or ""]

    # -- the tree -----------------------------------------------------------------------------------------------------

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
                raise self._refused(node, f"{_spoken(node)} is not part of the expression syntax")

    def _constant(self, node: ast.Constant) -> Any:
        value = node.value
        if isinstance(value, str) and len(value) <= _LONGEST_WORD:
            return value
        if isinstance(value, (int, float)) or value is None:  # True and False are ints
            return self._number(node, value)
        raise self._refused(node, f"a {type(value).__name__} has no place in a schedule; write numbers")

    def _number(self, node: ast.expr, value: Any) -> Any:
        if isinstance(value, complex) or (value is not None and not abs(value) <= _LARGEST):
            raise self._refused(node, "a number must fit a float64")
        return value

    def _entry(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, str) or value is None:
            raise self._refused(node, "a list holds numbers, or schedules for chain")
        return value

    def _sign(self, node: ast.UnaryOp) -> Any:
        value = self._operand(node.operand)
        if isinstance(node.op, ast.UAdd) and isinstance(value, Schedule):
            raise self._refused(node, "a + in front of a schedule is not part of the expression syntax")
        return -value if isinstance(node.op, ast.USub) else value

    def _operand(self, node: ast.expr) -> Any:
        value = self._value(node)
        if isinstance(value, (bool, str, list)) or value is None:
            raise self._refused(node, f"an operator needs a schedule or a number, got {shown(value)}")
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
            raise self._refused(steps[-1].right, str(error)) from None

    def _operate(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        spend()
        numbers = not isinstance(left, Schedule) and not isinstance(right, Schedule)
        apply: Callable[[Any, Any], Any]
        if isinstance(node.op, ast.Pow):
            if numbers and (abs(right) > _LARGEST_POWER or abs(left) > _LARGEST_BASE):
                raise self._refused(
                    node.right,
                    f"** between numbers goes up to {_LARGEST_BASE:g} to the power of {_LARGEST_POWER}",
                )
            apply = operator.pow
        elif type(node.op) not in _OPERATORS or (numbers and isinstance(node.op, ast.RShift)):
            sign = (
                ">> between two numbers"
                if isinstance(node.op, ast.RShift)
                else f"the operator {_spoken(node.op)}"
            )
            raise self._refused(
                node.right, f"{sign} is not part of the expression syntax; known are + - * / >> **"
            )
        else:
            apply = _OPERATORS[type(node.op)]
        try:
            value = apply(left, right)
        except (ScheduleError, ArithmeticError) as error:
            raise self._refused(node.right, str(error)) from None
        return self._number(node, value) if numbers else value

    def _call(self, node: ast.Call) -> Schedule:
        spend()
        name = self._name(node.func)
        receiver: tuple[Any, ...] = ()
        if name is not None and name in FUNCTIONS:
            function = FUNCTIONS[name]
        elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            function, name = METHODS[node.func.attr], node.func.attr
            receiver = (self._value(node.func.value),)
            if not isinstance(receiver[0], Schedule):
                raise self._refused(node.func.value, f"{name}() is a method of schedules")
        else:
            raise self._refused_name(node.func)
        arguments = [self._argument(argument) for argument in node.args]
        known = dict.fromkeys(list(_signature(function).parameters)[len(receiver) :])
        options = self._options(name, node.keywords, known)
        try:
            if receiver:
                _signature(function).bind(*receiver, *arguments, **options)
            return function(*receiver, *arguments, **options)
        except ArgumentError as error:
            raise self._refused(node, str(error)) from None
        except TypeError as error:
            way = _usage(function, method=bool(receiver))
            raise self._refused(node, f"{name}: {error}; it is {name}{way}") from None
        except (ScheduleError, ArithmeticError) as error:
            raise self._refused(node, str(error)) from None

    def _options(self, name: str, keywords: list[ast.keyword], known: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for keyword in keywords:
            if keyword.arg is None:
                raise self._refused(
                    keyword.value, "write the arguments one by one: ** is not part of the expression syntax"
                )
            if keyword.arg not in known:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                text = f"{name} has no argument {shown(keyword.arg)}{hint(keyword.arg, known, value)}"
                raise self._refused(keyword, text)
            if keyword.arg in options:
                raise self._refused(keyword, f"the argument {keyword.arg} is given twice")
            hole = self._hole(keyword)
            options[keyword.arg] = self._argument(keyword.value) if hole is None else hole
        return options

    def _argument(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Starred):
            raise self._refused(
                node, "write the arguments one by one: * is not part of the expression syntax"
            )
        return self._value(node)

    # -- names --------------------------------------------------------------------------------------------------------

    def _name(self, node: ast.expr) -> str | None:
        """The library's name that is meant, with or without `ts.` in front; None where it is no such name."""
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _MODULE:
            return node.attr
        return None

    def _refused_name(self, node: ast.expr) -> ScheduleError:
        name = self._name(node)
        if name is None and isinstance(node, ast.Attribute) and node.attr in METHODS:
            way = _usage(METHODS[node.attr], method=True)
            return self._refused(node, f"{node.attr} needs its arguments: .{node.attr}{way}", at_end=True)
        if name is None and isinstance(node, ast.Attribute):
            return self._refused(node, f"no such method: .{node.attr}{hint(node.attr, METHODS)}", at_end=True)
        if name is None:
            return self._refused(
                node, f"{_spoken(node)} cannot be called; known are {', '.join(sorted(FUNCTIONS))}"
            )
        if name in FUNCTIONS:
            return self._refused(node, f"{name} needs its arguments: {name}{_usage(FUNCTIONS[name])}")
        if name in _ELSEWHERE:
            return self._refused(node, f"{name} cannot be used here: {_ELSEWHERE[name]}")
        return self._refused(node, f"unknown name {shown(name)}{hint(name, FUNCTIONS)}")

    # -- bounds and errors --------------------------------------------------------------------------------------------

    def _bound_nesting(self) -> None:
        """Refuse brackets nested deeper than Python's parser likes, and those that do not match.

        Brackets in strings are counted as well: no word that a schedule takes has one.
        """
        opened: list[int] = []
        for found in re.finditer(r"[()\[\]{}]", self.text):
            if found[0] in "([{":
                opened.append(found.start())
            elif opened:
                opened.pop()
            else:
                raise self._failed_at(found.start(), f"unmatched {found[0]!r}")
            if len(opened) > MAX_NESTING:
                raise self._failed_at(found.start(), f"nested more than {MAX_NESTING} levels deep")
        if opened:
            raise self._failed_at(opened[-1], f"{self.text[opened[-1]]!r} was never closed")

    def _failed_at(self, position: int, message: str) -> ScheduleError:
        line = self.text.count("\n", 0, position)
        return self._failed(line, position - (self.text.rfind("\n", 0, position) + 1), message)

    def _refused(self, node: ast.expr | ast.keyword, message: str, *, at_end: bool = False) -> ScheduleError:
        line, offset = node.lineno, node.col_offset
        if at_end and node.end_lineno is not None and node.end_col_offset is not None:
            name = len(getattr(node, "attr", "").encode())
            line, offset = node.end_lineno, node.end_col_offset - name
        source = (
            f"({self.lines[0]}" if line == 1 else self.lines[line - 1] if line <= len(self.lines) else ")"
        )
        return self._refused_at(line, len(source.encode()[:offset].decode(errors="ignore")), message)

    def _refused_at(self, line: int, column: int, message: str) -> ScheduleError:
        """`line` from 1 and `column` from 0, in the text with the parenthesis that was put in front of it."""
        if line > len(self.lines):
            line, column = len(self.lines), len(self.lines[-1]) + (len(self.lines) == 1)
        return self._failed(line - 1, max(0, column - (line == 1)), message)

    def _failed(self, line: int, column: int, message: str) -> ScheduleError:
        text = self.lines[line]
        where = f"column {column + 1}" if len(self.lines) == 1 else f"line {line + 1}, column {column + 1}"
        cut = max(0, column - _SHOWN // 2) if len(text) > _SHOWN else 0
        piece = "".join(c if c.isprintable() else " " for c in text[cut : cut + _SHOWN])
        return ScheduleError(f"{where}: {message}\n  {piece}\n  {' ' * (column - cut)}^")


_SPOKEN = {
    "Lambda": "a lambda", "ListComp": "a comprehension", "SetComp": "a comprehension", "NamedExpr": "an assignment",
    "DictComp": "a comprehension", "GeneratorExp": "a comprehension", "JoinedStr": "an f-string", "Dict": "a dict",
    "Set": "a set", "Subscript": "an index", "IfExp": "a condition", "Compare": "a comparison", "BoolOp": "and / or",
    "UnaryOp": "this operator", "Call": "what a call returns", "Starred": "*", "Constant": "a constant",
    "LShift": "<<", "Mod": "%", "FloorDiv": "//", "MatMult": "@", "BitOr": "|", "BitAnd": "&", "BitXor": "^",
}  # fmt: skip


def _spoken(node: ast.AST) -> str:
    """What a message calls a node."""
    return _SPOKEN.get(type(node).__name__, type(node).__name__)


def _usage(function: Callable[..., Schedule], *, method: bool = False) -> str:
    return usage(_signature(function), method=method)
