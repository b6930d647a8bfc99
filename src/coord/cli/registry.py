"""`coord register` and `coord discover`: be found as an instance of a service, and see who serves."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Final

from coord.cli.command import Command
from coord.cli.failure import bad_arguments
from coord.cli.flags import Flag, Parsed, duration_value, list_value, text_value
from coord.cli.holding import TTL, Interrupted, interrupted_waiting, interruptible, tell, ttl_of
from coord.cli.output.printer import RegistrationNews, ServiceNews
from coord.cli.quoting import quote
from coord.cli.settings import Settings, show
from coord.client.recipes.blocking_discovery import BlockingDiscovery
from coord.client.recipes.blocking_registration import BlockingRegistration

_LOOK_S: Final = 0.2
_AWAY: Final = "the cluster cannot be heard: this is the last that is known"
_BACK: Final = "the cluster is heard again"


def _register(line: Parsed, settings: Settings) -> None:
    if len(line.words) != 2:
        raise bad_arguments("register takes a service and the address of an instance", "coord register api 10.0.0.5:80")
    service, address = line.words
    check = _check_of(line)
    metadata = _metadata_of(line.texts("metadata"))
    ttl_s = ttl_of(line)
    printer = settings.printer("registration")
    with interruptible(), settings.client(exactly_once=True) as client:
        has_begun = False
        try:
            with client.session(ttl_s) as session:
                interval_s = line.seconds("check-interval")
                registering = session.register(
                    os.fsencode(service), address, metadata=metadata, check=check, check_interval=interval_s
                )
                with registering as registration:
                    has_begun = True
                    _show_registration(service, registration, lambda news: show(printer.registration(news)))
        except Interrupted:
            if not has_begun:
                raise interrupted_waiting() from None


def _check_of(line: Parsed) -> str | None:
    url, address = line.text("check-http"), line.text("check-tcp")
    if url and address:
        raise bad_arguments("`--check-http` and `--check-tcp` are mutually exclusive")
    return url or (f"tcp://{address}" if address else None)


def _metadata_of(items: tuple[str, ...]) -> Mapping[str, str]:
    metadata = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise bad_arguments(f"bad metadata {quote(item)}", "--metadata name=value")
        metadata[name] = value
    return metadata


def _show_registration(
    service: str, registration: BlockingRegistration, show_news: Callable[[RegistrationNews], None]
) -> None:
    """Show whenever it is registered, or withdrawn, or for another reason; for ever."""
    known = False, registration.why_not
    while True:
        now = registration.is_registered, "" if registration.is_registered else registration.why_not
        if now != known:
            known = now
            show_news(RegistrationNews(service, registration.instance, *now))
        threading.Event().wait(_LOOK_S)


def _discover(line: Parsed, settings: Settings) -> None:
    if len(line.words) != 1:
        raise bad_arguments("discover takes a service", "coord discover api")
    service = os.fsencode(line.words[0])
    printer = settings.printer("instances")
    try:
        with interruptible(), settings.client() as client, client.discover(service) as view:
            if line.on("watch"):
                _follow(view, lambda news: show(printer.changes(news)))
            show(printer.instances(ServiceNews(view.instances, view.instances, ())))
    except Interrupted:
        return


def _follow(view: BlockingDiscovery, show_news: Callable[[ServiceNews], None]) -> None:
    """Show who is there, and then each change; for ever."""
    show_news(ServiceNews(view.instances, view.instances, ()))
    before, is_stale = view.instances, False
    while True:
        instances = view.instances
        if instances != before:
            addresses = {one.address for one in instances}
            gone = [one for one in before if one.address not in addresses]
            show_news(ServiceNews(instances, [one for one in instances if one not in before], gone))
            before = instances
        if view.is_stale != is_stale:
            is_stale = not is_stale
            tell(_AWAY if is_stale else _BACK)
        threading.Event().wait(_LOOK_S)


register = Command(
    "register",
    _register,
    usage="<service> <address> [flags]",
    text="""
    Register an instance of a service until Ctrl-C, for 'coord discover' and clients to find.

    With a check it is registered only while that passes. It goes at once when this command ends in order, and when its
    TTL has passed after a crash. Trouble of the cluster does not end the command: it registers again when it can.
    """,
    examples="""
    coord register api 10.0.0.5:80
    coord register api 10.0.0.5:80 --metadata zone=a,version=2
    coord register api 10.0.0.5:80 --check-http http://10.0.0.5:80/health
    """,
    flags=(
        Flag("metadata", "What else users of the instance want to know.", (), list_value, "NAME=VALUE,…"),
        Flag("check-http", "Healthy is what answers a GET here with 200 to 399.", "", text_value, "URL"),
        Flag("check-tcp", "Healthy is what takes connections here.", "", text_value, "HOST:PORT"),
        Flag("check-interval", "How often it is checked.", 2.0, duration_value, "DURATION"),
        TTL,
    ),
)
discover = Command(
    "discover",
    _discover,
    usage="<service> [flags]",
    text="""
    Print the instances of a service, one a line: the address, and what it tells of itself as JSON.

    With --watch go on: '+' is an instance that came or changed, '-' one that is gone; with -w json each change prints
    all instances anew.
    """,
    examples="""
    coord discover api
    coord discover api --watch
    coord discover api -w json                   # {"instances":[{"address":"10.0.0.5:80",…}]}
    """,
    flags=(Flag("watch", "Go on, and print what changes."),),
)
