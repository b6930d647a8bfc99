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
from coord.node.waiters import Load, Waiter, Waiters
from coord.protocol.entries import NOTHING, Frame, decode_entry
from coord.protocol.messages import PeerMessage, Propose, Proposed
from coord.protocol.ops import Op
from coord.types import Role

OWN, LEADER, OTHER = 1, 2, 3
PUT, REGISTER = int(Op.PUT), int(Op.REGISTER)


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
            max_txn_ops=128,
            is_leaving=self.leaving.__contains__,
        )

    def submit(
        self, *frames: int, deadline: float = 10.0, op: int = PUT, ids: Sequence[tuple[int, float]] = ()
    ) -> None:
        """Submit frames in one turn; a frame is known by its number, which is its body too."""
        for number in frames:
            self.forwarder.submit(self.waiter(number, list(ids) or [(number, deadline)], op))
        self.forwarder.turn()

    def waiter(self, number: int, ids: list[tuple[int, float]], op: int = PUT) -> Waiter:
        """Return who waits for a frame."""
        frame = Frame(0, 0, "", NOTHING, b"%d" % number, [[0, op, None, []]])
        return Waiter(number, self, ids, frame)  # type: ignore[arg-type]

    def submit_each(self, *frames: int) -> None:
        """Submit frames in a turn each."""
        for number in frames:
            self.submit(number)

    def take_sent(self) -> list[tuple[int, list[list[int]]]]:
        """What was sent since: `(to, frames of each entry)`; an entry has the number of its first frame."""
        sent: list[tuple[int, list[list[int]]]] = []
        for message in self.sent:
            assert isinstance(message, Propose)
            sent.append((message.to, [frames_of(data) for _, data in message.entries]))
            assert [number for number, _ in message.entries] == [some[0] for some in sent[-1][1]]
        self.sent.clear()
        return sent

    def data(self, number: int) -> bytes:
        """The bytes of an entry that was sent."""
        return self.waiters.sent[number].data

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


def frames_of(data: bytes) -> list[int]:
    """The frames in an entry."""
    _, header, body = decode_entry(data)
    frames = [int(frame[4]) for frame in body]
    assert header == [OWN, frames[0], [128]]
    return frames


def lead(desk: Desk) -> None:
    desk.raft.role, desk.raft.leader_id = Role.LEADER, OWN


def test_leader_proposes_at_once_and_in_order_as_one_entry() -> None:
    desk = Desk()
    lead(desk)
    desk.submit(1, 2, 3)
    desk.submit(4)
    assert list(map(frames_of, desk.raft.entries)) == [[1, 2, 3], [4]]
    # No other member needs to hear of the commit at once.
    assert desk.raft.awaited_by == [OWN] * 2
    assert list(desk.waiters.placed) == [1, 2]
    assert desk.waiters.frames == 4
    assert desk.forwarder.bytes == 0


def test_registration_has_an_entry_of_its_own() -> None:
    """S17: the entry's index is the client's id."""
    desk = Desk()
    lead(desk)
    desk.raft.refuses = True
    desk.submit(1)
    desk.submit(2, 3, op=REGISTER)
    desk.raft.refuses = False
    desk.submit(4, 5)
    assert list(map(frames_of, desk.raft.entries)) == [[1], [2], [3], [4, 5]]


def test_frames_share_an_entry_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.forwarding.ENTRY_FRAMES_MAX", 3)
    monkeypatch.setattr("coord.node.forwarding.ENTRY_BYTES_SHARED_MAX", 4)
    desk = Desk()
    lead(desk)
    desk.submit(1, 2, 3, 4, 10, 11, 12, 13, 10_000, 5)
    assert list(map(frames_of, desk.raft.entries)) == [[1, 2, 3], [4, 10], [11, 12], [13], [10_000], [5]]
    assert desk.forwarder.bytes == 0


def test_follower_sends_a_batch_and_learns_the_places() -> None:
    desk = Desk()
    desk.submit(1, 2)
    desk.submit(3)
    assert desk.take_sent() == [(LEADER, [[1, 2]]), (LEADER, [[3]])]
    data = desk.data(1)
    desk.proposed(LEADER, [(1, 5, 7), (3, 5, 8)])
    assert list(desk.waiters.placed) == [7, 8]
    assert not desk.waiters.sent
    proposal = desk.waiters.take_placed(5, 7, data)
    assert proposal is not None
    assert [waiter.number for waiter in proposal.waiters] == [1, 2]


def test_placed_entry_that_was_overwritten_is_unknown() -> None:
    """S13: by index alone the answer of another entry would be given."""
    desk = Desk()
    desk.submit(1, 2)
    data = desk.data(1)
    desk.proposed(LEADER, [(1, 5, 7)])
    assert desk.waiters.take_placed(6, 7, data) is None
    for number in (1, 2):
        assert desk.answers[number].startswith("OutcomeUnknown: etcdserver: leader changed")


def test_entry_of_other_bytes_is_not_the_one_that_was_waited_for() -> None:
    """A wiped directory of this member may have sent a frame of the same number (S1): it is applied as it stands."""
    desk = Desk()
    desk.submit_each(1, 2)
    desk.proposed(LEADER, [(1, 5, 7)])
    assert desk.waiters.take_placed(5, 7, b"other") is None
    assert desk.waiters.take_applied(2, b"other") is None
    assert desk.waiters.take_applied(3, b"other") is None
    assert all(answer.startswith("OutcomeUnknown") for answer in desk.answers.values())
    assert len(desk.answers) == 2
    assert desk.waiters.placed_load == desk.waiters.sent_load == Load()


