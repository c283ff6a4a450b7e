"""A worker of a DataLoader has a copy of the attachment, which nothing moves: what is read there is frozen."""

from __future__ import annotations

from torch.utils.data import get_worker_info

from tensorsched.errors import BindingError

__all__ = ["refuse_in_worker"]


def refuse_in_worker(what: str) -> None:
    """Refuse to read what stands still.

    Raises:
        BindingError: this process is a worker of a DataLoader.
    """
    if get_worker_info() is not None:
        raise BindingError(
            f"{what} was read in a worker of a DataLoader, a process in which no step is ever made: it would stay what "
            "it was when the worker started. Give the schedule to attach(free={'name': schedule}), take "
            "value = sched.value('name') in the main process and let the data set hold that tensor: it is in shared "
            "memory, and workers read what it holds (they are ahead of the training by what they prefetch)"
        )
