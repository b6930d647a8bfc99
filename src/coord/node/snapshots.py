"""Brings the whole state to members whose next entry has left the log: a file, on a connection of its own (S6)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio
from attrs import define, field

from coord.disk import Disk, File, remove_if_there
from coord.errors import CoordError, DamageError, DiskFullError, ProtocolViolation
from coord.limits import SNAPSHOT_BYTES_PER_S, SNAPSHOT_CHUNK_BYTES
from coord.node.consensus import Log
from coord.node.snapshot_receiver import NotTakenError, ReceivingNode, SnapshotReceiver
from coord.node.worker import Worker, ignore, work
from coord.protocol.snapshot_protocol import (
    SnapshotChunk,
    SnapshotHead,
    SnapshotResult,
    decode_snapshot_frame,
    encode_snapshot_frame,
)
from coord.store.port import StorePort
from coord.store.snapshot_jobs import clean_snapshots
from coord.transport.link import Link, LinkClosed, LinkFailed

RETRY_S: Final = 1.0
"""Consensus hears of a failure after this time, and asks again at once if the member still needs it."""


class SnapshotNode(ReceivingNode, Protocol):
    """The node, as its snapshotter sees it."""

    @property
    def first_index(self) -> int:
        """The first entry that the log still holds: a snapshot that ends before the one ahead of it is of no use."""

    def snapshot_sent(self, member: int, index: int) -> None:
        """`member` has installed a snapshot at `index`."""

    def snapshot_failed(self, member: int) -> None:
        """`member` did not get the snapshot that it needs."""


class SnapshotLinks(Protocol):
    """What is needed of `Peers`."""

    async def open_snapshot_link(self, member: int) -> Link:
        """Return a link of its own for a snapshot to `member`. Raises `LinkFailed`."""


@define(eq=False)
class _SnapshotFile:
    """A snapshot of this member's store; those who send it at the same time share it."""

    floor: int
    """What the store held when it was asked for: `index` will not be below."""
    is_made: trio.Event = field(factory=trio.Event)
    failure: CoordError | None = None
    path: Path = Path()
    index: int = 0
    log_term: int = 0
    size_bytes: int = 0
    users: int = 0


@define(eq=False)
class _Source:
    """Reads a file; all methods are for the worker, on which they keep their order."""

    disk: Disk
    path: Path
    _file: File | None = None

    def read(self, offset: int) -> bytes:
        if self._file is None:
            self._file = self.disk.open(self.path)
        return self._file.read(offset, SNAPSHOT_CHUNK_BYTES)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@define(eq=False)
