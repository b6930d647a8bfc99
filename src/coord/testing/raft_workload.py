"""What the members are asked to do while things go wrong: entries, reads, changes of the members."""

from __future__ import annotations

from random import Random

from attrs import define, evolve, field

from coord.raft.types import Configuration
from coord.testing.raft_cluster import Cluster
from coord.testing.raft_host import Host
from coord.testing.raft_invariants import CLUSTER, is_quorum
from coord.types import Role

_HOSTS_MAX = 10
_READS_MAX = 6


@define(eq=False)
class Workload:
    """Asks from within the run, at random; the leader's part of membership is done as a node does it (S12)."""

    cluster: Cluster
    chance: Random = field(init=False)
    proposals: int = 0
    changes: int = 0

    def __attrs_post_init__(self) -> None:
        self.chance = Random(self.cluster.options.seed ^ 0x30AD)
        self.cluster.handlers["work"] = self._work
        self.cluster.push(0, "work", None)

    def _work(self, _: None, __: None) -> None:
        cluster, chance = self.cluster, self.chance
        cluster.push(1 + chance.randrange(2 * cluster.options.work_interval_us), "work", None)
        live = [host for host in cluster.live() if host.member not in cluster.parked]
        if not live:
            return
        host = chance.choice(live)
        drawn = chance.random()
        if drawn < 0.25:
            if len(host.reads) + len(host.lost_reads) < _READS_MAX:
                host.read()
            return
        # Also one that was deposed and does not know it yet: its entries will have to give way.
        leaders = [other for other in live if other.lead_term and other.raft and other.raft.role is Role.LEADER]
        leader = host if drawn < 0.3 or not leaders else chance.choice(leaders)
        assert leader.raft is not None
        if leader.raft.role is Role.LEADER and self._change(leader):
            return
        count = 1 + chance.randrange(5) if chance.random() < 0.1 else 1
        for _number in range(count):
            self.propose(leader)

    def propose(self, host: Host) -> tuple[int, int] | None:
        """Propose an entry of its own, which all wait for, or a client of the leader's or of another member's."""
        self.proposals += 1
        others = sorted(host.raft.configuration.members) if host.raft is not None else []
        awaited_by = self.chance.choice((None, host.member, self.chance.choice([*others, host.member])))
        return host.propose(b"%d" % self.proposals + b"." * self.chance.choice((0, 0, 10, 100)), awaited_by)

    def _change(self, leader: Host) -> bool:
        """Change the configuration, if it is time; True if something was proposed."""
        cluster, image = self.cluster, leader.image
        old = image.configuration
        has_members = "members" in cluster.options.faults
        if cluster.options.absent and not image.has_cluster:
            blank = old.voters - leader.met - {leader.member}
            if not self.is_viable(evolve(old, blank=blank)):
                return False
            data = cluster.ledger.add_configuration(evolve(old, blank=blank), CLUSTER)
            return leader.propose_configuration(data) is not None
        if old.is_joint and self.chance.random() < 0.2:
            return self.settle(leader, evolve(old, outgoing=frozenset()))
        if self.chance.random() < 0.2:
            known = sorted(
                member
                for member in old.blank & leader.met
                if cluster.hosts[member].raft is not None and (leader.member, member) not in cluster.refused
            )
            if known:
                return self.settle(leader, evolve(old, blank=old.blank - {known[0]}))
        if has_members and not old.is_joint and self.chance.random() < 0.05:
            new = self._draw(old)
            return new is not None and self.settle(leader, new)
        return False

    def settle(self, leader: Host, new: Configuration) -> bool:
        """Propose a configuration that keeps a quorum possible; new members start when it is proposed."""
        cluster, old = self.cluster, leader.image.configuration
        if not self.is_viable(new):
            return False
        if leader.member not in new.voters | new.outgoing and not is_quorum(old, cluster.able() - {leader.member}):
            # Who is left might never learn that this was committed, and need the vote of a member that is gone (etcd's
            # raft has this in its documentation): a node hands the lead over first.
            assert leader.raft is not None
            leader.raft.transfer()
            leader.pump()
            return False
        proposed = leader.propose_configuration(cluster.ledger.add_configuration(new))
        if proposed is None:
            return False
        self.changes += 1
        for member in sorted((new.voters | new.learners) - cluster.hosts.keys()):
            # S1: it joins blank, told by a member who the voters are.
            told = evolve(old, learners=old.learners | {member}, blank=old.blank | {member})
            cluster.start(cluster.add_host(member, told))
        return True

    def is_viable(self, configuration: Configuration) -> bool:
        """Tell whether members that can come back, and know that they are not blank, are a quorum."""
        return is_quorum(configuration, self.cluster.able())

    def _draw(self, old: Configuration) -> Configuration | None:
        """Return a lawful next configuration: one voter more or less, or a joint one with up to two of each."""
        chance, hosts = self.chance, self.cluster.hosts
        fresh = max(hosts) + 1
        drawn = chance.random()
        learners = sorted(old.learners)
        if drawn < 0.3 and len(hosts) < _HOSTS_MAX:
            return evolve(old, learners=old.learners | {fresh}, blank=old.blank | {fresh})
        if drawn < 0.5 and learners:
            member = chance.choice(learners)
            return evolve(old, voters=old.voters | {member}, learners=old.learners - {member})
        if drawn < 0.55 and learners:
            member = chance.choice(learners)
            return evolve(old, learners=old.learners - {member}, blank=old.blank - {member})
        if drawn < 0.75 and len(old.voters) > 1:
            member = chance.choice(sorted(old.voters))
            return evolve(old, voters=old.voters - {member}, blank=old.blank - {member})
        comers = set(learners[: chance.randrange(3)])
        leavers = set(chance.sample(sorted(old.voters), min(chance.randrange(3), len(old.voters))))
        voters = (old.voters | comers) - leavers
        if not voters or voters == old.voters:
            return None
        # Blank members that only the old side knows stay blank until the joint configuration is left.
        return evolve(old, voters=voters, learners=old.learners - comers, outgoing=old.voters)
