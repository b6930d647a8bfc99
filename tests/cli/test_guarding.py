"""Starting and ending a command under a lock, whatever signal comes when."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from coord.cli import guarding
from coord.cli.failure import CommandError
from coord.cli.holding import interruptible
from coord.cli.lock import _run
from coord.client.clock import boot_time
from coord.client.recipes.tenure import Tenure
from coord.types import LeaseId

TTL_S = 6


def test_a_signal_while_the_command_is_being_started_leaves_it_no_life_beyond_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(*arguments, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(guarding, "subprocess", SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL))
    tenure = Tenure(boot_time, LeaseId(7))
    tenure.acknowledged(boot_time(), TTL_S)
    lock: Any = SimpleNamespace(key=b"a/7", fence=9, lost=threading.Event())
    session: Any = SimpleNamespace(tenure=tenure)
    with interruptible(), pytest.raises(CommandError) as failure:
        _run(["sleep", "30"], session, lock)
    lock.lost.set()
    # It was passed on, and the lock is released when the command has ended.
    assert failure.value.status == 128 + signal.SIGTERM
    assert started[0].returncode == 0
