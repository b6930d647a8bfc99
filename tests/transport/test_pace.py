"""When the hub looks for the next message without sleeping."""

from __future__ import annotations

import os

import pytest

from coord.transport.pace import BUSY_POLL_S, LONE_PASSES, Pace

SOON_S, LATER_S = BUSY_POLL_S / 4, BUSY_POLL_S * 4


def note(pace: Pace, passes: list[list[int]], gap_s: float = SOON_S) -> Pace:
    for descriptors in passes:
        pace.found([(fd, 1) for fd in descriptors])
        pace.waited(gap_s)
    return pace


def settled() -> Pace:
    pace = note(Pace(), [[7]] * 100)
    assert pace.is_close
    return pace


def test_what_follows_closely_on_a_socket_or_two_is_looked_for() -> None:
    assert not note(Pace(), [[7]] * (LONE_PASSES + 1)).is_close
    assert note(Pace(), [[7]] * 100).is_close
    assert note(Pace(), [[7], [8]] * 50).is_close
    assert note(Pace(), [[7], [7], [8]] * 50).is_close


@pytest.mark.parametrize("passes", [[[7, 8]], [[9], [8]], [[7], [9], [8]]])
def test_where_many_are_heard_a_sleep_gathers_them(passes: list[list[int]]) -> None:
    pace = note(settled(), passes)
    assert not pace.is_close
    assert not note(pace, [[7], [8], [9]] * 100).is_close
    note(pace, [[9]] * LONE_PASSES)
    assert pace.is_close


def test_what_takes_long_to_come_is_slept_for() -> None:
    assert not note(Pace(), [[7]] * 100, LATER_S).is_close
    pace = settled()
    note(pace, [[7]] * 20, LATER_S)
    assert not pace.is_close
    note(pace, [[7]] * 20)
    assert pace.is_close


def test_the_receiver_goes_first_in_a_lone_exchange_only(monkeypatch: pytest.MonkeyPatch) -> None:
    yields: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yields.append(None))
    Pace().sent()
    assert not yields
    settled().sent()
    assert len(yields) == 1


def test_one_late_message_changes_nothing() -> None:
    assert note(settled(), [[7]], LATER_S / 4 * 2).is_close


def test_who_displaces_others_sleeps_for_the_next_fifty_messages() -> None:
    pace = settled()
    pace.displaced()
    assert not pace.is_close
    assert not note(pace, [[7]] * 50).is_close
    assert note(pace, [[7]] * 50).is_close
