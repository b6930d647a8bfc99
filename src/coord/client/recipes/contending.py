"""Contending for a name: locks of all kinds, and elections. Pure.

A contender is a key with its session's lease. Contenders are ordered by their create revisions, so that the cluster's
own order decides; each waits for one other, whose going it is told of, and then reads again.

| kind | key | goes when |
| --- | --- | --- |
| lock, election | `name/<lease>` | nobody is ahead in `name/` |
| semaphore | `name/<lease>` | fewer than `permits` are ahead in `name/` |
| read lock | `name/read/<lease>` | nobody is ahead in `name/write/` |
| write lock | `name/write/<lease>` | nobody is ahead in either |
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

from coord.client import op, verbs
from coord.client.recipes.steps import AwaitChange, Reply, Steps, ask, ask_under
from coord.client.recipes.tenure import Tenure
from coord.client.responses import PutResponse, RangeResponse, TxnResponse
from coord.client.txn import Key, Operation, key_bytes, value_bytes
from coord.client.verbs import Answer, RangeOptions, Verb
from coord.errors import AnswerGone, FenceLost, LeadershipLost, LockLost, NotFound, OwnershipLost
from coord.types import KeyValue, Revision, SortOrder, SortTarget

_READ: Final = b"read/"
_WRITE: Final = b"write/"
_NEAREST_FIRST: Final[RangeOptions] = {"sort_target": SortTarget.CREATE, "sort_order": SortOrder.DESCEND}
_GROWTH: Final = 8
"""Where keys that are no contenders fill what was read, so many times more is read."""


def contender_key(prefix: bytes, lease: int) -> bytes:
    """Return the key of a lease's contender below `prefix`, as etcd's clients write it (S25)."""
    return prefix + b"%x" % lease


def is_contender(prefix: bytes, kv: KeyValue) -> bool:
    """Tell whether a key below `prefix` contends: its name is its own lease's id (S25)."""
    return kv.lease > 0 and kv.key == contender_key(prefix, kv.lease)


def interval_of(prefix: bytes) -> tuple[bytes, bytes]:
    """Return the interval in which all contenders below `prefix` are, though not only they."""
    # Lower-case hex without leading zeros begins with one of these; a lock called `prefix/x` has its keys elsewhere.
    return prefix + b"1", prefix + b"g"


