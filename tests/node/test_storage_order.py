"""What the disk allows, and when: messages that rest on a write (law 2), flushes behind the own log (S3, S4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import define, field

from coord.codec import encode
from coord.mvcc.machine import StateMachine
from coord.node.keeper import StoreKeeper
from coord.node.log_writer import LogWriter
from coord.node.worker import Done, Job
from coord.observe.log import RecordingLog
from coord.protocol.entries import NOTHING, Frame, WritesHeader, encode_writes
from coord.protocol.messages import AppendReply, RaftMessage
from coord.protocol.ops import Op
from coord.raft.log import RaftLog
from coord.raft.types import Entry, HardState
from coord.store.store import Store
from coord.testing.sim_backend import SimBackend
from coord.testing.sim_disk import SimDisk
from coord.wal.record import SnapshotMark
from coord.wal.recovery import Recovery, recover

DIRECTORY = Path("/data")


@define
class HeldWorker:
    """Does its jobs when told."""

    jobs: list[tuple[Job, Done]] = field(factory=list)
    is_quick: bool = False

    def submit(self, job: Job, done: Done, *, is_short: bool = False) -> None:
        self.jobs.append((job, done))

    def close(self) -> bool:
        return True

    def work(self, count: int = 1) -> None:
        for _ in range(count):
            job, done = self.jobs.pop(0)
            job()
            done(None)


@define(eq=False)
class Desk:
    """A log writer on a simulated disk; `sent` and `persisted` are what came out."""

    disk: SimDisk = field(factory=lambda: SimDisk(1))
    worker: HeldWorker = field(factory=HeldWorker)
    sent: list[RaftMessage] = field(factory=list)
    persisted: list[tuple[int, int, HardState]] = field(factory=list)
    writer: LogWriter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.disk.make_directory(DIRECTORY)
        wal, _ = recover(self.disk, DIRECTORY / "wal", 1, salt=lambda: 7, segment_bytes=64 * 1024)
        self.writer = LogWriter(
            wal,
            self.worker,
            HeldWorker(),
            lambda: 0.0,
            RecordingLog(),
            lambda: None,
            lambda *completion: self.persisted.append(completion),
            self.sent.extend,
            lambda took_s: None,
        )

    def turn(self) -> None:
        self.writer.turn()

    def recovered(self) -> Recovery:
        image = self.disk.image()
        image.crash()
        return recover(image, DIRECTORY / "wal", 1, salt=lambda: 7, segment_bytes=64 * 1024)[1]


def entries(term: int, *indexes: int) -> list[Entry]:
    return [(index, term, b"%d/%d" % (term, index)) for index in indexes]


def reply(index: int) -> AppendReply:
    return AppendReply(1, 2, 1, index)


def test_message_leaves_when_its_write_is_durable() -> None:
    """I7: an acknowledgement that leaves before could be forgotten by a crash."""
    desk = Desk()
    desk.writer.append(entries(1, 1), HardState(1), [reply(1)])
    desk.turn()
    assert desk.sent == []
    desk.worker.work()
    assert desk.sent == [reply(1)]
    assert desk.recovered().last_index == 1


def test_message_without_a_write_waits_for_the_one_that_is_out() -> None:
    desk = Desk()
    desk.writer.hold([reply(0)])
    assert desk.sent == [reply(0)]
    desk.writer.append(entries(1, 1), HardState(1))
    desk.turn()
    desk.writer.hold([reply(1)])
    desk.writer.append(entries(1, 2), HardState(1))
    desk.writer.hold([reply(2)])
    assert desk.sent == [reply(0)]
    desk.worker.work()
    assert desk.sent == [reply(0), reply(1)]
    desk.turn()
    desk.worker.work()
    assert desk.sent == [reply(0), reply(1), reply(2)]


@pytest.mark.parametrize(
    ("is_quick", "is_due", "size", "waits"),
    [(True, True, 4_000, True), (True, False, 10, False), (False, True, 10, False), (True, True, 5_000, False)],
)
def test_a_write_that_is_over_at_once_waits_for_the_answers_that_are_due(
    is_quick: bool, is_due: bool, size: int, waits: bool
) -> None:
    desk = Desk()
    desk.worker.is_quick = is_quick
    desk.writer.is_answer_due = lambda: is_due
    desk.writer.append([(1, 1, bytes(size))], HardState(1))
    desk.turn()
    assert bool(desk.worker.jobs) == (not waits)
    desk.writer.turn_late()
    assert len(desk.worker.jobs) == 1
    desk.writer.append(entries(1, 2), HardState(1))
    desk.writer.turn_late()
    assert len(desk.worker.jobs) == 1, "one at a time"


def test_vote_alone_is_a_write() -> None:
    desk = Desk()
    desk.writer.append([], HardState(3, 2), [reply(0)])
    desk.turn()
    assert desk.sent == []
    desk.worker.work()
    assert desk.sent == [reply(0)]
    assert desk.recovered().hard_state == HardState(3, 2)


def test_overwritten_entries_are_not_written() -> None:
    desk = Desk()
    desk.writer.append(entries(1, 1, 2, 3), HardState(1))
    desk.turn()
    desk.writer.append(entries(1, 4, 5, 6), HardState(1))
    desk.writer.append(entries(2, 5), HardState(2))
    desk.worker.work()
    desk.turn()
    desk.worker.work()
    assert desk.persisted == [(1, 3, HardState(1)), (2, 5, HardState(2))]
    assert desk.recovered().entries == [*entries(1, 1, 2, 3, 4), *entries(2, 5)]


def test_entries_that_overwrite_more_than_the_queue_do_so_on_disk() -> None:
    desk = Desk()
    desk.writer.append(entries(1, 1, 2, 3), HardState(1))
    desk.turn()
    desk.writer.append(entries(1, 4), HardState(1))
    desk.writer.append(entries(2, 2), HardState(2))
    desk.worker.work()
    desk.turn()
    desk.worker.work()
    assert desk.recovered().entries == [*entries(1, 1), *entries(2, 2)]


def test_mark_of_a_snapshot_comes_behind_what_was_queued() -> None:
    """S6: the mark is durable when its caller hears so, and what follows it in the queue follows it in the log."""
    desk = Desk()
    marked: list[Recovery] = []
    desk.writer.append(entries(1, 1, 2), HardState(1))
    desk.turn()
    desk.writer.append(entries(1, 3), HardState(1))
    desk.writer.mark(SnapshotMark(10, 2, b""), HardState(2, 0, 10), lambda: marked.append(desk.recovered()))
    desk.writer.append(entries(2, 11), HardState(2, 0, 10))
    for _ in range(3):
        assert not marked
        desk.worker.work()
        desk.turn()
    found = marked[0]
    assert found.snapshot == SnapshotMark(10, 2, b"")
    assert (found.start_index, found.entries) == (10, entries(2, 11))
    assert desk.writer.is_idle


@define(eq=False)
class StoreDesk:
    """A store keeper over a simulated store, and a log whose durable end the test moves."""

    worker: HeldWorker = field(factory=HeldWorker)
    raft_log: RaftLog = field(factory=RaftLog)
    catch_up_entries: int = 5_000
    needed: int = 10**9
    medium: SimBackend = field(init=False)
    store: Store = field(init=False)
    machine: StateMachine = field(init=False)
    keeper: StoreKeeper = field(init=False)

    def __attrs_post_init__(self) -> None:
        disk = SimDisk(1)
        disk.make_directory(DIRECTORY)
        self.medium = SimBackend(disk, DIRECTORY / "store", 1)
        self.store = self.medium.open()
        self.machine = StateMachine(self.store)
        self.keeper = StoreKeeper(
            store=self.store,
            machine=self.machine,
            raft_log=self.raft_log,
            worker=self.worker,
            clock=lambda: 0.0,
            log=RecordingLog(),
            wake=lambda: None,
            release_wal=lambda index: None,
            observe_commit=lambda took_s: None,
            is_log_full=lambda: False,
            log_bytes=lambda: 0,
            needed_index=lambda: self.needed,
            on_flushed=lambda: None,
            sync_every_entries=1_000_000,
            catch_up_entries=self.catch_up_entries,
            catch_up_entries_max=10 * self.catch_up_entries,
        )

    def apply(self, last: int, *, durable: int) -> None:
        while (index := self.raft_log.last_index + 1) <= last:
            body = encode([[0, int(Op.PUT), None, [b"k", b"%d" % index]]])
            data = encode_writes(WritesHeader(1, index, 128), [Frame(0, 0, "", NOTHING, body)])
            self.raft_log.append((index, 1, data))
            self.machine.apply(index, 1, data)
        self.raft_log.committed = self.raft_log.applied = last
        self.raft_log.persisted_index = durable

    def flush(self) -> list[int]:
        """Ask for a flush; return a list that gets the store's applied index when it is done."""
        done: list[int] = []
        self.keeper.flush(lambda: done.append(self.store.applied_index))
        self.keeper.turn()
        return done

    def work(self) -> None:
        while self.worker.jobs:
            self.worker.work()
            self.keeper.turn()


