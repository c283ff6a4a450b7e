"""Which attachments there are, by optimizer: one place follows one schedule."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

from tensorsched.binding.modes import Driving
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place

_ATTACHMENTS: weakref.WeakSet[Driving] = weakref.WeakSet()
_LOCK = threading.Lock()  # of the set above: optimizers may be attached from several threads


def attachments_of(optimizer: object) -> list[Driving]:
    """All that drive this optimizer."""
    with _LOCK:
        return [attachment for attachment in _ATTACHMENTS if attachment.optimizer is optimizer]


def remember(attachment: Driving) -> None:
    """It drives its optimizer from now on."""
    with _LOCK:
        _ATTACHMENTS.add(attachment)


def forget(attachment: Driving) -> None:
    """It drives its optimizer no longer."""
    with _LOCK:
        _ATTACHMENTS.discard(attachment)


def refuse_claimed(optimizer: object, places: Iterable[Place]) -> None:
    """One place has one schedule.

    Raises:
        BindingError: another attachment has a schedule for one of these.
    """
    claimed = {slot.place for other in attachments_of(optimizer) for slot in other.slots}
    for place in places:
        if place in claimed:
            raise BindingError(
                f"{place.name} already follows the schedule of another attachment; call detach() on that one first "
                "(ts.detach(optimizer) detaches all), or give this one other keys"
            )
