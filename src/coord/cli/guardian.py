"""The guardian of `coord lock`: a process that runs the command, and ends it when it must not go on.

It stands beside `coord lock` because a process that was killed, or stopped for longer than its TTL, ends nobody. Its
pipe tells it that `coord lock` has gone, and its clock that no renewal was acknowledged in time. It is the parent of
the command, so that the number of the process group it kills cannot have become somebody else's.

It is started as a script, by its path and without site-packages, so that it is there within milliseconds and stays
small: it imports nothing but what is built in.

The control pipe brings lines: `until <deadline>`, `signal <number>`, `lost`. The report pipe takes lines:
`began <pid>` or `failed <errno>`, and then `ended <exit code> <1 if the group was terminated>`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

# S24: counted as the lease is, the time while the machine was suspended included.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_LOOK_S = 0.25
"""`select` does not count that time, and so looks again this often."""
_REST_S = 0.01
_SHRUGGED_OFF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTOU)
"""What a terminal, or whoever ends all processes of a user's session, sends to the guardian too."""


class Guardian:
    """Runs one command in a process group of its own.

    The group is sent SIGTERM at `deadline`, and SIGKILL `grace_s` later; so it is when the control pipe closes.
    """

    def __init__(self, control: int, report: int, deadline: float, grace_s: float) -> None:
        self._control = control
        self._report = report
        self._deadline = deadline
        self._grace_s = grace_s
        self._kill_at: float | None = None
        self._is_alone = False
        """`coord lock` has gone."""
        self._group = 0
        self._received = b""

    def run(self, command: list[str]) -> None:
        """Run the command to its end."""
        woken = self._listen_to_signals()
        try:
            self._group = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                setpgroup=0,
                # Python ignores these, and who is ignored stays so in the command.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            self._tell(f"failed {error.errno}")
            return
        self._tell(f"began {self._group}")
        while not self._has_ended():
            self._keep_time()
            waiting = [woken] if self._is_alone else [woken, self._control]
            ready, _, _ = select.select(waiting, [], [], self._pause_s())
            if woken in ready:
                os.read(woken, 4096)
            if self._control in ready:
                self._take(os.read(self._control, 4096))
        self._end_the_rest()

    def _listen_to_signals(self) -> int:
        """Have signals do no more than to wake; return the pipe that tells of them."""
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        for number in (*_SHRUGGED_OFF, signal.SIGCHLD):
            # By a handler, which the command does not inherit; what was ignored before stays so for the command.
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:
                signal.signal(number, lambda *_: None)
        return woken

    def _keep_time(self) -> None:
        now = time.clock_gettime(_CLOCK)
        if self._kill_at is None:
            if now >= self._deadline:
                self._terminate()
        elif now >= self._kill_at:
            self._kill(signal.SIGKILL)

    def _pause_s(self) -> float:
        until = self._deadline if self._kill_at is None else self._kill_at
        return min(max(until - time.clock_gettime(_CLOCK), _REST_S), _LOOK_S)

    def _take(self, data: bytes) -> None:
        if not data:
            self._is_alone = True
            self._terminate()
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            word, _, text = line.partition(b" ")
            if word == b"until":
                self._deadline = float(text)
            elif word == b"signal":
                self._kill(int(text))
            else:
                self._terminate()

    def _terminate(self) -> None:
        if self._kill_at is None:
            self._kill_at = time.clock_gettime(_CLOCK) + self._grace_s
            self._kill(signal.SIGTERM)
            # What is stopped could not take the SIGTERM.
            self._kill(signal.SIGCONT)

    def _kill(self, number: int) -> bool:
        """Send a signal to the group; return whether somebody is left in it."""
        try:
            os.killpg(self._group, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _has_ended(self) -> bool:
        # Not reaped: as long as it is a zombie, its number is the group's and nobody else's.
        return os.waitid(os.P_PID, self._group, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _end_the_rest(self) -> None:
        """Terminate what is left of the group, and then tell: the lock is released when nobody works under it."""
        was_terminated = self._kill_at is not None
        self._terminate()
        _, status = os.waitpid(self._group, 0)
        while self._kill(0):
            self._keep_time()
            time.sleep(_REST_S)
        self._tell(f"ended {os.waitstatus_to_exitcode(status)} {int(was_terminated)}")

    def _tell(self, line: str) -> None:
        try:
            os.write(self._report, line.encode() + b"\n")
        except BrokenPipeError:
            return  # `coord lock` has gone, which is why the group ends


def main(arguments: list[str]) -> None:
    """Run with `<control> <report> <deadline> <grace> <command> …`, the first two as numbers of open files."""
    control, report = int(arguments[0]), int(arguments[1])
    for number in (control, report):
        os.set_inheritable(number, False)
    Guardian(control, report, float(arguments[2]), float(arguments[3])).run(arguments[4:])


if __name__ == "__main__":
    main(sys.argv[1:])
