"""`coord lease`: grant, revoke, timetolive, list, keep-alive."""

from __future__ import annotations

import time
from typing import Final

from coord.cli.command import Command, Group
from coord.cli.failure import EXIT_CONNECTION, bad_arguments
from coord.cli.flags import Flag, Parsed, plain_int
from coord.cli.output.printer import Printer
from coord.cli.settings import Settings, failing, show
from coord.client.blocking import BlockingClient
from coord.errors import ConnectionFailed, DeadlineExceeded, NotFound, Unavailable
from coord.types import LeaseId

_RENEWALS_PER_TTL: Final = 3
_PAUSE_S: Final = 0.2


def _lease_of(line: Parsed, usage: str) -> LeaseId:
    if len(line.words) != 1:
        raise bad_arguments(usage, "ids of leases are those that 'coord lease list' prints")
    try:
        return LeaseId(plain_int(line.words[0], 16))
    except ValueError as error:
        raise bad_arguments(
            f"bad lease ID arg ({error}), expecting ID in Hex", "'coord lease list' prints the ids"
        ) from None


def _grant(line: Parsed, settings: Settings) -> None:
    if len(line.words) != 1:
        raise bad_arguments("lease grant command needs TTL argument", "coord lease grant <seconds>")
    try:
        ttl_s = plain_int(line.words[0])
    except ValueError as error:
        raise bad_arguments(f"bad TTL ({error})", "a TTL is a number of seconds") from None
    printer = settings.printer("grant")
    with settings.client() as client, failing(told="failed to grant lease ({})"):
        response = client.lease_grant(ttl_s)
    show(printer.grant(response))


def _revoke(line: Parsed, settings: Settings) -> None:
    lease = _lease_of(line, "lease revoke command needs 1 argument")
    printer = settings.printer("revoke")
    with settings.client() as client, failing(told="failed to revoke lease ({})"):
        response = client.lease_revoke(lease)
    show(printer.revoke(lease, response))


def _time_to_live(line: Parsed, settings: Settings) -> None:
    lease = _lease_of(line, "lease timetolive command needs lease ID as argument")
    printer = settings.printer("time_to_live")
    with settings.client() as client, failing(EXIT_CONNECTION):
        response = client.lease_time_to_live(lease, keys=line.on("keys"))
    show(printer.time_to_live(response, line.on("keys")))


def _list(line: Parsed, settings: Settings) -> None:
    printer = settings.printer("leases")
    with settings.client() as client, failing(EXIT_CONNECTION):
        response = client.leases_response()
    show(printer.leases(response))


def _keep_alive(line: Parsed, settings: Settings) -> None:
    lease = _lease_of(line, "lease keep-alive command needs lease ID as argument")
    printer = settings.printer("keep_alive")
    with settings.client() as client:
        if line.on("once"):
            with failing(EXIT_CONNECTION):
                show(printer.keep_alive(client.lease_keep_alive_once(lease)))
            return
        with failing(EXIT_CONNECTION):
            _renew_until_gone(client, lease, printer)
    if settings.format == "simple":
        show(b"lease %016x expired or revoked.\n" % lease)


def _renew_until_gone(client: BlockingClient, lease: LeaseId, printer: Printer) -> None:
    """Renew a lease until it is gone; what fails is tried again for as long as the lease can still live."""
    lives_until_s, ttl_s = time.monotonic(), 0
    while True:
        sent_s = time.monotonic()
        try:
            response = client.lease_keep_alive_once(lease, ttl_s=ttl_s)
        except NotFound:
            return
        except (Unavailable, DeadlineExceeded, ConnectionFailed):
            if time.monotonic() >= lives_until_s:
                raise
            time.sleep(_PAUSE_S)
            continue
        lives_until_s, ttl_s = sent_s + response.ttl_s, response.ttl_s
        show(printer.keep_alive(response))
        time.sleep(response.ttl_s / _RENEWALS_PER_TTL)


lease = Group(
    "lease",
    text="Grant, keep, list and revoke leases: keys attached to a lease go when it expires.",
    commands=(
        Command(
            "grant",
            _grant,
            usage="<ttl>",
            text="""
            Grant a lease that expires after <ttl> seconds without a renewal.

            Prints its id, for 'coord put --lease' and the other commands here. The node may make a short TTL longer.
            """,
            examples="""
            coord lease grant 60
            coord lease grant 60 -w jsonl            # {"id":"694d71ddacfda227","ttl":60}
            """,
        ),
        Command(
            "revoke",
            _revoke,
            usage="<leaseID>",
            text="""
            Revoke a lease, which deletes the keys attached to it.
            """,
            examples="coord lease revoke 694d71ddacfda227",
        ),
        Command(
            "timetolive",
            _time_to_live,
            usage="<leaseID> [flags]",
            text="""
            Show how long a lease has left.
            """,
            examples="""
            coord lease timetolive 694d71ddacfda227
            coord lease timetolive 694d71ddacfda227 --keys
            """,
            flags=(Flag("keys", "Show the keys attached to the lease."),),
        ),
        Command("list", _list, usage="", text="List all leases.", examples="coord lease list"),
        Command(
            "keep-alive",
            _keep_alive,
            usage="<leaseID> [flags]",
            text="""
            Renew a lease, again and again, until it is gone or Ctrl-C.
            """,
            examples="""
            coord lease keep-alive 694d71ddacfda227
            coord lease keep-alive 694d71ddacfda227 --once
            """,
            flags=(Flag("once", "Renew it once and exit."),),
        ),
    ),
)
