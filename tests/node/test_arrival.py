"""How members come into a cluster and leave it (S1): by flags, late, wiped, added, removed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import trio
from tests.node.cluster_rig import NAMES, Trial, play_three, until
from tests.node.peer_rig import member_row
from tests.raft.rig import Rig as RaftRig
from tests.raft.rig import voters

from coord.errors import DataDirError
from coord.node.arrival import arrive
from coord.node.publication import Publication
from coord.protocol.hello import Refusal, Welcome
from coord.protocol.ops import Method
from coord.store.identity import Life
from coord.testing.sim_node import SimHost, peer_url
from coord.transport.memory import MemoryLink
from coord.types import Role


async def settle(host: SimHost) -> None:
    """Do what a start does before the node is put together."""
    host.open_directory()
    flags, network = host.settings.flags, host._network()
    await arrive(host.directory, flags, network, host.log, random.Random(1), trio.current_time, 1.0)


def test_members_of_a_new_cluster_found_it_by_their_flags() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        assert {host.directory.identity.life for host in trial.hosts.values()} == {Life.BOOTSTRAPPED}

    play_three(story)


def test_wiped_member_is_refused_with_the_remedy() -> None:
    """S1: with the same flags it has the same id, and would vote again."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        await until(lambda: all(row.incarnation for row in trial.nodes["n1"].machine.members.values()))
        await trial.kill("n3")
        trial.hosts["n3"].wipe()
        with pytest.raises(DataDirError, match=r"coord member remove .* add it anew"):
            await settle(trial.hosts["n3"])
        assert trial.hosts["n3"].directory.identity.life is Life.UNDECIDED

    play_three(story)


def test_member_with_other_flags_is_refused() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        host = trial.add_host("n3", ("n1", "n3"))
        with pytest.raises(DataDirError, match="--initial-cluster"):
            await settle(host)

    play_three(story, start=("n1", "n2"))


def test_member_with_other_flags_that_is_alone_keeps_nobody_out() -> None:
    """It came first, and refuses the two that have the same flags: they found their cluster all the same."""

    async def story(trial: Trial) -> None:
        trial.add_host("n3", ("n1", "n3"))
        await trial.start("n3")
        for name in ("n1", "n2"):
            await trial.start(name)
        await trial.client(await trial.leader(but="n3")).put(b"a", b"1")
        refused = trial.hosts["n1"].log.of("peer.link.refused")
        assert {line["code"] for line in refused} <= {"flags-differ", "other-flags"}
        assert {line["name"] for line in refused} == {"n3"}

    play_three(story, start=())


def test_initial_member_that_comes_late_joins_blank_and_is_taken_note_of() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        late = trial.hosts["n3"].settings.flags.member_id
        assert trial.nodes[leader].raft.configuration.blank == {late}
        await trial.client(leader).put(b"a", b"1")
        await trial.start("n3")
        assert trial.hosts["n3"].directory.identity.life is Life.JOINED
        await until(lambda: not trial.nodes[leader].raft.configuration.blank)
        await trial.agree()
        assert await trial.client("n3").get(b"a") == b"1"
        await trial.kill("n1")
        await trial.kill("n2")
        await trial.start("n1")
        await trial.leader()
        await trial.client("n3").put(b"b", b"1")

    play_three(story, start=("n1", "n2"))


