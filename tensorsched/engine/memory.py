"""How much memory a device has left: what a table is checked against before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tensorsched.errors import ScheduleError
from tensorsched.schedules import Schedule


def existing_device(device: torch.device | str) -> torch.device:
    """`device` as a torch.device that can hold a tensor.

    Raises:
        ScheduleError: there is no such device on this machine, or torch was built without it.
    """
    try:
        wanted = torch.device(device)
        return torch.empty(0, device=wanted).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ScheduleError(
            f"device {device!r} cannot hold a table: {reason}; pass device='cpu' or an existing one"
        ) from None


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on `device`, or None where that cannot be told. Does not synchronise.

    What torch keeps of the device without using it counts as free.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    available = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(available[0]) * 1024 if available else None


def readable(count: float) -> str:
    """A number of bytes for people: 1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":  # noqa: PLR2004  what the units are about
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def does_not_fit(
    nbytes: int, rows: int, schedules: Mapping[str, Schedule], device: torch.device, limit: int | None
) -> ScheduleError:
    """The error for a table that is larger than what is left on a device, with the ways to a smaller one."""
    longest = sorted(schedules, key=lambda name: schedules[name].settled or rows, reverse=True)
    more = f" and {len(longest) - 3} more" if len(longest) > 3 else ""  # noqa: PLR2004  three are named
    room = "" if limit is None else f", and {readable(limit)} may be used"
    return ScheduleError(
        f"the table does not fit: it takes {nbytes} bytes ({readable(nbytes)}) or more on {device}{room}: "
        f"{rows} rows for {', '.join(map(repr, longest[:3]))}{more}. Shorten the longest with .take(n), pass a "
        "smaller steps=, tabulate fewer schedules (those that differ by a factor share a column: c * schedule), "
        "or count in epochs with .hold_each(n) and step once an epoch"
    )
