"""Clients of a simulated cluster, whose every call goes into the history.

Each is sequential, goes to any member, and says of a call only what it knows: a call that nobody answered is open. A
client writes some of its writes under its registered number, and sends those again; the others it sends once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from attrs import define

from coord.errors import ApiError, Behind, OutcomeUnknown, Unavailable
from coord.protocol.ops import Method, Op
from coord.testing.cluster_connection import Connection, ConnectionLost, Process
from coord.testing.history import History, Kind, Operation, WatchEnd, WatchRecord

EVERYTHING: Final = (b"\0", b"\0")
EPOCH_CALLS: Final = 60
"""Keys change after so many calls, so that the calls on one are few enough to be judged (§5d)."""
CALLS_PER_S: Final = 15
"""Of one working client, in virtual time."""
_TIMEOUT_S: Final = 1.5
_RETRY_S: Final = 6.0


@define(eq=False)
class World:
    """What clients share."""

    processes: Sequence[Process]
    history: History
    chance: random.Random
    trace: Callable[..., None]
    ends_at: float
    calls: int = 0

    def key(self, chance: random.Random) -> bytes:
        """Return one of the few keys of now."""
        self.calls += 1
        return b"%c/%03d" % (chance.choice(b"abc"), self.calls // EPOCH_CALLS)

    @property
    def is_over(self) -> bool:
        """True when clients should stop."""
        return trio.current_time() >= self.ends_at


@define(eq=False)
class Caller:
    """One client: where it is connected, what it has seen, and its numbered writes."""

    name: str
    world: World
    chance: random.Random
    session: int = 0
    number: int = 0
    seen: int = 0
    _connection: Connection | None = None
    _tags: int = 0

    def connect(self, *, anew: bool = False) -> Connection:
        """Return the connection to some member."""
        if self._connection is None or self._connection.is_lost or anew:
            if self._connection is not None:
                self._connection.close()
            self._connection = Connection(self.chance.choice(self.world.processes), self.chance)
        return self._connection

    def tag(self) -> bytes:
        """Return a value that nobody else writes."""
        self._tags += 1
        return f"{self.name}.{self._tags}".encode()

    async def write(self, op: Op, arguments: list[Any], *, is_numbered: bool) -> Operation:
        """Do one write; one that is numbered is sent until it is answered or out of time."""
        if is_numbered and not self.session and not await self._register():
            is_numbered = False
        session = self.session if is_numbered else 0
        number = 0
        if session:
            self.number += 1
            number = self.number
        operation = self._call(Kind.WRITE, [number, int(op), None, arguments], session)
        # S18: what was given up before this one is closed; a client has one call open.
        await self._send(operation, lambda to: to.write(session, number, operation.request, _TIMEOUT_S))
        return operation

    async def read(self, *arguments: Any, is_local: bool = False) -> Operation:
        """Read; a local read says what this client has seen (S29)."""
        request: list[Any] = list(arguments)
        if is_local:
            request += [b"", 0, 0, 0, 0, True, False, False, 0, 0, 0, 0, self.seen][len(request) - 1 :]
            self.connect(anew=self.chance.random() < 0.5)
        operation = self._call(Kind.LOCAL_READ if is_local else Kind.READ, request)
        await self._send(operation, lambda to: to.request(Method.RANGE, request, _TIMEOUT_S))
        return operation

    async def renew(self, leases: list[int]) -> Operation:
        """Send a keep-alive."""
        operation = self._call(Kind.RENEWAL, leases)
        await self._send(operation, lambda to: to.request(Method.LEASE_KEEP_ALIVE, [leases], _TIMEOUT_S))
        return operation

    async def _register(self) -> bool:
        try:
            with trio.move_on_after(2 * _TIMEOUT_S):
                made = await self.connect().write(0, 0, [0, int(Op.REGISTER), None, []], _TIMEOUT_S)
                self.session, self.number = made[1], 0
        except (ApiError, ConnectionLost):
            self.connect(anew=True)
        return self.session > 0

    def _call(self, kind: Kind, request: list[Any], session: int = 0) -> Operation:
        now = trio.current_time()
        operation = self.world.history.call(self.name, kind, request, now, session)
        self.world.trace("call", client=self.name, kind=kind.value, request=request)
        return operation

    async def _send(self, operation: Operation, send: Callable[[Connection], Any]) -> None:
        ends = trio.current_time() + _RETRY_S
        sends = 0
        may_repeat = operation.session > 0
        while sends == 0 or (may_repeat and trio.current_time() < ends):
            sends += 1
            connection = self.connect(anew=sends > 1)
            error: ApiError | None = OutcomeUnknown("coord: the client waits no longer")
            try:
                with trio.move_on_after(_TIMEOUT_S + 0.5):
                    revision, result = await send(connection)
                    self._done(operation, revision, result)
                    return
            except ConnectionLost:
                error = OutcomeUnknown("coord: the connection was lost")
            except ApiError as refusal:
                error = refusal
            assert error is not None
            # S19: a refusal that is no recorded answer says nothing of the sends before it.
            if isinstance(error, Unavailable) and sends > 1:
                error = OutcomeUnknown(error.text)
            self._failed(operation, error, connection)
            if not isinstance(error, OutcomeUnknown):
                return
            await trio.sleep(self.chance.uniform(0.01, 0.2))

    def _done(self, operation: Operation, revision: int, result: Any) -> None:
        self.world.history.done(operation, revision, result, trio.current_time())
        self.seen = max(self.seen, revision)
        self.world.trace("done", client=self.name, revision=revision, result=result)

    def _failed(self, operation: Operation, error: ApiError, connection: Connection) -> None:
        self.world.history.failed(operation, error, trio.current_time())
        where = connection.process.name
        self.world.trace("failed", client=self.name, at=where, code=str(error.code), text=error.text)
        if isinstance(error, Unavailable) and not isinstance(error, Behind):
            self.connect(anew=True)


async def work(caller: Caller) -> None:
    """Do random calls until the world ends."""
    chance, world = caller.chance, caller.world
    while not world.is_over:
        await trio.sleep(chance.expovariate(CALLS_PER_S))
        key = world.key(chance)
        match chance.randrange(12):
            case 0 | 1 | 2:
                await caller.write(Op.PUT, [key, caller.tag()], is_numbered=chance.random() < 0.4)
            case 3:
                await caller.write(Op.DELETE_RANGE, [key], is_numbered=True)
            case 4 | 5:
                await _swap(caller, key)
            case 6:
                other = world.key(chance)
                puts = [[int(Op.PUT), [one, caller.tag()]] for one in sorted({b"m" + key, b"m" + other})]
                await caller.write(Op.TXN, [[], puts, []], is_numbered=chance.random() < 0.4)
            case 7:
                await caller.read(*EVERYTHING)
            case 8:
                await caller.read(*EVERYTHING, is_local=True)
            case _:
                await caller.read(key)


async def _swap(caller: Caller, key: bytes) -> None:
    read = await caller.read(key)
    if read.is_done:
        pairs = read.result[0]
        tag = caller.tag()
        compare = [3, 0, key, pairs[0][5]] if pairs else [1, 0, key, 0]
        branches = [[[int(Op.PUT), [key, tag]]], [[int(Op.RANGE), [key]]]]
        await caller.write(Op.TXN, [[compare], *branches], is_numbered=caller.chance.random() < 0.5)


async def hold_leases(caller: Caller) -> None:
    """Hold one lease after the other, with keys: renew it for a while, then revoke it or let it end."""
    chance, world = caller.chance, caller.world
    while not world.is_over:
        lease, ttl_s = chance.randrange(1, 2**63), chance.randint(1, 4)
        # The members' floor makes two seconds of one.
        granted = await caller.write(Op.LEASE_GRANT, [ttl_s, lease], is_numbered=True)
        if not granted.is_done:
            await trio.sleep(0.1)
            continue
        ttl_s = granted.result[1]
        for name in (b"l/1/", b"l/2/"):
            await caller.write(Op.PUT, [name + b"%x" % lease, caller.tag(), lease], is_numbered=True)
        ends = trio.current_time() + chance.uniform(0, 8)
        while trio.current_time() < ends:
            await trio.sleep(ttl_s * chance.choice((0.2, 0.3, 0.6)))
            renewed = await caller.renew([lease])
            if renewed.is_done and renewed.result[0][1] == 0:
                break
        else:
            if chance.random() < 0.4:
                await caller.write(Op.LEASE_REVOKE, [lease], is_numbered=True)
                continue
        await trio.sleep(chance.uniform(0.5, 1.2) * ttl_s)
        await caller.renew([lease])


async def leave_leases(caller: Caller) -> None:
    """Take one lease after the other, with a key, and never renew it, as who dies at once."""
    chance, world = caller.chance, caller.world
    while not world.is_over:
        lease, ttl_s = chance.randrange(1, 2**63), chance.randint(3, 6)
        granted = await caller.write(Op.LEASE_GRANT, [ttl_s, lease], is_numbered=True)
        if granted.is_done:
            await caller.write(Op.PUT, [b"l/3/%x" % lease, caller.tag(), lease], is_numbered=True)
        await trio.sleep(chance.uniform(0.3, 1.5))


async def compact(caller: Caller) -> None:
    """Compact now and then, to a little below the newest revision."""
    while not caller.world.is_over:
        await trio.sleep(caller.chance.uniform(0.5, 3))
        read = await caller.read(b"a")
        if read.is_done and read.revision > 20:
            at = read.revision - caller.chance.randint(0, 15)
            await caller.write(Op.COMPACT, [at], is_numbered=True)


async def watch_everything(caller: Caller) -> None:
    """Watch all keys."""
    await _watch(caller, *EVERYTHING)


async def watch(caller: Caller) -> None:
    """Watch some keys."""
    await _watch(caller, *caller.chance.choice((EVERYTHING, (b"l/", b"l0"), (b"a", b"c"))))


async def _watch(caller: Caller, key: bytes, range_end: bytes) -> None:
    """Watch one range for the whole run, through one member after the other, each time from where it ended."""
    chance, world = caller.chance, caller.world
    prev_kv, asked = chance.random() < 0.5, 0
    while not world.is_over:
        connection = caller.connect(anew=True)
        filtered = chance.random() < 0.2
        record = WatchRecord(
            caller.name, key, range_end, asked, world.history.tick(), no_delete=filtered, prev_kv=prev_kv
        )
        try:
            with trio.move_on_after(3):
                await connection.watch(world.history.watch(record), world.history.tick)
                world.trace("watch", client=caller.name, at=connection.process.name, start=record.start)
        except (ApiError, ConnectionLost):
            await trio.sleep(0.1)
            continue
        if record.start:
            await _follow(caller, connection, record)
            asked = max(record.next_revision + _step(chance, record), 1)


def _step(chance: random.Random, record: WatchRecord) -> int:
    """Return how far from where it ended a watch goes on: at it, mostly, or where it asks for history or the future."""
    last = record.told[-1] if record.told else None
    if isinstance(last, WatchEnd) and last.compact_revision:
        return max(last.compact_revision - record.next_revision, 0)
    return chance.choice((0, 0, 0, 0, -20, 10))


async def _follow(caller: Caller, connection: Connection, record: WatchRecord) -> None:
    """Stay with one watch for a while; read slowly at times; ask for progress at its end."""
    chance = caller.chance
    ends = min(trio.current_time() + chance.uniform(0.5, 10), caller.world.ends_at)
    while trio.current_time() < ends and not connection.is_lost:
        connection.is_slow_reader = chance.random() < 0.2
        await trio.sleep(0.3)
        if chance.random() < 0.2:
            await _ask_progress(connection)
        if record.has_ended:
            return
    connection.is_slow_reader = False
    await _ask_progress(connection)


async def _ask_progress(connection: Connection) -> None:
    try:
        with trio.move_on_after(3):
            await connection.progress()
    except (ApiError, ConnectionLost):
        return
