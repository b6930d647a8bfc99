"""Snapshots between members: whole or refused, one at a time, on a link of their own, leaving nothing behind (S6)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field
from tests.node.peer_rig import Place, Rig, dial_as, play
from tests.transport.helpers import cancelled_at
from trio import sleep

from coord.errors import DiskError
from coord.limits import KIB, MIB, PEER_PING_GIVE_UP_S
from coord.mvcc.backend import Table
from coord.node import snapshots as snapshots_module
from coord.node.snapshots import RETRY_S, Snapshotter
from coord.protocol.hello import Purpose
from coord.protocol.messages import SnapshotReceived
from coord.protocol.snapshot_protocol import (
    SnapshotChunk,
    SnapshotHead,
    SnapshotResult,
    decode_snapshot_frame,
    encode_snapshot_frame,
)
from coord.store.port import state_hash
from coord.store.store import Store
from coord.testing.sim_backend import SimBackend
from coord.testing.sim_disk import SimDisk, SimFile
from coord.testing.sim_worker import SimWorker
from coord.transport.link import Link, LinkClosed

DIRECTORY = Path("/data/snapshots")
CHUNK_BYTES = 4 * KIB


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "SNAPSHOT_CHUNK_BYTES", CHUNK_BYTES)


def fill(store: Store, entries: int, size: int) -> None:
    for index in range(store.applied_index + 1, store.applied_index + entries + 1):
        store.append(index + 1, 0, random.Random(index).randbytes(size))
        store.put_row(Table.META, b"revision", b"%d" % (index + 1))
        store.seal(index, 1 + index // 50)
    job = store.flush_job(1_000_000)
    assert job is not None
    job.run()
    store.flushed(job)


@define(eq=False)
class Site:
    """A member with a store; implements `SnapshotNode`, and installs at once what it is given."""

    rig: Rig
    disk: SimDisk
    store: Store
    snapshotter: Snapshotter = field(init=False)
    raft_term: int = 7
    first_index: int = 1
    is_useful: bool = True
    install_s: float = 0.0
    sent: list[tuple[int, int]] = field(factory=list)
    failed: list[int] = field(factory=list)
    received: list[SnapshotReceived] = field(factory=list)
    worker: SimWorker = field(init=False)

    @classmethod
    async def start(cls, place: Place, number: int, *, entries: int = 0, size: int = 1_000) -> Site:
        [rig] = await place.start(number)
        disk = SimDisk(number)
        disk.make_directory(Path("/data"))
        store = SimBackend(disk, Path("/data/store"), number).open()
        if entries:
            fill(store, entries, size)
        site = cls(rig, disk, store)
        site.worker = SimWorker(random.Random(number))
        store_worker = SimWorker(random.Random(number + 100))
        site.snapshotter = Snapshotter(
            site, rig.peers, store, disk, DIRECTORY, site.worker, store_worker, trio.current_time, rig.log
        )
        rig.peers.snapshots = site.snapshotter
        for run in (site.worker.run, store_worker.run, site.snapshotter.run):
            place.nursery.start_soon(run)
        return site

    @property
    def member_id(self) -> int:
        return self.rig.number

    @property
    def applied_index(self) -> int:
        return self.store.applied_index

    @property
    def files(self) -> list[str]:
        return self.disk.list(DIRECTORY) if self.disk.exists(DIRECTORY) else []

    def snapshot_received(self, message: SnapshotReceived, done: Callable[[bool], None]) -> None:
        self.received.append(message)

        async def install() -> None:
            await sleep(self.install_s)
            if self.is_useful:
                self.store.switch()
            done(self.is_useful)

        self.rig.place.nursery.start_soon(install)

    def snapshot_sent(self, member: int, index: int) -> None:
        self.sent.append((member, index))

    def snapshot_failed(self, member: int) -> None:
        self.failed.append(member)

    def events(self) -> list[str]:
        return [name for name in self.rig.log.names if name.startswith("snapshot.")]


async def pair(place: Place, **settings: Any) -> tuple[Site, Site]:
    leader = await Site.start(place, 1, **({"entries": 100} | settings))
    follower = await Site.start(place, 2)
    await sleep(0.5)
    return leader, follower


async def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    with trio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110  # virtual time costs nothing
            await sleep(0.01)


def test_member_that_lags_gets_the_whole_state() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        leader.snapshotter.wanted(2)
        leader.snapshotter.wanted(2)
        await until(lambda: leader.sent)
        assert leader.sent == [(2, 100)]
        assert follower.received == [SnapshotReceived(1, 2, 7, 100, 3)]
        assert state_hash(follower.store) == state_hash(leader.store)
        await sleep(0.1)
        assert leader.files == follower.files == []
        assert leader.events() == [
            "snapshot.file.started",
            "snapshot.file.finished",
            "snapshot.transfer.started",
            "snapshot.transfer.finished",
        ]
        assert follower.events() == ["snapshot.receipt.started", "snapshot.receipt.finished"]
        # The link for messages stood all the time.
        assert not leader.rig.names("broken") + follower.rig.names("broken")
        assert leader.snapshotter.held_index is None

    play(story)


def test_files_are_synced_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync of the whole would keep the log's waiting."""
    unsynced: list[Path] = []
    write = SimFile.write

    def watched(file: SimFile, offset: int, buffers: Sequence[bytes]) -> None:
        unsynced.append(file.path)
        write(file, offset, buffers)

    monkeypatch.setattr(SimFile, "write", watched)

    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        leader.snapshotter.wanted(2)
        await until(lambda: leader.sent)
        assert state_hash(follower.store) == state_hash(leader.store)
        assert not [path for path in unsynced if path.is_relative_to(DIRECTORY)]

    play(story)


