"""Members come, go and lead in turn, while clients write: whole nodes in virtual time (S1, S2, S12)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import evolve
from tests.node.cluster_rig import NAMES, Trial, play_three, until

from coord.errors import ApiError, DataDirError, OutcomeUnknown
from coord.node.node import PARTING_S, Node
from coord.protocol.messages import PeerMessage
from coord.protocol.ops import Method
from coord.testing.sim_node import SimClient, peer_url

ADD, REMOVE, UPDATE, PROMOTE = Method.MEMBER_ADD, Method.MEMBER_REMOVE, Method.MEMBER_UPDATE, Method.MEMBER_PROMOTE


@asynccontextmanager
async def writing(trial: Trial, *names: str) -> AsyncIterator[list[SimClient]]:
    """Write through these members all the while; any write that fails fails the test."""
    clients = [trial.client(name) for name in names]

    async def write(client: SimClient) -> None:
        for number in range(1_000_000):
            await client.put(b"%s/%d" % (client.node.name.encode(), number % 50), b"v")

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(write, client)
        yield clients
        nursery.cancel_scope.cancel()


async def grow(trial: Trial, name: str, *, through: str) -> None:
    """Add a member, start it, and wait until it votes."""
    await trial.client(through).request(ADD, [[peer_url(name)]], timeout_ms=20_000)
    known = tuple(row.peer_urls[0][7:-5] for row in trial.nodes[through].machine.members.values())
    trial.add_host(name, known, is_existing=True)
    await trial.start(name)
    await until(lambda: voters(trial.nodes[name]) >= {trial.nodes[name].member_id}, 30)


def voters(node: Node) -> frozenset[int]:
    return node.raft.configuration.voters


def name_of(trial: Trial, member: int) -> str:
    return next(name for name, node in trial.nodes.items() if node.member_id == member)


def events(trial: Trial, name: str, event: str) -> list[dict[str, Any]]:
    return trial.hosts[name].log.of(event)


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def test_three_become_five_and_one_under_load() -> None:
    """Nothing fails on the way, whoever is asked, and whoever leads when it goes."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        async with writing(trial, "n1") as clients:
            await grow(trial, "n4", through="n2")
            await grow(trial, "n5", through="n3")
            assert len(voters(trial.nodes["n1"])) == 5
            for name in ("n5", "n2"):
                node = trial.nodes.pop(name)
                await trial.client("n1").request(REMOVE, [[node.member_id]], timeout_ms=20_000)
                await until(node.removed.is_set, 20)
            both = [trial.nodes.pop(name).member_id for name in ("n3", "n4")]
            await trial.client("n1").request(REMOVE, [both], timeout_ms=20_000)
            alone = frozenset({trial.nodes["n1"].member_id})
            await until(lambda: trial.nodes["n1"].raft.configuration.all_voters == alone, 20)
            written = len(clients[0].acknowledged)
            await until(lambda: len(clients[0].acknowledged) > written + 20, 20)
        told = [fields["member"] for fields in events(trial, "n1", "cluster.member.removed")]
        assert len(told) == 4

    play_three(story)


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_a_leader_is_removed_by_its_successor(through: str) -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        gone, followers = trial.nodes[leader], trial.followers()
        async with writing(trial, *followers):
            asked = trial.client(leader if through == "leader" else followers[0])
            answer = await asked.request(REMOVE, [[gone.member_id]], timeout_ms=20_000)
            assert gone.member_id not in {row[0] for row in answer}
            await until(gone.removed.is_set, 20)
        trial.nodes.pop(leader)
        assert len(voters(trial.nodes[await trial.leader()])) == 2

    play_three(story)


@asynccontextmanager
async def removed_by_itself(trial: Trial) -> AsyncIterator[tuple[Node, Node, list[Any], Callable[[], None]]]:
    """Have a member asked to remove itself, whose leader's answer comes later than the entry.

    Yields both nodes, what the client has got, and what lets the answer go.
    """
    leading, gone = trial.nodes[await trial.leader()], trial.nodes.pop(trial.followers()[0])
    send, held, answers = leading.calls.send, list[PeerMessage](), list[Any]()
    leading.calls.send = held.extend

    async def ask() -> None:
        try:
            answers.append(await SimClient(gone).request(REMOVE, [[gone.member_id]], timeout_ms=20_000))
        except ApiError as error:
            answers.append(error)

    def let_go() -> None:
        send(held)
        leading.loop.wake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: gone.removed.is_set() and bool(held))
        yield leading, gone, answers, let_go
        await until(lambda: bool(answers))


