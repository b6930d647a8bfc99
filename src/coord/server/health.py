"""Tells systemd that all is well, and only then; notices when the process stood still."""

from __future__ import annotations

import trio
from attrs import define

from coord.node.node import Node
from coord.observe.log import Log
from coord.observe.sdnotify import Notifier

_TICK_S = 0.1
_STATUS_EVERY_TICKS = 10
_DISK_STUCK_S = 5.0


@define
class Watchdog:
    """Feeds systemd's watchdog while the loop turns, the disk answers and the ticks come."""

    node: Node
    notifier: Notifier
    log: Log

    async def run(self) -> None:
        """Run until cancelled."""
        interval_s = self.notifier.watchdog_interval_s
        next_feed = last = trio.current_time()
        ticks = 0
        while True:
            await trio.sleep(_TICK_S)
            now = trio.current_time()
            late_s = now - last - _TICK_S
            last = now
            if late_s > 5 * _TICK_S:
                self.log("loop.wake.delayed", ms=round(late_s * 1000, 1))
            self.log.pump()
            ticks += 1
            if ticks % _STATUS_EVERY_TICKS == 0:
                self.notifier.status(self.status())
            if interval_s is not None and now >= next_feed:
                next_feed = now + interval_s / 2
                self._feed(now)

    def _feed(self, now: float) -> None:
        stuck_s = self.node.log_writer.writing_for_s(now)
        if stuck_s > _DISK_STUCK_S:
            self.log("loop.watchdog.withheld", reason=f"the log has been writing for {stuck_s:.1f} s")
        else:
            self.notifier.watchdog()

    def status(self) -> str:
        """Return one line for `systemctl status`: what this member does, and whom it misses."""
        node = self.node
        role = node.raft.role.name.lower() if node.leader_id else "no leader"
        missing = node.standing.missing()
        misses = f" misses={','.join(missing)}" if missing else ""
        return f"{role} term={node.raft_term} commit={node.raft.log.committed} revision={node.revision}{misses}"
