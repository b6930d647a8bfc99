"""The configurations for three hosts start a cluster; only addresses and directories are others here."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import coord
from coord.config import load

from .processes import ProcessCluster

CONFIGS = Path(__file__).parents[2] / "configs" / "three-hosts"
NAMES = ("n1", "n2", "n3")


def text(name: str) -> str:
    return (CONFIGS / f"{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_each_is_right_as_it_stands(name: str) -> None:
    config = load({"config-file": name}, {}, text)
    assert config.name == name
    assert not config.unrecognized
    assert [member for member, _ in config.initial_cluster] == list(NAMES)


def test_they_differ_only_in_name_and_address() -> None:
    one = text("n1")
    for number, name in enumerate(NAMES, start=1):
        host, shared = f'"http://10.0.0.{number}:', "initial-cluster = "
        mine = [line.replace(host, '"http://10.0.0.1:') for line in text(name).splitlines()]
        mine = [line.replace(f'name = "{name}"', 'name = "n1"').replace(f"Member {name}", "Member n1") for line in mine]
        assert mine == one.splitlines()
        assert tomllib.loads(text(name))["initial-cluster"] in next(line for line in mine if line.startswith(shared))


def test_a_cluster_of_them_serves(make_cluster: Callable[..., ProcessCluster]) -> None:
    cluster = make_cluster()
    for name, node in cluster.nodes.items():
        node.flags += (f"--config-file={CONFIGS / name}.toml",)
    cluster.start()
    cluster.check_agreement()
    with coord.connect_sync(cluster.endpoints) as client:
        assert sorted(member.name for member in client.member_list().members) == list(NAMES)
    cluster.stop()