def test_a_member_that_removes_itself_does_not_end_before_its_client_has_the_answer() -> None:
    """S14: it hears of its removal by the entry, before or after the leader's answer."""

    async def story(trial: Trial) -> None:
        async with removed_by_itself(trial) as (_, gone, answers, let_go), trio.open_nursery() as nursery:
            nursery.start_soon(gone.stop)
            await trio.sleep(gone.options.election_s)
            assert not answers
            let_go()
        assert gone.member_id not in {row[0] for row in answers[0]}

    play_three(story)


def test_a_member_that_waits_in_vain_for_an_answer_ends_all_the_same() -> None:
    """Its client is told that the outcome is unknown."""

    async def story(trial: Trial) -> None:
        async with removed_by_itself(trial) as (leading, gone, answers, _):
            leading._part_at = float("inf")
            with trio.fail_after(4 * gone.options.election_s):
                await gone.stop()
        assert type(answers[0]) is OutcomeUnknown

    play_three(story)


def test_the_link_to_a_member_that_was_removed_stands_until_the_answer_can_have_come() -> None:
    async def story(trial: Trial) -> None:
        async with removed_by_itself(trial) as (leading, gone, answers, _):
            was_removed_at = trio.current_time()
            await until(lambda: not leading.peers.is_linked(gone.member_id))
            stood_s = trio.current_time() - was_removed_at
        assert 0.9 * PARTING_S < stood_s < 3 * PARTING_S
        assert type(answers[0]) is OutcomeUnknown

    play_three(story)


def test_who_was_not_let_in_yet_says_that_it_is_not_ready() -> None:
    """Who takes down another member because this one is ready must find its vote counted (S1)."""

    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        for node in trial.nodes.values():
            await until(lambda node=node: node.health()["joined"] is None)
            assert not node.status()["errors"]
        node = trial.nodes[trial.followers()[0]]
        let_in = node.raft.configuration
        node.raft.apply_configuration(evolve(let_in, blank=frozenset((node.member_id,))))
        error = node.health()["joined"]
        assert error is not None
        assert error.text == "etcdserver: the cluster has not let this member in yet: its vote does not count"
        assert node.status()["errors"] == [error.text]
        node.raft.apply_configuration(evolve(let_in, blank=frozenset((trial.nodes[leader].member_id,))))
        assert node.health()["joined"] is None, "it is another one's vote"

    play_three(story)


def test_who_knows_no_cluster_yet_says_that_it_is_not_ready() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        node = trial.nodes["n1"]
        node.machine._cluster.cluster_id = 0
        assert node.health()["joined"] is not None

    play_three(story)


def test_a_learner_says_that_it_is_not_ready() -> None:
    """As etcd does: it holds the data, and clients are not to be sent to it."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        client = trial.client("n1")
        new, _ = await client.request(ADD, [[peer_url("n4")], True], timeout_ms=20_000)
        trial.add_host("n4", (*NAMES, "n4"), is_existing=True)
        await trial.start("n4")
        health = trial.nodes["n4"].health
        await until(lambda: health()["linearizable_read"] is None)
        error = health()["non_learner"]
        assert error is not None
        assert error.text == "not supported for learner"
        leading = trial.nodes[await trial.leader(but="n4")]
        await until(lambda: leading.raft.match_of(new[0]) == leading.raft.log.last_index)
        await client.request(PROMOTE, [new[0]], timeout_ms=20_000)
        await until(lambda: health()["non_learner"] is None)
        assert trial.nodes["n1"].health()["non_learner"] is None

    play_three(story)


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_the_lead_moves_where_it_is_told(through: str) -> None:
    async def story(trial: Trial) -> None:
        leader = await trial.leader()
        to, other = trial.followers()
        async with writing(trial, leader, to, other):
            asked = trial.client(leader if through == "leader" else other)
            member = trial.nodes[to].member_id
            assert await asked.request(Method.MOVE_LEADER, [member], timeout_ms=20_000) == member
            assert await trial.leader() == to

    play_three(story)


def test_members_are_changed_whoever_is_asked() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        client = trial.client(trial.followers()[0])
        new, everybody = await client.request(ADD, [[peer_url("n4")], True])
        assert [new[4], len(everybody)] == [True, 4]
        await client.request(UPDATE, [new[0], [peer_url("n5")]])
        with pytest.raises(ApiError, match="can only promote a learner member which is in sync with leader"):
            await client.request(PROMOTE, [new[0]])
        await client.request(REMOVE, [[new[0]]])
        with pytest.raises(ApiError, match="etcdserver: member not found"):
            await client.request(PROMOTE, [new[0]])

    play_three(story)


def test_a_wiped_member_is_refused_until_it_is_removed_and_added_anew() -> None:
    """S1: what it acknowledged and forgot may be all that a quorum had."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        await trio.sleep(1)
        await trial.client("n1").put(b"k", b"v")
        old = trial.nodes["n3"].member_id
        await trial.kill("n3")
        trial.hosts["n3"].wipe()
        texts: list[str] = []
        try:
            await trial.start("n3")
        except* DataDirError as errors:
            texts = [str(error) for error in leaves(errors)]
        (text,) = texts
        assert f"remove it with 'coord member remove {old:x}', empty its --data-dir, and add it anew" in text
        for name in ("n1", "n2"):
            assert [told["code"] for told in events(trial, name, "peer.hello.refused")] == ["other-incarnation"]

    play_three(story)


