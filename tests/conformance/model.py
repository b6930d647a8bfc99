"""The naive model as a server of scenarios, so that the oracle of coord's own tests is held to etcd's rules too."""

from __future__ import annotations

from typing import Any

from coord.errors import Code
from coord.protocol.ops import Op
from coord.testing.model import Model

from . import wire
from .machine import LEASE_FLOOR_S
from .vocabulary import KeepAlive, Leases, Range, Refused, Request, TimeToLive, Txn


class ModelDriver:
    """Runs requests of the vocabulary on the model."""

    def __init__(self) -> None:
        self._model = Model()

    def revision(self) -> int:
        """Return the model's revision."""
        return self._model.revision

    def call(self, request: Request) -> Any:
        """Return the reply to a bound request, or `Refused`."""
        model = self._model
        match request:
            case TimeToLive(lease, keys):
                granted = model.leases.get(lease, 0)
                result = [lease, granted or -1, granted, model.attached(lease) if keys else []]
                return wire.reply_of(request, model.revision, result)
            case KeepAlive(lease):
                return wire.reply_of(request, model.revision, [[lease, model.leases.get(lease, 0)]])
            case Leases():
                return wire.reply_of(request, model.revision, list(model.leases))
            case Range():
                answer = model.read(wire.arguments_of(request))
            case Txn():
                answer = model.write(Op.TXN, None, wire.arguments_of(request))
            case _:
                answer = self._write(request)
        if not answer.ok:
            return Refused(Code(answer.result[0]), answer.result[1])
        return wire.reply_of(request, answer.revision, answer.result)

    def end_row(self) -> None:
        """Nothing is opened on the side."""

    def _write(self, request: Request) -> Any:
        write = wire.write_of(request)
        assert write is not None
        op, arguments = write
        if op is Op.LEASE_GRANT:
            arguments = [max(arguments[0], LEASE_FLOOR_S), arguments[1] or 10**12 + len(self._model.leases)]
        return self._model.write(int(op), None, arguments)
