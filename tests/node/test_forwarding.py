"""The way of writes to the log (S13, S14): what is refused, sent again, unknown, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import define, field

from coord import errors
from coord.codec import decode
from coord.node.forwarding import Forwarder
from coord.node.outbox import Outbox
from coord.node.waiters import Waiter, Waiters
from coord.protocol.entries import WritesHeader
from coord.protocol.messages import PeerMessage, Propose, Proposed
from coord.types import Role

OWN, LEADER, OTHER = 1, 2, 3
HEADER = WritesHeader(OWN, 0, 0, 0, "", 128, {})


@define
class FakeRaft:
    """As much of Raft as proposes."""

    member_id: int = OWN
    leader_id: int = LEADER
    role: Role = Role.FOLLOWER
    term: int = 5
    refuses: bool = False
    entries: list[bytes] = field(factory=list)
    awaited_by: list[int | None] = field(factory=list)

    def propose(self, data: bytes, awaited_by: int | None = None) -> tuple[int, int] | None:
        if self.role is not Role.LEADER or self.refuses:
            return None
        self.entries.append(data)
        self.awaited_by.append(awaited_by)
        return self.term, len(self.entries)


@define(eq=False)
class Desk:
    """One member's forwarder, and what comes out of it."""

    raft: FakeRaft = field(factory=FakeRaft)
    now: float = 0.0
    sent: list[PeerMessage] = field(factory=list)
    answers: dict[int, str] = field(factory=dict)
    linked: set[int] = field(factory=lambda: {LEADER, OTHER})
    leaving: set[int] = field(factory=set)
    waiters: Waiters = field(init=False)
    forwarder: Forwarder = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.waiters = Waiters(Outbox())
        self.forwarder = Forwarder(
            raft=self.raft,  # type: ignore[arg-type]
            waiters=self.waiters,
            clock=lambda: self.now,
            send=self.sent.extend,
            is_linked=self.linked.__contains__,
            no_leader=lambda: errors.no_leader("n1 waits for n2"),
            patience_s=0.2,
            retry_s=0.02,
            is_leaving=self.leaving.__contains__,
        )

    def submit(self, *frames: int, deadline: float = 10.0) -> None:
        for frame in frames:
            data = b"%d" % frame
            entry = (1, HEADER, [])
            self.forwarder.submit(Waiter(frame, self, [(frame, deadline)], data, entry))  # type: ignore[arg-type]
        self.forwarder.turn()

    def take_sent(self) -> list[tuple[int, list[int]]]:
        """What was sent since: `(to, frames)`."""
        sent: list[tuple[int, list[int]]] = []
        for message in self.sent:
            assert isinstance(message, Propose)
            sent.append((message.to, [frame for frame, _ in message.entries]))
        self.sent.clear()
        return sent

    def proposed(self, sender: int, results: Sequence[tuple[int, int, int]]) -> None:
        self.forwarder.proposed(Proposed(sender, OWN, results, sender))
        self.forwarder.turn()

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.forwarder.expire(self.now)
        self.waiters.expire(self.now, self.raft.role is Role.LEADER)
        self.forwarder.turn()

    # Sink

    def reply(self, reply: bytes) -> None:
        decoded: list[Any] = decode(reply)
        assert decoded[0] not in self.answers, "answered twice"
        self.answers[decoded[0]] = f"{type(errors.ApiError.from_wire(decoded[3])).__name__}: {decoded[3][1]}"

    def flush(self) -> None:
        """Nothing is buffered."""


def lead(desk: Desk) -> None:
    desk.raft.role, desk.raft.leader_id = Role.LEADER, OWN


def test_leader_proposes_at_once_and_in_order() -> None:
    desk = Desk()
    lead(desk)
    desk.submit(1, 2, 3)
    assert desk.raft.entries == [b"1", b"2", b"3"]
    # No other member needs to hear of the commit at once.
    assert desk.raft.awaited_by == [OWN] * 3
    assert list(desk.waiters.placed) == [1, 2, 3]
    assert desk.forwarder.bytes == 0


def test_follower_sends_a_batch_and_learns_the_places() -> None:
    desk = Desk()
    desk.submit(1, 2)
    assert desk.take_sent() == [(LEADER, [1, 2])]
    desk.proposed(LEADER, [(1, 5, 7), (2, 5, 8)])
    assert list(desk.waiters.placed) == [7, 8]
    assert not desk.waiters.sent
    assert desk.waiters.take_placed(5, 7, b"1") is not None


