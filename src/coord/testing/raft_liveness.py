"""What must happen once the faults end: I11, and what must *not* happen to a calm cluster (S10, S11).

Safety held all the while. Now a random connected quorum, the core, has good links, disks and processes. Everybody
outside it stays as bad as the seed likes: down, cut off, or able only to speak or only to hear. The core must elect a
leader, agree, and serve; then it must keep that leader through pauses and resets, and replace it quickly when it dies.
"""

from __future__ import annotations

from random import Random

from attrs import define, evolve, field

from coord.raft.types import Configuration
from coord.testing.raft_cluster import Cluster
from coord.testing.raft_faults import Faults
from coord.testing.raft_host import Host
from coord.testing.raft_invariants import CLUSTER, CONFIGURATION, Violation, is_quorum
from coord.testing.raft_options import MS
from coord.testing.raft_workload import Workload
from coord.types import Role

_STEPS_MAX = 200_000
_LEADER_TIMEOUTS = 30
_AGREE_TIMEOUTS = 60
_REPLACED_US = 500 * MS


@define(eq=False)
class Liveness:
    """The second half of a seed."""

    cluster: Cluster
    workload: Workload
    faults: Faults
    chance: Random = field(init=False)
    core: set[int] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.chance = Random(self.cluster.options.seed ^ 0x11FE)

    def check(self) -> None:
        """Raise `Violation` unless the core comes to agree, keeps its leader and replaces a dead one."""
        self._calm()
        if self._is_orphaned():
            self.cluster.ledger.count("orphaned by a removal")
            return
        self._converge("I11")
        self.cluster.ledger.scan()
        self._stay()
        self._replace()

    # I11.

    def _calm(self) -> None:
        cluster = self.cluster
        self.faults.is_stopped = True
        cluster.handlers["work"] = lambda _, __: None
        cluster.handlers["heal"] = lambda _, __: None
        cluster.handlers["stopped"] = lambda _, __: None
        cluster.delay_us, cluster.disk_us, cluster.apply_us = (100, 2 * MS), (100, 2 * MS), (50, 500)
        cluster.loss = cluster.late = cluster.duplication = cluster.snapshot_loss = 0.0
        # Real links end behind what was sent on them.
        cluster.break_us = (2 * MS, 5 * MS)
        cluster.slow_disks.clear()
        for member in sorted(cluster.parked):
            cluster.resume(cluster.hosts[member])
        self.core = self._choose_core()
        cluster.trace.add(cluster.step, cluster.now_us, "calm", 0, sorted(self.core))
        cluster.cut = self._cuts()
        for member in sorted(self.core):
            host = cluster.hosts[member]
            if host.is_stopping and host.raft is not None:
                cluster.crash(host, is_refusing=True)
            if host.raft is None:
                cluster.start(host)
        for member in sorted(self.core):
            for other in sorted(self.core):
                if member < other:
                    cluster.connect(cluster.hosts[member], cluster.hosts[other])
        cluster.handlers["restart"] = self._restart

    def _is_orphaned(self) -> bool:
        """Tell whether the core needs the vote of a member that was removed, and refuses it lawfully.

        Who was not told that a removal is committed still asks the removed. One that ended with a longer log gives no
        vote and, knowing that it is out, does not stand. etcd's raft documents it for two members; a joint
        configuration may have it with more. Members that hand over before they leave avoid it.
        """
        logs, removed = {}, set()
        for member in self.core:
            raft = self.cluster.hosts[member].raft
            assert raft is not None
            logs[member] = (raft.log.last_term, raft.log.last_index)
            if raft.log.applied == raft.log.committed and member not in raft.configuration.members:
                removed.add(member)
        for member in self.core - removed:
            raft = self.cluster.hosts[member].raft
            assert raft is not None
            if member not in raft.configuration.all_voters:
                continue
            willing = {other for other in self.core & self.cluster.able() if logs[other] <= logs[member]}
            if is_quorum(raft.configuration, willing | (self.core - removed)):
                return False
        return bool(removed)

    def _restart(self, _: None, member: int) -> None:
        host = self.cluster.hosts[member]
        if host.raft is None and (member in self.core or self.chance.random() < 0.5):
            self.cluster.start(host)

    def _choose_core(self) -> set[int]:
        """Return random members that are a quorum of every configuration that may still be in force somewhere."""
        hosts = self.cluster.hosts
        able = self.cluster.able()
        members = sorted(hosts.keys() - self.cluster.wiped)
        self.chance.shuffle(members)
        wanted = self._configurations()
        core: set[int] = set()
        for member in members:
            core.add(member)
            if all(is_quorum(configuration, core & able) for configuration in wanted) and self.chance.random() < 0.7:
                break
        return core

    def _configurations(self) -> list[Configuration]:
        ledger = self.cluster.ledger
        found = []
        for host in self.cluster.hosts.values():
            if host.member in self.cluster.wiped:
                continue
            image = host.recovered
            if image.index or host.member in ledger.history[0][1].voters:
                found += [image.configuration, host.image.configuration]
            entries = [*host.disk.entries, *(entry for write in host.disk.queue for entry in write.entries)]
            if host.raft is not None and host.raft.log.last_index > host.raft.log.base_index:
                entries += host.raft.log.slice(host.raft.log.base_index + 1, host.raft.log.last_index)
            for _, _, data in entries:
                if data[:1] in {CONFIGURATION, CLUSTER}:
                    found.append(ledger.configurations[int(data[1:])])
        return found

    def _cuts(self) -> set[tuple[int, int]]:
        cut: set[tuple[int, int]] = set()
        for member in sorted(self.cluster.hosts.keys() - self.core):
            manner = self.chance.choice(("down", "cut", "mute", "deaf"))
            for other in self.cluster.hosts:
                if manner != "mute" or other not in self.core:
                    cut.add((other, member))
                if manner != "deaf" or other not in self.core:
                    cut.add((member, other))
            host = self.cluster.hosts[member]
            if manner == "down" and host.raft is not None:
                self.cluster.crash(host, is_refusing=False)
        return cut

    def _converge(self, name: str) -> None:
        cluster, election = self.cluster, self.cluster.options.election_us
        started, backlog_us = cluster.now_us, self._backlog_us()
        if not cluster.run(_STEPS_MAX, started + _LEADER_TIMEOUTS * election + backlog_us, self._is_led):
            raise Violation(f"{name}: the core {sorted(self.core)} has no leader: {self._tell()}")
        cluster.ledger.count("led again")
        started = cluster.now_us
        floor = cluster.ledger.committed
        reads = {member: cluster.hosts[member].reads_done for member in self._followers()}
        while not cluster.run(_STEPS_MAX, cluster.now_us + election // 2, lambda: self._is_agreed(floor)):
            if cluster.now_us > started + _AGREE_TIMEOUTS * election + backlog_us:
                raise Violation(f"{name}: the core {sorted(self.core)} does not agree: {self._tell()}")
            self._push_on(floor)
        for member in reads:
            cluster.hosts[member].read()
        started = cluster.now_us
        while not cluster.run(_STEPS_MAX, started + _AGREE_TIMEOUTS * election, self._are_reads_done):
            raise Violation(f"I11: reads are not confirmed in the core {sorted(self.core)}: {self._tell()}")

    def _backlog_us(self) -> int:
        """Return how long copying may take at one entry a round trip, as tiny limits may force."""
        last = max((host.raft.log.last_index for host in self.cluster.live() if host.raft is not None), default=0)
        behind = min(self.cluster.hosts[member].recovered.index for member in self.core)
        return (last - behind) * 8 * MS

    def _push_on(self, floor: int) -> None:
        """Propose something new, and leave a joint configuration, as the leader's node does.

        Not without end: where no entry is kept for followers, each new one sends a slow one another snapshot.
        """
        leader = self.cluster.leader()
        if leader is None:
            return
        old = leader.image.configuration
        if old.is_joint and self.workload.settle(leader, evolve(old, outgoing=frozenset())):
            return
        if self.cluster.ledger.committed <= floor:
            self.workload.propose(leader)

    def _is_led(self) -> bool:
        leader = self.cluster.leader()
        if leader is None or leader.raft is None or not leader.raft.is_ready_to_read:
            return False
        # Who is removed leads on only to hand over.
        return leader.member in leader.raft.configuration.all_voters

    def _followers(self) -> list[int]:
        """Return the core's members that the newest configuration knows: the others hear nothing any more."""
        configuration = self.cluster.ledger.history[-1][1]
        known = configuration.voters | configuration.learners | configuration.outgoing
        return sorted(known & self.core)

    def _is_agreed(self, floor: int) -> bool:
        ledger = self.cluster.ledger
        if ledger.committed <= floor or not self._is_led() or ledger.history[-1][1].is_joint:
            return False
        for member in self._followers():
            host = self.cluster.hosts[member]
            if host.raft is None or host.image.index < ledger.committed or host.installing is not None:
                return False
            if host.raft.log.last_index != ledger.committed:
                return False
        return True

    def _are_reads_done(self) -> bool:
        return all(
            not self.cluster.hosts[member].reads and not self.cluster.hosts[member].lost_reads
            for member in self._followers()
        )

    def _tell(self) -> str:
        told = []
        for member in sorted(self.core):
            host = self.cluster.hosts[member]
            if host.raft is not None:
                raft = host.raft
                told.append(
                    f"n{member} {raft.role.name} term={raft.term} leader={raft.leader_id} applied={raft.log.applied} "
                    f"commit={raft.log.committed} last={raft.log.last_index} reads={len(host.reads)}"
                )
        return f"committed={self.cluster.ledger.committed} " + "; ".join(told)

    # A calm cluster keeps its leader (S10, S11, thesis §9.6), whatever those outside say.

    def _stay(self) -> None:
        cluster = self.cluster
        leader = cluster.leader()
        if leader is None or leader.member not in self.core:
            return
        term, election = leader.seen_term, cluster.options.election_us
        for _ in range(3):
            victim = cluster.hosts[self.chance.choice(self._followers())]
            self.chance.choice((self._pause_shortly, self._reset_links, self._deafen))(victim)
            cluster.run(_STEPS_MAX, cluster.now_us + election)
        self._expect_leader(leader, term)

    def _pause_shortly(self, victim: Host) -> None:
        """S11: a member that wakes up finds its messages, and handles them before it counts the time."""
        cluster, election = self.cluster, self.cluster.options.election_us
        configuration = cluster.ledger.history[-1][1]
        is_leader = victim is cluster.leader()
        if is_leader or not is_quorum(configuration, self.core - {victim.member}):
            # Others would lawfully elect a new leader, or the leader lose its quorum, in a longer one.
            length = cluster.options.raft.heartbeat_ticks * cluster.options.tick_us
        else:
            length = 3 * election
        cluster.pause(victim)
        cluster.run(_STEPS_MAX, cluster.now_us + length)
        cluster.resume(victim)

    def _deafen(self, victim: Host) -> None:
        """A member that hears nothing, but is heard, does not unseat the leader (thesis §4.2.3, §9.6)."""
        cluster = self.cluster
        if victim is cluster.leader() or not is_quorum(cluster.ledger.history[-1][1], self.core - {victim.member}):
            return
        cut = set(cluster.cut)
        cluster.cut |= {(other, victim.member) for other in self.core}
        cluster.run(_STEPS_MAX, cluster.now_us + 3 * cluster.options.election_us)
        cluster.cut = cut

    def _reset_links(self, victim: Host) -> None:
        """S10: links that flap under a living leader change nothing."""
        for other in self.cluster.live():
            if other is not victim and self.cluster.is_open(other.member, victim.member):
                for here, there in ((victim, other), (other, victim)):
                    self.cluster.push(0, "link broken", here, here.boot, (there.member, False))
                    self.cluster.push(MS, "link up", here, here.boot, there.member)

    def _expect_leader(self, leader: Host, term: int) -> None:
        now = self.cluster.leader()
        if now is not leader or leader.seen_term != term:
            raise Violation(
                f"S10, S11: n{leader.member} led term {term} of a calm cluster, and lost it: {self._tell()}"
            )
        self.cluster.ledger.count("leader kept")

    # A dead leader is replaced at once (S10).

    def _replace(self) -> None:
        cluster = self.cluster
        leader = cluster.leader()
        self._drop_outsiders()
        if leader is None or leader.raft is None or leader.member not in self.core:
            return
        if leader.seen_term in self.faults.lied_terms:
            return
        configuration = cluster.ledger.history[-1][1]
        counted = self.core & (configuration.voters - configuration.blank) - {leader.member}
        if configuration.is_joint or not is_quorum(configuration, counted):
            return
        started = cluster.now_us
        self.core.discard(leader.member)
        cluster.crash(leader, is_refusing=True)

        def is_replaced() -> bool:
            new = cluster.leader()
            return new is not None and new.raft is not None and new.raft.role is Role.LEADER

        if not cluster.run(_STEPS_MAX, started + _REPLACED_US, is_replaced):
            raise Violation(f"S10: {_REPLACED_US // MS} ms after its leader died, the core has none: {self._tell()}")
        cluster.ledger.count("leader replaced")
        cluster.ledger.counts["replaced in ms"] = (
            cluster.ledger.counts.get("replaced in ms", 0) + (cluster.now_us - started) // MS
        )

    def _drop_outsiders(self) -> None:
        for host in self.cluster.live():
            if host.member not in self.core:
                self.cluster.crash(host, is_refusing=False)
        self.cluster.run(_STEPS_MAX, self.cluster.now_us + self.cluster.options.election_us // 4)
