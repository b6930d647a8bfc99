"""Three real processes whose links fail: cut, silent, slow, one way only, or reset in the middle of a frame."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from coord.cli.relay import LinkFault

from .faults import CUT, SILENT, SOUND
from .processes import ProcessCluster
from .test_three_nodes import loaded

FAULT_S = 2.5
"""Longer than two election timeouts."""


@pytest.fixture
def relayed(make_cluster: Callable[..., ProcessCluster]) -> ProcessCluster:
    cluster = make_cluster(3, has_proxies=True)
    cluster.start()
    return cluster


@pytest.mark.parametrize("fault", [CUT, SILENT], ids=["cut", "silent"])
def test_a_leader_that_is_cut_off_is_replaced_and_follows_later(relayed: ProcessCluster, fault: LinkFault) -> None:
    leader = relayed.leader()
    with loaded(relayed) as load:
        relayed.proxies.isolate(leader, fault)
        new = relayed.leader(besides=leader)
        assert new != leader
        load.wait_for_writes(50)
        relayed.proxies.heal()
        load.wait_for_writes(50)
    assert load.longest_gap_s < 6


def test_a_follower_that_is_cut_off_disturbs_nobody(relayed: ProcessCluster) -> None:
    """PreVote: it does not drive up the term while it is away, and deposes nobody when it returns."""
    leader, away = relayed.leader(), relayed.followers()[0]
    before = relayed.status(leader)
    with loaded(relayed) as load:
        relayed.proxies.isolate(away, SILENT)
        time.sleep(FAULT_S)
        load.wait_for_writes(20)
        relayed.proxies.heal()
        load.wait_for_writes(50)
    after = relayed.status(leader)
    assert before is not None
    assert after is not None
    assert (after.raft_term, after.leader_id) == (before.raft_term, before.leader_id)


@pytest.mark.parametrize("direction", ["to the leader", "from the leader"])
def test_a_link_that_fails_one_way_leaves_a_cluster_that_serves(relayed: ProcessCluster, direction: str) -> None:
    leader, follower = relayed.leader(), relayed.followers()[0]
    source, target = (follower, leader) if direction == "to the leader" else (leader, follower)
    with loaded(relayed) as load:
        relayed.proxies.spoil(source, target, SILENT)
        time.sleep(FAULT_S)
        load.wait_for_writes(20)
        relayed.proxies.heal()


def test_slow_links_and_resets_in_the_middle_of_frames(relayed: ProcessCluster) -> None:
    chance = random.Random(11)
    links = [(source, target) for source in relayed.nodes for target in relayed.nodes if source != target]
    with loaded(relayed) as load:
        for link in links:
            relayed.proxies.spoil(*link, LinkFault(delay_s=0.02))
        load.wait_for_writes(20)
        for _ in range(8):
            link = chance.choice(links)
            relayed.proxies.spoil(*link, LinkFault(bytes_left=chance.randrange(20_000)))
            time.sleep(0.1)
            relayed.proxies.spoil(*link, SOUND)
        relayed.proxies.heal()
