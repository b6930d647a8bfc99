"""Leases: attachment, revocation and what they outlive."""

from __future__ import annotations

from coord.mvcc.leases import LeaseTable

from .rig import COMPACT, DELETE, GRANT, REVOKE, Rig


def test_a_key_has_one_lease_at_most() -> None:
    rig = Rig()
    rig.write(GRANT, 10, 1)
    rig.write(GRANT, 20, 2)
    rig.put(b"b", b"", 1)
    rig.put(b"a", b"", 1)
    assert rig.machine.lease_keys(1) == [b"a", b"b"]
    rig.put(b"a", b"", 2)
    assert (rig.machine.lease_keys(1), rig.machine.lease_keys(2)) == ([b"b"], [b"a"])
    rig.put(b"a", b"x", 0, False, False, True)
    assert rig.machine.lease_keys(2) == [b"a"]
    rig.put(b"a", b"x")
    assert rig.machine.lease_keys(2) == []
    rig.write(DELETE, b"b")
    assert rig.machine.lease_keys(1) == []
    assert list(rig.machine.leases()) == [(1, 10), (2, 20)]


def test_revoke_deletes_in_order_at_one_revision() -> None:
    rig = Rig()
    rig.write(GRANT, 10, 1)
    for key in (b"c", b"a", b"b"):
        rig.put(key, b"", 1)
    revision = rig.machine.revision
    assert rig.write(REVOKE, 1).revision == revision + 1
    ((at, events),) = rig.last.events
    assert (at, [event[0] for event in events]) == (revision + 1, [b"a", b"b", b"c"])
    assert rig.last.leases_revoked == [1]
    assert rig.machine.lease_ttl(1) == 0
    assert rig.write(REVOKE, 1).result == ("NotFound", "etcdserver: requested lease not found")


def test_a_revoke_without_keys_moves_nothing() -> None:
    rig = Rig()
    rig.write(GRANT, 10, 1)
    assert rig.write(REVOKE, 1).revision == 1
    assert rig.last.events == []


def test_leases_outlive_a_restart() -> None:
    rig = Rig()
    rig.write(GRANT, 10, 1)
    rig.write(GRANT, 20, 2**63 - 1)
    rig.write(GRANT, 20, 3)
    rig.put(b"a", b"", 1)
    rig.put(b"a", b"", 2**63 - 1)
    rig.put(b"b", b"", 1)
    rig.write(DELETE, b"b")
    rig.write(REVOKE, 3)
    rig.write(COMPACT, rig.machine.revision)
    rig.compact_physically()
    rig.reload()
    assert list(rig.machine.leases()) == [(1, 10), (2**63 - 1, 20)]
    assert rig.machine.lease_keys(2**63 - 1) == [b"a"]
    assert rig.machine.lease_keys(1) == []
    assert rig.write(REVOKE, 2**63 - 1).ok
    assert rig.keys() == []


def test_moving_a_key_leaves_no_empty_lists() -> None:
    table = LeaseTable()
    table.grant(1, 10, 1)
    table.move(b"a", 0, 1)
    table.move(b"a", 1, 0)
    assert not table._keys
    assert 1 in table
    assert len(table) == 1
