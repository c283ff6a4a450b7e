"""Other libraries' scheduler modules, loaded from their packages without what those import on the way.

`make test-peers` installs megatron-core, torchtitan, deepspeed, mmengine, composer, NeMo, fvcore and timm without their
dependencies: gigabytes that a schedule needs nothing of. Their scheduler modules are the packages' own files, unmodified;
the packages above them are *bare* (no `__init__` runs), and what the modules import beside torch is a stand-in: loggers,
registries, type hints. Nothing of a formula is. Afterwards sys.modules is as it was.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NEEDED = bool(
    os.environ.get("NEED_PEERS")
)  # make test-peers sets it: a peer that is missing is then a failure


@dataclass(frozen=True)
class Peer:
    """How a scheduler module is loaded."""

    module: str
    bare: tuple[str, ...]  # packages whose __init__ is left out, the outermost first
    real: dict[str, str] = field(
        default_factory=dict
    )  # bare package: "module name ...", its own names that are needed
    stubs: tuple[str, ...] = ()  # modules that are stood in for
    given: dict[str, dict[str, Any]] = field(default_factory=dict)  # bare package: names put there
    also: str = ""  # "module name": one that the tests need beside those of the module


PEERS = {
    "timm": Peer("timm.scheduler", ("timm",)),
    "fvcore": Peer("fvcore.common.param_scheduler", ("fvcore", "fvcore.common")),
    "megatron": Peer(
        "megatron.core.optimizer_param_scheduler", ("megatron", "megatron.core"), stubs=("megatron.core.utils",)
    ),
    "torchtitan": Peer(
        "torchtitan.components.optimizer.lr_scheduler",
        ("torchtitan", "torchtitan.components", "torchtitan.components.optimizer", "torchtitan.config"),
        real={"torchtitan.config": "torchtitan.config.configurable Configurable"},
        stubs=("torchtitan.tools", "torchtitan.tools.logging", "torchtitan.components.optimizer.optimizer"),
    ),
    "deepspeed": Peer(
        "deepspeed.runtime.lr_schedules", ("deepspeed", "deepspeed.runtime"), stubs=("deepspeed.utils",)
    ),
    "mmengine": Peer(
        "mmengine.optim.scheduler",
        ("mmengine", "mmengine.optim"),
        stubs=("mmengine.logging", "mmengine.registry"),
        given={"mmengine.optim": {"BaseOptimWrapper": type("BaseOptimWrapper", (), {})}},
    ),
    "composer": Peer(
        "composer.optim.scheduler",
        ("composer", "composer.core", "composer.optim", "composer.utils"),
        real={
            "composer.utils": "composer.utils.string_enum StringEnum",
            "composer.core": "composer.core.time Time TimeUnit Timestamp",
        },
        given={"composer.core": {"State": object}},
        also="composer.core.time Timestamp",
    ),
    "nemo": Peer(
        "nemo.core.optim.lr_scheduler",
        ("nemo", "nemo.core", "nemo.core.optim"),
        stubs=(
            "omegaconf", "nemo.core.classes", "nemo.core.classes.common", "nemo.core.config",
            "nemo.core.config.schedulers", "nemo.utils", "nemo.utils.model_utils",
        ),
    ),
}  # fmt: skip


class Quiet:
    """A logger, a registry, a type hint: every attribute and call gives another, a decorator what it decorates."""

    def __getattr__(self, name: str) -> Quiet:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **_: Any) -> Any:
        return args[0] if args and (inspect.isclass(args[0]) or inspect.isfunction(args[0])) else self


class Stub(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Quiet:
        if name.startswith("__"):
            raise AttributeError(name)
        return Quiet()


def require(name: str, why: str = "") -> None:
    """Skip where a package is not installed; fail where it has to be."""
    if importlib.util.find_spec(name) is None:
        text = f"{name} is not installed{why}: make test-peers has it"
        if NEEDED:
            pytest.fail(text)
        pytest.skip(text)


@functools.cache
def load(name: str) -> types.ModuleType:
    """The scheduler module of a peer."""
    require(name)
    peer = PEERS[name]
    with _modules_as_they_were():
        for package in peer.bare:
            _bare(package)
        for module in peer.stubs:
            sys.modules[module] = Stub(module)
            sys.modules[module].__path__ = []
        for package, text in peer.real.items():
            module, *names = text.split()
            found = importlib.import_module(module)
            vars(sys.modules[package]).update({each: getattr(found, each) for each in names})
        for package, names in peer.given.items():
            vars(sys.modules[package]).update(names)
        loaded = importlib.import_module(peer.module)
        if peer.also:
            module, name = peer.also.split()
            vars(loaded)[name] = getattr(importlib.import_module(module), name)
        return loaded


def _bare(package: str) -> None:
    above, _, own = package.rpartition(".")
    if above:
        paths = [str(Path(path) / own) for path in sys.modules[above].__path__]
    else:
        paths = list(importlib.util.find_spec(package).submodule_search_locations)
    made = types.ModuleType(package)
    made.__path__ = paths
    sys.modules[package] = made


@contextlib.contextmanager
def _modules_as_they_were() -> Iterator[None]:
    """A bare package left behind would be found by whoever looks whether it is installed."""
    before = dict(sys.modules)
    tops = {name.partition(".")[0] for name in PEERS} | {"omegaconf"}
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]
        sys.modules.update({name: held for name, held in before.items() if name.partition(".")[0] in tops})
