"""Running a command under a lock, in the care of a guardian."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from coord.cli import guardian
from coord.cli.failure import CommandError
from coord.cli.quoting import quote
from coord.client.recipes.blocking_ownership import BlockingLock
from coord.client.recipes.tenure import Tenure, margin_s

_KILL_SHARE: Final = 0.8
"""Of the margin, what is left to the command between SIGTERM and SIGKILL; the rest is for the kill to arrive."""
_LOOK_SHARE: Final = 12
"""The guardian hears within this share of a TTL that the lease was renewed."""
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@frozen
class Ended:
    """How a command ended: `exit_code` is negative if by a signal; `was_terminated` by its guardian."""

    exit_code: int
    was_terminated: bool

    @property
    def status(self) -> int:
        """The exit status, as a shell tells it."""
        return self.exit_code if self.exit_code >= 0 else 128 - self.exit_code


def cannot_run(command: Sequence[str], error_number: int = 0) -> CommandError:
    """Return the failure of a command that cannot be run, in etcdctl's words."""
    why = os.strerror(error_number).lower() if error_number else "executable file not found in $PATH"
    return CommandError(f"exec: {quote(command[0])}: {why}")


def check_that_it_is_there(command: Sequence[str]) -> None:
    """Raise `CommandError` if there is no such command, so that nobody waits for a lock in vain."""
    if which(command[0]) is not None:
        return
    if os.sep not in command[0]:
        raise cannot_run(command)
    try:
        Path(command[0]).stat()
    except OSError as error:
        raise cannot_run(command, error.errno or 0) from error
    raise CommandError(f"exec: {quote(command[0])}: permission denied")


class Guarded:
    """A command that runs while a lock is held; a context manager, whose end is the end of the command.

    Its process group is terminated when the lock is lost, at the local deadline of its lease (S24) by a guardian that
    needs this process for nothing.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], lock: BlockingLock, tenure: Tenure) -> None:
        self._command = command
        self._environ = environ
        self._lock = lock
        self._tenure = tenure
        self._told = tenure.deadline
        self._guardians_end, self._control = os.pipe()
        self._group = 0
        self._ended: Ended | None = None
        self._is_over = False
        self._telling = threading.RLock()  # a signal may come while its own thread tells something

    def __enter__(self) -> Self:
        self._report, report = os.pipe()
        grace_s = margin_s(self._tenure.ttl_s) * _KILL_SHARE
        arguments = [self._guardians_end, report, self._told, grace_s]
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, *map(str, arguments), *self._command],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            pass_fds=(self._guardians_end, report),
            # Neither in the group of the command, nor in that which a terminal interrupts.
            process_group=0,
        )
        os.close(self._guardians_end)
        os.close(report)
        threading.Thread(target=self._feed, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell("lost")
        with suppress(CommandError):
            self.wait()
        self._guardian.wait()
        with self._telling:
            self._is_over = True
            os.close(self._control)
            os.close(self._report)

    def wait(self) -> Ended:
        """Wait for the end of the command. Raises `CommandError` if it could not be run."""
        if self._ended is not None:
            return self._ended
        with os.fdopen(self._report, "rb", closefd=False) as report:
            for line in report:
                word, *numbers = line.split()
                if word == b"failed":
                    raise cannot_run(self._command, int(numbers[0]))
                if word == b"began":
                    self._group = int(numbers[0])
                else:
                    self._ended = Ended(int(numbers[0]), numbers[1] == b"1")
                    return self._ended
        # Somebody has killed the guardian: what it cared for must not go on without one.
        if self._group:
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
        raise CommandError(f"the guardian of {quote(self._command[0])} has gone, and so it was killed")

    @contextmanager
    def passing_on_signals(self) -> Iterator[None]:
        """Pass on what this process is sent, while the block runs; what is ignored stays so.

        The command begins inside of it: what comes before that waits in the pipe, and raises nothing half-way.
        """
        before = {number: signal.getsignal(number) for number in _PASSED_ON}
        passed = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in passed:
            signal.signal(number, lambda received, _: self._tell(f"signal {received}"))
        try:
            yield
        finally:
            for number in passed:
                signal.signal(number, before[number])

    def _feed(self) -> None:
        """Tell the guardian the deadlines, until the lock is lost or released."""
        while not self._lock.lost.wait(self._tenure.ttl_s / _LOOK_SHARE):
            if self._tenure.deadline != self._told:
                self._told = self._tenure.deadline
                self._tell(f"until {self._told}")
        self._tell("lost")

    def _tell(self, line: str) -> None:
        with self._telling, suppress(BrokenPipeError):
            if not self._is_over:
                os.write(self._control, line.encode() + b"\n")