def test_placed_entry_that_was_overwritten_is_unknown() -> None:
    """S13: by index alone the answer of another entry would be given."""
    desk = Desk()
    desk.submit(1)
    desk.proposed(LEADER, [(1, 5, 7)])
    assert desk.waiters.take_placed(6, 7, b"1") is None
    assert desk.answers[1].startswith("OutcomeUnknown: etcdserver: leader changed")


def test_entry_of_other_bytes_is_not_the_one_that_was_waited_for() -> None:
    """A wiped directory of this member may have sent a frame of the same number (S1): it is applied as it stands."""
    desk = Desk()
    desk.submit(1, 2)
    desk.proposed(LEADER, [(1, 5, 7)])
    assert desk.waiters.take_placed(5, 7, b"other") is None
    assert desk.waiters.take_applied(2, b"other") is None
    assert desk.waiters.take_applied(3, b"other") is None
    assert all(answer.startswith("OutcomeUnknown") for answer in desk.answers.values())
    assert len(desk.answers) == 2
    assert not len(desk.waiters)
    assert desk.waiters.bytes == desk.waiters.sent_bytes == 0


def test_entry_of_an_older_term_is_lost_when_a_newer_one_is_applied() -> None:
    desk = Desk()
    desk.submit(1, 2)
    desk.proposed(LEADER, [(1, 5, 7), (2, 6, 9)])
    desk.waiters.term_began(6)
    assert list(desk.answers) == [1]
    assert list(desk.waiters.placed) == [9]


def test_frame_that_was_not_proposed_goes_again_and_first() -> None:
    desk = Desk()
    desk.submit(1, 2)
    desk.take_sent()
    desk.proposed(LEADER, [(1, 0, 0)])
    desk.submit(3)
    # What was sent behind it must come back too, before anything follows.
    assert desk.take_sent() == []
    desk.proposed(LEADER, [(2, 0, 0)])
    desk.later(0.05)
    # The empty one says that the refusal was heard.
    assert desk.take_sent() == [(LEADER, []), (LEADER, [1, 2, 3])]
    assert not desk.answers


def test_leader_that_refused_takes_nothing_until_that_was_heard() -> None:
    """A frame on its way must not overtake the one before it, which comes again."""
    desk = Desk()
    lead(desk)
    forwarder = desk.forwarder
    desk.raft.refuses = True
    forwarder.propose_for(Propose(OTHER, OWN, [(1, b"1")]))
    desk.raft.refuses = False
    forwarder.propose_for(Propose(OTHER, OWN, [(2, b"2")]))
    assert desk.raft.entries == []
    forwarder.propose_for(Propose(OTHER, OWN, ()))
    forwarder.propose_for(Propose(OTHER, OWN, [(1, b"1"), (2, b"2")]))
    assert desk.raft.entries == [b"1", b"2"]
    assert desk.raft.awaited_by == [OTHER] * 2
    results = [message.results for message in desk.sent if isinstance(message, Proposed)]
    assert results == [[(1, 0, 0)], [(2, 0, 0)], [(1, 5, 1), (2, 5, 2)]]


def test_new_link_makes_an_earlier_refusal_void() -> None:
    desk = Desk()
    lead(desk)
    desk.raft.refuses = True
    desk.forwarder.propose_for(Propose(OTHER, OWN, [(1, b"1")]))
    desk.raft.refuses = False
    desk.forwarder.introduced(OTHER)
    desk.forwarder.propose_for(Propose(OTHER, OWN, [(9, b"9")]))
    assert desk.raft.entries == [b"9"]


def test_what_was_sent_on_a_link_that_broke_is_unknown_and_not_sent_again() -> None:
    """S14."""
    desk = Desk()
    desk.submit(1)
    desk.take_sent()
    desk.forwarder.link_lost(OTHER)
    assert not desk.answers
    desk.forwarder.link_lost(LEADER)
    assert desk.answers[1].startswith("OutcomeUnknown")
    desk.raft.leader_id = OTHER
    desk.later(1.0)
    assert desk.take_sent() == []


def test_new_leader_gets_nothing_before_the_former_one_has_answered() -> None:
    desk = Desk()
    desk.submit(1)
    desk.take_sent()
    desk.raft.leader_id = OTHER
    desk.submit(2)
    assert desk.take_sent() == []
    desk.proposed(LEADER, [(1, 0, 0)])
    desk.later(0.05)
    assert desk.take_sent() == [(OTHER, [1, 2])]
    assert list(desk.waiters.sent) == [1, 2]


