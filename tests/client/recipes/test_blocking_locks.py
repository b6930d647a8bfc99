"""Sessions and locks of the blocking client, over real sockets, on a node whose state is real."""

# ruff: noqa: PT012, SIM117  # blocks stand inside each other as programs write them, and the loss ends them

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import coord
from coord.client.blocking import BlockingClient
from coord.client.clock import boot_time
from coord.client.recipes.blocking_session import BlockingSession
from coord.client.recipes.contending import lock_of
from coord.errors import FenceLost, LockLost, LockTimeout, SessionLost

from .blocking_rig import HandClock, a_client, ended, in_thread, served, wait_until


def test_a_session_is_a_lease_that_lives_as_long_as_its_block() -> None:
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client:
        with client.session(ttl=9) as session:
            assert node.leases_left == [session.lease]
            assert session.ttl_s == 9
            assert session.remaining_s == pytest.approx(9 - 0.9)
            client.put("k", b"v", lease=session.lease)
            for number in range(1, 30):
                clock.advance(client, 3)
                wait_until(lambda number=number: len(node.renewals) == number)
                wait_until(lambda: session.remaining_s == pytest.approx(9 - 0.9))
            assert not session.lost.is_set()
        assert node.leases_left == []
        assert node.keys_below(b"k") == []
        assert session.is_lost
        assert session.lost.is_set()
        with pytest.raises(SessionLost, match="closed"):
            session.check()
        with pytest.raises(ValueError, match="entered once"):
            session.__enter__()


def test_sessions_of_one_client_share_renewals() -> None:
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client:
        with client.session(ttl=9) as first, client.session(ttl=9) as second, client.session(ttl=60) as slow:
            clock.advance(client, 3)
            wait_until(lambda: bool(node.renewals))
            clock.advance(client, 3)
            wait_until(lambda: len(node.renewals) == 2)
            assert [sorted(some) for some in node.renewals] == [sorted([first.lease, second.lease])] * 2
            assert slow.lease in node.leases_left


def test_a_long_call_of_the_client_holds_up_no_renewal() -> None:
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client:
        with client.session(ttl=9) as session:
            with client._calls._lock:
                clock.advance(client, 3)
                wait_until(lambda: len(node.renewals) == 1)
                wait_until(lambda: session.remaining_s == pytest.approx(9 - 0.9))


def test_a_session_that_is_not_renewed_in_time_is_lost() -> None:
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client:
        with client.session(ttl=9) as session:
            # The end of the block says it too: work that asked nobody must not pass for done under the lock.
            with pytest.raises(LockLost, match="no renewal"), session.lock("a") as lock:
                node.is_silent = True
                clock.now += 9 - 0.9 - 0.001
                lock.check()
                clock.now += 0.001
                # The very next call says so, before any thread has noticed.
                with pytest.raises(LockLost, match="no renewal"):
                    lock.check()
                with pytest.raises(LockLost):
                    client.put("k", b"v", fence=lock)
                assert lock.lost.is_set()
            assert session.lost.is_set()
            node.is_silent = False
            with pytest.raises(SessionLost), session.lock("b"):
                raise AssertionError
            assert node.keys_below(b"k") == node.keys_below(b"b/") == []


def test_a_write_that_waited_for_its_turn_is_not_sent_once_the_lock_is_lost() -> None:
    """S24: there is nothing to wait for between the check and the sending."""
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client, client.session(ttl=9) as session:
        with pytest.raises(LockLost), session.lock("a") as lock:
            frames = len(node.frames)
            with client._calls._lock:
                writing, raised = in_thread(lambda: client.put("k", b"v", fence=lock))
                time.sleep(0.05)  # it has passed its first check, and waits
                clock.now += 9
            ended(writing)
            assert [type(error) for error in raised] == [LockLost]
            assert [kind for kind, _ in node.frames[frames:] if kind == "writes"] == []


def test_the_loss_of_one_session_is_told_in_time_though_a_renewal_is_not_answered() -> None:
    with served() as (node, listener):
        with a_client(listener, clock=boot_time) as client, client.session(ttl=60), client.session(ttl=1) as short:
            told = short.lost
            node.is_silent = True
            assert told.wait(3)
            node.is_silent = False


def test_threads_that_wait_are_told_of_the_loss() -> None:
    clock = HandClock()
    with served() as (node, listener), a_client(listener, clock=clock) as client:
        with pytest.raises(LockLost, match="ended its lease"), client.session(ttl=9) as session:
            with session.lock("a") as lock:
                told = lock.lost
                with listener.lock:
                    node.expire(session.lease)
                clock.advance(client, 3)
                assert told.wait(5)
                assert session.lost.is_set()


