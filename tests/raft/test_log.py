"""The log in memory."""

from __future__ import annotations

import pytest

from coord.raft.log import RaftLog

from .rig import log_of


def sized(*sizes: int) -> RaftLog:
    log = RaftLog()
    for index, size in enumerate(sizes, 1):
        log.append((index, 1, bytes(size)))
    return log


def test_bytes_are_counted_from_anywhere_on() -> None:
    log = sized(5, 6, 7)
    log.committed = log.applied = log.persisted_index = 1
    assert [log.bytes_above(index) for index in range(4)] == [18, 13, 7, 0]

    log.release(1)
    assert [log.bytes_above(index) for index in range(1, 4)] == [13, 7, 0]


def test_appends_are_cut_by_bytes_but_hold_one_entry_at_least() -> None:
    log = sized(5, 5, 5, 100, 1)

    assert log.fit(1, 10) == (2, 10)
    assert log.fit(3, 10) == (3, 5)
    assert log.fit(4, 10) == (4, 100)
    assert log.fit(5, 10) == (5, 1)
    assert log.fit(1, 1000) == (5, 116)


def test_sizes_hold_after_release_truncation_and_extension() -> None:
    log = sized(1, 2, 3, 4)
    log.persisted_index = 4
    log.committed = log.applied = 2
    log.release(2)
    assert (log.size_bytes, log.fit(3, 100)) == (7, (4, 7))

    log.truncate(4, 2)
    assert log.size_bytes == 3
    log.extend([(4, 2, bytes(10)), (5, 2, bytes(20))])
    assert (log.size_bytes, log.fit(4, 10)) == (33, (4, 10))

    log.truncate(3, 3)
    assert log.size_bytes == 0
    log.append((3, 3, b"xx"))
    assert log.size_bytes == 2


def test_the_hint_is_the_last_entry_whose_term_is_not_above() -> None:
    log = log_of(1, 1, 3, 3, 5)

    assert [log.last_not_above(5, term) for term in (5, 4, 3, 2, 1, 0)] == [5, 4, 4, 2, 2, 0]
    assert log.last_not_above(3, 3) == 3
    assert log.last_not_above(9, 9) == 5

    log.persisted_index = 5
    log.committed = log.applied = 3
    log.release(3)
    assert log.last_not_above(5, 2) == 3
    assert log.last_not_above(1, 2) == 1


def test_truncation_takes_back_what_the_disk_was_given() -> None:
    log = log_of(1, 1, 1)
    log.persisted_index = log.handed_index = 3

    log.truncate(2, 4)

    assert (log.last_index, log.persisted_index, log.handed_index, log.replaced_term) == (1, 1, 1, 4)


def test_what_is_committed_is_never_cut() -> None:
    log = log_of(1, 1, 1)
    log.committed = 2

    with pytest.raises(AssertionError):
        log.truncate(2, 4)


def test_entries_come_without_gaps_and_terms_never_fall() -> None:
    log = log_of(2)

    for entries in ([(3, 2, b"")], [(2, 1, b"")]):
        with pytest.raises(AssertionError):
            log.extend(entries)
        with pytest.raises(AssertionError):
            log.append(entries[0])
