"""How a table's numbers are stored: equal columns once, or, where the table is large, proportional columns once.

    Equal     data (rows, C) in the live dtype    row t of the live values = data[t]
    Scaled    data (B, rows) in float64           row t of the live values = live dtype(data[source, t] * factor)

The product is taken in float64, so a scaled column is still rounded only once. It costs one more small kernel a step on
a GPU, which is why small tables are stored unscaled. Nothing but this file tells the two apart.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
Dtype = type[np.floating[Any]]

PROPORTIONAL = 2.0**-50
"""Columns share when they are proportional to this relative bound: 8 float64 roundings, 2**-26 of a float32 ulp."""


class Equal:
    """One stored column for each different column of values.

    Attributes:
        data: (rows, C) in the live dtype; column c is live value c.
    """

    word: ClassVar[str] = "equal"
    factors: Array | None = None  # what a look-up is multiplied by: nothing

    def __init__(self, data: Array) -> None:
        self.data = data

    @property
    def columns(self) -> int:
        """Number of live values."""
        return int(self.data.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.data.nbytes

    @property
    def starts(self) -> Array:
        """Where in `entries` step 0 is, for each entry that a look-up reads: one, a row of all live values."""
        return np.zeros(1, dtype=np.int64)

    def entries(self, data: torch.Tensor) -> torch.Tensor:
        """The stored numbers as a look-up indexes them: (rows, C)."""
        return data

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the live values."""
        return self.data.dtype

    def extremes(self) -> tuple[Array, Array]:
        """The smallest and the largest value of every column, (K,) each in the live dtype."""
        return self.data.min(axis=0), self.data.max(axis=0)

    def block(self, start: int, stop: int) -> Array:
        """Rows start..stop-1 as (stop - start, K) in the live dtype, contiguous."""
        return self.data[start:stop]

    def stored_at(self, column: int) -> int:
        """Which stored column live value `column` reads."""
        return column

    def stored(self, column: int, values: Array, dtype: Dtype) -> Array:  # noqa: ARG002  of the other layout
        """What has to be stored so that live value `column` has these float64 values."""
        return values.astype(dtype)

    def serves(self, column: int, stored: Array, values: Array, dtype: Dtype) -> bool:  # noqa: ARG002
        """Whether `stored` gives live value `column` these float64 values."""
        return bool(np.array_equal(stored, values.astype(dtype)))

    def replace(self, at: int, stored: Array) -> None:
        """Overwrite a stored column in place."""
        self.data[:, at] = stored

    def longer(self, rows: int) -> Equal:
        """The same columns with so many rows, yet to be filled by `replace`."""
        return Equal(np.empty((rows, self.columns), dtype=self.data.dtype))


class Scaled:
    """One stored float64 column for all that are proportional.

    Attributes:
        data: (B, rows) float64.
        source: (K,) int64, which row of `data` each live value reads.
        factors: (K,) float64, what it is multiplied by.
        dtype: of the live values.
    """

    word: ClassVar[str] = "proportional"

    def __init__(self, data: Array, source: Array, factors: Array, dtype: Dtype) -> None:
        self.data, self.source, self.dtype = data, source, dtype
        self.factors: Array = factors

    @property
    def columns(self) -> int:
        """Number of live values."""
        return len(self.factors)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.data.nbytes + self.source.nbytes + self.factors.nbytes

    @property
    def starts(self) -> Array:
        """Where in `entries` step 0 is, for each entry that a look-up reads: one for each live value."""
        return np.asarray(self.source * self.data.shape[1])

    def entries(self, data: torch.Tensor) -> torch.Tensor:
        """The stored numbers as a look-up indexes them: (B * rows, 1)."""
        return data.view(-1, 1)

    def extremes(self) -> tuple[Array, Array]:
        """The smallest and the largest value of every column, (K,) each in the live dtype."""
        ends = [end[self.source] * self.factors for end in (self.data.min(axis=1), self.data.max(axis=1))]
        return np.minimum(*ends).astype(self.dtype), np.maximum(*ends).astype(self.dtype)

    def block(self, start: int, stop: int) -> Array:
        """Rows start..stop-1 as (stop - start, K) in the live dtype, contiguous; computed here."""
        base = self.data[:, start:stop].T
        if self.data.shape[0] > 1:
            base = base[:, self.source]
        # What overflows the live dtype was refused when the table was made; past that, nothing warns.
        out = np.empty((base.shape[0], self.columns), dtype=self.dtype)
        return np.multiply(base, self.factors, out=out, casting="same_kind")

    def stored_at(self, column: int) -> int:
        """Which stored column live value `column` reads."""
        return int(self.source[column])

    def stored(self, column: int, values: Array, dtype: Dtype) -> Array:  # noqa: ARG002  of the other layout
        """What has to be stored so that live value `column` has these float64 values."""
        return np.asarray(values / self.factors[column])

    def serves(self, column: int, stored: Array, values: Array, dtype: Dtype) -> bool:
        """Whether `stored` gives live value `column` these float64 values."""
        return proportional(values, stored, float(self.factors[column]), tolerance(dtype))

    def replace(self, at: int, stored: Array) -> None:
        """Overwrite a stored column in place."""
        self.data[at] = stored

    def longer(self, rows: int) -> Scaled:
        """The same columns with so many rows, yet to be filled by `replace`."""
        return Scaled(np.empty((len(self.data), rows)), self.source, self.factors, self.dtype)


Layout = Equal | Scaled


def tolerance(dtype: Dtype) -> float:
    """How far proportional columns may be apart; float64 has no rounding to hide a difference behind."""
    return PROPORTIONAL if dtype is np.float32 else 0.0


def proportional(column: Array, base: Array, ratio: float, bound: float) -> bool:
    """Whether `column` is `ratio` times `base` at every row, to the relative bound."""
    difference = base * ratio
    difference -= column
    np.abs(difference, out=difference)
    return bool((difference <= bound * np.abs(column)).all())
