"""A call, a watch's subscription and a connection, as the client's core keeps them. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from coord.client.endpoints import REFUSALS_BEFORE_MOVING, Endpoint
from coord.client.fence import Guard
from coord.client.numbering import Numbering
from coord.client.responses import Batch, Header
from coord.client.watching import WatchState
from coord.errors import ApiError
from coord.protocol import client_protocol as protocol
from coord.protocol.ops import MEMBER_CHANGES, Op
from coord.types import Revision

NEVER: Final = math.inf
_REGISTER: Final = int(Op.REGISTER)


@define(eq=False)
class Call:
    """A write (`code` is an op) or another request (`code` is a method), until it is done.

    Done, it has either `reply`, `[id, revision, result]`, with the `frame` that brought it, or `error`. The `waiter`
    is whatever the event loop wakes; None for a call of the client itself.
    """

    id: int
    is_write: bool
    code: int
    arguments: Sequence[Any]
    timeout_ms: int
    deadline: float
    waiter: Any
    subscription: Subscription | None = None
    is_done: bool = False
    connection: Connection | None = None
    """Where it was sent; None while it waits to be sent."""
    reply: Any = None
    frame: protocol.Frame | None = None
    error: Exception | None = None
    attempts: int = 0
    refusal: ApiError | None = None
    timeout: float = NEVER
    """What the caller gave it, in seconds; a node is told a little less."""
    guard: Guard | None = None
    """Of a write: what it depends on (S27)."""
    patience_s: float = NEVER
    """Unanswered for so long, it is sent again through another connection; twice as long each further time."""
    ask_again_at: float = NEVER
    numbering: Numbering | None = None
    """Of a numbered write, once it has its number: whose number that is."""
    number: int = 0
    sends: int = 0
    """How often it was sent (S20: nothing is concluded from the answer to a write that was sent more than once)."""
    doubt: str = ""
    """Of a write, why a sending was not answered: that one may have been applied, or may still be."""

    @property
    def is_in_doubt(self) -> bool:
        """Nothing final is known of it, whatever a later sending is refused for (S19)."""
        return bool(self.doubt)

    @property
    def is_change(self) -> bool:
        """What is asked for may happen though no answer comes (S14)."""
        return self.is_write or self.code in MEMBER_CHANGES

    @property
    def is_register(self) -> bool:
        """It asks for a client id: done twice, it makes an id that nobody uses."""
        return self.is_write and self.code == _REGISTER

    @property
    def may_repeat(self) -> bool:
        """Sent twice, it does no more than once: it only reads, or is recognized by its number (S18)."""
        if self.is_write:
            return self.numbering is not None or self.code == _REGISTER
        return self.code not in MEMBER_CHANGES

    def close(self) -> None:
        """End it: nobody waits for its answer any more, and it is sent no more."""
        self.is_done = True
        if self.numbering is not None:
            self.numbering.close(self.number)
            self.numbering = None

    def header(self) -> Header:
        """Return the header of the answer; only for a call that is done without an error."""
        assert self.frame is not None
        return Header(self.frame.cluster_id, self.frame.member_id, self.reply[1], self.frame.raft_term)


@define(eq=False)
class Subscription:
    """A watch with the batches that its consumer has not yet taken."""

    state: WatchState
    batches: deque[Batch] = field(factory=deque)
    buffered_bytes: int = 0
    waiter: Any = None
    """The consumer, while it waits for news."""
    error: Exception | None = None
    """Why the watch ended; told after the batches."""
    connection: Connection | None = None
    """What carries the watch, once it is created there."""
    call: Call | None = None
    """The creation under way."""
    is_created: bool = False
    """A node has confirmed the watch at least once."""
    is_paused: bool = False
    """Its consumer is too slow: the node forgets it until the batches are taken."""

    @property
    def next_revision(self) -> Revision:
        """The first revision that is not yet in a batch."""
        return Revision(self.state.next_revision)


@define(eq=False)
class Connection:
    """What one connection carries."""

    endpoint: Endpoint
    member_id: int = 0
    pending: dict[int, Call] = field(factory=dict)
    """Calls that were sent here and are not answered."""
    orders: list[protocol.Request] = field(factory=list)
    """Requests to send whose replies nobody waits for."""
    subscriptions: dict[int, Subscription] = field(factory=dict)
    refusals: int = 0
    """Clear refusals since the last other answer."""
    is_standby: bool = False
    """Kept warm beside the active one; its loss is no reason to wait before the next try."""
    is_leaving: bool = False
    """The node said goodbye: what is pending may still be answered, but nothing more is asked."""
    is_silent: bool = False
    """A call was given up here for want of an answer, and nothing has arrived since."""

    @property
    def is_unfit(self) -> bool:
        """It serves no better than a new one might."""
        return self.is_leaving or self.is_silent or self.refusals >= REFUSALS_BEFORE_MOVING