def test_a_dead_member_is_replaced() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        await trio.sleep(1)
        old = trial.nodes["n3"].member_id
        await trial.kill("n3")
        async with writing(trial, "n1", "n2"):
            await trial.client("n1").request(REMOVE, [[old]], timeout_ms=20_000)
            await trial.client("n1").request(ADD, [[peer_url("n3")]], timeout_ms=20_000)
            trial.add_host("n3", is_existing=True)
            await trial.start("n3")
            new = trial.nodes["n3"]
            assert new.member_id != old
            await until(lambda: new.member_id in voters(new), 30)
        await trial.agree()
        assert old in new.machine.removed

    play_three(story)


def test_another_members_directory_is_refused() -> None:
    async def story(trial: Trial) -> None:
        await trial.leader()
        await trial.kill("n2")
        trial.hosts["n2"].disk, disk = trial.hosts["n1"].disk.image(), trial.hosts["n2"].disk
        with pytest.raises(DataDirError, match="set --name and the peer URLs as they were"):
            trial.hosts["n2"].open_directory()
        trial.hosts["n2"].disk = disk
        await trial.start("n2")
        assert len(trial.nodes) == len(NAMES)

    play_three(story)


async def ends_with(trial: Trial, name: str) -> str:
    """Start a member that is to end by itself; return what it ends with."""
    texts: list[str] = []
    with trio.fail_after(10):
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(trial.hosts[name].run)
        except* DataDirError as errors:
            texts = [str(error) for error in leaves(errors)]
    trial.network.kill(name)
    (text,) = texts
    return text


def test_a_directory_from_a_backup_ends_with_the_remedy_where_most_refuse_it() -> None:
    """S1: it has forgotten what it acknowledged since, and waiting does not help."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        await trio.sleep(1)
        member = trial.nodes["n3"].member_id
        backup = trial.hosts["n3"].image()
        for _ in range(2):
            await trial.kill("n3")
            await trial.start("n3")
            await trial.nodes["n3"].caught_up.wait()
            await trio.sleep(1)
        await trial.kill("n3")
        trial.hosts["n3"].disk, trial.hosts["n3"].medium = backup.disk, backup.medium
        text = await ends_with(trial, "n3")
        assert text.startswith("2 of 2 other voters refuse this member: ")
        assert f"remove it with 'coord member remove {member:x}', empty its --data-dir, and add it anew" in text
        await trial.client("n1").put(b"a", b"1")

    play_three(story)


def test_a_member_that_one_of_two_refuses_goes_on() -> None:
    """The one may be wrong, or behind; a cluster must not lose a member by it."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        await trio.sleep(1)
        await trial.kill("n3")
        member = trial.hosts["n3"].directory.identity.member
        first = trial.hosts["n1"].directory
        incarnation, boot, _ = first.peers[member]
        first.remember_peer(member, incarnation, boot + 7, 1)
        await trial.start("n3")
        await trio.sleep(20)
        assert {told["code"] for told in events(trial, "n3", "peer.link.refused")} == {"old-boot"}
        await trial.client("n2").put(b"a", b"1")

    play_three(story)


def test_a_member_that_hangs_up_on_the_others_does_not_end_by_that() -> None:
    """What it finds wrong with their data is no word about its own."""

    async def story(trial: Trial) -> None:
        await trial.leader()
        await trio.sleep(1)
        await trial.kill("n3")
        directory = trial.hosts["n3"].directory
        for other, (incarnation, boot, _) in list(directory.peers.items()):
            directory.remember_peer(other, incarnation, boot + 7, 1)
        await trial.start("n3")
        await trio.sleep(20)
        assert {told["code"] for told in events(trial, "n3", "peer.link.refused")} == {"old-boot"}

    play_three(story)