def test_what_is_wanted_before_the_start_is_not_forgotten() -> None:
    async def story(place: Place) -> None:
        leader = await Site.start(place, 1, entries=100)
        leader.snapshotter.wanted(2)
        await Site.start(place, 2)
        await until(lambda: leader.sent or leader.failed)

    play(story)


def test_the_log_is_held_while_the_file_is_made() -> None:
    """Making takes seconds under load; a file that the log no longer follows on would be of no use."""

    async def story(place: Place) -> None:
        leader, _ = await pair(place)
        leader.worker.delay_s_max = 100.0
        leader.snapshotter.wanted(2)
        await until(lambda: "snapshot.file.started" in leader.events())
        assert "snapshot.file.finished" not in leader.events()
        assert leader.snapshotter.held_index == 100

    play(story)


def test_label_is_of_what_the_file_holds() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        # The applier is ahead of what the store has flushed.
        leader.store.append(102, 0, b"later")
        leader.store.seal(101, 9)
        leader.snapshotter.wanted(2)
        await until(lambda: leader.sent)
        assert [(one.index, one.log_term) for one in follower.received] == [(100, 3)]

    play(story)


def test_two_members_share_one_file() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        third = await Site.start(place, 3)
        await sleep(0.5)
        leader.snapshotter.wanted(2)
        leader.snapshotter.wanted(3)
        await until(lambda: leader.events().count("snapshot.transfer.started") == 2)
        assert len(leader.files) == 1
        assert leader.snapshotter.held_index == 100
        await until(lambda: len(leader.sent) == 2)
        assert leader.events().count("snapshot.file.finished") == 1
        assert state_hash(follower.store) == state_hash(third.store) == state_hash(leader.store)
        await sleep(0.1)
        assert leader.files == []

    play(story, size=3)