def test_store_stays_behind_the_own_log() -> None:
    """S3: the others commit what the own disk does not have yet; a power loss now must not leave the store ahead."""
    desk = StoreDesk()
    desk.apply(3, durable=3)
    first = desk.flush()
    desk.work()
    assert first == [3]
    desk.apply(9, durable=5)
    second = desk.flush()
    desk.work()
    assert second == []
    assert desk.store.applied_index <= 5
    desk.raft_log.persisted_index = 9
    desk.keeper.turn()
    desk.work()
    assert second == [9]


def test_flush_is_done_though_more_is_applied_meanwhile() -> None:
    """What is asked for ends, though the own disk is always behind what is applied."""
    desk = StoreDesk()
    desk.apply(9, durable=5)
    done = desk.flush()
    desk.apply(20, durable=12)
    desk.keeper.turn()
    desk.work()
    assert done == [9]


def test_keeper_rests_while_the_store_is_switched() -> None:
    desk = StoreDesk()
    desk.apply(3, durable=3)
    desk.keeper.is_held = True
    done = desk.flush()
    assert not desk.worker.jobs
    assert not done
    desk.keeper.switched()
    assert done


def test_log_keeps_what_is_about_to_be_sent() -> None:
    """A member that is being brought up to date must not need a snapshot again when it has one."""
    desk = StoreDesk(catch_up_entries=5)
    released: list[tuple[int, int]] = []
    for last, needed in ((20, 20), (40, 18), (60, 18), (100, 18), (120, 115)):
        desk.needed = needed
        desk.apply(last, durable=last)
        desk.flush()
        desk.work()
        released.append((last, desk.raft_log.base_index))
    assert released == [(20, 15), (40, 18), (60, 18), (100, 50), (120, 115)]


