"""A node in virtual time: the real actors over a simulated disk, a simulated store and simulated workers.

`SimHost` is the machine: what survives its process. `SimClient` is a client without a connection: it calls the node's
port as a connection would.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio
from attrs import define, field

from coord.codec import decode
from coord.errors import ApiError
from coord.mvcc.machine import StateMachine
from coord.node.arrival import Flags, arrive, is_settled, options_of
from coord.node.node import Node
from coord.node.options import Seams
from coord.node.peers import Network
from coord.observe.log import RecordingLog
from coord.observe.metrics import Metrics
from coord.protocol.bodies import encode_body
from coord.protocol.id_run import IdRun, each_reply
from coord.protocol.ops import PEER_SUBPROTOCOL, Method, Op
from coord.server.gateway import Gateway
from coord.store.identity import DataDirectory, open_data_directory
from coord.store.store import Store
from coord.testing.sim_backend import SimBackend
from coord.testing.sim_disk import SimDisk
from coord.testing.sim_network import Port, SimNetwork
from coord.testing.sim_worker import SimWorker
from coord.transport.link import Link, LinkFailed
from coord.wal.log import Wal
from coord.wal.recovery import recover

_PATIENCE_S: Final = 1.0
TOKEN = "sim"
_DIRECTORY = Path("/data")
_IDENTITY = Path("/data/member")
_SNAPSHOTS = Path("/data/snapshots")

Workers = tuple[SimWorker, SimWorker, SimWorker, SimWorker]
"""For the log, the store, the log's next segment, and snapshots."""


def peer_url(name: str) -> str:
    """Return where a simulated member listens for the others."""
    return f"http://{name}:7380"


def client_url(name: str) -> str:
    """Return where a simulated member's clients would connect."""
    return f"http://{name}:7379"


class _Nowhere:
    """The network of a member that is alone."""

    async def dial(self, url: str) -> Link:
        """See `Network`."""
        raise LinkFailed(f"{url}: there is no network", is_refused=True)


@define(eq=False)
class SimSettings:
    """What a simulated member is told. `names` are the members of the initial cluster, itself among them.

    `options` are those of `coord.node.options.Options`; `on_node` gets each node of the machine before it runs.
    """

    name: str = "sim"
    names: tuple[str, ...] = ("sim",)
    network: SimNetwork | None = None
    is_existing: bool = False
    token: str = TOKEN
    options: dict[str, Any] = field(factory=dict)
    segment_bytes: int = 32 * 1024
    snapshot_count: int = 20
    worker_delay_s_max: float = 0.002
    on_node: Callable[[str, Node], None] = lambda name, node: None

    @property
    def flags(self) -> Flags:
        """What `coord serve` would be told."""
        initial_cluster = tuple((name, (peer_url(name),)) for name in self.names)
        own, clients = (peer_url(self.name),), (client_url(self.name),)
        return Flags(self.name, own, clients, self.token, initial_cluster, self.is_existing)


