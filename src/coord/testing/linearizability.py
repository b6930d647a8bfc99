"""Is there an order of these calls that a register for each key could have answered so? (Wing and Gong, Lowe)

This checker trusts no revision: only what was asked, what was answered, and when. Each key is a register of its own;
calls on several keys, and keys with leases, are left to the other checkers. The search tries calls in the order of
time, takes one back when it leads nowhere, and remembers which sets of calls, in which state, lead nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any

from attrs import define, field

from coord.protocol.ops import Op
from coord.testing.history import History, Kind, Operation, Outcome

STEPS_MAX = 400_000
"""How many steps a search may take; a history that needs more cannot be judged, and fails its run."""

Value = bytes | None
"""What a register holds; None if the key is absent."""
Step = Callable[[Value], tuple[bool, Value]]
Interval = tuple[bytes, bytes]
"""A key and a range end."""


class Verdict(Enum):
    """What a search came to."""

    LEGAL = "legal"
    ILLEGAL = "illegal"
    UNDECIDED = "undecided"


@define(eq=False)
class Call:
    """A call on one register. `step` returns whether its answer fits a value, and the value that it leaves."""

    called: float
    returned: float
    step: Step
    told: str = ""


@define(eq=False)
class _Event:
    """A place in the list of calls and returns; a call that is taken out leaves with its return."""

    bit: int
    call: Call | None
    """None at a return."""
    mate: _Event | None = None
    before: _Event | None = field(default=None, repr=False)
    after: _Event | None = field(default=None, repr=False)


def check_linearizable(history: History) -> list[str]:
    """Return the keys whose calls no register could have answered so, with the calls."""
    found = []
    for key, calls in sorted(calls_by_key(history).items()):
        verdict = search(calls)
        if verdict is not Verdict.LEGAL:
            shown = "\n  ".join(call.told for call in calls)
            found.append(f"the calls on {key!r} are {verdict.value}:\n  {shown}")
    return found


def calls_by_key(history: History) -> dict[bytes, list[Call]]:
    """Return the calls on each key, of those keys that only calls on one key, without leases, have touched."""
    by_key: dict[bytes, list[Call]] = {}
    unfit: list[Interval] = []
    for operation in history.operations:
        if operation.kind is Kind.READ:
            if operation.is_done and _is_plain(operation.request):
                by_key.setdefault(operation.request[0], []).append(_call(operation, _reads(operation.result)))
        elif operation.kind is Kind.WRITE and operation.outcome is not Outcome.REFUSED:
            _, op, _, arguments = operation.request
            touched = set(_touched(op, arguments))
            step = _writes(op, arguments, operation.result) if len(touched) == 1 else None
            if step is None:
                unfit += touched
            else:
                ((key, _),) = touched
                by_key.setdefault(key, []).append(_call(operation, step))
    return {key: calls for key, calls in by_key.items() if not any(_is_in(key, *interval) for interval in unfit)}


def search(calls: Sequence[Call], steps_max: int = STEPS_MAX) -> Verdict:
    """Search for an order of `calls` that a register which starts absent answers so."""
    head = _events(calls)
    open_calls = sum(1 for call in calls if call.returned != float("inf"))
    value: Value = None
    done = 0
    tried: set[tuple[int, Value]] = set()
    stack: list[tuple[_Event, Value]] = []
    event = head.after
    for _ in range(steps_max):
        if open_calls == 0:
            return Verdict.LEGAL
        if event is not None and event.call is not None:
            fits, following = event.call.step(value)
            state = (done | event.bit, following)
            if fits and state not in tried:
                tried.add(state)
                stack.append((event, value))
                value, done = following, done | event.bit
                open_calls -= event.call.returned != float("inf")
                _lift(event)
                event = head.after
            else:
                event = event.after
            continue
        # A return whose call does not fit, or the end of the list: take the last call back.
        if not stack:
            return Verdict.ILLEGAL
        event, value = stack.pop()
        done &= ~event.bit
        assert event.call is not None
        open_calls += event.call.returned != float("inf")
        _unlift(event)
        event = event.after
    return Verdict.UNDECIDED


def _events(calls: Sequence[Call]) -> _Event:
    ordered: list[tuple[float, int, _Event]] = []
    for place, call in enumerate(calls):
        began = _Event(1 << place, call)
        ordered.append((call.called, 0, began))
        if call.returned != float("inf"):
            began.mate = _Event(1 << place, None)
            ordered.append((call.returned, 1, began.mate))
    head = last = _Event(0, None)
    for _, _, event in sorted(ordered, key=lambda item: item[:2]):
        last.after, event.before = event, last
        last = event
    return head


def _lift(event: _Event) -> None:
    for one in (event, event.mate):
        if one is not None:
            assert one.before is not None
            one.before.after = one.after
            if one.after is not None:
                one.after.before = one.before


def _unlift(event: _Event) -> None:
    for one in (event.mate, event):
        if one is not None:
            assert one.before is not None
            one.before.after = one
            if one.after is not None:
                one.after.before = one


def _is_plain(arguments: list[Any]) -> bool:
    """Tell whether a range reads the newest value of one key. One of several keys the other checkers judge."""
    return not any(arguments[1:6]) and not any(arguments[7:13])


def _touched(op: int, arguments: list[Any]) -> Iterator[Interval]:
    if op == Op.PUT:
        yield arguments[0], b""
    elif op == Op.DELETE_RANGE:
        yield arguments[0], arguments[1] if len(arguments) > 1 else b""
    elif op == Op.TXN:
        for compare in arguments[0]:
            yield compare[2], compare[4] if len(compare) > 4 else b""
        for branch in arguments[1:]:
            for kind, inner in branch:
                yield from _touched(kind if kind != Op.RANGE else Op.DELETE_RANGE, inner)
    elif op == Op.LEASE_REVOKE:
        return  # keys with a lease are unfit by their puts


def _is_in(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else key >= start and (end == b"\0" or key < end)


def _call(operation: Operation, step: Step) -> Call:
    returned = operation.returned_order if operation.is_done else float("inf")
    return Call(operation.called_order, returned, step, str(operation))


def _reads(result: Any) -> Step:
    pairs = result[0]
    seen: Value = pairs[0][5] if pairs else None
    return lambda value: (value == seen, value)


def _writes(op: int, arguments: list[Any], result: Any) -> Step | None:
    """Return what a write does to its one key, or None if a register cannot tell."""
    if op == Op.PUT:
        return None if any(arguments[2:]) else lambda value: (True, arguments[1])
    if op == Op.DELETE_RANGE:
        is_one = len(arguments) < 2 or not arguments[1]
        return (lambda value: (result is None or result[0] == (value is not None), None)) if is_one else None
    return _compare_and_swap(arguments, result)


def _compare_and_swap(arguments: list[Any], result: Any) -> Step | None:
    """A transaction that compares for this value, or for absence, and puts, deletes and reads."""
    compares, success, failure = arguments
    plain = {Op.PUT: 2, Op.DELETE_RANGE: 1, Op.RANGE: 1}
    if not all(one[1] == 0 and len(one) == 4 and (one[0] == 3 or one[3] == 0) for one in compares):
        return None
    if any(len(inner) > plain.get(kind, -1) for kind, inner in [*success, *failure]):
        return None

    def step(value: Value) -> tuple[bool, Value]:
        holds = all(value == (one[3] if one[0] == 3 else None) for one in compares)
        fits = result is None or result[0] == holds
        following = value
        for place, (kind, inner) in enumerate(success if holds else failure):
            if kind == Op.PUT:
                following = inner[1]
            elif kind == Op.DELETE_RANGE:
                following = None
            elif kind == Op.RANGE and fits and result is not None:
                pairs = result[1][place][2][0]
                fits = (pairs[0][5] if pairs else None) == following
        return fits, following

    return step
