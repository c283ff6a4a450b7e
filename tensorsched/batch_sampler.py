"""BatchSampler: batches whose size follows a schedule, for a DataLoader, also with workers.

A DataLoader asks for batches ahead of the training, so their size cannot be read from where the training stands. It
need not be: the batch of step t has batch(t) samples, whoever asks for it and when.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch

from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule
from tensorsched.schedules.algebra import as_schedule
from tensorsched.schedules.over import Consumed
from tensorsched.schedules.validators import check_count, refuse

__all__ = ["BatchSampler"]

_AHEAD = 1024  # sizes that are looked up at a time


class BatchSampler(torch.utils.data.Sampler[list[Any]]):
    """Batches of indices for `DataLoader(dataset, batch_sampler=...)`: the one of step t has batch(t) of them.

    Indices are taken from `sampler` pass after pass: what a pass leaves over begins the next pass's first batch, so
    that every batch is as large as planned and `lr.over(batch)` is right. In a distributed run `sampler` is each
    process's own (a DistributedSampler), and `batch` the size for one process.

    Args:
        sampler: gives indices and knows how many, such as RandomSampler; its order must be the same again when a run
            is resumed (seed its generator from `set_epoch`, which is called with the number of each pass, if it has
            it, as DistributedSampler has).
        batch: the size of each step's batch: a schedule of whole numbers of at least 1, or a number.
        length: also a schedule of whole numbers, or a number: each index then comes as (index, length(t)), for a
            dataset whose `__getitem__` cuts a sequence to that length.
        passes: how many passes there are; None (the default) is no end. A batch that the last one cannot fill is left
            out.

    Attributes:
        step: the step that the next batch is for; ahead of the training by what the loader has asked for.

    Raises:
        ScheduleError: sampler has no length or is empty, or a size is no whole number of at least 1 (when it is asked
            for).

    Reads no tensor: nothing here synchronises.

    Example:
        >>> import tensorsched as ts
        >>> sampler = ts.BatchSampler(range(5), ts.piecewise_constant([1, 3], [2]), passes=2)
        >>> list(sampler)
        [[0], [1], [2, 3, 4], [0, 1, 2]]
        >>> sampler.seek(3), list(sampler)
        (None, [[0, 1, 2]])
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        batch: Schedule | float,
        *,
        length: Schedule | float | None = None,
        passes: int | None = None,
    ) -> None:
        if not isinstance(sampler, Sized) or not len(sampler):
            raise refuse(
                "BatchSampler: sampler", "a sampler of at least one index that knows its length", sampler
            )
        self._sampler = sampler
        self._batch = as_schedule(batch)
        self._length = None if length is None else as_schedule(length)
        self._passes = None if passes is None else check_count("BatchSampler: passes", passes, least=1)
        self._consumed = Consumed(self._batch)
        self.step = 0
        self._sizes(0, 1)  # what is no size is an error now

    def seek(self, step: int) -> None:
        """The next `iter()` begins with the batch of `step`: pass `sched.step_count` when a run is resumed.

        Takes no time but for the indices of one pass that are left out.

        Raises:
            ScheduleError: step is negative or not an int.
        """
        self.step = check_count("seek: step", step)

    def __iter__(self) -> Iterator[list[Any]]:
        done = int(self._consumed.at(np.array([float(self.step)]))[0])
        number, skipped = divmod(done, len(self._sampler))
        indices = self._indices(number, skipped)
        while True:
            first = self.step
            sizes, lengths = self._sizes(first, first + _AHEAD), self._lengths(first, first + _AHEAD)
            for size, length in zip(sizes, lengths, strict=True):
                batch = list(itertools.islice(indices, size))
                if len(batch) < size:
                    return
                self.step += 1
                yield batch if length is None else [(index, length) for index in batch]

    def __len__(self) -> int:
        """Number of batches from the first one on.

        Raises:
            TypeError: without `passes` there is no end (so that torch's loader knows none either).
        """
        if self._passes is None:
            raise TypeError("a BatchSampler without passes=n never ends")
        whole = self._passes * len(self._sampler)
        after = self._consumed.step_of(whole + 1)
        if after is None:
            raise ScheduleError(
                "BatchSampler: batch is 0 at every step from some step on, which never ends; give it .clamp(1)"
            )
        return after - 1

    def _indices(self, number: int, skipped: int) -> Iterator[Any]:
        """All that are left, from this pass on."""
        while self._passes is None or number < self._passes:
            if hasattr(self._sampler, "set_epoch"):
                self._sampler.set_epoch(number)
            for place, index in enumerate(self._sampler):
                if place >= skipped:
                    yield index
            number, skipped = number + 1, 0

    def _sizes(self, start: int, stop: int) -> list[int]:
        return _whole("batch", self._batch, start, stop)

    def _lengths(self, start: int, stop: int) -> list[int] | list[None]:
        if self._length is None:
            return [None] * (stop - start)
        return _whole("length", self._length, start, stop)


def _whole(name: str, schedule: Schedule, start: int, stop: int) -> list[int]:
    values = np.array([schedule(start)]) if stop == start + 1 else schedule.skip(start).values(stop - start)
    wrong = np.flatnonzero((values < 1.0) | (values != np.floor(values)))
    if wrong.size:
        raise refuse(
            f"BatchSampler: {name} at step {start + int(wrong[0])}",
            "a whole number of at least 1 (round it with .round() or .floor())",
            float(values[wrong[0]]),
        )
    return [int(value) for value in values]
