"""`coord alarm`: list and disarm."""

from __future__ import annotations

from coord.cli.command import Command, Group
from coord.cli.failure import bad_arguments
from coord.cli.flags import Parsed
from coord.cli.settings import Settings, show


def _list(line: Parsed, settings: Settings) -> None:
    if line.words:
        raise bad_arguments("alarm list command accepts no arguments")
    printer = settings.printer("alarms")
    with settings.client() as client:
        response = client.alarms()
    show(printer.alarms(response))


def _disarm(line: Parsed, settings: Settings) -> None:
    if line.words:
        raise bad_arguments("alarm disarm command accepts no arguments")
    printer = settings.printer("alarms")
    with settings.client() as client:
        response = client.alarm_disarm()
    show(printer.alarms(response))


alarm = Group(
    "alarm",
    text="List or disarm alarms. NOSPACE: the quota is used up; CORRUPT: members disagree.",
    commands=(
        Command("list", _list, usage="", text="List the alarms that are on.", examples="coord alarm list"),
        Command(
            "disarm",
            _disarm,
            usage="",
            text="""
            Switch off all alarms, and print those that were on.

            NOSPACE comes back if the space is still used up; it also clears by itself below 90 % of the quota.
            """,
            examples="coord alarm disarm",
        ),
    ),
)
