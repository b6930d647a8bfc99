"""Many puts in one call of the blocking client, over real sockets."""

from __future__ import annotations

import threading
import time

import pytest

from coord.client.many import PUTS_PER_FRAME, in_frames, put_many_arguments
from coord.errors import (
    ClientClosed,
    ClientExpired,
    DeadlineExceeded,
    FenceLost,
    LockLost,
    NotFound,
    OutcomeUnknown,
    PutsFailed,
    no_leader,
)

from .fake_node import FakeNode
from .test_blocking import a_client, wait_until
from .threaded_fakes import listening


def pairs(count: int) -> dict[str, bytes]:
    return {f"k{number}": b"%d" % number for number in range(count)}


class Lock:
    key, fence = b"lock/1", 7

    def __init__(self, checks: int) -> None:
        self.checks = checks

    def check(self) -> None:
        self.checks -= 1
        if self.checks < 0:
            raise LockLost("lost")


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_hundred_share_a_frame_and_each_has_its_revision(exactly_once: bool) -> None:
    with listening(FakeNode()) as (listener,), a_client(listener, exactly_once=exactly_once) as client:
        node = listener.node
        assert client.put_many(pairs(250)) == list(range(2, 252))
        assert node.frames == [("writes", 100), ("writes", 100), ("writes", 50)]
        assert client.put_many([(b"bytes", b"1"), ("text", b"2")]) == [252, 253]
        assert client.put_many({}) == []
        assert client.revision == 253
        assert client.put("next", b"") == 254
        assert len(node.applied) == (253 if exactly_once else 0)
        # All numbers are closed: the next write tells so.
        assert list(node.lows.values()) == ([253] if exactly_once else [])


def test_what_was_not_answered_is_sent_again_and_applied_once() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        node = listener.node
        client.put("first", b"")
        node.is_silent = True
        got: list[int] = []
        thread = threading.Thread(target=lambda: got.extend(client.put_many(pairs(50))))
        thread.start()
        wait_until(lambda: len(node.applied) == 51)
        node.is_silent = False
        listener.hang_up()
        thread.join()
        assert got == list(range(3, 53))
        assert len(node.applied) == 51


def test_without_numbers_nothing_is_sent_again_that_may_have_been_applied() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener, exactly_once=False) as client:
        node = listener.node
        client.put("first", b"")
        node.is_silent = True
        thread = threading.Thread(target=lambda: (wait_until(lambda: node.revision == 12), listener.hang_up()))
        thread.start()
        with pytest.raises(PutsFailed) as failed:
            client.put_many(pairs(10))
        thread.join()
        assert [type(outcome) for outcome in failed.value.outcomes] == [OutcomeUnknown] * 10
        assert node.revision == 12


def test_some_fail_and_the_others_stand() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        node = listener.node
        client.put("first", b"")
        node.refusals = [no_leader(), NotFound("gone")]
        with pytest.raises(PutsFailed, match=r"1 of 3 puts failed, the first of b'k1': gone") as failed:
            client.put_many(pairs(3))
        first, second, third = failed.value.outcomes
        # What was refused, and nothing done, is sent again, alone.
        assert (first, third) == (4, 3)
        assert isinstance(second, NotFound)
        assert [count for _, count in node.frames[-2:]] == [3, 1]
        with pytest.raises(PutsFailed, match="too large") as failed:
            client.put_many({"a": b"", "b": bytes(5_000_000), "c": b""})
        assert [isinstance(outcome, Exception) for outcome in failed.value.outcomes] == [False, True, False]


def test_forgotten_client_registers_anew_unless_a_put_is_in_doubt() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        node = listener.node
        client.put("first", b"")
        node.records.clear()
        assert client.put_many(pairs(3)) == [3, 4, 5]
        # One may have been applied, another was not since the record is gone: no number tells of the first any more.
        node.refusals = [OutcomeUnknown("may be"), ClientExpired("coord: register anew")]
        node.records.clear()
        with pytest.raises(PutsFailed) as failed:
            client.put_many(pairs(2))
        assert [type(outcome) for outcome in failed.value.outcomes] == [OutcomeUnknown] * 2
        assert node.revision == 5


def test_fence_is_checked_before_each_frame_and_guards_each_put() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        listener.node.keys[b"lock/1"] = [b"lock/1", 7, 7, 1, 0, b""]
        assert len(client.put_many(pairs(2), fence=Lock(10))) == 2
        # The first look is the call's own, before anything.
        with pytest.raises(PutsFailed) as failed:
            client.put_many(pairs(PUTS_PER_FRAME + 1), fence=Lock(2))
        assert isinstance(failed.value.outcomes[PUTS_PER_FRAME - 1], int)
        assert isinstance(failed.value.outcomes[PUTS_PER_FRAME], LockLost)
        with pytest.raises(LockLost):
            client.put_many(pairs(2), fence=Lock(0))
        del listener.node.keys[b"lock/1"]
        with pytest.raises(PutsFailed) as failed:
            client.put_many(pairs(2), fence=Lock(10))
        assert [type(outcome) for outcome in failed.value.outcomes] == [FenceLost] * 2


def test_timeout_holds_for_all_together() -> None:
    with listening(FakeNode()) as (listener,), a_client(listener) as client:
        client.put("first", b"")
        listener.node.is_silent = True
        began = time.monotonic()
        with pytest.raises(PutsFailed) as failed:
            client.put_many(pairs(PUTS_PER_FRAME + 1), timeout=0.2)
        assert time.monotonic() - began < 2
        # What was never sent was not put.
        kinds = [type(outcome) for outcome in failed.value.outcomes]
        assert kinds == [OutcomeUnknown] * PUTS_PER_FRAME + [DeadlineExceeded]


def test_closed_client() -> None:
    with listening(FakeNode()) as (listener,):
        client = a_client(listener)
        client.close()
        with pytest.raises(ClientClosed):
            client.put_many(pairs(2))


def test_frames_are_bounded_in_bytes_too() -> None:
    large = {f"k{number}": bytes(100_000) for number in range(5)} | {"huge": bytes(1_000_000), "small": b""}
    assert [len(some) for some in in_frames(put_many_arguments(large, 0))] == [2, 2, 1, 1, 1]