def test_file_that_the_log_has_left_behind_is_not_shared() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        third = await Site.start(place, 3)
        await sleep(0.5)
        follower.install_s = 5.0
        leader.snapshotter.wanted(2)
        await until(lambda: follower.received)
        fill(leader.store, 50, 100)
        leader.first_index = 120
        leader.snapshotter.wanted(3)
        await until(lambda: len(leader.sent) == 2)
        assert sorted(leader.sent) == [(2, 100), (3, 150)]
        assert third.store.applied_index == 150
        await sleep(0.1)
        assert leader.files == []

    play(story, size=3)


def test_transfer_that_breaks_is_told_and_leaves_nothing() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place, entries=400)
        leader.snapshotter.wanted(2)
        await until(lambda: follower.files)
        broke_at = trio.current_time()
        place.network.reset("n1", "n2")
        await until(lambda: leader.failed)
        # Not at once: consensus would ask again, and again.
        assert trio.current_time() - broke_at >= RETRY_S
        assert leader.failed == [2]
        assert not follower.received
        assert leader.files == follower.files == []
        assert "snapshot.receipt.failed" in follower.events()
        assert "snapshot.transfer.failed" in leader.events()
        leader.snapshotter.wanted(2)
        await until(lambda: leader.sent)
        assert state_hash(follower.store) == state_hash(leader.store)

    play(story)


@pytest.mark.parametrize("offset", [100, 30_000, -50])
def test_damage_on_the_way_is_found(offset: int) -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        follower.disk.observer = lambda operation: damage(operation)
        size = 0

        def damage(operation: str) -> None:
            nonlocal size
            if operation.startswith("sync received"):
                file = follower.disk.open(DIRECTORY / "received-1.part")
                size = file.size()
                place_of = offset % size
                flipped = bytes((file.read(place_of, 1)[0] ^ 1,))
                follower.disk.corrupt(DIRECTORY / "received-1.part", place_of, flipped)

        before = state_hash(follower.store)
        leader.snapshotter.wanted(2)
        await until(lambda: leader.failed)
        assert size > 60_000
        assert not follower.received
        assert state_hash(follower.store) == before
        follower.disk.observer = None
        leader.snapshotter.wanted(2)
        await until(lambda: leader.sent)
        assert state_hash(follower.store) == state_hash(leader.store)

    play(story)


def test_slow_receiver_is_waited_for_and_messages_go_on() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        follower.worker._delay_s_max = 2.0
        follower.install_s = 20.0
        leader.snapshotter.wanted(2)
        await until(lambda: leader.sent, 600.0)
        assert state_hash(follower.store) == state_hash(leader.store)
        assert not leader.rig.names("broken")

    play(story)


def test_all_transfers_share_one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(place: Place) -> None:
        leader, _ = await pair(place)
        await Site.start(place, 3)
        await sleep(0.5)
        leader.snapshotter.wanted(2)
        leader.snapshotter.wanted(3)
        await until(lambda: "snapshot.transfer.started" in leader.events())
        began = trio.current_time()
        await until(lambda: len(leader.sent) == 2)
        took_s = trio.current_time() - began
        size = leader.rig.log.of("snapshot.file.finished")[0]["bytes"]
        least_s = (2 * size - 2 * CHUNK_BYTES) / (100 * KIB)
        assert least_s <= took_s <= least_s + 0.5
        assert size > 100_000

    monkeypatch.setattr(snapshots_module, "SNAPSHOT_BYTES_PER_S", 100 * KIB)
    play(story, size=3)


def test_full_disk_is_said_before_anything_is_sent() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        follower.disk.capacity_bytes = 64 * MIB
        leader.snapshotter.wanted(2)
        await until(lambda: leader.failed)
        assert follower.events() == ["snapshot.receipt.refused"]
        assert "free space" in leader.rig.log.of("snapshot.transfer.failed")[0]["error"].args[0]
        follower.disk.capacity_bytes = None
        leader.snapshotter.wanted(2)
        await until(lambda: leader.sent)

    play(story)


