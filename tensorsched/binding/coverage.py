"""Whether every parameter of a model is in one optimizer, and every group's lr follows a schedule."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from tensorsched.binding.group_names import group_label
from tensorsched.binding.registry import attachments_of
from tensorsched.errors import BindingError
from tensorsched.schedules.check import Finding
from tensorsched.schedules.validators import shown

__all__ = ["CODES", "coverage"]

CODES = {
    "no-optimizer": "a parameter that requires grad is in no optimizer",
    "in-two": "a parameter is in two groups, or in two optimizers",
    "not-in-the-model": "an optimizer has a parameter that the model does not have",
    "frozen": "an optimizer has a parameter that does not require grad",
    "follows-nothing": "the lr of a group has no schedule",
}
"""What may be found, by code."""

_FEW = 5  # names in a sentence


def coverage(optimizers: Mapping[str, Any], models: Sequence[nn.Module]) -> list[Finding]:
    """What is odd about the parameters of some models and the optimizers that are to train them.

    Args:
        optimizers: by name; the name "" is not spoken of.
        models: all that they train.

    Returns:
        Findings with a code of CODES, and no step.

    Raises:
        BindingError: no model, or something that is none.
    """
    for model in models:
        if not isinstance(model, nn.Module):
            raise BindingError(f"check: expected the model (a torch.nn.Module), got {shown(model)}")
    if not models:
        raise BindingError("check() needs the model whose parameters the optimizers have: check(model)")
    names = _names(models)
    held = _held(optimizers)
    return [*_parameters(names, held), *_of_groups(optimizers, names), *_without_schedule(optimizers)]


def _names(models: Sequence[nn.Module]) -> dict[int, tuple[str, nn.Parameter]]:
    """Every parameter by its id, with its first name; that of the model before it where there are several."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for number, model in enumerate(models):
        before = f"model {number}: " if len(models) > 1 else ""
        for name, parameter in model.named_parameters():
            found.setdefault(id(parameter), (before + name, parameter))
    return found


def _held(optimizers: Mapping[str, Any]) -> dict[int, list[str]]:
    """By the id of a parameter, every group that has it."""
    found: dict[int, list[str]] = {}
    for name, optimizer in optimizers.items():
        for index, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                found.setdefault(id(parameter), []).append(_where(name, optimizer, index))
    return found


def _parameters(
    names: Mapping[int, tuple[str, nn.Parameter]], held: Mapping[int, Sequence[str]]
) -> Iterator[Finding]:
    lacking = [
        name for key, (name, parameter) in names.items() if parameter.requires_grad and key not in held
    ]
    if lacking:
        yield Finding(
            "no-optimizer",
            None,
            f"{_listed(lacking)} {_are(lacking)} in no optimizer, and will not be trained; add {_it(lacking)}, or set "
            "requires_grad=False",
        )
    for key, places in held.items():
        if len(places) > 1:
            name = names[key][0] if key in names else "a parameter that the model does not have"
            yield Finding(
                "in-two", None, f"{name} is in {' and in '.join(places)}, and would be stepped by each"
            )


def _of_groups(
    optimizers: Mapping[str, Any], names: Mapping[int, tuple[str, nn.Parameter]]
) -> Iterator[Finding]:
    for name, optimizer in optimizers.items():
        for index, group in enumerate(optimizer.param_groups):
            where = _where(name, optimizer, index)
            foreign = [p for p in group["params"] if id(p) not in names]
            if foreign:
                shapes = [str(tuple(p.shape)) for p in foreign]
                yield Finding(
                    "not-in-the-model",
                    None,
                    f"{where} has {len(foreign)} parameter{'s' * (len(foreign) > 1)} that the model does not have, of "
                    f"shape {_listed(shapes)}; was the model copied, wrapped or sharded after its optimizer was built?",
                )
            frozen = [names[id(p)][0] for p in group["params"] if id(p) in names and not p.requires_grad]
            if frozen:
                yield Finding(
                    "frozen",
                    None,
                    f"{where} has {_listed(frozen)}, which {'does' if len(frozen) == 1 else 'do'} not require grad and "
                    "will not be trained",
                )


def _without_schedule(optimizers: Mapping[str, Any]) -> Iterator[Finding]:
    for name, optimizer in optimizers.items():
        slots = [slot.place for attachment in attachments_of(optimizer) for slot in attachment.slots]
        for index, group in enumerate(optimizer.param_groups):
            keys = {place.key for place in slots if place.group == index}
            if "lr" in group and "lr" not in keys:
                beside = f" (only {', '.join(sorted(keys))} {_have(keys)} one)" if keys else ""
                yield Finding(
                    "follows-nothing",
                    None,
                    f"the lr of {_where(name, optimizer, index)} follows no schedule{beside} and stays as it is",
                )


def _where(name: str, optimizer: Any, index: int) -> str:
    label = group_label(optimizer.param_groups, index)
    return f"{label} of {name}" if name else label


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")


def _are(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _have(names: Collection[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
