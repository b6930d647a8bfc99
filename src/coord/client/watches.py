"""All watches of a client: creating them, feeding them, and going on after breaks. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from attrs import define

from coord.client import responses as r
from coord.client.calls import NEVER, Call, Connection, Subscription
from coord.client.endpoints import REFUSALS_BEFORE_MOVING
from coord.client.responses import Batch
from coord.client.watching import RESUME_REASONS
from coord.errors import ApiError, Code, compacted
from coord.limits import MIB, REQUEST_TIMEOUT_MS_DEFAULT
from coord.protocol.ops import Method, Notification

BUFFER_BYTES_MAX: Final = 16 * MIB
"""What a watch keeps for a consumer that does not take it; above it the node forgets the watch until it does."""
EVENT_BYTES: Final = 400
"""What an event takes in memory besides its key and value, roughly."""

_CREATE: Final = int(Method.WATCH_CREATE)
_CANCEL: Final = int(Method.WATCH_CANCEL)
_CANCEL_CALL: Final = int(Method.CANCEL)


class Desk(Protocol):
    """What watches need of the client's core."""

    wakes: list[Any]

    def next_id(self) -> int:
        """Return a number that this client has not used."""

    def submit(self, call: Call) -> None:
        """Have a call sent."""

    def rest(self, call: Call, now: float) -> None:
        """Have a call sent after a pause."""


@define(eq=False)
class Watches:
    """The watches; `desk` sends their calls."""

    desk: Desk

    def subscribe(self, subscription: Subscription) -> None:
        """Have a watch created, on whichever connection calls are sent."""
        self.desk.submit(self._create(subscription))

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a watch, here and on its node."""
        connection, call = subscription.connection, subscription.call
        if call is not None:
            call.is_done = True
            connection = call.connection
            if connection is not None and connection.pending.pop(call.id, None) is not None:
                # The node may still wait for a round to create it, and would do so behind what ends it.
                connection.orders.append((self.desk.next_id(), _CANCEL_CALL, 0, (call.id,)))
        if connection is not None:
            # It stands behind the creation in the order of requests, so that it ends also what is not yet confirmed.
            connection.subscriptions.pop(subscription.state.watch_id, None)
            connection.orders.append((self.desk.next_id(), _CANCEL, 0, (subscription.state.watch_id,)))
        subscription.connection = subscription.call = None

    def resume(self, subscription: Subscription) -> None:
        """Go on with a paused watch, whose batches were taken."""
        subscription.is_paused = False
        self.subscribe(subscription)

    def lost(self, connection: Connection) -> None:
        """Go on elsewhere with what a lost connection carried."""
        for subscription in connection.subscriptions.values():
            subscription.connection = None
            self.subscribe(subscription)
            self._wake(subscription)
        connection.subscriptions.clear()

    def fail(self, subscription: Subscription, error: Exception) -> None:
        """End a watch with an error, told to its consumer after the batches."""
        self.unsubscribe(subscription)
        subscription.error = error
        self._wake(subscription)

    def created(self, connection: Connection, subscription: Subscription, start_revision: int) -> None:
        """Take the answer to a creation."""
        subscription.call = None
        subscription.connection = connection
        connection.subscriptions[subscription.state.watch_id] = subscription
        subscription.state.created(start_revision)
        subscription.is_created = True
        self._wake(subscription)

    def progressed(self, subscription: Subscription, revision: int) -> None:
        """Take the answer to a request for progress: it stands behind the events that it vouches for."""
        self._deliver(subscription, subscription.state.progress(revision))

    def take(self, connection: Connection, notifications: Iterable[Any], now: float) -> int:
        """Take notifications; return the highest revision in them."""
        highest = 0
        for notification in notifications:
            kind, ids, revision = notification[0], notification[1], notification[2]
            if kind == Notification.CANCELED:
                self._canceled(connection, ids, revision, notification[3], now)
                continue
            highest = max(highest, revision)
            if kind == Notification.PROGRESS:
                for subscription in self._carried(connection, ids):
                    self._deliver(subscription, subscription.state.progress(revision))
            elif kind == Notification.EVENTS:
                # Made once for all watches that the revision concerns, which is most of what a crowd of them costs.
                self._take_events(connection, ids, *r.batch(notification))
        return highest

    def _take_events(self, connection: Connection, ids: list[int], batch: Batch, is_fragment: bool) -> None:
        size = sum([EVENT_BYTES + len(event.kv.key) + len(event.kv.value) for event in batch.events])
        for subscription in self._carried(connection, ids):
            subscription.buffered_bytes += size
            self._deliver(subscription, subscription.state.take(batch, is_fragment))

    def _deliver(self, subscription: Subscription, batch: Batch | None) -> None:
        if batch is None:
            return
        subscription.batches.append(batch)
        if subscription.waiter is not None:
            self.desk.wakes.append(subscription.waiter)
            subscription.waiter = None
        if subscription.buffered_bytes > BUFFER_BYTES_MAX:
            self.unsubscribe(subscription)
            subscription.is_paused = True

    def _canceled(self, connection: Connection, ids: list[int], compact_revision: int, reason: str, now: float) -> None:
        for subscription in self._carried(connection, ids):
            del connection.subscriptions[subscription.state.watch_id]
            subscription.connection = None
            if compact_revision > 0:
                self.fail(subscription, compacted(compact_revision))
            elif reason in RESUME_REASONS:
                # S30: the watch goes on, elsewhere if another connection stands.
                connection.refusals = max(connection.refusals + 1, REFUSALS_BEFORE_MOVING)
                self.desk.rest(self._create(subscription), now)
                self._wake(subscription)
            else:
                self.fail(subscription, ApiError(reason, code=Code.CANCELED))

    def _create(self, subscription: Subscription) -> Call:
        # A new id for each creation: what is still on its way to the former one must not be taken for this one's.
        subscription.state.watch_id = self.desk.next_id()
        arguments = subscription.state.create_arguments()
        subscription.call = Call(
            self.desk.next_id(), False, _CREATE, arguments, REQUEST_TIMEOUT_MS_DEFAULT, NEVER, None, subscription
        )
        return subscription.call

    @staticmethod
    def _carried(connection: Connection, ids: list[int]) -> list[Subscription]:
        # What was unsubscribed a moment ago may still be named.
        return [connection.subscriptions[one] for one in ids if one in connection.subscriptions]

    def _wake(self, subscription: Subscription) -> None:
        if subscription.waiter is not None:
            self.desk.wakes.append(subscription.waiter)
            subscription.waiter = None
