"""The guardian of `coord lock`, alone: it is told by its pipe what `coord lock` would tell it."""

from __future__ import annotations

import ast
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from coord.cli import guardian
from coord.client.clock import boot_time

WAIT_S = 10.0
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
POLITE = "trap 'echo ended; exit 3' TERM; echo ready; while :; do sleep 0.02; done"


class Care:
    """A guardian with its command; a context manager, after which nothing of it is left."""

    def __init__(self, *command: str, deadline_s: float = 60.0, grace_s: float = 0.3) -> None:
        control, self.control = os.pipe()
        self.report, report = os.pipe()
        arguments = [control, report, boot_time() + deadline_s, grace_s]
        words = [sys.executable, "-I", "-S", guardian.__file__, *map(str, arguments), *command]
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=(control, report), process_group=0
        )
        os.close(control)
        os.close(report)
        self.received = b""
        self.group = 0

    def __enter__(self) -> Care:
        self.group = self.line("began")[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        if kind is not None and self.group and is_there(self.group):
            os.killpg(self.group, signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()
        for number in (self.control, self.report):
            if number >= 0:
                os.close(number)

    def tell(self, line: str) -> None:
        os.write(self.control, line.encode() + b"\n")

    def hang_up(self) -> None:
        os.close(self.control)
        self.control = -1

    def line(self, word: str) -> list[int]:
        """Return the numbers of the next line of its report."""
        while b"\n" not in self.received:
            assert select.select([self.report], [], [], WAIT_S)[0], "no report"
            data = os.read(self.report, 4096)
            assert data, "the guardian has gone"
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        told, *numbers = line.decode().split()
        assert told == word
        return [int(number) for number in numbers]

    def ended(self) -> tuple[int, bool]:
        code, was_terminated = self.line("ended")
        assert self.process.wait(WAIT_S) == 0
        return code, bool(was_terminated)

    def said(self, text: str) -> None:
        """Wait for a line that the command prints."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline().decode().strip() == text


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_tells_how_the_command_ended() -> None:
    for script, code in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9)):
        with Care("sh", "-c", script) as care:
            assert care.ended() == (code, False)


def test_it_tells_what_cannot_be_run() -> None:
    care = Care("/nonexistent/command")
    assert care.line("failed") == [2]
    assert care.process.wait(WAIT_S) == 0
    care.__exit__(None, None, None)


def test_the_command_is_terminated_at_the_deadline() -> None:
    began = boot_time()
    with Care("sh", "-c", POLITE, deadline_s=0.8, grace_s=30) as care:
        care.said("ready")
        care.said("ended")
        assert care.ended() == (3, True)
        assert 0.8 <= boot_time() - began < 0.8 + 2


def test_what_ignores_that_is_killed_after_the_grace() -> None:
    began = boot_time()
    with Care("sh", "-c", STUBBORN, deadline_s=0.8, grace_s=0.4) as care:
        care.said("ready")
        assert care.ended() == (-signal.SIGKILL, True)
        assert 1.2 <= boot_time() - began < 1.2 + 2


def test_a_renewal_moves_the_deadline() -> None:
    with Care("sh", "-c", POLITE, deadline_s=0.5) as care:
        care.said("ready")
        # In pieces, as a pipe may bring it.
        os.write(care.control, b"unt")
        os.write(care.control, f"il {boot_time() + 60}\nsig".encode())
        time.sleep(0.7)
        assert is_there(care.group)
        os.write(care.control, b"nal 15\n")
        care.said("ended")
        assert care.ended() == (3, False)


@pytest.mark.parametrize("how", ["lost", "gone"])
def test_the_command_is_terminated_when_the_lock_is_lost_and_when_nobody_is_at_the_pipe(how: str) -> None:
    with Care("sh", "-c", STUBBORN, grace_s=0.2) as care:
        care.said("ready")
        if how == "lost":
            care.tell("lost")
        else:
            care.hang_up()
        assert care.ended() == (-signal.SIGKILL, True)


def test_what_is_stopped_is_terminated_too() -> None:
    with Care("sh", "-c", POLITE, grace_s=30) as care:
        care.said("ready")
        os.killpg(care.group, signal.SIGSTOP)
        care.hang_up()
        care.said("ended")
        assert care.ended() == (3, True)


def test_what_is_left_of_the_group_is_gone_before_the_end_is_told() -> None:
    with Care("sh", "-c", f'sh -c "{STUBBORN}" & exit 5', grace_s=0.2) as care:
        assert care.ended() == (5, False)
        assert not is_there(care.group)


def test_nobody_ends_the_guardian_by_the_signals_of_a_terminal() -> None:
    with Care("sh", "-c", POLITE) as care:
        care.said("ready")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            care.process.send_signal(number)
        assert os.getpgid(care.process.pid) != care.group
        care.tell("signal 15")
        assert care.ended() == (3, False)


def test_the_command_begins_as_a_shell_would_run_it() -> None:
    """No input, no file open that others wait to see closed, and signals as they were before Python ignored some."""
    script = (
        "import os, sys\n"
        "assert os.getpgrp() == os.getpid()\n"
        "assert sys.stdin.read() == ''\n"
        "for number in range(3, 64):\n"
        "    try: os.fstat(number)\n"
        "    except OSError: continue\n"
        "    raise AssertionError(number)\n"
    )
    with Care(sys.executable, "-c", script) as care:
        assert care.ended() == (0, False)
    with Care("sh", "-c", "kill -PIPE $$; exit 9") as care:
        assert care.ended() == (-signal.SIGPIPE, False)


def imports(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_it_imports_nothing_that_takes_time() -> None:
    assert set(imports(guardian.__file__)) <= {"__future__", "os", "select", "signal", "sys", "time"}
