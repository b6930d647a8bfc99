"""Threads that wait for each other: barriers and a queue."""

from __future__ import annotations

import threading
import time

import pytest

from coord.errors import SessionLost

from .blocking_rig import HandClock, a_client, ended, in_thread, served, wait_until


def test_a_barrier_holds_up_who_waits() -> None:
    with served() as (_, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        barrier, their = client.barrier("maintenance"), other.barrier("maintenance")
        their.wait(0.1)
        assert barrier.hold(b"host 7")
        assert not their.hold()
        with pytest.raises(TimeoutError, match=r"not released within 0\.05 s"):
            their.wait(0.05)
        waiting, raised = in_thread(their.wait)
        time.sleep(0.02)
        assert waiting.is_alive()
        assert barrier.release()
        ended(waiting)
        assert raised == []
        assert not their.release()


def test_parties_enter_and_leave_together() -> None:
    inside: list[int] = []
    left: list[int] = []
    may_leave = threading.Event()
    with served() as (node, listener):

        def take_part(number: int) -> None:
            with a_client(listener, seed=number + 1) as client, client.session() as session:
                with session.double_barrier("step", 3):
                    inside.append(number)
                    if number == 2:
                        may_leave.wait(5)
                assert len(inside) == 3
                left.append(number)

        threads = []
        for number in range(3):
            assert inside == []
            threads.append(in_thread(lambda number=number: take_part(number)))
            if number < 2:
                wait_until(lambda number=number: len(node.keys_below(b"step/")) == number + 1)
        wait_until(lambda: len(inside) == 3)
        time.sleep(0.05)
        assert left == []
        may_leave.set()
        for thread, raised in threads:
            ended(thread)
            assert raised == []
        assert sorted(left) == [0, 1, 2]
        assert node.keys_below(b"step/") == node.leases_left == []


def test_a_party_whose_session_is_lost_does_not_enter() -> None:
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client, client.session(ttl=9) as session:
        waiting, raised = in_thread(lambda: session.double_barrier("step", 2).__enter__())
        wait_until(lambda: len(node.keys_below(b"step/")) == 1)
        with listener.lock:
            node.expire(session.lease)
        clock.advance(client, 3)
        ended(waiting)
        assert [type(error) for error in raised] == [SessionLost]


def test_items_of_a_queue_are_taken_in_order_each_by_one() -> None:
    with served() as (node, listener), a_client(listener) as client:
        jobs = client.queue("jobs")
        with pytest.raises(TimeoutError, match=r"no item within 0\.05 s"):
            jobs.get(0.05)
        for number in range(12):
            jobs.put(b"%d" % number)
        assert jobs.get() == b"0"
        taken: list[bytes] = []

        def work(seed: int) -> None:
            with a_client(listener, seed=seed) as other:
                queue = other.queue("jobs")
                while (item := queue.get(5)) != b"end":
                    taken.append(item)

        workers = [in_thread(lambda seed=seed: work(seed)) for seed in range(2, 5)]
        wait_until(lambda: len(taken) == 11)
        for _ in workers:
            jobs.put(b"end")
        for worker, raised in workers:
            ended(worker)
            assert raised == []
        assert sorted(taken, key=int) == [b"%d" % number for number in range(1, 12)]
        assert node.keys_below(b"jobs/") == []


def test_threads_that_share_a_queue_take_in_turn() -> None:
    with served() as (_, listener), a_client(listener) as client:
        jobs = client.queue("jobs")
        waiting, raised = in_thread(lambda: jobs.get(5))
        wait_until(jobs._turn.locked)
        with pytest.raises(TimeoutError, match="other threads wait"):
            jobs.get(0.01)
        jobs.put(b"one")
        ended(waiting)
        assert raised == []
