"""What stands beside the comparison: it is optional, and its figures are of what they say they are of."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Answer:
    """What kazoo calls an IAsyncResult, there at once."""

    def __init__(self, good: bool) -> None:
        self.good = good

    def successful(self) -> bool:
        return self.good

    def rawlink(self, callback: Callable[[Answer], None]) -> None:
        threading.Thread(target=callback, args=(self,)).start()


class Client:
    """A KazooClient that writes down what it is asked for."""

    made: list[Client]
    failing: frozenset[str] = frozenset()

    def __init__(self, hosts: str, **options: object) -> None:
        self.hosts = hosts
        self.asked: list[tuple[Any, ...]] = []
        self.made.append(self)

    def start(self, timeout: float) -> None:
        self.asked.append(("start",))

    def stop(self) -> None:
        self.asked.append(("stop",))

    def close(self) -> None:
        self.asked.append(("close",))

    def __getattr__(self, name: str) -> Callable[..., Answer]:
        def call(*arguments: object) -> Answer:
            self.asked.append((name, *arguments))
            return Answer(name not in self.failing)

        return call

    def Lock(self, path: str) -> Any:  # noqa: N802
        @contextmanager
        def lock() -> Iterator[None]:
            self.asked.append(("lock", path))
            yield

        return lock()


@pytest.fixture
def zkload(monkeypatch: pytest.MonkeyPatch, module: Callable[[str], ModuleType]) -> Iterator[ModuleType]:
    """The load, on a kazoo that is none."""
    monkeypatch.setattr(Client, "made", [], raising=False)
    stubs = {"kazoo.client": {"KazooClient": Client}, "kazoo.interfaces": {"IAsyncResult": Answer}}
    for name, items in {"kazoo": {}, **stubs}.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**items))
    yield module("zkload")
    del sys.modules["zkload"]


def options(mode: str, **others: object) -> argparse.Namespace:
    sizes = {"conns": 3, "clients": 7, "keys": 50, "value_bytes": 4, "seconds": 0.05, "endpoints": "a:1,b:2"}
    return argparse.Namespace(mode=mode, **{**sizes, **others})


def test_shares_together_create_every_key_once(zkload: ModuleType) -> None:
    together = SimpleNamespace(parties=2, wait=lambda timeout_s: None)
    done = [zkload.share(options("fill"), number, together)[0] for number in (0, 1)]
    created = Counter(call for client in Client.made for call in client.asked if call[0] == "create_async")
    assert created == Counter(("create_async", f"/{number:08}", bytes(4)) for number in range(50))
    assert sum(len(cycles.took_s) for cycles in done) == 50
    assert sorted(client.hosts for client in Client.made) == ["a:1,b:2", "a:1,b:2", "b:2,a:1"]
    for client in Client.made:
        assert [client.asked[0], *client.asked[-2:]] == [("start",), ("stop",), ("close",)]


def test_a_get_is_a_sync_and_a_get(zkload: ModuleType) -> None:
    cycles, _ = zkload.share(options("get", conns=1, clients=1), 0, threading.Barrier(1))
    asked = Client.made[0].asked[1:-2]
    assert asked
    assert len(asked) == 2 * len(cycles.took_s)
    for sync, get in zip(asked[::2], asked[1::2], strict=True):
        assert [sync[0], get[0]] == ["sync_async", "get_async"]
        assert sync[1] == get[1]


def test_what_failed_is_counted_and_not_timed(zkload: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "failing", frozenset({"set_async"}))
    cycles, _ = zkload.share(options("put"), 0, threading.Barrier(1))
    assert cycles.took_s == []
    assert cycles.errors == sum(call[0] == "set_async" for client in Client.made for call in client.asked)


def test_contenders_take_a_lock_each_time(zkload: ModuleType) -> None:
    for mode in ("lock", "handoff"):
        Client.made.clear()
        report = zkload.MODES[mode](options(mode))
        (client,) = Client.made
        locked = client.asked.count(("lock", f"/bench/{mode}"))
        assert locked == report["operations"] + (mode == "lock")


@pytest.mark.parametrize(
    ("name", "lacks"), [("Redis", "apt-get install redis-server"), ("ZooKeeper", "apt-get install zookeeper; ")]
)
def test_what_is_not_there_says_how_to_install_it(
    module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, name: str, lacks: str
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "kazoo", None)
    assert getattr(module("context"), name).missing().startswith(lacks)


def test_its_line_and_json_stand_beside_the_comparison(
    module: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    context, side_by_side = module("context"), module("side_by_side")
    row = next(row for row in side_by_side.ROWS if row.name == "lock")
    sample = side_by_side.Sample(100.0, 1000, 1.0, 2.0, 0, 0.5, 0.1, 100.0)
    report = {"ops_per_s": 50.0, "p50_ms": 1.0, "p99_ms": 2.0, "peak_mib": 3.0, "operations": 500}
    result = side_by_side.Result(row, [sample], [sample])
    result.context["zookeeper"] = [{**report, "server_cpu_s": 1.0, "cpu_s": 0.25}]
    side_by_side.print_context([result], context.ZooKeeper(Path(), 1, 1, "3.8.0"))
    printed = capsys.readouterr().out
    assert "each get a sync and a get" in printed
    assert "nodes 2.000, client 0.500" in printed
    assert json.loads(json.dumps(result.summary()))["zookeeper"] == result.context["zookeeper"]
    side_by_side.print_context([result], context.Redis(Path(), 1, 1))
    assert "lock" not in capsys.readouterr().out
