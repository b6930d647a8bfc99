"""How the blocking client makes its calls: one at a time, over one connection, again where that does no harm."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from random import Random
from typing import Any, Final, Generic, TypeVar

from attrs import define, field

from coord.client import forks
from coord.client import responses as r
from coord.client.blocking_link import NodeConnection, error_of
from coord.client.blocking_race import Race
from coord.client.endpoints import ANOTHER_TRY_S, REFUSALS_BEFORE_MOVING, Endpoint, Rotation, refusal_pause_s
from coord.client.failing import (
    Verdict,
    forgotten_in_doubt,
    has_no_leader,
    judge,
    lost_after_sending,
    patience_s,
    timed_out,
    unanswered,
    unreachable,
)
from coord.client.fence import Fence, guard_of
from coord.client.many import in_frames
from coord.client.numbering import Numbering
from coord.client.verbs import Verb
from coord.errors import (
    ApiError,
    ClientClosed,
    ClientExpired,
    ConnectionFailed,
    CoordError,
    OutcomeUnknown,
    ProtocolViolation,
)
from coord.protocol.ops import Op
from coord.transport.link import LinkClosed
from coord.types import Revision

Answer = TypeVar("Answer")
LONGEST_S: Final = 1e6


@define(eq=False)
class _Trial(Generic[Answer]):
    """A call under way: what was tried, and what is known of it."""

    verb: Verb[Answer]
    deadline: float
    timeout: float
    patience_s: float
    """Unanswered for so long, it is sent again through another endpoint; twice as long each further time."""
    may_repeat: bool
    """Sent twice, it does no more than once."""
    check: Callable[[], None] | None = None
    """Called before it is first sent; raises if it must not be sent any more."""
    numbering: Numbering | None = None
    number: int = 0
    sends: int = 0
    doubt: str = ""
    """Of a change, why a sending was not answered: that one may have been done, or may still be."""
    refusal: ApiError | None = None
    silent: set[Endpoint] = field(factory=set)

    def close(self) -> None:
        """Nobody waits for the answer any more, and it is sent no more."""
        if self.numbering is not None:
            self.numbering.close(self.number)
            self.numbering = None

    @property
    def is_in_doubt(self) -> bool:
        """Nothing final is known of it, whatever a later sending is refused for (S19)."""
        return bool(self.doubt)

    def unanswered(self, sends_before: int, why: str) -> None:
        """Note that what was sent since is not answered."""
        if self.verb.is_change and self.sends > sends_before:
            self.doubt = why

    def late(self) -> ApiError:
        """Return the outcome at the deadline."""
        return timed_out(self.timeout, self.is_in_doubt, self.refusal, self.doubt)


@define(eq=False)
class _ManyTrial(_Trial[list[Revision | Exception | None]]):
    """Writes of one kind that share a frame; `arguments` of the verb are those of each."""

    outcomes: list[Revision | Exception | None] = field(factory=list)
    """Of each the revision or the error that is its answer; None for what is to be sent (again)."""
    numbers: list[int] = field(factory=list)
    """Of each; `doubt` is one for all that have no outcome."""

    def close(self) -> None:
        """Nobody waits for the answers any more, and nothing of it is sent any more."""
        if self.numbering is not None:
            for number in filter(None, self.numbers):
                self.numbering.close(number)
            self.numbering = None


@define(eq=False)
class BlockingCalls:
    """The calls of one client, whose threads wait for each other; `timeout` and `connect_timeout` are in seconds."""

    rotation: Rotation
    timeout: float
    connect_timeout: float | None
    """How much of a call's time may go by without a connection; None: all of it."""
    name: str
    _random: Random
    is_numbering: bool = True
    """Its writes are numbered, so that they may be sent again (S18)."""
    revision: int = 0
    """The highest revision seen (S29)."""
    _lock: threading.RLock = field(factory=threading.RLock)
    _connection: NodeConnection | None = None
    _cluster_id: int = 0
    _is_closed: bool = False
    _numbering: Numbering = field(factory=Numbering)
    _forks: int = field(factory=forks.count)

    def close(self) -> None:
        """Close the connection; later calls raise `ClientClosed`."""
        self._is_closed = True
        self._be_of_this_process()
        with self._lock:
            self._drop()

    def abort(self) -> None:
        """Close, and end the call under way: nobody waits for its answer."""
        self._is_closed = True
        self._be_of_this_process()
        if (connection := self._connection) is not None:
            connection.hang_up()
        self.close()

    def sibling(self) -> BlockingCalls:
        """Return calls that neither wait for these nor hold them up; their writes are not numbered."""
        random = Random(self._random.random())
        rotation = Rotation(self.rotation.endpoints, random)
        return BlockingCalls(rotation, self.timeout, self.connect_timeout, self.name, random, is_numbering=False)

    def seconds(self, timeout: float | None) -> float:
        """Return the timeout of a call that gives `timeout`, None for the client's."""
        # The longest that a lock and a socket take is less than infinity.
        return min(self.timeout if timeout is None else timeout, LONGEST_S)

    def call(self, verb: Verb[Answer], timeout: float | None, check: Callable[[], None] | None = None) -> Answer:
        """Return the answer to a verb; `timeout` in seconds, None for the client's.

        `check` is called before it is first sent, and raises if it must not be. Raises the `ApiError` that is the
        answer, or `OutcomeUnknown`, `DeadlineExceeded`, `ConnectionFailed`, `ClientClosed`.
        """
        return self.ask(verb, timeout, check)[0]

    def ask(
        self, verb: Verb[Answer], timeout: float | None, check: Callable[[], None] | None = None
    ) -> tuple[Answer, int]:
        """Return the answer to a verb, and how often it was sent (S20); raises as `call`."""
        timeout = self.seconds(timeout)
        deadline = time.monotonic() + timeout
        may_repeat = not verb.is_change or (verb.is_write and self.is_numbering)
        patience_s = min(verb.patience_s, self._patience_s(timeout, may_repeat))
        return self._ask_alone(_Trial(verb, deadline, timeout, patience_s, may_repeat, check))

    def ask_many(
        self, op: int, arguments: list[list[Any]], timeout: float | None, fence: Fence | None = None
    ) -> list[Revision | Exception]:
        """Return of each of many writes, all of one kind, the revision that it was done at or its error.

        They leave some at a time, in a frame, and those of the next once all of these are answered. Raises
        `ClientClosed`.
        """
        timeout = self.seconds(timeout)
        deadline = time.monotonic() + timeout
        patience_s = self._patience_s(timeout, self.is_numbering)
        guard, check = guard_of(fence), None if fence is None else fence.check
        outcomes: list[Revision | Exception] = []
        for some in in_frames(arguments):
            verb: Verb[Any] = Verb(True, op, some, lambda _, answers: answers, guard=guard)
            trial = _ManyTrial(verb, deadline, timeout, patience_s, self.is_numbering, check)
            trial.outcomes = [None] * len(some)
            try:
                if time.monotonic() >= deadline:
                    raise trial.late()
                self._ask_alone(trial)
            except CoordError as error:
                if isinstance(error, ClientClosed) and not outcomes and not trial.sends:
                    raise
                # Whatever ended the exchange is the outcome of those that had none.
                outcomes += [error if outcome is None else outcome for outcome in trial.outcomes]
            else:
                outcomes += [outcome for outcome in trial.outcomes if outcome is not None]
        return outcomes

    def _patience_s(self, timeout: float, may_repeat: bool) -> float:
        return patience_s(timeout) if may_repeat and len(self.rotation.endpoints) > 1 else math.inf

    def _ask_alone(self, trial: _Trial[Answer]) -> tuple[Answer, int]:
        self._be_of_this_process()
        try:
            if not self._lock.acquire(timeout=max(trial.deadline - time.monotonic(), 0)):
                raise timed_out(trial.timeout, False, None)
            return self._ask(trial)
        finally:
            # Ctrl-C may come between any two steps, also right after the lock was acquired or right before it is
            # released here: a thread lets go of all that it holds, and raises where that is nothing.
            with suppress(RuntimeError):
                while True:
                    self._lock.release()

    def _ask(self, trial: _Trial[Answer]) -> tuple[Answer, int]:
        try:
            header, result = self._try(trial)
            self.revision = max(self.revision, header.revision)
            self._cluster_id = self._cluster_id or header.cluster_id
        except ApiError:
            raise
        except BaseException:
            # An exception between two bytes of a frame, as Ctrl-C raises it, leaves a connection of no use.
            self._drop()
            raise
        finally:
            trial.close()
        return trial.verb.parse(header, result), trial.sends

    def _try(self, trial: _Trial[Any]) -> tuple[r.Header, Any]:
        for attempt in itertools.count(1):
            try:
                connection = self._connected(trial.deadline, trial.timeout, trial.silent)
            except ConnectionFailed as error:
                raise (trial.late() if trial.is_in_doubt else trial.refusal or error) from None
            listen_until = min(trial.deadline, time.monotonic() + trial.patience_s)
            sends_before = trial.sends
            try:
                if isinstance(trial, _ManyTrial):
                    return self._exchange_many(connection, trial, listen_until)
                request_id = self._send(connection, trial, listen_until)
                return connection.wait_reply(request_id, listen_until)
            except TimeoutError:
                trial.unanswered(sends_before, f"no answer from {connection.endpoint}")
                # Half a frame may have been sent, and what followed would be taken for its other half. Or the node is
                # stuck, since it answers shortly before its client's deadline: the next call had better go elsewhere.
                self._leave(connection, f"no answer within {min(trial.patience_s, trial.timeout):g} s")
                if listen_until >= trial.deadline:
                    raise trial.late() from None
                # S30: asked again as a request of its own, elsewhere; who is slow rather than gone gets more time.
                trial.silent.add(connection.endpoint)
                trial.patience_s *= 2
                continue
            except (LinkClosed, ProtocolViolation, OSError) as error:
                self._leave(connection, str(error))
                trial.unanswered(sends_before, unanswered(connection.endpoint, error))
                if trial.is_in_doubt and not trial.may_repeat:
                    raise lost_after_sending(connection.endpoint, error) from error
            except ApiError as error:
                self._answered(trial, error, connection, attempt)
            self._pause(trial, attempt)
        raise AssertionError("unreachable")

    def _send(self, connection: NodeConnection, trial: _Trial[Any], listen_until: float) -> int:
        verb = trial.verb
        if verb.is_write and self.is_numbering and trial.numbering is None:
            if not self._numbering.client_id:
                self._register(connection, trial.deadline, listen_until)
            trial.numbering, trial.number = self._numbering, self._numbering.issue()
        if trial.check is not None and not trial.sends:
            # S24: with nothing to wait for between this and the sending.
            trial.check()
        left_s = max(trial.deadline - time.monotonic(), 0.001)
        trial.sends += 1
        if not verb.is_write:
            return connection.send_request(verb.code, left_s, verb.arguments)
        client_id = trial.numbering.client_id if trial.numbering is not None else 0
        return connection.send_write(verb.code, left_s, verb.arguments, verb.guard, trial.number, client_id)

    def _exchange_many(
        self, connection: NodeConnection, trial: _ManyTrial, listen_until: float
    ) -> tuple[r.Header, Any]:
        """Send what has no outcome yet, and note the answers. Raises an error after which some are to be sent again."""
        if self.is_numbering and trial.numbering is None:
            if not self._numbering.client_id:
                self._register(connection, trial.deadline, listen_until)
            trial.numbering = self._numbering
            trial.numbers = [self._numbering.issue() if one is None else 0 for one in trial.outcomes]
        if trial.check is not None and not trial.sends:
            # S24: with nothing to wait for between this and the sending.
            trial.check()
        verb, numbering = trial.verb, trial.numbering
        places = [place for place, outcome in enumerate(trial.outcomes) if outcome is None]
        numbers = trial.numbers or [0] * len(trial.outcomes)
        writes = [(numbers[place], verb.code, verb.guard, verb.arguments[place]) for place in places]
        client_id, low = (numbering.client_id, numbering.low) if numbering is not None else (0, 0)
        left_s = max(trial.deadline - time.monotonic(), 0.001)
        trial.sends += 1
        ids = connection.send_writes(left_s, writes, client_id, low)
        place_of = dict(zip(ids, places, strict=True))
        again: ApiError | None = None
        for header, reply in connection.wait_replies(set(ids), listen_until):
            place = place_of[reply[0]]
            if (error := error_of(reply)) is None:
                trial.outcomes[place] = Revision(header.revision)
            elif judge(error, is_recognized=trial.may_repeat, is_in_doubt=trial.is_in_doubt) is Verdict.FINAL:
                trial.outcomes[place] = error
            else:
                if isinstance(error, OutcomeUnknown):
                    trial.doubt = error.text
                again = error if again is None or isinstance(error, ClientExpired) else again
        if again is not None:
            raise again
        return header, trial.outcomes

    def _register(self, connection: NodeConnection, deadline: float, listen_until: float) -> None:
        left_s = max(deadline - time.monotonic(), 0.001)
        request_id = connection.send_write(Op.REGISTER, left_s, [], None, 0, 0)
        _, client_id = connection.wait_reply(request_id, listen_until)
        self._numbering = Numbering(client_id)

    def _answered(self, trial: _Trial[Any], error: ApiError, connection: NodeConnection, attempt: int) -> None:
        """Raise what is final of an error; else see that another try may do better."""
        is_recognized = trial.verb.is_write and trial.may_repeat
        verdict = judge(error, is_recognized=is_recognized, is_in_doubt=trial.is_in_doubt)
        if verdict is Verdict.FINAL:
            raise error
        if verdict is Verdict.FORGOTTEN:
            self._numbering, trial.numbering, trial.number = Numbering(), None, 0
            if trial.is_in_doubt:
                raise forgotten_in_doubt() from error
            return
        if not isinstance(error, OutcomeUnknown):
            trial.refusal = error
        elif trial.numbering is not None:
            # What registers the client answers so too, before the write itself is sent.
            trial.doubt = error.text
        is_enough = attempt >= REFUSALS_BEFORE_MOVING or has_no_leader(error)
        if is_enough and len(self.rotation.endpoints) > 1:
            self._leave(connection, str(error))

    def _pause(self, trial: _Trial[Any], attempt: int) -> None:
        pause_s = refusal_pause_s(attempt, self._random)
        needed_s = pause_s + (ANOTHER_TRY_S if trial.refusal is not None else 0.0)
        if time.monotonic() + needed_s >= trial.deadline:
            raise trial.late()
        time.sleep(pause_s)

    def _leave(self, connection: NodeConnection, why: str) -> None:
        self._drop()
        self.rotation.failed(connection.endpoint, why)

    def _be_of_this_process(self) -> None:
        """Begin anew in a process that was forked off: connection, client id and lock are its parent's (S21)."""
        if self._forks == forks.count():
            return
        self._forks = forks.count()
        self._lock = threading.RLock()
        self._numbering = Numbering()
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None

    def _connected(self, deadline: float, timeout: float, avoid: Collection[Endpoint]) -> NodeConnection:
        if self._is_closed:
            raise ClientClosed("the client is closed")
        if self._connection is not None and not self._may_use(self._connection):
            self._drop()
        if self._connection is None:
            self._connection = self.open(deadline, timeout, avoid)
        return self._connection

    def _may_use(self, connection: NodeConnection) -> bool:
        # Its node may have had no cluster when it said hello, while another connection's had.
        return connection.is_open() and (not self._cluster_id or connection.cluster_id == self._cluster_id)

    def open(self, deadline: float, timeout: float, avoid: Collection[Endpoint] = ()) -> NodeConnection:
        """Connect to the next endpoint that answers, none of `avoid` if there is another.

        Raises `ConnectionFailed` at the deadline.
        """
        rotation = self.rotation
        reach_until, reach_s = deadline, timeout
        if self.connect_timeout is not None:
            reach_s = min(timeout, self.connect_timeout)
            reach_until = min(deadline, time.monotonic() + reach_s)

        def until() -> float:
            if self._is_closed:
                return 0.0
            # A node that turns clients away was reached, and may have its cluster in a moment.
            return deadline if rotation.why_turned_away else reach_until

        connection = Race(rotation, self.name, self._cluster_id, until, avoid).run()
        if connection is None:
            raise unreachable(reach_s, rotation)
        self._cluster_id = connection.cluster_id
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
