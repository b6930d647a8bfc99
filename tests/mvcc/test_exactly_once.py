"""S17 and S18: registration, window, recorded answers, eviction; and the planted bugs that must be seen."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import pytest

from coord.codec import decode, encode
from coord.limits import ANSWER_BYTES_KEPT, CLIENT_WINDOW
from coord.mvcc.clients import ClientRecord, ClientTable, KeptWrite, digest
from coord.protocol.entries import NOTHING, Frame, WritesHeader, encode_writes

from .rig import COMPACT, DELETE, PUT, REGISTER, TXN, Rig, frame


def numbered(number: int, value: bytes = b"v", key: bytes = b"k") -> list[Any]:
    return [number, PUT, None, [key, value]]


def unknown_client_is_refused() -> None:
    rig = Rig()
    (answer,) = rig.entry(numbered(1), client=77, low=1)
    assert not answer.ok
    assert answer.result[0] == "FailedPrecondition"
    assert answer.result[1].startswith("coord: the client is not registered")
    assert rig.keys() == []


def evicted_client_is_refused() -> None:
    rig = Rig(max_clients=2)
    first = rig.register()
    second = rig.register()
    rig.entry(numbered(1), client=first, low=1)
    third = rig.register()  # the second is the least recently used now
    assert rig.entry(numbered(1, b"2"), client=second, low=1)[0].ok is False
    assert rig.entry(numbered(2, b"3"), client=first, low=1)[0].ok
    assert rig.entry(numbered(1, b"4"), client=third, low=1)[0].ok
    assert rig.get(b"k")[5] == b"4"


def retry_gets_its_answer_again() -> None:
    rig = Rig()
    client = rig.register()
    first = rig.entry(numbered(1), client=client, low=1)
    rig.put(b"other")
    assert rig.entry(numbered(1), client=client, low=1) == first
    rig.reload()
    assert rig.entry(numbered(1), client=client, low=1) == first
    assert rig.get(b"k")[3] == 1


def late_arrival_is_applied() -> None:
    """Numbers arrive in any order: 2 before 1 does not close 1."""
    rig = Rig()
    client = rig.register()
    assert rig.entry(numbered(2, b"2"), client=client, low=1)[0].ok
    assert rig.entry(numbered(1, b"1"), client=client, low=1)[0].ok
    assert rig.get(b"k")[5] == b"1"


def closed_number_is_never_applied() -> None:
    rig = Rig()
    client = rig.register()
    rig.entry(numbered(1), client=client, low=1)
    rig.entry(numbered(3), client=client, low=3)
    (answer,) = rig.entry(numbered(2, b"late"), client=client, low=1)
    assert answer.result == ("FailedPrecondition", "coord: number 2 is below the client's low, 3")
    assert rig.get(b"k")[5] == b"v"


def settled_items_are_not_in_the_digest() -> None:
    """A retry through a node that settles another lease id gets the first one's answer (S18)."""
    rig = Rig()
    client = rig.register()
    grant = [1, 5, None, [10, 0]]
    first = rig.entry(grant, client=client, low=1, settled={0: (1, 500, 10)})
    again = rig.entry(grant, client=client, low=1, settled={0: (1, 501, 20)})
    assert first == again
    assert dict(rig.machine.leases()) == {500: 10}


SCENARIOS = [
    unknown_client_is_refused,
    evicted_client_is_refused,
    retry_gets_its_answer_again,
    late_arrival_is_applied,
    closed_number_is_never_applied,
    settled_items_are_not_in_the_digest,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(scenario: Callable[[], None]) -> None:
    scenario()


def test_planted_accepting_an_unknown_client_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ClientTable.use

    def use(self: ClientTable, client: int, low: int, index: int) -> ClientRecord | None:
        if client not in self:
            self.register(client)
        return honest(self, client, low, index)

    monkeypatch.setattr(ClientTable, "use", use)
    with pytest.raises(AssertionError):
        unknown_client_is_refused()


def test_planted_dedup_by_the_highest_number_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ClientRecord.recall

    def recall(self: ClientRecord, write: Any) -> Any:
        highest = max(self.answers, default=0)
        if write[0] <= highest:
            kept = self.answers[highest]
            assert isinstance(kept, KeptWrite)
            return kept.answer
        return honest(self, write)

    monkeypatch.setattr(ClientRecord, "recall", recall)
    monkeypatch.setattr(ClientRecord, "are_new", lambda self, first, end: False)
    with pytest.raises(AssertionError):
        late_arrival_is_applied()


def test_planted_forgetting_low_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientRecord, "close_below", lambda self, low: None)
    with pytest.raises(AssertionError):
        closed_number_is_never_applied()


