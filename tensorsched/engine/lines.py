"""Reading a ClockTable on a CPU, at positions that mostly go up: the row that was found serves until one is beyond it.

    value(p) = values[k] + (p - position[k]) * slopes[k]

Few columns are two multiplications in Python, which cost less than numpy's set-up; many are numpy's. Both are the same
arithmetic in float64. What a table holds now is looked up once: after `put` ask for another function.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import torch

from tensorsched.engine.clock_table import ClockTable
from tensorsched.engine.layouts import Array

__all__ = ["reader", "writer"]

_FEW = 16  # columns for which Python is faster than numpy


def reader(table: ClockTable) -> Callable[[int], list[float]]:
    """The function that gives the live values at a position, as floats, unrounded."""
    if table.columns <= _FEW:
        return _one(table) if table.columns == 1 else _few(table)
    values = np.zeros(table.columns)
    compute = _many(table, values)

    def read(position: int) -> list[float]:
        compute(position)
        found: list[float] = values.tolist()
        return found

    return read


def writer(table: ClockTable, live: torch.Tensor) -> Callable[[int], None]:
    """The function that puts the live values at a position into a (1, K) CPU tensor, past torch, rounded once."""
    numbers = live.numpy()[0]
    if table.columns > _FEW:
        return _many(table, numbers)
    read, out = reader(table), memoryview(numbers.data).cast("B")
    pack = struct.Struct(f"{table.columns}{numbers.dtype.char}").pack_into

    def write(position: int) -> None:
        pack(out, 0, *read(position))

    return write


def _one(table: ClockTable) -> Callable[[int], list[float]]:
    find, unpack, data = _finder(table), struct.Struct("3d").unpack_from, memoryview(table.data.data)
    low = high = 0
    start = value = slope = 0.0

    def read(position: int) -> list[float]:
        nonlocal low, high, start, value, slope
        if not low <= position < high:
            at, low, high = find(position)
            start, value, slope = unpack(data, at * 24)
        return [value + slope * (position - start)]

    return read


def _few(table: ClockTable) -> Callable[[int], list[float]]:
    width = table.columns
    row = struct.Struct(f"{1 + 2 * width}d")
    find, unpack, size, data = _finder(table), row.unpack_from, row.size, memoryview(table.data.data)
    low = high = 0
    start, lines = 0.0, [(0.0, 0.0)]

    def read(position: int) -> list[float]:
        nonlocal low, high, start, lines
        if not low <= position < high:
            at, low, high = find(position)
            start, *rest = unpack(data, at * size)
            lines = list(zip(rest[:width], rest[width:], strict=True))
        off = position - start
        return [value + slope * off for value, slope in lines]

    return read


def _many(table: ClockTable, out: Array) -> Callable[[int], None]:
    find, width, data = _finder(table), table.columns, table.data
    low = high = 0
    start, values, slopes, rise = 0.0, data[0, 1:], data[0, 1:], np.zeros(width)

    def write(position: int) -> None:
        nonlocal low, high, start, values, slopes
        if not low <= position < high:
            at, low, high = find(position)
            start, values, slopes = float(data[at, 0]), data[at, 1 : 1 + width], data[at, 1 + width :]
        np.multiply(slopes, position - start, out=rise)
        np.add(values, rise, out=out, casting="same_kind")

    return write


def _finder(table: ClockTable) -> Callable[[int], tuple[int, int, int]]:
    """The function that gives the row that serves a position, and the positions from and to which it does."""
    positions = memoryview(table.positions.data)  # behind the rows in use stands one that no count reaches
    at, low, high = -1, 0, 0

    def find(position: int) -> tuple[int, int, int]:
        nonlocal at, low, high
        if position >= high:  # mostly it is the next one
            at += 1
            low, high = high, positions[at + 1]
        if not low <= position < high:
            at = table.row_of(position)
            low, high = positions[at], positions[at + 1]
        return at, low, high

    return find
