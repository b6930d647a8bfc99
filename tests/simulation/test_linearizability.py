"""The search on histories that books tell of, legal and not, and its bounds."""

from __future__ import annotations

import random

import pytest

from coord.testing.linearizability import Call, Value, Verdict, search

INFINITE = float("inf")


def put(value: bytes, called: float, returned: float) -> Call:
    return Call(called, returned, lambda _: (True, value))


def get(seen: Value, called: float, returned: float) -> Call:
    return Call(called, returned, lambda value: (value == seen, value))


def swap(old: Value, new: bytes, has_swapped: bool, called: float, returned: float) -> Call:
    return Call(called, returned, lambda value: ((value == old) == has_swapped, new if value == old else value))


LEGAL = {
    "nothing": [],
    "one after the other": [put(b"1", 0, 1), get(b"1", 2, 3)],
    "a read beside a write sees either": [put(b"1", 0, 10), get(None, 1, 2), get(b"1", 3, 4)],
    "two writes beside each other": [put(b"1", 0, 10), put(b"2", 0, 10), get(b"1", 11, 12)],
    "an unknown write that happened late": [put(b"1", 0, INFINITE), get(None, 1, 2), get(b"1", 3, 4)],
    "an unknown write that never happened": [put(b"1", 0, INFINITE), get(None, 1, 2), get(None, 3, 4)],
    "two unknown writes, one between reads": [
        put(b"1", 0, INFINITE),
        put(b"2", 0, INFINITE),
        get(b"2", 1, 2),
        get(b"1", 3, 4),
    ],
    "a swap that lost to a later writer": [
        put(b"1", 0, 1),
        swap(b"1", b"2", False, 2, 9),
        put(b"3", 3, 8),
        get(b"3", 10, 11),
    ],
}
ILLEGAL = {
    "a read of nothing after a write": [put(b"1", 0, 1), get(None, 2, 3)],
    "a read that goes back": [put(b"1", 0, 10), get(b"1", 1, 2), get(None, 3, 4)],
    "a value that nobody wrote": [put(b"1", 0, 1), get(b"2", 2, 3)],
    "two swaps of one value": [
        put(b"1", 0, 1),
        swap(b"1", b"2", True, 2, 5),
        swap(b"1", b"3", True, 2, 5),
    ],
    "an unknown write that happened twice": [
        put(b"1", 0, INFINITE),
        get(b"1", 1, 2),
        put(b"2", 3, 4),
        get(b"2", 5, 6),
        get(b"1", 7, 8),
    ],
    "readers that disagree on the order": [
        put(b"1", 0, 10),
        put(b"2", 0, 10),
        get(b"1", 1, 2),
        get(b"2", 3, 4),
        get(b"1", 5, 6),
    ],
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal(name: str) -> None:
    assert search(LEGAL[name]) is Verdict.LEGAL


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name: str) -> None:
    assert search(ILLEGAL[name]) is Verdict.ILLEGAL


def crowd(seed: int, calls: int = 200, clients: int = 8) -> list[Call]:
    """Return a legal history of a register with overlapping calls, two of them of unknown outcome."""
    chance = random.Random(seed)
    value: Value = None
    made: list[Call] = []
    free = [0.0] * clients
    for place in range(calls):
        now = place * 1.0
        who = min(range(clients), key=lambda one: free[one])
        called = max(free[who], now - chance.uniform(0, 4))
        returned = max(called, now) + chance.uniform(0, 4)
        if chance.random() < 0.5:
            value = b"%d" % place
            is_unknown = place in (70, 140)
            made.append(put(value, called, INFINITE if is_unknown else returned))
        else:
            made.append(get(value, called, returned))
        free[who] = returned
    return made


@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_calls_of_eight_clients_are_judged(seed: int) -> None:
    calls = crowd(seed)
    assert search(calls) is Verdict.LEGAL
    calls.append(get(b"0", 10_000, 10_001))
    assert search(calls) is not Verdict.LEGAL


def test_a_search_ends_at_its_bound() -> None:
    calls = [put(b"%d" % place, 0, 10) for place in range(12)] + [get(b"x", 11, 12)]
    assert search(calls, steps_max=1000) is Verdict.UNDECIDED
