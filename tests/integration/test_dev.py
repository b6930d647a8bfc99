"""`coord dev` on a real terminal: kill the leader, see an election, bring it back; and without one, plain lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import coord
from coord.cli.dev_cluster import PORT_STEP

WAIT_S = 60.0
ESCAPE = re.compile(r"\x1b\[[0-9;]*[mK]")


def free_base() -> int:
    """Return a port for n1 of which all nine that follow from it are free; no other test has any of them."""
    for base in range(11_000 + os.getpid() % 500 * 10, 20_000, 10):
        ports = [base + node * PORT_STEP + offset for node in range(3) for offset in range(3)]
        try:
            for port in ports:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


class Terminal:
    """`coord dev` on a terminal of its own."""

    def __init__(self, directory: Path) -> None:
        self.port = free_base()
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        command = [sys.executable, "-m", "coord", "dev", f"--port={self.port}", f"--data-dir={directory / 'data'}"]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, process_group=0)
        self.screen = ""

    @property
    def endpoints(self) -> str:
        return ",".join(f"127.0.0.1:{self.port + node * PORT_STEP}" for node in range(3))

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait until `pattern` is on the screen, behind its first `after` characters."""
        deadline = time.monotonic() + WAIT_S
        while not (found := re.compile(pattern).search(self.screen, after)):
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no {pattern!r} in:\n{self.screen[after:]}"
            if select.select([self.master], [], [], left_s)[0]:
                try:
                    self.screen += ESCAPE.sub("", os.read(self.master, 65536).decode("utf-8", "replace"))
                except OSError:
                    raise AssertionError(f"it has ended before {pattern!r}:\n{self.screen[after:]}") from None
        return found

    def wait_end(self) -> None:
        """Wait until it has ended in order."""
        deadline = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            # Who prints to a terminal that nobody reads waits for ever.
            assert time.monotonic() < deadline, self.screen[-3000:]
            if select.select([self.master], [], [], 0.05)[0]:
                self.screen += ESCAPE.sub("", os.read(self.master, 65536).decode("utf-8", "replace"))
        assert self.process.returncode == 0, self.screen[-3000:]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_newcomer_sees_an_election(terminal: Terminal) -> None:
    terminal.wait_for("3 nodes serve")
    leader = terminal.wait_for(r"leader (n[123]) term")[1]
    with coord.connect_sync(terminal.endpoints, timeout=10) as client:
        client.put("greeting", b"hello")

        mark = len(terminal.screen)
        terminal.press(leader[1] + "k")
        new = terminal.wait_for(r"(n[123])  is leader now", mark)[1]
        assert new != leader
        terminal.wait_for(rf"leader {new} term .*{leader} dead", mark)
        client.put("greeting", b"hello again")

        mark = len(terminal.screen)
        terminal.press("r")
        terminal.wait_for(rf"{leader} follower rev", mark)
        terminal.press("p")
        terminal.wait_for(rf"{leader} paused", mark)
        terminal.press("rc")
        terminal.wait_for(rf"{leader} [\w ]+ cut off", mark)
        terminal.press("c")
        terminal.wait_for(rf"{leader} (follower|leader) rev \d+ ", len(terminal.screen))
        found = client.get("greeting")
        assert found is not None
        assert found.value == b"hello again"

    terminal.press("q")
    terminal.wait_end()
    assert termios.tcgetattr(terminal.slave) == terminal.before, "the terminal is as it was"


def test_a_cut_off_leader_is_replaced(terminal: Terminal) -> None:
    leader = terminal.wait_for(r"leader (n[123]) term")[1]
    terminal.wait_for("3 nodes serve")
    mark = len(terminal.screen)
    terminal.press(leader[1] + "c")
    new = terminal.wait_for(r"(n[123])  is leader now", mark)[1]
    assert new != leader
    terminal.press("r")
    terminal.wait_for(rf"{leader} follower rev", mark)
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_end()


def test_without_a_terminal_it_prints_plain_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coord", "dev", f"--port={free_base()}", f"--data-dir={tmp_path / 'data'}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0, text=True
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "ends all of them in order" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    text = "".join(printed)
    assert "\x1b" not in text
    assert "export COORD_ENDPOINTS=" in text
    assert all(f"{name}  has stopped in order" in text for name in ("n1", "n2", "n3"))


def test_ports_in_use_are_named(tmp_path: Path) -> None:
    base = free_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + PORT_STEP))
        taken.listen()
        ended = subprocess.run(
            [sys.executable, "-m", "coord", "dev", f"--port={base}", f"--data-dir={tmp_path / 'data'}"],
            capture_output=True, text=True, check=False, timeout=WAIT_S,
        )  # fmt: skip
    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{base + PORT_STEP}" in ended.stderr
    assert "--port" in ended.stderr
