"""Texts: expressions that are mostly right, by the signatures of what the parser knows, and what slips make of them."""

from __future__ import annotations

import inspect
import re
from random import Random

from tensorsched.schedules.parse import FUNCTIONS, METHODS

NUMBERS = (
    "0", "1", "-1", "2", "3", "9", "0.5", "1e-3", "1.5", "100", "1000", "10**6", "2**53", "2**53-1", "10**400", "1e308",
    "5e-324", "-0.0", "1e999", "True", "None", "'cosine'", "'1-sqrt'", "'x'", "''", "?", "[1, 2]", "[(0, 1), (5, 2)]", "[]", "()",
    "9" * 30, "9" * 400, "1.00001", "0.999", "'0:1 9:2'", "initial", "1_000", "0x10", "1j", "1e-400", "b'x'", "...",
    "lambda: 0", "[x for x in y]", "f'{1}'", "__import__('os')", "(1).real", "{}", "{1: 2}", "*[1]", "**{}", "1 if 1 else 2",
)  # fmt: skip
WORDS = (
    "(", ")", "[", "]", "{", "}", ",", ".", "=", "?", ":", ";", "'", '"', '"""', "#", "\\", "\n", "\t", "\r", "\f", " ", "\0",
    "\x1b[31m", "\x1b]0;x\x07", "\u202e", "\u200b", "\ufeff", "\ud800", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT FIVE}",
    "\N{FULLWIDTH DIGIT ONE}", "e\u0301", "\U0001f4c8", "\x85", "\u2028", "ts.", "tensorsched.", "ts.initial", "_", "__class__",
    " >> ", " << ", " + ", " - ", " * ", " / ", " // ", " % ", " ** ", " @ ", " and ", " if ", " is ", ":=", "->", "steps=", "total=?",
    "~", "not ", "await ", "yield ", "1e", "0b", "0o9", "1__0", "rb'", "é", "import",
)  # fmt: skip
SHAPES = ("'linear'", "'cosine'", "'1-sqrt'", "'exponential'", "linear(1, 0, steps=9)", "rex(1, 0, steps=5)")
CHOICES = ("'min'", "'max'", "'rel'", "'abs'", "'triangular'", "'exp_range'", "'remaining'", "'elapsed'", "'height'", "'peak'",
           "'from_start'", "'half_step'", "'a'", "'plateau'", "'0:768 250B:1536'")  # fmt: skip
OPERATORS = (" >> ", " >> ", " + ", " - ", " * ", " * ", " / ", " ** ")
TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|'[^']*'|\s+|.", re.DOTALL)
LONGEST = 200_000

