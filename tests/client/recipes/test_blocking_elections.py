"""Elections of the blocking client: who leads, and who sees it."""

# ruff: noqa: PT012, SIM117  # blocks stand inside each other as programs write them, and the loss ends them

from __future__ import annotations

import pytest

from coord.errors import LeadershipLost, LockTimeout

from .blocking_rig import a_client, ended, in_thread, served, wait_until


def test_candidates_are_elected_in_the_order_in_which_they_came() -> None:
    led: list[bytes] = []
    with served() as (node, listener), a_client(listener) as client, client.session() as session:
        with session.lead("db/primary", b"n0") as leadership:
            assert (leadership.name, leadership.value) == ("election 'db/primary'", b"n0")
            assert leadership.key == b"db/primary/%x" % session.lease
            threads = []
            for number in range(1, 4):

                def campaign(number: int = number) -> None:
                    with a_client(listener, seed=number + 1) as other, other.session() as its:
                        with its.lead("db/primary", b"n%d" % number) as leadership:
                            led.append(leadership.value)

                threads.append(in_thread(campaign))
                wait_until(lambda number=number: len(node.keys_below(b"db/primary/")) == number + 1)
            assert led == []
        for thread, raised in threads:
            ended(thread)
            assert raised == []
    assert led == [b"n1", b"n2", b"n3"]


def test_observers_are_told_of_owners_and_of_what_they_proclaim() -> None:
    with served() as (_, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        with other.observe("e") as owners, client.session() as session:
            assert owners.next(5) is None
            with pytest.raises(TimeoutError, match=r"no other owner within 0\.05 s"):
                owners.next(0.05)
            with session.lead("e", b"one") as leadership:
                owner = owners.next(5)
                assert owner is not None
                assert (owner.key, owner.value, owner.fence) == (leadership.key, b"one", leadership.fence)
                leadership.proclaim(b"two")
                assert leadership.value == b"two"
                # Lost connections are made anew; nothing of it is seen.
                listener.hang_up()
                for owner in owners:
                    assert owner is not None
                    assert (owner.value, owner.fence) == (b"two", leadership.fence)
                    break
                assert not owners.is_stale
            assert owners.next(5) is None


def test_who_resigns_leads_no_more_and_its_block_ends_in_peace() -> None:
    with served() as (node, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        with client.session() as session, other.session() as next_session:
            with session.lead("e", b"one") as leadership:
                leadership.resign()
                with pytest.raises(LeadershipLost, match="resigned"):
                    client.put("k", b"v", fence=leadership)
                with pytest.raises(LeadershipLost):
                    leadership.resign()
                with next_session.lead("e", b"two", wait=0):
                    pass
                # The name is free for this session too, whose first block is still open.
                with session.lead("e", b"three", wait=0) as again:
                    inner = again.key
                    assert node.keys_below(b"e/") == [inner]
            assert node.keys_below(b"e/") == []


def test_a_leadership_that_was_lost_proclaims_nothing() -> None:
    with served() as (node, listener), a_client(listener) as client, a_client(listener, seed=2) as other:
        with pytest.raises(LeadershipLost, match="its key was deleted"), client.session() as session:
            with session.lead("e", b"one") as leadership:
                other.delete(leadership.key)
                leadership.proclaim(b"two")
        assert node.keys_below(b"e/") == []


def test_who_does_not_want_to_wait_is_told_who_leads() -> None:
    with served() as (_, listener), a_client(listener) as client, client.session() as session:
        with session.lead("e", b"host 7"), client.session() as late, pytest.raises(LockTimeout, match="host 7"):
            late.lead("e", b"two", wait=0).__enter__()


def test_the_end_of_a_block_is_told_to_threads_that_wait() -> None:
    with served() as (_, listener), a_client(listener) as client, client.session() as session:
        with session.lead("e") as leadership:
            lost = leadership.lost
            thread, raised = in_thread(lambda: lost.wait(5))
        ended(thread)
        assert lost.is_set()
        assert raised == []
