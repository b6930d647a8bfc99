"""Who owns a name, as those see it who do not contend. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from coord.client.recipes.contending import is_contender
from coord.types import KeyValue, LeaseId


@frozen
class Owner:
    """The owner of an election or a lock.

    `fence` is its fencing token: an owner with a higher one came later. `value` is what it has proclaimed last.
    """

    key: bytes
    value: bytes
    fence: int
    lease: LeaseId


def owner_among(prefix: bytes, kvs: Iterable[KeyValue]) -> Owner | None:
    """Return the owner among the keys below `prefix`: of the contenders the first that came; None without any (S25)."""
    contenders = (kv for kv in kvs if is_contender(prefix, kv))
    first = min(contenders, key=lambda kv: kv.create_revision, default=None)
    return None if first is None else Owner(first.key, first.value, first.create_revision, first.lease)
