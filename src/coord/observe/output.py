"""Where log lines go: a descriptor whose reader may be slow, stuck or gone."""

from __future__ import annotations

import os
import select
from typing import Final, Protocol

BACKLOG_BYTES_MAX: Final = 1024 * 1024
_PIECE_BYTES: Final = 4096
"""A pipe that polls as writable takes this much at once (PIPE_BUF)."""


class Output(Protocol):
    """Takes whole lines, without their ends, and never waits."""

    dropped: int
    """Lines lost since someone last set this to 0."""

    def write(self, line: bytes | str) -> None:
        """Write a line, now or later, or count it as dropped."""

    def pump(self, timeout_s: float = 0.0) -> bool:
        """Write what waits, as far as the reader takes it; True if nothing waits any more."""


class DescriptorOutput:
    """Lines to a file, pipe or terminal, never waiting for its reader.

    A journal that is stuck, or a terminal stopped by Ctrl-S, would hold up a blocking write for ever, and
    with it the loop: the node would look alive and serve nobody. So the descriptor is asked before each
    write; lines that it does not take wait in memory, and beyond `BACKLOG_BYTES_MAX` they are dropped and
    counted. (O_NONBLOCK would be simpler, but the flag belongs to the terminal that the shell shares.)
    """

    def __init__(self, descriptor: int, backlog_bytes_max: int = BACKLOG_BYTES_MAX) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._backlog = bytearray()
        self._backlog_bytes_max = backlog_bytes_max
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, line: bytes | str) -> None:
        """Write a line, now or later, or count it as dropped."""
        data = line.encode() if isinstance(line, str) else line
        if len(self._backlog) + len(data) >= self._backlog_bytes_max:
            self.pump()
        if len(self._backlog) + len(data) >= self._backlog_bytes_max:
            self.dropped += 1
            return
        self._backlog += data
        self._backlog += b"\n"
        self.pump()

    def pump(self, timeout_s: float = 0.0) -> bool:
        """Write what waits, as far as the reader takes it; True if nothing waits any more.

        The reader gets `timeout_s` for each piece; more than 0 is for the end of the process.
        """
        while self._backlog:
            if not self._poll.poll(int(timeout_s * 1000)):
                return False
            try:
                written = os.write(self._descriptor, self._backlog[:_PIECE_BYTES])
            except BlockingIOError:
                return False
            except OSError:
                # The reader is gone. A node does not end because nobody reads its log.
                self.dropped += self._backlog.count(b"\n")
                self._backlog.clear()
                return True
            del self._backlog[:written]
        return True


class MemoryOutput:
    """Lines kept in a list, for tests."""

    def __init__(self) -> None:
        self.dropped = 0
        self.lines: list[bytes] = []

    def write(self, line: bytes | str) -> None:
        """Keep the line."""
        self.lines.append(line.encode() if isinstance(line, str) else line)

    def pump(self, timeout_s: float = 0.0) -> bool:
        """Nothing ever waits here."""
        return True
