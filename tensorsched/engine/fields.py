"""Where an input's numbers are in the vector of all, and how they are packed there past torch."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

__all__ = ["Field", "flat"]


def flat(cells: Iterable[Any]) -> Iterable[Any]:
    """The numbers of cells, those of lists one by one."""
    return itertools.chain.from_iterable(cell if isinstance(cell, list) else [cell] for cell in cells)


class Field:
    """Where an input's numbers are.

    Attributes:
        start, width: the first, and how many.
        counts: of each cell how many numbers it is; None: a number, no list.
    """

    def __init__(self, start: int, cells: Mapping[str, Any]) -> None:
        self.start, self.width = start, len(list(flat(cells.values())))
        self.counts = {key: len(cell) if isinstance(cell, list) else None for key, cell in cells.items()}
        self._packed, self._offset = struct.Struct(f"{self.width}d"), start * 8
        self._simple = not any(self.counts.values())
        # In this order; of a single name itemgetter would give the cell itself.
        self._ordered = itemgetter(*self.counts) if len(cells) > 1 else lambda cells: (*cells.values(),)

    def unpacked(self, numbers: Sequence[float]) -> dict[str, Any]:
        """The cells by name."""
        if self._simple:
            return dict(zip(self.counts, numbers, strict=True))
        coming = iter(numbers)
        return {
            key: next(coming) if many is None else list(itertools.islice(coming, many))
            for key, many in self.counts.items()
        }

    def read(self, memory: memoryview) -> dict[str, Any]:
        """The cells, from the bytes of all."""
        numbers = self._packed.unpack_from(memory, self._offset)
        # As many as there are names: strict=True would cost a third more.
        return dict(zip(self.counts, numbers)) if self._simple else self.unpacked(numbers)  # noqa: B905

    def write(self, memory: memoryview, cells: Mapping[str, Any]) -> None:
        """Put them there."""
        found = self._ordered(cells)
        self._packed.pack_into(memory, self._offset, *(found if self._simple else flat(found)))