@define(eq=False)
class Contender:
    """A session's wish for a name, from the first step to the last."""

    tenure: Tenure
    name: str
    """As people call it."""
    prefix: bytes
    """Where its key is."""
    rivals: tuple[bytes, ...]
    """The prefixes of those who go first if they came first."""
    value: bytes = b""
    permits: int = 1
    """So many may own at a time."""
    lost: type[OwnershipLost] = LockLost
    """What losing it is called."""
    create_revision: int = field(default=0, init=False)
    """Of its key, once that is known: the fence of an owner (S27)."""
    key: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.key = contender_key(self.prefix, self.tenure.lease)

    @property
    def _wanted(self) -> int:
        """So many of those ahead tell what to wait for."""
        return self.permits if self.permits == 1 else self.permits + 1

    def enter(self, *, tries_once: bool = False) -> Steps[bool]:
        """Queue, and wait until it owns the name; return whether it does, which with `tries_once` may be no.

        Raises `SessionLost` or `lost` if it cannot own it any more. However it ends, `leave` removes the key.
        """
        reply = yield from self._queue(tries_once)
        # S20: an answer that may have been recorded tells that nobody was there, not that nobody came in between, of
        # which an owner's key could have been deleted since.
        if reply is not None and reply.answer.succeeded and reply.was_sent_once:
            return True
        if reply is not None and not reply.answer.succeeded and not tries_once:
            # Who was ahead tells what to wait for, be it by a recorded answer: what happened since is seen. That nobody
            # was, no such answer tells, if only because keys that are no contenders fill it.
            ahead = self._ahead_in(reply.answer)
            if len(ahead) >= self.permits:
                yield self._change_to_await(ahead, reply.answer.header.revision + 1)
        was_seen_waiting = False
        while True:
            revision, ahead = yield from self._look_ahead(tries_once)
            # Who looked between its put and this may have found it among those that wait.
            was_seen_waiting = was_seen_waiting or revision > self.create_revision
            if len(ahead) < self.permits:
                break
            if tries_once:
                return False
            yield self._change_to_await(ahead, revision + 1)
        if was_seen_waiting and self.permits > 1:
            # Those behind see by this that they have moved up; see `_change_to_await`.
            touch = verbs.put(self.key, b"", 0, False, True, True, [self.key, self.create_revision])
            try:
                yield from self._ask(touch)
            except FenceLost:
                raise self._gone() from None
        return True

    def leave(self) -> Steps[None]:
        """Remove the key, which may be there or still on its way: no earlier write of this client comes after this."""
        yield from ask(verbs.delete(self.key, False, None, False))

    def watch_over(self) -> Steps[None]:
        """Return when the key of an owner is no longer the one that made it the owner (S25)."""
        since = self.create_revision + 1
        while True:
            yield AwaitChange(self.key, since, only_deletes=True)
            reply = yield from self._ask(verbs.range_(self.key, {"keys_only": True}, 0))
            if not self._is_own(reply.answer):
                return
            since = reply.answer.header.revision + 1

    def proclaim(self, value: bytes) -> Steps[Revision]:
        """Give an owner's key another value. Raises `FenceLost` if it is no longer the owner's."""
        # Without the guard it would make a key anew that was deleted, and queue behind the next owner unasked.
        put = verbs.put(self.key, value, 0, False, False, True, [self.key, self.create_revision])
        reply = yield from self._ask(put)
        self.value = value
        return reply.answer.header.revision

    def find_owner(self) -> Steps[KeyValue | None]:
        """Return the first of those who go first, None if there is nobody."""
        options: RangeOptions = {"sort_target": SortTarget.CREATE, "sort_order": SortOrder.ASCEND}
        _, _, found = yield from self._contenders(options, 1, keys_only=False)
        return min(found, key=_by_creation, default=None)

    def is_refused(self, error: BaseException | None) -> bool:
        """Tell whether the cluster refused a write because this is not the owner any more."""
        if isinstance(error, BaseExceptionGroup):
            return any(map(self.is_refused, error.exceptions))
        return isinstance(error, FenceLost) and error.details[:2] == (self.key, self.create_revision)

    # -- what it is made of

    def _queue(self, tries_once: bool) -> Steps[Reply[TxnResponse] | None]:
        # One round trip and no scan where nobody contends, which is most of the time; elsewhere who is ahead comes with
        # the answer.
        verb = verbs.queue(self.key, self.value, self.tenure.lease, map(interval_of, self.rivals), self._wanted)
        try:
            reply = yield from self._ask(verb, tries_once)
        except AnswerGone:
            # A name of more than a kilobyte, and a retried write.
            return None
        except NotFound:
            self.tenure.lose("the cluster has ended its lease")
            self.tenure.check()
            raise
        own = reply.answer.responses[-1]
        assert isinstance(own, PutResponse)
        self.create_revision = reply.answer.header.revision if own.prev_kv is None else own.prev_kv.create_revision
        return reply

    def _ahead_in(self, queued: TxnResponse) -> list[KeyValue]:
        """Return whom the answer to `_queue` shows ahead, nearest first."""
        pages = [one for one in queued.responses if isinstance(one, RangeResponse)]
        found = [
            kv
            for prefix, page in zip(self.rivals, pages, strict=True)
            for kv in page.kvs
            # A key that a former try left is there already, and may be ahead of some.
            if is_contender(prefix, kv) and kv.create_revision < self.create_revision
        ]
        return sorted(found, key=_by_creation, reverse=True)[: self._wanted]

    def _look_ahead(self, tries_once: bool) -> Steps[tuple[int, list[KeyValue]]]:
        """Return the revision of a read and who was ahead then, nearest first; one more than `permits` at most.

        S20: it is linearizable, and so tells that the own key is there: who is not, waits for nothing.
        """
        if not self.create_revision:
            reply = yield from self._ask(verbs.range_(self.key, {"keys_only": True}, 0), tries_once)
            if reply.answer.kvs:
                self.create_revision = reply.answer.kvs[0].create_revision
        wanted = self._wanted
        # S25: of those who came before, whoever has come since.
        options: RangeOptions = {**_NEAREST_FIRST, "max_create_revision": max(self.create_revision - 1, 1)}
        revision, own, ahead = yield from self._contenders(options, wanted, keys_only=True, tries_once=tries_once)
        if not self._is_own(own):
            raise self._gone()
        return revision, sorted(ahead, key=_by_creation, reverse=True)[:wanted]

    def _contenders(
        self, options: RangeOptions, wanted: int, *, keys_only: bool, tries_once: bool = True
    ) -> Steps[tuple[int, RangeResponse, list[KeyValue]]]:
        """Read at one revision the own key, and of each rival prefix the first `wanted` contenders in an order."""
        limit = wanted
        while True:
            gets = [op.get(self.key, keys_only=True), *self._gets(options, limit, keys_only=keys_only)]
            reply = yield from self._ask(verbs.txn([], gets, []), tries_once)
            own, *pages = [one for one in reply.answer.responses if isinstance(one, RangeResponse)]
            found = [
                [kv for kv in page.kvs if is_contender(prefix, kv)]
                for prefix, page in zip(self.rivals, pages, strict=True)
            ]
            if all(len(some) >= wanted or not page.more for some, page in zip(found, pages, strict=True)):
                return reply.answer.header.revision, own, [kv for some in found for kv in some]
            limit *= _GROWTH

    def _gets(self, order: RangeOptions, limit: int, *, keys_only: bool) -> list[Operation]:
        options = order.copy()
        gets = []
        for start, end in map(interval_of, self.rivals):
            options |= {"range_end": end, "limit": limit, "keys_only": keys_only}
            gets.append(op.get(start, **options))
        return gets

    def _change_to_await(self, ahead: list[KeyValue], since: int) -> AwaitChange:
        """Return what to wait for: no more than one waiter has cause to move for each who goes.

        Of a semaphore's waiters the first waits for any owner's going, and each other for its predecessor to go or to
        become an owner, which it shows by touching its key.
        """
        if self.permits == 1:
            return AwaitChange(ahead[0].key, since, only_deletes=True)
        if len(ahead) == self.permits:
            start, end = interval_of(self.prefix)
            return AwaitChange(start, since, end, only_deletes=True)
        return AwaitChange(ahead[0].key, since)

    def _gone(self) -> OwnershipLost:
        return self.lost(f"{self.name} cannot be owned any more: its key was deleted while it waited")

    def _is_own(self, found: RangeResponse) -> bool:
        kvs = found.kvs
        return bool(kvs) and kvs[0].create_revision == self.create_revision and kvs[0].lease == self.tenure.lease

    def _ask(self, verb: Verb[Answer], tries_once: bool = False) -> Steps[Reply[Answer]]:
        return ask_under(self.tenure, verb, is_patient=not tries_once)


