"""The entry point of `coord`: finds the command, runs it, and tells what went wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

import click

from coord.cli.command import Group
from coord.cli.failure import CommandError

COMPLETE_VARIABLE: Final = "_COORD_COMPLETE"
"""Set by the shell when it asks for completions."""
COMMANDS: Final = {
    "alarm": ("coord.cli.alarm:alarm", "List or disarm alarms."),
    "check": ("coord.cli.check:check", "Check what a cluster can do."),
    "compaction": ("coord.cli.kv:compaction", "Forget the history before a revision."),
    "completion": ("coord.cli.shell:completion", "Print a completion script for bash, zsh or fish."),
    "del": ("coord.cli.kv:delete", "Delete a key or a range of keys."),
    "dev": ("coord.cli.dev:dev", "Run a cluster on this machine, in one terminal."),
    "discover": ("coord.cli.registry:discover", "Show who serves, and follow it."),
    "elect": ("coord.cli.elect:elect", "Be elected and lead, or listen who leads."),
    "endpoint": ("coord.cli.endpoint:endpoint", "Ask nodes how they are."),
    "get": ("coord.cli.kv:get", "Get a key or a range of keys."),
    "help": ("coord.cli.shell:help_", "Show the help of a command."),
    "lease": ("coord.cli.lease:lease", "Grant, keep, list and revoke leases."),
    "lock": ("coord.cli.lock:lock", "Hold a lock, alone or while a command runs."),
    "member": ("coord.cli.member:member", "List, add, remove, update and promote members."),
    "move-leader": ("coord.cli.member:move_leader", "Hand the lead over to another member."),
    "put": ("coord.cli.kv:put", "Put a key."),
    "register": ("coord.cli.registry:register", "Register an instance of a service while this runs."),
    "serve": ("coord.cli.serve:serve", "Run a node."),
    "txn": ("coord.cli.txn:txn", "Compare, then put, get and delete, as one."),
    "version": ("coord.cli.shell:version", "Print the version."),
    "watch": ("coord.cli.watch:watch", "Follow what happens to keys."),
}
"""Where each command lives, and its line in the list; a module is loaded when its command is used."""

root = Group(
    "coord",
    text="""
    coord is a coordination service: keys and values that a cluster agrees on, with transactions, leases
    and watches, for locks, elections, service discovery and configuration.
    """,
    lazy=COMMANDS,
    epilog="""
Try it:
  coord dev                         # three nodes in this terminal, with keys to kill and pause them
  coord serve                       # or one node on 127.0.0.1:7379, data in ./coord.data
  coord put greeting hello          # in another terminal
  coord get greeting
  coord watch --prefix greet        # prints changes as they happen; Ctrl-C ends it

Other nodes are named by --endpoints, or by COORD_ENDPOINTS in the environment; all global flags may stand
before or after the command, and each has a variable (COORD_COMMAND_TIMEOUT, COORD_WRITE_OUT, …).
""",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, that of the process by default, and return the exit status."""
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except CommandError as failure:
        return _tell(failure)
    except BrokenPipeError:
        # Who read the output has gone. The interpreter's own flush at exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        # Die of the signal, as a shell that runs this in a loop expects.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
        raise
    return status


def _run(arguments: Sequence[str]) -> int:
    if COMPLETE_VARIABLE in os.environ:
        root.main(arguments, prog_name="coord", complete_var=COMPLETE_VARIABLE)
    # Not by click's own `main`, which makes an exit of its own of Ctrl-C and of a reader that has gone.
    try:
        with root.make_context("coord", list(arguments)) as context:
            root.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _tell(failure: CommandError) -> int:
    sys.stdout.flush()
    if failure.text:
        message = f"Error: {failure.text}\n" + (f"{failure.hint}\n" if failure.hint else "")
        sys.stderr.buffer.write(message.encode("utf-8", "surrogateescape"))
        sys.stderr.flush()
    return failure.status
