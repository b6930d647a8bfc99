"""A simulated cluster: one heap of events, a network, disks with delays; all drawn from one seed.

An event is `(time, number, what, host, boot, argument)`. Events of an earlier boot are void: what a process awaited
dies with it. Messages belong to no boot and may reach a later one, as delayed as the seed likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

from attrs import define, field

from coord.protocol.messages import RaftMessage, SnapshotReceived
from coord.raft.types import Configuration
from coord.testing.raft_disk import Image, MemberDisk
from coord.testing.raft_host import Host
from coord.testing.raft_invariants import Ledger, Violation
from coord.testing.raft_options import MS, SimOptions
from coord.testing.raft_trace import Trace
from coord.types import Role

ANY_BOOT: Final = 0
_SCAN_STEPS: Final = 1000

Event = tuple[int, int, str, Any, int, Any]


@define(eq=False)
class Cluster:
    """The `World` of a seed. Faults and the workload are events like all others."""

    options: SimOptions
    trace: Trace = field(factory=Trace)
    ledger: Ledger = field(factory=Ledger)
    chance: Random = field(init=False)
    now_us: int = 0
    step: int = 0
    delay_us: tuple[int, int] = (0, 0)
    loss: float = 0.0
    duplication: float = 0.0
    late: float = 0.0
    disk_us: tuple[int, int] = (0, 0)
    apply_us: tuple[int, int] = (0, 0)
    snapshot_loss: float = 0.0
    break_us: tuple[int, int] = (0, 5 * MS)
    """How long it takes to learn that a process is gone and its port refuses."""
    slow_disks: dict[int, int] = field(factory=dict)
    """Members whose disks take up to so many microseconds more."""
    cut: set[tuple[int, int]] = field(factory=set)
    """Directed links that lose everything."""
    refused: set[tuple[int, int]] = field(factory=set)
    """Directed links that never stand again: one end is a wiped machine that the other has known before (S1)."""
    wiped: set[int] = field(factory=set)
    """Members that lost a disk."""
    parked: dict[int, list[tuple[str, int, Any]]] = field(factory=dict)
    """Events of paused members."""
    handlers: dict[str, Callable[[Any, Any], None]] = field(factory=dict)
    _heap: list[Event] = field(factory=list)
    _number: int = 0
    _last_arrival: dict[tuple[int, int], int] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        options = self.options
        self.chance = Random(options.seed ^ 0x5EED)
        self.delay_us, self.loss, self.late = options.delay_us, options.loss, options.late
        self.duplication, self.snapshot_loss = options.duplication, options.snapshot_loss
        self.disk_us, self.apply_us = options.disk_us, options.apply_us
        self.handlers = {
            "message": self._deliver,
            "tick": self._tick,
            "written": self._written,
            "apply": self._apply,
            "pump": self._pump,
            "flush": self._flush,
            "switch": self._switch,
            "snapshot": self._snapshot_arrives,
            "snapshot told": self._snapshot_told,
            "link up": self._link_up,
            "link broken": self._link_broken,
        }
        voters = frozenset(range(1, options.voters + 1))
        learners = frozenset(range(options.voters + 1, options.voters + options.learners + 1))
        bootstrap = Configuration(voters, learners)
        self.ledger.history.append((0, bootstrap))
        for member in sorted(voters | learners):
            self.add_host(member, bootstrap)
        for member in sorted(voters | learners):
            if member <= options.voters - options.absent or member in learners:
                self.start(self.hosts[member])

    # Machines.

    @property
    def hosts(self) -> dict[int, Host]:
        """All machines by member."""
        return self.ledger.hosts

    def live(self) -> list[Host]:
        """Return the hosts with a running process, also paused ones."""
        return [host for host in self.hosts.values() if host.raft is not None]

    def able(self) -> set[int]:
        """Return the members that can vote: a blank one gives no vote before it knows that it is not (S1)."""
        return {
            member
            for member, host in self.hosts.items()
            if member not in self.wiped and member not in host.recovered.configuration.blank
        }

    def leader(self) -> Host | None:
        """Return the leader of the highest term, if any."""
        leaders = [host for host in self.live() if host.raft is not None and host.raft.role is Role.LEADER]
        return max(leaders, key=lambda host: host.seen_term, default=None)

    def add_host(self, member: int, configuration: Configuration) -> Host:
        """Put up a machine with an empty disk, whose process believes in `configuration`."""
        image = Image(0, 0, 0, configuration)
        disk = MemberDisk(image, self.options.is_gathering)
        chance = Random(self.options.seed * 1000 + member)
        host = Host(member, self, self.options.raft, disk, chance.randrange)
        self.hosts[member] = host
        return host

    def start(self, host: Host) -> None:
        """Start the process of a machine; its links stand soon after."""
        self.trace.add(self.step, self.now_us, "start", host.member)
        host.start()
        draw = self.chance.randrange
        self.push(draw(self.options.tick_us), "tick", host, host.boot)
        self.push(draw(self.options.flush_interval_us), "flush", host, host.boot)
        for other in self.live():
            if other is not host:
                self.connect(host, other)

    def connect(self, one: Host, other: Host) -> None:
        """Let a link stand in each direction that is open, after a hello."""
        for here, there in ((one, other), (other, one)):
            if not self.is_open(here.member, there.member) or not self.is_open(there.member, here.member):
                continue
            here.met.add(there.member)
            self.check_hello(here, there)
            # A dial that succeeds comes after all that were refused.
            after = self.break_us[1] + self.chance.randrange(2 * MS)
            self.push(after, "link up", here, here.boot, there.member)

    def check_hello(self, here: Host, there: Host) -> None:
        """S1: a member whose disk kept what it must is never refused."""
        assert here.raft is not None
        if not here.raft.check_last_index(there.member, there.disk.last_index):
            raise Violation(f"S1: {here.member} refuses {there.member}, whose log ends at {there.disk.last_index}")

    def crash(self, host: Host, is_refusing: bool) -> None:
        """End a process at once, or take a machine's power: then nobody refuses a dial (S10)."""
        self.trace.add(self.step, self.now_us, "crash" if is_refusing else "power loss", host.member)
        queued = len(host.disk.queue)
        kept = self.chance.randrange((min(queued, 1) if self.options.is_gathering else queued) + 1)
        if host.crash(kept):
            self.ledger.count("vote or term lost in a crash")
        self.parked.pop(host.member, None)
        for other in self.live():
            if is_refusing:
                if self.is_open(other.member, host.member):
                    after = self.chance.randrange(*self.break_us)
                    self.push(after, "link broken", other, other.boot, (host.member, True))
            elif self.chance.random() < 0.5:
                after = self.chance.randrange(self.options.election_us)
                self.push(after, "link broken", other, other.boot, (host.member, False))

    def is_open(self, sender: int, to: int) -> bool:
        """Tell whether messages pass."""
        return (sender, to) not in self.cut and (sender, to) not in self.refused

    # Events.

    def push(self, after_us: int, what: str, host: Host | None, boot: int = ANY_BOOT, argument: Any = None) -> None:
        """Let something happen later."""
        self._number += 1
        heappush(self._heap, (self.now_us + after_us, self._number, what, host, boot, argument))

    def run(self, steps: int, until_us: int | None = None, is_done: Callable[[], bool] | None = None) -> bool:
        """Handle events up to a count of steps or a time; True if `is_done` came true (asked every 16 steps)."""
        heap, handlers, parked = self._heap, self.handlers, self.parked
        add = self.trace.add
        last = self.step + steps
        while heap and self.step < last:
            if until_us is not None and heap[0][0] > until_us:
                self.now_us = until_us
                break
            self.now_us, _, what, host, boot, argument = heappop(heap)
            member = 0
            if host is not None:
                if host.raft is None or (boot and boot != host.boot):
                    continue
                member = host.member
                if member in parked:
                    parked[member].append((what, boot, argument))
                    continue
            self.step = step = self.step + 1
            add(step, self.now_us, what, member, argument)
            handlers[what](host, argument)
            if step % _SCAN_STEPS == 0:
                self.ledger.scan()
            if is_done is not None and step % 16 == 0 and is_done():
                return True
        return False

    def pause(self, host: Host) -> None:
        """Stop a process as SIGSTOP does: what arrives waits."""
        self.parked[host.member] = []

    def resume(self, host: Host) -> None:
        """Go on. S11: what waits is handled first, and however long it took, one tick is given after it."""
        waiting = self.parked.pop(host.member, [])
        ticks = [event for event in waiting if event[0] == "tick"]
        for what, boot, argument in [event for event in waiting if event[0] != "tick"] + ticks[:1]:
            if host.raft is not None and (not boot or boot == host.boot):
                self.step += 1
                self.trace.add(self.step, self.now_us, what, host.member, argument)
                self.handlers[what](host, argument)

    def _deliver(self, host: Host, message: RaftMessage) -> None:
        if self.refused and (message.sender, host.member) in self.refused:
            return
        raft = host.raft
        assert raft is not None
        raft.step(message)
        if self.options.is_lazy and self.chance.random() < 0.3:
            self.ledger.look(host, raft)
            self.push(self.chance.randrange(MS), "pump", host, host.boot)
        else:
            host.pump()

    def _pump(self, host: Host, _: None) -> None:
        host.pump()

    def _tick(self, host: Host, _: None) -> None:
        self.push(self.options.tick_us, "tick", host, host.boot)
        host.tick()

    def _written(self, host: Host, _: None) -> None:
        host.written()

    def _apply(self, host: Host, _: None) -> None:
        host.apply(1 + self.chance.randrange(8) if self.chance.random() < 0.3 else 1 << 30)

    def _flush(self, host: Host, _: None) -> None:
        self.push(self.options.flush_interval_us, "flush", host, host.boot)
        host.flush(self.options.kept_entries)

    def _switch(self, host: Host, _: None) -> None:
        host.switch()

    def _link_up(self, host: Host, member: int) -> None:
        assert host.raft is not None
        host.raft.link_up(member)
        host.pump()

    def _link_broken(self, host: Host, argument: tuple[int, bool]) -> None:
        assert host.raft is not None
        host.raft.link_broken(*argument)
        host.pump()

    # What hosts wait for.

    def send(self, host: Host, message: RaftMessage) -> None:
        """Take a message on its way, or lose it."""
        self.ledger.message_leaves(host, message)
        link = (host.member, message.to)
        if link in self.cut or link in self.refused:
            return
        chance = self.chance.random
        if self.loss and chance() < self.loss:
            return
        low, high = self.delay_us
        after = low + int(chance() * (high - low))
        if self.late and chance() < self.late:
            after += int(chance() * 3 * self.options.election_us)
        to = self.hosts[message.to]
        if self.options.is_fifo:
            last = self._last_arrival.get(link, 0)
            after = max(after, last + 1 - self.now_us)
            self._last_arrival[link] = self.now_us + after
        self.push(after, "message", to, ANY_BOOT, message)
        if self.duplication and chance() < self.duplication:
            self.push(after + int(chance() * self.options.election_us), "message", to, ANY_BOOT, message)

    def write_waits(self, host: Host) -> None:
        """Let the oldest write of a disk be durable after a while."""
        low, high = self.disk_us
        high += self.slow_disks.get(host.member, 0)
        self.push(low + int(self.chance.random() * (high - low)), "written", host, host.boot)

    def apply_waits(self, host: Host) -> None:
        """Let what is committed be applied after a while."""
        low, high = self.apply_us
        self.push(low + int(self.chance.random() * (high - low)), "apply", host, host.boot)

    def switch_waits(self, host: Host) -> None:
        """Let the store take a snapshot's place after a while."""
        self.push(self.chance.randrange(50 * MS), "switch", host, host.boot)

    def snapshot_waits(self, host: Host, member: int) -> None:
        """Send the store's state (S6), which may take long and may fail."""
        assert host.raft is not None
        host.flush(self.options.kept_entries)
        image = host.disk.store
        message = SnapshotReceived(host.member, member, host.raft.term, image.index, image.term)
        after = self.chance.randrange(100 * MS)
        is_lost = self.chance.random() < self.snapshot_loss or not self.is_open(host.member, member)
        if not is_lost:
            self.push(after, "snapshot", self.hosts[member], ANY_BOOT, (message, image))
        later = after + self.chance.randrange(10 * MS) - min(after, 5 * MS)
        self.push(later, "snapshot told", host, host.boot, (member, 0 if is_lost else image.index))

    def _snapshot_arrives(self, host: Host, argument: tuple[SnapshotReceived, Image]) -> None:
        if (argument[0].sender, host.member) not in self.refused:
            host.receive_snapshot(*argument)

    def _snapshot_told(self, host: Host, argument: tuple[int, int]) -> None:
        assert host.raft is not None
        member, index = argument
        host.transfers.discard(member)
        if index:
            host.raft.snapshot_sent(member, index)
        else:
            host.raft.snapshot_failed(member)
        host.pump()

    def notice(self, host: Host, notes: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Count the core's log events, and keep them in the trace."""
        counts = self.ledger.counts
        for name, fields in notes:
            counts[name] = counts.get(name, 0) + 1
            self.trace.add(self.step, self.now_us, "  " + name, host.member, fields)
