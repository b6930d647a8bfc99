"""Space: the leader raises and clears the NOSPACE alarm by entries, from the size of the pages in use (S16)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from coord.codec import encode
from coord.limits import QUOTA_CLEAR_RATIO
from coord.mvcc.machine import StateMachine
from coord.node.consensus import Log
from coord.protocol.entries import encode_entry
from coord.protocol.ops import AlarmAction, EntryKind
from coord.store.port import Space, StorePort
from coord.types import AlarmType

_ALL_MEMBERS = 0


@define
class SpaceWatch:
    """Compares the store's size with the quota. `quota_bytes` of 0 or less means the map is the only bound."""

    machine: StateMachine
    store: StorePort
    quota_bytes: int
    member_id: int
    log: Log
    propose: Callable[[bytes], bool]
    is_leader: Callable[[], bool]
    is_disk_full: Callable[[], bool]
    size_bytes: int = 0
    in_use_bytes: int = 0
    _pending: AlarmAction | None = None

    def has_space(self, growth_bytes: int) -> bool:
        """Tell whether a write may grow the store by `growth_bytes`: disk and quota have room, and no alarm is on."""
        # S16: at once, not at the next look, so that what is applied until the alarm is on stays within the reserve.
        if self.is_disk_full():
            return False
        # What apply would refuse must not take room in the log: on a full disk the deletes will need it.
        if self.is_raised():
            return False
        if self.quota_bytes <= 0:
            return True
        return self.in_use_bytes + self.store.overlay_bytes + growth_bytes <= self.quota_bytes

    def refused(self) -> None:
        """Learn that a write was refused for lack of space: the alarm is raised for all members."""
        if not self.is_raised():
            self._act(AlarmAction.ACTIVATE)

    def check(self) -> None:
        """Read the sizes and raise or clear the alarm; call it about once a second."""
        space = self.measure()
        if not self.is_leader():
            self._pending = None
            return
        is_raised = self.is_raised()
        is_full = self.is_disk_full() or space.free_disk_bytes <= 0
        quota = self.quota_bytes if self.quota_bytes > 0 else space.limit_bytes
        if not is_raised and (is_full or self.in_use_bytes >= quota):
            self._act(AlarmAction.ACTIVATE)
        elif is_raised and not is_full and self.in_use_bytes < quota * QUOTA_CLEAR_RATIO:
            self._act(AlarmAction.DEACTIVATE)

    def measure(self) -> Space:
        """Read the sizes; at each flush too, since what leaves the overlay must be counted in the store at once."""
        space = self.store.space()
        self.size_bytes, self.in_use_bytes = space.size_bytes, space.in_use_bytes
        return space

    def alarms_changed(self) -> None:
        """Learn that an alarm entry was applied, of this node or of a client: what is so is judged anew."""
        self._pending = None

    def is_raised(self) -> bool:
        """Tell whether a NOSPACE alarm is on, of this member or of one that led before."""
        return any(kind == AlarmType.NOSPACE for _, kind in self.machine.alarms)

    def _act(self, action: AlarmAction) -> None:
        if self._pending is action or not self.is_leader():
            return
        # Cleared for all: the alarm of a member that led and no longer does would else stay for ever, since all hold
        # the same and only the leader judges it.
        member = self.member_id if action is AlarmAction.ACTIVATE else _ALL_MEMBERS
        body = encode([int(action), member, int(AlarmType.NOSPACE)])
        if self.propose(encode_entry(EntryKind.ALARM, None, body)):
            self._pending = action
            event = "alarm.state.raised" if action is AlarmAction.ACTIVATE else "alarm.state.cleared"
            reason = f"{self.in_use_bytes} bytes in use, the quota is {self.quota_bytes}"
            self.log(event, alarm="NOSPACE", member=self.member_id, reason=reason)
