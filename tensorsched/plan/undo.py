"""A change of several attachments is made to all of them, or to none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from tensorsched.binding.attachment import Attachment
from tensorsched.binding.following import follow
from tensorsched.binding.kept import LastUsed
from tensorsched.plan.arguments import about

__all__ = ["all_or_none"]


@contextlib.contextmanager
def all_or_none(attachments: Mapping[str, Attachment]) -> Iterator[None]:
    """After an error every attachment follows what it followed, at the step where it was.

    Raises:
        BindingError: one is detached, or its optimizer is gone.
    """
    for name, sched in attachments.items():
        with about(name):
            sched._require_attached()
            _ = sched.optimizer  # or it is gone
    back = [_way_back(sched) for sched in attachments.values()]
    try:
        yield
    except BaseException:
        for go_back in back:
            go_back()
        raise


def _way_back(sched: Attachment) -> Callable[[], None]:
    """What puts an attachment back to what it follows now, and where; what is still to be said of it, and its past."""
    schedules, where, told, doubt = sched._schedules(), sched._mode.where, sched._told, sched._doubt
    inputs = None if sched._mode.inputs is None else sched._mode.inputs.state()
    past, last = sched._history.copy(), LastUsed(sched._last.all(sched._mode))
    found_inf, stepped = sched._found_inf, sched._stepped
    wait_again = None if sched._face is None else sched._face.way_back()

    def go_back() -> None:
        if not sched.attached:
            return
        if sched._schedules() != schedules:
            follow(sched, schedules)
        if inputs is not None and (mode := sched._mode).inputs is not None and mode.inputs.state() != inputs:
            mode.inputs.load(mode.inputs.read(inputs, exact=False))
            mode.refresh(sched.optimizer.param_groups)
        if sched._mode.where != where:
            sched._go(where)
            sched._told, sched._doubt = told, doubt
            sched._bind()
            sched._found_inf, sched._stepped = found_inf, stepped
            if wait_again is not None:
                wait_again()
        sched._last.forget(sched._mode)
        sched._history, sched._last = past, last

    return go_back
