"""One simulated member: the core as it is, and around it the least of a node that treats it as a node does.

The host owns no clock and no network. What waits it hands to its `World`, which decides when a message arrives, when a
write is durable, when committed entries are applied: the simulator draws it from a seed, scripts say it line by line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, evolve, field

from coord.protocol.messages import RaftMessage, SnapshotReceived
from coord.raft.core import Raft, Ready
from coord.raft.log import RaftLog
from coord.raft.options import RaftOptions
from coord.raft.types import Entry
from coord.testing.raft_disk import Image, MemberDisk
from coord.testing.raft_invariants import Ledger, next_chain

NOOP = b"noop"


class World(Protocol):
    """What surrounds the hosts. Each call tells that something waits; the world says when it happens."""

    ledger: Ledger

    def send(self, host: Host, message: RaftMessage) -> None:
        """Take a message on its way."""

    def write_waits(self, host: Host) -> None:
        """See to it that `host.written()` is called for the oldest write."""

    def apply_waits(self, host: Host) -> None:
        """See to it that `host.apply(…)` is called."""

    def switch_waits(self, host: Host) -> None:
        """See to it that `host.switch()` is called."""

    def snapshot_waits(self, host: Host, member: int) -> None:
        """See to it that `member` is sent a snapshot of `host`'s."""

    def notice(self, host: Host, notes: Sequence[tuple[str, dict[str, object]]]) -> None:
        """Look at the core's log events."""


