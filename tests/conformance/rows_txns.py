"""Rows about transactions: branches, nesting, limits, duplicate keys, reads. Compares have rows of their own."""

from __future__ import annotations

from .vocabulary import At, Grant, Lease, Put, Txn, TxnDone
from .words import (
    DUPLICATE_KEY,
    EMPTY_KEY,
    EVERYTHING,
    FUTURE,
    KEY_NOT_FOUND,
    LEASE_NOT_FOUND,
    LEASE_PROVIDED,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    delete,
    delete_prefix,
    deleted,
    failed,
    found,
    get,
    get_prefix,
    kv,
    put,
    row,
    section,
    succeeded,
    txn,
    when,
    wrote,
)

MANY = 128
"""The default of `--max-txn-ops`."""


def puts(count: int) -> tuple[Put, ...]:
    return tuple(put(f"k{number}") for number in range(count))


def deep(levels: int, innermost: Txn | None = None) -> Txn:
    """Return a transaction that holds `levels` others, each in the one before; the innermost puts unless given."""
    tree = innermost or txn(then=(put("a"),))
    for _ in range(levels):
        tree = txn(then=(tree,))
    return tree


def done_deep(levels: int, innermost: TxnDone | None = None, rev: int | None = None) -> TxnDone:
    """Return the reply to `deep`."""
    tree = innermost or succeeded(wrote(1))
    for level in range(levels):
        tree = succeeded(tree, rev=rev if level == levels - 1 else None)
    return tree


