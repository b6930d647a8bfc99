"""Members of a real cluster come and go under load, and no write fails; the same from the command line."""

from __future__ import annotations

from collections.abc import Callable

import coord
from coord.protocol.entries import Member

from .cluster import STOP_TIMEOUT_S, free_port
from .load import ClusterLoad
from .processes import ProcessCluster, until

CHANGE_TIMEOUT_S = 30.0
MakeCluster = Callable[..., ProcessCluster]


def members(cluster: ProcessCluster) -> dict[str, Member]:
    """Return the members by name; one that never started has none."""
    with coord.connect_sync(cluster.endpoints, timeout=CHANGE_TIMEOUT_S) as client:
        return {member.name: member for member in client.member_list().members}


def votes(cluster: ProcessCluster, name: str) -> bool:
    member = members(cluster).get(name)
    return member is not None and not member.is_learner


def add(cluster: ProcessCluster, name: str, client_port: int = 0) -> None:
    """Add a member, start it, and wait until it votes."""
    present = ",".join(f"{node.name}={node.peer_url}" for node in cluster.nodes.values())
    with coord.connect_sync(cluster.endpoints, timeout=CHANGE_TIMEOUT_S) as client:
        node = cluster.add(name, present, client_port)
        client.member_add([node.peer_url])
    node.start()
    until(lambda: votes(cluster, name), CHANGE_TIMEOUT_S, f"{name} votes")


def remove(cluster: ProcessCluster, *names: str) -> None:
    """Remove members in one step; their nodes end by themselves, in order."""
    found = members(cluster)
    with coord.connect_sync(cluster.endpoints, timeout=CHANGE_TIMEOUT_S) as client:
        client.member_remove(*(found[name].id for name in names))
    for name in names:
        node = cluster[name]
        assert node.process is not None
        assert node.process.wait(STOP_TIMEOUT_S) == 0
        assert node.events("node.membership.ended")
        del cluster.nodes[name]


def test_one_to_three_to_five_and_back_without_a_failed_write(make_cluster: MakeCluster) -> None:
    """Clients know all endpoints from the start: members to come refuse them, members that go hang up on them."""
    cluster = make_cluster(1)
    cluster.start()
    ports = {f"n{number}": free_port() for number in range(2, 6)}
    every = ",".join([cluster.endpoints, *(f"127.0.0.1:{port}" for port in ports.values())])
    load = ClusterLoad(every, connections=5, writers=4, timeout_s=10.0)
    load.start()
    try:
        load.wait_for_writes(50)
        for name, port in ports.items():
            add(cluster, name, port)
            load.wait_for_writes(20)
        cluster.check_agreement()
        for _ in range(2):
            leader, other = cluster.leader(), cluster.followers()[0]
            remove(cluster, leader, other)
            load.wait_for_writes(20)
    finally:
        load.stop()
    assert not load.errors, (load.errors, load.longest)
    assert members(cluster).keys() == cluster.nodes.keys()
    assert len(cluster.nodes) == 1
    load.check()
