"""What goes wrong in a simulated cluster: each fault has its time, and most end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attrs import define, evolve, field

from coord.testing.raft_cluster import Cluster
from coord.testing.raft_disk import Image, MemberDisk
from coord.testing.raft_host import Host
from coord.testing.raft_invariants import CLUSTER, CONFIGURATION
from coord.testing.raft_options import MS
from coord.types import Role


@define(eq=False)
class Faults:
    """Draws faults of the enabled kinds until it is stopped."""

    cluster: Cluster
    chance: Random = field(init=False)
    kinds: list[Callable[[], bool]] = field(init=False)
    is_stopped: bool = False
    lied_terms: set[int] = field(factory=set)
    """Terms in which a living member was taken for dead: their one campaign for that may be spent (S10)."""

    def __attrs_post_init__(self) -> None:
        cluster = self.cluster
        self.chance = Random(cluster.options.seed ^ 0xFA17)
        cluster.handlers |= {"fault": self._fault, "restart": self._restart, "resume": self._resume, "heal": self._heal}
        cluster.handlers |= {"join": self._join, "disk heals": self._disk_heals}
        every: dict[str, Callable[[], bool]] = {
            "crash": lambda: self._crash(is_refusing=True),
            "power": lambda: self._crash(is_refusing=False),
            "pause": self._pause,
            "partition": self._partition,
            "depose": self._depose,
            "oneway": self._one_way,
            "mesh": self._mesh,
            "flap": self._flap,
            "liar": self._lie,
            "transfer": self._transfer,
            "stop": self._stop,
            "disk": self._slow_disk,
        }
        self.kinds = [every[name] for name in sorted(cluster.options.faults) if name in every]
        if cluster.options.absent:
            self.kinds.append(self._wipe)
        if self.kinds:
            cluster.push(self._interval(), "fault", None)
        for host in list(cluster.hosts.values()):
            if host.raft is None:
                cluster.push(self.chance.randrange(10 * cluster.options.election_us), "join", None, 0, host.member)

    def _interval(self) -> int:
        return 1 + self.chance.randrange(2 * self.cluster.options.fault_interval_us)

    def _length(self) -> int:
        """Return how long something lasts: mostly about an election timeout, sometimes much longer."""
        election = self.cluster.options.election_us
        return self.chance.randrange(
            10 * MS, self.chance.choice((election // 4, 2 * election, 2 * election, 8 * election))
        )

    def _fault(self, _: None, __: None) -> None:
        if self.is_stopped:
            return
        self.cluster.push(self._interval(), "fault", None)
        kind = self.chance.choice(self.kinds)
        if kind():
            self.cluster.ledger.count("fault")

    def _victim(self) -> Host | None:
        """Return a member that runs, the leader more often than others."""
        cluster = self.cluster
        leader = cluster.leader()
        if leader is not None and leader.member not in cluster.parked and self.chance.random() < 0.4:
            return leader
        running = [host for host in cluster.live() if host.member not in cluster.parked]
        return self.chance.choice(running) if running else None

    def _crash(self, *, is_refusing: bool) -> bool:
        victims = [self._victim()]
        if self.chance.random() < 0.15:
            victims = list(self.cluster.live())
        for host in victims:
            if host is not None and host.raft is not None:
                self.cluster.crash(host, is_refusing)
                self.cluster.push(self._length(), "restart", None, 0, host.member)
        return bool(victims)

    def _restart(self, _: None, member: int) -> None:
        host = self.cluster.hosts[member]
        if host.raft is None:
            self.cluster.start(host)

    def _stop(self) -> bool:
        """A node that ends in order: it hands the lead over, stands back, then ends."""
        host = self._victim()
        if host is None or host.raft is None or host.is_stopping:
            return False
        host.is_stopping = True
        host.raft.stand_back()
        if host.raft.role is Role.LEADER and host.raft.transfer():
            self.cluster.ledger.count("transfer begun")
        host.pump()
        self.cluster.push(self._length(), "stopped", host, host.boot)
        self.cluster.handlers["stopped"] = self._stopped
        return True

    def _stopped(self, host: Host, _: None) -> None:
        self.cluster.crash(host, is_refusing=True)
        self.cluster.push(self._length(), "restart", None, 0, host.member)

    def _pause(self) -> bool:
        host = self._victim()
        if host is None:
            return False
        self.cluster.pause(host)
        self.cluster.push(self._length(), "resume", None, 0, host.member)
        return True

    def _resume(self, _: None, member: int) -> None:
        if member in self.cluster.parked:
            self.cluster.resume(self.cluster.hosts[member])

    def _partition(self) -> bool:
        members = sorted(self.cluster.hosts)
        side = {member for member in members if self.chance.random() < 0.5}
        if self.chance.random() < 0.4 and (victim := self._victim()) is not None:
            side = {victim.member}
        links = [(one, other) for one in members for other in members if (one in side) != (other in side)]
        return self._cut(links)

    def _depose(self) -> bool:
        """The leader keeps less than half of the voters for a while: what it appends meanwhile must give way."""
        leader = self.cluster.leader()
        if leader is None:
            return False
        voters = leader.image.configuration.voters
        others = sorted(voters - {leader.member})
        kept = set(self.chance.sample(others, self.chance.randrange((len(voters) - 1) // 2 + 1))) | {leader.member}
        election = self.cluster.options.election_us
        rest = [member for member in self.cluster.hosts if member not in kept]
        links = [link for one in kept for other in rest for link in ((one, other), (other, one))]
        return self._cut(links, self.chance.randrange(election, 4 * election))

    def _one_way(self) -> bool:
        members = sorted(self.cluster.hosts)
        side = {member for member in members if self.chance.random() < 0.5}
        return self._cut([(one, other) for one in side for other in members if other not in side])

    def _mesh(self) -> bool:
        """Some pairs cannot talk to each other, in one direction or both, while others can talk to both."""
        members = sorted(self.cluster.hosts)
        links = []
        for one in members:
            for other in members:
                if one < other and self.chance.random() < 0.3:
                    links += [(one, other), (other, one)] if self.chance.random() < 0.7 else [(one, other)]
        return self._cut(links)

    def _cut(self, links: list[tuple[int, int]], length_us: int = 0) -> bool:
        cluster = self.cluster
        cluster.cut.update(links)
        cluster.trace.add(cluster.step, cluster.now_us, "cut", 0, links)
        for one, other in links:
            host = cluster.hosts[one]
            if host.raft is not None and self.chance.random() < 0.3:
                after = self.chance.randrange(cluster.options.election_us)
                cluster.push(after, "link broken", host, host.boot, (other, False))
        cluster.push(length_us or self._length(), "heal", None, 0, links)
        return bool(links)

    def _heal(self, _: None, links: list[tuple[int, int]]) -> None:
        cluster = self.cluster
        cluster.cut.difference_update(links)
        for one, other in links:
            if one < other and cluster.hosts[one].raft is not None and cluster.hosts[other].raft is not None:
                cluster.connect(cluster.hosts[one], cluster.hosts[other])

    def _flap(self) -> bool:
        """Connections are reset, as by a middlebox, and stand again at once (S10)."""
        cluster = self.cluster
        live = cluster.live()
        for one in live:
            for other in live:
                if one is not other and self.chance.random() < 0.5:
                    cluster.push(self.chance.randrange(MS), "link broken", one, one.boot, (other.member, False))
                    cluster.push(MS + self.chance.randrange(5 * MS), "link up", one, one.boot, other.member)
        return bool(live)

    def _lie(self) -> bool:
        """A dial is refused though the process lives, as by a firewall."""
        live = self.cluster.live()
        if len(live) < 2:
            return False
        one, other = self.chance.sample(live, 2)
        self.lied_terms.add(other.seen_term)
        self.cluster.push(0, "link broken", one, one.boot, (other.member, True))
        return True

    def _transfer(self) -> bool:
        leader = self.cluster.leader()
        if leader is None or leader.raft is None or leader.member in self.cluster.parked:
            return False
        wanted = self.chance.choice([0, 0, *sorted(self.cluster.hosts)])
        if leader.raft.transfer(wanted):
            self.cluster.ledger.count("transfer begun")
        leader.pump()
        return True

    def _slow_disk(self) -> bool:
        host = self._victim()
        if host is None:
            return False
        election = self.cluster.options.election_us
        self.cluster.slow_disks[host.member] = self.chance.choice((election // 10, election, 6 * election))
        self.cluster.push(self._length(), "disk heals", None, 0, host.member)
        return True

    def _disk_heals(self, _: None, member: int) -> None:
        self.cluster.slow_disks.pop(member, None)

    def _join(self, _: None, member: int) -> None:
        """An initial member comes late: others have a cluster id, so that it joins blank (S1)."""
        cluster = self.cluster
        host = cluster.hosts[member]
        if host.raft is not None:
            return
        if not any(other.image.has_cluster for other in cluster.live()):
            cluster.push(cluster.options.election_us, "join", None, 0, member)
            return
        self._blank(host)
        if self.chance.random() < 0.5:
            known = self.chance.choice(sorted(cluster.hosts))
            others = [other for other in cluster.hosts if other not in {member, known}]
            self._cut([link for other in others for link in ((member, other), (other, member))])
        cluster.start(host)

    def _wipe(self) -> bool:
        """A member loses its disk before its incarnation was ever proposed: S1 lets it join again, blank.

        Members that met it before refuse it from now on, which is why so few of the others may have.
        """
        cluster = self.cluster
        for host in cluster.live():
            if host.member in cluster.parked or not self._is_blank_everywhere(host.member):
                continue
            met = {other.member for other in cluster.hosts.values() if host.member in other.met}
            links = {link for other in met for link in ((host.member, other), (other, host.member))}
            if 2 * len(met) >= len(cluster.hosts):
                continue
            cluster.crash(host, is_refusing=False)
            cluster.ledger.forget_votes(host.member)
            cluster.refused |= links
            cluster.wiped.add(host.member)
            self._blank(host)
            cluster.start(host)
            cluster.ledger.count("blank member wiped")
            return True
        return False

    def _is_blank_everywhere(self, member: int) -> bool:
        ledger = self.cluster.ledger
        for host in self.cluster.hosts.values():
            if host.image.has_cluster and member not in host.image.configuration.blank:
                return False
            for _, _, data in [*host.disk.entries, *(entry for write in host.disk.queue for entry in write.entries)]:
                if data[:1] in {CONFIGURATION, CLUSTER} and member not in ledger.configurations[int(data[1:])].blank:
                    return False
        return any(host.image.has_cluster for host in self.cluster.live())

    def _blank(self, host: Host) -> None:
        bootstrap = self.cluster.ledger.history[0][1]
        image = Image(0, 0, 0, evolve(bootstrap, blank=frozenset({host.member})))
        host.disk = MemberDisk(image, self.cluster.options.is_gathering)
        host.image = image
        host.met = set()