_BRANCHES = section(
    "1.4 Transactions",
    row(
        "txn.succeeds",
        "If all compares hold, the success branch runs.",
        put("a", "1"),
        txn(
            when("value", "a", "=", "1"),
            when("version", "a", "=", 1),
            then=(put("b", "s"),),
            orelse=(put("b", "f"),),
        )
        >> succeeded(wrote(2), rev=2),
        get("b") >> found(kv("b", "s", 2, 2)),
    ),
    row(
        "txn.fails",
        "If one compare does not hold, the failure branch runs.",
        put("a", "1"),
        txn(
            when("value", "a", "=", "1"),
            when("version", "a", "=", 2),
            then=(put("b", "s"),),
            orelse=(put("b", "f"),),
        )
        >> failed(wrote(2), rev=2),
        get("b") >> found(kv("b", "f", 2, 2)),
    ),
    row(
        "txn.no-compares",
        "Without compares a transaction succeeds.",
        txn(then=(put("a"),)) >> succeeded(wrote(1), rev=1),
    ),
    row("txn.empty", "An empty transaction succeeds and changes nothing.", txn() >> succeeded(rev=0)),
    row(
        "txn.in-order",
        "Operations run in order and see what earlier ones did.",
        txn(then=(get("a"), put("a", "1"), get("a"), put("b", "2"), get_prefix()))
        >> succeeded(
            found(rev=0),
            wrote(1),
            found(kv("a", "1", 1, 1), rev=1),
            wrote(1),
            found(kv("a", "1", 1, 1), kv("b", "2", 1, 1), rev=1),
            rev=1,
        ),
    ),
    row(
        "txn.sees-delete",
        "A read after a delete does not find the key, a delete after a delete removes nothing.",
        put("a", "1"),
        txn(then=(delete("a"), get("a"), delete("a")))
        >> succeeded(deleted(1, rev=2), found(rev=2), deleted(0, rev=2), rev=2),
    ),
    row(
        "txn.previous",
        "`prev_kv` holds for the operations of a transaction.",
        put("a", "1"),
        put("b", "1"),
        txn(then=(put("a", "2", prev_kv=True), delete("b", prev_kv=True)))
        >> succeeded(wrote(3, kv("a", "1", 1, 1)), deleted(1, kv("b", "1", 2, 2), rev=3), rev=3),
    ),
    row(
        "txn.range-options",
        "A range in a transaction takes all options of a range.",
        put("a", "2"),
        put("b", "1"),
        put("c", "3"),
        txn(
            then=(
                get_prefix(order="DESCEND", target="VALUE", limit=2),
                get_prefix(count_only=True),
                get_prefix(keys_only=True, min_mod=At(3)),
                get_prefix(revision=At(1)),
            )
        )
        >> succeeded(
            found(kv("c", "3", 3, 3), kv("a", "2", 1, 1), more=True, count=3, rev=3),
            found(count=3, rev=3),
            found(kv("c", "", 3, 3), count=3, rev=3),
            found(kv("a", "2", 1, 1), rev=3),
            rev=3,
        ),
    ),
    row(
        "txn.read-past-beside-write",
        "A read of the past in a transaction that writes shows the past.",
        put("a", "1"),
        put("a", "2"),
        txn(then=(put("a", "3"), get("a", revision=At(1))))
        >> succeeded(wrote(3), found(kv("a", "1", 1, 1), rev=3), rev=3),
    ),
    row(
        "txn.read-own-revision",
        "The revision that a transaction is about to make is still in the future for its reads.",
        put("a", "1"),
        txn(then=(put("a", "2"), get("a", revision=At(2)))) >> FUTURE,
        get("a") >> found(kv("a", "1", 1, 1), rev=1),
    ),
    row(
        "txn.read-future",
        "A read of the future refuses the whole transaction, whether it writes or not.",
        put("a", "1"),
        txn(then=(put("b"), get("a", revision=At(9)))) >> FUTURE,
        txn(then=(get("a", revision=At(9)),)) >> FUTURE,
        get_prefix() >> found(kv("a", "1", 1, 1), rev=1),
    ),
    row(
        "txn.read-future-elsewhere",
        "A read of the future in the branch that is not taken is not judged.",
        put("a", "1"),
        txn(then=(put("b"),), orelse=(get("a", revision=At(9)),)) >> succeeded(wrote(2), rev=2),
    ),
    row(
        "txn.ignore-value",
        "`ignore_value` and `ignore_lease` hold in a transaction.",
        Grant(60, Lease(1)),
        put("a", "1", lease=Lease(1)),
        txn(then=(put("a", ignore_value=True, ignore_lease=True),)) >> succeeded(wrote(2), rev=2),
        get("a") >> found(kv("a", "1", 1, 2, 2, Lease(1))),
    ),
    row(
        "txn.ignore-value-absent",
        "`ignore_value` of an absent key refuses the whole transaction.",
        txn(then=(put("b"), put("a", ignore_value=True))) >> KEY_NOT_FOUND,
        txn(then=(put("b"), put("a", ignore_lease=True))) >> KEY_NOT_FOUND,
        get_prefix() >> found(rev=0),
    ),
    row(
        "txn.empty-keys",
        "An operation or a compare with an empty key refuses the transaction, in either branch.",
        txn(then=(put(""),)) >> EMPTY_KEY,
        txn(then=(get(""),)) >> EMPTY_KEY,
        txn(then=(delete(""),)) >> EMPTY_KEY,
        txn(orelse=(put(""),)) >> EMPTY_KEY,
        txn(when("version", "", "=", 0)) >> EMPTY_KEY,
    ),
    row(
        "txn.bad-put",
        "A put that contradicts itself refuses the transaction.",
        txn(then=(put("a", "1", ignore_value=True),)) >> VALUE_PROVIDED,
        txn(then=(put("a", ignore_lease=True, lease=Lease(1)),)) >> LEASE_PROVIDED,
    ),
    row(
        "txn.compare-only",
        "A transaction of compares alone tells whether they hold.",
        put("a", "1"),
        txn(when("value", "a", "=", "1")) >> succeeded(rev=1),
        txn(when("value", "a", "=", "2")) >> failed(rev=1),
    ),
)

