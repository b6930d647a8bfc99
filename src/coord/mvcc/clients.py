"""Exactly once, judged at apply and nowhere else (S17, S18).

A client's record holds the greatest `low` it has sent and, for every number from there on, the digest of the write
and the answer it got. A number that is sent again gets its answer again.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from struct import Struct
from typing import Any, Final

from attrs import define, field

from coord.codec import NULL, bytes_head, decode_trusted, encode
from coord.errors import (
    AnswerGone,
    ApiError,
    ClientExpired,
    InvalidArgument,
    SequenceAhead,
    SequenceClosed,
    SequenceReused,
)
from coord.limits import ANSWER_BYTES_KEPT, CLIENT_RECORDS_MAX, CLIENT_WINDOW
from coord.mvcc.applied import Answer, PutRun
from coord.protocol.bodies import Write
from coord.protocol.ops import Op

Kept = tuple[bytes, Answer]
"""`(digest, answer)`: a recorded answer and what it answers."""

_HASHER: Final = blake2b(digest_size=8)
"""Copied for each digest, which costs two thirds of making a new one."""
_TRUE: Final = 0xF5
_PUT: Final = int(Op.PUT)
_DONE: Final = Struct(">QQ8s")
"""Number, revision and digest of a write whose answer tells nothing but its revision: a put, nearly always."""
_PUT_HEAD: Final = b"\x83\x01\xf6\x82"
"""An array of op 1, no guard, and an array of two."""


def digest(op: int, guard: Any, arguments: Any) -> bytes:
    """Return the fingerprint of a write as its client sent it: 8 bytes over its deterministic encoding.

    Nothing of it was settled by a node, so that a retry through another node has the same digest (S18).
    """
    if op == _PUT and guard is None and type(op) is int and type(arguments) is list and len(arguments) == 2:
        key, value = arguments
        if type(key) is bytes and type(value) is bytes:
            return _put_digest(key, value)
    hasher = _HASHER.copy()
    hasher.update(encode([op, guard, arguments]))
    return hasher.digest()


def _put_digest(key: bytes, value: bytes) -> bytes:
    """Return the digest of a plain put, whose encoding is spliced at a third of the time."""
    hasher = _HASHER.copy()
    hasher.update(b"".join((_PUT_HEAD, bytes_head(len(key)), key, bytes_head(len(value)), value)))
    return hasher.digest()


def error_answer(revision: int, error: ApiError) -> Answer:
    """Return the answer that tells of an error."""
    return revision, False, NULL + encode(error.to_wire())


def expired() -> ApiError:
    """The client's record is gone, or was never there (S17)."""
    return ClientExpired("coord: the client is not registered (any more); register anew")


@define
class KeptPuts:
    """What stands for the answers of puts that a client numbered and that were applied together, also with others'."""

    number: int
    """What the first put of the run would have in the client's count, were it the client's too."""
    run: PutRun

    def kept(self, number: int) -> Kept:
        """Return what is recorded of one of them."""
        run, place = self.run, number - self.number
        return _put_digest(run.keys[place], run.values[place]), (run.first + place, True, NULL)


@define
class KeptWrite:
    """What stands for the answer of any other write."""

    write: Write
    answer: Answer

    def kept(self, number: int) -> Kept:
        """Return what is recorded of it."""
        return digest(*self.write[1:]), self.answer


