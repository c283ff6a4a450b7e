"""Param_groups and their schedules by parameter name: no decay for biases, layer-wise decay, muP, an optimizer each."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from tensorsched.binding.parameter_groups import Member, ParameterGroups
from tensorsched.errors import BindingError
from tensorsched.schedules import Schedule
from tensorsched.schedules.validators import shown

__all__ = ["by_parameter"]

Named = Iterable[tuple[str, nn.Parameter]]
Matches = Callable[[str, nn.Parameter], bool]
Rule = Schedule | float | Mapping[str, Any] | None

_FEW = 5  # names in a message


def by_parameter(
    rules: Mapping[Any, Rule], model: nn.Module | Named, *, frozen: bool = False
) -> ParameterGroups:
    """Build an optimizer's param_groups, and their schedules, by the names of a model's parameters.

    Each parameter goes to the first rule that matches one of its names; each rule makes one group, with the rule's
    pattern as its "name". A tied parameter is in one group, once.

    Args:
        rules: what each pattern gets. A pattern is a name with `*`, `?` and `[...]` as in file names (`*` matches dots
            too), a tuple of such, or a function of (name, parameter). What it gets is a schedule or number for lr, a
            dict of hyperparameters (schedules, numbers, tuples, or anything else that the optimizer takes for a group;
            "name" to call the group otherwise), or None: not in this optimizer, but in `rest`.
        model: a module, or (name, parameter) pairs such as the `rest` of another call.
        frozen: whether parameters that do not require grad get into groups as well.

    Returns:
        The ParameterGroups. Numbers are in its groups, for the optimizer's constructor; what has a schedule is in
        `schedules`, for `attach`, and is left to the constructor's own value until then (which is `ts.initial`).

    Raises:
        BindingError: a parameter that no rule matches, a rule that matches nothing (but "*", which cannot be misspelt)
            or only what others took, two groups of one name, or a rule that is none of the above.

    Does not synchronise.

    Example:
        >>> import torch, tensorsched as ts
        >>> model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        >>> lr = ts.warmup_cosine(1e-3, total=1000, warmup=100)
        >>> groups = ts.by_parameter(
        ...     {"*.bias": {"lr": lr, "weight_decay": 0.0}, "0.*": {"lr": 0.1 * lr, "weight_decay": 0.0}, "*": lr},
        ...     model,
        ... )
        >>> optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
        >>> sched = ts.attach(optimizer, **groups.schedules)
        >>> groups.parameter_names
        {'*.bias': ['1.bias', '2.bias'], '0.*': ['0.weight'], '*': ['1.weight', '2.weight']}
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.0, 0.0, 0.1]

        Layer-wise decay is a dict comprehension (of n layers the last has the full lr):

        >>> n = 3
        >>> layers = {f"{i}.*": 0.9 ** (n - 1 - i) * lr for i in range(n)}
        >>> list(ts.by_parameter(layers, model).parameter_names)
        ['0.*', '1.*', '2.*']

        Two optimizers, Muon for the hidden matrices and AdamW for the rest:

        >>> matrices = ts.by_parameter({"0.*": None, lambda name, p: p.ndim == 2: 20 * lr, "*": None}, model)
        >>> others = ts.by_parameter({"*": lr}, matrices.rest)
        >>> muon, adamw = torch.optim.Muon(matrices), torch.optim.AdamW(others)
        >>> plan = ts.Plan(muon=ts.attach(muon, **matrices.schedules), adamw=ts.attach(adamw, **others.schedules))
        >>> plan.check(model)
        []
    """
    if not rules or not isinstance(rules, Mapping):
        raise BindingError(
            f"by_parameter: expected a dict of patterns and what each gets, got {shown(rules)}"
        )
    patterns = {pattern: _matcher(pattern) for pattern in rules}
    everything = _members(model)
    if not everything:
        raise BindingError("by_parameter: the model has no parameters")
    members = [member for member in everything if frozen or member.parameter.requires_grad]
    left_frozen = [member for member in everything if not (frozen or member.parameter.requires_grad)]
    taken = _assigned(patterns, members)
    for pattern, found in taken.items():
        if not found and pattern != "*":
            raise _matches_nothing(pattern, patterns, members, left_frozen)
    found_rules = [(_read_rule(pattern, rules[pattern]), found) for pattern, found in taken.items() if found]
    kept = [(rule, found) for rule, found in found_rules if rule is not None]
    names = [rule["name"] for rule, _ in kept]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BindingError(f"by_parameter: two groups would be named {twice!r}; give each a name of its own")
    groups = [_group(rule, found) for rule, found in kept]
    rest = [member for rule, found in found_rules if rule is None for member in found]
    return ParameterGroups(
        groups,
        _schedules([rule for rule, _ in kept]),
        {rule["name"]: found for rule, found in kept},
        rest,
        left_frozen,
    )


def _members(model: Any) -> list[Member]:
    """Every parameter once, with all its names."""
    if isinstance(model, nn.Module):
        named: Any = model.named_parameters(remove_duplicate=False)
    elif isinstance(model, Iterable):
        named = model
    else:
        raise BindingError(f"by_parameter: expected a module or (name, parameter) pairs, got {shown(model)}")
    names: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    for pair in named:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):  # noqa: PLR2004  a pair
            raise BindingError(
                "by_parameter: names are what rules go by: pass the model, or model.named_parameters(), not "
                "model.parameters()"
            )
        name, parameter = pair
        names.setdefault(id(parameter), []).append(name)
        parameters[id(parameter)] = parameter
    return [Member(tuple(names[key]), parameter) for key, parameter in parameters.items()]


def _matcher(pattern: Any) -> Matches:
    if isinstance(pattern, str):
        return lambda name, _: fnmatchcase(name, pattern)
    if isinstance(pattern, tuple) and pattern and all(isinstance(part, str) for part in pattern):
        return lambda name, _: any(fnmatchcase(name, part) for part in pattern)
    if callable(pattern):
        return lambda name, parameter: bool(pattern(name, parameter))
    raise BindingError(
        f"by_parameter: a pattern is a string, a tuple of strings or a function of (name, parameter), not "
        f"{shown(pattern)}"
    )


def _assigned(patterns: Mapping[Any, Matches], members: Sequence[Member]) -> dict[Any, list[Member]]:
    """The members that each pattern gets.

    Raises:
        BindingError: one that none gets.
    """
    taken: dict[Any, list[Member]] = {pattern: [] for pattern in patterns}
    unmatched = []
    for member in members:
        pattern = next((p for p, matches in patterns.items() if _matches(matches, member)), _NONE)
        if pattern is _NONE:
            unmatched.append(member)
        else:
            taken[pattern].append(member)
    if unmatched:
        raise BindingError(
            f"by_parameter: no rule matches {_few(unmatched)}; end with '*': a schedule for the others (or None, for "
            "another optimizer)"
        )
    return taken


_NONE = object()


def _matches(matches: Matches, member: Member) -> bool:
    return any(matches(name, member.parameter) for name in member.names)


def _matches_nothing(
    pattern: Any,
    patterns: Mapping[Any, Matches],
    members: Sequence[Member],
    frozen: Sequence[Member],
) -> BindingError:
    wanted = [member for member in members if _matches(patterns[pattern], member)]
    what = f"by_parameter: {_name(pattern)!r} matches"
    if wanted:
        first = next(other for other, matches in patterns.items() if _matches(matches, wanted[0]))
        return BindingError(
            f"{what} only what rules before it took ({_few(wanted)}, by {_name(first)!r}); put the narrower rule first"
        )
    if still := [member for member in frozen if _matches(patterns[pattern], member)]:
        return BindingError(
            f"{what} only parameters that do not require grad ({_few(still)}); pass frozen=True to have them in a group"
        )
    return BindingError(f"{what} no parameter; there are {_few(members)}")


def _read_rule(pattern: Any, rule: Any) -> dict[str, Any] | None:
    """A rule as hyperparameters and a name."""
    if rule is None:
        return None
    if isinstance(rule, Schedule) or (isinstance(rule, numbers.Real) and not isinstance(rule, bool)):
        rule = {"lr": rule}
    if not isinstance(rule, Mapping):
        raise BindingError(
            f"by_parameter: {_name(pattern)!r} gets {shown(rule)}; a rule is a schedule or number for lr, a dict of "
            "hyperparameters, or None"
        )
    read = {"name": _name(pattern)} | dict(rule)
    for key in read:
        if not isinstance(key, str) or key == "params":
            raise BindingError(
                f"by_parameter: {_name(pattern)!r} has {shown(key)}, which is no hyperparameter"
            )
    if not isinstance(read["name"], str):
        raise BindingError(f"by_parameter: the name of {_name(pattern)!r} must be a string")
    return read


def _group(rule: Mapping[str, Any], members: Sequence[Member]) -> dict[str, Any]:
    """The param_group: what has a schedule, or None, is left to the optimizer's constructor."""
    constants = {key: value for key, value in rule.items() if value is not None and not _follows(value)}
    return {"params": [member.parameter for member in members]} | constants


def _schedules(rules: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each hyperparameter that has a schedule in one group, what each group gets; numbers follow themselves."""
    keys = dict.fromkeys(key for rule in rules for key, value in rule.items() if _follows(value))
    return {key: {rule["name"]: rule.get(key) for rule in rules} for key in keys}


def _follows(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return any(isinstance(part, Schedule) for part in parts)


def _name(pattern: Any) -> str:
    if isinstance(pattern, str):
        return pattern
    if isinstance(pattern, tuple):
        return ", ".join(pattern)
    return str(getattr(pattern, "__name__", type(pattern).__name__))


def _few(members: Sequence[Member]) -> str:
    found = ", ".join(member.names[0] for member in members[:_FEW])
    return found if len(members) <= _FEW else f"{found} and {len(members) - _FEW} more"
