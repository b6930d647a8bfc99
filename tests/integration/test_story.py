"""The logs alone tell what happened, from every node's side: names and fields of events, as an operator reads them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import coord
from coord.errors import CoordError

from .cluster import EVENT_TIMEOUT_S, STOP_TIMEOUT_S, NodeProcess
from .faults import SILENT
from .processes import ProcessCluster, until
from .test_three_nodes import outgrow_the_log

MakeCluster = Callable[..., ProcessCluster]


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> ProcessCluster:
    cluster = make_cluster(3, has_proxies=True)
    cluster.start()
    return cluster


def member_ids(cluster: ProcessCluster) -> dict[str, str]:
    """Return each node's member id as logs write it."""
    return {name: node.events("node.identity.loaded")[0]["member"] for name, node in cluster.nodes.items()}


def roles(cluster: ProcessCluster) -> tuple[str, str, str]:
    """Return the leader and the two followers."""
    leader = cluster.leader()
    first, second = (name for name in cluster.nodes if name != leader)
    return leader, first, second


def test_the_story_of_a_failed_election(cluster: ProcessCluster) -> None:
    """Who hears nothing from a living leader asks in vain, and the refusals say why."""
    ids = member_ids(cluster)
    leader, deaf, other = roles(cluster)
    cluster.proxies.spoil(leader, deaf, SILENT)

    lost = cluster[deaf].wait_for_event("raft.leader.lost", leader=ids[leader])
    assert lost["reason"]
    asked = cluster[deaf].wait_for_event("raft.election.started", pre=True, role="pre_candidate")
    assert set(asked["voters"]) == set(ids.values())
    why = f"it hears the leader {ids[leader]}"
    cluster[other].wait_for_event("raft.vote.refused", pre=True, candidate=ids[deaf], reason=why)
    cluster[deaf].wait_for_event("raft.vote.received", pre=True, voter=ids[other], granted=False, reason=why)
    cluster.proxies.heal()
    back = cluster[deaf].wait_for_event("raft.role.changed", from_role="pre_candidate", to_role="follower")
    assert back["term"] == lost["term"], "nobody's term went up"
    cluster[deaf].wait_for_event("raft.leader.found", leader=ids[leader], term=back["term"])
    assert not cluster[deaf].events("raft.election.won")
    assert not cluster[leader].events("raft.quorum.lost")


def test_the_story_of_a_won_election_and_of_a_lost_and_regained_peer(cluster: ProcessCluster) -> None:
    ids = member_ids(cluster)
    dead, *others = roles(cluster)
    cluster[dead].kill()
    won = cluster.leader()
    (other,) = (name for name in others if name != won)

    for name in others:
        gone = cluster[name].wait_for_event("peer.process.gone", name=dead)
        assert gone["member"] == ids[dead]
        cluster[name].wait_for_event("raft.leader.lost", leader=ids[dead])
    asked = [line for line in cluster[won].events("raft.election.started") if not line["pre"]][-1]
    # S10: the port of the dead leader refuses, or the link to the other voter was new at that moment.
    assert asked["reason"] in ("the leader's port refuses connections", "a quorum can be reached again")
    granted = cluster[other].wait_for_event("raft.vote.granted", pre=False, candidate=ids[won], term=asked["term"])
    assert granted["last_index"] == asked["last_index"]
    cluster[won].wait_for_event("raft.vote.received", pre=False, voter=ids[other], granted=True)
    elected = cluster[won].wait_for_event("raft.election.won", quorum=2, term=asked["term"])
    assert elected["votes"] == 2
    cluster[won].wait_for_event("raft.role.changed", to_role="leader", term=asked["term"])
    cluster[other].wait_for_event("raft.leader.found", leader=ids[won], term=asked["term"])

    opened = {name: len(cluster[name].events("peer.link.opened")) for name in others}
    cluster[dead].start()
    for name in others:
        cluster[name].wait_for_event("peer.link.opened", name=dead, boot=2)
        assert len(cluster[name].events("peer.link.opened")) > opened[name]
        cluster[name].wait_for_event("peer.link.accepted", name=dead, boot=2)
    cluster[dead].wait_for_event("raft.leader.found", leader=ids[won])


def test_the_story_of_a_snapshot(cluster: ProcessCluster) -> None:
    ids = member_ids(cluster)
    leader, away, _ = roles(cluster)
    cluster[away].kill()
    outgrow_the_log(cluster)
    cluster[away].start()

    sent = cluster[leader].wait_for_event("snapshot.transfer.started", member=ids[away])
    begun = cluster[away].wait_for_event("snapshot.receipt.started", member=ids[leader])
    came = cluster[away].wait_for_event("snapshot.receipt.finished", member=ids[leader])
    assert sent["index"] == begun["index"] == came["index"]
    assert sent["bytes"] == begun["bytes"] == came["bytes"] > 0
    installed = cluster[away].wait_for_event("snapshot.state.installed", index=sent["index"])
    assert installed["revision"] > 1
    cluster[leader].wait_for_event("snapshot.transfer.finished", member=ids[away], index=sent["index"])
    cluster[leader].wait_for_event("raft.peer.replicating", peer=ids[away])