def test_blank_member_learns_of_its_publication_though_the_leader_died_before_it_could_tell() -> None:
    """S1: of three, the second needs the third's vote, which knows only from a leader that it has one."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        other = trial.followers()[0]
        late = trial.hosts["n3"].settings.flags.member_id
        peers = trial.nodes[leader].peers
        await trial.client(leader).put(b"a", b"1")

        def keep_back(link: MemoryLink, message: bytes) -> None:
            # The leader's own link may stand before the third's does; nothing is to arrive on it.
            if link is peers._diallers[late].link:
                link.is_held = True

        trial.network.on_send = keep_back
        trial.nursery.start_soon(trial.start, "n3")
        with trio.fail_after(20):
            while True:
                if late in peers._inbound:
                    break
                await trio.sleep(0.0001)
        trial.network.cut(leader, "n3")
        await until(lambda: not trial.nodes[other].raft.configuration.blank)
        third = trial.nodes["n3"]
        assert not third.machine.cluster_id
        assert third.raft.configuration.blank == {late}
        trial.network.reset(leader, "n3")
        await trial.kill(leader)
        trial.network.heal()
        assert await trial.leader() == other
        assert await trial.client("n3").get(b"a") == b"1"
        await trial.client("n3").put(b"b", b"1")

    play_three(story, start=("n1", "n2"))


def test_another_incarnation_than_the_published_one_stays_blank() -> None:
    """S1: it would vote, and another directory of the same member has voted or may."""
    raft = RaftRig.make(voters(1, 2, 3, blank=[1])).raft
    told: list[bool] = []
    publication = Publication(raft, 77, _Nobody(), list, lambda: told.append(True), 1.0)
    for incarnation, is_taken in ((0, False), (78, False), (77, True), (77, True)):
        rows = (member_row(1, incarnation), member_row(2, 77))
        publication.told(Welcome(1, 2, 1, rows, 5, 1, 1, 0))
        assert publication.is_known is bool(told) is is_taken
    assert len(told) == 1


class _Nobody:
    async def probe(self, urls: Sequence[str], timeout_s: float) -> list[Welcome | Refusal]:
        return []


def test_blank_member_counts_in_no_quorum() -> None:
    """S1: of three, one was never there; the second dies, and the late third must not stand in for its vote."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        other = trial.followers()[0]
        await trial.kill(other)
        await trio.sleep(3)
        assert trial.nodes[leader].raft.role is not Role.LEADER
        await trial.start("n3")
        await trio.sleep(10)
        assert not trial.nodes["n3"].machine.cluster_id
        assert all(node.raft.role is not Role.LEADER for node in trial.nodes.values())
        await trial.start(other)
        await trial.leader()
        await trial.agree()

    play_three(story, start=("n1", "n2"))


def test_member_that_is_added_is_told_its_id_and_becomes_a_voter() -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        for number in range(30):
            await trial.client(leader).put(b"%d" % number, b"v")
        trial.add_host("n4", (*NAMES, "n4"), is_existing=True)
        trial.nursery.start_soon(trial.start, "n4")
        await trio.sleep(5)
        assert "n4" not in trial.nodes
        assert "member add" in str(trial.hosts["n4"].log.of("node.arrival.waiting")[0]["reasons"])
        member, _ = await trial.client(leader).request(Method.MEMBER_ADD, [[peer_url("n4")]])
        await until(lambda: "n4" in trial.nodes)
        assert trial.nodes["n4"].member_id == member[0]
        await until(lambda: member[0] in trial.nodes[leader].raft.configuration.voters)
        await trial.agree()
        assert await trial.client("n4").get(b"29") == b"v"
        await trial.kill("n4")
        await trial.start("n4")
        await trial.client("n4").put(b"a", b"1")
        await trial.agree()

    play_three(story)


@pytest.mark.parametrize("is_leader", [True, False])
def test_removed_member_ends_and_stays_out(is_leader: bool) -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        gone = leader if is_leader else trial.followers()[0]
        client = trial.client(next(name for name in NAMES if name != gone))
        node = trial.nodes[gone]
        await client.request(Method.MEMBER_REMOVE, [[node.member_id]])
        with trio.fail_after(5):
            await node.removed.wait()
        await node.stop()
        await trial.kill(gone)
        await trial.leader()
        await client.put(b"a", b"1")
        await trial.agree()
        again = trial.hosts[gone]
        trial.nursery.start_soon(trial.start, gone)
        await until(lambda: len(again.log.of("node.membership.ended")) == 2)
        await trio.sleep(5)
        assert len({other.raft_term for name, other in trial.nodes.items() if name != gone}) == 1
        await client.put(b"b", b"1")

    play_three(story)


def test_dead_member_is_replaced() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        await trial.kill("n3")
        leader = await trial.leader()
        client = trial.client(leader)
        gone = trial.hosts["n3"].settings.flags.member_id
        await client.request(Method.MEMBER_REMOVE, [[gone]])
        await client.request(Method.MEMBER_ADD, [[peer_url("n3")]])
        host = trial.add_host("n3", is_existing=True)
        await trial.start("n3")
        await until(lambda: len(trial.nodes[leader].raft.configuration.voters) == 3)
        assert host.directory.identity.member != gone
        # Of two voters none can be spared; that there are three again is to have reached the others.
        await trial.agree()
        await trial.kill(leader)
        await trial.leader()
        await trial.client("n3").put(b"a", b"1")

    play_three(story)
