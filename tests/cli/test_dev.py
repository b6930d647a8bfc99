"""What `coord dev` shows and what its keys mean, without a process."""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

import pytest

from coord.cli.dev_board import HELP, Board, Condition, NodeState, Order, Verb
from coord.cli.dev_cluster import board_of, nodes_of
from coord.cli.dev_words import WORDS, is_shown, told
from coord.observe.events import CATALOGUE

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def board() -> Board:
    return Board([NodeState("n1", 0xA), NodeState("n2", 0xB), NodeState("n3", 0xC)])


def record(event: str, **fields: Any) -> dict[str, Any]:
    common = {"ts": "2026-01-02T03:04:05.678901Z", "level": "info", "event": event, "node": "n2"}
    return {**common, **fields, "cluster": "1f", "term": 4, "role": "follower", "seq": 9}


@pytest.mark.parametrize("event", WORDS)
def test_words_are_of_events_that_exist_and_of_their_fields(event: str) -> None:
    named = {name for _, name, _, _ in Formatter().parse(WORDS[event]) if name}
    assert named <= CATALOGUE[event].fields.keys()


def test_an_event_is_told_in_words_with_names_for_ids_and_its_other_fields() -> None:
    line = told(
        record("raft.election.started", pre=False, reason="the leader is silent", voters=["a", "b"], last_index=7),
        "36",
        {"a": "n1", "b": "n2"},
        is_colored=False,
    )
    assert line == (
        "03:04:05.678 n2  asks for votes: the leader is silent  raft.election.started term=4 voters=n1,n2 last_index=7"
    )
    granted = told(record("raft.vote.granted", pre=True, candidate="a"), "36", {"a": "n1"}, is_colored=False)
    assert granted == "03:04:05.678 n2  gives n1 its pre-vote  raft.vote.granted term=4"


def test_an_event_without_words_is_told_by_its_name() -> None:
    line = told(record("wal.segment.rolled", segment=3, index=5), "36", {}, is_colored=False)
    assert line == "03:04:05.678 n2  wal.segment.rolled  term=4 segment=3 index=5"


def test_colours_change_nothing_else() -> None:
    given = record("raft.role.changed", from_role="follower", to_role="leader", reason="elected")
    colored = told(given, "36", {}, is_colored=True)
    assert "\x1b[36mn2\x1b[0m" in colored
    assert ESCAPE.sub("", colored) == told(given, "36", {}, is_colored=False)


def test_decisions_and_warnings_are_shown_and_the_rest_on_demand() -> None:
    rolled = record("wal.segment.rolled", segment=3, index=5)
    assert is_shown(record("raft.role.changed"), shows_all=False)
    assert not is_shown(rolled, shows_all=False)
    assert is_shown(rolled, shows_all=True)
    assert is_shown({**rolled, "level": "warn"}, shows_all=False)


def test_keys_act_on_the_chosen_node(board: Board) -> None:
    assert board.press("k") == [Order(Verb.KILL, "n1")]
    assert board.press("3") == []
    assert board.press("p") == [Order(Verb.PAUSE, "n3")]
    board.node.condition = Condition.PAUSED
    assert board.press("p") == [Order(Verb.RESUME, "n3")]
    assert board.press("c") == [Order(Verb.CUT, "n3")]
    board.node.is_cut = True
    assert board.press("c") == [Order(Verb.HEAL, "n3")]
    assert board.press("q") == [Order(Verb.QUIT)]


def test_bring_back_mends_whatever_is_wrong(board: Board) -> None:
    assert board.press("r") == []
    assert board.notice == "nothing is wrong with n1"
    board.node.condition, board.node.is_cut = Condition.DEAD, True
    assert board.press("r") == [Order(Verb.HEAL, "n1"), Order(Verb.START, "n1")]
    board.node.condition, board.node.is_cut = Condition.PAUSED, False
    assert board.press("r") == [Order(Verb.RESUME, "n1")]


def test_a_dead_node_can_neither_die_nor_pause(board: Board) -> None:
    board.node.condition = Condition.DEAD
    for key in "kp":
        assert board.press(key) == []
        assert board.notice == "n1 is dead: r brings it back"


def test_keys_without_meaning_do_nothing_and_help_helps(board: Board) -> None:
    for key in ("4", "0", "x", "\x1b", "²"):
        assert (board.press(key), board.notice, board.selected) == ([], "", 0)
    board.press("h")
    assert board.notice == HELP
    board.press("v")
    assert (board.shows_all, board.notice) == (True, "all log events")


def test_the_status_line_tells_who_leads_and_who_is_down(board: Board) -> None:
    assert " no leader term 0 │ ▸n1 silent │ n2 silent" in board.status_line(200, False)
    board.saw("n1", term=3, leader_id=0xB, revision=12)
    board.saw("n2", term=3, leader_id=0xB, revision=13)
    board.nodes[2].condition = Condition.DEAD
    line = board.status_line(200, False)
    assert line.startswith(" leader n2 term 3 │ ▸n1 follower rev 12 │ n2 leader rev 13 │ n3 dead │ k kill")
    for width in (1, 20, 60, 80):
        assert len(board.status_line(width, False)) <= width
        assert ESCAPE.sub("", board.status_line(width, True)) == board.status_line(width, False)


def test_of_two_leaders_the_one_of_the_higher_term_leads(board: Board) -> None:
    """One that was cut off may not know yet that it is none any more."""
    board.saw("n1", term=3, leader_id=0xA, revision=12)
    board.saw("n2", term=4, leader_id=0xB, revision=12)
    assert board.leader is board.nodes[1]
    board.saw("n2")
    assert board.leader is board.nodes[0]


def test_a_cluster_is_whole_once_all_follow_one_leader(board: Board) -> None:
    """Before, a newcomer who kills one may see the others wait for the third instead of an election."""
    board.saw("n1", term=1, leader_id=0xA, revision=1)
    board.saw("n2", term=1, leader_id=0xA, revision=1)
    assert not board.is_whole
    board.saw("n3", term=0, leader_id=0, revision=1)
    assert not board.is_whole
    board.saw("n3", term=1, leader_id=0xA, revision=1, errors=["its vote does not count"])
    assert not board.is_whole
    board.saw("n3", term=1, leader_id=0xA, revision=1, errors=[])
    assert board.is_whole


def test_nodes_have_ports_apart_and_ids_that_follow_from_their_flags(tmp_path: Any) -> None:
    nodes = nodes_of(3, 7379, tmp_path)
    assert [node.endpoint for node in nodes] == ["127.0.0.1:7379", "127.0.0.1:17379", "127.0.0.1:27379"]
    ports = [port for node in nodes for port in (node.client_port, node.relay_port, node.peer_port)]
    assert len(set(ports)) == 9
    assert len(board_of(nodes).names) == 3
