"""What `coord lock`, `elect` and `register` share: they hold something until they are told to let go of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from coord.cli.failure import CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, int_value

TTL: Final = Flag("ttl", "Seconds after which others go on without us if we die.", 10, int_value, "SECONDS")
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Ctrl-C, or another signal that ends a process. Not an `Exception`: nobody goes on after it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at the first signal that asks this process to end; ignore those that follow.

    What comes then is the clean-up, which is quick, and which half done would leave others waiting for a TTL.
    """
    is_ending = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            raise Interrupted

    before = {number: signal.getsignal(number) for number in _ENDING}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def interrupted_waiting() -> CommandError:
    """Return the failure of a command that was told to end before it held anything; etcdctl's text."""
    return CommandError("context canceled", hint="interrupted while waiting")


def ttl_of(line: Parsed) -> int:
    """Return the TTL that a line gives, in seconds. Raises `CommandError`."""
    ttl_s = line.number("ttl")
    if ttl_s < 1:
        raise bad_arguments(f"a TTL of {ttl_s} seconds", "--ttl takes 1 or more")
    return ttl_s


def tell(text: str) -> None:
    """Say something that is no output."""
    print(text, file=sys.stderr, flush=True)
