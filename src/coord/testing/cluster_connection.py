"""A client's connection to a simulated process: requests in, answers and notifications out, after a delay each way.

It calls the node's port as `coord.server` does. It ends with its process; what was open then is of unknown outcome.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import trio
from attrs import define, field

from coord.codec import decode
from coord.errors import ApiError, CoordError
from coord.node.ports import NodePort
from coord.protocol.bodies import encode_body
from coord.protocol.ops import Method, Notification, Op
from coord.testing.history import WatchEnd, WatchEvents, WatchProgress, WatchRecord

DELAY_S_MAX = 0.002


class ConnectionLost(CoordError):
    """The process has died, or has none to talk to."""


class Process(Protocol):
    """What a connection needs of a simulated process."""

    name: str
    connections: dict[Connection, None]
    is_unheard: bool
    heard: trio.Event

    @property
    def node(self) -> NodePort | None:
        """The node while it serves."""


@define(eq=False)
class Connection:
    """See the module's docstring; implements `Sink`."""

    process: Process
    chance: random.Random
    watches: dict[int, WatchRecord] = field(factory=dict)
    is_slow_reader: bool = False
    """Its watches fall back to history."""
    is_lost: bool = False
    on_notice: Callable[[], None] = lambda: None
    _answers: dict[int, list[Any] | None] = field(factory=dict)
    _waiting: dict[int, trio.Event] = field(factory=dict)
    _on_answer: dict[int, Callable[[list[Any]], None]] = field(factory=dict)
    _last_id: int = 0
    _unheard: list[Callable[[], None]] = field(factory=list)
    """What the node said while nothing passed."""

    def __attrs_post_init__(self) -> None:
        self.process.connections[self] = None

    async def write(self, client: int, low: int, write: list[Any], timeout_s: float) -> tuple[int, Any]:
        """Send one write and return its revision and result. Raises `ApiError` and `ConnectionLost`."""
        body = encode_body([write])
        timeout_ms = max(1, int(timeout_s * 1000))

        def send(node: NodePort, request_id: int) -> None:
            node.writes(self, client, low, [(request_id, timeout_ms)], body, decode(body))

        return await self._ask(send)

    async def request(
        self,
        method: Method,
        arguments: list[Any],
        timeout_s: float,
        on_answer: Callable[[list[Any]], None] | None = None,
    ) -> tuple[int, Any]:
        """Send any other request; as `write`. `on_answer` gets the answer in order with the notifications."""
        timeout_ms = max(1, int(timeout_s * 1000))

        def send(node: NodePort, request_id: int) -> None:
            node.request(self, request_id, int(method), timeout_ms, arguments)

        return await self._ask(send, on_answer)

    async def put(self, key: bytes, value: bytes, timeout_s: float = 5.0) -> int:
        """Put a key and return the revision; as `write`."""
        revision, _ = await self.write(0, 0, [0, int(Op.PUT), None, [key, value]], timeout_s)
        return revision

    async def get(self, key: bytes, timeout_s: float = 5.0) -> bytes | None:
        """Return a key's newest value (linearizable); as `write`."""
        _, (pairs, _, _) = await self.request(Method.RANGE, [key], timeout_s)
        return pairs[0][5] if pairs else None

    async def watch(self, record: WatchRecord, tick: Callable[[], int]) -> None:
        """Create a watch; what it is told goes to its record. Raises as `write`."""
        watch_id = len(self.watches) + 1
        self.watches[watch_id] = record
        arguments = [record.key, record.range_end, record.asked, watch_id, record.no_put, record.no_delete]
        try:
            _, made = await self.request(Method.WATCH_CREATE, [*arguments, record.prev_kv], 5.0)
        except BaseException:
            # Whether it was made is not known, and what it was told has no start to be held against.
            self.watches[watch_id] = WatchRecord(record.client, b"", b"", 0, 0)
            record.told = []
            raise
        record.start = made[1]
        record.created_order = tick()

    async def progress(self) -> None:
        """Ask how far all watches of this connection are, and note it as told to each; as `write`."""

        def note(answer: list[Any]) -> None:
            if len(answer) == 3:
                for record in self.watches.values():
                    if record.start and not record.has_ended:
                        record.told.append(WatchProgress(answer[2]))

        await self.request(Method.WATCH_PROGRESS, [], 2.0, note)

    def close(self) -> None:
        """Let go of the node and of all that is open."""
        if not self.is_lost:
            node = self.process.node
            self.lose()
            if node is not None:
                node.forget(self)

    def lose(self) -> None:
        """End: the process is dead, and whoever waits is told."""
        self.is_lost = True
        self.process.connections.pop(self, None)
        for event in self._waiting.values():
            event.set()
        self.on_notice()

    def hear(self) -> None:
        """Get what the node said while nothing passed."""
        unheard, self._unheard = self._unheard, []
        for take in unheard:
            take()

    # -- what the node calls --------------------------------------------------------------------------------------

    def reply(self, reply: bytes) -> None:
        """See `Sink`."""
        if self.process.is_unheard:
            self._unheard.append(partial(self.reply, reply))
            return
        if self.is_lost:
            return
        answer = decode(reply)
        if answer[0] in self._waiting:
            if answer[0] in self._on_answer:
                self._on_answer[answer[0]](answer)
            self._answers[answer[0]] = answer
            self._waiting[answer[0]].set()

    def notify(self, notification: bytes) -> None:
        """See `Sink`."""
        if self.process.is_unheard:
            self._unheard.append(partial(self.notify, notification))
            return
        if self.is_lost:
            return
        kind, ids, *rest = decode(notification)
        item: WatchEvents | WatchProgress | WatchEnd
        for watch_id in ids:
            if kind == Notification.EVENTS:
                item = WatchEvents(rest[0], rest[1], len(rest) > 2 and rest[2])
            elif kind == Notification.PROGRESS:
                item = WatchProgress(rest[0])
            else:
                item = WatchEnd(rest[0], rest[1])
            if watch_id in self.watches:
                self.watches[watch_id].told.append(item)
        self.on_notice()

    def flush(self) -> None:
        """See `Sink`."""

    def is_slow(self) -> bool:
        """See `Sink`."""
        return self.is_slow_reader

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _ask(
        self, send: Callable[[NodePort, int], None], on_answer: Callable[[list[Any]], None] | None = None
    ) -> tuple[int, Any]:
        await trio.sleep(self.chance.uniform(0, DELAY_S_MAX))
        while self.process.is_unheard and not self.is_lost:
            await self.process.heard.wait()
        node = self.process.node
        if self.is_lost or node is None:
            raise ConnectionLost(f"{self.process.name} is not there")
        self._last_id += 1
        request_id = self._last_id
        event = self._waiting[request_id] = trio.Event()
        if on_answer is not None:
            self._on_answer[request_id] = on_answer
        try:
            send(node, request_id)
            await event.wait()
            await trio.sleep(self.chance.uniform(0, DELAY_S_MAX))
        finally:
            del self._waiting[request_id]
            self._on_answer.pop(request_id, None)
        answer = self._answers.pop(request_id, None)
        if answer is None or self.is_lost:
            raise ConnectionLost(f"{self.process.name} went away")
        if len(answer) > 3:
            raise ApiError.from_wire(answer[3])
        return answer[1], answer[2]
