"""Rows about the compares of transactions."""

from __future__ import annotations

from typing import Any

from .vocabulary import At, Grant, Lease, PrefixEnd, Row, TxnDone
from .words import EVERYTHING, delete, failed, put, row, section, succeeded, txn, when

_RELATIONS = {
    "=": (False, True, False),
    ">": (False, False, True),
    "<": (True, False, False),
    "!=": (True, False, True),
}
"""For each relation: does a value below, equal to, above the operand satisfy it?"""


def judged(*holds: bool) -> tuple[TxnDone, ...]:
    return tuple(succeeded() if one else failed() for one in holds)


def _number_row(target: str, below: Any, equal: Any, above: Any, what: str) -> tuple[Row, ...]:
    """Return the rows of an integer target; the operands stand above, at and below the key's value."""
    return tuple(
        row(
            f"compare.{target}.{_NAMES[relation]}",
            f"{what} compared with {relation}.",
            Grant(60, Lease(5)),
            put("0"),
            put("a", "1"),
            put("a", "2", lease=Lease(5)),
            *(
                txn(when(target, "a", relation, operand)) >> (succeeded(rev=3) if holds else failed(rev=3))
                for operand, holds in zip((above, equal, below), verdicts, strict=True)
            ),
        )
        for relation, verdicts in _RELATIONS.items()
    )


_NAMES = {"=": "equal", ">": "greater", "<": "less", "!=": "not-equal"}

_TARGETS = section(
    "1.4 Compares",
    *_number_row("version", 1, 2, 3, "A key's version"),
    *_number_row("create", At(1), At(2), At(3), "A key's create revision"),
    *_number_row("mod", At(2), At(3), At(4), "A key's mod revision"),
    *_number_row("lease", Lease(4), Lease(5), Lease(6), "A key's lease"),
    *_number_row("value", "1", "2", "3", "A key's value"),
)

_ABSENT = section(
    "1.4 Compares",
    *(
        row(
            f"compare.absent.{target}",
            f"An absent key has {target} 0.",
            txn(when(target, "a", "=", 0)) >> succeeded(rev=0),
            txn(when(target, "a", "!=", 0)) >> failed(rev=0),
            txn(when(target, "a", "<", 1)) >> succeeded(rev=0),
            txn(when(target, "a", ">", 0)) >> failed(rev=0),
            txn(when(target, "a", ">", -1)) >> succeeded(rev=0),
        )
        for target in ("version", "create", "mod", "lease")
    ),
    row(
        "compare.absent.value",
        "A compare of an absent key's value is false, whatever the relation.",
        txn(when("value", "a", "=", "")) >> failed(rev=0),
        txn(when("value", "a", "!=", "x")) >> failed(rev=0),
        txn(when("value", "a", "<", "x")) >> failed(rev=0),
        txn(when("value", "a", ">", "")) >> failed(rev=0),
    ),
    row(
        "compare.deleted",
        "A deleted key is absent.",
        put("a", "1"),
        delete("a"),
        txn(when("version", "a", "=", 0), when("create", "a", "=", 0), when("mod", "a", "=", 0)) >> succeeded(rev=2),
        txn(when("value", "a", "!=", "x")) >> failed(rev=2),
    ),
    row(
        "compare.no-operand",
        "An operand that is not given is 0, or empty.",
        put("a", ""),
        txn(when("version", "b", "=")) >> succeeded(),
        txn(when("version", "a", "=")) >> failed(),
        txn(when("value", "a", "=")) >> succeeded(),
        txn(when("lease", "a", "=")) >> succeeded(),
    ),
    row(
        "compare.value-bytewise",
        "Values are compared bytewise, a prefix before what extends it.",
        put("a", "ab"),
        txn(when("value", "a", ">", "a")) >> succeeded(),
        txn(when("value", "a", "<", "b")) >> succeeded(),
        txn(when("value", "a", "<", "ab\0")) >> succeeded(),
        txn(when("value", "a", ">", "B")) >> succeeded(),
    ),
    row(
        "compare.all",
        "Compares hold together: one that fails is enough.",
        put("a"),
        txn(when("version", "a", "=", 1), when("version", "b", "=", 0)) >> succeeded(),
        txn(when("version", "a", "=", 1), when("version", "b", "=", 1)) >> failed(),
        txn(when("version", "a", "=", 2), when("version", "b", "=", 0)) >> failed(),
    ),
    row(
        "compare.unknown-relation",
        "An unknown relation holds, except for the value of an absent key.",
        put("a"),
        txn(when("version", "a", 7, 5)) >> succeeded(),
        txn(when("value", "a", 4, "1")) >> succeeded(),
        txn(when("lease", "a", 7, 5, end="b")) >> succeeded(),
        txn(when("mod", "b", 2**31 - 1, 5)) >> succeeded(),
        txn(when("value", "b", 7, "1")) >> failed(),
        txn(when("version", "a", 7, 5), when("version", "a", "=", 2)) >> failed(),
    ),
)

_INTERVALS = section(
    "1.4 Compares",
    row(
        "compare.range",
        "A compare over a range must hold for every key in it.",
        put("a", "1"),
        put("b", "1"),
        put("c", "2"),
        txn(when("value", "a", "=", "1", end="c")) >> succeeded(rev=3),
        txn(when("value", "a", "=", "1", end="d")) >> failed(rev=3),
        txn(when("value", "a", "<", "3", end=PrefixEnd(""))) >> succeeded(rev=3),
        txn(when("version", "a", "=", 1, end="d")) >> succeeded(rev=3),
        txn(when("mod", "a", "<", At(3), end="d")) >> failed(rev=3),
    ),
    row(
        "compare.range-not-equal",
        "`!=` over a range means that no key has the value.",
        put("a", "1"),
        put("b", "2"),
        txn(when("value", "a", "!=", "3", end="c")) >> succeeded(),
        txn(when("value", "a", "!=", "2", end="c")) >> failed(),
    ),
    row(
        "compare.range-empty",
        "Over an empty range integers are judged against one zero pair.",
        put("z"),
        *(
            step
            for target in ("version", "create", "mod", "lease")
            for step in (
                txn(when(target, "a", "=", 0, end="c")) >> succeeded(),
                txn(when(target, "a", ">", 0, end="c")) >> failed(),
            )
        ),
    ),
    row(
        "compare.range-empty-value",
        "Over an empty range a compare of values is false.",
        put("z"),
        txn(when("value", "a", "=", "", end="c")) >> failed(),
        txn(when("value", "a", "!=", "x", end="c")) >> failed(),
    ),
    row(
        "compare.range-end-not-above-key",
        "A range whose end is not above its key is an empty one.",
        put("b", "1"),
        txn(when("version", "b", "=", 0, end="a")) >> succeeded(),
        txn(when("version", "b", "=", 1, end="b")) >> failed(),
    ),
    row(
        "compare.range-half-open",
        "The end is outside the range.",
        put("a", "1"),
        put("b", "2"),
        txn(when("value", "a", "=", "1", end="b")) >> succeeded(),
    ),
    row(
        "compare.range-from-key",
        'The end "\\0" is every key at or above the key.',
        put("a", "1"),
        put("b", "2"),
        put("c", "2"),
        txn(when("value", "b", "=", "2", end=EVERYTHING)) >> succeeded(),
        txn(when("value", "a", "=", "2", end=EVERYTHING)) >> failed(),
        fresh=True,
    ),
)

ROWS = _TARGETS + _ABSENT + _INTERVALS