def test_disk_that_fills_up_or_breaks_meanwhile() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        follower.disk.write_budget_bytes = 20_000
        leader.snapshotter.wanted(2)
        await until(lambda: leader.failed)
        assert follower.files == []
        follower.disk.write_budget_bytes = None
        leader.disk.write_budget_bytes = 20_000
        leader.snapshotter.wanted(2)
        await until(lambda: len(leader.failed) == 2)
        assert "snapshot.file.failed" in leader.events()
        leader.disk.write_budget_bytes = None
        # An error of the disk that is not about space ends the node (law 7).
        follower.disk.fail_sync_at = 1
        leader.snapshotter.wanted(2)
        await sleep(60)

    with pytest.RaisesGroup(DiskError, flatten_subgroups=True):
        play(story)


@pytest.mark.parametrize(
    ("term", "applied", "why"), [(6, 0, "its term 6 is over"), (7, 100, "entries up to 100 are applied")]
)
def test_what_is_of_no_use_is_not_even_fetched(term: int, applied: int, why: str) -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        if applied:
            fill(follower.store, applied, 10)
        leader.raft_term = term
        leader.snapshotter.wanted(2)
        await until(lambda: leader.failed)
        assert why in follower.rig.log.of("snapshot.receipt.refused")[0]["reason"]
        assert not follower.received

    play(story)


def test_what_turns_out_to_be_of_no_use_is_told() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        follower.is_useful = False
        leader.snapshotter.wanted(2)
        await until(lambda: leader.failed)
        assert follower.received
        assert not follower.snapshotter._receiver.is_installing

    play(story)


def test_second_leader_takes_the_place_of_the_first() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place, entries=400)
        other = await Site.start(place, 3, entries=500)
        await sleep(0.5)
        leader.snapshotter.wanted(2)
        await until(lambda: follower.files)
        # The old leader falls silent in the middle.
        place.network.stop("n1")
        other.raft_term = follower.raft_term = 8
        other.snapshotter.wanted(2)
        await until(lambda: other.sent)
        assert other.sent == [(2, 500)]
        assert [one.sender for one in follower.received] == [3]
        place.network.resume("n1")
        await until(lambda: leader.failed)
        assert follower.store.applied_index == 500
        assert follower.files == []

    play(story, size=3)


def test_one_that_is_being_installed_is_not_disturbed() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        other = await Site.start(place, 3, entries=500)
        await sleep(0.5)
        follower.install_s = 10.0
        leader.snapshotter.wanted(2)
        await until(lambda: follower.received)
        other.snapshotter.wanted(2)
        await until(lambda: other.failed)
        assert "being installed" in other.rig.log.of("snapshot.transfer.failed")[0]["error"].args[0]
        await until(lambda: leader.sent)
        assert follower.store.applied_index == 100

    play(story, size=3)


def test_sender_that_dies_while_it_is_installed_changes_nothing() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place)
        follower.install_s = 5.0
        leader.snapshotter.wanted(2)
        await until(lambda: follower.received)
        hash_before = state_hash(leader.store)
        place.kill(1)
        await sleep(10)
        assert state_hash(follower.store) == hash_before

    play(story)


def test_leader_that_leads_no_more_gives_up() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place, entries=400)
        leader.snapshotter.wanted(2)
        await until(lambda: follower.files)
        leader.snapshotter.stop_sending()
        await until(lambda: leader.failed, 1.0)
        await sleep(0.1)
        assert leader.files == follower.files == []

    play(story)


def test_member_that_cannot_be_reached_is_a_failure() -> None:
    async def story(place: Place) -> None:
        leader = await Site.start(place, 1, entries=10)
        await sleep(0.5)
        leader.snapshotter.wanted(2)
        leader.snapshotter.wanted(9)
        await until(lambda: len(leader.failed) == 2)
        assert leader.files == []

    play(story)


