"""Calls to the leader over a link that breaks, to a member that no longer leads, or to none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import define, field

from coord.codec import decode
from coord.errors import ApiError, OutcomeUnknown, Unavailable, Unimplemented, no_leader, server_stopped
from coord.node.calls import Calls
from coord.node.outbox import Outbox
from coord.node.ports import Sink
from coord.node.replies import reply_value
from coord.protocol.messages import Call, CallReply, PeerMessage
from coord.protocol.ops import Method

KEEP_ALIVE = int(Method.LEASE_KEEP_ALIVE)
REMOVE = int(Method.MEMBER_REMOVE)
REASON = "etcdserver: no leader: n1 waits for n2, n3"


class Client:
    def __init__(self) -> None:
        self.replies: list[list[Any]] = []

    def reply(self, reply: bytes) -> None:
        self.replies.append(decode(reply))

    def notify(self, notification: bytes) -> None:
        raise AssertionError

    def flush(self) -> None:
        pass

    def is_slow(self) -> bool:
        return False

    @property
    def error(self) -> ApiError:
        (reply,) = self.replies
        return ApiError.from_wire(reply[3])


@define
class Rig:
    """Member 1, whose world is made of attributes."""

    leader: int = 2
    linked: set[int] = field(factory=lambda: {2, 3})
    now: float = 100.0
    sent: list[Any] = field(factory=list)
    served: list[tuple[Sink, int, int, list[Any]]] = field(factory=list)
    numbers: int = 1000
    calls: Calls = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.calls = Calls(
            member_id=1,
            leader_id=lambda: self.leader,
            is_linked=lambda member: member in self.linked,
            send=self.send,
            serve=self.serve,
            clock=lambda: self.now,
            wake=lambda: None,
            new_id=self.number,
            no_leader=lambda: no_leader("n1 waits for n2, n3"),
            outbox=Outbox(),
        )

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def send(self, messages: Sequence[PeerMessage]) -> None:
        self.sent.extend(messages)

    def serve(self, sink: Sink, request_id: int, method: int, timeout_ms: int, arguments: list[Any]) -> None:
        self.served.append((sink, request_id, method, arguments))

    def ask(self, method: int, request_id: int = 7) -> Client:
        client = Client()
        self.calls.forward(client, request_id, self.now + 5, method, [[11]])
        self.calls.turn()
        return client

    def answer(self, call: Call, **what: Any) -> None:
        self.calls.take(CallReply(call.to, call.sender, call.id, **{"result": None, **what}))
        self.calls.turn()


def test_the_leaders_answer_reaches_the_client_under_its_own_id() -> None:
    rig = Rig()
    client = rig.ask(KEEP_ALIVE)
    (call,) = rig.sent
    assert (call.sender, call.to, call.method, call.timeout_ms, call.arguments) == (1, 2, KEEP_ALIVE, 5000, [[11]])
    rig.answer(call, result=reply_value(call.id, 44, [[11, 5]]))
    assert client.replies == [[7, 44, [[11, 5]]]]
    rig.answer(call, result=reply_value(call.id, 44, [[11, 5]]))
    assert len(client.replies) == 1


def test_a_change_that_was_sent_is_waited_for_and_nothing_else() -> None:
    rig = Rig()
    assert rig.calls.is_idle
    rig.ask(KEEP_ALIVE)
    assert rig.calls.is_idle
    client = rig.ask(REMOVE)
    assert not rig.calls.is_idle
    _, call = rig.sent
    rig.answer(call, result=reply_value(call.id, 1, []))
    assert rig.calls.is_idle
    assert client.replies == [[7, 1, []]]
    rig.leader = 0
    rig.ask(REMOVE)
    assert rig.calls.is_idle, "nobody has been asked, so it can be refused"


def test_a_call_waits_for_a_leader_and_for_a_link_and_names_the_reason_at_its_end() -> None:
    rig = Rig(leader=0)
    client, other = rig.ask(KEEP_ALIVE), rig.ask(REMOVE)
    rig.leader, rig.linked = 2, {3}
    rig.calls.turn()
    assert rig.sent == []
    rig.leader = 0
    rig.now += 5
    rig.calls.expire()
    for one in (client, other):
        assert type(one.error) is Unavailable
        assert one.error.text == REASON
    assert rig.calls.open_count == 0


@pytest.mark.parametrize("how", ["the link breaks", "another leads"])
def test_what_may_be_asked_twice_is_asked_again(how: str) -> None:
    rig = Rig()
    client = rig.ask(KEEP_ALIVE)
    first = rig.sent.pop()
    rig.leader = 3
    if how == "the link breaks":
        rig.calls.link_broken(2)
    rig.calls.turn()
    (second,) = rig.sent
    assert second.to == 3
    assert second.id != first.id
    rig.answer(first, result=reply_value(first.id, 1, [[11, 0]]))
    assert client.replies == []
    rig.answer(second, result=reply_value(second.id, 2, [[11, 5]]))
    assert client.replies == [[7, 2, [[11, 5]]]]


def test_a_change_that_was_sent_is_not_sent_again_and_its_outcome_is_unknown() -> None:
    """S14."""
    rig = Rig()
    lost = rig.ask(REMOVE)
    rig.leader = 3
    rig.calls.turn()
    assert len(rig.sent) == 1, "another leader changes nothing"
    rig.calls.link_broken(3)
    assert lost.replies == []
    rig.calls.link_broken(2)
    assert type(lost.error) is OutcomeUnknown
    assert len(rig.sent) == 1

    late = rig.ask(REMOVE)
    rig.leader = 2
    rig.now += 5
    rig.calls.expire()
    assert type(late.error) is OutcomeUnknown
    stopped, read = rig.ask(REMOVE), rig.ask(KEEP_ALIVE)
    rig.calls.fail_all(server_stopped())
    assert type(stopped.error) is OutcomeUnknown
    assert read.error.text == server_stopped().text


def test_what_was_not_handled_is_asked_again_but_not_in_a_loop() -> None:
    rig = Rig()
    client = rig.ask(REMOVE)
    for _ in range(3):
        call = rig.sent.pop()
        rig.answer(call, error=no_leader().to_wire(), is_unhandled=True)
        assert rig.sent == [], "the same member is asked again only after a tick"
        rig.calls.expire()
        rig.calls.turn()
    rig.answer(rig.sent.pop(), error=no_leader().to_wire(), is_unhandled=True)
    rig.leader = 3
    rig.calls.turn()
    (call,) = rig.sent
    assert call.to == 3
    rig.answer(call, result=reply_value(call.id, 9, [[]]))
    assert client.replies == [[7, 9, [[]]]]


def test_a_member_that_comes_to_lead_serves_its_own_calls() -> None:
    rig = Rig(leader=0)
    client = rig.ask(KEEP_ALIVE)
    rig.leader = 1
    rig.calls.turn()
    assert rig.served == [(client, 7, KEEP_ALIVE, [[11]])]
    assert rig.sent == []


def test_the_leader_serves_what_it_is_called_for_and_nothing_else() -> None:
    rig = Rig(leader=1)
    rig.calls.take(Call(2, 1, 31, KEEP_ALIVE, 5000, [[11]]))
    rig.calls.take(Call(3, 1, 32, int(Method.RANGE), 5000, [b"k"]))
    rig.calls.turn()
    ((caller, call_id, method, arguments),) = rig.served
    assert (call_id, method, arguments) == (31, KEEP_ALIVE, [[11]])
    (refused,) = rig.sent
    assert (refused.to, refused.id, refused.is_unhandled) == (3, 32, False)
    assert type(ApiError.from_wire(decode(refused.result)[3])) is Unimplemented
    caller.reply(reply_value(31, 8, [[11, 5]]))
    assert rig.sent[1] == CallReply(1, 2, 31, reply_value(31, 8, [[11, 5]]))
    # S9: it is deposed while the round is under way.
    rig.calls.forward(caller, 31, rig.now + 1, KEEP_ALIVE, [[11]])
    assert rig.sent[2].is_unhandled
    assert rig.calls.open_count == 0


def test_a_member_that_does_not_lead_says_that_it_did_nothing() -> None:
    rig = Rig(leader=3)
    rig.calls.take(Call(2, 1, 31, REMOVE, 5000, [[11]]))
    rig.calls.turn()
    assert rig.served == []
    assert rig.sent == [CallReply(1, 2, 31, None, no_leader().to_wire(), is_unhandled=True)]


def test_calls_of_those_who_left_and_canceled_are_dropped() -> None:
    rig = Rig()
    gone, canceled, change = rig.ask(KEEP_ALIVE), rig.ask(KEEP_ALIVE), rig.ask(REMOVE)
    rig.calls.forget(gone)
    rig.calls.cancel(canceled, 7)
    rig.calls.cancel(change, 7)
    assert gone.replies == []
    assert canceled.error.code == "Canceled"
    assert change.replies == [], "it may have been done"
    assert rig.calls.open_count == 1


def test_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.node.calls.READS_PENDING_MAX", 2)
    rig = Rig(leader=0)
    rig.ask(KEEP_ALIVE)
    rig.ask(KEEP_ALIVE)
    with pytest.raises(ApiError, match="too many requests"):
        rig.ask(KEEP_ALIVE)


def test_ten_thousand_calls_time_out_in_no_time() -> None:
    rig = Rig(leader=0)
    clients = [rig.ask(KEEP_ALIVE) for _ in range(10_000)]
    rig.leader = 2
    rig.calls.turn()
    rig.now += 6
    rig.calls.expire()
    assert all(client.replies for client in clients)
