"""L0: the two errors that tensorsched raises on purpose.

Each message says what happened, why, and the way out, and both are raised before anything has changed: after an
error the optimizer, the engine and the schedule are exactly as they were.
"""

from __future__ import annotations

__all__ = ["BindingError", "ScheduleError"]


class ScheduleError(ValueError):
    """A schedule, a table or a document that describes one is not well formed.

    Raised when the schedule is written down (or compiled), never at the step that would have used it.

    Example:
        >>> import tensorsched as ts
        >>> ts.linear(0.0, 1.0, steps=2.5)
        Traceback (most recent call last):
        tensorsched.errors.ScheduleError: linear: steps must be a whole number of steps (an int of at least 0), got 2.5
    """


class BindingError(ValueError):
    """A schedule cannot be attached to, or no longer controls, the hyperparameter it was meant for.

    Example:
        >>> import torch, tensorsched as ts
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
        >>> ts.attach(optimizer, momentun=ts.constant(0.9))
        Traceback (most recent call last):
        tensorsched.errors.BindingError: group 0 has no hyperparameter 'momentun'; did you mean 'momentum'?
    """
