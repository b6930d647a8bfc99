"""What clients saw of a cluster: every call with its times and outcome, and every watch with all it was told.

A history knows nothing of nodes. Recorded in a simulation or from real processes, it is what the checkers judge.
Times are of one clock; `order` counts calls and returns, and so tells which of two came first when the clock does
not.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from attrs import define, field

from coord.errors import ApiError, OutcomeUnknown


class Kind(Enum):
    """What an operation is, and so what `Operation.request` holds."""

    WRITE = "write"
    """`[number, op, guard, arguments]`."""
    READ = "read"
    """Arguments of a linearizable range."""
    LOCAL_READ = "local read"
    """Arguments of a serializable range."""
    RENEWAL = "renewal"
    """A list of lease ids."""


class Outcome(Enum):
    """What the client knows of an operation."""

    UNKNOWN = "unknown"
    """No answer, or one that says so: it may have happened, and may still."""
    DONE = "done"
    REFUSED = "refused"
    """An error that says that nothing was done."""


@define(eq=False)
class Operation:
    """One call of a client, from its first send to its answer."""

    client: str
    kind: Kind
    request: list[Any]
    session: int
    """The registered client's id under which a write was sent, else 0."""
    called_at: float
    called_order: int
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    result: Any = None
    error: tuple[str, str] = ("", "")
    """Code and text."""
    returned_at: float = float("inf")
    returned_order: float = float("inf")

    @property
    def is_done(self) -> bool:
        """True if it certainly happened."""
        return self.outcome is Outcome.DONE

    def precedes(self, other: Operation) -> bool:
        """Tell whether this one was answered before the other was called."""
        return self.returned_order < other.called_order

    def __str__(self) -> str:
        ended = "…" if self.returned_at == float("inf") else f"{self.returned_at:.3f}"
        what = self.error if self.outcome is Outcome.REFUSED else self.result
        told = f"{self.outcome.value} revision {self.revision} {what!r:.120}"
        return f"{self.client} {self.kind.value} {self.request!r:.160} [{self.called_at:.3f}, {ended}] {told}"


@define
class WatchEvents:
    """The events of one revision, or a fragment of them."""

    revision: int
    events: list[Any]
    """`[type, key-value, previous]`, as in coord.cddl."""
    is_fragment: bool = False
    """More of this revision follows."""


@define
class WatchProgress:
    """Everything up to `revision` was sent."""

    revision: int


@define
class WatchEnd:
    """The node ended the watch; `compact_revision` is above 0 if what it wanted is gone."""

    compact_revision: int
    reason: str


@define(eq=False)
class WatchRecord:
    """One watch on one connection; a client that resumes elsewhere makes another record."""

    client: str
    key: bytes
    range_end: bytes
    asked: int
    """The start revision asked for, 0 for "from now on"."""
    called_order: int
    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    start: int = 0
    """The start revision that the node answered; 0 if it never did."""
    created_order: float = float("inf")
    told: list[WatchEvents | WatchProgress | WatchEnd] = field(factory=list)

    @property
    def has_ended(self) -> bool:
        """True if the node ended it."""
        return any(isinstance(item, WatchEnd) for item in self.told)

    @property
    def next_revision(self) -> int:
        """From where a client resumes: behind the last whole revision (S30)."""
        following = self.start or self.asked
        for item in self.told:
            if (isinstance(item, WatchEvents) and not item.is_fragment) or isinstance(item, WatchProgress):
                following = max(following, item.revision + 1)
        return following


@define
class History:
    """All that clients saw, in the order of their calls."""

    operations: list[Operation] = field(factory=list)
    watches: list[WatchRecord] = field(factory=list)
    _order: int = 0

    def call(self, client: str, kind: Kind, request: list[Any], now: float, session: int = 0) -> Operation:
        """Note a call, before it is sent."""
        operation = Operation(client, kind, request, session, now, self.tick())
        self.operations.append(operation)
        return operation

    def done(self, operation: Operation, revision: int, result: Any, now: float) -> None:
        """Note an answer."""
        operation.outcome = Outcome.DONE
        operation.revision, operation.result = revision, result
        operation.returned_at, operation.returned_order = now, self.tick()

    def failed(self, operation: Operation, error: ApiError, now: float) -> None:
        """Note an error; one that leaves the outcome open leaves the operation open too."""
        operation.error = (str(error.code), error.text)
        if not isinstance(error, OutcomeUnknown):
            operation.outcome = Outcome.REFUSED
            operation.returned_at, operation.returned_order = now, self.tick()

    def watch(self, record: WatchRecord) -> WatchRecord:
        """Note a watch, before it is asked for."""
        self.watches.append(record)
        return record

    def tick(self) -> int:
        """Return the next place in the order of calls and returns."""
        self._order += 1
        return self._order

    def count(self, kind: Kind, outcome: Outcome) -> int:
        """Return how many operations of a kind ended so."""
        return sum(1 for operation in self.operations if operation.kind is kind and operation.outcome is outcome)