@define(eq=False, repr=False)
class SimHost:
    """A machine with a disk, on which one node at a time runs."""

    seed: int
    settings: SimSettings = field(factory=SimSettings)
    disk: SimDisk = field(init=False)
    medium: SimBackend = field(init=False)
    log: RecordingLog = field(factory=RecordingLog)
    chance: random.Random = field(init=False)
    store: Store = field(init=False)
    wal: Wal = field(init=False)
    directory: DataDirectory = field(init=False)
    gateway: Gateway = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.wipe()

    def wipe(self) -> None:
        """Put an empty disk in place of the old one."""
        self.disk = SimDisk(self.chance.getrandbits(64))
        self.disk.make_directory(_DIRECTORY)
        self.medium = SimBackend(self.disk, _DIRECTORY / "store", self.chance.getrandbits(64))

    def open_directory(self) -> None:
        """Begin a boot. Raises `NodeError`."""
        flags = self.settings.flags
        self.directory = open_data_directory(
            self.disk,
            _IDENTITY,
            member=flags.member_id,
            token=flags.token,
            random64=lambda: self.chance.randrange(1, 2**64),
        )

    def recover(self, workers: Workers) -> Node:
        """Start a process on what the disk holds, as `coord serve` does for a member alone. Raises `NodeError`."""
        self.open_directory()
        assert is_settled(self.directory, self.settings.flags)
        return self.recover_node(workers)

    def recover_node(self, workers: Workers) -> Node:
        """Put the node together, whose directory is open and says who it is. Raises `NodeError`."""
        settings, identity = self.settings, self.directory.identity
        self.directory.close()
        wal_directory = _DIRECTORY / "wal"
        if not self.disk.exists(wal_directory):
            self.disk.make_directory(wal_directory)
        self.wal, recovery = recover(
            self.disk,
            wal_directory,
            identity.member,
            salt=lambda: self.chance.getrandbits(32),
            segment_bytes=settings.segment_bytes,
        )
        mark = recovery.snapshot
        self.store = self.medium.open(None if mark is None else (mark.index, mark.term))
        machine = StateMachine(self.store)
        for _ in machine.load():
            pass
        changed: dict[str, Any] = {"snapshot_count": settings.snapshot_count, "request_timeout_s": 5.0}
        options = options_of(settings.flags, identity, **{**changed, **settings.options})
        seams = Seams(
            trio.current_time,
            self._new_id,
            self.log,
            *workers,
            network=self._network(),
            memory=self.directory,
            disk=self.disk,
            snapshots=_SNAPSHOTS,
            chance=self._fork_chance(),
        )
        node = Node.recover(options, seams, self.store, machine, self.wal, recovery)
        settings.on_node(settings.name, node)
        return node

    def workers(self) -> Workers:
        """Return the workers of one process, each with a chance of its own."""
        delay_s_max = self.settings.worker_delay_s_max
        log, store, prepare, snapshot = (SimWorker(self._fork_chance(), delay_s_max) for _ in range(4))
        return log, store, prepare, snapshot

    async def run(self, task_status: trio.TaskStatus[Node]) -> None:
        """Run a process until it is cancelled or fails; reports its node when that serves."""
        settings = self.settings
        workers = self.workers()
        self.open_directory()
        network = self._network()
        await arrive(
            self.directory, settings.flags, network, self.log, self._fork_chance(), trio.current_time, _PATIENCE_S
        )
        node = self.recover_node(workers)
        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(worker.run)
            self.gateway = Gateway(node, self.log, Metrics())
            name, at = settings.name, settings.network
            if at is not None:
                nursery.start_soon(self._accept, node.peers.accept, at.listen(name, peer_url(name)))
                # Clients wait in the backlog meanwhile.
                clients = at.listen(name, client_url(name))
            nursery.start_soon(node.run)
            await node.ready.wait()
            if at is not None:
                nursery.start_soon(self._accept, self.gateway.serve_link, clients)
            task_status.started(node)

    async def leave(self, node: Node) -> None:
        """End a process in order, as SIGTERM does; its scope is to be cancelled then."""
        if self.settings.network is not None:
            self.settings.network.close(client_url(self.settings.name))
        await self.gateway.leave("server stopped", node.stop)

    def lose_power(self) -> None:
        """Forget what was not synced; call it after the process was cancelled."""
        self.disk.crash()
        self.medium.crash()

    def restart(self) -> None:
        """End the process as kill -9 does: what was written stays."""
        self.disk.restart()

    def image(self) -> SimHost:
        """Return a machine as a power loss at this moment would leave it; this one goes on."""
        host = SimHost(self.chance.getrandbits(64), self.settings)
        host.disk = self.disk.image()
        host.medium = self.medium.image(host.disk)
        host.medium.crash()
        return host

    async def _accept(self, serve: Callable[[Link], Awaitable[None]], port: Port) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(serve, await port.accept())

    def _network(self) -> Network:
        network = self.settings.network
        return _Nowhere() if network is None else network.endpoint(self.settings.name, PEER_SUBPROTOCOL)

    def _fork_chance(self) -> random.Random:
        return random.Random(self.chance.getrandbits(64))

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
        body = encode_body(writes)
        run = IdRun(range(ids[0], ids[0] + len(ids)), timeout_ms)
        self.node.writes(self, self.client, self.low, run, body, decode(body))
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
        for decoded in each_reply([decode(reply)]):
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