def test_member_that_falls_silent_is_given_up() -> None:
    async def story(place: Place) -> None:
        leader, follower = await pair(place, entries=400)
        leader.snapshotter.wanted(2)
        await until(lambda: follower.files)
        place.network.stop("n2")
        await until(lambda: leader.failed, PEER_PING_GIVE_UP_S + RETRY_S + 3)

    play(story)


HEAD = SnapshotHead(1, 2, 7, 100, 3, 5_000)


@pytest.mark.parametrize(
    "frames",
    [
        [b"rubbish"],
        [encode_snapshot_frame(SnapshotChunk(0, b"x"))],
        [encode_snapshot_frame(SnapshotHead(3, 2, 7, 100, 3, 5_000))],
        [encode_snapshot_frame(SnapshotHead(1, 3, 7, 100, 3, 5_000))],
        [encode_snapshot_frame(HEAD), b"rubbish"],
        [encode_snapshot_frame(HEAD), encode_snapshot_frame(HEAD)],
        [encode_snapshot_frame(HEAD), encode_snapshot_frame(SnapshotChunk(1, b"gap"))],
        [encode_snapshot_frame(HEAD), encode_snapshot_frame(SnapshotChunk(0, b""))],
        [encode_snapshot_frame(HEAD), encode_snapshot_frame(SnapshotChunk(0, bytes(5_001)))],
        [encode_snapshot_frame(HEAD), encode_snapshot_frame(SnapshotChunk(0, bytes(5_000)))],
    ],
)
def test_hostile_frames_end_the_transfer_alone(frames: list[bytes]) -> None:
    async def story(place: Place) -> None:
        follower = await Site.start(place, 2)
        await sleep(0.1)
        link = await dial_as(place, 1, Rig(place, 1, boot=1).hello(2, Purpose.SNAPSHOT), 2)
        await link.recv()
        for frame in frames:
            link.send(frame)
        with trio.fail_after(10):
            await refused_or_closed(link)
        await sleep(0.1)
        assert follower.files == []
        assert not follower.received
        assert not follower.rig.log.of("peer.task.failed")

    play(story, size=3)


async def refused_or_closed(link: Link) -> None:
    try:
        while True:
            frame = decode_snapshot_frame(await link.recv())
            assert isinstance(frame, SnapshotResult)
            assert frame.refusal
    except LinkClosed:
        return


def test_start_removes_what_an_earlier_process_left() -> None:
    async def story(place: Place) -> None:
        leader = await Site.start(place, 1)
        leader.disk.make_directory(DIRECTORY)
        for name in ("received-7.part", "snapshot.part", f"snapshot-{1:020d}-{1:020d}.snapshot"):
            leader.disk.create(DIRECTORY / name).close()
        assert len(leader.files) == 3
        await sleep(1)
        assert leader.files == []

    play(story)


@define(eq=False)
class CutShort:
    """Cancels each transfer one step later than the one before."""

    taker: Snapshotter
    step: int = 0
    outcomes: list[bool] = field(factory=list)

    async def receive(self, link: Link, sender: int) -> None:
        self.step += 1
        self.outcomes.append(await cancelled_at(self.step, lambda: self.taker.receive(link, sender)))


def test_receiving_cancelled_at_any_step_leaves_nothing() -> None:
    async def story(place: Place) -> None:
        leader = await Site.start(place, 1, entries=30, size=1_000)
        follower = await Site.start(place, 2)
        await sleep(0.5)
        cut = CutShort(follower.snapshotter)
        follower.rig.peers.snapshots = cut
        while not cut.outcomes or cut.outcomes[-1]:
            finished = len(leader.failed) + len(leader.sent)
            leader.snapshotter.wanted(2)
            await until(lambda finished=finished: len(leader.failed) + len(leader.sent) > finished)  # type: ignore[misc]
            await sleep(0.1)
            assert not follower.files + leader.files, f"step {cut.step}"
        assert cut.step > 20
        # One that was cancelled late had been handed to the node, which installs it whatever becomes of the link.
        assert follower.store.applied_index == 30

    play(story)
