"""`coord register` and `coord discover`, on a real node."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from . import players
from .players import SOURCE, Server, clean_environ, run_here

WAIT_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with players.node(tmp_path_factory.mktemp("registry") / "node") as server:
        yield server


@contextmanager
def running(server: Server, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "coord", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environ(PYTHONPATH=str(SOURCE), COORD_ENDPOINTS=server.endpoint),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=WAIT_S)
    return process.returncode, stderr


def said(server: Server, *words: str) -> tuple[int, str, str]:
    status, stdout, stderr = run_here(list(words), clean_environ(COORD_ENDPOINTS=server.endpoint))
    return status, stdout.decode(), stderr.decode()


def test_who_registers_is_found_until_it_ends(server: Server) -> None:
    with running(server, "register", "api", "10.0.0.5:80", "--metadata", "zone=a,version=2") as process:
        words = line(process).split()
        assert words[:3] == ["registered", "10.0.0.5:80", "as"]
        assert words[3].startswith("api/instance/")
        lease = words[3].removeprefix("api/instance/").zfill(16)
        assert said(server, "discover", "api") == (0, '10.0.0.5:80 {"zone": "a", "version": "2"}\n', "")
        instance = {
            "address": "10.0.0.5:80",
            "metadata": {"zone": "a", "version": "2"},
            "key": words[3],
            "lease": lease,
        }
        assert json.loads(said(server, "discover", "api", "-w", "json")[1]) == {"instances": [instance]}
        assert json.loads(said(server, "discover", "api", "-w", "jsonl")[1]) == instance
        assert f"| {lease} |" in said(server, "discover", "api", "-w", "table")[1]
        assert ended(process) == (0, "")
    assert said(server, "discover", "api") == (0, "", "")


def test_who_watches_sees_who_comes_and_goes(server: Server) -> None:
    watch = ("discover", "web", "--watch")
    with running(server, *watch) as plain, running(server, *watch, "-w", "jsonl") as lines:
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            with running(server, "register", "web", address, "-w", "json") as process:
                told = json.loads(line(process))
                assert (told["registered"], told["service"], told["address"]) == (True, "web", address)
                assert line(plain) == f"+ {address}\n"
                up = json.loads(line(lines))
                assert (up["type"], up["address"]) == ("UP", address)
                assert ended(process) == (0, "")
            assert line(plain) == f"- {address}\n"
            assert json.loads(line(lines)) == {"type": "DOWN", "address": address}
        assert ended(plain) == (0, "")


def test_a_check_that_fails_withdraws_the_instance(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as checked:
        where = f"127.0.0.1:{checked.getsockname()[1]}"
        flags = ("--check-tcp", where, "--check-interval=50ms")
        with running(server, "register", "checked", "10.0.0.5:80", *flags) as process:
            assert line(process).startswith("registered 10.0.0.5:80 as checked/")
            checked.close()
            assert line(process) == f"withdrawn 10.0.0.5:80: tcp://{where}: Connection refused\n"
            # It is told when the check has failed; the key goes a moment later.
            until = time.monotonic() + 5
            while said(server, "discover", "checked")[1]:
                assert time.monotonic() < until
            assert ended(process) == (0, "")


def test_a_check_over_http(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/readyz"
    with running(server, "register", "http", "10.0.0.5:80", "--check-http", url) as process:
        assert line(process).startswith("registered 10.0.0.5:80 as http/")


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["register", "api"], 128, "register takes a service and the address of an instance"),
        (["register", "api", "a", "b"], 128, "register takes a service and the address of an instance"),
        (["register", "api", "a", "--metadata", "zone"], 128, 'bad metadata "zone"'),
        (["register", "api", "a", "--check-tcp=a:1", "--check-http=http://a"], 128, "mutually exclusive"),
        (["register", "api", "a", "--check-http=ftp://a"], 128, "expected tcp://host:port or http://host:port/path"),
        (["register", "api", "a", "--ttl=0"], 128, "a TTL of 0 seconds"),
        (["register", "api/", "a"], 128, "cannot name a service"),
        (["register", "api", "a b"], 128, "is no address"),
        (["register", "api", "a", "-w", "table"], 4, "table not supported as output format"),
        (["discover"], 128, "discover takes a service"),
        (["discover", "api", "-w", "fields"], 4, "fields not supported as output format"),
        (["lock", "a", "--ttl=0"], 128, "a TTL of 0 seconds"),
        (["lock", "a", "--wait=soon"], 1, 'invalid argument "soon" for "--wait" flag'),
        (["elect", "a", "b", "--ttl=-1"], 128, "a TTL of -1 seconds"),
    ],
)
def test_what_cannot_be_asked(server: Server, words: list[str], status: int, error: str) -> None:
    got, stdout, stderr = said(server, *words)
    assert (got, stdout) == (status, "")
    assert error in stderr


def test_nobody_is_found_where_nobody_serves(server: Server) -> None:
    assert said(server, "discover", "nobody", "-w", "json") == (0, '{"instances":[]}\n', "")