def _by_creation(kv: KeyValue) -> int:
    return kv.create_revision


def _shown(name: Key) -> str:
    return repr(name if isinstance(name, str) else name.decode("utf-8", "backslashreplace"))


def lock_of(tenure: Tenure, name: Key, value: bytes = b"") -> Contender:
    """A contender for a lock."""
    prefix = key_bytes(name) + b"/"
    return Contender(tenure, f"lock {_shown(name)}", prefix, (prefix,), value_bytes(value))


def election_of(tenure: Tenure, name: Key, value: bytes) -> Contender:
    """A candidate of an election."""
    prefix = key_bytes(name) + b"/"
    title = f"election {_shown(name)}"
    return Contender(tenure, title, prefix, (prefix,), value_bytes(value), lost=LeadershipLost)


def semaphore_of(tenure: Tenure, name: Key, permits: int, value: bytes = b"") -> Contender:
    """A contender for one of the permits of a semaphore."""
    if permits < 1:
        raise ValueError(f"a semaphore has at least one permit, not {permits}")
    prefix = key_bytes(name) + b"/"
    return Contender(tenure, f"semaphore {_shown(name)}", prefix, (prefix,), value_bytes(value), permits)


def read_lock_of(tenure: Tenure, name: Key, value: bytes = b"") -> Contender:
    """A contender for a share of a read-write lock."""
    prefix = key_bytes(name) + b"/"
    return Contender(tenure, f"read lock {_shown(name)}", prefix + _READ, (prefix + _WRITE,), value_bytes(value))


def write_lock_of(tenure: Tenure, name: Key, value: bytes = b"") -> Contender:
    """A contender for the whole of a read-write lock."""
    prefix = key_bytes(name) + b"/"
    rivals = (prefix + _READ, prefix + _WRITE)
    return Contender(tenure, f"write lock {_shown(name)}", prefix + _WRITE, rivals, value_bytes(value))
