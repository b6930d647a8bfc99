"""The small replicated state beside the keys: who the cluster is, its alarms, how far it is compacted."""

from __future__ import annotations

from struct import Struct
from typing import Final

from attrs import define, field

from coord.codec import decode_trusted, encode
from coord.mvcc.backend import Backend, Table
from coord.protocol.entries import Member, Roster
from coord.protocol.ops import AlarmAction
from coord.types import NEVER_COMPACTED, AlarmType

Alarm = tuple[int, int]
"""`(member, alarm)`, as in `AlarmType`."""

ID_KEY: Final = Struct(">Q")
"""Row keys that are an id: big-endian, so that rows order as ids do."""
_ALARM_KEY: Final = Struct(">QB")
_IDS_KEY: Final = ID_KEY.pack(0)
"""Beside the members, since no member has id 0: the ids that are outgoing, and those that are removed."""


@define
class ClusterState:
    """Everything of it but the alarms and members is written with the meta rows, at a flush."""

    cluster_id: int = 0
    version: int = 1
    compact_revision: int = NEVER_COMPACTED
    members: dict[int, Member] = field(factory=dict)
    outgoing: frozenset[int] = frozenset()
    removed: frozenset[int] = frozenset()
    alarms: set[Alarm] = field(factory=set)
    no_space: bool = False
    """The NOSPACE alarm of any member is on: nothing that grows the store is applied (S16)."""
    corrupt: bool = False
    """The CORRUPT alarm of any member is on: nothing is applied but alarms."""

    def floor(self) -> int:
        """Return the compacted revision of this moment."""
        return self.compact_revision

    def set_roster(self, roster: Roster, backend: Backend) -> None:
        """Replace all of it."""
        for gone in sorted(self.members.keys() - {member.id for member in roster.members}):
            backend.put_row(Table.MEMBERS, ID_KEY.pack(gone), None)
        self.members = {member.id: member for member in roster.members}
        self.outgoing, self.removed = roster.outgoing, roster.removed
        for member in roster.members:
            backend.put_row(Table.MEMBERS, ID_KEY.pack(member.id), encode(member.to_wire()))
        _, *ids = roster.to_wire()
        backend.put_row(Table.MEMBERS, _IDS_KEY, encode(ids))

    def change_alarm(self, backend: Backend, action: int, member: int, alarm: int) -> list[Alarm]:
        """Raise or clear alarms and return those that changed; member 0 and alarm NONE stand for all."""
        if action == AlarmAction.ACTIVATE:
            if (member, alarm) in self.alarms:
                return [(member, alarm)]
            changed = [(member, alarm)]
            self.alarms.add((member, alarm))
            backend.put_row(Table.ALARMS, _ALARM_KEY.pack(member, alarm), b"")
        else:
            changed = [
                raised
                for raised in sorted(self.alarms)
                if member in (0, raised[0]) and alarm in (AlarmType.NONE, raised[1])
            ]
            for cleared in changed:
                self.alarms.discard(cleared)
                backend.put_row(Table.ALARMS, _ALARM_KEY.pack(*cleared), None)
        self._judge_alarms()
        return changed

    def load(self, backend: Backend) -> None:
        """Take the stored members and alarms."""
        for key, row in backend.rows(Table.MEMBERS):
            if key == _IDS_KEY:
                self.outgoing, self.removed = (frozenset(ids) for ids in decode_trusted(row))
            else:
                self.members[ID_KEY.unpack(key)[0]] = Member.from_wire(decode_trusted(row))
        self.alarms = {_ALARM_KEY.unpack(key) for key, _ in backend.rows(Table.ALARMS)}
        self._judge_alarms()

    def _judge_alarms(self) -> None:
        kinds = {alarm for _, alarm in self.alarms}
        self.no_space = AlarmType.NOSPACE in kinds
        self.corrupt = AlarmType.CORRUPT in kinds
