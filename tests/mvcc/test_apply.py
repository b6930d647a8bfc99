"""S15: apply is total and blind. S16, S22, S27: alarms, expiry, the fence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coord import codec
from coord.codec import decode, encode
from coord.errors import DiskError, NodeError
from coord.limits import CBOR_SCAN_FROM_BYTES
from coord.mvcc.apply import WriteApplier
from coord.mvcc.backend import Table
from coord.mvcc.index import KeyIndex
from coord.mvcc.leases import LeaseTable
from coord.mvcc.machine import StateMachine
from coord.mvcc.writes import Writer
from coord.protocol.entries import (
    NOTHING,
    Frame,
    Member,
    Roster,
    decode_entry,
    encode_cluster,
    encode_entry,
    encode_members,
    read_writes,
)
from coord.protocol.ops import EntryKind
from coord.testing.memory_backend import MemoryBackend

from .rig import ALARM, COMPACT, DELETE, GRANT, PUT, REVOKE, TXN, Rig, frame

NO_SPACE = ("ResourceExhausted", "etcdserver: mvcc: database space exceeded")
CORRUPT = ("DataLoss", "etcdserver: corrupt cluster")


def snapshot(rig: Rig) -> Any:
    machine = rig.machine
    leases = {lease: machine.lease_keys(lease) for lease, _ in machine.leases()}
    return rig.range(b"\0", b"\0"), machine.revision, leases, dict(rig.backend.records), rig.hash()


def filled() -> Rig:
    rig = Rig()
    rig.write(GRANT, 60, 1)
    rig.write(GRANT, 60, 2)
    for number in range(4):
        rig.put(b"k%d" % number, b"1", 1 + number % 2)
    rig.write(DELETE, b"k3")
    return rig


def raising_write_changes_nothing(plant: Callable[[], Any] | None = None) -> None:
    """A txn that has put, deleted and moved a lease before it raises leaves no trace, and its neighbours stand."""
    rig = filled()
    before = snapshot(rig)
    operations = [
        [1, [b"k0", b"2", 2]],
        [3, [[], [[1, [b"new", b"3", 1]], [1, [b"k3", b"back"]]], []]],
        [2, [b"k1", b"k3"]],
        [1, [b"raise", b""]],
    ]
    honest = Writer.put

    def put(self: Writer, key: bytes, value: bytes, lease: int = 0) -> None:
        if key == b"raise":
            raise KeyError("planted")
        honest(self, key, value, lease)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "put", put)
        answers = rig.entry([0, TXN, None, [[], operations, []]])
    assert answers[0].result == (
        "Internal",
        "coord: applying this write raised KeyError; nothing was changed",
    )
    assert rig.last.notes == [("apply.write.raised", {"index": rig.last.index, "position": 0, "error": "KeyError"})]
    assert rig.last.events == []
    assert snapshot(rig) == before
    assert rig.keys() == [b"k0", b"k1", b"k2"]
    assert rig.put(b"k3", b"again").revision == before[1] + 1
    rig.reload()
    assert rig.get(b"k3")[3] == 1


def test_raising_write_changes_nothing() -> None:
    raising_write_changes_nothing()


def test_planted_no_undo_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def rollback(self: Writer) -> None:
        self.changes = []
        self._undo = []

    monkeypatch.setattr(Writer, "rollback", rollback)
    with pytest.raises(AssertionError):
        raising_write_changes_nothing()


def test_a_put_that_fails_behind_a_delete_undoes_it() -> None:
    """The one error that etcd meets in the middle of a transaction, and dies of."""
    rig = filled()
    before = snapshot(rig)
    answer = rig.txn([], [[1, [b"0", b""]], [2, [b"k", b"\0"]], [1, [b"k1", b"", 0, False, True]]])
    assert answer.result == ("InvalidArgument", "etcdserver: key not found")
    assert rig.last.events == []
    assert snapshot(rig) == before


@pytest.mark.parametrize("method", ["replace", "latest"])
def test_an_index_that_raises_undoes_what_came_before(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = filled()
    before = snapshot(rig)
    honest = getattr(KeyIndex, method)
    calls = 0

    def planted(self: KeyIndex, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("planted")
        return honest(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(KeyIndex, method, planted)
        answer = rig.txn([], [[1, [b"x%d" % number, b""]] for number in range(4)])
    assert answer.result[0] == "Internal"
    assert snapshot(rig) == before


def test_a_lease_table_that_raises_undoes_the_revoke(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = filled()
    before = snapshot(rig)

    def revoke(self: LeaseTable, lease: int) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(LeaseTable, "revoke", revoke)
        assert rig.write(REVOKE, 1).result[0] == "Internal"
    assert snapshot(rig) == before
    assert rig.write(REVOKE, 1).ok


def test_errors_of_the_machine_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = filled()

    def read(self: MemoryBackend, revision: int, sub: int) -> bytes:
        raise DiskError("planted")

    monkeypatch.setattr(MemoryBackend, "read", read)
    with pytest.raises(DiskError):
        rig.put(b"k0", b"", 0, True)


def settled_ttl_stands() -> None:
    """What depends on a node's flags was settled by the proposer; apply neither clamps nor chooses (S15)."""
    rig = Rig()
    (answer,) = rig.entry([0, GRANT, None, [1, 0]], settled={0: (1, 77, 1)})
    assert answer.result == [77, 1]
    assert rig.last.leases_granted == [(77, 1)]
    assert dict(rig.machine.leases()) == {77: 1}


