"""What runs at every step, and nothing else: check every slot, count the step, put the next values there.

    before optimizer.step()    check()               every slot of every group holds the object that was put there
    after it                   check(), advance()    the step counter grows by 1, the next row is in the slots

A mover is made when slots are bound: functions over keys, groups and rows that have been looked up already. They read
`optimizer.param_groups` at each call and keep groups only to compare with: a write to a group that somebody has
replaced would be a write to nothing. Whether a value that is not the one that was put there is harmless (the same
number) or not, is looked at when it is found, and not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from tensorsched.engine import FloatEngine, ScheduleEngine
from tensorsched.param_groups import Place, with_element

__all__ = ["Mover", "fill", "fill_all", "fill_each", "float_mover", "joined", "tensor_mover"]

Groups = Sequence[dict[str, Any]]
Row = tuple[Sequence[Any], ...]  # for each block, what each of its places holds

# What a look at groups that are not those of before raises: two that differ are compared key by key, and parameters
# do not compare as one value (a RuntimeError).
_GONE = (KeyError, IndexError, TypeError, RuntimeError, ValueError)


class Mover(NamedTuple):
    """The functions of some slots. They do not synchronise, but where `advance` says so.

    Attributes:
        check: whether every slot holds what was put there. Changes nothing.
        advance: count one step and put the next values there; nothing if the tensor that it is given (GradScaler's
            found_inf) is not 0, which float slots read on the host.
    """

    check: Callable[[], bool]
    advance: Callable[[torch.Tensor | None], None]


class Block(NamedTuple):
    """The places that have a key (and element) in common, and which entries of a row are theirs."""

    key: str
    element: int | None
    of: Callable[[Groups], Sequence[dict[str, Any]]]  # its groups, of all
    pick: Callable[[Sequence[Any]], Sequence[Any]]  # its entries, of a row


def float_mover(optimizer: Any, columns: Mapping[Place, int], engine: FloatEngine) -> Mover:
    """Of slots that hold Python floats, written at every step; the present ones are put there now.

    Args:
        optimizer: has `param_groups`.
        columns: for each place, where in the engine's row its value is.
        engine: counts, and has the rows.
    """
    blocks = _blocks(columns)
    picks = [block.pick for block in blocks]
    last, following = engine.present(picks), engine.following(picks)
    same, write = _comparer(optimizer, blocks), writer(optimizer, blocks)
    write(last)

    def check() -> bool:
        return same(last)

    def advance(found_inf: torch.Tensor | None = None) -> None:
        nonlocal last
        if found_inf is not None and found_inf.item() != 0:
            return
        engine.step_count += 1
        last = next(following)
        write(last)

    place = next(iter(columns))
    if len(columns) > 1 or place.element is not None:
        return Mover(check, advance)
    return _one_float(optimizer, place, engine, last[0][0], following)


def _one_float(optimizer: Any, place: Place, engine: FloatEngine, last: float, following: Any) -> Mover:
    """The same without loops, which cost more than all the rest: one float in one group is what most runs have."""
    index, key, _ = place
    bound = optimizer.param_groups[:]

    def check() -> bool:
        try:
            groups = optimizer.param_groups
            return groups == bound and groups[index][key] is last
        except _GONE:
            return False

    def advance(found_inf: torch.Tensor | None = None) -> None:
        nonlocal last
        if found_inf is not None and found_inf.item() != 0:
            return
        engine.step_count += 1
        ((last,),) = next(following)
        optimizer.param_groups[index][key] = last

    return Mover(check, advance)


def tensor_mover(optimizer: Any, views: Mapping[Place, torch.Tensor], engine: ScheduleEngine) -> Mover:
    """Of slots that hold 0-dim views of the engine's live values: put there once, now; filling live is all it takes."""
    blocks = _blocks({place: number for number, place in enumerate(views)})
    held = tuple(block.pick(list(views.values())) for block in blocks)
    writer(optimizer, blocks)(held)
    same, untouched, index = _comparer(optimizer, blocks), engine.intact, -1
    if len(views) == 1:
        ((index, key, element),) = views
        ((view,),) = held
        bound = optimizer.param_groups[:]

    def check() -> bool:
        return untouched() and same(held)

    def check_one() -> bool:
        try:
            groups = optimizer.param_groups
            return groups == bound and groups[index][key] is view and untouched()
        except _GONE:
            return False

    return Mover(check_one if index >= 0 and element is None else check, engine.driver.advance)


