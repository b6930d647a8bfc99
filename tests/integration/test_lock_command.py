"""`coord lock` as a process: whatever becomes of it, its command does not outlive the lock."""

# ruff: noqa: SIM117  # blocks stand inside each other as the locks do

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import coord
from coord.client.blocking import BlockingClient

from .cluster import NodeProcess
from .processes import until

WAIT_S = 20.0
TTL_S = 2
STUBBORN = "trap 'echo asked' TERM; echo $$; while :; do sleep 0.02; done"
POLITE = "trap 'echo ended; exit 3' TERM; trap 'exit 4' INT; trap 'exit 5' HUP; echo $$; while :; do sleep 0.02; done"

IN_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))  # which makes it the session's
os.execv(sys.executable, [sys.executable, "-m", "coord", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path_factory.mktemp("lock"))
    try:
        node.start()
        yield node
        assert node.terminate() == 0
        node.log()
    finally:
        node.cleanup()


@pytest.fixture
def client(node: NodeProcess) -> Iterator[BlockingClient]:
    with coord.connect_sync(node.endpoint) as client:
        yield client


class Running:
    """`coord lock` in a process; a context manager, after which neither it nor its command is left."""

    def __init__(self, node: NodeProcess, *words: str, terminal: int | None = None) -> None:
        environ = {**os.environ, "COORD_ENDPOINTS": node.endpoint}
        python = [sys.executable, "-m", "coord"] if terminal is None else [sys.executable, "-c", IN_TERMINAL]
        self.process = subprocess.Popen(
            [*python, "lock", *words],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            start_new_session=terminal is not None,
        )
        self.command = 0

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        if self.command and is_there(self.command):
            os.kill(self.command, signal.SIGKILL)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begun(self) -> int:
        """Wait until the command has said its number."""
        self.command = int(self.line())
        return self.command

    def ended(self) -> tuple[int, str]:
        """Wait until it ends; return the exit status and what it said of it."""
        _, stderr = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, stderr


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def command(script: str) -> Sequence[str]:
    return ("--", "sh", "-c", script)


def contenders(client: BlockingClient, name: str) -> list[bytes]:
    return [kv.key for kv in client.range(f"{name}/", prefix=True)]


def lock_line(name: str) -> list[str]:
    return [name, f"--ttl={TTL_S}"]


def test_the_command_knows_key_and_token(node: NodeProcess, client: BlockingClient) -> None:
    with Running(node, "env", *command('echo "$COORD_LOCK_KEY $COORD_LOCK_REV"; read line')) as running:
        key, token = running.line().split()
        assert key.startswith("env/")
        assert int(token) > 0
        assert running.ended() == (1, "")  # of `read`: nothing to be read
    assert contenders(client, "env") == []


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_status_is_the_commands(node: NodeProcess, script: str, status: int) -> None:
    with Running(node, "status", *command(script)) as running:
        assert running.ended() == (status, "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 3), (signal.SIGINT, 4), (signal.SIGHUP, 5)])
def test_signals_are_passed_on(node: NodeProcess, client: BlockingClient, number: int, status: int) -> None:
    # What a process was told to ignore, as `nohup` tells it, no trap of its command can take.
    ours = signal.signal(number, signal.SIG_DFL)
    try:
        running = Running(node, "signals", *command(POLITE))
    finally:
        signal.signal(number, ours)
    with running:
        running.begun()
        running.process.send_signal(number)
        assert running.ended()[0] == status
    assert contenders(client, "signals") == []


def test_a_terminal_interrupts_the_command_by_way_of_coord_lock(node: NodeProcess) -> None:
    ours, theirs = pty.openpty()
    try:
        with Running(node, "terminal", *command(POLITE), terminal=theirs) as running:
            running.begun()
            os.write(ours, b"\x03")
            assert running.ended() == (4, "")
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_command_ends_when_coord_lock_is_killed(node: NodeProcess, client: BlockingClient) -> None:
    with Running(node, *lock_line("killed"), *command(STUBBORN)) as first:
        process = first.begun()
        first.process.kill()
        with client.session() as session, session.lock("killed", wait=WAIT_S):
            assert not is_there(process)
        assert first.line() == "asked"


def test_the_command_ends_before_the_lease_when_coord_lock_is_stopped(
    node: NodeProcess, client: BlockingClient
) -> None:
    """It renews nothing while it is stopped, and cannot end its command: its guardian knows the deadline."""
    with Running(node, *lock_line("stopped"), *command(STUBBORN)) as first:
        process = first.begun()
        time.sleep(TTL_S)  # not the first lease's deadline, but one that a renewal has moved
        assert is_there(process)
        first.process.send_signal(signal.SIGSTOP)
        with client.session() as session, session.lock("stopped", wait=WAIT_S):
            assert not is_there(process)
        assert first.line() == "asked"
        first.process.send_signal(signal.SIGCONT)
        status, said = first.ended()
        assert status == 128 + signal.SIGKILL
        assert "lock 'stopped' is lost" in said


def test_the_command_ends_when_the_lock_is_lost(node: NodeProcess, client: BlockingClient) -> None:
    with Running(node, "lost", "--ttl=60", *command(POLITE)) as running:
        process = running.begun()
        (key,) = contenders(client, "lost")
        client.delete(key)
        began = time.monotonic()
        assert running.line() == "ended"
        assert time.monotonic() - began < WAIT_S, "it is told at once, not when the lease would have ended"
        status, said = running.ended()
        assert status == 3
        assert said.endswith("Error: lock 'lost' is lost: its key was deleted\n")
        assert not is_there(process)


def test_a_command_that_ended_well_when_the_lock_was_lost_is_no_success(
    node: NodeProcess, client: BlockingClient
) -> None:
    script = "trap 'exit 0' TERM; echo $$; while :; do sleep 0.02; done"
    with Running(node, *lock_line("late"), *command(script)) as running:
        running.begun()
        client.delete(contenders(client, "late")[0])
        assert running.ended()[0] == 1


def test_the_command_is_killed_with_its_guardian(node: NodeProcess) -> None:
    with Running(node, *lock_line("orphan"), *command(STUBBORN)) as running:
        process = running.begun()
        found = subprocess.run(["ps", "-o", "ppid=", "-p", str(process)], capture_output=True, text=True, check=True)
        guardian = int(found.stdout)
        assert os.getpgid(guardian) not in (os.getpgid(running.process.pid), process)
        os.kill(guardian, signal.SIGKILL)
        status, said = running.ended()
        assert status == 1
        assert said.endswith('Error: the guardian of "sh" has gone, and so it was killed\n')
        until(lambda: not is_there(process), WAIT_S, "the command is gone")


def test_without_a_command_it_is_held_until_a_signal(node: NodeProcess, client: BlockingClient) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with Running(node, "held") as running:
            key = running.line()
            assert contenders(client, "held") == [key.encode()]
            running.process.send_signal(number)
            assert running.ended() == (0, "")
            assert contenders(client, "held") == []


def test_who_is_interrupted_while_waiting_leaves_no_key(node: NodeProcess, client: BlockingClient) -> None:
    with client.session() as session, session.lock("busy") as lock:
        with Running(node, "busy", *command("echo never")) as running:
            until(lambda: len(contenders(client, "busy")) == 2, WAIT_S, "it waits")
            running.process.send_signal(signal.SIGTERM)
            status, said = running.ended()
            assert (status, said.splitlines()[0]) == (1, "Error: context canceled")
            assert contenders(client, "busy") == [lock.key]


def test_who_waits_for_nobody_is_told_who_has_it(node: NodeProcess, client: BlockingClient) -> None:
    with client.session() as session, session.lock("taken", value=b"host 7"):
        with Running(node, "taken", "--wait=0", *command("echo never")) as running:
            status, said = running.ended()
            assert status == 1
            assert said.startswith("Error: lock 'taken' was not acquired within 0 s: taken/")
            assert said.rstrip().endswith("has it, b'host 7'")


def test_a_signal_that_comes_before_the_command_is_passed_on_too(
    node: NodeProcess, client: BlockingClient, tmp_path: Path
) -> None:
    """Whenever it comes, the lock is not given back before the command has ended, if it ever began."""
    marks = tmp_path / "marks"
    marks.touch()
    script = f"echo $$ >> {marks}; trap 'exit 3' TERM; while :; do sleep 0.02; done"
    for number in range(12):
        with Running(node, "early", *command(script)) as running:
            until(lambda: contenders(client, "early"), WAIT_S, "it has the lock")
            time.sleep(0.006 * number)
            running.process.send_signal(signal.SIGTERM)
            status, _ = running.ended()
            # 143: before the shell had set its trap; 1: no command had begun.
            assert status in (3, 143, 1)
            assert not any(is_there(int(line)) for line in marks.read_text().split())
    assert contenders(client, "early") == []
