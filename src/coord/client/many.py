"""Many puts in one call: how they are checked before, and told afterwards. Pure; for both clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from coord.client.txn import Key
from coord.client.verbs import put_arguments
from coord.errors import PutsFailed
from coord.limits import PUTS_AT_ONCE_MAX
from coord.protocol.client_protocol import FRAME_BYTES_AIM
from coord.types import Revision

Pairs = Mapping[str, bytes] | Mapping[bytes, bytes] | Iterable[tuple[Key, bytes]]
"""Keys and their values."""

PUTS_PER_FRAME: Final = 100
_PUT_BYTES: Final = 64
"""What a put takes besides key and value, and more."""


def put_many_arguments(pairs: Pairs, lease: int) -> list[list[Any]]:
    """Return coord.cddl's `put` for each of `pairs`.

    Raises `TypeError` for what is no key or value, and `ValueError` for a key that is there twice: which of its values
    would stay is not known, since one that has to be sent again comes behind the others.
    """
    items: Iterable[tuple[Key, bytes]] = pairs.items() if isinstance(pairs, Mapping) else pairs
    arguments: list[list[Any]] = []
    keys: set[bytes] = set()
    for key, value in items:
        put = put_arguments(key, value, lease, False, False, False)
        if put[0] in keys:
            raise ValueError(f"key {put[0]!r} is there twice")
        if len(arguments) == PUTS_AT_ONCE_MAX:
            raise ValueError(f"more than {PUTS_AT_ONCE_MAX} puts at once")
        keys.add(put[0])
        arguments.append(put)
    return arguments


def in_frames(arguments: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """Yield puts as they are to share frames: up to a hundred, and no more bytes than a node likes to read at once."""
    some: list[list[Any]] = []
    size = 0
    for put in arguments:
        put_bytes = len(put[0]) + len(put[1]) + _PUT_BYTES
        if some and (len(some) == PUTS_PER_FRAME or size + put_bytes > FRAME_BYTES_AIM):
            yield some
            some, size = [], 0
        some.append(put)
        size += put_bytes
    if some:
        yield some


def revisions(arguments: Sequence[Sequence[Any]], outcomes: Sequence[Revision | Exception]) -> list[Revision]:
    """Return the revisions of puts that all succeeded. Raises `PutsFailed`."""
    done = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    if len(done) == len(outcomes):
        return done
    key, error = next(
        (put[0], outcome) for put, outcome in zip(arguments, outcomes, strict=True) if isinstance(outcome, Exception)
    )
    text = f"{len(outcomes) - len(done)} of {len(outcomes)} puts failed, the first of {key!r}: {error}"
    raise PutsFailed(text, outcomes)
