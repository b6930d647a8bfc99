"""Real processes of `python -m coord serve` on free loopback ports, and load on them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

import coord
from coord.errors import CoordError
from coord.observe.events import CATALOGUE
from coord.observe.kinds import Kind

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
"""SIGTERM ends a node within this."""
EVENT_TIMEOUT_S = 30.0
_COMMON = {"ts", "level", "event", "node", "cluster", "term", "role", "seq"}
_RENDERED: dict[Kind, type | tuple[type, ...]] = {
    Kind.INT: int,
    Kind.FLOAT: (int, float),
    Kind.BOOL: bool,
    Kind.TEXT: str,
    Kind.TEXTS: list,
    Kind.ID: str,
    Kind.IDS: list,
    Kind.KEY: str,
}


def _ports() -> Iterator[int]:
    """Yield ports in an order of chance, each once; another worker of this run has others.

    None is given to an outgoing connection while its node is down, and none ends in 0, 1 or 2: these are for the nodes
    of `coord dev`, which follow from one port.
    """
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    mine = [port for port in range(10_000, 32_768) if port % 10 > 2][int(worker[2:]) :: int(workers)]
    random.shuffle(mine)
    return iter(mine)


_PORTS = _ports()


def free_port() -> int:
    """Return a port that nothing listens on, and that no other test is given."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free ports")


@define(eq=False)
class NodeProcess:
    """A node that can be started many times on one data directory; `directory` also gets its logs, one a life."""

    directory: Path
    name: str = "n1"
    client_port: int = field(factory=free_port)
    peer_port: int = field(factory=free_port)
    advertised_port: int = 0
    """Where its peers reach it, 0 for where it listens for them."""
    flags: tuple[str, ...] = ()
    """Those of every life."""
    lives: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.advertised_port or self.peer_port}"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def spawn(self, *flags: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the process; its log goes to `log_path`."""
        self.lives += 1
        client, peer = f"http://{self.endpoint}", f"http://127.0.0.1:{self.peer_port}"
        command = [
            sys.executable, "-m", "coord", "serve", f"--name={self.name}", f"--data-dir={self.data}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={self.peer_url}",
            "--log-format=json", "--log-level=debug", *self.flags, *flags,
        ]  # fmt: skip
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environ or {})})
        return self.process

    def start(self, *flags: str, environ: Mapping[str, str] | None = None) -> None:
        """Start the process and wait until it is ready."""
        self.spawn(*flags, environ=environ)
        self.wait_ready()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it serves linearizable reads."""
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while self.http("/readyz")[0] != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not ready, status {self.process.poll()}: {self.log_path.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """End it in order; return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def cleanup(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def http(self, path: str) -> tuple[int, str]:
        """Get a page; the status is 0 if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.endpoint}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def log_path(self) -> Path:
        """The log of the current or last life."""
        return self.directory / f"{self.name}.{self.lives}.log"

    def log(self) -> list[dict[str, Any]]:
        """The lines of the current or last life; each must be as catalogued."""
        # A line that is being written does not count yet.
        text = self.log_path.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        for number, line in enumerate(lines, start=1):
            check_line(line)
            assert line["seq"] == number, "a line is missing"
            assert line["node"] == self.name
        return lines

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == name]

    def wait_for_event(self, name: str, /, timeout_s: float = EVENT_TIMEOUT_S, **wanted: Any) -> dict[str, Any]:
        """Wait until the current life has logged `name` with these fields; return the first such line."""
        deadline = time.monotonic() + timeout_s
        while True:
            for line in self.events(name):
                if all(line.get(key) == value for key, value in wanted.items()):
                    return line
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not log {name} {wanted}:\n{self.log_path.read_text()}")
            time.sleep(0.02)


def check_line(line: dict[str, Any]) -> None:
    """Hold a line to the catalogue: its name, its level, its fields and how they are written."""
    spec = CATALOGUE[line["event"]]
    assert line["level"] == spec.level.name.lower(), line
    given = line.keys() - _COMMON - ({"suppressed"} if spec.limited else set())
    assert line.keys() >= _COMMON, line
    assert given <= spec.fields.keys(), line
    for name in given:
        assert isinstance(line[name], _RENDERED[spec.fields[name]]), (name, line)
        if spec.fields[name] is Kind.ID:
            int(line[name], 16)


@define(eq=False)
class Load:
    """Writers that each count up in a key of their own, over lives of the node."""

    endpoint: str
    connections: int = 3
    writers: int = 8
    issued: dict[str, int] = field(factory=dict)
    acknowledged: dict[str, int] = field(factory=dict)
    revision: int = 0
    """The highest revision that an answer named."""
    errors: list[CoordError] = field(factory=list)
    open: int = 0
    """How many connections stand."""
    all_open: trio.Event = field(factory=trio.Event)
    has_enough: trio.Event = field(factory=trio.Event)
    _wanted: int = 0

    def expect(self, count: int) -> None:
        """Tell by `all_open` and `has_enough` when all connections stand, and `count` more writes are acknowledged."""
        self.all_open, self.has_enough = trio.Event(), trio.Event()
        self._wanted = self.total + count

    async def run(self) -> None:
        """Write until each writer has met an error."""
        async with trio.open_nursery() as nursery:
            for number in range(self.connections):
                nursery.start_soon(self._connection, number)

    async def _connection(self, number: int) -> None:
        async with coord.connect(self.endpoint, timeout=1.5) as client, trio.open_nursery() as nursery:
            self.open += 1
            if self.open == self.connections:
                self.all_open.set()
            for writer in range(self.writers):
                nursery.start_soon(self._count, client, f"count/{number}/{writer}")
        self.open -= 1

    async def _count(self, client: coord.Client, key: str) -> None:
        while True:
            number = self.issued[key] = self.issued.get(key, 0) + 1
            try:
                revision = await client.put(key, b"%d" % number + bytes(200))
            except CoordError as error:
                self.errors.append(error)
                return
            self.acknowledged[key] = number
            self.revision = max(self.revision, revision)
            if self.total >= self._wanted:
                self.has_enough.set()

    @property
    def total(self) -> int:
        return sum(self.acknowledged.values())

    def check(self) -> None:
        """Find everything that was acknowledged, and nothing that was not issued."""
        with coord.connect_sync(self.endpoint) as client:
            found = {pair.key.decode(): int(pair.value.rstrip(b"\0")) for pair in client.range("count/", prefix=True)}
            assert client.revision >= self.revision
        assert found.keys() <= self.issued.keys()
        for key, issued in self.issued.items():
            assert self.acknowledged.get(key, 0) <= found.get(key, 0) <= issued, key
