"""A witness beside the simulated disks: what members say of their logs must rest on what no power failure can take.

Law 2, I7: an acknowledgement that leaves before its sync is forgotten by a crash after others have counted on it. Only
a crash in that very moment shows it by what is lost; the witness needs none. It looks, at each acknowledgement, each
vote and each commit, at what the disks would give back if all lost power at once, in the worst way, and asks no node
what it believes.

    a vote, an acknowledgement of entries:   leaves a member when its own disk has what it says
    a commit, and so each answer to a write: when the disks of a quorum have the entry
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from attrs import define, field

from coord.errors import DecodeError
from coord.protocol.messages import AppendReply, VoteReply
from coord.protocol.ops import PEER_SUBPROTOCOL
from coord.protocol.peer_protocol import decode_frame
from coord.raft.types import Configuration, HardState
from coord.testing.sim_disk import SimDisk
from coord.transport.link import Link
from coord.wal.record import Batch
from coord.wal.segment import read_segment, segment_number

_WAL: Final = Path("/data/wal")


class Unfounded(AssertionError):
    """A member said what its disk, or the disks of a quorum, would not bear out after a power failure."""


@define(eq=False)
class DurableLog:
    """The log that a disk gives back after the worst power failure; `read_on` brings it up to date."""

    disk: SimDisk
    last_index: int = 0
    hard_state: HardState = field(factory=HardState)
    _terms: dict[int, int] = field(factory=dict)
    _start_index: int = 0
    """What is at or below it is in the store."""
    _segment: int = 0
    _batch: int = 0

    def read_on(self) -> None:
        """Take up what has become durable since the last call."""
        left = self.disk.worst_image()
        if not left.exists(_WAL):
            return
        for name in left.list(_WAL):
            if (number := segment_number(name)) is None or number < self._segment:
                continue
            file = left.open(_WAL / name)
            contents = read_segment(_WAL / name, file.read(0, file.size()))
            header = contents.header
            if number > self._segment:
                self._segment, self.hard_state = number, header.hard_state
                if header.previous_batch != self._batch:
                    # The segments between were released before they were looked at: the store has them (S4).
                    self._start_at(header.last_index)
                    self._batch = header.previous_batch
            for batch in contents.batches[self._batch - header.previous_batch :]:
                self._take(batch)

    def holds(self, index: int, term: int) -> bool:
        """Tell whether it has this entry."""
        return index <= self._start_index or self._terms.get(index) == term

    def _take(self, batch: Batch) -> None:
        self._batch, self.hard_state = batch.number, batch.hard_state
        if batch.snapshot is not None and not batch.snapshot.keeps_log:
            self._start_at(batch.snapshot.index)
        for index, term, _ in batch.entries:
            self._terms[index] = term
        if batch.entries:
            for index in range(batch.entries[-1][0] + 1, self.last_index + 1):
                self._terms.pop(index, None)
            self.last_index = batch.entries[-1][0]

    def _start_at(self, index: int) -> None:
        self.last_index = self._start_index = index
        self._terms.clear()


class Machine(Protocol):
    """What the witness needs of a member's machine."""

    name: str
    is_wiped: bool

    @property
    def disk(self) -> SimDisk:
        """Its disk of now."""

    @property
    def member_id(self) -> int:
        """Who its disk says it is."""


@define(eq=False)
class Witness:
    """See the module's docstring. What it finds is raised where it happens."""

    judged: int = 0
    """Acknowledgements, votes and commits."""
    _logs: dict[SimDisk, DurableLog] = field(factory=dict)

    def sent(self, machine: Machine, link: Link, frame: bytes) -> None:
        """Judge what leaves a member. Raises `Unfounded`."""
        if link.subprotocol != PEER_SUBPROTOCOL:
            return
        try:
            messages = decode_frame(frame)
        except DecodeError:
            # A hello, or a piece of a snapshot.
            return
        for message in messages:
            if isinstance(message, AppendReply) and not message.is_rejected:
                log = self._log(machine)
                if message.index > log.last_index or message.term > log.hard_state.term:
                    raise Unfounded(
                        f"{machine.name} acknowledges all up to {message.index} in term {message.term}: "
                        f"its disk has {log.last_index} in term {log.hard_state.term}"
                    )
            elif isinstance(message, VoteReply) and not message.is_pre and not message.refusal:
                state = self._log(machine).hard_state
                if (state.term, state.vote) != (message.term, message.to) and state.term <= message.term:
                    raise Unfounded(
                        f"{machine.name} votes for {message.to:x} in term {message.term}: its disk has {state}"
                    )

    def committed(self, machines: Iterable[Machine], configuration: Configuration, index: int, term: int) -> None:
        """Judge an entry when the first member learns that it is committed. Raises `Unfounded`."""
        # Of a disk that was taken away nothing can be asked, and no promise covers it; its word may have been counted.
        gone = configuration.members - {machine.member_id for machine in machines if not machine.is_wiped}
        holders = {
            machine.member_id for machine in machines if not machine.is_wiped and self._log(machine).holds(index, term)
        }
        if not configuration.has_quorum(holders | gone):
            raise Unfounded(
                f"entry {index} of term {term} is committed: of the voters' disks, only those of "
                f"{', '.join(machine.name for machine in machines if machine.member_id in holders) or 'nobody'} have it"
            )

    def _log(self, machine: Machine) -> DurableLog:
        self.judged += 1
        log = self._logs.get(machine.disk)
        if log is None:
            log = self._logs[machine.disk] = DurableLog(machine.disk)
        log.read_on()
        return log
