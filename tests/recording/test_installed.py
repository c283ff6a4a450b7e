"""The environment of `make test-peers`, and what loading a module from a package leaves behind."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest
from tests.recording import installed

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
# What a distribution is called where it is not called as its module.
MODULES = {"megatron_core": "megatron", "mosaicml": "composer", "nemo_toolkit": "nemo"}


def pins(lines: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in lines if "==" in line)


def test_both_environments_run_the_tests_with_the_same_versions():
    extras = PROJECT["project"]["optional-dependencies"]
    dev, peers = pins(extras["dev"]), pins(extras["peers"])
    shared = dev.keys() & peers.keys()
    assert {"pytest", "hypothesis", "numpy", "transformers"} <= shared
    assert {name: dev[name] for name in shared} == {name: peers[name] for name in shared}


def test_every_package_that_is_loaded_is_pinned():
    alone = pins(PROJECT["dependency-groups"]["peers-alone"])
    names = {name.replace("-", "_") for name in alone}
    assert {MODULES.get(name, name) for name in names} == set(installed.PEERS)


@pytest.mark.parametrize("name", installed.PEERS)
def test_loading_leaves_nothing_behind(name):
    before = {module for module in sys.modules if module.partition(".")[0] in {*installed.PEERS, "omegaconf"}}
    installed.load.cache_clear()
    loaded = installed.load(name)
    assert Path(loaded.__file__).is_file()  # the package's own
    after = {module for module in sys.modules if module.partition(".")[0] in {*installed.PEERS, "omegaconf"}}
    assert after == before


def test_a_peer_that_is_missing_fails_where_it_has_to_be_there(monkeypatch):
    monkeypatch.setattr(installed, "NEEDED", True)
    with pytest.raises(pytest.fail.Exception, match="no_such_peer is not installed: make test-peers has it"):
        installed.require("no_such_peer")
    monkeypatch.setattr(installed, "NEEDED", False)
    with pytest.raises(pytest.skip.Exception, match="make test-peers"):
        installed.require("no_such_peer")


@pytest.mark.parametrize("needed", [True, False])
def test_whatever_skips_where_all_peers_have_to_be_there_fails(needed, monkeypatch):
    monkeypatch.setattr(installed, "NEEDED", needed)
    hook = conftest.pytest_runtest_makereport()
    next(hook)
    with pytest.raises(StopIteration) as returned:
        hook.send(SimpleNamespace(skipped=True, outcome="skipped"))
    assert returned.value.value.outcome == ("failed" if needed else "skipped")
