"""`coord elect`: be elected and lead until Ctrl-C, or listen who leads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from coord.cli.command import Command
from coord.cli.failure import CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed
from coord.cli.holding import TTL, Interrupted, interrupted_waiting, interruptible, ttl_of
from coord.cli.output.printer import Printer
from coord.cli.settings import Settings, show
from coord.client import responses as r
from coord.client.blocking import BlockingClient
from coord.client.recipes.blocking_live_range import BlockingLiveRange
from coord.client.recipes.blocking_running import LOOK_S
from coord.client.recipes.contending import interval_of, is_contender
from coord.types import KeyValue

_BAD_NUMBER: Final = "elect takes one election name argument and an optional proposal argument"


def _elect(line: Parsed, settings: Settings) -> None:
    if not 1 <= len(line.words) <= 2:
        raise bad_arguments(_BAD_NUMBER, "coord elect <name> <proposal>, or coord elect -l <name>")
    name = os.fsencode(line.words[0])
    if line.on("listen"):
        if len(line.words) == 2:
            raise bad_arguments("proposal given but -l is set", "who listens proposes nothing")
        _listen(name, settings)
        return
    if len(line.words) == 1:
        raise bad_arguments("no proposal argument but -l not set", "coord elect <name> <proposal>")
    _campaign(name, os.fsencode(line.words[1]), ttl_of(line), settings)


def _campaign(name: bytes, proposal: bytes, ttl_s: int, settings: Settings) -> None:
    printer = settings.printer("get")
    with interruptible(), settings.client(exactly_once=True) as client:
        is_elected = False
        try:
            with client.session(ttl_s) as session, session.lead(name, proposal) as leadership:
                is_elected = True
                response = client.range_response(leadership.key)
                if not response.kvs:
                    raise CommandError("no election result")
                show(printer.get(response))
                leadership.lost.wait()
        except Interrupted:
            if not is_elected:
                raise interrupted_waiting() from None


def _listen(name: bytes, settings: Settings) -> None:
    printer = settings.printer("get")
    try:
        with interruptible(), settings.client() as client:
            _show_owners(client, name + b"/", printer)
    except Interrupted:
        return


def _show_owners(client: BlockingClient, prefix: bytes, printer: Printer) -> None:
    shown: KeyValue | None = None
    with BlockingLiveRange(client, *interval_of(prefix), None) as live:
        while True:
            owner = _owner(prefix, live.kvs)
            if owner is not None and owner != shown:
                shown = owner
                show(printer.get(r.RangeResponse(live.header, [owner], False, 0)))
            live.next(LOOK_S)


def _owner(prefix: bytes, kvs: Mapping[bytes, KeyValue]) -> KeyValue | None:
    contenders = [kv for kv in kvs.values() if is_contender(prefix, kv)]
    return min(contenders, key=lambda kv: kv.create_revision, default=None)


elect = Command(
    "elect",
    _elect,
    usage="<name> [proposal] [flags]",
    text="""
    Be elected, print the key and the proposal, and lead until Ctrl-C; with -l print who leads, as it changes.

    Candidates are elected in the order in which they came. The proposal is what listeners see, an address for example.
    The exit status is 0 after Ctrl-C or SIGTERM, which let the next one lead at once, and 1 when the leadership is
    lost. 'coord lock <name> -- command' runs a command for as long as it holds.
    """,
    examples="""
    coord elect db/primary 10.0.0.5:5432
    coord elect -l db/primary
    coord elect -l db/primary -w jsonl           # an object a line
    """,
    flags=(Flag("listen", "Print who leads, and who does next.", short="l"), TTL),
)
