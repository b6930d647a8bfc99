"""Events as they were applied and as they are read again; rebuilding in slices."""

from __future__ import annotations

import pytest

from coord.codec import encode
from coord.mvcc import history
from coord.mvcc.records import decode_record, encode_record, encode_tombstone

from .rig import DELETE, GRANT, TXN, Rig, run


@pytest.mark.parametrize("number", [0, 1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1])
def test_records_are_deterministic_cbor(number: int) -> None:
    for length in (1, 23, 24, 255, 256, 1023, 1024, 70_000):
        fields = (b"k" * length, number, number + 1, number, number, b"v" * length)
        assert encode_record(*fields) == encode(fields)
        assert decode_record(encode(fields)) == fields
        for mod, version in ((number, 1), (number + 1, 24), (max(number, 70_000), 1023), (2**32, 1024)):
            usual = (b"k" * length, number, mod, version, 0, b"v")
            assert encode_record(*usual) == encode(usual)
    assert encode_tombstone(b"k", number) == encode([b"k", 0, number, 0, 0, b""])


def test_history_tells_what_apply_told() -> None:
    rig = Rig()
    rig.write(GRANT, 60, 5)
    told = []
    for operations in (
        [[1, [b"a", b"1"]], [1, [b"b", b"1", 5]]],
        [[1, [b"a", b"2"]], [2, [b"b"]]],
        [[3, [[], [[1, [b"c", b"1"]]], []]], [3, [[], [[2, [b"c"]]], []]]],
        [[3, [[], [[1, [b"a", b"3"]]], []]], [3, [[], [[2, [b"a"]]], []]]],
        [[1, [b"b", b"2", 5]]],
    ):
        assert rig.write(TXN, [], operations, []).ok
        told += rig.last.events
    rig.write(6, 5)
    told += rig.last.events
    assert list(rig.machine.history(1, rig.machine.revision)) == told
    rig.reload()
    assert list(rig.machine.history(1, rig.machine.revision)) == told
    assert list(rig.machine.history(3, 4)) == told[1:3]
    # `previous` is the pair before the revision: c was not there, a was at its second version.
    assert [event[3] for event in told[2][1]] == [None, None]
    assert [event[3] for event in told[3][1]] == [(3, 0), (3, 0)]


def test_a_restart_rebuilds_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LOAD_SLICE_RECORDS", 10)
    rig = Rig()
    rig.write(GRANT, 60, 5)
    for number in range(60):
        rig.put(b"%d" % (number % 13), b"", 5 if number % 3 else 0)
    rig.write(DELETE, b"5")
    before = rig.hash(), rig.machine.lease_keys(5), rig.range(b"\0", b"\0")
    rig.machine.flush_rows()
    machine = type(rig.machine)(rig.backend)
    assert sum(1 for _ in machine.load()) == 7
    rig.machine = machine
    assert (rig.hash(), rig.machine.lease_keys(5), rig.range(b"\0", b"\0")) == before


def test_slices_end_at_whole_revisions() -> None:
    rig = Rig()
    for _ in range(5):
        rig.txn([], [[1, [b"%d" % number, b""]] for number in range(7)])
    found = list(history.slices(rig.backend, 0, 99, 10))
    assert [len(part) for part in found] == [14, 14, 7]
    assert list(history.slices(rig.backend, 90, 99, 10)) == [[]]


def test_an_empty_store_loads() -> None:
    rig = Rig()
    rig.reload()
    assert rig.machine.revision == 1
    run(type(rig.machine)(rig.backend).load())
