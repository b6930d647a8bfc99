"""sd_notify, spoken to a socket of ours."""

import os
import socket

import pytest

from coord.observe.sdnotify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = str(tmp_path / "notify") if request.param == "path" else f"@coord-test-{os.getpid()}"
    server.bind("\0" + name[1:] if name.startswith("@") else name)
    server.settimeout(5)
    with server:
        yield server, name


def test_what_is_said(manager) -> None:
    server, name = manager
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    notifier = Notifier.from_environ(environ)
    assert environ == {"A": "b"}, "a child must not speak for this process"
    assert notifier.watchdog_interval_s == 5.0
    notifier.extend_timeout(30)
    notifier.ready("leader\nterm=7")
    notifier.status("following")
    notifier.watchdog()
    notifier.stopping("asked to")
    said = [server.recv(4096).decode() for _ in range(5)]
    notifier.close()
    assert said == [
        "EXTEND_TIMEOUT_USEC=30000000",
        "READY=1\nSTATUS=leader term=7",
        "STATUS=following",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=asked to",
    ]


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier.from_environ({})
    notifier.ready("up")
    assert notifier.watchdog_interval_s is None
    notifier.close()


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    environ = {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}
    assert Notifier.from_environ(environ).watchdog_interval_s is None


def test_a_manager_that_has_gone_stops_nothing(tmp_path) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    notifier.ready("up")
    notifier.close()
    notifier.watchdog()