def joined(movers: Sequence[Mover], *, floats: bool) -> Mover:
    """Several movers as one; with float slots among them, found_inf is read once, on the host, for all."""
    if len(movers) == 1:
        return movers[0]
    checks, advances = zip(*movers)

    def check() -> bool:
        return all([intact() for intact in checks])

    def advance(found_inf: torch.Tensor | None = None) -> None:
        if floats and found_inf is not None:
            if found_inf.item() != 0:
                return
            found_inf = None
        for each in advances:
            each(found_inf)

    return Mover(check, advance)


def writer(optimizer: Any, blocks: Sequence[Block]) -> Callable[[Row], None]:
    """The function that puts a row into the places of some blocks, whatever they hold."""

    def write(row: Row) -> None:
        groups = optimizer.param_groups
        for (key, element, of, _), values in zip(blocks, row):
            if element is None:
                for group, value in zip(of(groups), values):
                    group[key] = value
            else:
                for group, value in zip(of(groups), values):
                    group[key] = with_element(group[key], element, value)

    return write


def fill_all(groups: Iterable[dict[str, Any]], part: str, last: object, value: Any) -> None:
    """Put one value into each of these groups; see `fill`. Does not synchronise.

    Args:
        groups: all are looked at.
        part: a key, or an element such as "betas[0]".
        last: the very float that was put there the time before: a group that still holds it holds no tensor, and one
            look is all that the check costs.
        value: the value.
    """
    try:
        for group in groups:
            if last is group[part]:
                group[part] = value
            else:
                fill(group, part, value)
    except KeyError:  # an element, or an entry that is yet to be made; those that are done are done again
        for group in groups:
            fill(group, part, value)


def fill_each(groups: Groups, parts: Sequence[str], last: Sequence[object], row: Sequence[Any]) -> None:
    """As `fill_all`, but each group has its own part, and its own entry of a row."""
    try:
        for group, part, before, value in zip(groups, parts, last, row):
            if before is group[part]:
                group[part] = value
            else:
                fill(group, part, value)
    except KeyError:
        for group, part, value in zip(groups, parts, row):
            fill(group, part, value)


def fill(group: dict[str, Any], part: str, value: Any) -> None:
    """Put a value into a group, whatever it holds. Does not synchronise.

    A tensor stays the same object and is filled, because compiled and captured steps read that one; an element of a
    tuple is replaced.
    """
    if type(group.get(part)) is float:
        group[part] = value
    else:
        Place.parse(part, 0, group).fill((group,), value)


def _comparer(optimizer: Any, blocks: Sequence[Block]) -> Callable[[Row], bool]:
    """The function that tells whether the places hold the very objects of a row, in the groups of now."""
    bound = optimizer.param_groups[:]

    def same(row: Row) -> bool:
        try:
            groups = optimizer.param_groups
            if groups != bound:  # a look at each pointer, and no more, as long as they are the same dicts
                return False
            for (key, element, of, _), values in zip(blocks, row):
                if element is None:
                    for group, value in zip(of(groups), values):
                        if group[key] is not value:
                            return False
                else:
                    for group, value in zip(of(groups), values):
                        if group[key][element] is not value:
                            return False
        except _GONE:
            return False
        return True

    return same


def _blocks(columns: Mapping[Place, int]) -> list[Block]:
    found: dict[tuple[str, int | None], list[tuple[int, int]]] = {}
    for (index, key, element), column in columns.items():
        found.setdefault((key, element), []).append((index, column))
    return [
        Block(key, element, _getter([index for index, _ in pairs]), _getter([column for _, column in pairs]))
        for (key, element), pairs in found.items()
    ]


def _getter(indices: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """The function that takes these items of a sequence, as a sequence."""
    first = indices[0]
    return itemgetter(*indices) if len(indices) > 1 else itemgetter(slice(first, first + 1))