def test_settled_ttl_stands() -> None:
    settled_ttl_stands()


def test_planted_clamping_the_ttl_in_apply_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = LeaseTable.grant
    monkeypatch.setattr(LeaseTable, "grant", lambda self, lease, ttl_s: honest(self, lease, max(ttl_s, 2)))
    with pytest.raises(AssertionError):
        settled_ttl_stands()


def test_limits_come_from_the_entry() -> None:
    rig = Rig()
    puts = [[1, [b"%d" % number, b""]] for number in range(5)]
    write = [0, TXN, None, [[], puts, []]]
    assert rig.entry(write, max_txn_ops=4)[0].result[1] == "etcdserver: too many operations in txn request"
    assert rig.entry(write, max_txn_ops=5)[0].ok


def test_each_write_of_an_entry_stands_alone() -> None:
    rig = Rig()
    answers = rig.entry(
        [0, PUT, None, [b"a", b"1"]],
        [0, PUT, None, [b"", b"1"]],
        [0, 99, None, []],
        [0, PUT, None, [b"b", 1.5]],
        [0, PUT, None, [b"b", b"2"]],
    )
    assert [answer.ok for answer in answers] == [True, False, False, False, True]
    assert [answer.revision for answer in answers] == [2, 2, 2, 2, 3]
    assert [revision for revision, _ in rig.last.events] == [2, 3]


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xff", b"\x81", encode(5), encode([]), encode({}), encode([5]), encode([[0, 1, None]])]
)
def test_bodies_that_cannot_be_read_change_nothing(body: bytes) -> None:
    rig = Rig()
    good, bad = frame([0, PUT, None, [b"a", b"1"]]), Frame(0, 0, "", NOTHING, body)
    *refused, last = rig.frames(good, bad, good)[1:]
    assert all(not answer.ok and answer.revision == 2 for answer in refused)
    assert last.revision == 3


