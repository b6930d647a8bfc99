"""Rows about ranges: intervals, limits, sort orders, filters, and reads of the past."""

from __future__ import annotations

from attrs import evolve

from .vocabulary import At, Compact, Grant, KeyValue, Lease, Name, Nothing, Put, Range
from .words import (
    COMPACTED,
    EMPTY_KEY,
    EVERYTHING,
    FUTURE,
    INVALID_SORT,
    delete,
    either,
    found,
    get,
    get_prefix,
    kv,
    put,
    row,
    section,
    wrote,
)

DATA = (put("b", "2"), put("a", "3"), put("d", "1"), put("c", "4"), put("a", "0"))
"""Keys whose order differs by key, version, creation, modification and value."""
A, B, C, D = kv("a", "0", 2, 5, 2), kv("b", "2", 1, 1), kv("c", "4", 4, 4), kv("d", "1", 3, 3)


def bare(pair: KeyValue) -> KeyValue:
    """Return the pair as `keys_only` shows it."""
    return evolve(pair, value=b"")


_INTERVALS = section(
    "1.3 Ranges",
    row("range.single", "Without an end a range is one key.", *DATA, get("b") >> found(B, rev=5)),
    row("range.absent", "A range over an absent key finds nothing, without error.", get("a") >> found(rev=0)),
    row("range.empty-key", "An empty key is refused.", get("") >> EMPTY_KEY, get("", "b") >> EMPTY_KEY),
    row(
        "range.half-open",
        "A range holds its first key and not its end.",
        *DATA,
        get("b", "d") >> found(B, C),
        get("bb", "d") >> found(C),
        get("b", "dd") >> found(B, C, D),
    ),
    row(
        "range.end-not-above-key",
        "A range whose end is not above its key is empty, without error.",
        *DATA,
        get("c", "b") >> found(rev=5),
        get("c", "c") >> found(rev=5),
    ),
    row(
        "range.prefix",
        "The end of a prefix is its last byte plus one.",
        put("x"),
        put("x1"),
        put("xé"),
        put("y"),
        get_prefix("x") >> found(kv("x", "", 1, 1), kv("x1", "", 2, 2), kv("xé", "", 3, 3)),
    ),
    row(
        "range.bytewise",
        "Keys are ordered bytewise, a prefix before what extends it.",
        put("a"),
        put("ab"),
        put("B"),
        put("a\0"),
        put("é"),
        get_prefix()
        >> found(kv("B", "", 3, 3), kv("a", "", 1, 1), kv("a\0", "", 4, 4), kv("ab", "", 2, 2), kv("é", "", 5, 5)),
    ),
    row(
        "range.next-key",
        "The key with a zero byte added is the end of a range of one key.",
        *DATA,
        get("b", "b\0") >> found(B),
    ),
    row(
        "range.from-key",
        'The end "\\0" is every key at or above the key.',
        put("b", "1"),
        put("a", "2"),
        put("c", "3"),
        get("b", EVERYTHING) >> found(kv("b", "1", 1, 1), kv("c", "3", 3, 3)),
        fresh=True,
    ),
    row(
        "range.everything",
        'Key and end "\\0" are every key.',
        put("b", "1"),
        put("a", "2"),
        get(b"\0", EVERYTHING) >> found(kv("a", "2", 2, 2), kv("b", "1", 1, 1)),
        fresh=True,
    ),
    row(
        "range.key-zero",
        'Without an end the key "\\0" is the key of one zero byte.',
        put("a"),
        get(b"\0") >> found(rev=1),
        fresh=True,
    ),
    row(
        "range.binary",
        "Keys and values are any bytes.",
        Put(Name("k\0\x7f"), b"\x00\xff\xfe") >> wrote(1),
        Range(Name("k\0\x7f")) >> found(KeyValue(Name("k\0\x7f"), b"\x00\xff\xfe", At(1), At(1), 1)),
    ),
    row("range.empty-value", "A value may be empty.", put("a", ""), get("a") >> found(kv("a", "", 1, 1))),
    row(
        "range.serializable",
        "A serializable range answers from local state, the same on a single node.",
        *DATA,
        get("a", "c", serializable=True) >> found(A, B, rev=5),
    ),
)