_NESTED = section(
    "1.4 Transactions",
    row(
        "txn.nested",
        "A transaction may hold transactions; all share one revision.",
        txn(then=(put("a", "1"), txn(then=(put("b", "2"), txn(then=(put("c", "3"),))))))
        >> succeeded(wrote(1), succeeded(wrote(1), succeeded(wrote(1)), rev=None), rev=1),
        get_prefix() >> found(kv("a", "1", 1, 1), kv("b", "2", 1, 1), kv("c", "3", 1, 1), rev=1),
    ),
    row(
        "txn.nested-compares-first",
        "All compares of the tree are judged before any operation runs.",
        txn(
            then=(
                put("a", "1"),
                txn(when("version", "a", "=", 0), then=(put("b", "absent"),), orelse=(put("b", "there"),)),
            )
        )
        >> succeeded(wrote(1), succeeded(wrote(1)), rev=1),
        get("b") >> found(kv("b", "absent", 1, 1)),
    ),
    row(
        "txn.nested-fails",
        "A nested transaction takes its own branch.",
        put("a", "1"),
        txn(then=(txn(when("value", "a", "=", "2"), then=(put("b", "s"),), orelse=(put("b", "f"),)),))
        >> succeeded(failed(wrote(2)), rev=2),
        get("b") >> found(kv("b", "f", 2, 2)),
    ),
    row(
        "txn.nested-empty",
        "A nested transaction may be empty.",
        txn(then=(txn(), put("a"))) >> succeeded(succeeded(), wrote(1), rev=1),
    ),
    row(
        "txn.nested-reads-only",
        "A tree that only reads does not move the revision.",
        put("a", "1"),
        txn(then=(txn(then=(get("a"),)),)) >> succeeded(succeeded(found(kv("a", "1", 1, 1), rev=1)), rev=1),
        put("b") >> wrote(2),
    ),
    row(
        "txn.nested-order",
        "Operations after a nested transaction see what it did.",
        txn(then=(txn(then=(put("a", "1"),)), get("a")))
        >> succeeded(succeeded(wrote(1)), found(kv("a", "1", 1, 1), rev=1), rev=1),
    ),
    row(
        "txn.nested-refused",
        "A nested operation that is refused refuses the whole tree.",
        txn(then=(put("a"), txn(then=(put("b", lease=Lease(9)),)))) >> LEASE_NOT_FOUND,
        txn(then=(put("a"), txn(then=(put("b", ignore_value=True),)))) >> KEY_NOT_FOUND,
        txn(then=(put("a"), txn(then=(get("b", revision=At(9)),)))) >> FUTURE,
        txn(then=(put("a"), txn(then=(put(""),)))) >> EMPTY_KEY,
        get_prefix() >> found(rev=0),
    ),
    row(
        "txn.order-of-state-refusals",
        "In a transaction an absent key is told before a missing lease, all puts are judged before all reads.",
        txn(then=(put("a", ignore_value=True, lease=Lease(9)),)) >> KEY_NOT_FOUND,
        txn(then=(get("a", revision=At(9)), put("a", lease=Lease(9)))) >> LEASE_NOT_FOUND,
        txn(then=(put("a", lease=Lease(9)), put("b", ignore_value=True))) >> LEASE_NOT_FOUND,
    ),
    row(
        "txn.nested-deep",
        "Transactions nest as deep as the number of operations allows.",
        deep(MANY - 1) >> done_deep(MANY - 1),
        get("a") >> found(kv("a", "", 1, 1)),
        deep(MANY) >> TOO_MANY_OPS,
    ),
    row(
        "txn.nested-deepest",
        "The innermost transaction may be empty, which costs nothing, and compares count like operations.",
        deep(MANY, txn()) >> done_deep(MANY, succeeded()),
        deep(MANY, txn(when("version", "a", "=", 0))) >> TOO_MANY_OPS,
        deep(MANY + 1, txn()) >> TOO_MANY_OPS,
    ),
    row(
        "txn.nested-deep-reads",
        "A deep transaction may read alone.",
        put("a", "1"),
        deep(MANY - 1, txn(then=(get("a"),)))
        >> done_deep(MANY - 1, succeeded(found(kv("a", "1", 1, 1), rev=1)), rev=1),
    ),
    row(
        "txn.nested-not-taken",
        "What a branch not taken would be refused for is not judged in a nested transaction either.",
        txn(
            then=(
                put("a"),
                txn(then=(put("b"),), orelse=(put("c", lease=Lease(9)), get("c", revision=At(9)))),
            )
        )
        >> succeeded(wrote(1), succeeded(wrote(1)), rev=1),
    ),
)

