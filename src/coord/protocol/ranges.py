"""A range request, parsed."""

from __future__ import annotations

from typing import Any, Final

from attrs import define

from coord import errors
from coord.protocol.intervals import Interval, interval
from coord.protocol.shapes import BOOL, BYTES, INT, UINT, Field, check_fields
from coord.types import SortOrder, SortTarget

RANGE_FIELDS: Final = (
    Field("key", BYTES),
    Field("range_end", BYTES),
    Field("limit", INT),
    Field("revision", INT),
    Field("sort_order", INT),
    Field("sort_target", INT),
    Field("serializable", BOOL),
    Field("keys_only", BOOL),
    Field("count_only", BOOL),
    Field("min_mod_revision", INT),
    Field("max_mod_revision", INT),
    Field("min_create_revision", INT),
    Field("max_create_revision", INT),
    Field("min_revision", UINT),
)
_ORDERS: Final = frozenset(map(int, SortOrder))
_TARGETS: Final = frozenset(map(int, SortTarget))


@define
class RangeRequest:
    """What to read: the fields of etcd's RangeRequest, and the client's `min_revision` (S29).

    Nobody changes one; it is not frozen because that would cost as much as all other parsing.

    `revision` of 0 or less is the current one, `limit` of 0 or less is none, a filter of 0 is off.
    """

    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    sort_order: int = SortOrder.NONE
    sort_target: int = SortTarget.KEY
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0
    min_revision: int = 0

    @property
    def interval(self) -> Interval:
        """The keys asked for."""
        return interval(self.key, self.range_end)

    @property
    def is_plain_get(self) -> bool:
        """True if the newest record of one key is all that is asked for."""
        whole = not self.keys_only and not self.count_only and not self.has_filter
        return whole and not self.range_end and self.revision <= 0

    @property
    def has_filter(self) -> bool:
        """True if revisions narrow the keys."""
        return bool(
            self.min_mod_revision or self.max_mod_revision or self.min_create_revision or self.max_create_revision
        )


def parse_range(arguments: Any) -> RangeRequest:
    """Return the request that the arguments of coord.cddl's `range` mean.

    Raises `ApiError`: a wrong type, an empty key, an unknown sort option, an item that this release does not know.
    """
    check_fields("range", arguments, RANGE_FIELDS, required=1)
    if not arguments[0]:
        raise errors.empty_key()
    check_sort(arguments)
    return RangeRequest(*arguments)


def check_sort(arguments: list[Any]) -> None:
    """Refuse an unknown sort order or target."""
    if len(arguments) > 4 and arguments[4] not in _ORDERS:
        raise errors.invalid_sort_option()
    if len(arguments) > 5 and arguments[5] not in _TARGETS:
        raise errors.invalid_sort_option()
