"""The terminal of `coord dev`: lines that scroll above one that stays, and single keys. Plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

_CLEAR_LINE: Final = "\r\x1b[K"
_KEYS_AT_ONCE: Final = 64
COLUMNS_DEFAULT: Final = 80
"""Of a terminal that does not know how wide it is."""


class Screen:
    """Standard output and input.

    `status` gives the line at the bottom for a width in columns. Without a terminal there is neither such a line nor a
    key, and each line is written as it comes.
    """

    def __init__(self, status: Callable[[int, bool], str]) -> None:
        self.is_terminal = sys.stdout.isatty() and sys.stdin.isatty()
        self.is_colored = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._status = status
        self._shown = ""

    def tell(self, text: str) -> None:
        """Write one line or several, above the status."""
        if not self.is_terminal:
            print(text, flush=True)
            return
        sys.stdout.write(f"{_CLEAR_LINE}{text}\n{self._shown}")
        sys.stdout.flush()

    def refresh(self) -> None:
        """Write the status anew, if it changed."""
        if not self.is_terminal:
            return
        status = self._status(os.get_terminal_size(sys.stdout.fileno()).columns or COLUMNS_DEFAULT, self.is_colored)
        if status != self._shown:
            self._shown = status
            sys.stdout.write(_CLEAR_LINE + status)
            sys.stdout.flush()

    @contextmanager
    def keys_come_singly(self) -> Iterator[None]:
        """Have the terminal give each key at once and print none; afterwards it is as it was.

        Ctrl-C still interrupts.
        """
        if not self.is_terminal:
            yield
            return
        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
            sys.stdout.write(_CLEAR_LINE)
            sys.stdout.flush()

    async def keys(self) -> AsyncIterator[str]:
        """Yield each key; nothing, for ever, without a terminal."""
        if not self.is_terminal:
            await trio.sleep_forever()
        descriptor = sys.stdin.fileno()
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            data = os.read(descriptor, _KEYS_AT_ONCE)
            if not data:
                return
            for key in data.decode("utf-8", "replace"):
                yield key
