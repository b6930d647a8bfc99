"""Read rounds on a member that others may lead: shared, lost, late, and without a leader (S8, S29)."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from coord.codec import decode, encode
from coord.errors import ApiError, no_leader
from coord.mvcc.machine import StateMachine
from coord.node.outbox import Outbox
from coord.node.reads import NOBODY, Read, Reader
from coord.testing.memory_backend import MemoryBackend


@define
class Rig:
    """A reader of an empty state; `answers` is the id of each answered read with its error or result."""

    now: float = 10.0
    has_leader: bool = True
    rounds: int = 0
    answers: dict[int, Any] = field(factory=dict)
    reader: Reader = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reader = Reader(
            StateMachine(MemoryBackend()),
            Outbox(),
            lambda: self.now,
            lambda: None,
            self.new_round,
            has_leader=lambda: self.has_leader,
            no_leader=lambda: no_leader("n1 waits for n2"),
        )

    def new_round(self) -> int:
        self.rounds += 1
        return self.rounds

    def ask(self, *ids: int, within_s: float = 5.0) -> None:
        rig = self
        for number in ids:

            class Client:
                def reply(self, reply: bytes) -> None:
                    decoded = decode(reply)
                    rig.answers[decoded[0]] = ApiError.from_wire(decoded[3]).text if len(decoded) > 3 else decoded[2]

                def notify(self, notification: bytes) -> None: ...
                def flush(self) -> None: ...
                def is_slow(self) -> bool:
                    return False

            self.reader.linearizable(Read(Client(), number, self.now + within_s, lambda: encode("served")))

    def confirm(self, round_id: int, index: int = 0) -> None:
        self.reader.confirmed([(round_id, index)])
        self.reader.turn()

    def tick(self, seconds: float = 0.02) -> None:
        self.now += seconds
        self.reader.expire(self.now)


def test_a_read_that_arrives_during_a_round_waits_for_the_next() -> None:
    rig = Rig()
    rig.ask(1)
    first = rig.reader.wants_round()
    rig.ask(2)
    assert rig.reader.wants_round() == 0
    rig.confirm(first)
    assert set(rig.answers) == {1}
    rig.confirm(rig.reader.wants_round())
    assert set(rig.answers) == {1, 2}


def test_a_lost_round_gives_its_reads_back_in_their_order_and_paces_the_next() -> None:
    rig = Rig()
    rig.ask(1, 2)
    first = rig.reader.wants_round()
    rig.ask(3)
    rig.reader.lost([first, 99])
    assert [read.request_id for read in rig.reader.waiting] == [1, 2, 3]
    assert rig.reader.wants_round() == 0, "not before a tick, lest a leader that cannot confirm is asked in a loop"
    assert not rig.reader.turn()
    rig.tick()
    second = rig.reader.wants_round()
    assert second not in (0, first)
    rig.confirm(first)
    assert rig.answers == {}, "the round that was lost confirms nothing"
    rig.confirm(second)
    assert set(rig.answers) == {1, 2, 3}


def test_a_round_that_nobody_answers_is_started_anew() -> None:
    """The message that asked for it, or its answer, may have been lost."""
    rig = Rig()
    rig.ask(1)
    first = rig.reader.wants_round()
    rig.tick(0.3)
    assert rig.reader.wants_round() == 0
    rig.tick(0.3)
    second = rig.reader.wants_round()
    assert second not in (0, first)
    rig.confirm(second)
    assert rig.answers == {1: "served"}


def test_a_confirmed_round_that_waits_for_apply_is_not_started_anew() -> None:
    rig = Rig()
    rig.ask(1)
    rig.confirm(rig.reader.wants_round(), index=7)
    rig.tick(3)
    assert rig.reader.wants_round() == 0
    assert rig.answers == {}


def test_without_a_leader_reads_wait_and_end_with_the_reason() -> None:
    rig = Rig(has_leader=False)
    rig.ask(1, within_s=2.0)
    rig.ask(2, within_s=9.0)
    assert rig.reader.wants_round() == 0
    assert not rig.reader.turn()
    rig.tick(3)
    assert rig.answers == {1: "etcdserver: no leader: n1 waits for n2"}
    rig.has_leader = True
    rig.confirm(rig.reader.wants_round())
    assert rig.answers[2] == "served"


def test_a_member_without_a_leader_refuses_what_has_waited_for_an_election_timeout() -> None:
    """So that a client goes elsewhere while it has time left. The node's own rounds wait on."""
    rig = Rig(has_leader=False)
    own: list[int] = []
    rig.reader.linearizable(Read(NOBODY, 0, float("inf"), lambda: own.append(1)))
    rig.reader.leaderless(rig.now, 1.0)
    rig.ask(1)
    for _ in range(20):
        rig.tick(0.05)
        rig.reader.leaderless(rig.now, 1.0)
    assert rig.answers == {}
    rig.ask(2)
    for _ in range(21):
        rig.tick(0.05)
        rig.reader.leaderless(rig.now, 1.0)
    assert rig.answers == {1: "etcdserver: no leader: n1 waits for n2"}
    rig.has_leader = True
    rig.confirm(rig.reader.wants_round())
    assert own == [1]
    assert rig.answers[2] == "served"
    # Another time without a leader begins from nothing.
    rig.has_leader = False
    rig.ask(3)
    rig.now += 100
    rig.reader.leaderless(rig.now, 1.0)
    assert 3 not in rig.answers


def test_a_reader_on_hold_looks_at_nothing_and_serves_what_was_begun_anew() -> None:
    rig = Rig()
    runs: list[str] = []

    def slices() -> Any:
        runs.append("begun")
        yield
        rig.now += 1
        yield
        runs.append("ended")
        return encode("whole")

    client_read = Read(NOBODY, 5, rig.now + 60, slices)
    rig.reader.linearizable(client_read)
    rig.confirm(rig.reader.wants_round())
    assert runs == ["begun"]
    rig.reader.hold()
    rig.ask(1)
    assert not rig.reader.turn()
    assert runs == ["begun"]
    rig.reader.go_on()
    while "ended" not in runs:
        rig.reader.turn()
    assert runs == ["begun", "begun", "ended"]