def order_of(lines: list[dict[str, Any]], *names: str) -> list[str]:
    """Return the events of `names` in the order of the log, each once."""
    return list(dict.fromkeys(line["event"] for line in lines if line["event"] in names))


def test_a_write_without_a_quorum_names_who_is_missing(cluster: ProcessCluster) -> None:
    leader, *others = roles(cluster)
    for name in others:
        cluster[name].kill()
    quorum = cluster[leader].wait_for_event("raft.quorum.lost")
    assert quorum["quorum"] == 2
    with coord.connect_sync(cluster[leader].endpoint, timeout=3) as client:
        with pytest.raises(CoordError) as refused:
            client.put("a", b"1")
        with pytest.raises(CoordError):
            client.get("a")
        client.get("a", serializable=True)
    assert all(name in str(refused.value) for name in others)
    lines = cluster[leader].log()
    # A node that starts alone misses a leader too.
    led = [place for place, line in enumerate(lines) if line["event"] == "raft.election.won"]
    assert order_of(lines[led[-1] :], "raft.quorum.lost", "cluster.leader.missing") == [
        "raft.quorum.lost",
        "cluster.leader.missing",
    ]


def coord_command(cluster: ProcessCluster, *words: str, through: NodeProcess | None = None) -> str:
    """Run the command line on a cluster, or on one node of it; return what it prints."""
    endpoints = ",".join(node.endpoint for node in ([through] if through else cluster.running))
    ended = subprocess.run(
        [sys.executable, "-m", "coord", f"--endpoints={endpoints}", "--command-timeout=20s", *words],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def configured(node: NodeProcess) -> tuple[set[str], set[str]]:
    """Return the voters and the learners that a node told of last."""
    last = node.events("raft.configuration.applied")[-1]
    return set(last["voters"]), set(last["learners"])


def test_the_story_of_a_change_of_members(cluster: ProcessCluster) -> None:
    """A learner is added, catches up, is promoted and removed, all from the command line: what each side tells."""
    ids = set(member_ids(cluster).values())
    leader, old = cluster[cluster.leader()], list(cluster.nodes.values())
    new = cluster.add("n4", ",".join(f"{node.name}={node.peer_url}" for node in old))
    every = [*old, new]
    member = coord_command(cluster, "member", "add", f"--peer-urls={new.peer_url}", "--learner", "n4").split()[1]
    for node in old:
        told = node.wait_for_event("cluster.member.added", member=member, learner=True)
        assert told["peer_urls"] == [new.peer_url]
        assert node.wait_for_event("raft.configuration.applied", learners=[member])["blank"] == [member]

    new.spawn()
    incarnation = new.wait_for_event("node.identity.loaded")["incarnation"]
    for node in every:
        told = node.wait_for_event("cluster.member.published", member=member, name="n4", incarnation=incarnation)
        assert told["client_urls"] == [f"http://{new.endpoint}"]
    leader.wait_for_event("raft.peer.replicating", peer=member)
    new.wait_for_event("raft.role.changed", to_role="learner")
    until(lambda: all(configured(node) == (ids, {member}) for node in every), EVENT_TIMEOUT_S, "a learner")

    coord_command(cluster, "member", "promote", member)
    for node in every:
        node.wait_for_event("cluster.member.promoted", member=member, name="n4")
    until(lambda: all(configured(node) == (ids | {member}, set()) for node in every), EVENT_TIMEOUT_S, "a voter")
    new.wait_for_event("raft.role.changed", from_role="learner", to_role="follower")
    new.wait_ready()

    # Who is removed is asked for it, and answers before it ends.
    assert member in coord_command(cluster, "member", "remove", member, through=new)
    for node in old:
        node.wait_for_event("cluster.member.removed", member=member, name="n4")
    assert new.process is not None
    assert new.process.wait(STOP_TIMEOUT_S) == 0
    assert order_of(new.log(), "node.membership.ended", "node.shutdown.started", "node.shutdown.finished") == [
        "node.membership.ended",
        "node.shutdown.started",
        "node.shutdown.finished",
    ]
    assert new.events("node.membership.ended")[0]["member"] == member
    until(lambda: all(configured(node) == (ids, set()) for node in old), EVENT_TIMEOUT_S, "as before")
