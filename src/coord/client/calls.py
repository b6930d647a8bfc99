"""A call, a watch's subscription and a connection, as the client's core keeps them. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from coord.client.endpoints import Endpoint
from coord.client.fence import Guard
from coord.client.responses import Batch, Header
from coord.client.watching import WatchState
from coord.errors import ApiError
from coord.protocol import client_protocol as protocol
from coord.protocol.ops import MEMBER_CHANGES
from coord.types import Revision

NEVER: Final = math.inf


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

    @property
    def is_change(self) -> bool:
        """What is asked for may happen though no answer comes, so that it is not asked for twice (S14)."""
        return self.is_write or self.code in MEMBER_CHANGES

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