_TOTALS = {"total": (20, 1_000), "warmup": (0, 12), "timescale": (1, 50), "d_model": (1, 600)}
_FRACTIONS = {"decay", "rise", "d", "gamma", "level", "factor", "length_mult", "average", "smoothing"}
PARAMETERS = {
    name: [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    for name, function in [*FUNCTIONS.items(), *METHODS.items()]
}
_NESTED = ("chain", "maximum", "minimum", "adamc", "independent")


def expression(chance: Random, depth: int = 3) -> str:
    """Text of a schedule; most can be read."""
    if depth <= 0 or chance.random() < 0.35:
        return call(chance, chance.choice(_LEAVES), 0)
    kind = chance.random()
    if kind < 0.5:
        left, right = expression(chance, depth - 1), expression(chance, depth - 1)
        if kind < 0.1:
            right = number(chance)
        return f"{left}{chance.choice(OPERATORS)}{right}"
    if kind < 0.6:
        return f"({expression(chance, depth - 1)})"
    if kind < 0.65:
        return f"-{expression(chance, depth - 1)}"
    if kind < 0.75:
        return call(chance, chance.choice(_NESTED), depth - 1)
    name = chance.choice(_METHODS)
    return f"({expression(chance, depth - 1)}).{call(chance, name, depth - 1)}"


def call(chance: Random, name: str, depth: int) -> str:
    """A call by name: mostly all that it needs, and some of what it may have."""
    given = [
        p
        for p in PARAMETERS[name]
        if (p.default is p.empty and chance.random() < 0.98) or chance.random() < 0.25
    ]
    if chance.random() < 0.03:
        chance.shuffle(given)
    extra = (
        f", {chance.choice(('T_max', 'steps', 'x', 'total'))}={number(chance)}"
        if chance.random() < 0.02
        else ""
    )
    return f"{name}({', '.join(f'{p.name}={argument(chance, p, depth)}' for p in given)}{extra})"


def number(chance: Random) -> str:
    kind = chance.random()
    if kind < 0.5:
        return str(chance.randint(0, 20))
    if kind < 0.9:
        return repr(
            chance.choice((1e-4, 3e-4, 0.1, 0.5, 1.0, round(chance.uniform(-3, 3), 3), chance.expovariate(1)))
        )
    return chance.choice(NUMBERS)


def argument(chance: Random, parameter: inspect.Parameter, depth: int) -> str:
    """What the parameter takes, by its name and its annotation; sometimes anything."""
    name, kind = parameter.name, str(parameter.annotation)
    if chance.random() < 0.04:
        return chance.choice(NUMBERS)
    if name in _FRACTIONS and kind.startswith("float"):
        return repr(round(chance.random(), 3))
    if name in _TOTALS and kind.startswith(("int", "float")):
        return str(chance.randint(*_TOTALS[name]))
    if "Iterable[Schedule" in kind:
        return f"[{', '.join(expression(chance, depth - 1) for _ in range(chance.randint(1, 3)))}]"
    if kind.startswith("Schedule"):
        return expression(chance, depth - 1)
    if kind == "Shape":
        return chance.choice(SHAPES)
    if kind.startswith("str"):
        return chance.choice(CHOICES)
    if kind.startswith("bool"):
        return chance.choice(("True", "False"))
    if kind.startswith("int"):
        return str(chance.choice((0, 1, 2, 7, 40, 1_000, chance.randint(0, 60))))
    if "tuple[int" in kind:
        steps = sorted(chance.sample(range(60), chance.randint(1, 4)))
        return f"[{', '.join(f'({step}, {number(chance)})' for step in steps)}]"
    if "Sequence[int" in kind:
        return str(sorted(chance.sample(range(1, 90), chance.randint(0, 4))))
    if "Sequence[float" in kind and chance.random() < 0.8:
        return f"[{', '.join(number(chance) for _ in range(chance.randint(1, 5)))}]"
    return number(chance)


def slip(chance: Random, text: str, other: str) -> str:
    """The text after one slip of the keyboard, of the clipboard, or of something worse."""
    tokens = TOKEN.findall(text) or [""]
    at = chance.randrange(len(tokens))
    until = min(len(tokens), at + chance.choice((0, 1, 1, 1, 2, 5)))
    kind = chance.random()
    if kind < 0.2:
        tokens[at:until] = [chance.choice(WORDS)]
    elif kind < 0.4:
        numbers = [i for i, token in enumerate(tokens) if token[0:1].isdigit()] or [at]
        tokens[chance.choice(numbers)] = chance.choice(NUMBERS)
    elif kind < 0.5:
        del tokens[at:until]
    elif kind < 0.58:
        tokens[at:at] = tokens[at:until]
    elif kind < 0.7:  # a part of another text
        others = TOKEN.findall(other) or [""]
        start = chance.randrange(len(others))
        tokens[at:until] = others[start : start + chance.choice((1, 2, 8, 40))]
    elif kind < 0.76:
        names = [i for i, token in enumerate(tokens) if token.isidentifier()] or [at]
        tokens[chance.choice(names)] = chance.choice(
            (*_LEAVES, *_METHODS, *_NESTED, "x", "seesaw", "from_json")
        )
    elif kind < 0.8:
        there = chance.randrange(len(tokens))
        tokens[at], tokens[there] = tokens[there], tokens[at]
    elif kind < 0.85:
        tokens[at] = tokens[at].swapcase() + chr(
            chance.choice((chance.randrange(128), chance.randrange(0x110000)))
        )
    elif kind < 0.9:
        width = chance.randint(0, 3)
        start = chance.randrange(len(text) + 1)
        return text[:start] + chance.choice(WORDS) + text[start + width :]
    elif kind < 0.97:
        return f"{text}{chance.choice((*OPERATORS, ', '))}{other}"
    else:
        return _grown(chance, text)
    return "".join(tokens)[:LONGEST]


def _grown(chance: Random, text: str) -> str:
    """Deeper or longer, up to where a bound is met."""
    times = chance.choice((3, 30, 99, 101, 160, 2_000))
    kind = chance.random()
    if kind < 0.3:
        opening, closing = chance.choice(
            (("(", ")"), ("[", "]"), ("-(", ")"), ("chain([", "])"), ("(", ").mirror()"))
        )
        grown = opening * times + text + closing * times
    elif kind < 0.7:
        grown = chance.choice((" >> ", " + ", " * ", ", ")).join([text] * times)
    elif kind < 0.85:
        grown = text + chance.choice((".repeat(2)", ".delay(1)", ".stretch(3)", ".hold_each(2)")) * times
    else:
        grown = text + chance.choice((*WORDS, "9", "x", "- ")) * times
    return grown if len(grown) <= LONGEST else text


_LEAVES = tuple(name for name in sorted(FUNCTIONS) if name not in _NESTED)
_METHODS = tuple(sorted(METHODS))