def test_planted_records_that_no_row_keeps_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientTable, "take_dirty", lambda self: [])
    with pytest.raises(AssertionError):
        retry_gets_its_answer_again()


def test_reused_number_is_refused() -> None:
    rig = Rig()
    client = rig.register()
    rig.entry(numbered(1), client=client, low=1)
    for other in (
        numbered(1, b"other"),
        [1, PUT, [b"k", 2], [b"k", b"v"]],
        [1, DELETE, None, [b"k", b"v"]],
        [1, PUT, None, [b"k", b"v", 0]],
    ):
        (answer,) = rig.entry(other, client=client, low=1)
        assert answer.result == ("InvalidArgument", "coord: number 1 stands for another write")
    assert rig.get(b"k")[3] == 1


def test_window_ends_at_low_plus_its_size() -> None:
    rig = Rig()
    client = rig.register()
    assert rig.entry(numbered(CLIENT_WINDOW), client=client, low=1)[0].ok
    (answer,) = rig.entry(numbered(CLIENT_WINDOW + 1), client=client, low=1)
    assert answer.result[0] == "ResourceExhausted"
    assert rig.entry(numbered(CLIENT_WINDOW + 1), client=client, low=2)[0].ok


def test_a_leap_of_low_closes_everything_below() -> None:
    rig = Rig()
    client = rig.register()
    for number in range(1, 20):
        rig.entry(numbered(number), client=client, low=1)
    rig.entry(numbered(2**60), client=client, low=2**60)
    (row,) = rig.rows()["clients"].values()
    assert list(ClientRecord.from_row(row).answers) == [2**60]


def test_refusals_are_recorded() -> None:
    """A write that apply refused stays refused, even when the state would let it pass now."""
    rig = Rig()
    client = rig.register()
    write = [1, PUT, None, [b"k", b"v", 5]]
    refused = rig.entry(write, client=client, low=1)
    assert refused[0].result[0] == "NotFound"
    rig.write(5, 10, 5)
    assert rig.entry(write, client=client, low=1) == refused


def test_a_refusal_of_the_proposer_is_recorded_but_never_wins_over_an_answer() -> None:
    rig = Rig()
    client = rig.register()
    settled = {0: (0, ["ResourceExhausted", "etcdserver: mvcc: database space exceeded", []])}
    first = rig.entry(numbered(1), client=client, low=1)
    assert rig.entry(numbered(1), client=client, low=1, settled=settled) == first
    refused = rig.entry(numbered(2), client=client, low=1, settled=settled)
    assert refused[0].result == ("ResourceExhausted", "etcdserver: mvcc: database space exceeded")
    assert rig.entry(numbered(2), client=client, low=1) == refused


def test_a_repeated_physical_compaction_waits_for_the_rows_as_the_first_one_does() -> None:
    """A client asks another member after a second, where the rows may not be gone either."""
    rig = Rig()
    client = rig.register()
    rig.put(b"k")
    for _ in range(2):
        rig.entry([1, COMPACT, None, [rig.machine.revision, True]], client=client, low=1)
        assert rig.last.physical == [0]


def test_large_answers_keep_revision_and_outcome() -> None:
    rig = Rig()
    client = rig.register()
    large = b"x" * (ANSWER_BYTES_KEPT + 1)
    rig.put(b"k", large)
    reads = [[20, [b"k"]]]
    for number, (compare, succeeded) in enumerate(((1, True), (9, False)), start=1):
        txn = [number, TXN, None, [[[0, 0, b"k", compare]], [*reads, [1, [b"a", b""]]], [*reads, [1, [b"a", b""]]]]]
        (answer,) = rig.entry(txn, client=client, low=1)
        assert answer.ok
        assert answer.result[0] is succeeded
        rig.entry(txn, client=client, low=1)
        revision, ok, payload = rig.last.answers[0]
        code, _, details = decode(payload[1:])
        assert (ok, code, details) == (False, "OutOfRange", ["AnswerGone", answer.revision, succeeded])
        assert revision == answer.revision


def test_numbers_need_a_client_and_clients_need_numbers() -> None:
    rig = Rig()
    assert rig.entry(numbered(1))[0].result == ("InvalidArgument", "coord: a numbered write needs a client id")
    client = rig.register()
    (answer,) = rig.entry(numbered(0), client=client, low=0)
    assert answer.result == ("InvalidArgument", "coord: a registered client's writes are numbered from 1")
    (answer,) = rig.entry(numbered(0), client=client + 1, low=0)
    assert answer.result[1].startswith("coord: the client is not registered")
    assert rig.keys() == []


