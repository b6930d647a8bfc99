"""The Trio side of the client's core: frames sent once per scheduler pass, one timer for all.

What arrives is read by the hub of all links, and handed to the core by a plain call.
Per call there is no task, channel, lock or cancel scope: it is put into the core's outbox, and its task parks until
the core names it among its wakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import trio
from attrs import define, field
from trio.lowlevel import Abort, Task, checkpoint_if_cancelled, current_task, reschedule, wait_task_rescheduled

from coord.client import forks
from coord.client.arrivals import Arrivals, Line
from coord.client.calls import NEVER, Call, Connection, Subscription
from coord.client.core import ClientCore
from coord.client.endpoints import REFUSALS_BEFORE_MOVING
from coord.client.failing import patience_s, timed_out, unreachable
from coord.client.fence import Guard
from coord.errors import ApiError, ClientClosed, CoordError, ProtocolViolation
from coord.limits import SEND_BUFFER_HIGH_BYTES
from coord.protocol.client_protocol import milliseconds
from coord.protocol.ops import Method
from coord.transport.link import TOGETHER_BYTES, Link, LinkClosed

_PROGRESS: Final = int(Method.WATCH_PROGRESS)


class _Nothing:
    """What a woken task is sent, where Trio would make an outcome for each: a fifth of the cost of waking one."""

    __slots__ = ()

    def unwrap(self) -> None:
        """Return what waiting returns."""


_NOTHING: Final = _Nothing()


@define(eq=False)
class WaitedCall(Call):
    """A call that a task of its own waits for. It is what Trio calls to end the wait, where the task is cancelled.

    A thousand calls that wait are walked over by the garbage collector again and again: what each is made of counts.
    """

    driver: Driver = field(kw_only=True)
    is_shielded: bool = field(kw_only=True, default=False)

    def __call__(self, _: object) -> Abort:
        """Be sent no more, unless its caller waits for the answer all the same."""
        if self.is_shielded:
            return Abort.FAILED
        self.driver.core.abandon(self)
        self.driver._wake_pump()
        return Abort.SUCCEEDED


@define(eq=False)
class Gathering:
    """A task that waits for several calls; it is woken when the last of them has ended."""

    task: Task
    left: int


class Driver:
    """Carries the calls of one client over its connections."""

    def __init__(self, core: ClientCore, timeout: float) -> None:
        self.core = core
        self.timeout = timeout
        self.standby: Connection | None = None
        """A second connection, which takes over at once when the active one is lost."""
        self.changed = trio.lowlevel.ParkingLot()
        """Unparked when connections came or went."""
        self.is_closed = False
        self._timeout_ms, self._patience_s = milliseconds(timeout), patience_s(timeout)
        self._forks = forks.count()
        self._lines: dict[Connection, Line] = {}
        self._parked_pump: Task | None = None
        self._timer = trio.CancelScope()
        self._timer_due = NEVER
        self._leader_id = 0
        self._clock = trio.lowlevel.current_clock()
        self._arrivals = Arrivals(core, self._clock.current_time)
        self._alone: Line | None = None
        """Where the next call is to be sent, if it has nobody to share its frame with."""

    # -- for callers

    async def call(
        self,
        is_write: bool,
        code: int,
        arguments: Sequence[Any],
        timeout: float | None = None,
        guard: Guard | None = None,
        patience: float = NEVER,
        *,
        is_shielded: bool = False,
        when_sent: Callable[[], object] | None = None,
    ) -> Call:
        """Return a write (`code` is an op) or a request (a method) once it is answered.

        Another node is asked too after `patience` seconds without an answer, or after a share of the timeout if that is
        less. Raises the `ApiError` that is the answer, or `OutcomeUnknown`, `DeadlineExceeded`, `ConnectionFailed`,
        `ClientClosed`. If it is cancelled, a write may still happen; if it `is_shielded`, it is answered first, or its
        timeout is over. `when_sent` is called before it waits.
        """
        if timeout is None:
            timeout, timeout_ms, share_s = self.timeout, self._timeout_ms, self._patience_s
        else:
            timeout_ms, share_s = milliseconds(timeout), patience_s(timeout)
        if not is_shielded:
            # Who is cancelled already, as the body of a lost lock is, asks for nothing.
            await checkpoint_if_cancelled()
        core = self.core
        task, now = current_task(), self._clock.current_time()
        if patience > share_s:
            patience = share_s
        call = WaitedCall(
            core.next_id(),
            is_write,
            code,
            arguments,
            timeout_ms,
            now + timeout,
            task,
            driver=self,
            is_shielded=is_shielded,
            timeout=timeout,
            guard=guard,
            patience_s=patience,
            ask_again_at=now + patience,
        )
        line = self._alone
        if line is None or not self._is_sent_alone(call, line):
            core.submit(call)
            self._start((call,))
        if when_sent is not None:
            when_sent()
        await wait_task_rescheduled(call)
        if call.error is not None:
            raise call.error
        return call

    async def call_all(
        self, code: int, arguments: Sequence[Sequence[Any]], timeout: float | None, guard: Guard | None = None
    ) -> list[Call]:
        """Return writes of one kind once all have ended, each with its reply or its `error`.

        They share frames, and the task that waits for all of them. Raises `ClientClosed`. If it is cancelled, each may
        still happen.
        """
        timeout = self.timeout if timeout is None else timeout
        timeout_ms, share_s = milliseconds(timeout), patience_s(timeout)
        await checkpoint_if_cancelled()
        core, now = self.core, trio.current_time()
        gathering = Gathering(current_task(), len(arguments))
        calls = [
            Call(
                core.next_id(),
                True,
                code,
                one,
                timeout_ms,
                now + timeout,
                gathering,
                timeout=timeout,
                guard=guard,
                patience_s=share_s,
                ask_again_at=now + share_s,
            )
            for one in arguments
        ]
        for call in calls:
            core.submit(call)
        if calls:
            self._start(calls)

            def abort(_: object) -> Abort:
                for call in calls:
                    core.abandon(call)
                self._wake_pump()
                return Abort.SUCCEEDED

            await wait_task_rescheduled(abort)
        else:
            await trio.lowlevel.checkpoint()
        return calls

    async def call_progress(self, subscription: Subscription, timeout: float | None) -> Call:
        """Ask how far the watches of the connection that carries `subscription` have come."""
        timeout = self.timeout if timeout is None else timeout
        await checkpoint_if_cancelled()
        task, deadline = current_task(), trio.current_time() + timeout
        number, timeout_ms = self.core.next_id(), milliseconds(timeout)
        call = WaitedCall(
            number, False, _PROGRESS, (), timeout_ms, deadline, task, subscription, timeout=timeout, driver=self
        )
        self.core.submit_progress(call, subscription)
        self._start((call,))
        await wait_task_rescheduled(call)
        if call.error is not None:
            raise call.error
        return call

    def _start(self, calls: Sequence[Call]) -> None:
        """Have calls that were submitted sent; the caller is then to wait until they have ended."""
        if self.is_closed or self._forks != forks.count():
            for call in calls:
                call.close()
            if self.is_closed:
                raise ClientClosed("the client is closed")
            raise ClientClosed("the client belongs to the process that this one was forked from: connect anew")
        if self.core.next_due < self._timer_due:
            self._arm()
        self._wake_pump()

    def _is_sent_alone(self, call: Call, line: Line) -> bool:
        """Send a call now, and not once the pump had its turn: nobody else is about to call.

        One caller was just answered and nothing else is open, so that no other call could share the frame. The way
        through the outbox and the step of a task that this saves are a fifth of what a lone call costs its client.
        """
        self._alone = None
        if line.link.buffered_bytes or self._forks != forks.count():
            return False
        frame = self.core.frame_of(call, line.connection)
        if frame is None:
            return False
        line.link.send(frame)
        if self.core.next_due < self._timer_due:
            self._arm()
        return True

    async def subscribe(self, subscription: Subscription, timeout: float | None) -> None:
        """Have a watch created, and wait until a node has confirmed it."""
        timeout = self.timeout if timeout is None else timeout
        if self.is_closed:
            raise ClientClosed("the client is closed")
        self.core.watches.subscribe(subscription)
        self._wake_pump()
        try:
            with trio.move_on_after(timeout):
                while not subscription.is_created and subscription.error is None:
                    await self.wait_news(subscription)
            # What ends a watch that was created is told by its iteration, be it as near behind as a compacted start.
            if not subscription.is_created:
                raise subscription.error or self._late(subscription, timeout)
        except BaseException:
            self.unsubscribe(subscription)
            raise

    def _late(self, subscription: Subscription, timeout: float) -> CoordError:
        if self.core.active is None:
            return unreachable(timeout, self.core.rotation)
        refusal: ApiError | None = subscription.call.refusal if subscription.call else None
        return timed_out(timeout, False, refusal)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a watch, here and on its node."""
        self.core.watches.unsubscribe(subscription)
        self._wake_pump()

    def resume(self, subscription: Subscription) -> None:
        """Go on with a watch that was paused because its consumer was slow."""
        if self.is_closed:
            raise ClientClosed("the client is closed")
        self.core.watches.resume(subscription)
        self._wake_pump()

    async def wait_news(self, subscription: Subscription) -> None:
        """Wait until something happened to a watch."""
        subscription.waiter = current_task()

        def abort(_: object) -> Abort:
            subscription.waiter = None
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def close(self) -> None:
        """End all calls and watches, and say goodbye to the nodes."""
        self.is_closed = True
        self.core.close(ClientClosed("the client was closed"))
        self.settle()
        self._alone = None
        for line in self._lines.values():
            line.link.close()

    # -- for the keeper of the connections

    def opened(self, connection: Connection, link: Link) -> Line:
        """Take a connection past its hello; it needs a task that runs `read`."""
        line = self._lines[connection] = Line(connection, link)
        self.core.opened(connection)
        return line

    @property
    def seeks_leader(self) -> bool:
        """True if no connection is the leader's, and one to it would find its place."""
        standby = self.standby
        if any(map(self._leads, self._lines)):
            return False
        return standby is None or _is_idle(standby)

    def place(self, connection: Connection) -> bool:
        """Use a new connection where one is missing; return False if none is."""
        active = self.core.active
        if active is None or active.is_leaving:
            self.core.active = connection
            connection.is_standby = False
        elif self.standby is None or self.standby.is_unfit or self._leads_instead(connection, self.standby):
            if self.standby is not None:
                self._lines[self.standby].link.close()
            self.standby = connection
            connection.is_standby = True
        else:
            return False
        self.settle()
        self.changed.unpark_all()
        self._wake_pump()
        return True

    async def read(self, line: Line, messages: list[bytes]) -> None:
        """Take `messages` and what else a connection brings, until it ends; then let others carry its load."""
        core, connection, link = self.core, line.connection, line.link
        why = "the client was closed"
        try:
            self._take(line, messages)
            why = str(await link.deliver(partial(self._take, line)))
        except ProtocolViolation as error:
            line.violation = error
        finally:
            self._arrivals.take_held(line)
            why = str(line.violation or why)
            del self._lines[connection]
            core.lost(connection, why, trio.current_time())
            if self.standby is connection:
                self.standby = None
            self.settle()
            self.changed.unpark_all()
            link.abort()

    def _take(self, line: Line, messages: list[bytes]) -> None:
        if self._arrivals.take(line, messages, may_hold=self._parked_pump is not None):
            self._wake_pump()
        self.settle()

    # -- the tasks that serve all calls

    async def pump(self) -> None:
        """Send what waits, once per scheduler pass: all calls of one pass share a frame."""
        while True:
            if self._arrivals.holding:
                # Those who were answered and this one were woken together, and have their turns in no order.
                await trio.lowlevel.checkpoint()
            has_waited = False
            for line in tuple(self._lines.values()):
                has_waited |= await self._send_waiting(line)
            self._arrivals.are_callers_due = False
            if self._arrivals.holding:
                self._arrivals.take_all_held()
                # A watch that was given up for its slow consumer has something to send.
                has_waited |= self.core.has_frames
            self.settle(from_pump=True)
            if not has_waited:
                await self._park_pump()

    async def _send_waiting(self, line: Line) -> bool:
        """Send what waits for a connection; tell whether it had to be waited for."""
        frames, link = self.core.take_frames(line.connection), line.link
        is_clear = link.buffered_bytes <= SEND_BUFFER_HIGH_BYTES
        if is_clear and len(frames) > 1 and sum(map(len, frames)) <= TOGETHER_BYTES:
            link.send_many(frames)
            return False
        has_waited = False
        for frame in frames:
            if link.buffered_bytes > SEND_BUFFER_HIGH_BYTES:
                self._arrivals.take_all_held()
                self.settle(from_pump=True)
                await self._wait_drained(link)
                has_waited = True
            link.send(frame)
        return has_waited

    async def time(self) -> None:
        """End calls at their deadlines. One scope for all of them: its deadline is the earliest."""
        while True:
            self._timer_due = self.core.next_due
            with trio.CancelScope(deadline=self._timer_due) as self._timer:
                await trio.sleep_forever()
            self.core.expire(trio.current_time())
            self.settle()

    def settle(self, *, from_pump: bool = False) -> None:
        """Do what the core asks for after it took something in."""
        core = self.core
        if core.wakes:
            wakes, core.wakes = core.wakes, []
            self._alone, active = None, core.active
            if len(wakes) == 1 and active is not None and not active.pending:
                self._alone = self._lines.get(active)
            for waiter in wakes:
                if type(waiter) is Gathering:
                    waiter.left -= 1
                    if waiter.left:
                        continue
                    waiter = waiter.task
                reschedule(waiter, _NOTHING)  # type: ignore[arg-type]  # Trio only unwraps it
        if core.next_due < self._timer_due:
            self._arm()
        if core.rotation.leader_id != self._leader_id:
            self._leader_id = core.rotation.leader_id
            self.changed.unpark_all()
        self._choose(core.active, self.standby)
        if not from_pump and self._parked_pump is not None and core.has_frames:
            self._wake_pump()

    def _choose(self, active: Connection | None, standby: Connection | None) -> None:
        """Let the standby take over if it serves better; what the active one carries is answered there."""
        is_missing = active is None or active.is_leaving
        if standby is not None and (active is None or self._serves_worse(active, standby)):
            self.core.active, self.standby = standby, None if is_missing else active
            standby.is_standby = False
            if active is not None:
                active.is_standby = True
            self._wake_pump()
        if is_missing or (self.standby is not None and self.standby.is_unfit):
            self.changed.unpark_all()

    def _serves_worse(self, active: Connection, standby: Connection) -> bool:
        if active.is_silent > standby.is_silent:
            return True
        if active.is_leaving or (active.refusals >= REFUSALS_BEFORE_MOVING and active.refusals > standby.refusals):
            return True
        leader_id = self.core.rotation.leader_id
        return not standby.refusals and standby.member_id == leader_id != 0 and active.member_id != leader_id

    def _leads_instead(self, connection: Connection, standby: Connection) -> bool:
        return _is_idle(standby) and self._leads(connection) and not self._leads(standby)

    def _leads(self, connection: Connection) -> bool:
        leader_id = self.core.rotation.leader_id
        return connection.member_id == leader_id != 0

    def _arm(self) -> None:
        self._timer_due = min(self.core.next_due, self._timer_due)
        self._timer.deadline = self._timer_due

    def _wake_pump(self) -> None:
        task, self._parked_pump = self._parked_pump, None
        if task is not None:
            reschedule(task)

    async def _park_pump(self) -> None:
        self._parked_pump = current_task()

        def abort(_: object) -> Abort:
            self._parked_pump = None
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    @staticmethod
    async def _wait_drained(link: Link) -> None:
        try:
            await link.wait_drained(SEND_BUFFER_HIGH_BYTES)
        except LinkClosed:
            # Its reader is told too, and takes the calls back.
            await trio.lowlevel.checkpoint()


def _is_idle(connection: Connection) -> bool:
    # A standby that was the active one must still be answered what it carries.
    return not connection.pending and not connection.subscriptions
