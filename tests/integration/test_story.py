"""The logs alone tell what happened, from every node's side: names and fields of events, as an operator reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import coord
from coord.errors import CoordError

from .faults import SILENT
from .processes import ProcessCluster
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
    refused = cluster[other].wait_for_event("raft.vote.refused", pre=True, candidate=ids[deaf])
    assert refused["reason"]
    answered = cluster[deaf].wait_for_event("raft.vote.received", pre=True, voter=ids[other], granted=False)
    assert answered["reason"] == refused["reason"]
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
    assert order_of(lines, "raft.quorum.lost", "cluster.leader.missing") == [
        "raft.quorum.lost",
        "cluster.leader.missing",
    ]
