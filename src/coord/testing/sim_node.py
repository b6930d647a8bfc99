"""A node in virtual time: the real actors over a simulated disk, a simulated store and simulated workers.

`SimHost` is the machine: what survives its process. `SimClient` is a client without a connection: it calls the node's
port as a connection would.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from coord.codec import decode, encode
from coord.errors import ApiError
from coord.mvcc.machine import StateMachine
from coord.node.node import Node
from coord.node.options import Options, Seams
from coord.observe.log import RecordingLog
from coord.protocol.ops import Method, Op
from coord.store.store import Store
from coord.testing.sim_backend import SimBackend
from coord.testing.sim_disk import SimDisk
from coord.testing.sim_worker import SimWorker
from coord.wal.log import Wal
from coord.wal.recovery import recover

MEMBER = 0xA11CE
_DIRECTORY = Path("/data")


@define(eq=False)
class SimHost:
    """A machine with a disk, on which one node at a time runs."""

    seed: int
    segment_bytes: int = 32 * 1024
    snapshot_count: int = 20
    options: dict[str, Any] = field(factory=dict)
    disk: SimDisk = field(init=False)
    medium: SimBackend = field(init=False)
    log: RecordingLog = field(factory=RecordingLog)
    chance: random.Random = field(init=False)
    store: Store = field(init=False)
    wal: Wal = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.disk = SimDisk(self.seed)
        self.disk.make_directory(_DIRECTORY)
        self.medium = SimBackend(self.disk, _DIRECTORY / "store", self.seed)

    def recover(self, workers: tuple[SimWorker, SimWorker, SimWorker]) -> Node:
        """Start a process on what the disk holds, as `coord serve` does. Raises `NodeError`."""
        wal_directory = _DIRECTORY / "wal"
        if not self.disk.exists(wal_directory):
            self.disk.make_directory(wal_directory)
        self.wal, recovery = recover(
            self.disk,
            wal_directory,
            MEMBER,
            salt=lambda: self.chance.getrandbits(32),
            segment_bytes=self.segment_bytes,
        )
        mark = recovery.snapshot
        self.store = self.medium.open(None if mark is None else (mark.index, mark.term))
        machine = StateMachine(self.store)
        for _ in machine.load():
            pass
        settings: dict[str, Any] = {"snapshot_count": self.snapshot_count, "request_timeout_s": 5.0, **self.options}
        options = Options("sim", MEMBER, ("http://sim:7380",), ("http://sim:7379",), **settings)
        seams = Seams(trio.current_time, self._new_id, self.log, *workers)
        return Node.recover(options, seams, self.store, machine, self.wal, recovery)

    def workers(self) -> tuple[SimWorker, SimWorker, SimWorker]:
        """Return the workers of one process, each with a chance of its own."""
        log, store, prepare = (SimWorker(random.Random(self.chance.getrandbits(64))) for _ in range(3))
        return log, store, prepare

    async def run(self, task_status: trio.TaskStatus[Node]) -> None:
        """Run a process until it is cancelled or fails; reports its node when that serves."""
        workers = self.workers()
        node = self.recover(workers)
        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(worker.run)
            nursery.start_soon(node.run)
            await node.ready.wait()
            task_status.started(node)

    def lose_power(self) -> None:
        """Forget what was not synced; call it after the process was cancelled."""
        self.disk.crash()
        self.medium.crash()

    def restart(self) -> None:
        """End the process as kill -9 does: what was written stays."""
        self.disk.restart()

    def image(self) -> SimHost:
        """Return a machine as a power loss at this moment would leave it; this one goes on."""
        host = SimHost(self.chance.getrandbits(64), self.segment_bytes, self.snapshot_count, self.options)
        host.disk = self.disk.image()
        host.medium = self.medium.image(host.disk)
        host.medium.crash()
        return host

    def _new_id(self) -> int:
        return self.chance.randrange(1, 2**63)


@define(eq=False)
class SimClient:
    """Calls a node; implements `Sink`."""

    node: Node
    client: int = 0
    low: int = 0
    slow: bool = False
    notifications: list[list[Any]] = field(factory=list)
    acknowledged: list[int] = field(factory=list)
    """Revisions of writes that were answered without an error, in the order of the answers."""
    answered: Callable[[list[Any]], None] = lambda reply: None
    _replies: dict[int, list[Any]] = field(factory=dict)
    _waiting: dict[int, trio.Event] = field(factory=dict)
    _last_id: int = 0

    async def write(self, op: Op, arguments: list[Any], *, number: int = 0, guard: list[Any] | None = None) -> Any:
        """Send one write and return its result. Raises `ApiError`."""
        return (await self.write_many([[number, int(op), guard, arguments]]))[0]

    async def write_many(self, writes: list[list[Any]], *, timeout_ms: int = 0) -> list[Any]:
        """Send writes as one frame; return their results. Raises the first `ApiError`."""
        ids = [self._next_id() for _ in writes]
        body = encode(writes)
        self.node.writes(self, self.client, self.low, [(one, timeout_ms) for one in ids], body, decode(body))
        replies = [await self._reply(one) for one in ids]
        results = [self._result(reply) for reply in replies]
        self.acknowledged += [reply[1] for reply in replies]
        return results

    async def put(self, key: bytes, value: bytes, *rest: Any) -> Any:
        """Put a key."""
        return await self.write(Op.PUT, [key, value, *rest])

    async def get(self, key: bytes) -> bytes | None:
        """Return a key's value."""
        records, _, _ = await self.request(Method.RANGE, [key])
        return records[0][5] if records else None

    async def request(self, method: Method, arguments: list[Any], *, timeout_ms: int = 0) -> Any:
        """Send any other request and return its result. Raises `ApiError`."""
        request_id = self._next_id()
        self.node.request(self, request_id, int(method), timeout_ms, arguments)
        return self._result(await self._reply(request_id))

    def reply(self, reply: bytes) -> None:
        """See `Sink`."""
        decoded = decode(reply)
        self.answered(decoded)
        self._replies[decoded[0]] = decoded
        if decoded[0] in self._waiting:
            self._waiting[decoded[0]].set()

    def notify(self, notification: bytes) -> None:
        """See `Sink`."""
        self.notifications.append(decode(notification))

    def flush(self) -> None:
        """See `Sink`."""

    def is_slow(self) -> bool:
        """See `Sink`."""
        return self.slow

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def _reply(self, request_id: int) -> list[Any]:
        if request_id not in self._replies:
            event = self._waiting[request_id] = trio.Event()
            try:
                await event.wait()
            finally:
                del self._waiting[request_id]
        return self._replies.pop(request_id)

    @staticmethod
    def _result(reply: list[Any]) -> Any:
        if len(reply) > 3:
            raise ApiError.from_wire(reply[3])
        return reply[2]
