"""What runs at every step, and nothing else: check every slot, count the step, put the next values there.

    before optimizer.step()    check(groups)                         every slot holds the object that was put there
    after it                   check, advance(groups, found_inf)     one step counted, the next row is in the slots

A mover is made when slots are bound: functions over keys and rows that have been looked up already. They are handed the
optimizer's groups at each call and keep groups only to compare with: a write to a group that somebody has replaced
would be a write to nothing. (Nor do they keep the optimizer: that would be a circle, and its memory would wait for
Python's garbage collector.) Whether an object that is not the one that was put there is harmless, because it is the
same number, is looked at when it is found, and not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from tensorsched.engine import (
    ClockFloatEngine,
    FloatEngine,
    Inputs,
    ReactiveEngine,
    ReactiveFloatEngine,
    ScheduleEngine,
)
from tensorsched.param_groups import Place, hold_equal, with_element

__all__ = [
    "NEVER",
    "Mover",
    "fill",
    "fill_all",
    "fill_each",
    "filled_mover",
    "float_mover",
    "joined",
    "reactive_float_mover",
    "reactive_tensor_mover",
    "tensor_mover",
]

Groups = Sequence[dict[str, Any]]
Row = tuple[Sequence[Any], ...]  # for each block, what each of its places holds

_GONE = (KeyError, IndexError, TypeError)  # what a look at a key, or an element, that is not there raises


class Mover(NamedTuple):
    """The functions of some slots. They do not synchronise, but where `advance` says so.

    Attributes:
        check: whether the groups are those that were bound, in order, and every slot holds what was put there. Changes
            nothing.
        advance: count one step and put the next values there. False, and nothing has changed, where a float slot does
            not hold what was put there, or somebody wrote to a tensor; None, and nothing has changed, where the tensor
            that it is given (GradScaler's found_inf) is not 0, which float slots read on the host.
    """

    check: Callable[[Groups], bool]
    advance: Callable[[Groups, torch.Tensor | None], bool | None]


NEVER = Mover(lambda _: False, lambda _, __: False)
"""The mover of slots that move by other means."""


class Block(NamedTuple):
    """The places that have a key (and element) in common, and which entries of a row are theirs."""

    key: str
    element: int | None
    indices: tuple[int, ...]  # of its groups
    of: Callable[[Groups], Sequence[dict[str, Any]]]  # which takes them, of all
    entries: tuple[int, ...]  # of a row, for its groups
    pick: Callable[[Sequence[Any]], Sequence[Any]]  # which takes them


def float_mover(groups: Groups, columns: Mapping[Place, int], engine: FloatEngine) -> Mover:
    """Of slots that hold Python floats, written at every step; the present ones are put there now.

    Args:
        groups: the optimizer's own.
        columns: for each place, where in the engine's row its value is.
        engine: counts, and has the rows.
    """
    blocks = _blocks(columns)
    if _is_one_key(blocks, groups):
        return _one_key_of_floats(groups, blocks[0], engine)
    picks = [block.pick for block in blocks]
    same, following = _comparer(groups, blocks), engine.following()
    row = engine.row()
    last = tuple([pick(row) for pick in picks])
    write(groups, blocks, last)

    def check(groups: Groups) -> bool:
        return same(groups, last)

    def advance(groups: Groups, found_inf: torch.Tensor | None) -> bool | None:
        nonlocal last
        if found_inf is not None and found_inf.item() != 0:
            return None
        if not same(groups, last):  # a hook of somebody else may have written since the check
            return False
        row = next(following)
        engine.step_count += 1
        last = tuple([pick(row) for pick in picks])
        write(groups, blocks, last)
        return True

    return Mover(check, advance)


def _one_key_of_floats(groups: Groups, block: Block, engine: FloatEngine) -> Mover:
    """The same for one key of all groups, which is what most runs have: written out, it costs half."""
    key, bound, count = block.key, tuple(groups), len(groups)
    whole = block.entries == tuple(range(engine.table.columns))  # a row is what the groups get, as it is
    last = block.pick(engine.row())
    for group, value in zip(groups, last):
        group[key] = value

    def check(groups: Groups) -> bool:
        try:
            for group, mine, value in zip(groups, bound, last):
                if group[key] is not value or group is not mine:
                    return False
        except _GONE:
            return False
        return len(groups) == count

    if isinstance(engine, ClockFloatEngine):
        read, made = engine.reading(), engine.made

        def advance_on_clock(groups: Groups, found_inf: torch.Tensor | None) -> bool | None:
            nonlocal last
            if found_inf is not None and found_inf.item() != 0:
                return None
            row = read(engine.counted)
            coming = row if whole else block.pick(row)
            try:
                for group, was, value in zip(groups, last, coming):
                    if group[key] is not was:  # a hook of somebody else may have written since the check
                        return _take_back(groups, key, last, coming)
                    group[key] = value
            except _GONE:
                return _take_back(groups, key, last, coming)
            made()
            last = coming
            return True

        return Mover(check, advance_on_clock)

    following = engine.following() if whole else map(block.pick, engine.following())
    coming = next(following)

    def advance(groups: Groups, found_inf: torch.Tensor | None) -> bool | None:
        nonlocal last, coming
        if found_inf is not None and found_inf.item() != 0:
            return None
        try:
            for group, was, value in zip(groups, last, coming):
                if group[key] is not was:  # a hook of somebody else may have written since the check
                    return _take_back(groups, key, last, coming)
                group[key] = value
        except _GONE:
            return _take_back(groups, key, last, coming)
        engine.step_count += 1
        last, coming = coming, next(following)
        return True

    return Mover(check, advance)


def _take_back(groups: Groups, key: str, last: Sequence[float], coming: Sequence[float]) -> bool:
    """Give their values back to the groups in front of the one that somebody wrote to: nothing has been counted."""
    for group, was, value in zip(groups, last, coming):
        if group.get(key) is not value:
            break
        group[key] = was
    return False


def tensor_mover(
    groups: Groups, views: Mapping[Place, torch.Tensor], engine: ScheduleEngine | ReactiveEngine
) -> Mover:
    """Of slots that hold 0-dim views of the engine's live values: put there once, now; filling live is all it takes."""
    blocks = _blocks({place: number for number, place in enumerate(views)})
    held = tuple(block.pick(list(views.values())) for block in blocks)
    write(groups, blocks, held)
    same, live, driver = _comparer(groups, blocks), engine.live, engine.driver
    forward = driver.advance

    def check(groups: Groups) -> bool:
        # Every in-place operation of torch on a view raises the version counter of what it is a view of.
        return live._version == driver.version and same(groups, held)

    def advance(_: Groups, found_inf: torch.Tensor | None) -> bool | None:
        if live._version != driver.version:  # a hook of somebody else may have written since the check
            return False
        return forward(found_inf)

    if not _is_one_key(blocks, groups):
        return Mover(check, advance)
    key, values, bound, count = blocks[0].key, held[0], tuple(groups), len(groups)

    def check_one_key(groups: Groups) -> bool:
        try:
            for group, mine, value in zip(groups, bound, values):
                if group[key] is not value or group is not mine:
                    return False
        except _GONE:
            return False
        return len(groups) == count and live._version == driver.version

    return Mover(check_one_key, advance)


def filled_mover(
    groups: Groups,
    tensors: Mapping[Place, torch.Tensor],
    forward: Callable[[torch.Tensor | None], bool | None],
    fill: Callable[[], None],
) -> Mover:
    """Of slots that hold tensors of their own: put back and filled now, and filled after every step.

    Args:
        groups: the optimizer's own.
        tensors: for each place, what it holds.
        forward: counts one step. None where the step was skipped.
        fill: puts the present values into the tensors.
    """
    blocks = _blocks({place: number for number, place in enumerate(tensors)})
    held = tuple(block.pick(list(tensors.values())) for block in blocks)
    same = _comparer(groups, blocks)
    distinct = list({id(tensor): tensor for tensor in tensors.values()}.values())
    write(groups, blocks, held)
    fill()
    versions = [tensor._version for tensor in distinct]

    def check(groups: Groups) -> bool:
        # Every in-place operation of torch raises the version counter.
        return same(groups, held) and [tensor._version for tensor in distinct] == versions

    def advance(groups: Groups, found_inf: torch.Tensor | None) -> bool | None:
        nonlocal versions
        if not check(groups):  # a hook of somebody else may have written since the check
            return False
        if forward(found_inf) is None:
            return None
        fill()
        versions = [tensor._version for tensor in distinct]
        return True

    return Mover(check, advance)


def reactive_float_mover(
    groups: Groups,
    columns: Mapping[Place, int],
    engine: ReactiveFloatEngine,
    inputs: Inputs,
    refuse: Callable[[Sequence[float]], None],
) -> tuple[Mover, Callable[[Groups], None]]:
    """As `float_mover`, of slots with live inputs; and what puts changed inputs into effect before the next step.

    A slot whose input somebody has written holds yesterday's value, so `check` is False until that was called. It
    raises what `refuse` does with the new row, and does nothing else where a slot does not hold what was put there.
    """
    blocks = _blocks(columns)
    picks = [block.pick for block in blocks]
    same, memory = _comparer(groups, blocks), inputs.memory
    row: Sequence[float] = engine.row()
    last, seen = tuple([pick(row) for pick in picks]), memory._version
    write(groups, blocks, last)

    def check(groups: Groups) -> bool:
        return memory._version == seen and same(groups, last)

    def refresh(groups: Groups) -> None:
        nonlocal last, seen
        row = engine.row()
        refuse(row)
        if same(groups, last) or hold_equal(groups, blocks, last):
            seen = memory._version
            last = tuple([pick(row) for pick in picks])
            write(groups, blocks, last)

    def advance(groups: Groups, found_inf: torch.Tensor | None) -> bool | None:
        nonlocal last, seen
        if found_inf is not None and found_inf.item() != 0:
            return None
        if not same(groups, last):  # a hook of somebody else may have written since the check
            return False
        row = engine.advance()
        if memory._version != seen:  # or turned an input
            row, seen = engine.row(), memory._version
        last = tuple([pick(row) for pick in picks])
        write(groups, blocks, last)
        return True

    return Mover(check, advance), refresh


def reactive_tensor_mover(
    groups: Groups, views: Mapping[Place, torch.Tensor], engine: ReactiveEngine
) -> tuple[Mover, Callable[[Groups], None]]:
    """As `tensor_mover`, of slots with live inputs; and what puts changed inputs into effect, see above."""
    own, advance = tensor_mover(groups, views, engine)
    memory, live = engine.inputs.memory, engine.live

    def check(groups: Groups) -> bool:
        return memory._version == engine.seen and own(groups)

    def refresh(_: Groups) -> None:
        if live._version == engine.version:  # else somebody wrote to it, which the check says
            engine.refresh()

    return Mover(check, advance), refresh


def joined(movers: Sequence[Mover], *, floats: bool) -> Mover:
    """Several movers as one; with float slots among them, found_inf is read once, on the host, for all."""
    if len(movers) == 1:
        return movers[0]
    checks, advances = zip(*movers)

    def check(groups: Groups) -> bool:
        return all([intact(groups) for intact in checks])

    def advance(groups: Groups, found_inf: torch.Tensor | None) -> bool | None:
        if floats:
            if found_inf is not None and found_inf.item() != 0:
                return None
            found_inf = None
        if not check(groups):
            return False
        for each in advances:
            each(groups, found_inf)
        return True

    return Mover(check, advance)


def write(groups: Groups, blocks: Sequence[Block], row: Row) -> None:
    """Put a row into the places of some blocks, whatever they hold."""
    for (key, element, _, of, _, _), values in zip(blocks, row):
        if element is None:
            for group, value in zip(of(groups), values):
                group[key] = value
        else:
            for group, value in zip(of(groups), values):
                group[key] = with_element(group[key], element, value)


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


def _comparer(groups: Groups, blocks: Sequence[Block]) -> Callable[[Groups, Row], bool]:
    """The function that tells whether groups are these, and the places hold the very objects of a row."""
    bound, count = tuple(groups), len(groups)

    def same(groups: Groups, row: Row) -> bool:
        try:
            for group, mine in zip(groups, bound):
                if group is not mine:
                    return False
            for (key, element, _, of, _, _), values in zip(blocks, row):
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
        return len(groups) == count

    return same


def _is_one_key(blocks: Sequence[Block], groups: Groups) -> bool:
    """Whether the places are one key of all groups, in order."""
    return len(blocks) == 1 and blocks[0].element is None and blocks[0].indices == tuple(range(len(groups)))


def _blocks(columns: Mapping[Place, int]) -> list[Block]:
    found: dict[tuple[str, int | None], tuple[list[int], list[int]]] = {}
    for (index, key, element), column in columns.items():
        indices, entries = found.setdefault((key, element), ([], []))
        indices.append(index)
        entries.append(column)
    return [
        Block(key, element, tuple(indices), _getter(indices), tuple(entries), _getter(entries))
        for (key, element), (indices, entries) in found.items()
    ]


def _getter(indices: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """The function that takes these items of a sequence, as a sequence."""
    first = indices[0]
    return itemgetter(*indices) if len(indices) > 1 else itemgetter(slice(first, first + 1))
