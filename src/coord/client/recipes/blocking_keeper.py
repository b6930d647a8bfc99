"""Keeping the leases of a blocking client's sessions alive, in a thread of its own."""

from __future__ import annotations

import threading

from coord.client import forks, verbs
from coord.client.blocking_calls import BlockingCalls
from coord.client.clock import Clock
from coord.client.recipes.renewals import RETRY_S_MIN, Kept, Renewals
from coord.client.recipes.tenure import Tenure
from coord.errors import ClientClosed, CoordError


class BlockingKeeper:
    """Renews the leases of all sessions of a client: those due at about the same time share a request.

    Its calls are its own, so that a long call of the client holds up no renewal. Its thread runs as long as there is a
    lease to keep, and keeps no program from ending.
    """

    def __init__(self, calls: BlockingCalls, clock: Clock) -> None:
        self._calls = calls
        self._renewals = Renewals(clock)
        self._clock = clock
        self._changed = threading.Condition()
        """Held while `_renewals` is looked at."""
        self._thread: threading.Thread | None = None
        self._forks = forks.count()

    def add(self, kept: Kept) -> None:
        """Keep a lease that was just granted."""
        self._be_of_this_process()
        with self._changed:
            self._renewals.add(kept)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coord keep-alive", daemon=True)
                self._thread.start()

    def discard(self, kept: Kept) -> None:
        """Keep a lease no longer."""
        self._be_of_this_process()
        with self._changed:
            self._renewals.discard(kept)
            self._changed.notify()

    def close(self) -> None:
        """Keep no lease any longer: all sessions are lost."""
        self._be_of_this_process()
        self._abandon("its client was closed")
        # A renewal that is not answered must not keep its program from ending for as long as a lease lives.
        self._calls.abort()

    def _abandon(self, why: str) -> None:
        with self._changed:
            abandoned = self._renewals.take_all()
            self._changed.notify()
        for kept in abandoned:
            kept.tenure.lose(why)
            kept.end()

    def _be_of_this_process(self) -> None:
        """Begin anew in a process that was forked off: thread, lock and sessions are its parent's (S21)."""
        if self._forks != forks.count():
            self._forks = forks.count()
            self._renewals = Renewals(self._clock)
            self._changed = threading.Condition()
            self._thread = None

    def _run(self) -> None:
        try:
            self._keep()
        except BaseException as error:
            # Nobody renews any more: whoever waits for a loss must hear of it.
            self._abandon(f"its keep-alive failed: {error!r}")
            raise

    def _keep(self) -> None:
        while True:
            with self._changed:
                lost = self._renewals.take_lost()
                due = self._renewals.take_due()
                if not self._renewals and not lost:
                    self._thread = None
                    return
                if not lost and not due:
                    self._changed.wait(self._renewals.pause_s())
            for kept in lost:
                kept.end()
            for some in due:
                self._renew(some)

    def _renew(self, some: list[Kept]) -> None:
        tenures: dict[int, Tenure] = {kept.tenure.lease: kept.tenure for kept in some}
        verb = verbs.lease_keep_alives(list(tenures), min(tenure.ttl_s for tenure in tenures.values()))
        sent_at = self._clock()
        with self._changed:
            # Whatever becomes of this request, the loss of any session is told in time.
            timeout = max(self._renewals.remaining_s(), RETRY_S_MIN)
        try:
            answer = self._calls.call(verb, timeout)
        except ClientClosed:
            return
        except CoordError:
            with self._changed:
                self._renewals.failed(some)
        else:
            for lease, granted_s in answer:
                tenures[lease].acknowledged(sent_at, granted_s)