_LIMITS = section(
    "1.4 Transactions",
    row(
        "txn.most-ops",
        "A branch may hold 128 operations.",
        txn(then=puts(MANY)) >> succeeded(*[wrote(1)] * MANY, rev=1),
        txn(orelse=puts(MANY)) >> succeeded(rev=1),
    ),
    row(
        "txn.too-many-ops",
        "129 operations in a branch are refused, in either branch.",
        txn(then=puts(MANY + 1)) >> TOO_MANY_OPS,
        txn(orelse=puts(MANY + 1)) >> TOO_MANY_OPS,
    ),
    row(
        "txn.branches-apart",
        "The limit is on each list alone, not on their sum.",
        txn(*[when("version", "a", "=", 0)] * MANY, then=puts(MANY), orelse=puts(MANY))
        >> succeeded(*[wrote(1)] * MANY, rev=1),
    ),
    row(
        "txn.too-many-compares",
        "129 compares are refused.",
        txn(*[when("version", "a", "=", 0)] * (MANY + 1)) >> TOO_MANY_OPS,
    ),
    row(
        "txn.nested-limit",
        "A nested transaction has what its parent leaves of the limit: a parent of one operation leaves 127.",
        txn(then=(txn(then=puts(MANY - 1)),)) >> succeeded(succeeded(*[wrote(1)] * (MANY - 1)), rev=1),
        txn(then=(txn(then=puts(MANY)),)) >> TOO_MANY_OPS,
    ),
    row(
        "txn.nested-limit-longest",
        "What the parent leaves is counted by its longest list.",
        txn(then=(*puts(100), txn(then=tuple(put(f"n{n}") for n in range(27)))))
        >> succeeded(*[wrote(1)] * 100, succeeded(*[wrote(1)] * 27), rev=1),
        txn(then=(*puts(100), txn(then=tuple(put(f"n{n}") for n in range(28))))) >> TOO_MANY_OPS,
    ),
    row(
        "txn.order-of-refusals",
        "The number of operations is judged before their keys, the keys before duplicates.",
        txn(then=(put(""), *puts(MANY))) >> TOO_MANY_OPS,
        txn(then=(put("a"), put("a"), put(""))) >> EMPTY_KEY,
    ),
)