_LIMITS = section(
    "1.3 Ranges",
    row(
        "range.limit",
        "A limit cuts in key order, `more` tells that it did, `count` ignores it.",
        *DATA,
        get_prefix(limit=2) >> found(A, B, more=True, count=4),
    ),
    row(
        "range.limit-exact",
        "A limit equal to the number of keys leaves nothing more.",
        *DATA,
        get_prefix(limit=4) >> found(A, B, C, D, more=False, count=4),
        get_prefix(limit=5) >> found(A, B, C, D, more=False, count=4),
    ),
    row("range.limit-zero", "Limit 0 is none.", *DATA, get_prefix(limit=0) >> found(A, B, C, D)),
    row("range.limit-negative", "A negative limit is none.", *DATA, get_prefix(limit=-1) >> found(A, B, C, D)),
    row("range.limit-single", "A limit on one key changes nothing.", *DATA, get("a", limit=1) >> found(A)),
    row(
        "range.limit-empty",
        "A limited range over nothing has nothing more.",
        get_prefix(limit=1) >> found(more=False, count=0),
    ),
    row(
        "range.limit-descending",
        "A limit with an order cuts after sorting.",
        *DATA,
        get_prefix(limit=2, order="DESCEND") >> found(D, C, more=True, count=4),
    ),
    row(
        "range.limit-sort",
        "A limit with an order and a target cuts after sorting.",
        *DATA,
        get_prefix(limit=2, order="ASCEND", target="MOD") >> found(B, D, more=True, count=4),
        get_prefix(limit=3, order="DESCEND", target="VALUE") >> found(C, B, D, more=True, count=4),
    ),
    row(
        "range.limit-sort-none",
        "A target other than KEY without an order reads limit + 1 keys in key order and sorts those upwards.",
        *DATA,
        get_prefix(limit=1, target="MOD") >> found(B, more=True, count=4),
        get_prefix(limit=2, target="MOD") >> found(B, C, more=True, count=4),
        get_prefix(limit=3, target="VALUE") >> found(A, D, B, more=True, count=4),
    ),
    row(
        "range.limit-filter",
        "A limit with revision filters cuts what passed them; `count` ignores both.",
        *DATA,
        get_prefix(limit=1, min_mod=At(3)) >> found(A, more=True, count=4),
        get_prefix(limit=3, min_mod=At(3)) >> found(A, C, D, more=False, count=4),
    ),
    row(
        "range.count-only",
        "`count_only` returns the count alone.",
        *DATA,
        get_prefix(count_only=True) >> found(count=4, rev=5),
        get("zz", count_only=True) >> found(count=0),
        get("a", count_only=True) >> found(count=1),
    ),
    row(
        "range.count-only-limit",
        "`count_only` ignores a limit and has nothing more.",
        *DATA,
        get_prefix(count_only=True, limit=2) >> found(count=4),
    ),
    row(
        "range.count-only-filter",
        "`count_only` ignores revision filters.",
        *DATA,
        get_prefix(count_only=True, min_mod=At(4)) >> found(count=4),
    ),
    row(
        "range.count-only-past",
        "`count_only` counts at a revision of the past.",
        *DATA,
        get_prefix(count_only=True, revision=At(2)) >> found(count=2, rev=5),
    ),
    row(
        "range.keys-only",
        "`keys_only` drops the value and keeps the rest.",
        *DATA,
        get_prefix(keys_only=True) >> found(bare(A), bare(B), bare(C), bare(D)),
    ),
    row(
        "range.keys-only-lease",
        "`keys_only` keeps the lease.",
        Grant(60, Lease(1)),
        put("a", "1", lease=Lease(1)),
        get("a", keys_only=True) >> found(kv("a", "", 1, 1, 1, Lease(1))),
    ),
    row(
        "range.keys-only-sort-value",
        "`keys_only` sorted by value still sorts by the values that it does not return.",
        *DATA,
        get_prefix(keys_only=True, order="ASCEND", target="VALUE") >> found(bare(A), bare(D), bare(B), bare(C)),
    ),
)

_ORDERS = {
    "KEY": ((A, B, C, D), (D, C, B, A)),
    "VERSION": ((B, C, D, A), (A, B, C, D)),
    "CREATE": ((B, A, D, C), (C, D, A, B)),
    "MOD": ((B, D, C, A), (A, C, D, B)),
    "VALUE": ((A, D, B, C), (C, B, D, A)),
}
"""Ascending and descending. Equal versions stand in key order in both."""

_SORTS = section(
    "1.3 Ranges",
    *(
        row(
            f"range.sort.{target.lower()}.{order.lower()}",
            f"Order {order} by {target}"
            + (" is ascending." if order == "NONE" else ", equals in key order." if target == "VERSION" else "."),
            *DATA,
            get_prefix(order=order, target=target) >> found(*(falling if order == "DESCEND" else rising), rev=5),
        )
        for target, (rising, falling) in _ORDERS.items()
        for order in ("NONE", "ASCEND", "DESCEND")
    ),
    row(
        "range.sort.past",
        "A read of the past sorts by what stood then.",
        *DATA,
        get_prefix(order="DESCEND", target="VALUE", revision=At(4)) >> found(C, kv("a", "3", 2, 2), B, D, rev=5),
    ),
    row(
        "range.sort.invalid-order",
        "An unknown sort order is refused.",
        get("a", order=3) >> either(coord=INVALID_SORT, etcd=found()),
        newer="newer releases of etcd refuse it; 3.4 takes it for ascending.",
    ),
    row(
        "range.sort.invalid-target",
        "An unknown sort target is refused.",
        put("a"),
        get("a", target=5) >> either(coord=INVALID_SORT, etcd=Nothing()),
        newer="newer releases of etcd refuse it; 3.4 dies of it.",
        fresh=True,
    ),
)