@define(eq=False)
class Host:
    """A machine with a disk, and the process of a member on it while it runs: then `raft` is its core."""

    member: int
    world: World
    options: RaftOptions
    disk: MemberDisk
    draw: Callable[[int], int]
    raft: Raft | None = None
    boot: int = 0
    image: Image = field(init=False)
    """The state machine: what is applied."""
    to_apply: deque[Entry] = field(factory=deque)
    installing: Image | None = None
    reads: dict[int, int] = field(factory=dict)
    """Read rounds that wait: what must be visible to them."""
    lost_reads: list[int] = field(factory=list)
    """Those that need a new round; they get it at the next tick."""
    reads_done: int = 0
    transfers: set[int] = field(factory=set)
    """Members to whom a snapshot is on its way."""
    is_stopping: bool = False
    met: set[int] = field(factory=set)
    """Members whose incarnation it knows (S1)."""
    # What the invariants remember of this process.
    seen_term: int = 0
    seen_commit: int = 0
    seen_applied: int = 0
    lead_term: int = 0
    handed_index: int = 0
    handed_commit: int = 0
    _rounds: int = 0
    _is_apply_waiting: bool = False

    def __attrs_post_init__(self) -> None:
        self.image = self.disk.store

    @property
    def recovered(self) -> Image:
        """The state with which a process would start now."""
        return self.disk.received or self.disk.store

    def start(self) -> None:
        """Start a process on what the disk holds."""
        disk = self.disk
        self.boot += 1
        image = self.image = disk.store
        log = RaftLog(base_index=image.index, base_term=image.term)
        log.committed = log.applied = image.index
        for entry in disk.entries[image.index - disk.base_index :]:
            log.append(entry)
        self.raft = Raft(self.member, self.options, log, disk.state, image.configuration, NOOP, self.draw)
        self.to_apply.clear()
        self.installing = None
        self.reads.clear()
        self.lost_reads.clear()
        self.transfers.clear()
        self.is_stopping = self._is_apply_waiting = False
        self.seen_term, self.lead_term = disk.state.term, 0
        self.seen_commit, self.seen_applied = log.committed, image.index
        self.handed_index, self.handed_commit = log.last_index, image.index
        self.world.ledger.member_is_restarted(self, log.committed)
        self.pump()

    def crash(self, kept: int) -> int:
        """End the process; of its queued writes the first `kept` reach the disk. Return how many votes were lost."""
        self.raft = None
        lost = self.disk.crash(kept)
        self.world.ledger.state_is_durable(self)
        return lost

    def tick(self) -> None:
        """Give the core a tick, and new rounds to the reads that lost theirs."""
        assert self.raft is not None
        self.raft.tick()
        if self.lost_reads:
            lost, self.lost_reads = self.lost_reads, []
            for floor in lost:
                self._read(floor)
        self.pump()

    def pump(self) -> None:
        """Do what the core asks for; the invariants look on."""
        raft, ledger = self.raft, self.world.ledger
        assert raft is not None
        ledger.look(self, raft)
        while (ready := raft.ready()) is not None:
            self._obey(raft, ready, ledger)
            ledger.look(self, raft)

    def _obey(self, raft: Raft, ready: Ready, ledger: Ledger) -> None:
        world = self.world
        if ready.notes:
            world.notice(self, ready.notes)
        if ready.entries:
            ledger.entries_are_handed(self, raft, ready.entries)
        for message in ready.messages:
            world.send(self, message)
        if ready.entries or ready.hard_state is not None:
            if self.disk.submit(ready.entries, raft.state_to_save(), ready.durable_messages):
                world.write_waits(self)
        elif ready.durable_messages and not self.disk.hold(ready.durable_messages):
            for message in ready.durable_messages:
                world.send(self, message)
        if ready.committed:
            ledger.commits_are_handed(self, ready.committed)
            self.to_apply.extend(ready.committed)
            self._apply_later()
        for round_id, index in ready.reads:
            self.reads_done += 1
            ledger.read_is_confirmed(self, self.reads.pop(round_id), index)
        for round_id in ready.lost_reads:
            self.lost_reads.append(self.reads.pop(round_id))
        for member in ready.snapshots_wanted:
            if member not in self.transfers:
                self.transfers.add(member)
                world.snapshot_waits(self, member)

    def written(self) -> None:
        """The oldest write is durable: release what waited for it, and tell the core."""
        raft, disk = self.raft, self.disk
        assert raft is not None
        write = disk.finish()
        self.world.ledger.state_is_durable(self)
        for message in write.messages:
            self.world.send(self, message)
        if write.image is None:
            raft.persisted(*write.last, write.state)
            self.world.ledger.disk_is_believed(self, raft)
        else:
            self.world.switch_waits(self)
        if disk.queue:
            self.world.write_waits(self)
        self.pump()

    def apply(self, count: int) -> None:
        """Apply up to `count` committed entries."""
        raft = self.raft
        assert raft is not None
        self._is_apply_waiting = False
        if self.installing is not None or not self.to_apply:
            return
        ledger = self.world.ledger
        image, chain, index, term = self.image, self.image.chain, self.image.index, self.image.term
        for _ in range(min(count, len(self.to_apply))):
            index, term, data = self.to_apply.popleft()
            chain = next_chain(chain, term, data)
            ledger.entry_is_applied(self, index, term, data, chain)
            configuration = ledger.configuration_in(data, image.has_cluster)
            if configuration is not None:
                image = evolve(image, configuration=configuration, has_cluster=True)
                ledger.configuration_is_applied(index, configuration)
                raft.apply_configuration(configuration)
        self.image = Image(index, term, chain, image.configuration, image.has_cluster)
        raft.applied(index)
        if self.to_apply:
            self._apply_later()
        self.pump()

    def flush(self, kept_entries: int) -> None:
        """Sync the store, if the own log is as far (S3), and release the log behind it but `kept_entries`."""
        raft, disk, image = self.raft, self.disk, self.image
        assert raft is not None
        if self.installing is not None or disk.received is not None or image.index <= disk.store.index:
            return
        if disk.term_at(image.index) != image.term or raft.log.persisted_index < image.index:
            return
        disk.store = image
        if (index := image.index - kept_entries) > 0:
            disk.release(index)
            raft.log.release(index)

    def receive_snapshot(self, message: SnapshotReceived, image: Image) -> bool:
        """A whole snapshot lies here; True if the core takes it in place of its log."""
        raft = self.raft
        assert raft is not None
        taken = self.installing is None and raft.install(message)
        if taken:
            self.to_apply.clear()
            self.installing = image
            self.handed_index, self.handed_commit = raft.log.last_index, image.index
            if self.disk.submit_snapshot(image, raft.state_to_save()):
                self.world.write_waits(self)
        self.pump()
        return taken

    def switch(self) -> None:
        """Put the received snapshot in the store's place and go on from it."""
        raft = self.raft
        assert raft is not None
        self.image = self.disk.switch()
        self.installing = None
        self.world.ledger.image_is_taken(self, self.image)
        raft.installed(self.image.configuration)
        if self.to_apply:
            self._apply_later()
        self.pump()

    def propose(self, data: bytes, awaited_by: int | None = None) -> tuple[int, int] | None:
        """Propose an entry."""
        assert self.raft is not None
        proposed = self.raft.propose(data, awaited_by)
        self.pump()
        return proposed

    def propose_configuration(self, data: bytes) -> tuple[int, int] | None:
        """Propose a configuration that was settled from what is applied here."""
        raft = self.raft
        assert raft is not None
        proposed = raft.propose_configuration(data)
        if proposed is not None:
            self.world.ledger.configuration_is_proposed(self, raft, proposed[1])
        self.pump()
        return proposed

    def read(self) -> None:
        """Start a read round: it must see all that is committed now, wherever that is known."""
        self._read(self.world.ledger.committed)
        self.pump()

    def _read(self, floor: int) -> None:
        assert self.raft is not None
        self._rounds += 1
        round_id = (self.boot << 40) | self._rounds
        self.reads[round_id] = floor
        self.raft.read_index(round_id)

    def _apply_later(self) -> None:
        if not self._is_apply_waiting:
            self._is_apply_waiting = True
            self.world.apply_waits(self)
