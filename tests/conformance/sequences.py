"""Random sequences of requests, over few keys and leases so that they meet.

Revisions are drawn relative to the present: bind each request with a scope that starts at the store's revision of
that moment, so that `At(-3)` is three revisions ago and `At(1)` in the future.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coord.types import CompareResult, CompareTarget, SortOrder, SortTarget

from .vocabulary import (
    At,
    Compact,
    Compare,
    DeleteRange,
    Grant,
    KeepAlive,
    Lease,
    Leases,
    Name,
    PrefixEnd,
    Put,
    Range,
    Request,
    Revoke,
    TimeToLive,
    Txn,
)

_NAMES = ("a", "aa", "ab", "b", "c")
_KEYS = st.sampled_from([Name(name) for name in _NAMES])
_ENDS = st.sampled_from([b"", b"", b"", Name("ab"), Name("b"), Name("c"), PrefixEnd("a"), PrefixEnd("")])
_VALUES = st.sampled_from([b"", b"0", b"1", b"10", b"2"])
_LEASES = st.sampled_from([Lease(1), Lease(2), Lease(3)])
_ATTACHED = st.sampled_from([0, 0, 0, 0, Lease(1), Lease(1), Lease(2), Lease(2), Lease(3)])
_FLAG = st.sampled_from([False, False, True])
_PAST = st.integers(-6, 1).map(At)
_REVISIONS = st.one_of(st.just(0), st.just(0), _PAST)
_FILTERS = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(-6, 0).map(At))

_PUTS = st.builds(
    Put, _KEYS, _VALUES, _ATTACHED, prev_kv=_FLAG, ignore_value=st.just(False), ignore_lease=st.just(False)
)
_KEEPING_PUTS = st.builds(Put, _KEYS, st.just(b""), st.just(0), _FLAG, _FLAG, _FLAG)
_DELETES = st.builds(DeleteRange, _KEYS, _ENDS, prev_kv=_FLAG)
_RANGES = st.builds(
    Range,
    _KEYS,
    _ENDS,
    limit=st.sampled_from([0, 0, 1, 2, 3]),
    revision=_REVISIONS,
    order=st.sampled_from([order.name for order in SortOrder]),
    target=st.sampled_from([target.name for target in SortTarget]),
    serializable=_FLAG,
    keys_only=_FLAG,
    count_only=_FLAG,
    min_mod=_FILTERS,
    max_mod=_FILTERS,
    min_create=_FILTERS,
    max_create=_FILTERS,
)


def _compares(target: str) -> SearchStrategy[Compare]:
    operands: SearchStrategy[object] = {
        "VALUE": _VALUES,
        "VERSION": st.integers(0, 3),
        "LEASE": _ATTACHED,
    }.get(target, st.one_of(st.just(0), _PAST))
    relations = st.sampled_from([result.name for result in CompareResult])
    return st.builds(Compare, st.just(target), relations, _KEYS, operands, _ENDS)


_COMPARES = st.lists(st.sampled_from([target.name for target in CompareTarget]).flatmap(_compares), max_size=2)


def _txns(levels: int) -> SearchStrategy[Txn]:
    operation: SearchStrategy[Request] = st.one_of(_PUTS, _KEEPING_PUTS, _DELETES, _RANGES)
    if levels:
        operation = st.one_of(operation, operation, _txns(levels - 1))
    branch = st.lists(operation, max_size=3).map(tuple)
    return st.builds(Txn, _COMPARES.map(tuple), branch, branch)


_REQUESTS: dict[SearchStrategy[Request], int] = {
    _PUTS: 6,
    _KEEPING_PUTS: 2,
    _DELETES: 2,
    _RANGES: 6,
    _txns(2): 6,
    st.builds(Grant, st.sampled_from([600, 900]), _LEASES): 1,
    st.builds(Revoke, _LEASES): 1,
    st.builds(TimeToLive, _LEASES, st.just(True)): 1,
    st.sampled_from([KeepAlive(Lease(1)), KeepAlive(Lease(3)), Leases()]): 1,
    st.builds(Compact, _PAST): 1,
}
"""What is asked, and how often."""

REQUESTS: SearchStrategy[Request] = st.sampled_from(
    [strategy for strategy, weight in _REQUESTS.items() for _ in range(weight)]
).flatmap(lambda strategy: strategy)

_BEGINNING: list[Request] = [Grant(600, Lease(1)), Grant(900, Lease(2)), *(Put(Name(name), b"1") for name in _NAMES)]
"""Without it most of a short sequence would meet nothing."""

SEQUENCES = st.lists(REQUESTS, min_size=20, max_size=60).map(lambda requests: _BEGINNING + requests)
