"""The witness at the disks sees what is durable, no more and no less, and lets nobody say more."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from attrs import define, field
from tests.wal.rig import Rig, random_step

from coord.protocol.messages import AppendReply, PeerMessage, VoteReply
from coord.protocol.ops import PEER_SUBPROTOCOL
from coord.protocol.peer_protocol import encode_frame
from coord.raft.types import Configuration, HardState
from coord.testing.cluster import Cluster
from coord.testing.cluster_scenes import others, play
from coord.testing.sim_disk import SimDisk
from coord.testing.witness import DurableLog, Unfounded, Witness
from coord.transport.memory import MemoryWire


@define(eq=False)
class Machine:
    """A member's, with a log of its own."""

    member_id: int
    is_wiped: bool = False
    rig: Rig = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rig = Rig(member=self.member_id)
        self.rig.recover()

    @property
    def name(self) -> str:
        return f"n{self.member_id}"

    @property
    def disk(self) -> SimDisk:
        return self.rig.disk


@pytest.mark.parametrize("seed", range(8))
def test_it_reads_on_what_a_recovery_finds(seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig(disk=SimDisk(seed))
    rig.recover()
    log = DurableLog(rig.disk)
    for _ in range(60):
        random_step(rig, chance)
        if chance.random() < 0.1:
            rig.disk.crash()
            rig.recover()
        # At times it looks so seldom that segments are gone meanwhile.
        if chance.random() < 0.5:
            log.read_on()
    log.read_on()
    _, found = rig.recover_on(rig.disk.image())
    assert log.last_index == found.last_index
    assert (log.hard_state.term, log.hard_state.vote) == (found.hard_state.term, found.hard_state.vote)
    for index, term, _ in found.entries:
        assert log.holds(index, term), index
        assert log.holds(index, term + 1) <= (index <= found.start_index), index
    assert not log.holds(found.last_index + 1, found.hard_state.term)


def test_it_does_not_see_what_waits_for_its_sync() -> None:
    disk = SimDisk()
    rig = Rig(disk=disk)
    rig.recover()
    log = DurableLog(disk)
    seen: list[tuple[str, int]] = []

    def observe(operation: str) -> None:
        log.read_on()
        seen.append((operation.partition(" ")[0], log.last_index))

    disk.observer = observe
    rig.write([(1, 1, b"v")])
    log.read_on()
    assert seen == [("write", 0)]
    assert log.last_index == 1


def say(witness: Witness, machine: Machine, message: PeerMessage) -> None:
    wire = MemoryWire(subprotocol=PEER_SUBPROTOCOL)
    witness.sent(machine, wire.client, encode_frame([message]))


@pytest.mark.parametrize(
    ("message", "is_founded"),
    [
        (AppendReply(1, 2, 3, 2), True),
        (AppendReply(1, 2, 3, 3), False),
        (AppendReply(1, 2, 4, 2), False),
        (AppendReply(1, 2, 4, 9, is_rejected=True), True),
        (VoteReply(1, 5, 3, is_pre=False), True),
        (VoteReply(1, 6, 3, is_pre=False), False),
        (VoteReply(1, 5, 4, is_pre=False), False),
        (VoteReply(1, 6, 2, is_pre=False), True),
        (VoteReply(1, 6, 4, is_pre=True), True),
        (VoteReply(1, 6, 4, is_pre=False, refusal="no"), True),
    ],
)
def test_what_leaves_a_member_is_held_against_its_disk(message: PeerMessage, is_founded: bool) -> None:
    machine, witness = Machine(1), Witness()
    machine.rig.write([(1, 1, b"a"), (2, 3, b"b")], HardState(3, 5, 0))
    if is_founded:
        say(witness, machine, message)
    else:
        with pytest.raises(Unfounded, match="n1"):
            say(witness, machine, message)


def committed(holders: int, change: Callable[[list[Machine]], None] = lambda machines: None, **roles: object) -> bool:
    """Tell whether entry 1 may be committed if so many of three disks have it."""
    machines = [Machine(number) for number in (1, 2, 3)]
    for machine in machines[:holders]:
        machine.rig.write([(1, 1, b"v")])
    for machine in machines[holders:]:
        machine.rig.write([(1, 2, b"other")])
    change(machines)
    configuration = Configuration(**{"voters": frozenset((1, 2, 3)), **roles})  # type: ignore[arg-type]
    try:
        Witness().committed(machines, configuration, 1, 1)
    except Unfounded:
        return False
    return True


def test_a_commit_is_held_against_the_disks_of_a_quorum() -> None:
    assert [committed(holders) for holders in range(4)] == [False, False, True, True]
    # S1: who is blank counts in the quorum's size, never towards it.
    assert not committed(2, blank=frozenset((2,)))
    assert not committed(2, voters=frozenset((1, 2, 3)), outgoing=frozenset((3,)))


def test_a_disk_that_was_taken_away_is_not_held_against_anybody() -> None:
    def wipe(machines: list[Machine]) -> None:
        machines[2].is_wiped = True

    def retire(machines: list[Machine]) -> None:
        del machines[2]

    assert committed(1, wipe)
    assert committed(1, retire)


def test_it_stands_beside_every_simulated_cluster() -> None:
    async def scene(cluster: Cluster) -> None:
        leader, *_ = await others(cluster)
        before = cluster.witness.judged
        for number in range(10):
            await cluster.connection(leader).put(b"%d" % number, b"v")
        # At least three disks are looked at for a commit, and two acknowledgements come before or behind it.
        assert cluster.witness.judged >= before + 40

    play(scene)
