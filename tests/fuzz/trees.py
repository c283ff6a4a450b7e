"""Documents, configs and states: trees of dicts and lists, and what an editor, or an enemy, makes of them."""

from __future__ import annotations

import decimal
import fractions
import math
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import torch

from tensorsched.schedules.node import NODES
from tensorsched.schedules.parse import FUNCTIONS

MOST_PLACES = 5_000  # that are looked at: what was grown once is not to grow by as much again

NUMBERS = (
    0, 1, -1, 2, 3, 7, 50, 0.5, 1.5, -0.0, 1e-3, 1e308, 5e-324, 2**53, 2**53 - 1, 2**53 + 1, 2**63, 2**64, 10**30, -(2**53), math.nan,
    math.inf, -math.inf, True, False, 1.00001, 10**400, 3.0, 1e16,
)  # fmt: skip
KINDS = (*sorted(NODES), *sorted(FUNCTIONS))
WORDS = (
    "", "x", "?", "3e-4", "1e5", "1e400", " 7 ", "1_000", "nan", "0x1", "cosine", "1-sqrt", "elapsed", "min", "\x1b[31mred", "a\nb", "\0",
    "\ud800", "\u202e", "é", "x" * 200, "9" * 5_000, "+", ">>", "minimum", "lr[group 0]", "lr[group 99999999]", "betas[3][group 0]",
    "tensorsched/schedule", "tensorsched/attachment", "tensorsched/plan", "__class__", "self", "steps", "None",
)  # fmt: skip
FOREIGN = (
    1j, b"bytes", (), set(), object, ..., range(3), np.float32(0.5), np.int64(3), np.array([1.0, 2.0]), np.array(5), np.bool_(True),
    fractions.Fraction(1, 3), decimal.Decimal("0.1"), np.array([], dtype=object), bytearray(3), np.float64("nan"), np.datetime64("NaT"),
    torch.tensor(3.0), torch.tensor([1.0, 2.0]), torch.tensor(2, dtype=torch.int64), torch.ones(1, requires_grad=True), torch.tensor(1j),
)  # fmt: skip
"""What a JSON text cannot hold, and what Python can."""


def copied(tree: Any) -> Any:
    """Its dicts and lists anew, however deep they are nested."""
    top = [tree]
    left: list[tuple[Any, Any]] = [(top, 0)]
    while left:
        holder, key = left.pop()
        entry = holder[key]
        if isinstance(entry, (dict, list)):
            holder[key] = entry = entry.copy()
            left += [(entry, inner) for inner in (entry if isinstance(entry, dict) else range(len(entry)))]
    return top[0]


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place inside: the dict or list that holds it, and the key or the index."""
    found: list[tuple[Any, Any]] = []
    left = [tree]
    while left and len(found) < MOST_PLACES:
        holder = left.pop()
        if isinstance(holder, (dict, list)):
            for key, entry in holder.items() if isinstance(holder, dict) else enumerate(holder):
                found.append((holder, key))
                left.append(entry)
    return found


def junk(chance: Random, depth: int = 2) -> Any:
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(NUMBERS)
    if kind < 0.65:
        return chance.choice(WORDS) if kind < 0.6 else chance.choice(KINDS)
    if kind < 0.75:
        return chance.choice(
            (None, chance.randint(-5, 2**54), chance.uniform(-1, 1) * 10 ** chance.randint(-9, 9))
        )
    if kind < 0.8 or depth <= 0:
        return chance.choice(FOREIGN)
    if kind < 0.9:
        return [junk(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    return {_key(chance): junk(chance, depth - 1) for _ in range(chance.randint(0, 3))}


def _key(chance: Random) -> Any:
    return chance.choice(
        (chance.choice(WORDS), chance.choice(WORDS), "kind", "inner", 0, None, 1.5, ("a",), b"k", True)
    )


def slip(chance: Random, tree: Any, other: Any) -> Any:
    """The tree, which is changed in place, after one edit; `other` is where parts are taken from."""
    inside = places(tree)
    if not inside or chance.random() < 0.01:
        return junk(chance)
    holder, key = chance.choice(inside)
    kind = chance.random()
    if kind < 0.3:
        holder[key] = junk(chance)
    elif kind < 0.45:
        holder[key] = _other_number(chance, holder[key])
    elif kind < 0.55:
        del holder[key]
    elif kind < 0.65:
        _add(chance, holder, key)
    elif kind < 0.8:
        theirs = places(other)
        whole = [entry for source, at in theirs if type(entry := source[at]) is type(holder[key])] or [other]
        holder[key] = copied(chance.choice(whole))
    elif kind < 0.88 and isinstance(holder, dict) and "kind" in holder:
        holder["kind"] = chance.choice(KINDS)
    elif kind < 0.93:
        source, at = chance.choice(inside)
        holder[key] = copied(source[at])
    elif kind < 0.97:
        holder[key] = chance.choice(
            ([holder[key]], (holder[key],), {"kind": holder[key]}, str(holder[key])[:300])
        )
    else:
        _grow(chance, holder, key)
    return tree


def _other_number(chance: Random, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return chance.choice(NUMBERS)
    return chance.choice(
        (value + 1, value - 1, -value, value * 2, chance.choice(NUMBERS), str(value)[:100], value // 1 or 0)
    )


def _add(chance: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        holder[chance.choice((f"{key}x", chance.choice(("steps", "every", "later")), _key(chance)))] = junk(
            chance
        )
    else:
        holder.insert(key, copied(holder[key]))


def _grow(chance: Random, holder: Any, key: Any) -> None:
    """Deeper or longer, up to where a bound is met."""
    times, entry = chance.choice((30, 98, 101, 400)), holder[key]
    kind = chance.random()
    if kind < 0.4:
        for _ in range(times):
            entry = (
                {"kind": "delay", "inner": entry, "n": 1}
                if kind < 0.3
                else {"kind": "repeat", "inner": entry, "times": 2, "length_mult": 1.3}
            )
    elif kind < 0.6:
        entry = [entry] * chance.choice((100, 5_000))
    elif kind < 0.8:
        entry = {f"k{i}": entry for i in range(chance.choice((100, 5_000)))}
    else:
        for _ in range(times * 3):
            entry = [entry]
    holder[key] = entry


def smaller(given: Any) -> Iterator[Any]:
    """The same input with less in it, the boldest cuts first: for the report of a finding."""
    if isinstance(given, (str, bytes)):
        width = len(given) // 2
        while width:
            for start in range(0, len(given), width):
                yield given[:start] + given[start + width :]
            width //= 2
    elif isinstance(given, (list, tuple)):
        for at, entry in enumerate(given):
            if isinstance(given, list):
                yield given[:at] + given[at + 1 :]
            for less in smaller(entry):
                yield type(given)((*given[:at], less, *given[at + 1 :]))
    elif isinstance(given, dict):
        for key, entry in given.items():
            yield {name: value for name, value in given.items() if name is not key}
            for less in smaller(entry):
                yield given | {key: less}
