"""Space: the leader raises and clears NOSPACE alarms by entries, from the sizes that the members report (S16).

Each member measures its own disk and compares with its own quota. What it finds is a report, which goes to the leader;
an alarm names the member whose space it is about, as in etcd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, evolve, field

from coord.codec import encode
from coord.limits import QUOTA_CLEAR_RATIO, SPACE_REPORT_INTERVAL_S
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.protocol.entries import encode_entry
from coord.protocol.messages import SpaceReport
from coord.protocol.ops import AlarmAction, EntryKind
from coord.store.port import Space, StorePort
from coord.types import AlarmType

SILENT_S = 3 * SPACE_REPORT_INTERVAL_S
"""Who has reported nothing for so long is away: its last report says nothing any more."""


@define
class SpaceWatch:
    """Compares the store's size with the quota. `quota_bytes` of 0 or less means the map is the only bound.

    `clock` is in seconds; `send` takes messages for other members, which may be lost.
    """

    machine: StateMachine
    store: StorePort
    quota_bytes: int
    member_id: int
    log: Log
    clock: Callable[[], float]
    propose: Callable[[bytes], bool]
    is_leader: Callable[[], bool]
    leader_id: Callable[[], int]
    send: Callable[[Sequence[SpaceReport]], None]
    is_disk_full: Callable[[], bool]
    size_bytes: int = 0
    in_use_bytes: int = 0
    _pending: set[tuple[AlarmAction, int]] = field(factory=set)
    """What is proposed for which member, until an alarm entry is applied."""
    _reports: dict[int, tuple[float, SpaceReport]] = field(factory=dict)
    """A leader's: the newest report of each of the others, and when it came."""
    _led_since: float = 0.0
    _told: tuple[int, bool, bool] = (0, False, False)
    """A follower's: whom it reported to last, and what that made of it."""
    _report_at: float = 0.0
    _has_refused: bool = False

    def has_space(self, growth_bytes: int) -> bool:
        """Tell whether a write may grow the store by `growth_bytes`: disk and quota have room, and no alarm is on."""
        # S16: at once, not at the next look, so that what is applied until the alarm is on stays within the reserve.
        if self.is_disk_full():
            return False
        # What apply would refuse must not take room in the log: on a full disk the deletes will need it.
        if self.machine.alarms and self.is_raised():
            return False
        if self.quota_bytes <= 0:
            return True
        return self.in_use_bytes + self.store.overlay_bytes + growth_bytes <= self.quota_bytes

    def refused(self) -> None:
        """Learn that a write was refused for lack of space: the alarm is raised for all members."""
        if self.is_raised():
            return
        self._has_refused = True
        if self.is_leader():
            self._act(AlarmAction.ACTIVATE, self._own_report(self.measure()))

    def check(self) -> None:
        """Read the sizes; raise and clear alarms, or report to the leader. Call it about once a second."""
        report = self._own_report(self.measure())
        self._has_refused = False
        if self.is_leader():
            self._judge_all(report)
        else:
            self._pending.clear()
            self._report(report)

    def take(self, report: SpaceReport) -> None:
        """Learn what another member has found; the next `check` judges it."""
        if self.is_leader():
            self._reports[report.sender] = (self.clock(), report)

    def lead(self) -> None:
        """Begin to judge; what was reported in an earlier leadership is over."""
        self._led_since = self.clock()
        self._reports.clear()
        self._pending.clear()

    def measure(self) -> Space:
        """Read the sizes; at each flush too, since what leaves the overlay must be counted in the store at once."""
        space = self.store.space()
        self.size_bytes, self.in_use_bytes = space.size_bytes, space.in_use_bytes
        return space

    def alarms_changed(self) -> None:
        """Learn that an alarm entry was applied, of this node or of a client: what is so is judged anew."""
        self._pending.clear()

    def is_raised(self) -> bool:
        """Tell whether a NOSPACE alarm is on, of whichever member."""
        return bool(self._raised())

    def _raised(self) -> list[int]:
        return sorted(member for member, kind in self.machine.alarms if kind == AlarmType.NOSPACE)

    def _own_report(self, space: Space) -> SpaceReport:
        is_full = self.is_disk_full() or space.free_disk_bytes <= 0 or self._has_refused
        quota_bytes = self.quota_bytes if self.quota_bytes > 0 else space.limit_bytes
        return SpaceReport(self.member_id, self.leader_id(), space.in_use_bytes, quota_bytes, is_full)

    def _report(self, report: SpaceReport) -> None:
        """Tell the leader what changes its judgement at once, and else now and then: messages may be lost."""
        now = self.clock()
        told = (report.to, _is_over(report), _is_clear(report))
        if report.to and (told != self._told or now >= self._report_at):
            self._told, self._report_at = told, now + SPACE_REPORT_INTERVAL_S
            self.send((report,))

    def _judge_all(self, own: SpaceReport) -> None:
        now = self.clock()
        members = self.machine.members
        self._reports = {
            member: (came_at, report)
            for member, (came_at, report) in self._reports.items()
            if member in members and now - came_at < SILENT_S
        }
        reports = {self.member_id: own, **{member: report for member, (_, report) in self._reports.items()}}
        raised = self._raised()
        for member, report in reports.items():
            if member not in raised and _is_over(report):
                self._act(AlarmAction.ACTIVATE, report)
        is_settled = now - self._led_since >= SILENT_S
        for member in raised:
            found = reports.get(member)
            if found is None and (is_settled or member not in members):
                # Else the alarm of one that is gone would stay for ever. If it comes back it reports again.
                found = evolve(own, sender=member)
            if found is not None and _is_clear(found):
                self._act(AlarmAction.DEACTIVATE, found)

    def _act(self, action: AlarmAction, report: SpaceReport) -> None:
        member = report.sender
        if (action, member) in self._pending:
            return
        body = encode([int(action), member, int(AlarmType.NOSPACE)])
        if self.propose(encode_entry(EntryKind.ALARM, None, body)):
            self._pending.add((action, member))
            event = "alarm.state.raised" if action is AlarmAction.ACTIVATE else "alarm.state.cleared"
            reason = f"{report.in_use_bytes} bytes in use, the quota is {report.quota_bytes}"
            if report.is_full:
                reason += ", and there is no room for more"
            self.log(event, alarm="NOSPACE", member=member, reason=reason)


def _is_over(report: SpaceReport) -> bool:
    return report.is_full or report.in_use_bytes >= report.quota_bytes


def _is_clear(report: SpaceReport) -> bool:
    # Between the two an alarm stays as it is, or one write would switch it on and off.
    return not report.is_full and report.in_use_bytes < report.quota_bytes * QUOTA_CLEAR_RATIO
