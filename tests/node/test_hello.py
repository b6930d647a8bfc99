"""S1, S2: who is let in, and what the others are told to do."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from coord.node.hello import LocalView, bootstrap_id, check_welcome, judge
from coord.protocol.entries import Member
from coord.protocol.hello import Hello, Purpose, Refusal, RefusalCode, Welcome

CLUSTER, FLAGS = 0xC0FFEE, 0xF1A65
N1, N2, N3, N4 = 1, 2, 3, 4


def member(number: int, incarnation: int | None = None, **more: Any) -> Member:
    life = 100 + number if incarnation is None else incarnation
    return Member(number, f"n{number}", (f"http://n{number}:7380",), (), incarnation=life, **more)


LOCAL = LocalView(
    cluster_id=CLUSTER,
    bootstrap_id=FLAGS,
    member_id=N1,
    incarnation=101,
    boot=5,
    nonce=55,
    members={number: member(number) for number in (N1, N2, N3)},
    outgoing=frozenset(),
    removed=frozenset({9}),
    peers={N2: (102, 3, 33)},
    leader_id=N3,
    check_last_index=lambda member_id, last_index: last_index >= 100,
)
HELLO = Hello(FLAGS, CLUSTER, N2, ("http://n2:7380",), 102, 3, 33, N1, "n2", ("http://n2:7379",), 100)
UNFOUNDED = evolve(LOCAL, cluster_id=0, members={number: member(number, 0) for number in (N1, N2, N3)}, peers={})
JOINER = Hello(0, 0, 0, ("http://n4:7380",), 104, 1, 44, 0, "n4", (), 0)
WITH_N4 = evolve(LOCAL, members={**LOCAL.members, N4: member(N4, 0, is_learner=True)})


def welcomed(hello: Hello, local: LocalView) -> Welcome:
    answer = judge(hello, local)
    assert isinstance(answer, Welcome), answer
    return answer


def test_a_member_is_welcomed_by_whom_it_called() -> None:
    assert welcomed(HELLO, LOCAL) == Welcome(CLUSTER, N1, N2, (member(N1), member(N2), member(N3)), 101, 5, 55, N3)


@pytest.mark.parametrize(
    ("hello", "local"),
    [
        pytest.param({"boot": 4, "nonce": 7}, {}, id="a later boot"),
        pytest.param({"to": 0}, {}, id="does not know whom it reaches"),
        pytest.param({"member": N3, "incarnation": 103, "boot": 1}, {}, id="never seen before"),
        pytest.param({"bootstrap_id": 7}, {}, id="flags play no part once both have a cluster"),
        pytest.param({"bootstrap_id": 0, "cluster_id": 0}, {}, id="joined, but has not applied the cluster yet"),
        pytest.param({"cluster_id": 0}, {}, id="equal flags, late"),
        pytest.param({}, {"cluster_id": 0, "members": {}}, id="this one joins and was told nothing yet"),
        pytest.param({"member": 77, "incarnation": 9}, {}, id="added since this one was last up to date"),
        pytest.param({}, {"removed": frozenset({N2}), "outgoing": frozenset({N2})}, id="votes until it has left"),
        pytest.param({"purpose": Purpose.SNAPSHOT}, {}, id="a snapshot"),
    ],
)
def test_welcome(hello: dict[str, Any], local: dict[str, Any]) -> None:
    welcomed(evolve(HELLO, **hello), evolve(LOCAL, **local))


REFUSED = [
    pytest.param(
        {"cluster_id": 7}, {}, RefusalCode.OTHER_CLUSTER, "cluster 7 and cluster c0ffee are not one", id="cluster"
    ),
    pytest.param(
        {"cluster_id": 0, "bootstrap_id": 7}, {}, RefusalCode.OTHER_FLAGS, "give all members the same", id="flags"
    ),
    pytest.param(
        {"bootstrap_id": 7}, {"cluster_id": 0}, RefusalCode.FLAGS_DIFFER, "give all members the same", id="flags, here"
    ),
    pytest.param({"to": N3}, {}, RefusalCode.OTHER_NAME, "3 was called, but this is member 1", id="by another name"),
    pytest.param({}, {"member_id": 0}, RefusalCode.NOT_READY, "not been told its id", id="by a name not known yet"),
    pytest.param({"member": N1}, {}, RefusalCode.SAME_NAME, "its own --name, peer URLs and --data-dir", id="itself"),
    pytest.param({"member": 9}, {}, RefusalCode.REMOVED, "empty its --data-dir and add it with", id="removed"),
    pytest.param(
        {"member": 77, "cluster_id": 0}, {}, RefusalCode.UNKNOWN_MEMBER, "'coord member add' and start it", id="unknown"
    ),
    pytest.param(
        {"incarnation": 999}, {}, RefusalCode.OTHER_INCARNATION, "remove it with 'coord member remove 2'", id="wiped"
    ),
    pytest.param(
        {"incarnation": 999},
        {"peers": {}},
        RefusalCode.OTHER_INCARNATION,
        "another data directory",
        id="wiped, by the log",
    ),
    pytest.param(
        {"incarnation": 999},
        {"members": {N1: member(N1), N2: member(N2, 0)}},
        RefusalCode.OTHER_INCARNATION,
        "another data directory",
        id="wiped, by this disk",
    ),
    pytest.param({"boot": 2}, {}, RefusalCode.OLD_BOOT, "start 2, and start 3 has been seen", id="an old copy"),
    pytest.param({"nonce": 34}, {}, RefusalCode.COPIED, "stop the one that was copied", id="a running copy"),
    pytest.param({"last_index": 99}, {}, RefusalCode.LOST_ENTRIES, "ends at 99, below what it has", id="lost entries"),
]


@pytest.mark.parametrize(("hello", "local", "code", "text"), REFUSED)
def test_refusal(hello: dict[str, Any], local: dict[str, Any], code: RefusalCode, text: str) -> None:
    answer = judge(evolve(HELLO, **hello), evolve(LOCAL, **local))
    assert isinstance(answer, Refusal), answer
    assert answer.code is code
    assert text in answer.text


def test_every_refusal_is_in_the_table() -> None:
    joiner = {RefusalCode.NOT_ADDED, RefusalCode.ALREADY_JOINED}
    assert {param.values[2] for param in REFUSED} | joiner == set(RefusalCode)


def test_what_the_log_says_stands_over_what_was_seen() -> None:
    """A member that was seen before the cluster began, and came with a new directory before it ever counted."""
    local = evolve(LOCAL, peers={N2: (999, 8, 1)})
    welcomed(HELLO, local)


def test_before_there_is_a_cluster_equal_flags_are_proof() -> None:
    hello = evolve(HELLO, cluster_id=0)
    assert welcomed(hello, UNFOUNDED) == Welcome(0, N1, N2, (), 101, 5, 55, N3)
    known = evolve(UNFOUNDED, peers={N2: (102, 3, 33)})
    assert isinstance(judge(evolve(hello, incarnation=9), known), Refusal), "S1: it may have voted before"


# ---- a member that waits to be told its id


def test_a_joiner_is_told_who_it_is() -> None:
    answer = welcomed(JOINER, WITH_N4)
    assert (answer.cluster_id, answer.your_member, answer.leader) == (CLUSTER, N4, N3)
    assert [row.id for row in answer.members] == [N1, N2, N3, N4]
    assert welcomed(evolve(JOINER, peer_urls=("http://other:1", "http://n4:7380")), WITH_N4).your_member == N4


@pytest.mark.parametrize(
    ("local", "code", "text"),
    [
        (LOCAL, RefusalCode.NOT_ADDED, "'coord member add NAME --peer-urls=http://n4:7380'"),
        (evolve(WITH_N4, removed=frozenset({N4})), RefusalCode.NOT_ADDED, "no member of the cluster has"),
        (evolve(WITH_N4, members={N4: member(N4, 7)}), RefusalCode.ALREADY_JOINED, "'coord member remove 4'"),
        (UNFOUNDED, RefusalCode.NOT_READY, "no cluster yet"),
    ],
)
def test_a_joiner_is_refused(local: LocalView, code: RefusalCode, text: str) -> None:
    answer = judge(JOINER, local)
    assert isinstance(answer, Refusal)
    assert answer.code is code
    assert text in answer.text


def test_what_may_pass_and_what_does_not() -> None:
    assert {code for code in RefusalCode if not code.is_final} == {
        RefusalCode.NOT_READY,
        RefusalCode.FLAGS_DIFFER,
        RefusalCode.UNKNOWN_MEMBER,
        RefusalCode.NOT_ADDED,
    }


# ---- the dialler's side


WELCOME = Welcome(CLUSTER, N2, N1, (), 102, 3, 33, N3)


def test_a_welcome_is_taken() -> None:
    assert check_welcome(WELCOME, N2, LOCAL) is None
    assert check_welcome(WELCOME, 0, LOCAL) is None
    assert check_welcome(evolve(WELCOME, cluster_id=0), N2, LOCAL) is None
    assert check_welcome(evolve(WELCOME, member=0, incarnation=9), 0, LOCAL) is None, "it waits to be told its id"


@pytest.mark.parametrize(
    ("changes", "to", "code"),
    [
        ({}, N3, RefusalCode.OTHER_NAME),
        ({"member": 0}, N2, RefusalCode.OTHER_NAME),
        ({"member": N1}, 0, RefusalCode.SAME_NAME),
        ({"cluster_id": 7}, N2, RefusalCode.OTHER_CLUSTER),
        ({"incarnation": 9}, N2, RefusalCode.OTHER_INCARNATION),
        ({"boot": 1}, N2, RefusalCode.OLD_BOOT),
        ({"nonce": 1}, N2, RefusalCode.COPIED),
    ],
)
def test_a_dialler_hangs_up(changes: dict[str, Any], to: int, code: RefusalCode) -> None:
    refusal = check_welcome(evolve(WELCOME, **changes), to, LOCAL)
    assert refusal is not None
    assert refusal.code is code


# ---- equal flags


def test_equal_flags_give_one_bootstrap_id_whatever_their_order() -> None:
    one = bootstrap_id("t", [("n1", ["http://a:1", "http://a:2"]), ("n2", ["http://b:1"])])
    assert one == bootstrap_id("t", [("n2", ["http://b:1"]), ("n1", ["http://a:2", "http://a:1"])])
    others = [
        bootstrap_id("u", [("n1", ["http://a:1", "http://a:2"]), ("n2", ["http://b:1"])]),
        bootstrap_id("t", [("n1", ["http://a:1"]), ("n2", ["http://b:1"])]),
        bootstrap_id("t", [("n1", ["http://a:1", "http://a:2"]), ("n3", ["http://b:1"])]),
        bootstrap_id("t", [("n1", ["http://a:1"]), ("http://a:2", ["n2", "http://b:1"])]),
    ]
    others += [bootstrap_id("t", [("a", ["u"]), ("v", ["w"])]), bootstrap_id("t", [("a", ["u", "v", "w"])])]
    assert len({one, *others}) == 7
    assert all(0 < number < 2**64 for number in (one, *others))