def test_former_leader_that_keeps_silent_does_not_hold_up_the_next() -> None:
    desk = Desk()
    desk.submit(1)
    desk.take_sent()
    desk.raft.leader_id = OTHER
    desk.submit(2)
    desk.later(0.1)
    assert desk.take_sent() == []
    desk.later(0.15)
    assert desk.answers[1].startswith("OutcomeUnknown")
    assert desk.take_sent() == [(OTHER, [2])]


@pytest.mark.parametrize("leads", [False, True])
def test_former_leader_that_keeps_silent_leaves_nobody_waiting_if_nothing_follows(leads: bool) -> None:
    """Callers that wait for their answers send nothing more; the link of a leader that stands still lasts seconds."""
    desk = Desk()
    desk.submit(1)
    desk.raft.leader_id = 0
    desk.later(1.0)
    assert not desk.answers
    if leads:
        lead(desk)
    else:
        desk.raft.leader_id = OTHER
    desk.later(0.02)
    assert not desk.answers
    desk.later(0.2)
    assert desk.answers[1].startswith("OutcomeUnknown")
    assert desk.forwarder.is_idle


def test_own_lead_proposes_what_waited() -> None:
    desk = Desk(FakeRaft(leader_id=0))
    desk.submit(1, 2)
    assert desk.take_sent() == []
    lead(desk)
    desk.forwarder.turn()
    assert desk.raft.entries == [b"1", b"2"]


def test_without_a_leader_a_write_is_refused_in_its_time_and_clearly() -> None:
    desk = Desk(FakeRaft(leader_id=0))
    desk.submit(1, deadline=0.5)
    desk.later(0.4)
    assert not desk.answers
    desk.later(0.2)
    assert desk.answers[1] == "Unavailable: etcdserver: no leader: n1 waits for n2"
    desk.raft.leader_id = LEADER
    desk.later(0.1)
    assert desk.take_sent() == []


def test_write_that_may_go_with_its_frame_is_not_refused_clearly() -> None:
    """Of two writes in a frame one has waited long enough; the frame goes on, and takes both along."""
    desk = Desk(FakeRaft(leader_id=0))
    desk.forwarder.submit(Waiter(1, desk, [(1, 0.5), (2, 9.0)], b"1", (1, HEADER, [])))  # type: ignore[arg-type]
    desk.later(1.0)
    assert desk.answers[1].startswith("OutcomeUnknown: etcdserver: no leader")
    desk.raft.leader_id = LEADER
    desk.later(0.1)
    assert desk.take_sent() == [(LEADER, [1])]


def test_answer_that_never_comes_is_unknown_at_the_deadline() -> None:
    desk = Desk()
    desk.submit(1, deadline=0.5)
    desk.later(1.0)
    assert desk.answers[1].startswith("OutcomeUnknown: etcdserver: request timed out")
    assert not desk.waiters.sent
    assert desk.waiters.sent_bytes == 0


def test_outstanding_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.forwarding.FORWARD_BYTES_MAX", 2)
    desk = Desk()
    desk.submit(1, 2, 3)
    assert desk.take_sent() == [(LEADER, [1, 2])]
    desk.proposed(LEADER, [(1, 5, 1)])
    assert desk.take_sent() == [(LEADER, [3])]


def test_leader_takes_nothing_of_a_member_that_leaves() -> None:
    """It is sent nothing behind the entry that removes it, and so would never learn the outcome."""
    desk = Desk()
    lead(desk)
    desk.leaving.add(OTHER)
    desk.forwarder.propose_for(Propose(OTHER, OWN, [(1, b"1"), (2, b"2")]))
    desk.forwarder.propose_for(Propose(OTHER, OWN, []))
    desk.forwarder.propose_for(Propose(OTHER, OWN, [(1, b"1")]))
    assert desk.raft.entries == []
    results = [message.results for message in desk.sent if isinstance(message, Proposed)]
    assert results == [[(1, 0, 0), (2, 0, 0)], [(1, 0, 0)]]


def test_node_that_stops_refuses_clearly_what_the_leader_did_not_propose() -> None:
    """S14: its clients go elsewhere with it; here nobody would wait for a second try."""
    desk = Desk()
    desk.submit(1, 2)
    desk.forwarder.refuse_all(errors.server_stopped())
    desk.take_sent()
    desk.proposed(LEADER, [(1, 5, 7), (2, 0, 0)])
    assert desk.answers == {2: "Unavailable: etcdserver: server stopped"}
    assert desk.take_sent() == []
    assert desk.forwarder.is_idle


def test_gone_connection_is_answered_no_more() -> None:
    desk = Desk()
    desk.submit(1)
    desk.waiters.forget(desk)  # type: ignore[arg-type]
    desk.forwarder.link_lost(LEADER)
    assert not desk.answers
