"""Where an optimizer's state is: on its parameters' device while steps run in a graph, where torch wants it otherwise.

torch keeps step counts (and NAdam's product of momenta) on the host unless a group is capturable. A graph that takes
one of them from there reads it at each step or, where it is copied to the device after it was traced, loses what was
added to it. So all of it is on the device before anything is traced, at addresses that stay: a CUDA graph goes on with
them after an eager step in between, for which the counts are on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tensorsched.binding.known import record_of

__all__ = ["State", "bring_to_host"]


class State:
    """The state of one optimizer, in a graph or out of it."""

    def __init__(self) -> None:
        # Counts that are on the host for an eager step: whose state, its key, the tensor there, and on the device.
        self._away: list[tuple[dict[str, Any], str, torch.Tensor, torch.Tensor]] = []

    def enter(self, optimizer: Any) -> None:
        """Put all of it on its parameters' device, at fixed addresses that CUDA graphs may rely on.

        Does not synchronise.
        """
        self._back()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                _fix(parameter)
                for key, value in _tensors(optimizer, parameter):
                    if value.device != parameter.device:
                        optimizer.state[parameter][key] = value.to(parameter.device, non_blocking=True)
                    _fix(optimizer.state[parameter][key])

    def leave(
        self, optimizer: Any, clock: torch.Tensor, *, for_good: bool, clocked: bool
    ) -> list[int] | None:
        """Bring to the host what torch's own step reads there. Reads the device once at most, whatever there is.

        Args:
            optimizer: its groups have their own flags again.
            clock: the engine's int64 counts, read with it.
            for_good: otherwise `enter` puts the new values where the old ones were.
            clocked: whether the count is needed; otherwise nothing is read for it alone.

        Returns:
            The counts, None if nothing was read.
        """
        found = list(_on_host(optimizer))
        self._away = []
        if not found and not clocked:
            return None
        numbers = _read(clock, [value for _, _, value in found])
        counts = numbers[: len(clock)]
        for (state, key, value), number in zip(found, numbers[len(clock) :], strict=True):
            state[key] = torch.tensor(number, dtype=value.dtype, device="cpu")
            if not for_good:
                self._away.append((state, key, state[key], value))
        return [int(number) for number in counts]

    def _back(self) -> None:
        """What an eager step left on the host goes where it was, unless somebody has replaced it (a checkpoint)."""
        away = [entry for entry in self._away if entry[0].get(entry[1]) is entry[2]]
        self._away = []
        if away:
            numbers = torch.stack([host.double() for _, _, host, _ in away])
            places = [place for *_, place in away]
            values = numbers.to(places[0].device, non_blocking=True).unbind()
            torch._foreach_copy_(places, list(values))  # the documented name; there is no public one
            for state, key, _, place in away:
                state[key] = place


def bring_to_host(optimizer: Any, state_dict: dict[str, Any]) -> None:
    """Put copies of what torch's own step reads on the host into a state_dict. Reads the device once at most.

    Args:
        optimizer: says which.
        state_dict: its groups have their own flags; the state of a parameter is the live one until it is replaced here.
    """
    keys, state = record_of(optimizer).on_host, state_dict["state"]
    found = [
        (index, key, value)
        for group in state_dict["param_groups"]
        if not (group.get("capturable") or group.get("fused"))
        for index in group["params"]
        for key, value in (state.get(index) or {}).items()
        if key in keys and isinstance(value, torch.Tensor) and value.device.type != "cpu"
    ]
    if found:
        first, *others = (value for _, _, value in found)
        numbers = _read(first.view(1), others)
        for (index, key, value), number in zip(found, numbers, strict=True):
            state[index] = {**state[index], key: torch.tensor(number, dtype=value.dtype, device="cpu")}


def _read(counts: torch.Tensor, scalars: Sequence[torch.Tensor]) -> list[float]:
    """Counts and tensors of one element each, on one device, as numbers, by one copy. float64 holds counts exactly."""
    together = torch.cat([counts.double(), *([torch.stack(list(scalars)).double()] if scalars else [])])
    return together.cpu().tolist()


def _on_host(optimizer: Any) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    """What torch's own step reads on the host, and is on a device."""
    keys = record_of(optimizer).on_host
    for group in optimizer.param_groups:
        if not (group.get("capturable") or group.get("fused")):
            for parameter in group["params"]:
                for key, value in _tensors(optimizer, parameter):
                    if key in keys and value.device.type != "cpu":
                        yield optimizer.state[parameter], key, value


def _tensors(optimizer: Any, parameter: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    state = optimizer.state.get(parameter)
    if not isinstance(state, Mapping):
        return []
    return [(key, value) for key, value in state.items() if isinstance(value, torch.Tensor)]


def _fix(tensor: torch.Tensor) -> None:
    """A graph that writes it is replayed only as long as it stays where it is. The compiler does the same, later."""
    torch._dynamo.mark_static_address(tensor, guard=True)  # the documented name; there is no public one
