"""Graph mode: what an optimizer needs while its steps run in a compiled graph, and what is undone afterwards.

slots       all of them resident: a graph would keep a Python float for ever
capturable  True in every group: the implementations that never read a value on the host. Eager steps on a CPU refuse
            it, which is why it is undone for them
foreach     False in the groups where it would read a scheduled value on the host (support.ONE_GRAPH)
step        torch keeps Adam's step counts on the host unless a group is capturable; the compiler moves them to the
            device, and they go back with the flag
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tensorsched.binding.torch_optim import ONE_GRAPH
from tensorsched.binding.wiring import Wiring

_ABSENT = "absent"  # a string, because copies must stay equal to it


class GraphMode:
    """The wiring for graphs and the flags that go with it."""

    def __init__(self, optimizer: Any, wiring: Wiring) -> None:
        self.wiring = wiring
        fits = ONE_GRAPH.get(type(optimizer), frozenset())
        self._loops = {slot.place[0] for slot in wiring.slot_at.values() if slot.request.part not in fits}
        self._own: list[tuple[dict[str, Any], dict[str, Any]]] = []  # of each group: its dict, its own flags

    def enter(self, groups: Sequence[dict[str, Any]]) -> None:
        """Set the flags of these groups and remember their own; of groups that a checkpoint replaced, the new ones."""
        before, self._own = self._own, []
        for index, group in enumerate(groups):
            flags: dict[str, Any] = {"capturable": True}
            if index in self._loops and "foreach" in group:
                flags["foreach"] = False
            entered = index < len(before) and before[index][0] is group
            own = before[index][1] if entered else {name: group.get(name, _ABSENT) for name in flags}
            self._own.append((group, own))
            group.update(flags)

    @property
    def flags(self) -> list[dict[str, Any]]:
        """Each group's own flags."""
        return [own for _, own in self._own]

    def write_plain(self, groups: Sequence[dict[str, Any]]) -> None:
        """Put the groups' own flags back, into them or into those of a state_dict."""
        restore(groups, self.flags)

    def leave(self, optimizer: Any, *, for_good: bool) -> None:
        """Give the groups their flags back; for good, also the step counts their place.

        For a single eager step the counts stay on the device: torch's step finds them there, and the graph again.
        """
        self.write_plain(optimizer.param_groups)
        self._own = []
        for group in optimizer.param_groups if for_good else ():
            if group.get("capturable") or group.get("fused"):
                continue
            for state in (optimizer.state.get(parameter) for parameter in group["params"]):
                step = state.get("step") if isinstance(state, dict) else None
                if isinstance(step, torch.Tensor) and step.device.type != "cpu":
                    state["step"] = step.cpu()


def restore(groups: Sequence[dict[str, Any]], flags: Sequence[dict[str, Any]]) -> None:
    """Put flags back that `GraphMode.flags` gave."""
    for group, own in zip(groups, flags, strict=False):
        for name, value in own.items():
            if value == _ABSENT:
                group.pop(name, None)
            else:
                group[name] = value