_FILTERS = section(
    "1.3 Ranges",
    row(
        "range.min-mod",
        "`min_mod_revision` is inclusive and does not change `count`.",
        *DATA,
        get_prefix(min_mod=At(4)) >> found(A, C, count=4),
    ),
    row(
        "range.max-mod",
        "`max_mod_revision` is inclusive.",
        *DATA,
        get_prefix(max_mod=At(3)) >> found(B, D, count=4),
    ),
    row(
        "range.min-create",
        "`min_create_revision` is inclusive.",
        *DATA,
        get_prefix(min_create=At(3)) >> found(C, D, count=4),
    ),
    row(
        "range.max-create",
        "`max_create_revision` is inclusive.",
        *DATA,
        get_prefix(max_create=At(2)) >> found(A, B, count=4),
    ),
    row(
        "range.filters-together",
        "Revision filters hold together.",
        *DATA,
        get_prefix(min_mod=At(3), max_mod=At(4), max_create=At(3)) >> found(D, count=4),
    ),
    row(
        "range.filter-all",
        "Filters that nothing passes leave the count.",
        *DATA,
        get_prefix(min_mod=At(9)) >> found(count=4),
    ),
    row(
        "range.filter-order",
        "Filtered pairs are sorted as asked.",
        *DATA,
        get_prefix(min_mod=At(3), order="DESCEND", target="MOD") >> found(A, C, D, count=4),
    ),
    row(
        "range.filter-single",
        "Revision filters hold for a single key.",
        *DATA,
        get("a", max_mod=At(4)) >> found(count=1),
        get("a", max_create=At(4)) >> found(A),
    ),
)

_HISTORY = section(
    "1.3 Ranges",
    row(
        "range.past",
        "A range at a revision shows the store as it was.",
        *DATA,
        get_prefix(revision=At(2)) >> found(kv("a", "3", 2, 2), B, rev=5),
        get_prefix(revision=At(5)) >> found(A, B, C, D, rev=5),
    ),
    row(
        "range.past-absent",
        "A key is absent before it was created.",
        *DATA,
        get("a", revision=At(1)) >> found(rev=5),
    ),
    row(
        "range.past-deleted",
        "A deleted key is still there before its delete, and not at it.",
        put("a", "1"),
        delete("a"),
        put("a", "2"),
        get("a", revision=At(1)) >> found(kv("a", "1", 1, 1), rev=3),
        get("a", revision=At(2)) >> found(rev=3),
        get("a", revision=At(3)) >> found(kv("a", "2", 3, 3), rev=3),
    ),
    row(
        "range.past-limit",
        "Limit, more and count hold for the past.",
        *DATA,
        get_prefix(revision=At(3), limit=2) >> found(kv("a", "3", 2, 2), B, more=True, count=3, rev=5),
    ),
    row("range.revision-zero", "Revision 0 is the latest.", *DATA, get("a", revision=0) >> found(A)),
    row(
        "range.revision-negative",
        "A negative revision is the latest.",
        *DATA,
        get("a", revision=-5) >> found(A),
    ),
    row(
        "range.future",
        "A revision above the current is refused.",
        put("a"),
        get("a", revision=At(2)) >> FUTURE,
    ),
    row(
        "range.future-absent",
        "A revision above the current is refused for absent keys and counts too.",
        get("a", revision=At(1)) >> FUTURE,
        get_prefix(revision=At(1), count_only=True) >> FUTURE,
    ),
    row(
        "range.compacted",
        "A revision below the compacted one is refused.",
        put("a", "1"),
        put("a", "2"),
        Compact(At(2)),
        get("a", revision=At(1)) >> COMPACTED,
        get_prefix(revision=At(1)) >> COMPACTED,
        get("zz", revision=At(1), count_only=True) >> COMPACTED,
    ),
    row(
        "range.at-compacted",
        "The compacted revision itself can be read.",
        put("a", "1"),
        put("b", "1"),
        put("a", "2"),
        Compact(At(2)),
        get_prefix(revision=At(2)) >> found(kv("a", "1", 1, 1), kv("b", "1", 2, 2), rev=3),
    ),
)

ROWS = _INTERVALS + _LIMITS + _SORTS + _FILTERS + _HISTORY
