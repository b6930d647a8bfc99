"""`coord lock`: hold a lock while a command runs, or until Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from coord.cli.command import Command
from coord.cli.failure import CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, duration_value
from coord.cli.guarding import Guarded, check_that_it_is_there
from coord.cli.holding import TTL, Interrupted, interrupted_waiting, interruptible, ttl_of
from coord.cli.output.printer import Printer
from coord.cli.settings import Settings, failing, show
from coord.client.blocking import BlockingClient
from coord.client.recipes.blocking_ownership import BlockingLock
from coord.client.recipes.blocking_session import BlockingSession
from coord.errors import LockLost

_BAD_NUMBER: Final = "lock takes a lock name argument and an optional command to execute"


def _lock(line: Parsed, settings: Settings) -> None:
    if not line.words:
        raise bad_arguments(_BAD_NUMBER, "coord lock <name> [-- command [arguments]]")
    name, *command = line.words
    ttl_s = ttl_of(line)
    wait_s = line.seconds("wait") if "wait" in line.given else None
    printer = settings.printer("get")
    if command:
        check_that_it_is_there(command)
    with interruptible(), settings.client(exactly_once=True) as client:
        is_held = False
        try:
            with client.session(ttl_s) as session, session.lock(os.fsencode(name), wait=wait_s) as lock:
                is_held = True
                if command:
                    _run(command, session, lock)
                else:
                    _hold(client, lock, printer)
        except Interrupted:
            # Once the command runs nothing interrupts: it is told, and its end is awaited.
            if command or not is_held:
                raise interrupted_waiting() from None


def _hold(client: BlockingClient, lock: BlockingLock, printer: Printer) -> None:
    response = client.range_response(lock.key)
    if not response.kvs:
        raise CommandError("lock lost on init")
    show(printer.get(response))
    lock.lost.wait()


def _run(command: Sequence[str], session: BlockingSession, lock: BlockingLock) -> None:
    environ = {**os.environ, "COORD_LOCK_KEY": os.fsdecode(lock.key), "COORD_LOCK_REV": str(lock.fence)}
    guarded = Guarded(command, environ, lock, session.tenure)
    with guarded.passing_on_signals(), guarded:
        ended = guarded.wait()
    if ended.was_terminated:
        with failing(ended.status or 1):
            lock.check()
            raise LockLost(f"{lock.name} was lost")
    if ended.status:
        raise CommandError("", status=ended.status)


lock = Command(
    "lock",
    _lock,
    usage="<name> [-- command [arguments]]",
    text="""
    Hold the lock <name> while a command runs; without one, print the lock's key and hold it until Ctrl-C.

    The command has COORD_LOCK_KEY in its environment, and COORD_LOCK_REV, the fencing token: higher for each holder
    than for those before, for whatever it writes to, to refuse who is late. The exit status is the command's, 128 + n
    if signal n ended it. Its standard input is empty. Signals that 'coord lock' is sent are passed on to it.

    The command runs in a process group of its own. When the lock is lost the group is sent SIGTERM, and SIGKILL before
    anybody else can have the lock; so it is when 'coord lock' is killed, or stopped for longer than its TTL: a guardian
    process sees to that. Children that leave the group (setsid, daemons) are out of its reach. What is left of the
    group when the command ends is terminated too, before the lock is released.
    """,
    examples="""
    coord lock jobs/nightly -- ./nightly.sh      # one host at a time
    coord lock jobs/nightly --wait=0 -- date     # or not at all, if somebody has it
    coord lock deploy                            # until Ctrl-C
    """,
    flags=(
        TTL,
        Flag(
            "wait",
            "How long to wait for the lock; 0 tries once. For ever if not given.",
            "",
            duration_value,
            "DURATION",
        ),
    ),
)
