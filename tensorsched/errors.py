"""L0: the two errors that tensorsched raises on purpose.

Each message says what happened, why, and the way out, and both are raised before anything has changed: after an
error the optimizer, the engine and the schedule are exactly as they were.
"""

from __future__ import annotations

__all__ = ["BindingError", "ScheduleError"]


class ScheduleError(ValueError):
    """A schedule, a table or a document that describes one is not well formed.

    Raised when the schedule is written down (or compiled), never at the step that would have used it.
    """


class BindingError(ValueError):
    """A schedule cannot be attached to, or no longer controls, the hyperparameter it was meant for."""