def test_a_stored_record_answers_as_before() -> None:
    """Answers of every shape: a revision alone, a result, a refusal."""
    rig = Rig()
    client = rig.register()
    writes = [numbered(1), [2, DELETE, None, [b"k"]], [3, PUT, None, [b"k", b"v", 5]], numbered(7)]
    first = [rig.entry(write, client=client, low=1) for write in writes]
    rig.reload()
    assert [rig.entry(write, client=client, low=1) for write in writes] == first
    record = rig.machine._clients.use(client, 1, (rig.machine.applied_index, 0))
    assert record is not None
    assert ClientRecord.from_row(record.to_row()) == record


def test_a_busy_client_costs_one_row_a_flush() -> None:
    rig = Rig()
    client = rig.register()
    rig.machine.flush_rows()
    writes: list[bytes] = []
    rig.backend.put_row = lambda table, key, value: writes.append(key)  # type: ignore[method-assign]
    for number in range(1, 50):
        rig.entry(numbered(number), client=client, low=number)
    assert writes == []
    rig.machine.flush_rows()
    assert len(writes) == 2  # the client's and the machine's


@pytest.mark.parametrize(
    "write", [[1, None, [b"key", b"value" * 100]], [1, [b"f", 3], [b"key", b""]], [2, None, [b"key", b"z", True]]]
)
def test_the_digest_is_over_the_deterministic_encoding(write: list[Any]) -> None:
    assert digest(*write) == blake2b(encode(write), digest_size=8).digest()


@pytest.mark.parametrize(
    "arguments",
    ["f7", "f0", "f8ff", "a1810102", "a1a1010203", "f97e00", "3bffffffffffffffff", "a1f7f6", "81a0", "64f09f9880"],
)
def test_whatever_a_client_sends_has_a_digest(arguments: str) -> None:
    """A write that is refused may stand in an entry beside good ones, and is recorded like them."""
    rig = Rig()
    client = rig.register()
    body = b"\x82\x84\x01\x01\xf6" + bytes.fromhex(arguments) + encode(numbered(2))
    entry = encode_writes(WritesHeader(7, 1, 128), [Frame(client, 1, "", NOTHING, body)])
    for _ in range(2):
        applied = rig.apply(entry)
        assert [ok for _, ok, _ in applied.answers] == [False, True]
    assert rig.get(b"k")[3] == 1
    rig.reload()


def test_eviction_order_survives_a_restart() -> None:
    rig, other = Rig(max_clients=3), Rig(max_clients=3)
    for each in (rig, other):
        clients_ = [each.register() for _ in range(3)]
        each.entry(numbered(1), client=clients_[0], low=1)
        if each is rig:
            each.reload()
        each.register()
    assert rig.rows() == other.rows()


def test_eviction_order_within_an_entry_survives_a_restart() -> None:
    """Two clients whose last frames share an entry: who came first there goes first, on every member."""
    rig, other = Rig(max_clients=2), Rig(max_clients=2)
    for each in (rig, other):
        first, second = each.register(), each.register()
        each.frames(frame(numbered(1), client=second, low=1), frame(numbered(1), client=first, low=1))
        if each is rig:
            each.reload()
        each.register()
        (answer,) = each.entry(numbered(2), client=first, low=1)
        assert answer.ok
    assert rig.rows() == other.rows()


@pytest.mark.parametrize("known", [1, 2])
def test_numbers_are_told_apart_over_the_frames_of_an_entry(known: int) -> None:
    """S18: what is sent again may come in the entry that holds the first sending."""
    rig = Rig()
    client, other = rig.register(), rig.register()
    first, between = frame(numbered(1, b"a"), client=client, low=1), frame(numbered(1, b"b"), client=other, low=1)
    again = frame(numbered(1, b"a"), numbered(2, b"c"), client=client, low=known)
    answers = rig.frames(first, between, again)
    assert [answer.revision for answer in (*answers[:2], answers[3])] == [2, 3, 4]
    if known == 1:
        assert answers[2] == answers[0]
    else:
        assert answers[2].result == ("FailedPrecondition", "coord: number 1 is below the client's low, 2")
    assert rig.machine.revision == 4


def test_registration_shares_no_entry() -> None:
    """S17: the proposer sees to it, and whatever it did, no id is given twice."""
    rig = Rig()
    register = frame([0, REGISTER, None, []])
    first, second = rig.frames(register, register)
    assert first.ok
    assert second.result == ("InvalidArgument", "coord: register must be alone in its entry")
    assert rig.register() == first.result + 1
