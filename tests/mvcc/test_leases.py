"""Leases: attachment, revocation and what they outlive."""

from __future__ import annotations

from coord.mvcc.leases import LeaseTable

from .rig import ALARM, COMPACT, DELETE, GRANT, REVOKE, Rig


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


# ---- checkpoints (S23)


def test_a_checkpoint_stands_until_it_is_cleared_or_its_lease_goes() -> None:
    rig = Rig()
    rig.write(GRANT, 10, 1)
    rig.write(GRANT, 20, 2)
    revision = rig.machine.revision
    assert rig.checkpoint([1, 4000], [2, 9000]).leases_checkpointed == [(1, 4000), (2, 9000)]
    rig.checkpoint([1, 2500])
    assert remaining(rig) == {1: 2500, 2: 9000}
    rig.reload()
    assert remaining(rig) == {1: 2500, 2: 9000}
    assert list(rig.machine.leases()) == [(1, 10), (2, 20)], "it tells a new leader what to count from, and nobody else"
    assert rig.machine.revision == revision

    assert rig.checkpoint([1, 0]).leases_checkpointed == [(1, 0)]
    rig.write(REVOKE, 2)
    rig.write(GRANT, 20, 2)
    assert remaining(rig) == {}
    rig.reload()
    assert remaining(rig) == {}


def test_a_checkpoint_of_another_term_or_lease_is_void() -> None:
    """S23: it may be older than a renewal, or be about a lease of the same id that is gone."""
    rig = Rig()
    rig.write(GRANT, 10, 1)
    seen = rig.machine.applied_index
    assert rig.checkpoint([1, 100], term=rig.term - 1).leases_checkpointed == []
    rig.checkpoint([1, 4000])
    assert rig.checkpoint([1, 0], term=rig.term - 1).leases_checkpointed == []
    assert remaining(rig) == {1: 4000}
    rig.write(REVOKE, 1)
    assert rig.checkpoint([1, 100]).leases_checkpointed == []
    rig.write(GRANT, 10, 1)
    assert rig.checkpoint([1, 100], seen=seen).leases_checkpointed == []
    assert remaining(rig) == {}


def test_checkpoints_are_applied_whatever_alarms_are_on() -> None:
    """Nobody could be told that a lease was renewed, if the entry that clears its checkpoint were refused."""
    rig = Rig()
    rig.write(GRANT, 10, 1)
    rig.checkpoint([1, 4000])
    for alarm in (1, 2):
        rig.write(ALARM, 1, 7, alarm)
    assert rig.checkpoint([1, 0]).leases_checkpointed == [(1, 0)]


def remaining(rig: Rig) -> dict[int, int]:
    leases = [lease for lease, _ in rig.machine.leases()]
    return {lease: left_ms for lease in leases if (left_ms := rig.machine.lease_remaining_ms(lease))}
