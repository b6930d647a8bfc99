"""Random histories: the state machine against the naive model, with restarts, retries and compaction in between."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coord.codec import decode
from coord.errors import ApiError
from coord.testing import operations as ops
from coord.testing.model import Answer, Model

from .rig import ALL, COMPACT, GRANT, PUT, TXN, Rig


class Comparison(RuleBasedStateMachine):
    """Each rule does one thing to both and compares what they answer."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(max_clients=2)
        self.model = Model()
        self.model.max_clients = 2
        self.clients: list[int] = []
        self.sent: list[tuple[int, int, list[Any]]] = []
        for lease in ops.LEASES[:2]:
            self.write([[0, GRANT, None, [60, lease]]])

    @rule(body=st.lists(ops.writes(), min_size=1, max_size=3))
    def write(self, body: list[list[Any]]) -> None:
        assert self.rig.entry(*body) == self.model.frame(0, 0, body)

    @rule(arguments=ops.txns())
    def transact(self, arguments: list[Any]) -> None:
        self.write([[0, TXN, None, arguments]])

    @rule(key=ops.keys, lease=st.sampled_from(ops.LEASES))
    def attach(self, key: bytes, lease: int) -> None:
        self.write([[0, PUT, None, [key, b"", lease]]])

    @rule(back=st.integers(0, 6))
    def compact(self, back: int) -> None:
        self.write([[0, COMPACT, None, [self.model.revision - back]]])

    @rule(op=ops.writes(), number=st.integers(1, 6), lag=st.integers(0, 4), which=st.integers(0, 3))
    @precondition(lambda self: self.clients)
    def numbered(self, op: list[Any], number: int, lag: int, which: int) -> None:
        client = self.clients[which % len(self.clients)]
        write = [number, *op[1:]]
        self.send(client, max(number - lag, 1), write)

    @rule(which=st.integers(0, 50))
    @precondition(lambda self: self.sent)
    def retry(self, which: int) -> None:
        self.send(*self.sent[which % len(self.sent)])

    def send(self, client: int, low: int, write: list[Any]) -> None:
        self.sent.append((client, low, write))
        answers = self.rig.entry(write, client=client, low=low)
        assert answers == self.model.frame(client, low, [write])

    @rule()
    def register(self) -> None:
        client = self.rig.register()
        assert self.model.register(client).result == client
        self.clients.append(client)

    @rule(arguments=ops.ranges())
    def read(self, arguments: list[Any]) -> None:
        try:
            result = Answer(self.rig.machine.revision, True, self.rig.range(*arguments))
        except ApiError as error:
            result = Answer(self.rig.machine.revision, False, (str(error.code), error.text))
        assert result == self.model.read(arguments)

    @rule(lease=st.sampled_from(ops.LEASES), in_term=st.booleans())
    def expire(self, lease: int, in_term: bool) -> None:
        self.rig.expire(lease, term=self.rig.term if in_term else self.rig.term + 1)
        if in_term:
            self.model.expire([lease])

    @rule(lease=st.sampled_from(ops.LEASES), remaining_ms=st.sampled_from((0, 1, 700)), in_term=st.booleans())
    def checkpoint(self, lease: int, remaining_ms: int, in_term: bool) -> None:
        self.rig.checkpoint([lease, remaining_ms], term=self.rig.term if in_term else self.rig.term + 1)
        if in_term:
            self.model.checkpoint([[lease, remaining_ms]])

    @rule()
    def remove_dead(self) -> None:
        before = self.rig.hash()
        self.rig.compact_physically()
        assert self.rig.hash() == before

    @rule()
    def restart(self) -> None:
        self.rig.reload()

    @invariant()
    def same_state(self) -> None:
        machine, model = self.rig.machine, self.model
        assert machine.revision == model.revision
        assert machine.compact_revision == model.compact_revision
        assert self.rig.range(*ALL)[0] == [model.now[key] for key in sorted(model.now)]
        assert dict(machine.leases()) == model.leases
        for lease in model.leases:
            assert machine.lease_keys(lease) == model.attached(lease)
            assert machine.lease_remaining_ms(lease) == model.checkpoints.get(lease, 0)

    def teardown(self) -> None:
        check_history(self.rig, self.model)


def check_history(rig: Rig, model: Model) -> None:
    """All events and all states from the compacted revision on are the model's."""
    first = max(model.compact_revision, 1)
    for revision in range(first, model.revision + 1):
        assert rig.range(*ALL, 0, revision)[0] == [model.past[revision][key] for key in sorted(model.past[revision])]
    seen = {
        revision: [
            [kind, decode(record), None if previous is None else decode(rig.backend.read(*previous))]
            for _, kind, record, previous in events
        ]
        for revision, events in rig.machine.history(first + 1, model.revision)
    }
    assert seen == {revision: events for revision, events in model.events.items() if revision > first}


TestComparison = Comparison.TestCase
TestComparison.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