def test_log_of_large_entries_keeps_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.keeper.LOG_BYTES_IN_MEMORY_MAX", 1_000)
    desk = StoreDesk(catch_up_entries=64)
    desk.apply(100, durable=100)
    desk.flush()
    desk.work()
    log = desk.raft_log
    assert 0 < log.size_bytes <= 1_000
    assert log.bytes_above(log.base_index) + len(log.slice(log.last_index, log.last_index)[0][2]) > 1_000, "no fewer"


def test_log_may_grow_while_a_member_is_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written during a snapshot is needed behind it, or the member would need the next one, and so on."""
    monkeypatch.setattr("coord.node.keeper.LOG_BYTES_IN_MEMORY_MAX", 100)
    desk = StoreDesk(catch_up_entries=20)
    desk.needed = 30
    desk.apply(100, durable=100)
    desk.flush()
    desk.work()
    assert desk.raft_log.base_index == 30


@pytest.mark.parametrize(("needed", "kept"), [(90, 90), (30, 30), (2, 12)])
def test_log_of_large_entries_may_grow_while_a_member_is_brought_up_to_date(
    monkeypatch: pytest.MonkeyPatch, needed: int, kept: int
) -> None:
    """Few as they are: what counts is that the member will ask for them. And no further than there is room."""
    desk = StoreDesk(catch_up_entries=200)
    desk.needed = needed
    desk.apply(100, durable=100)
    log = desk.raft_log
    monkeypatch.setattr("coord.node.keeper.LOG_BYTES_IN_MEMORY_MAX", log.bytes_above(90))
    monkeypatch.setattr("coord.node.keeper.LOG_BYTES_CATCHING_UP_MAX", log.bytes_above(12))
    desk.flush()
    desk.work()
    assert log.base_index == kept
