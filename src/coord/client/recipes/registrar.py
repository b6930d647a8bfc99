"""What a registration wants to stand in the store, and how it gets there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field, frozen

from coord.client import verbs
from coord.client.recipes.instances import encode_document, instance_key
from coord.client.recipes.steps import Steps, ask
from coord.client.txn import Key

RETRY_S: Final = 0.5
CHECK_INTERVAL_S: Final = 2.0
FAIL_AFTER: Final = 2
PASS_AFTER: Final = 1


@frozen
class Place:
    """The key that an instance has under the session that it was registered with."""

    key: bytes
    name: str

    def leave(self) -> Steps[None]:
        """Remove it."""
        yield from ask(verbs.delete(self.key, False, None, False))


@define(eq=False)
class Registrar:
    """One instance of a service, under one lease after the other; withdrawn while it is not healthy.

    It is a wish, not an ownership (S28): `settle` may be driven at any time, again and again, and does what is missing.
    """

    service: Key
    address: str
    metadata: Mapping[str, Any] | None = None
    is_healthy: bool = True
    """False while the instance is withdrawn."""
    lease: int = 0
    """The lease it goes with; `move_to` sets it."""
    _document: bytes = b""
    _standing: bytes | None = field(default=None, init=False)
    """What stands at the key; None if nothing does."""
    _is_certain: bool = field(default=True, init=False)
    """`_standing` is known: no write under way can change it any more."""

    def __attrs_post_init__(self) -> None:
        instance_key(self.service, 0)
        self.describe(self.metadata)

    @property
    def key(self) -> bytes:
        """The key of the instance, which changes with its lease."""
        return instance_key(self.service, self.lease)

    @property
    def is_registered(self) -> bool:
        """It stands, as it is wanted."""
        return self.is_healthy and self.is_settled

    @property
    def is_settled(self) -> bool:
        """It stands as it is wanted, or is withdrawn if it is not healthy."""
        return self._is_certain and self._standing == self._wanted and self.lease > 0

    @property
    def _wanted(self) -> bytes | None:
        return self._document if self.is_healthy else None

    def describe(self, metadata: Mapping[str, Any] | None) -> None:
        """Tell other metadata. Raises `TypeError` or `ValueError` for what cannot be told."""
        self._document = encode_document(self.address, metadata)
        self.metadata = metadata

    def move_to(self, lease: int) -> None:
        """Go on under another lease, 0 while there is none; the key of the former one goes with that."""
        self.lease = lease
        self._standing, self._is_certain = None, True

    def settle(self) -> Steps[None]:
        """Have it stand as it is wanted; what changes meanwhile is done too."""
        while not self.is_settled:
            wanted, self._is_certain = self._wanted, False
            if wanted is None:
                yield from ask(verbs.delete(self.key, False, None, False))
            else:
                yield from ask(verbs.put(self.key, wanted, self.lease, False, False, False))
            self._standing, self._is_certain = wanted, True

    def confirm(self) -> Steps[None]:
        """See whether it still stands: keys are deleted by mistake, and a restored backup may know the lease alone."""
        reply = yield from ask(verbs.range_(self.key, {}, 0))
        kvs = reply.answer.kvs
        self._standing = kvs[0].value if kvs and kvs[0].lease == self.lease else None