def test_the_holder_learns_that_its_key_was_deleted() -> None:
    with served() as (node, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        with pytest.raises(LockLost, match="its key was deleted"), client.session() as session:
            with session.lock("a") as lock:
                # Its watch stands only after a moment, and sees what was before it.
                other.delete(lock.key)
                assert lock.lost.wait(5)
                assert not session.is_lost
                with pytest.raises(LockLost):
                    client.put("k", b"v", fence=lock)
        assert node.keys_below(b"") == []


def test_a_lock_is_held_by_one_at_a_time_and_fences_rise() -> None:
    fences: list[int] = []
    holders: list[int] = []
    with served() as (node, listener):

        def work(seed: int) -> None:
            with a_client(listener, seed=seed) as client, client.session() as session:
                for _ in range(3):
                    with session.lock("jobs/nightly") as lock:
                        holders.append(seed)
                        assert len(holders) == 1
                        fences.append(lock.fence)
                        client.put("k", b"%d" % lock.fence, fence=lock)
                        holders.remove(seed)

        workers = [in_thread(lambda seed=seed: work(seed)) for seed in range(4)]
        for thread, _ in workers:
            thread.join(30)
        assert [raised for _, raised in workers] == [[]] * 4
        assert fences == sorted(set(fences))
        assert len(fences) == 12
        assert node.keys_below(b"jobs/") == node.leases_left == []


def test_the_key_is_the_name_and_the_lease_and_nothing_else() -> None:
    """No prefix that nobody asked for, and the unique suffix is in the key."""
    with served() as (node, listener), a_client(listener) as client, client.session() as session:
        with session.lock("jobs/nightly", value=b"host 7") as lock:
            assert lock.key == b"jobs/nightly/%x" % session.lease
            assert node.keys_below(b"") == [lock.key]
            kv = client.get(lock.key)
            assert kv is not None
            assert (kv.value, kv.lease, kv.create_revision) == (b"host 7", session.lease, lock.fence)


def test_a_try_fails_at_once_and_a_wait_fails_in_time() -> None:
    with served() as (node, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        with client.session() as session, session.lock("a", value=b"host 7"), other.session() as late:
            with pytest.raises(LockTimeout, match=r"not acquired within 0 s: a/[0-9a-f]+ has it, b'host 7'"):
                with late.lock("a", wait=0):
                    raise AssertionError
            started = time.monotonic()
            with pytest.raises(TimeoutError, match=r"within 0\.1 s"), late.lock("a", wait=0.1):
                raise AssertionError
            assert 0.1 <= time.monotonic() - started < 1
            assert len(node.keys_below(b"a/")) == 1


def test_one_session_does_not_hold_a_name_twice() -> None:
    with served() as (_, listener), a_client(listener) as client, client.session() as session:
        with session.lock("a"):
            with pytest.raises(ValueError, match="has or awaits"), session.lock("a", wait=0):
                raise AssertionError
        with session.lock("a", wait=0):
            pass


def test_readers_share_and_writers_do_not() -> None:
    with served() as (_, listener), a_client(listener) as client:
        with client.session() as first, client.session() as second:
            with first.read_lock("rw"), second.read_lock("rw", wait=0):
                pass
            with first.write_lock("rw"), pytest.raises(LockTimeout), second.read_lock("rw", wait=0):
                raise AssertionError
            with first.semaphore("s", 2), second.semaphore("s", 2, wait=0):
                with client.session() as third, pytest.raises(LockTimeout), third.semaphore("s", 2, wait=0):
                    raise AssertionError


def test_a_waiter_whose_lease_has_gone_never_gets_the_lock() -> None:
    clock = HandClock()
    with served() as (node, listener), a_client(listener) as client, a_client(listener, seed=2, clock=clock) as other:
        with client.session() as session, other.session(ttl=9) as late:
            with session.lock("a"):

                def wait() -> None:
                    with late.lock("a"):
                        raise AssertionError

                thread, raised = in_thread(wait)
                wait_until(lambda: len(node.keys_below(b"a/")) == 2)
                with listener.lock:
                    node.expire(late.lease)
            ended(thread)
            assert [type(error) for error in raised] in ([LockLost], [SessionLost])
            assert node.keys_below(b"a/") == []


def test_what_a_resource_was_given_before_is_refused_after_the_lock_changed_hands() -> None:
    with served() as (node, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        with client.session() as session:
            with session.lock("a") as lock:
                guard = [lock.key, lock.fence]
            with other.session() as next_session, next_session.lock("a"):
                lock._why_over = ""  # as if this process had been paused since
                with pytest.raises(FenceLost):
                    client.put("k", b"v", fence=lock)
        assert guard[0] not in node.keys_below(b"")
        assert client.get("k") is None


def test_after_fork_inherited_sessions_and_locks_are_lost_and_the_parents_live() -> None:
    """S21: two processes are not one owner."""
    with served() as (node, listener), a_client(listener) as client:
        with client.session() as session, session.lock("a") as lock:
            read, write = os.pipe()
            child = os.fork()
            if not child:
                told = child_story(session, lock, client)
                os.write(write, told.encode())
                os._exit(0)
            os.waitpid(child, 0)
            assert os.read(read, 4096).decode() == "LockLost SessionLost True True a b/1 closed"
            os.close(read)
            os.close(write)
            lock.check()
            assert node.leases_left == [session.lease]
            assert node.keys_below(b"a/") == [lock.key]


def test_a_fork_leaves_the_child_no_lock_of_a_thread_that_it_does_not_have() -> None:
    """S21: a thread that waits for an item, or claims a name, is not forked with what it holds."""
    with served() as (node, listener), a_client(listener) as client:
        jobs = client.queue("jobs")
        jobs.put(b"1")
        with client.session() as session, session.lock("a"):
            with session._claiming, jobs._turn:
                child = os.fork()
                if not child:
                    signal.alarm(5)
                    session.leave(lock_of(session.tenure, "a"))
                    os._exit(jobs.get() != b"1")
            assert os.waitpid(child, 0)[1] == 0
            assert len(node.keys_below(b"a/")) == 1


def child_story(session: BlockingSession, lock: coord.BlockingLock, client: BlockingClient) -> str:
    told = []
    for owned in (lock, session):
        try:
            owned.check()
        except (LockLost, SessionLost) as error:
            told.append(type(error).__name__)
    told += [str(lock.lost.wait(1)), str(session.lost.wait(1))]
    kv = client.get(lock.key)
    told.append("a" if kv is not None else "gone")
    # A session of its own is kept alive by a thread of its own.
    with client.session() as own, own.lock("b") as other:
        told.append(f"b/{client._keeper._thread is not None:d}")
        other.check()
    session.close()
    client.close()
    return " ".join([*told, "closed"])


def test_a_closed_client_ends_its_sessions() -> None:
    with served() as (_, listener):
        client = a_client(listener)
        session = client.session().__enter__()
        client.close()
        assert session.lost.wait(1)
        with pytest.raises(SessionLost, match="client was closed"):
            session.check()
        session.close()


def test_a_renewal_that_is_not_answered_does_not_hold_up_the_end_of_its_client() -> None:
    clock = HandClock()
    with served() as (node, listener):
        client = a_client(listener, clock=clock)
        client.session(ttl=60).__enter__()
        wait_until(lambda: client._keeper._thread is not None)
        node.is_silent = True
        clock.advance(client, 21)
        wait_until(lambda: len(node.renewals) == 1)
        thread = client._keeper._thread
        assert thread is not None
        began = time.monotonic()
        client.close()
        thread.join(5)
        assert not thread.is_alive()
        assert time.monotonic() - began < 5


def test_a_keeper_that_ends_by_a_mistake_loses_its_sessions_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    with served() as (_, listener), a_client(listener, clock=clock) as client, client.session(ttl=9) as session:

        class NoRoom:
            def call(self, *_: object) -> None:
                raise MemoryError("no room")

        monkeypatch.setattr(client._keeper, "_calls", NoRoom())
        told: list[object] = []
        monkeypatch.setattr(threading, "excepthook", lambda hook: told.append(hook.exc_value))
        thread = client._keeper._thread
        assert thread is not None
        clock.advance(client, 3)
        assert session.lost.wait(5)
        with pytest.raises(SessionLost, match="no room"):
            session.check()
        thread.join(5)
        assert isinstance(told[0], MemoryError)
        monkeypatch.undo()


def test_a_client_that_is_not_exactly_once_has_no_sessions() -> None:
    with pytest.raises(ValueError, match="exactly_once"):
        coord.connect_sync(exactly_once=False).session()
