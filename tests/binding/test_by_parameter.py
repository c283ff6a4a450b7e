"""by_parameter: who gets what, the param_groups, and their schedules."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn, optim

import tensorsched as ts
from tests.binding.test_attach import equal

LR = ts.warmup_cosine(0.1, total=20, warmup=4)


class Net(nn.Module):
    def __init__(self, *, tied: bool = False, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(7, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(12))
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        if frozen:
            self.embed.requires_grad_(requires_grad=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = x + layer(x).tanh()
        return self.head(self.norm(x))


def names(groups: ts.binding.parameter_groups.ParameterGroups) -> dict[str, list[str]]:
    return groups.parameter_names


def test_the_first_rule_that_matches_wins():
    groups = ts.by_parameter({"*.bias": 0.1, "layers.1.*": 0.2, ("embed*", "head*"): 0.3, "*": 0.4}, Net())
    assert names(groups)["*.bias"] == [f"layers.{i}.bias" for i in range(12)] + ["norm.bias"]
    assert names(groups)["layers.1.*"] == ["layers.1.weight"], "neither layers.10 nor the bias"
    assert names(groups)["embed*, head*"] == ["embed.weight", "head.weight"]
    assert len(names(groups)["*"]) == 12
    assert [group["name"] for group in groups] == ["*.bias", "layers.1.*", "embed*, head*", "*"]
    assert [group["lr"] for group in groups] == [0.1, 0.2, 0.3, 0.4]
    assert groups.schedules == {}, "numbers are the optimizer's"


def test_a_function_of_name_and_parameter_is_a_pattern():
    def is_matrix(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and "layers" in name

    groups = ts.by_parameter({is_matrix: LR, "*": None}, Net())
    assert names(groups) == {"is_matrix": [f"layers.{i}.weight" for i in range(12)]}
    assert [name for name, _ in groups.rest][:2] == ["embed.weight", "layers.0.bias"]
    others = ts.by_parameter({"*.bias": {"weight_decay": 0.0}, "*": LR}, groups.rest)
    assert len(names(others)["*.bias"]) == 13
    assert sum(map(len, [*names(groups).values(), *names(others).values()])) == len(list(Net().parameters()))


def test_schedules_are_for_attach_and_numbers_for_the_constructor():
    model = Net()
    groups = ts.by_parameter(
        {
            "*.bias": {"lr": LR, "weight_decay": 0.0, "betas": (ts.linear(0.8, 0.9, steps=9), None)},
            "embed*": {"lr": 0.5 * LR, "weight_decay": ts.linear(0.1, 0.0, steps=9), "name": "embed"},
            "head*": {"lr": 0.01, "eps": 1e-6},
            "*": {},
        },
        model,
    )
    assert groups.schedules == {
        "lr": {"*.bias": LR, "embed": 0.5 * LR, "head*": 0.01, "*": None},
        "weight_decay": {"*.bias": 0.0, "embed": ts.linear(0.1, 0.0, steps=9), "head*": None, "*": None},
        "betas": {"*.bias": (ts.linear(0.8, 0.9, steps=9), None), "embed": None, "head*": None, "*": None},
    }
    assert [sorted(g.keys() - {"params", "name"}) for g in groups] == [
        ["weight_decay"],
        [],
        ["eps", "lr"],
        [],
    ]
    optimizer = optim.AdamW(groups, lr=0.3, weight_decay=0.2)
    sched = ts.attach(optimizer, **groups.schedules)
    for step in range(3):
        assert [g["lr"] for g in optimizer.param_groups] == [LR(step), 0.5 * LR(step), 0.01, 0.3]
        assert [g["weight_decay"] for g in optimizer.param_groups][2:] == [0.2, 0.2]
        assert sched.value("betas", "*.bias") == ts.linear(0.8, 0.9, steps=9)(step)
        optimizer.step()
    assert str(sched).splitlines()[1].split() == ["group", "name", "key", "slot", "value", "schedule"]


def test_initial_is_the_constructor_s():
    groups = ts.by_parameter(
        {"*.bias": ts.initial * 2.0, "*": ts.initial * ts.linear(1.0, 0.0, steps=4)}, Net()
    )
    optimizer = optim.SGD(groups, lr=0.5)
    ts.attach(optimizer, **groups.schedules)
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == [1.0, 0.375]


def test_a_tied_parameter_is_in_one_group_once_by_the_first_rule_for_any_of_its_names():
    groups = ts.by_parameter({"head*": 0.1, "*": 0.2}, Net(tied=True))
    assert names(groups)["head*"] == ["embed.weight"]
    assert "embed.weight = head.weight" in str(groups)
    every = [id(p) for group in groups for p in group["params"]]
    assert len(every) == len(set(every)) == len(list(Net(tied=True).parameters()))
    with pytest.raises(
        ts.BindingError, match=r"'head\*' matches only what rules before it took \(embed.weight, by 'emb"
    ):
        ts.by_parameter({"embed*": 0.1, "head*": 0.2, "*": 0.3}, Net(tied=True))


def test_frozen_parameters_are_left_out_unless_they_are_wanted():
    model = Net(frozen=True)
    groups = ts.by_parameter({"*": LR}, model)
    assert "embed.weight" not in names(groups)["*"]
    assert re.search(r"\(frozen\) +1 +28 +- +embed.weight", str(groups))
    with pytest.raises(
        ts.BindingError, match=r"matches only parameters that do not require grad \(embed.weight\)"
    ):
        ts.by_parameter({"embed*": LR, "*": LR}, model)
    assert names(ts.by_parameter({"embed*": LR, "*": LR}, model, frozen=True))["embed*"] == ["embed.weight"]


def test_two_optimizers_of_one_by_parameter_do_not_share_their_groups():
    groups = ts.by_parameter({"*": LR}, Net())
    a, b = optim.SGD(groups), optim.SGD(groups)
    ts.attach(a, **groups.schedules)
    a.step()
    assert b.param_groups[0]["lr"] == 1e-3
    assert groups[0].keys() == {"params", "name"}
    assert [g["name"] for g in groups[:1]] == ["*"]
    assert len(groups) == 1


def test_print_shows_who_got_what():
    groups = ts.by_parameter(
        {"*.bias": {"lr": LR, "weight_decay": 0.0}, "layers.*": 0.5 * LR, "*": None}, Net()
    )
    assert str(groups).splitlines() == [
        "group       tensors  numbers  lr                                        weight_decay  parameters",
        "*.bias      13       52       linear(0.0, 0.1, steps=4) >> cosine(0...  0.0           layers.0.bias, layers.1.bias, layers.2.bias, layers.3.bia...",
        "layers.*    12       192      0.5 * (linear(0.0, 0.1, steps=4) >> c...  -             layers.0.weight, layers.1.weight, layers.2.weight, layers...",
        "(left out)  3        60       -                                         -             embed.weight, norm.weight, head.weight",
    ]  # fmt: skip
    assert repr(groups) == "<ParameterGroups '*.bias', 'layers.*'>"


def train(model: nn.Module, optimizer: Any, by_hand: Any = None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for step in range(8):
        if by_hand:
            by_hand(step)
        tokens = torch.randint(0, 7, (5,), generator=generator)
        nn.functional.cross_entropy(model(tokens), (tokens + 1) % 7).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


def test_layer_wise_decay_is_a_dict_comprehension_and_trains_as_by_hand():
    model = Net()
    rules = {"embed*": 0.5**13 * LR}
    rules |= {f"layers.{i}.*": 0.5 ** (12 - i) * LR for i in range(12)}
    groups = ts.by_parameter(rules | {"*": LR}, model)
    optimizer = optim.SGD(groups)
    ts.attach(optimizer, **groups.schedules)
    reached = train(model, optimizer)

    other = Net()
    plain = optim.SGD(
        [
            {"params": other.embed.parameters()},
            *({"params": layer.parameters()} for layer in other.layers),
            {"params": [*other.norm.parameters(), *other.head.parameters()]},
        ]
    )

    def by_hand(step: int) -> None:
        for index, group in enumerate(plain.param_groups):
            group["lr"] = 0.5 ** (13 - index) * LR(step)

    assert equal(reached, train(other, plain, by_hand))
    still = Net()
    assert not equal(reached, train(still, optim.SGD(still.parameters(), lr=LR(3)))), "the control"


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({}, "expected a dict of patterns"),
        (LR, "expected a dict of patterns"),
        ({"layers*": LR}, r"no rule matches embed.weight, norm.weight, norm.bias, head.weight; end with '\*'"),
        ({"nothing*": LR, "*": LR}, r"'nothing\*' matches no parameter; there are embed.weight, layers.0.weight, .* and 23"),
        ({"*": LR, "*.bias": LR}, r"'\*.bias' matches only what rules before it took \(.*, by '\*'\); put the narrower"),
        ({"*.bias": LR, "*": True}, r"'\*' gets True; a rule is a schedule or number"),
        ({"*": "0.1"}, r"'\*' gets '0.1'"),
        ({"*": lambda *_: 0.1}, r"'\*' gets <function"),
        ({"*": {"params": []}}, "'params', which is no hyperparameter"),
        ({"*": {1: LR}}, "has 1, which is no hyperparameter"),
        ({"*": {"name": 1}}, r"the name of '\*' must be a string"),
        ({1: LR}, "a pattern is a string, a tuple of strings or a function"),
        ({("a", 1): LR}, "a pattern is a string, a tuple of strings or a function"),
        ({(): LR}, "a pattern is a string"),
        ({"*.bias": {"name": "x"}, "*": {"name": "x"}}, "two groups would be named 'x'"),
        ({lambda _, p: p.ndim == 1: LR, lambda *_: True: LR}, "two groups would be named '<lambda>'"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_are_errors(rules, text):
    with pytest.raises(ts.BindingError, match=text):
        ts.by_parameter(rules, Net())


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nn.ReLU(), "the model has no parameters"),
        ([], "the model has no parameters"),
        (Net().parameters(), r"pass the model, or model.named_parameters\(\), not model.parameters"),
        (3, r"expected a module or \(name, parameter\) pairs, got 3"),
        (None, "expected a module"),
    ],
)
def test_a_model_that_is_none_is_an_error(model, text):
    with pytest.raises(ts.BindingError, match=text):
        ts.by_parameter({"*": LR}, model)


def test_a_star_that_nothing_is_left_for_is_no_mistake():
    groups = ts.by_parameter({"e*": LR, "[lnh]*": LR, "*": LR}, Net())
    assert list(names(groups)) == ["e*", "[lnh]*"]
    assert groups.schedules["lr"].keys() == {"e*", "[lnh]*"}


def test_schedules_of_other_groups_do_not_fit():
    groups = ts.by_parameter({"*.bias": LR, "*": LR}, Net())
    optimizer = optim.SGD(Net().parameters())
    with pytest.raises(ts.BindingError, match="lr: no param_group is named"):
        ts.attach(optimizer, **groups.schedules)


def test_muon_takes_the_matrices_and_refuses_what_is_none():
    groups = ts.by_parameter({"embed*": None, lambda _, p: p.ndim == 2: LR, "*": None}, Net())
    assert optim.Muon(groups).param_groups[0]["name"] == "<lambda>"