class Snapshotter:
    """Makes, sends and takes snapshots. `run` is its task.

    `worker` is its own: writing a large store takes seconds, in which neither log nor store may wait. `store_worker`
    is the store's, since what is staged there may not meet a flush.
    """

    node: SnapshotNode
    links: SnapshotLinks
    store: StorePort
    disk: Disk
    directory: Path
    worker: Worker
    store_worker: Worker
    clock: Callable[[], float]
    log: Log
    _receiver: SnapshotReceiver = field(init=False)
    _transfers: dict[int, trio.CancelScope] = field(factory=dict)
    _file: _SnapshotFile | None = None
    _free_at: float = 0.0
    """When the next chunk may leave, by the rate."""
    _nursery: trio.Nursery | None = None

    def __attrs_post_init__(self) -> None:
        self._receiver = SnapshotReceiver(
            self.node,
            self.store,
            self.disk,
            self.directory,
            self.worker,
            self.store_worker,
            self.clock,
            self.log,
        )

    def wanted(self, member: int) -> None:
        """Bring `member` a snapshot, unless that is under way; `snapshot_sent` or `snapshot_failed` tells the end."""
        if member in self._transfers:
            return
        scope = self._transfers[member] = trio.CancelScope()
        if self._nursery is not None:
            self._nursery.start_soon(self._transfer, member, scope)

    def stop_sending(self) -> None:
        """Give up all transfers: this member leads no more."""
        for scope in self._transfers.values():
            scope.cancel()

    @property
    def held_index(self) -> int | None:
        """The index of the snapshot that is under way, if any: entries behind it will be asked for next."""
        file = self._file
        return (file.index or file.floor) if file is not None and file.users else None

    async def receive(self, link: Link, sender: int) -> None:
        """See `SnapshotTaker`."""
        await self._receiver.receive(link, sender)

    async def run(self) -> None:
        """Serve until cancelled; what an earlier process left is removed first."""
        await work(self.worker, partial(clean_snapshots, self.disk, self.directory, keep=0))
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for member, scope in self._transfers.items():
                nursery.start_soon(self._transfer, member, scope)
            await trio.sleep_forever()

    # ---- one transfer

    async def _transfer(self, member: int, scope: trio.CancelScope) -> None:
        index: int | None = None
        try:
            with scope:
                try:
                    index = await self._bring(member)
                except (LinkFailed, LinkClosed, ProtocolViolation, NotTakenError, DiskFullError, DamageError) as error:
                    self.log("snapshot.transfer.failed", member=member, error=error)
                    await trio.sleep(RETRY_S)
        finally:
            del self._transfers[member]
        if index is None:
            self.node.snapshot_failed(member)
        else:
            self.node.snapshot_sent(member, index)

    async def _bring(self, member: int) -> int:
        """Send a snapshot; return its index when `member` has installed it."""
        file = self._current_file()
        file.users += 1
        source = _Source(self.disk, file.path)
        try:
            await file.is_made.wait()
            if file.failure is not None:
                raise NotTakenError(str(file.failure))
            source.path = file.path
            link = await self.links.open_snapshot_link(member)
            try:
                await self._send(link, member, file, source)
            finally:
                link.close()
                link.abort()
        finally:
            self.worker.submit(source.close, ignore)
            file.users -= 1
            if not file.users and file.is_made.is_set():
                self._forget(file)
        return file.index

    async def _send(self, link: Link, member: int, file: _SnapshotFile, source: _Source) -> None:
        """Send head and chunks, and wait for the result, which may come before the end."""
        began = self.clock()
        term = self.node.raft_term
        self.log("snapshot.transfer.started", member=member, index=file.index, bytes=file.size_bytes)
        head = SnapshotHead(self.node.member_id, member, term, file.index, file.log_term, file.size_bytes)
        link.send(encode_snapshot_frame(head))
        outcome: SnapshotResult | CoordError = NotTakenError("it ended without a result")

        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                nonlocal outcome
                try:
                    frame = decode_snapshot_frame(await link.recv())
                    outcome = frame if isinstance(frame, SnapshotResult) else ProtocolViolation("not a result")
                except (LinkClosed, ProtocolViolation) as error:
                    outcome = error
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            offset = 0
            while offset < file.size_bytes and link.closed is None:
                data = await work(self.worker, partial(source.read, offset))
                await self._wait_turn(len(data))
                link.send(encode_snapshot_frame(SnapshotChunk(offset, data)))
                offset += len(data)
                await _wait_drained(link)
        if isinstance(outcome, CoordError):
            raise outcome
        if outcome.refusal:
            raise NotTakenError(f"the member did not take it: {outcome.refusal}")
        took_ms = round((self.clock() - began) * 1000, 1)
        self.log("snapshot.transfer.finished", member=member, index=file.index, bytes=file.size_bytes, ms=took_ms)

    async def _wait_turn(self, size_bytes: int) -> None:
        """S6: all transfers share one rate, so that heartbeats do not queue behind them."""
        now = self.clock()
        starts = max(now, self._free_at)
        self._free_at = starts + size_bytes / SNAPSHOT_BYTES_PER_S
        await trio.sleep(starts - now)

    # ---- the file

    def _current_file(self) -> _SnapshotFile:
        """Return the file that is made or sent now, if the log goes on behind it, else a new one."""
        file = self._file
        is_stale = file is not None and file.is_made.is_set() and file.index + 1 < self.node.first_index
        if file is None or is_stale:
            file = self._file = _SnapshotFile(self.store.applied_index)
            assert self._nursery is not None
            self._nursery.start_soon(self._make, file)
        return file

    async def _make(self, file: _SnapshotFile) -> None:
        began = self.clock()
        job = self.store.snapshot_job(self.directory)
        self.log("snapshot.file.started")
        try:
            await work(self.worker, job.run)
            # S6: index and term are the file's own, read inside the transaction that it was copied from.
            file.index, file.log_term, file.path = job.index, job.term, job.path
            file.size_bytes = await work(self.worker, partial(_size, self.disk, job.path))
        except (DiskFullError, DamageError) as error:
            file.failure = error
            self.log("snapshot.file.failed", error=error)
        else:
            took_ms = round((self.clock() - began) * 1000, 1)
            self.log(
                "snapshot.file.finished", index=file.index, log_term=file.log_term, bytes=file.size_bytes, ms=took_ms
            )
        file.is_made.set()
        if not file.users or file.failure is not None:
            self._forget(file)

    def _forget(self, file: _SnapshotFile) -> None:
        if self._file is file:
            self._file = None
        if file.failure is None:
            self.worker.submit(partial(remove_if_there, self.disk, file.path), ignore)


async def _wait_drained(link: Link) -> None:
    """Wait for room; the end of the link is told to whoever receives from it."""
    try:
        await link.wait_drained(SNAPSHOT_CHUNK_BYTES)
    except LinkClosed:
        return


def _size(disk: Disk, path: Path) -> int:
    file = disk.open(path)
    try:
        return file.size()
    finally:
        file.close()