def test_entry_of_an_older_term_is_lost_when_a_newer_one_is_applied() -> None:
    desk = Desk()
    desk.submit_each(1, 2)
    desk.proposed(LEADER, [(1, 5, 7), (2, 6, 9)])
    desk.waiters.term_began(6)
    assert list(desk.answers) == [1]
    assert list(desk.waiters.placed) == [9]


def test_frame_that_was_not_proposed_goes_again_and_first() -> None:
    desk = Desk()
    desk.submit(1, 2)
    desk.submit(3)
    desk.take_sent()
    desk.proposed(LEADER, [(1, 0, 0)])
    desk.submit(4)
    # What was sent behind it must come back too, before anything follows.
    assert desk.take_sent() == []
    desk.proposed(LEADER, [(3, 0, 0)])
    desk.later(0.05)
    # The empty one says that the refusal was heard.
    assert desk.take_sent() == [(LEADER, []), (LEADER, [[1, 2, 3, 4]])]
    assert not desk.answers
    assert desk.waiters.sent_load == Load(4, len(desk.data(1)))
    assert desk.forwarder.bytes == len(desk.data(1))


def test_entry_that_the_own_log_does_not_take_stays_in_its_order() -> None:
    """While the lead is handed over nothing is proposed."""
    desk = Desk()
    lead(desk)
    desk.raft.refuses = True
    desk.submit(1, 2)
    desk.submit(3)
    assert desk.raft.entries == []
    desk.raft.refuses = False
    desk.submit(4)
    assert list(map(frames_of, desk.raft.entries)) == [[1, 2, 3, 4]]


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
    assert desk.take_sent() == [(OTHER, [[1, 2]])]
    assert list(desk.waiters.sent) == [1]


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
    assert desk.take_sent() == [(OTHER, [[2]])]


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
    desk.submit(1)
    desk.submit(2)
    assert desk.take_sent() == []
    lead(desk)
    desk.forwarder.turn()
    assert list(map(frames_of, desk.raft.entries)) == [[1, 2]]


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
    desk.submit(1, ids=[(1, 0.5), (2, 9.0)])
    desk.later(1.0)
    assert desk.answers[1].startswith("OutcomeUnknown: etcdserver: no leader")
    desk.raft.leader_id = LEADER
    desk.later(0.1)
    assert desk.take_sent() == [(LEADER, [[1]])]


def test_frame_that_would_share_an_entry_is_still_refused_clearly() -> None:
    """Frames wait alone: the patience of one caller does not make another's outcome unknown."""
    desk = Desk(FakeRaft(leader_id=0))
    desk.submit(1, 2, deadline=0.5)
    desk.submit(3)
    desk.later(1.0)
    assert [desk.answers[number][:11] for number in (1, 2)] == ["Unavailable"] * 2
    desk.raft.leader_id = LEADER
    desk.later(0.1)
    assert desk.take_sent() == [(LEADER, [[3]])]
    assert desk.forwarder.bytes == len(desk.data(3))


def test_answer_that_never_comes_is_unknown_at_the_deadline() -> None:
    desk = Desk()
    desk.submit(1, deadline=0.5)
    desk.later(1.0)
    assert desk.answers[1].startswith("OutcomeUnknown: etcdserver: request timed out")
    assert not desk.waiters.sent
    assert desk.waiters.sent_load == Load()


def test_entry_is_waited_for_while_one_of_its_callers_waits() -> None:
    desk = Desk()
    desk.forwarder.submit(desk.waiter(1, [(1, 0.5)]))
    desk.submit(2)
    desk.later(1.0)
    assert list(desk.answers) == [1]
    assert list(desk.waiters.sent) == [1]
    desk.later(10.0)
    assert list(desk.answers) == [1, 2]
    assert desk.waiters.sent_load == Load()


def test_outstanding_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.submit(1)
    monkeypatch.setattr("coord.node.forwarding.FORWARD_BYTES_MAX", 2 * len(desk.data(1)))
    desk.submit_each(2, 3, 4)
    assert desk.take_sent() == [(LEADER, [[1]]), (LEADER, [[2]])]
    desk.proposed(LEADER, [(1, 5, 1)])
    # Two make more than there is room for, until nothing is outstanding.
    assert desk.take_sent() == []
    desk.proposed(LEADER, [(2, 5, 2)])
    assert desk.take_sent() == [(LEADER, [[3, 4]])]


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
    desk.submit_each(1, 2)
    desk.forwarder.refuse_all(errors.server_stopped())
    desk.take_sent()
    desk.proposed(LEADER, [(1, 5, 7), (2, 0, 0)])
    assert desk.answers == {2: "Unavailable: etcdserver: server stopped"}
    assert desk.take_sent() == []
    assert desk.forwarder.is_idle


def test_gone_connection_is_answered_no_more() -> None:
    desk = Desk()
    desk.submit(1, 2)
    desk.waiters.forget(desk)  # type: ignore[arg-type]
    desk.forwarder.link_lost(LEADER)
    assert not desk.answers