def test_apply_does_not_count_the_items_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of the node that took the frame must not decide at apply (S15): the origin applies what it decoded."""
    monkeypatch.setattr(codec, "CBOR_ITEMS_MAX", 100)
    writes = [[0, PUT, None, [b"k", b"v" * (CBOR_SCAN_FROM_BYTES // 50)]] for _ in range(60)]
    rig = Rig()
    assert [answer.ok for answer in rig.entry(*writes)] == [True] * 60


def test_unknown_kinds_and_formats_stop_the_node() -> None:
    rig = Rig()
    with pytest.raises(NodeError, match="upgrade first"):
        rig.apply(b"\x84\x01\x18\x63\xf6\x40")
    with pytest.raises(NodeError, match="upgrade first"):
        rig.apply(b"\x84\x02\x00\xf6\x40")
    with pytest.raises(NodeError, match="entry 2"):
        rig.apply(b"rubbish")


def test_apply_is_blind() -> None:
    """Two members that live differently (one restarts, compacts at once, serves reads) end in one state."""
    rig, other = filled(), None
    client = rig.register()
    for number in range(1, 30):
        rig.entry([number, PUT, None, [b"c%d" % (number % 7), b"%d" % number]], client=client, low=max(1, number - 3))
        if number == 10:
            rig.write(COMPACT, rig.machine.revision - 3)
    rig.write(REVOKE, 1)
    rig.write(ALARM, 1, 7, 1)
    rig.expire(2)
    other = Rig()
    for index, term, data in rig.entries[1:]:
        other.machine.apply(index, term, data)
        if index % 5 == 0:
            other.compact_physically()
            other.reload()
            other.keys()
    assert other.hash() == rig.hash()
    rig.compact_physically()
    assert other.rows() == rig.rows()
    assert other.hash() == rig.hash()
    assert rig.backend.records == other.backend.records


def test_a_decoded_entry_may_be_handed_over() -> None:
    rig, other = filled(), Rig()
    for index, term, data in rig.entries[1:]:
        kind, header, body = decode_entry(data)
        if kind == EntryKind.WRITES:
            header, body = read_writes(header, body)
        other.machine.apply(index, term, data, entry=(kind, header, body))
    assert other.hash() == rig.hash()


def test_revision_outlives_its_records() -> None:
    """After everything is deleted and compacted nothing tells the revision but its row."""
    rig = filled()
    rig.write(DELETE, b"\0", b"\0")
    rig.put(b"last")
    rig.write(DELETE, b"last")
    rig.put(b"x")
    rig.write(DELETE, b"x")
    revision = rig.machine.revision
    rig.write(COMPACT, revision)
    rig.compact_physically()
    rig.reload()
    assert rig.machine.revision == revision
    assert rig.machine.compact_revision == revision
    assert rig.put(b"a").revision == revision + 1


def test_meta_rows_come_back() -> None:
    rig = Rig(max_clients=5)
    rig.apply(encode_entry(EntryKind.CLUSTER_VERSION, None, encode([3])))
    member = Member(8, "n2", ("http://n2:7380",), (), True, 5, True)
    rig.apply(encode_members(Roster((member,), frozenset({7, 8}), frozenset({7, 4}))))
    assert rig.last.members_changed
    rig.apply(encode_entry(EntryKind.NOOP, None, b""))
    rig.term = 4
    rig.write(ALARM, 1, 8, 2)
    rig.reload()
    machine = rig.machine
    assert (machine.cluster_id, machine.version, machine.alarms) == (99, 3, {(8, 2)})
    assert machine.members == {8: member}
    assert (machine.outgoing, machine.removed) == (frozenset({7, 8}), frozenset({7, 4}))
    assert (machine.applied_index, machine.applied_term) == (5, 4)


def test_members_change_as_a_whole() -> None:
    """S15: what stood before plays no part, so that a change is the same on every member."""
    rig = Rig()
    old, new = Member(8, "n2", ("http://n2:7380",), ()), Member(9, "", ("http://n3:7380",), (), True)
    for roster in (Roster((old, new), frozenset({7}), frozenset({7})), Roster((new,))):
        rig.apply(encode_members(roster))
        for _ in range(2):
            assert tuple(rig.machine.members.values()) == roster.members
            assert (rig.machine.outgoing, rig.machine.removed) == (roster.outgoing, roster.removed)
            rig.reload()


def test_members_of_before_there_were_incarnations_are_read() -> None:
    rig = Rig()
    row = [7, "n1", ["http://n1:7380"], [], False]
    rig.machine.flush_rows()
    rig.backend.tables[Table.MEMBERS] = {(7).to_bytes(8, "big"): encode(row)}
    rig.reload()
    assert rig.machine.members == {7: Member(7, "n1", ("http://n1:7380",), ())}
    assert not rig.machine.outgoing | rig.machine.removed


def test_only_the_first_cluster_entry_counts() -> None:
    rig = Rig()
    rig.apply(encode_cluster(5, 1, []))
    assert not rig.last.members_changed
    assert rig.machine.cluster_id == 99
    assert set(rig.machine.members) == {7}


# ---- alarms (S16)


def test_no_space_refuses_what_grows_and_nothing_else() -> None:
    rig = filled()
    rig.apply(encode_entry(EntryKind.ALARM, None, encode([1, 7, 1])))
    assert rig.last.alarms_changed
    assert rig.put(b"a").result == NO_SPACE
    assert rig.write(GRANT, 10, 9).result == NO_SPACE
    assert rig.txn([], [[3, [[], [], [[1, [b"a", b""]]]]]]).result == NO_SPACE
    assert rig.txn([], [[2, [b"k0"]], [20, [b"k1"]]]).ok
    assert rig.write(DELETE, b"k1").ok
    assert rig.write(REVOKE, 2).ok
    assert rig.write(COMPACT, rig.machine.revision).ok
    assert rig.register()
    rig.reload()
    assert rig.put(b"a").result == NO_SPACE
    assert rig.write(ALARM, 2, 0, 0).result == [[7, 1]]
    assert rig.put(b"a").ok


def test_corrupt_refuses_every_write_but_alarms() -> None:
    rig = filled()
    assert rig.write(ALARM, 1, 7, 2).result == [[7, 2]]
    for op, arguments in ((PUT, [b"a", b""]), (DELETE, [b"k0"]), (TXN, [[], [], []]), (COMPACT, [3]), (REVOKE, [1])):
        assert rig.write(op, *arguments).result == CORRUPT
    assert rig.expire(1).leases_revoked == []
    assert rig.write(ALARM, 2, 7, 2).result == [[7, 2]]
    assert rig.put(b"a").ok


def test_alarms_change_once() -> None:
    rig = Rig()
    assert rig.write(ALARM, 1, 7, 1).result == [[7, 1]]
    assert rig.write(ALARM, 1, 8, 1).result == [[8, 1]]
    assert rig.write(ALARM, 2, 9, 1).result == []
    assert rig.write(ALARM, 2, 7, 1).result == [[7, 1]]
    assert rig.machine.alarms == {(8, 1)}
    assert rig.put(b"a").result == NO_SPACE


# ---- expiry (S22)


def expiry_of_another_term_is_void() -> None:
    rig = filled()
    assert rig.expire(1, term=rig.term - 1).leases_revoked == []
    assert rig.machine.lease_ttl(1) == 60
    applied = rig.expire(1, 55, 2)
    assert applied.leases_revoked == [1, 2]
    assert rig.keys() == []
    # Each lease's keys go in a revision of their own, in order.
    assert [[event[0] for event in events] for _, events in applied.events] == [[b"k0", b"k2"], [b"k1"]]


def test_expiry_of_another_term_is_void() -> None:
    expiry_of_another_term_is_void()


def test_expiry_spares_a_lease_granted_anew_since_it_was_proposed() -> None:
    """S22: a lease is never expired early, though its id was another's whose time was over."""
    rig = Rig()
    rig.write(GRANT, 10, 7)
    seen = rig.machine.applied_index
    rig.write(REVOKE, 7)
    rig.write(GRANT, 10, 7)

    assert rig.expire(7, seen=seen).leases_revoked == []
    rig.reload()
    assert rig.expire(7, seen=seen).leases_revoked == []
    assert rig.expire(7).leases_revoked == [7]


