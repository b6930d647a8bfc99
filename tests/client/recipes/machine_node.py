"""A fake node that keeps its keys and leases in a real state machine, and recipes driven straight on one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from tests.client.fake_node import FakeNode, is_in
from tests.mvcc.rig import Rig

from coord.client.recipes.steps import Ask, AwaitChange, Reply
from coord.client.responses import Header
from coord.codec import decode, encode
from coord.errors import ApiError
from coord.protocol.bodies import encode_body
from coord.protocol.entries import Frame, WritesHeader, encode_writes
from coord.protocol.ops import Method, Op


class MachineNode(FakeNode):
    """A node whose state is real; its leases end when a test says so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rig = Rig()
        self.renewals: list[list[int]] = []
        """The leases of each keep-alive."""
        self.ttl_s_min = 1

    def guarded(self, guard: Any, op: int, arguments: list[Any] | bytes) -> Any:
        settled = {}
        if op == Op.LEASE_GRANT:
            settled = {0: (1, arguments[1], max(arguments[0], self.ttl_s_min))}
        frame = Frame(0, 0, "", settled, encode_body([[0, op, guard, arguments]]))
        entry = encode_writes(WritesHeader(7, 1, 128), [frame])
        applied = self.rig.apply(entry)
        self.publish(applied)
        _, ok, payload = applied.answers[0]
        if not ok:
            raise ApiError.from_wire(decode(payload[1:]))
        return decode(payload)

    def publish(self, applied: Any) -> None:
        self.revision = self.rig.machine.revision
        for revision, events in applied.events:
            wire = [[kind, decode(record), None] for _, kind, record, _ in events]
            self.history.append((revision, wire))
            for session in list(self.sessions):
                session.notify(revision, wire)

    def expire(self, lease: int) -> None:
        self.publish(self.rig.expire(lease))

    def keys_below(self, prefix: bytes) -> list[bytes]:
        keys = self.rig.keys()
        return [key for key in keys if key.startswith(prefix)]

    def ask(self, method: int, arguments: list[Any]) -> Any:
        machine = self.rig.machine
        if method == Method.RANGE:
            return self.rig.range(*arguments)
        if method == Method.TXN:
            return decode(machine.read_txn(arguments, 128)[0]())
        if method == Method.LEASE_KEEP_ALIVE:
            self.renewals.append(arguments[0])
            return [[lease, machine.lease_ttl(lease)] for lease in arguments[0]]
        return super().ask(method, arguments)

    @property
    def leases_left(self) -> list[int]:
        return [lease for lease, _ in self.rig.machine.leases()]


class Walker:
    """A recipe that is driven by hand on a node, one step at a time."""

    def __init__(self, node: MachineNode, steps: Generator[Any, Any, Any]) -> None:
        self.node = node
        self.steps = steps
        self.step: Any = None
        self.is_done = False
        self.outcome: Any = None
        self.error: Exception | None = None
        self.asked: list[Any] = []
        self._advance(lambda: next(steps))

    def _advance(self, how: Callable[[], Any]) -> None:
        try:
            self.step = how()
        except StopIteration as end:
            self.is_done, self.outcome, self.step = True, end.value, None
        except Exception as error:
            self.is_done, self.error, self.step = True, error, None

    @property
    def is_blocked(self) -> bool:
        """It waits for a change that has not come."""
        step = self.step
        if not isinstance(step, AwaitChange):
            return False
        return not any(
            is_in(event[1][0], step.key, step.range_end) and not (step.only_deletes and event[0] == 0)
            for revision, events in self.node.history
            if revision >= step.since
            for event in events
        )

    def go(self, *, was_sent_once: bool = True) -> None:
        """Take one step; it must not be blocked."""
        step = self.step
        if isinstance(step, AwaitChange):
            assert not self.is_blocked
            self._advance(lambda: self.steps.send(None))
            return
        assert isinstance(step, Ask)
        self.asked.append(step.verb)
        verb, node = step.verb, self.node
        try:
            if verb.is_write:
                result = node.guarded(verb.guard, verb.code, verb.arguments)
            else:
                result = node.ask(verb.code, verb.arguments)
        except ApiError as error:
            failure = error
            self._advance(lambda: self.steps.throw(failure))
        else:
            header = Header(1, 7, node.revision, 1)  # type: ignore[arg-type]
            answer = verb.parse(header, decode(encode(result)))
            self._advance(lambda: self.steps.send(Reply(answer, was_sent_once)))

    def go_on(self, **how: Any) -> None:
        """Take steps until it is blocked or done."""
        while not self.is_done and not self.is_blocked:
            self.go(**how)