_DUPLICATES = section(
    "1.4 Transactions",
    row(
        "txn.put-twice",
        "A branch that puts a key twice is refused.",
        txn(then=(put("a", "1"), put("a", "2"))) >> DUPLICATE_KEY,
    ),
    row(
        "txn.put-twice-failure",
        "So is a failure branch, though it would not run.",
        txn(orelse=(put("a"), put("a"))) >> DUPLICATE_KEY,
    ),
    row(
        "txn.put-then-delete",
        "A put inside an interval that the branch deletes is refused, in either order.",
        txn(then=(put("a"), delete("a"))) >> DUPLICATE_KEY,
        txn(then=(delete("a"), put("a"))) >> DUPLICATE_KEY,
        txn(then=(put("b"), delete("a", "c"))) >> DUPLICATE_KEY,
        txn(then=(delete("a", "c"), put("b"))) >> DUPLICATE_KEY,
        txn(then=(delete_prefix(), put("b"))) >> DUPLICATE_KEY,
    ),
    row(
        "txn.put-beside-delete",
        "A put outside the deleted interval is fine; its end is outside.",
        txn(then=(put("c"), delete("a", "c"), put("0"))) >> succeeded(wrote(1), deleted(0, rev=1), wrote(1), rev=1),
    ),
    row(
        "txn.deletes-overlap",
        "Deletes may overlap.",
        put("a"),
        put("b"),
        txn(then=(delete("a", "c"), delete("b", "d"))) >> succeeded(deleted(2, rev=3), deleted(0, rev=3), rev=3),
    ),
    row(
        "txn.read-what-is-put",
        "A key may be read and put.",
        txn(then=(put("a"), get("a"), get_prefix()))
        >> succeeded(wrote(1), found(kv("a", "", 1, 1)), found(kv("a", "", 1, 1)), rev=1),
    ),
    row(
        "txn.branches-share",
        "The two branches may name the same keys.",
        txn(then=(put("a", "s"),), orelse=(put("a", "f"), delete("b"))) >> succeeded(wrote(1), rev=1),
    ),
    row(
        "txn.nested-put-twice",
        "A nested put of a key that its parent puts is refused.",
        txn(then=(put("a"), txn(then=(put("a"),)))) >> DUPLICATE_KEY,
        txn(then=(txn(then=(put("a"),)), put("a"))) >> DUPLICATE_KEY,
        txn(then=(put("a"), txn(orelse=(put("a"),)))) >> DUPLICATE_KEY,
    ),
    row(
        "txn.nested-put-then-delete",
        "A nested delete of what its parent puts is refused, and a nested put of what its parent deletes.",
        txn(then=(put("b"), txn(then=(delete("a", "c"),)))) >> DUPLICATE_KEY,
        txn(then=(delete("a", "c"), txn(then=(put("b"),)))) >> DUPLICATE_KEY,
    ),
    row(
        "txn.nested-branches-share",
        "The two branches of a nested transaction may name the same keys.",
        txn(then=(put("b"), txn(then=(put("a", "s"),), orelse=(put("a", "f"),))))
        >> succeeded(wrote(1), succeeded(wrote(1)), rev=1),
    ),
    row(
        "txn.siblings-put",
        "Two nested transactions that put the same key are refused.",
        txn(then=(txn(then=(put("a"),)), txn(then=(put("a"),)))) >> DUPLICATE_KEY,
        txn(then=(txn(then=(put("a"),)), txn(orelse=(put("a"),)))) >> DUPLICATE_KEY,
    ),
    row(
        "txn.siblings-delete-then-put",
        "A nested put of what an earlier sibling deletes is refused.",
        txn(then=(txn(then=(delete("a", "c"),)), txn(then=(put("b"),)))) >> DUPLICATE_KEY,
    ),
    row(
        "txn.siblings-put-then-delete",
        "A nested delete of what an earlier sibling puts is not refused, and deletes it.",
        txn(then=(txn(then=(put("b"),)), txn(then=(delete("a", "c"),))))
        >> succeeded(succeeded(wrote(1)), succeeded(deleted(1, rev=1)), rev=1),
        get("b") >> found(rev=1),
        put("b", "2") >> wrote(2),
        get("b") >> found(kv("b", "2", 2, 2)),
    ),
    row(
        "txn.siblings-put-then-delete-previous",
        "What an earlier sibling put is the pair before for a later sibling's delete.",
        put("b", "1"),
        txn(then=(txn(then=(put("b", "2"),)), txn(then=(delete("b", prev_kv=True),))))
        >> succeeded(succeeded(wrote(2)), succeeded(deleted(1, kv("b", "2", 1, 2, 2), rev=2)), rev=2),
        get("b") >> found(rev=2),
        get("b", revision=At(1)) >> found(kv("b", "1", 1, 1), rev=2),
        get("b", revision=At(2)) >> found(rev=2),
    ),
    row(
        "txn.delete-from-key-then-put",
        'A delete whose end is "\\0" is not looked at for duplicate keys: it deletes what is there, the put follows.',
        put("b", "1"),
        txn(then=(delete("a", EVERYTHING), put("b", "2"))) >> succeeded(deleted(1, rev=2), wrote(2), rev=2),
        get("b") >> found(kv("b", "2", 2, 2), rev=2),
        get("b", revision=At(1)) >> found(kv("b", "1", 1, 1), rev=2),
        put("b", "3") >> wrote(3),
        get("b") >> found(kv("b", "3", 2, 3, 2)),
        fresh=True,
    ),
    row(
        "txn.put-then-delete-from-key",
        'A put before a delete whose end is "\\0" is deleted by it.',
        put("b", "1"),
        txn(then=(put("b", "2"), delete("a", EVERYTHING))) >> succeeded(wrote(2), deleted(1, rev=2), rev=2),
        get("b") >> found(rev=2),
        get("b", revision=At(1)) >> found(kv("b", "1", 1, 1), rev=2),
        put("b", "3") >> wrote(3),
        get("b") >> found(kv("b", "3", 3, 3)),
        fresh=True,
    ),
)

ROWS = _BRANCHES + _NESTED + _LIMITS + _DUPLICATES