@define
class ClientRecord:
    """What is remembered of one client. `used` tells the last frame that named it: its entry and position there."""

    used: tuple[int, int]
    low: int = 0
    answers: dict[int, Kept | KeptPuts | KeptWrite] = field(factory=dict)
    """By number. Most are closed before the record is stored, and so never need a digest."""

    def close_below(self, low: int) -> None:
        """Take a `low`: answers leave only by this (S18)."""
        old, answers = self.low, self.answers
        if low <= old:
            return
        self.low = low
        if low - old < CLIENT_WINDOW:
            for number in range(old, low):
                answers.pop(number, None)
        else:
            for number in [number for number in answers if number < low]:
                del answers[number]

    def recall(self, write: Write) -> Answer | ApiError | None:
        """Judge a write's number: the recorded answer, a refusal that is not recorded, or None if the write is new."""
        number = write[0]
        if not number:
            return InvalidArgument("coord: a registered client's writes are numbered from 1")
        if number < self.low:
            return SequenceClosed(f"coord: number {number} is below the client's low, {self.low}")
        kept = self.answers.get(number)
        if kept is not None:
            fingerprint, answer = _kept(number, kept)
            if fingerprint != digest(*write[1:]):
                return SequenceReused(f"coord: number {number} stands for another write")
            return answer
        if number >= self.low + CLIENT_WINDOW:
            return SequenceAhead(f"coord: number {number} is {CLIENT_WINDOW} or more above low, {self.low}")
        return None

    def keep(self, write: Write, answer: Answer, *, is_txn: bool, is_large: bool) -> None:
        """Record the answer of a write; of one that is too large only revision and outcome.

        Of a write that `is_large` the digest is kept from the start: nothing bounds how long it would be held.
        """
        revision, ok, payload = answer
        if len(payload) > ANSWER_BYTES_KEPT:
            # The outcome of a transaction is the first item of its result.
            succeeded = ok and (not is_txn or payload[1] == _TRUE)
            gone = AnswerGone("coord: the write was applied; its answer was too large to keep", revision, succeeded)
            answer = error_answer(revision, gone)
        self.answers[write[0]] = (digest(*write[1:]), answer) if is_large else KeptWrite(write, answer)

    def are_new(self, first: int, end: int) -> bool:
        """Tell whether all numbers of `[first, end)` are open to new writes and unknown."""
        is_open = first >= max(self.low, 1) and end <= self.low + CLIENT_WINDOW
        return is_open and self.answers.keys().isdisjoint(range(first, end))

    def keep_puts(self, number: int, run: PutRun, start: int, end: int) -> None:
        """Record the answers of those of `[start, end)` in a run, the first of which has this number."""
        kept = KeptPuts(number - start, run)
        answers = self.answers
        # A loop takes half of what `update` does, whatever there is to put.
        for known in range(number, number + end - start):
            answers[known] = kept

    def to_row(self) -> bytes:
        """Return the record as it is stored. What was put is let go of: from here on the digest stands for it."""
        answers, pack = self.answers, _DONE.pack
        done, others = [], []
        for number in sorted(answers):
            answers[number] = fingerprint, answer = _kept(number, answers[number])
            revision, ok, payload = answer
            if ok and payload == NULL:
                done.append(pack(number, revision, fingerprint))
            else:
                others.append([number, fingerprint, *answer])
        return encode([*self.used, self.low, others, b"".join(done)])

    @staticmethod
    def from_row(row: bytes) -> ClientRecord:
        """Return the record that `to_row` stored."""
        index, position, low, others, done = decode_trusted(row)
        answers: dict[int, Kept | KeptPuts | KeptWrite] = {item[0]: (item[1], tuple(item[2:])) for item in others}
        for number, revision, fingerprint in _DONE.iter_unpack(done):
            answers[number] = (fingerprint, (revision, True, NULL))
        return ClientRecord((index, position), low, answers)


def _kept(number: int, kept: Kept | KeptPuts | KeptWrite) -> Kept:
    return kept if isinstance(kept, tuple) else kept.kept(number)


class ClientTable:
    """All client records, in the order of their last use; the least recently used leave first (S17)."""

    __slots__ = ("_dirty", "_records", "maximum")

    def __init__(self) -> None:
        self._records: OrderedDict[int, ClientRecord] = OrderedDict()
        self._dirty: dict[int, None] = {}
        self.maximum = CLIENT_RECORDS_MAX

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Any:
        return iter(self._records)

    def register(self, client: int) -> None:
        """Add a record; beyond the replicated maximum the least recently used one goes."""
        self._records[client] = ClientRecord((client, 0))
        self._dirty[client] = None
        while len(self._records) > self.maximum:
            evicted, _ = self._records.popitem(last=False)
            self._dirty[evicted] = None

    def use(self, client: int, low: int, place: tuple[int, int]) -> ClientRecord | None:
        """Return the record of a client that the frame at `place` names, or None if there is none."""
        record = self._records.get(client)
        if record is not None:
            self._records.move_to_end(client)
            self._dirty[client] = None
            record.used = place
            record.close_below(low)
        return record

    def load(self, rows: list[tuple[int, bytes]]) -> None:
        """Take the stored records."""
        records = [(client, ClientRecord.from_row(row)) for client, row in rows]
        records.sort(key=lambda item: item[1].used)
        self._records = OrderedDict(records)

    def take_dirty(self) -> list[tuple[int, bytes | None]]:
        """Return the rows that changed since the last call; None for a record that is gone."""
        rows: list[tuple[int, bytes | None]] = []
        for client in self._dirty:
            record = self._records.get(client)
            rows.append((client, None if record is None else record.to_row()))
        self._dirty.clear()
        return rows


def number_without_client() -> ApiError:
    """A number that nobody would remember: refused, since its sender counts on it."""
    return InvalidArgument("coord: a numbered write needs a client id")
