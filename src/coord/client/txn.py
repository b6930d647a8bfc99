"""Transactions as they are written: compares that read like comparisons, and operations.

await client.txn(
    when=[coord.version("jobs/7") == 0],
    then=[coord.op.put("jobs/7", b"mine")],
    orelse=[coord.op.get("jobs/7")],
)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from coord.limits import TXN_DEPTH_MAX
from coord.protocol.ops import Op
from coord.types import CompareResult, CompareTarget, prefix_end

Key = str | bytes
"""A key: bytes, or text that stands for its UTF-8."""


def key_bytes(key: Key) -> bytes:
    """Return the bytes of a key. Raises `TypeError` for anything but text or bytes."""
    if type(key) is str:
        return key.encode()
    if type(key) is bytes:
        return key
    raise TypeError(f"a key is str or bytes, not {type(key).__name__}")


def value_bytes(value: bytes) -> bytes:
    """Return `value`. Raises `TypeError` for anything but bytes: text has no one encoding."""
    if type(value) is bytes:
        return value
    raise TypeError(f"a value is bytes, not {type(value).__name__}")


def integer(value: int) -> int:
    """Return `value`. Raises `TypeError` or `ValueError` for anything but an integer of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected an integer, not {type(value).__name__}")
    # Beyond 64 bits CBOR needs a tag, for which a node would refuse all that shares the frame.
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} is out of range: 64 bits, signed")
    return int(value)


def interval(key: Key, prefix: bool, range_end: Key | None) -> tuple[bytes, bytes]:
    """Return `(key, range_end)` of what the arguments mean; an empty `range_end` means the key alone.

    An empty prefix is every key. Raises `ValueError` if both `prefix` and `range_end` are given.
    """
    start = key_bytes(key)
    if prefix:
        if range_end is not None:
            raise ValueError("give prefix or range_end, not both")
        return start or b"\0", prefix_end(start)
    return start, b"" if range_end is None else key_bytes(range_end)


@frozen
class Compare:
    """One condition of a transaction; made by comparing a `Subject`."""

    target: CompareTarget
    result: CompareResult
    key: bytes
    operand: int | bytes
    range_end: bytes = b""

    def __bool__(self) -> bool:
        raise TypeError("a compare is judged by the cluster: give it to txn(when=[...])")

    def to_wire(self) -> list[Any]:
        """Return coord.cddl's `compare`."""
        wire: list[Any] = [int(self.target), int(self.result), self.key, self.operand]
        return [*wire, self.range_end] if self.range_end else wire


class Subject:
    """A field of a key, or of every key of an interval, to be compared with `==`, `!=`, `>` or `<`."""

    __slots__ = ("_key", "_range_end", "_target")
    __hash__ = None  # type: ignore[assignment]  # comparing makes a Compare, so it can be in no set

    def __init__(self, target: CompareTarget, key: Key, prefix: bool, range_end: Key | None) -> None:
        self._target = target
        self._key, self._range_end = interval(key, prefix, range_end)

    def _compare(self, result: CompareResult, operand: object) -> Compare:
        wanted = bytes if self._target is CompareTarget.VALUE else int
        if not isinstance(operand, wanted):
            raise TypeError(f"compare with {wanted.__name__}, not {type(operand).__name__}")
        checked = operand if isinstance(operand, bytes) else integer(operand)
        return Compare(self._target, result, self._key, checked, self._range_end)

    def __eq__(self, other: object) -> Compare:  # type: ignore[override]
        return self._compare(CompareResult.EQUAL, other)

    def __ne__(self, other: object) -> Compare:  # type: ignore[override]
        return self._compare(CompareResult.NOT_EQUAL, other)

    def __gt__(self, other: object) -> Compare:
        return self._compare(CompareResult.GREATER, other)

    def __lt__(self, other: object) -> Compare:
        return self._compare(CompareResult.LESS, other)


def version(key: Key, *, prefix: bool = False, range_end: Key | None = None) -> Subject:
    """The number of puts since the key was made; 0 if it is absent."""
    return Subject(CompareTarget.VERSION, key, prefix, range_end)


def create_revision(key: Key, *, prefix: bool = False, range_end: Key | None = None) -> Subject:
    """The revision that made the key; 0 if it is absent."""
    return Subject(CompareTarget.CREATE, key, prefix, range_end)


def mod_revision(key: Key, *, prefix: bool = False, range_end: Key | None = None) -> Subject:
    """The revision of the key's last put; 0 if it is absent."""
    return Subject(CompareTarget.MOD, key, prefix, range_end)


def value(key: Key, *, prefix: bool = False, range_end: Key | None = None) -> Subject:
    """The key's value; of an absent key every comparison fails, `!=` too."""
    return Subject(CompareTarget.VALUE, key, prefix, range_end)


def lease_of(key: Key, *, prefix: bool = False, range_end: Key | None = None) -> Subject:
    """The id of the key's lease; 0 without one."""
    return Subject(CompareTarget.LEASE, key, prefix, range_end)


@frozen
class Operation:
    """One operation of a transaction; made by the functions of `coord.op`."""

    code: Op
    arguments: list[Any]
    depth: int = 0
    """How many levels of transactions it is."""


def nested(when: Sequence[Compare], then: Sequence[Operation], orelse: Sequence[Operation]) -> Operation:
    """Return a transaction as an operation. Raises `ValueError` if it is nested deeper than any node takes."""
    depth = 1 + max((operation.depth for operation in (*then, *orelse)), default=0)
    # The transaction that it will be in is a level too. Deeper ones a node cannot even decode, and would refuse with
    # all that shares the frame.
    if depth >= TXN_DEPTH_MAX:
        raise ValueError(f"transactions nest at most {TXN_DEPTH_MAX} deep")
    return Operation(Op.TXN, txn_arguments(when, then, orelse), depth)


def txn_arguments(when: Sequence[Compare], then: Sequence[Operation], orelse: Sequence[Operation]) -> list[Any]:
    """Return coord.cddl's `txn`."""
    return [
        [compare.to_wire() for compare in when],
        [[int(operation.code), operation.arguments] for operation in then],
        [[int(operation.code), operation.arguments] for operation in orelse],
    ]
