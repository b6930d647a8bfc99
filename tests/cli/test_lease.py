"""`coord lease keep-alive` through trouble, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest

from coord.cli import lease
from coord.cli.output.lines import LinesPrinter
from coord.client import responses as r
from coord.client.blocking import BlockingClient
from coord.errors import ConnectionFailed, lease_not_found, no_leader
from coord.types import LeaseId, Revision

LEASE = LeaseId(7)
ALIVE = r.LeaseKeepAliveResponse(r.Header(1, 1, Revision(1), 1), LEASE, 9)


class Clock:
    """Stands in for the `time` module."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Client:
    """Answers renewals in turn."""

    def __init__(self, *answers: r.LeaseKeepAliveResponse | Exception) -> None:
        self._answers: Iterator[r.LeaseKeepAliveResponse | Exception] = iter(answers)
        self.known_ttl_s = 0

    def lease_keep_alive_once(self, asked: int, *, ttl_s: float) -> r.LeaseKeepAliveResponse:
        assert asked == LEASE
        assert ttl_s == self.known_ttl_s
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        self.known_ttl_s = answer.ttl_s
        return answer


def renew(monkeypatch: pytest.MonkeyPatch, *answers: r.LeaseKeepAliveResponse | Exception) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    lease._renew_until_gone(cast(BlockingClient, Client(*answers)), LEASE, LinesPrinter())
    return clock


def test_it_renews_three_times_a_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    assert renew(monkeypatch, ALIVE, ALIVE, lease_not_found()).slept == [3, 3]


def test_trouble_is_tried_again_while_the_lease_can_live(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = renew(monkeypatch, ALIVE, no_leader(), ConnectionFailed("gone"), ALIVE, lease_not_found())
    assert clock.slept[0] == clock.slept[-1] == 3
    assert len(clock.slept) == 4


def test_it_gives_up_when_the_lease_must_have_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionFailed):
        renew(monkeypatch, ALIVE, *[ConnectionFailed("gone")] * 100)


def test_it_gives_up_at_once_if_nothing_was_ever_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionFailed):
        renew(monkeypatch, ConnectionFailed("gone"))
