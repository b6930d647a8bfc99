"""Judging a history by revisions: every answer against the model's, and the order of answers against time.

This checker trusts the revisions that replies carry, and the ledger; `linearizability` trusts neither. A write is
found in the ledger by its session and number, or, if it has none, by the value it puts: values must be unique.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coord.protocol.ops import Op
from coord.testing.history import History, Kind, Operation, Outcome
from coord.testing.history_ledger import Judged, Replay
from coord.testing.model import Answer

Identity = tuple[Any, ...]


def check_history(history: History, played: Replay) -> list[str]:
    """Return everything in a history that coord does not promise; nothing if all is well."""
    found: list[str] = []
    by_identity: dict[Identity, list[Judged]] = {}
    for judged in played.writes:
        by_identity.setdefault(_identity(judged.client, judged.number, judged.op, judged.arguments), []).append(judged)
    effects: list[tuple[Operation, Judged]] = []
    for operation in history.operations:
        if operation.kind is Kind.WRITE:
            number, op, _, arguments = operation.request
            sent = by_identity.get(_identity(operation.session, number, op, arguments), [])
            found += _check_write(operation, sent)
            if operation.is_done and sent:
                effects.append((operation, sent[0]))
        elif operation.kind is not Kind.RENEWAL and operation.is_done:
            found += _check_read(operation, played)
    found += _check_positions(effects)
    found += check_real_time(history)
    found += check_sessions(history)
    return found


def check_real_time(history: History) -> list[str]:
    """A call that began after an answer sees at least what that answer saw (linearizability of revisions)."""
    timed = [one for one in history.operations if one.is_done and one.kind is not Kind.RENEWAL and one.revision]
    events: list[tuple[float, bool, Operation]] = []
    for operation in timed:
        events.append((operation.called_order, False, operation))
        events.append((operation.returned_order, True, operation))
    found = []
    newest: Operation | None = None
    floor: dict[int, Operation | None] = {}
    for _, is_return, operation in sorted(events, key=lambda event: event[:2]):
        if not is_return:
            floor[id(operation)] = newest
            continue
        seen = floor[id(operation)]
        is_local = operation.kind is Kind.LOCAL_READ
        if seen is not None and operation.revision < seen.revision and not is_local:
            found.append(f"went back in time: {operation}\n  after {seen}")
        if newest is None or operation.revision > newest.revision:
            newest = operation
    return found


def check_sessions(history: History) -> list[str]:
    """S29: what one client sees never goes back, whatever it asks and whomever."""
    found = []
    seen: dict[str, Operation] = {}
    done = [one for one in history.operations if one.is_done and one.revision]
    for operation in sorted(done, key=lambda one: one.returned_order):
        before = seen.get(operation.client)
        if before is not None and before.precedes(operation) and operation.revision < before.revision:
            found.append(f"one client saw less than before: {operation}\n  after {before}")
        if before is None or operation.revision > before.revision:
            seen[operation.client] = operation
    return found


def _identity(session: int, number: int, op: int, arguments: list[Any]) -> Identity:
    if session:
        return (session, number)
    if op == Op.PUT:
        return ("put", arguments[1])
    if op == Op.TXN:
        values = [inner[1] for branch in arguments[1:] for kind, inner in branch if kind == Op.PUT]
        return ("txn", *values[:1])
    return (op, repr(arguments))


def _check_write(operation: Operation, sent: list[Judged]) -> Iterable[str]:
    op = operation.request[1]
    if op == Op.REGISTER:
        return
    if not operation.session and len(sent) > 1:
        yield f"stands {len(sent)} times in the log: {operation}"
    effective = [judged for judged in sent if judged.answer.ok]
    if operation.outcome is Outcome.DONE:
        answer = Answer(operation.revision, True, operation.result)
        if not sent:
            yield f"was answered, but never committed: {operation}"
        elif not any(_same(judged.answer, answer) for judged in sent):
            yield f"was answered wrongly: {operation}\n  the model says {sent[0].answer}"
    elif operation.outcome is Outcome.REFUSED and effective:
        yield f"was refused, but happened at entry {effective[0].index}: {operation}"


def _same(expected: Answer, answer: Answer) -> bool:
    return expected.revision == answer.revision and expected.result == answer.result


def _check_read(operation: Operation, played: Replay) -> Iterable[str]:
    model = played.model
    if operation.revision > model.revision:
        yield f"read a revision that never was: {operation}"
        return
    expected = model.range_at(operation.revision, operation.request)
    if operation.result != expected:
        yield f"read what is not there: {operation}\n  the model says {expected!r:.300}"


def _check_positions(effects: list[tuple[Operation, Judged]]) -> Iterable[str]:
    """A write that was called after another's answer stands behind it in the log."""
    in_order = sorted(effects, key=lambda effect: effect[0].returned_order)
    by_call = sorted(effects, key=lambda effect: effect[0].called_order)
    place = 0
    latest: tuple[Operation, Judged] | None = None
    for operation, judged in by_call:
        while place < len(in_order) and in_order[place][0].precedes(operation):
            candidate = in_order[place]
            if latest is None or candidate[1].index > latest[1].index:
                latest = candidate
            place += 1
        if latest is not None and judged.index < latest[1].index:
            yield f"took effect before it was sent: {operation}\n  stands before {latest[0]}"
