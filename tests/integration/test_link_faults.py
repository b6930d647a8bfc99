"""Three real processes whose links fail: cut, silent, slow, one way only, or reset in the middle of a frame."""

from __future__ import annotations

import random
import time

import pytest

from coord.cli.relay import LinkFault

from .faults import CUT, SILENT, SOUND
from .processes import ProcessCluster
from .test_three_nodes import loaded

FAULT_S = 2.5
"""Longer than two election timeouts."""
HAS_RELAYS = True


@pytest.fixture
def cluster(shared: ProcessCluster) -> ProcessCluster:
    return shared


@pytest.mark.parametrize("fault", [CUT, SILENT], ids=["cut", "silent"])
def test_a_leader_that_is_cut_off_is_replaced_and_follows_later(cluster: ProcessCluster, fault: LinkFault) -> None:
    leader = cluster.leader()
    with loaded(cluster) as load:
        cluster.proxies.isolate(leader, fault)
        new = cluster.leader(besides=leader)
        assert new != leader
        load.wait_for_writes(50)
        cluster.proxies.heal()
        load.wait_for_writes(50)
    assert load.longest_gap_s < 6


def test_a_follower_that_is_cut_off_disturbs_nobody(cluster: ProcessCluster) -> None:
    """PreVote: it does not drive up the term while it is away, and deposes nobody when it returns."""
    leader, away = cluster.leader(), cluster.followers()[0]
    before = cluster.status(leader)
    with loaded(cluster) as load:
        cluster.proxies.isolate(away, SILENT)
        time.sleep(FAULT_S)
        load.wait_for_writes(20)
        cluster.proxies.heal()
        load.wait_for_writes(50)
    after = cluster.status(leader)
    assert before is not None
    assert after is not None
    assert (after.raft_term, after.leader_id) == (before.raft_term, before.leader_id)


@pytest.mark.parametrize("direction", ["to the leader", "from the leader"])
def test_a_link_that_fails_one_way_leaves_a_cluster_that_serves(cluster: ProcessCluster, direction: str) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    source, target = (follower, leader) if direction == "to the leader" else (leader, follower)
    with loaded(cluster) as load:
        cluster.proxies.spoil(source, target, SILENT)
        time.sleep(FAULT_S)
        load.wait_for_writes(20)
        cluster.proxies.heal()


def test_slow_links_and_resets_in_the_middle_of_frames(cluster: ProcessCluster) -> None:
    chance = random.Random(11)
    links = [(source, target) for source in cluster.nodes for target in cluster.nodes if source != target]
    with loaded(cluster) as load:
        for link in links:
            cluster.proxies.spoil(*link, LinkFault(delay_s=0.02))
        load.wait_for_writes(20)
        for _ in range(8):
            link = chance.choice(links)
            cluster.proxies.spoil(*link, LinkFault(bytes_left=chance.randrange(20_000)))
            time.sleep(0.1)
            cluster.proxies.spoil(*link, SOUND)
        cluster.proxies.heal()
