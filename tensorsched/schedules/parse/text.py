"""The text itself: how much of it is read, where a `?` stands, and errors with a caret under the column."""

from __future__ import annotations

import ast
import re
import warnings

from tensorsched.errors import ScheduleError

MAX_TEXT = 1_000_000
"""Most characters of an expression: room for a table of 50,000 numbers."""

MAX_NESTING = 150
"""Deepest nesting of the text; schedules nest less deeply (100), and Python's parser has room for more."""

# Possessive, and from the start of a word: a long word costs one look, not one for each of its letters.
_HOLE = re.compile(r"\b(\w++)\s*+=\s*+(\?)")
_SHOWN = 100  # characters of a long line that an error repeats


class Text:
    """One text, as it was written: `failed` and `refused` make errors that point into it."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise ScheduleError(
                f"the expression has {len(text)} characters, more than {MAX_TEXT}; save the schedule with to_json() "
                "and name the file"
            )
        self.text = text.strip()
        # Where a `?` stands, and the name in front of it; Python reads a name of one character there.
        self.holes = {found.start(2): found[1] for found in _HOLE.finditer(self.text)}
        self.unknown = frozenset(self.holes.values())
        self.lines = self.text.split("\n")
        if not self.text:
            raise ScheduleError("the expression is empty; write for example 'cosine(3e-4, 0, steps=1000)'")

    def tree(self) -> ast.expr:
        """The expression as Python parses it, with the name _ where a `?` stands."""
        self._bound_nesting()
        characters = list(self.text)
        for position in self.holes:
            characters[position] = "_"
        # In parentheses, so that line breaks are white space; `_refused_at` takes the added one back.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as "invalid escape sequence": refused below anyway
                return ast.parse(f"({''.join(characters)}\n)", mode="eval").body
        except SyntaxError as error:
            raise self._refused_at(
                error.lineno or 1, (error.offset or 1) - 1, f"not an expression: {error.msg}"
            ) from None
        except (RecursionError, MemoryError, ValueError) as error:
            raise ScheduleError(
                f"the expression cannot be read ({str(error) or 'nested too deep'}); save the schedule with to_json() "
                "and name the file"
            ) from None

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

    def refused(self, node: ast.expr | ast.keyword, message: str, *, at_end: bool = False) -> ScheduleError:
        """An error that points at a part of the tree, or at the name that it ends with."""
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


def spoken(node: ast.AST) -> str:
    """What a message calls a node."""
    return _SPOKEN.get(type(node).__name__, type(node).__name__)
