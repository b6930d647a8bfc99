"""Takes a snapshot from another member: fetch, verify, stage, have it installed (S6).

One at a time. A newer transfer takes the place of one that is still being fetched, since whoever dials again has given
the first up; one that is being installed is not disturbed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import trio
from attrs import define

from coord.disk import Disk, File, remove_if_there
from coord.errors import (
    CoordError,
    DamageError,
    DataDirError,
    DecodeError,
    DiskFullError,
    NodeError,
    ProtocolViolation,
)
from coord.limits import PEER_DIAL_TIMEOUT_S, SPACE_RESERVE_BYTES
from coord.node.consensus import Log
from coord.node.worker import Worker, ignore, work
from coord.protocol.messages import SnapshotReceived
from coord.protocol.snapshot_protocol import (
    SnapshotChunk,
    SnapshotHead,
    SnapshotResult,
    decode_snapshot_frame,
    encode_snapshot_frame,
)
from coord.store.port import StorePort
from coord.store.snapshot import PART_SUFFIX
from coord.transport.link import CLOSE_INVALID_DATA, CLOSE_POLICY, Link, LinkClosed


class NotTakenError(CoordError):
    """This member does not take the snapshot, or did not get it whole; the text says why."""


class ReceivingNode(Protocol):
    """The node, as whoever brings it a snapshot sees it."""

    @property
    def member_id(self) -> int:
        """Who this is."""

    @property
    def raft_term(self) -> int:
        """The term of consensus."""

    @property
    def applied_index(self) -> int:
        """The last entry that is applied here."""

    def snapshot_received(self, message: SnapshotReceived, done: Callable[[bool], None]) -> None:
        """Install the snapshot that is verified and staged beside the store: `StorePort.switch` switches to it.

        `done` is called once: True when it is the state, False if it is of no use. Until then no other is staged.
        """


@define(eq=False)
class _Part:
    """The file as it comes in; all methods are for the worker, on which they keep their order."""

    disk: Disk
    path: Path
    _file: File | None = None

    def create(self) -> None:
        self.disk.make_directory(self.path.parent)
        remove_if_there(self.disk, self.path)
        self._file = self.disk.create(self.path)

    def write(self, offset: int, data: bytes) -> None:
        assert self._file is not None
        # At once: one sync of all at the end would keep those of the log waiting for as long as it takes.
        self._file.write_synced(offset, [data])

    def finish(self) -> None:
        assert self._file is not None
        self._file.sync()
        self._close()

    def discard(self) -> None:
        """Remove what there is of it; also after a job that a cancelled task no longer waits for."""
        self._close()
        remove_if_there(self.disk, self.path)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@define(eq=False)
class SnapshotReceiver:
    """Serves links that bring a snapshot. `worker` writes the file; `store_worker`, the store's own, stages it."""

    node: ReceivingNode
    store: StorePort
    disk: Disk
    directory: Path
    worker: Worker
    store_worker: Worker
    clock: Callable[[], float]
    log: Log
    is_installing: bool = False
    """True from the moment at which the file is whole until it is the state, or found of no use."""
    _fetching: trio.CancelScope | None = None
    _count: int = 0

    async def receive(self, link: Link, sender: int) -> None:
        """Take a snapshot from a link whose hello is done, and answer what became of it."""
        head: SnapshotHead | None = None
        try:
            with trio.move_on_after(PEER_DIAL_TIMEOUT_S):
                head = _head(decode_snapshot_frame(await link.recv()), sender, self.node.member_id)
        except (LinkClosed, ProtocolViolation) as error:
            self.log("snapshot.receipt.failed", member=sender, index=None, error=error)
            link.close(CLOSE_INVALID_DATA, str(error)[:100])
            return
        if head is None:
            link.close(CLOSE_POLICY, "no snapshot came")
            return
        refusal = ""
        try:
            self._judge(head)
        except NotTakenError as error:
            refusal = str(error)
            self.log("snapshot.receipt.refused", member=sender, index=head.index, term=head.term, reason=refusal)
        else:
            refusal = await self._take(link, head)
        link.send(encode_snapshot_frame(SnapshotResult(refusal)))

    def _judge(self, head: SnapshotHead) -> None:
        if head.term < self.node.raft_term:
            raise NotTakenError(f"its term {head.term} is over, this member is in term {self.node.raft_term}")
        if head.index <= self.node.applied_index:
            raise NotTakenError(f"entries up to {self.node.applied_index} are applied here already")
        if self.is_installing:
            raise NotTakenError("another snapshot is being installed here")
        # The file, the store that is built from it, and what deletes may need meanwhile (S16).
        needed = 2 * head.size_bytes + SPACE_RESERVE_BYTES
        self.disk.make_directory(self.directory)
        free = self.disk.free_bytes(self.directory)
        if free < needed:
            raise NotTakenError(f"the disk has {free} free bytes and {needed} are needed: free space, or grow it")

    async def _take(self, link: Link, head: SnapshotHead) -> str:
        """Fetch and install; return why it was not, or an empty text."""
        if self._fetching is not None:
            self._fetching.cancel()
        scope = self._fetching = trio.CancelScope()
        self._count += 1
        # A name of its own: what removes the file of the transfer before runs when it will.
        part = _Part(self.disk, self.directory / f"received-{self._count}{PART_SUFFIX}")
        began = self.clock()
        self.log(
            "snapshot.receipt.started", member=head.sender, index=head.index, term=head.term, bytes=head.size_bytes
        )
        refusal = "a newer snapshot took its place"
        try:
            with scope:
                await self._fetch(link, head, part)
                self._fetching = None
                await self._install_while_listening(link, head, part, began)
                refusal = ""
        except (LinkClosed, ProtocolViolation, NotTakenError, DiskFullError, DamageError, DataDirError) as error:
            # Only the file is damaged, or of a newer release, or too large: nothing of this node's own is touched.
            refusal = str(error)
        finally:
            self.worker.submit(part.discard, ignore)
            if self._fetching is scope:
                self._fetching = None
        if refusal:
            self.log("snapshot.receipt.failed", member=head.sender, index=head.index, error=refusal)
        return refusal

    async def _fetch(self, link: Link, head: SnapshotHead, part: _Part) -> None:
        await work(self.worker, part.create)
        offset = 0
        while offset < head.size_bytes:
            for data in await link.recv_many():
                frame = decode_snapshot_frame(data)
                if not isinstance(frame, SnapshotChunk) or frame.offset != offset or not frame.data:
                    raise ProtocolViolation(f"the snapshot's next chunk begins at {offset}, and this is another")
                if offset + len(frame.data) > head.size_bytes:
                    raise ProtocolViolation(f"the snapshot is longer than the {head.size_bytes} bytes it was to have")
                await work(self.worker, partial(part.write, offset, frame.data))
                offset += len(frame.data)

    async def _install_while_listening(self, link: Link, head: SnapshotHead, part: _Part, began: float) -> None:
        """Install, with the link's pings answered: it takes longer than the sender would wait in silence."""
        failure: CoordError | None = None
        self.is_installing = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_listen, link)
                try:
                    await self._install(head, part, began)
                except (NodeError, NotTakenError) as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self.is_installing = False
        if failure is not None:
            raise failure

    async def _install(self, head: SnapshotHead, part: _Part, began: float) -> None:
        await work(self.worker, part.finish)
        job = self.store.install_job(part.path, head.index, head.log_term)
        if job is None:
            raise NotTakenError("this member has caught up meanwhile")
        await work(self.store_worker, job.run)
        took_ms = round((self.clock() - began) * 1000, 1)
        self.log("snapshot.receipt.finished", member=head.sender, index=head.index, bytes=head.size_bytes, ms=took_ms)
        is_installed: list[bool] = []
        is_done = trio.Event()

        def done(outcome: bool) -> None:
            is_installed.append(outcome)
            is_done.set()

        message = SnapshotReceived(head.sender, head.to, head.term, head.index, head.log_term)
        self.node.snapshot_received(message, done)
        await is_done.wait()
        if not is_installed[0]:
            raise NotTakenError("this member has no use for it any more")


def _head(frame: object, sender: int, own_id: int) -> SnapshotHead:
    if not isinstance(frame, SnapshotHead):
        raise DecodeError("a snapshot begins with its head")
    # S2: a link speaks for its dialler alone, to this member alone.
    if (frame.sender, frame.to) != (sender, own_id):
        raise ProtocolViolation(f"a snapshot of {frame.sender:x} for {frame.to:x} on the link of {sender:x}")
    return frame


async def _listen(link: Link) -> None:
    """Read until the link ends; nothing more is to come, and a sender that has gone changes nothing."""
    try:
        while True:
            await link.recv_many()
    except LinkClosed:
        return
