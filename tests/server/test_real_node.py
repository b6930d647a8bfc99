"""A real node over its protocol: the page's example runs, and every frame is as coord.cddl says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from coord.codec import decode, encode
from coord.protocol.ops import SUBPROTOCOL, Method, Op

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def _schema() -> Any:
    spec = spec_from_file_location("cddl", ROOT / "tests" / "protocol" / "cddl.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Schema.of_coord()


SCHEMA = _schema()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    directory = tmp_path_factory.mktemp("node")
    flags = ["--data-dir", str(directory / "data"), "--listen-client-urls", f"http://{host}"]
    flags += ["--listen-peer-urls", "http://127.0.0.1:0"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "coord", "serve", *flags], stdout=log, stderr=log)
    give_up = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://{host}/readyz", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < give_up, (directory / "log").read_text()
            time.sleep(0.02)
    yield host
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, (directory / "log").read_text()


def test_the_pages_example_runs(endpoint: str) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 24
    command = [sys.executable, "-W", "error", "-c", example]
    environment = {**os.environ, "COORD_ENDPOINTS": endpoint}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "greeting = hello" in done.stdout


class Client:
    """Sends one request at a time, holding every message, both ways, against the schema."""

    def __init__(self, link: ClientConnection) -> None:
        self.link = link
        self.notifications: list[Any] = []
        self.request_id = 100
        self.hello = self._receive()

    def _receive(self) -> list[Any]:
        message: list[Any] = decode(self.link.recv(timeout=10), is_counted=False)  # type: ignore[arg-type]
        assert SCHEMA.allows("server-message", message), message
        return message

    def reply(self) -> Any:
        while True:
            message = self._receive()
            if message[0] == 1:
                [reply] = message[5]
                assert reply[0] == self.request_id
                return reply
            self.notifications += message[5]

    def send(self, message: list[Any]) -> None:
        assert SCHEMA.allows("client-message", message), message
        self.link.send(encode(message))

    def request(self, method: Method, arguments: list[Any], argument_rule: str, result_rule: str) -> Any:
        assert SCHEMA.allows(argument_rule, arguments)
        self.request_id += 1
        self.send([1, [[self.request_id, int(method), 0, arguments]]])
        return self._result(result_rule)

    def write(self, op: Op, arguments: list[Any], rule: str, guard: Any = None) -> Any:
        assert SCHEMA.allows(rule, arguments)
        self.request_id += 1
        body = encode([[0, int(op), guard, arguments]])
        self.send([2, 0, 0, [[self.request_id, 0]], body])
        return self._result(f"{rule}-result")

    def _result(self, rule: str) -> Any:
        reply = self.reply()
        if len(reply) == 3:
            assert SCHEMA.allows(rule, reply[2]), (rule, reply)
            return reply[2]
        assert SCHEMA.allows("error", reply[3]), reply
        return reply[3]


@pytest.fixture
def client(endpoint: str) -> Iterator[Client]:
    with connect(
        f"ws://{endpoint}/",
        subprotocols=[SUBPROTOCOL],
        compression=None,
        max_size=2**26,  # type: ignore[list-item]
    ) as link:
        yield Client(link)


def test_every_write_and_its_result(client: Client) -> None:
    assert client.write(Op.PUT, [b"a", b"1"], "put") is None
    assert client.write(Op.PUT, [b"a", b"2", 0, True], "put")[5] == b"1"
    deleted = client.write(Op.DELETE_RANGE, [b"a", b"b", True], "delete-range")
    assert (deleted[0], deleted[1][0][5]) == (1, b"2")
    operations = [[1, [b"t", b"1"]], [20, [b"t"]], [3, [[], [[2, [b"u"]]], []]]]
    succeeded, results = client.write(Op.TXN, [[[3, 3, b"t", b"x"]], [], operations], "txn")
    assert succeeded is False
    assert [result[0] for result in results] == [1, 20, 3]
    granted = client.write(Op.LEASE_GRANT, [60, 0], "lease-grant")
    assert granted[1] == 60
    assert client.write(Op.LEASE_REVOKE, [granted[0]], "lease-revoke") is None
    assert client.write(Op.REGISTER, [], "register") > 0
    assert client.write(Op.ALARM, [2, 0, 1], "alarm") == []
    assert client.write(Op.COMPACT, [2], "compact") is None
    assert client.write(Op.COMPACT, [2], "compact")[:1] == ["OutOfRange"]
    assert client.write(Op.PUT, [b"f", b""], "put", [b"absent", 5])[2][0] == "FenceLost"


def test_every_request_and_its_result(client: Client) -> None:
    lease, _ = client.write(Op.LEASE_GRANT, [60, 4711], "lease-grant")
    client.write(Op.PUT, [b"leased", b"1", lease], "put")
    pairs, more, count = client.request(Method.RANGE, [b"leased"], "range", "range-result")
    assert (pairs[0][4], more, count) == (lease, False, 1)
    everything = [b"\0", b"\0", 10, 0, 2, 3, True, True, False, 0, 0, 0, 0, 1]
    assert client.request(Method.RANGE, everything, "range", "range-result")[2] >= 1
    assert client.request(Method.TXN, [[], [[20, [b"leased"]]], []], "txn", "txn-result")[0] is True
    assert client.request(Method.LEASE_TIME_TO_LIVE, [lease, True], "lease-time-to-live", "lease-time-to-live-result")[
        3
    ] == [b"leased"]
    assert lease in client.request(Method.LEASE_LEASES, [], "lease-leases", "lease-leases-result")
    renewed = client.request(Method.LEASE_KEEP_ALIVE, [[lease, 99]], "lease-keep-alive", "lease-keep-alive-result")
    assert renewed == [[lease, 60], [99, 0]]
    assert client.request(Method.STATUS, [], "status", "status-result")[0] == "0.1.0"
    assert len(client.request(Method.MEMBER_LIST, [True], "member-list", "member-list-result")) == 1
    assert client.request(Method.HASH_KV, [0], "hash-kv", "hash-kv-result")[2] > 1
    assert client.request(Method.ALARM_LIST, [], "alarm-list", "alarm-list-result") == []
    assert client.request(Method.RANGE, [b"a", b"", 0, 10**9], "range", "range-result")[0] == "OutOfRange"


def test_watch_and_its_notifications(client: Client) -> None:
    watch, start = client.request(
        Method.WATCH_CREATE, [b"w", b"x", 0, 0, False, False, True], "watch-create", "watch-create-result"
    )
    client.write(Op.PUT, [b"w1", b"1"], "put")
    client.write(Op.DELETE_RANGE, [b"w1"], "delete-range")
    revision = client.request(Method.WATCH_PROGRESS, [], "watch-progress", "watch-progress-result")
    events = [one for one in client.notifications if one[0] == 0]
    assert [event[3][0][0] for event in events] == [0, 1]
    assert [event[1] for event in events] == [[watch], [watch]]
    assert events[0][2] == start
    assert events[1][2] == revision
    assert client.request(Method.WATCH_CANCEL, [watch], "watch-cancel", "watch-cancel-result") is True
    assert client.request(Method.WATCH_CANCEL, [watch], "watch-cancel", "watch-cancel-result") is False


def test_unknown_methods_and_items_are_refused_by_name(client: Client) -> None:
    client.link.send(encode([1, [[1, 99, 0, []]]]))
    client.request_id = 1
    assert client.reply()[3][0] == "Unimplemented"
    client.link.send(encode([1, [[1, 20, 0, [b"k"] + [0] * 20]]]))
    assert client.reply()[3][0] in ("Unimplemented", "InvalidArgument")
    client.link.send(encode([2, 0, 0, [[1, 0]], encode([[0, 1, None, [b"k", b"v", 0, False, False, False, 1]]])]))
    code, text, _ = client.reply()[3]
    assert code == "Unimplemented"
    assert "item 7 of put" in text


def test_text_message_is_closed_with_its_code(client: Client) -> None:
    client.link.send("text")
    with pytest.raises(ConnectionClosed) as closed:
        client.link.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1003


def test_member_that_waits_to_join_can_be_stopped(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        gone = probe.getsockname()[1]
    flags = ["--name=n1", f"--data-dir={tmp_path}/data", "--listen-client-urls=http://127.0.0.1:0"]
    flags += ["--listen-peer-urls=http://127.0.0.1:0", "--initial-advertise-peer-urls=http://127.0.0.1:1"]
    flags += [f"--initial-cluster=n1=http://127.0.0.1:1,n2=http://127.0.0.1:{gone}", "--initial-cluster-state=existing"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "coord", "serve", *flags], stdout=output, stderr=output)
    give_up = time.monotonic() + 30
    while "node.arrival.waiting" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, log.read_text()
