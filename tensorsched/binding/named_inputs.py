"""Live inputs by name, as `Attachment.inputs` hands them out."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import NoReturn

import torch

from tensorsched.engine import Inputs
from tensorsched.errors import BindingError
from tensorsched.schedules.validators import shown

__all__ = ["by_name"]


def by_name(inputs: Inputs | None) -> Mapping[str, torch.Tensor]:
    """The value of each, which cannot be replaced, only written; another name is a BindingError."""
    found = {} if inputs is None else {name: inputs[name] for name in inputs.nodes}
    return types.MappingProxyType(_Named(found))


class _Named(dict[str, torch.Tensor]):
    def __missing__(self, name: object) -> NoReturn:
        known = (
            f"there are {', '.join(map(repr, self))}"
            if self
            else "these schedules have none (ts.live, ts.plateau)"
        )
        raise BindingError(f"no live input is named {shown(name)}; {known}")
