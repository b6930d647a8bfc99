"""Ids of requests that follow each other, and one reply to all of them (coord.cddl's `id-run` and `reply-run`).

Most frames of writes are of callers who called at once: their ids follow each other, their timeouts are the same, and
what they put has one revision after the other. To say so once is cheaper for both sides than to say it of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Final

from attrs import frozen

from coord.codec import NULL, uint
from coord.errors import ProtocolViolation
from coord.limits import REQUESTS_OPEN_PER_CONNECTION

REPLY_RUN_HEAD: Final = 0x85
"""The first byte of a `reply-run`, an array of five; a reply is one of three, an error's of four."""
_ITEMS: Final = 5


@frozen
class IdRun:
    """`(id, each)` for each of the ids: `each` is the timeout or the deadline that they share."""

    ids: range
    each: float

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return zip(self.ids, repeat(self.each))


Ids = Sequence[tuple[int, int]] | IdRun
"""`(request id, timeout_ms)` of each write of a frame."""


def reply_run(ids: range, revision: int) -> bytes:
    """Return the reply to all of `ids`: the first put was done in `revision`, each other in the one behind."""
    return b"".join((b"\x85", uint(ids[0]), uint(revision), NULL, NULL, uint(len(ids))))


def each_reply(replies: list[Any]) -> list[Any]:
    """Return decoded replies with those of runs one by one. A later release may add items to either kind.

    Raises `ProtocolViolation` for a run of more than a connection can have open, which would take any memory.
    """
    if not any(len(reply) >= _ITEMS for reply in replies):
        return replies
    each: list[Any] = []
    for reply in replies:
        if len(reply) >= _ITEMS and reply[3] is None:
            first, revision, _, _, count = reply[:_ITEMS]
            if count + len(each) > REQUESTS_OPEN_PER_CONNECTION:
                raise ProtocolViolation(
                    f"replies to more than {REQUESTS_OPEN_PER_CONNECTION} requests, which can be open"
                )
            each += [[first + place, revision + place, None] for place in range(count)]
        else:
            each.append(reply)
    return each
