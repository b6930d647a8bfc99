"""`coord endpoint`: status, health, hashkv. Every endpoint is asked for itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from coord.cli.command import Command, Group
from coord.cli.explain import explain
from coord.cli.failure import EXIT_ERROR, CommandError
from coord.cli.flags import Flag, Parsed, int_value
from coord.cli.output.printer import EndpointHash, EndpointStatus
from coord.cli.settings import Settings, failing, show
from coord.client.blocking import BlockingClient
from coord.errors import ApiError, ClientError

T = TypeVar("T")


def _endpoints(line: Parsed, settings: Settings) -> Sequence[str]:
    if not line.on("cluster"):
        return settings.endpoints
    told = "failed to fetch endpoints from etcd cluster member list: {}".replace("etcd ", "")
    with settings.client() as client, failing(told=told):
        members = client.member_list().members
    return [url for member in members for url in member.client_urls]


def _ask_each(
    endpoints: Sequence[str], settings: Settings, what: str, ask: Callable[[BlockingClient, str], T]
) -> tuple[list[T], str]:
    """Ask every endpoint; return the answers, and the last failure, each of which is told on stderr."""
    answers, last_failure = [], ""
    with settings.client() as client:
        for endpoint in endpoints:
            try:
                answers.append(ask(client, endpoint))
            except (ApiError, ClientError) as error:
                last_failure = explain(error)[0]
                print(f"Failed to get the {what} of endpoint {endpoint} ({last_failure})", file=sys.stderr)
    return answers, last_failure


def _status(line: Parsed, settings: Settings) -> None:
    printer = settings.printer("status")

    def ask(client: BlockingClient, endpoint: str) -> EndpointStatus:
        return EndpointStatus(endpoint, client.status(endpoint))

    answers, failure = _ask_each(_endpoints(line, settings), settings, "status", ask)
    show(printer.status(answers))
    if failure:
        raise CommandError("", status=EXIT_ERROR)


def _hash_kv(line: Parsed, settings: Settings) -> None:
    printer = settings.printer("hash_kv")
    revision = line.number("rev")

    def ask(client: BlockingClient, endpoint: str) -> EndpointHash:
        return EndpointHash(endpoint, client.hash_kv(endpoint, revision=revision))

    answers, failure = _ask_each(_endpoints(line, settings), settings, "hash", ask)
    show(printer.hash_kv(answers))
    if failure:
        raise CommandError(failure)


def _health(line: Parsed, settings: Settings) -> None:
    printer = settings.printer("health")
    with settings.client() as client:
        healths = [client.health(endpoint) for endpoint in _endpoints(line, settings)]
    if settings.format == "simple":
        # etcdctl 3.4 prints this format, and only this, to stderr.
        sys.stderr.buffer.write(printer.health(healths))
    else:
        show(printer.health(healths))
    if not all(health.is_healthy for health in healths):
        raise CommandError("unhealthy cluster", hint="see what a node that is up says: coord endpoint status")


endpoint = Group(
    "endpoint",
    text="Ask nodes how they are: those of --endpoints, or with --cluster all members.",
    flags=(Flag("cluster", "Ask all members of the cluster, by their client URLs."),),
    commands=(
        Command(
            "health",
            _health,
            usage="[flags]",
            text="""
            Check that every endpoint answers a linearizable read.

            Exits with 1 if one does not, or if an alarm is on.
            """,
            examples="""
            coord endpoint health
            coord endpoint health --cluster -w table
            """,
        ),
        Command(
            "status",
            _status,
            usage="[flags]",
            text="""
            Show how the node at every endpoint stands.

            The items of a line are: endpoint, ID, version, db size, is leader, is learner, raft term, raft index,
            raft applied index, errors.
            """,
            examples="""
            coord endpoint status -w table
            coord endpoint status --cluster -w jsonl
            """,
        ),
        Command(
            "hashkv",
            _hash_kv,
            usage="[flags]",
            text="""
            Show a hash of the history that every endpoint holds.

            Members that agree have the same hash at the same revision.
            """,
            examples="""
            coord endpoint hashkv --cluster --rev=1234
            """,
            flags=(Flag("rev", "Hash up to this revision; 0 is all.", 0, int_value, "REVISION"),),
        ),
    ),
)
