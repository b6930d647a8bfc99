"""Barriers: one that is held by somebody, and one that so many enter and leave together. Pure.

The second one has a key for each party, `name/party/` + its lease's id, and one more, `name/party/round`, which says
who has come together: a JSON object from the ids of leases to create revisions. Without it a party that looks late
could not know that all had been there, once a fast one has left again. Whether a round is over follows from its
parties' keys, so that what a crash leaves of it holds up nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import define, field

from coord.client import op, verbs
from coord.client.recipes.contending import contender_key, is_contender
from coord.client.recipes.steps import AwaitChange, Steps, ask, ask_under, read_patiently
from coord.client.recipes.tenure import Tenure
from coord.client.txn import Key, create_revision, key_bytes, mod_revision
from coord.errors import NotFound, SessionLost
from coord.types import KeyValue, Revision, prefix_end

PARTIES_MAX: Final = 10_000
_ROUND: Final = b"round"


def hold(key: bytes, value: bytes, lease: int) -> Steps[bool]:
    """Put a barrier up; return whether it was not up before."""
    put = op.put(key, value, lease=lease)
    reply = yield from ask(verbs.txn([create_revision(key) == 0], [put], []))
    return reply.answer.succeeded


def release(key: bytes) -> Steps[bool]:
    """Take a barrier down; return whether it was up."""
    reply = yield from ask(verbs.delete(key, False, None, False))
    return reply.answer.deleted > 0


def await_release(key: bytes) -> Steps[None]:
    """Return once a barrier is not up."""
    while True:
        found = yield from read_patiently(verbs.range_(key, {"keys_only": True}, 0))
        if not found.kvs:
            return
        yield AwaitChange(key, found.header.revision + 1, only_deletes=True)


@define(eq=False)
class Party:
    """One of those who enter and leave together."""

    tenure: Tenure
    name: str
    """As people call it."""
    prefix: bytes
    """Where its key is."""
    parties: int
    """So many make a round."""
    create_revision: int = field(default=0, init=False)
    _gathered: dict[bytes, int] = field(factory=dict, init=False)
    """All of its round, with their create revisions."""

    @property
    def key(self) -> bytes:
        """Its key."""
        return contender_key(self.prefix, self.tenure.lease)

    def enter(self) -> Steps[None]:
        """Return once it is one of a round. Raises `SessionLost`. However it ends, `leave` removes the key."""
        put = op.put(self.key, b"", lease=self.tenure.lease)
        try:
            yield from ask_under(self.tenure, verbs.txn([create_revision(self.key) == 0], [put], []))
        except NotFound:
            self.tenure.lose("the cluster has ended its lease")
            self.tenure.check()
            raise
        while True:
            revision, present, last_round = yield from self._look(self.tenure.check)
            self.tenure.check()
            self.create_revision = self.create_revision or present.get(self.key, 0)
            # S20: an answer may tell of a put that was undone since; what is read tells who is there.
            if not self.create_revision or present.get(self.key) != self.create_revision:
                raise SessionLost(f"{self.name} cannot be entered any more: its key was deleted while it waited")
            gathered = _decode_round(self.prefix, last_round)
            if gathered.get(self.key) == self.create_revision:
                self._gathered = gathered
                return
            chosen = sorted(present, key=lambda key: present[key])[: self.parties]
            # One of them says that they are complete: the last that was needed. If that goes, another one is the last.
            is_to_say = len(chosen) == self.parties and chosen[-1] == self.key
            if is_to_say and not _is_alive(gathered, present):
                yield from self._begin({key: present[key] for key in chosen}, last_round)
            else:
                yield AwaitChange(self.prefix, revision + 1, prefix_end(self.prefix))

    def leave(self) -> Steps[None]:
        """Remove its key; without waiting for others."""
        yield from ask(verbs.delete(self.key, False, None, False))
        _, present, last_round = yield from self._look()
        yield from self._clear(present, last_round)

    def await_others(self) -> Steps[None]:
        """Return once all of its round have left, or are gone."""
        while True:
            revision, present, last_round = yield from self._look()
            if not _is_alive(self._gathered, present):
                break
            yield AwaitChange(self.prefix, revision + 1, prefix_end(self.prefix), only_deletes=True)
        yield from self._clear(present, last_round)

    def _clear(self, present: dict[bytes, int], last_round: KeyValue | None) -> Steps[None]:
        """Remove a round of which nobody is left."""
        if last_round is not None and not _is_alive(_decode_round(self.prefix, last_round), present):
            is_same = mod_revision(last_round.key) == last_round.mod_revision
            yield from ask(verbs.txn([is_same], [op.delete(last_round.key)], []))

    def _begin(self, chosen: dict[bytes, int], last_round: KeyValue | None) -> Steps[None]:
        key, start = self.prefix + _ROUND, len(self.prefix)
        text = json.dumps({party[start:].decode(): created for party, created in chosen.items()})
        before = 0 if last_round is None else last_round.mod_revision
        put = op.put(key, text.encode())
        yield from ask_under(self.tenure, verbs.txn([mod_revision(key) == before], [put], []))

    def _look(
        self, check: Callable[[], None] = lambda: None
    ) -> Steps[tuple[Revision, dict[bytes, int], KeyValue | None]]:
        """Read the revision, the parties that are there with their create revisions, and the last round."""
        found = yield from read_patiently(verbs.range_(self.prefix, {"prefix": True}, 0), check)
        present = {kv.key: int(kv.create_revision) for kv in found.kvs if is_contender(self.prefix, kv)}
        rounds = [kv for kv in found.kvs if kv.key == self.prefix + _ROUND]
        return found.header.revision, present, rounds[0] if rounds else None


def _is_alive(gathered: dict[bytes, int], present: dict[bytes, int]) -> bool:
    return any(present.get(key) == created for key, created in gathered.items())


def _decode_round(prefix: bytes, kv: KeyValue | None) -> dict[bytes, int]:
    # What somebody else has written there is nobody's round, and is written over.
    with suppress(ValueError, AttributeError, RecursionError):
        return (
            {} if kv is None else {prefix + lease.encode(): created for lease, created in json.loads(kv.value).items()}
        )
    return {}


def party_of(tenure: Tenure, name: Key, parties: int) -> Party:
    """One of so many parties of a double barrier."""
    if not 1 <= parties <= PARTIES_MAX:
        raise ValueError(f"a double barrier has 1 to {PARTIES_MAX} parties, not {parties}")
    barrier = key_bytes(name)
    shown = f"double barrier {barrier.decode('utf-8', 'backslashreplace')!r}"
    return Party(tenure, shown, barrier + b"/party/", parties)
