"""What others see of a node's process: systemd, health checks, logs, a second process, a client that never reads."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crc32c import crc32c

import coord
from coord.codec import decode, encode
from coord.limits import MIB

from .cluster import STOP_TIMEOUT_S, NodeProcess

READ_TIMEOUT_S = 10.0


def refusal(node: NodeProcess, *flags: str) -> str:
    """Start a node that must refuse; return the reason that its log gives."""
    process = node.spawn(*flags)
    assert process.wait(20) == 1
    (failed,) = node.events("node.process.failed")
    return str(failed["error"])


def test_a_second_process_on_a_data_directory_is_refused(node: NodeProcess, tmp_path: Path) -> None:
    node.start()
    other = tmp_path / "other"
    other.mkdir()
    second = NodeProcess(other)
    (other / "data").symlink_to(node.data)
    assert f"is in use by process {node.pid}: stop it, or choose another data directory" in refusal(second)
    with coord.connect_sync(node.endpoint) as client:
        client.put("a", b"1")
    assert node.terminate() == 0


def test_a_data_directory_of_another_member_cluster_or_release_is_refused(node: NodeProcess) -> None:
    node.start()
    assert node.terminate() == 0

    node.name = "n2"
    assert "set --name and the peer URLs as they were" in refusal(node)
    node.name = "n1"
    assert "set --initial-cluster-token as it was" in refusal(node, "--initial-cluster-token=other")

    identity = node.data / "identity"
    before = identity.read_bytes()
    payload = encode([decode(before[4:])[0] + 1, *decode(before[4:])[1:]])
    identity.write_bytes(crc32c(payload).to_bytes(4, "big") + payload)
    assert "upgrade first" in refusal(node)
    identity.write_bytes(before[:-1])
    assert "is not what was written" in refusal(node)

    identity.write_bytes(before)
    node.start()


def test_a_port_in_use_is_named(node: NodeProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node.client_port = taken.getsockname()[1]
        assert f"cannot listen on http://127.0.0.1:{node.client_port}: Address already in use" in refusal(node)


@contextmanager
def service_manager(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(READ_TIMEOUT_S)
        yield manager


def test_systemd_hears_ready_watchdog_and_stopping(node: NodeProcess) -> None:
    # A socket's path is short; a test's directory may not be.
    path = Path(f"/tmp/coord-notify-{os.getpid()}")
    try:
        with service_manager(path) as manager:
            node.start(environ={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"})
            told: list[str] = []
            deadline = time.monotonic() + READ_TIMEOUT_S
            while told.count("WATCHDOG=1") < 3:
                assert time.monotonic() < deadline, told
                told += manager.recv(4096).decode().splitlines()
            assert node.terminate() == 0
            while "STOPPING=1" not in told:
                told += manager.recv(4096).decode().splitlines()
    finally:
        path.unlink(missing_ok=True)
    ready, watchdog, stopping = (told.index(what) for what in ("READY=1", "WATCHDOG=1", "STOPPING=1"))
    assert ready < stopping
    assert watchdog < stopping
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in told[:ready]), "a long start is no hang"
    assert told[ready + 1].startswith("STATUS=leader term=1 commit=")
    assert told[-1] == "STATUS=stopping after SIGTERM"


def test_pages_over_http(node: NodeProcess) -> None:
    node.start()
    with coord.connect_sync(node.endpoint) as client:
        client.put("a", b"1")
        client.put("b", b"1")
        assert node.http("/livez") == (200, "ok\n")
        status, checks = node.http("/readyz?verbose")
        assert status == 200
        assert "[+]linearizable_read ok\n" in checks
        assert json.loads(node.http("/version")[1])["coordserver"] == coord.__version__
        assert node.http("/nothing")[0] == 404
        status, page = node.http("/metrics")
    assert status == 200
    samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    found = {name.rpartition("coord_")[2]: float(value) for name, value in samples.items()}
    assert found["mvcc_put_total"] == 2
    assert found["mvcc_keys_total"] == 2
    assert found["mvcc_current_revision"] == 3
    assert found["server_has_leader"] == 1
    assert found["client_connections"] == 1


def private_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Private_"))


def masked(payload: bytes) -> bytes:
    """Return a binary WebSocket message as a client sends it; a mask of zeros is one."""
    assert len(payload) < 126
    return bytes([0x82, 0x80 | len(payload)]) + bytes(4) + payload


def write_much(client: coord.BlockingClient) -> float:
    """Write 120 MB to ten keys; return how long the slowest write took."""
    slowest_s = 0.0
    for number in range(600):
        started = time.monotonic()
        client.put(f"big/{number % 10}", bytes(200_000))
        slowest_s = max(slowest_s, time.monotonic() - started)
    return slowest_s


def test_a_client_that_never_reads_costs_bounded_memory_and_holds_up_nobody(node: NodeProcess) -> None:
    node.start("--quota-backend-bytes=0")
    with socket.socket() as deaf, coord.connect_sync(node.endpoint) as client:
        write_much(client)
        before = private_bytes(node.pid)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", node.client_port))
        deaf.sendall(
            f"GET / HTTP/1.1\r\nHost: {node.endpoint}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: coord.v1\r\n\r\n".encode()
        )
        for number in range(20):
            deaf.sendall(masked(encode([1, [[number + 1, 30, 5000, [b"\0", b"\0", 0, number]]]])))
        slowest_s = write_much(client)
        # What is written for 20 watches must not wait in memory for one who does not read.
        grown = private_bytes(node.pid) - before
        assert grown < 80 * MIB, grown / MIB
        assert slowest_s < 2.0
        assert node.http("/readyz")[0] == 200
    assert node.events("watch.client.lagging")
    assert node.terminate() == 0


def test_a_half_open_handshake_and_garbage_end_alone(node: NodeProcess) -> None:
    node.start()
    with socket.create_connection(("127.0.0.1", node.client_port)) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\nHost: ")
        with socket.create_connection(("127.0.0.1", node.client_port)) as stranger:
            stranger.settimeout(READ_TIMEOUT_S)
            stranger.sendall(b"\x16\x03\x01" + bytes(100) + b"\r\n\r\n")
            assert stranger.recv(100)[:12] in (b"HTTP/1.1 400", b"")
        with coord.connect_sync(node.endpoint) as client:
            client.put("a", b"1")
        started = time.monotonic()
        assert node.terminate() == 0
        assert time.monotonic() - started < STOP_TIMEOUT_S


@pytest.mark.parametrize("level", ["debug", "warn"])
def test_the_log_of_a_whole_life(node: NodeProcess, level: str) -> None:
    """Who it is, what it found, how it became the leader, and how it ended; nothing of it unknown or untyped."""
    node.start(f"--log-level={level}")
    with coord.connect_sync(node.endpoint) as client:
        revision = client.put("a", b"1")
        client.compact(revision, physical=True)
        client.lease_grant(5)
    assert node.terminate() == 0
    lines = node.log()
    if level == "warn":
        assert [line for line in lines if line["level"] in ("debug", "info")] == []
        return
    expected = [
        "node.process.started", "config.options.loaded", "node.identity.created", "node.identity.loaded",
        "wal.log.recovered", "store.environment.opened", "store.state.loaded", "raft.election.started",
        "raft.election.won", "cluster.identity.created", "lease.clock.started", "client.listener.opened",
        "node.service.ready", "client.connection.opened", "store.compaction.started", "store.compaction.finished",
        "node.shutdown.started", "node.shutdown.finished",
    ]  # fmt: skip
    names = iter([line["event"] for line in lines])
    assert all(name in names for name in expected), f"not in this order: {[line['event'] for line in lines]}"
    # The client's end and the signal race for the node.
    assert "client.connection.closed" in [line["event"] for line in lines]
    assert lines[-1]["cluster"] != "0"
    assert (lines[-1]["term"], lines[-1]["role"]) == (1, "leader")