def test_planted_expiry_without_its_term_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply_expiry(self: StateMachine, applied: Any, term: int, header: Any, body: Any) -> None:
        self._writes.expire(applied, *decode(body)[1:])

    monkeypatch.setattr(StateMachine, "_apply_expiry", apply_expiry)
    with pytest.raises(AssertionError):
        expiry_of_another_term_is_void()


# ---- the fence (S27)


def lost_fence_runs_no_branch() -> None:
    rig = Rig()
    created = rig.put(b"lock").revision
    other = [[], [[1, [b"then", b""]]], [[1, [b"else", b""]]]]
    assert rig.write(TXN, *other, guard=[b"lock", created]).ok
    for guard in ([b"lock", created - 1], [b"lock", created + 1], [b"absent", created]):
        for op, arguments in ((TXN, other), (PUT, [b"then", b"x"]), (DELETE, [b"lock"]), (GRANT, [5, 5])):
            answer = rig.write(op, *arguments, guard=guard)
            assert answer.result[0] == "Aborted"
    assert rig.keys() == [b"lock", b"then"]
    assert rig.get(b"then")[3] == 1
    rig.write(DELETE, b"lock")
    rig.put(b"lock")
    assert rig.write(PUT, b"then", b"", guard=[b"lock", created]).result[0] == "Aborted"


def test_lost_fence_runs_no_branch() -> None:
    lost_fence_runs_no_branch()


def test_planted_guard_as_a_plain_compare_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = WriteApplier._apply_write

    def apply_write(self: WriteApplier, frame: Any, write: list[Any]) -> Any:
        number, op, guard, arguments = write
        if guard is not None and op == TXN:
            compare = [1, 0, guard[0], guard[1]]
            write = [number, op, None, [[*arguments[0], compare], *arguments[1:]]]
        return honest(self, frame, write)

    monkeypatch.setattr(WriteApplier, "_apply_write", apply_write)
    with pytest.raises(AssertionError):
        lost_fence_runs_no_branch()


def test_a_lost_fence_is_a_recorded_answer() -> None:
    rig = Rig()
    client = rig.register()
    write = [1, PUT, [b"lock", 2], [b"a", b""]]
    lost = rig.entry(write, client=client, low=1)
    assert lost[0].result[0] == "Aborted"
    rig.put(b"lock")
    assert rig.get(b"lock")[1] == 2
    assert rig.entry(write, client=client, low=1) == lost
