"""The steps of a recipe, which say what to ask and what to wait for; who drives them does it. Pure.

A recipe is a generator: it yields steps, is sent what they brought, and returns its outcome. The Trio client and the
blocking client have a driver each, so that what a lock must do is written once and tested without either.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from coord.client.recipes.tenure import Tenure
from coord.client.verbs import Verb
from coord.errors import ConnectionFailed, CoordError, DeadlineExceeded, Unavailable

Answer = TypeVar("Answer")
Outcome = TypeVar("Outcome")
_BEYOND_S: Final = 1.0
"""A call gives up while there is a little of its time left, be it that a node refuses it then."""


class TimeIsUp(Exception):
    """The steps did not come to their end in time."""


@frozen
class Ask:
    """Ask the cluster; the step brings a `Reply`, or raises what a call raises."""

    verb: Verb[Any]
    timeout: float | None = None
    """In seconds; None is the client's."""


@frozen
class AwaitChange:
    """Wait until something happened to a key or an interval from revision `since` on.

    It may be over for nothing, and is after a gap or a break in what was seen: read what is there.
    """

    key: bytes
    since: int
    range_end: bytes = b""
    only_deletes: bool = False


@frozen
class Reply(Generic[Answer]):
    """The answer to an `Ask`."""

    answer: Answer
    was_sent_once: bool
    """S20: else it may be a recorded answer, which tells what was, not what is."""


Steps = Generator[Ask | AwaitChange, Any, Outcome]


def ask(verb: Verb[Answer], timeout: float | None = None) -> Steps[Reply[Answer]]:
    """Ask, with the type of the answer: `reply = yield from ask(verb)`."""
    reply: Reply[Answer] = yield Ask(verb, timeout)
    return reply


def ask_under(tenure: Tenure, verb: Verb[Answer], *, is_patient: bool = True) -> Steps[Reply[Answer]]:
    """Ask for a session; if it `is_patient` until the session's end, be it that the cluster is away.

    Raises `SessionLost` once it is lost, whatever the call ends with.
    """
    # S24: with no await between the check and the sending; and nothing is concluded from what comes too late.
    remaining_s = tenure.remaining_s
    if remaining_s <= 0:
        tenure.check()
    try:
        # Longer than the session, so that it is the session's end that a wait in vain is told as.
        reply = yield from ask(verb, remaining_s + _BEYOND_S if is_patient else None)
    except CoordError:
        tenure.check()
        raise
    tenure.check()
    return reply


def read_patiently(verb: Verb[Answer], check: Callable[[], None] = lambda: None) -> Steps[Answer]:
    """Read, however long the cluster cannot be reached; `check` is called before each try, and may raise."""
    while True:
        check()
        with suppress(Unavailable, DeadlineExceeded, ConnectionFailed):
            reply = yield from ask(verb)
            return reply.answer
