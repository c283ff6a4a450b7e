"""Which attachments there are, by optimizer: one place follows one schedule."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

from tensorsched.binding.base import AttachmentBase
from tensorsched.errors import BindingError
from tensorsched.param_groups import Place

_ATTACHMENTS: weakref.WeakSet[AttachmentBase] = weakref.WeakSet()
# Of the set above: optimizers may be attached from several threads. Reentrant, because a finaliser or a signal handler
# may detach in the middle of any of this, in the same thread.
_LOCK = threading.RLock()


def attachments_of(optimizer: object) -> list[AttachmentBase]:
    """All that drive this optimizer."""
    with _LOCK:
        return [attachment for attachment in _ATTACHMENTS if attachment._drives(optimizer)]


def remember(attachment: AttachmentBase) -> None:
    """It drives its optimizer from now on."""
    with _LOCK:
        _ATTACHMENTS.add(attachment)


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
