"""`coord member`: list, add, remove, update, promote; and `coord move-leader`."""

from __future__ import annotations

from coord.cli.command import Command, Group
from coord.cli.failure import CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, list_value, plain_uint
from coord.cli.settings import Settings, show

_WHERE_IDS_ARE = "'coord member list' prints the ids"


def _member_id(word: str) -> int:
    try:
        return plain_uint(word, 16)
    except ValueError as error:
        raise bad_arguments(f"bad member ID arg ({error}), expecting ID in Hex", _WHERE_IDS_ARE) from None


def _only_id(line: Parsed) -> int:
    if len(line.words) != 1:
        raise bad_arguments("member ID is not provided", _WHERE_IDS_ARE)
    return _member_id(line.words[0])


def _peer_urls(line: Parsed) -> tuple[str, ...]:
    urls = line.texts("peer-urls")
    if not urls:
        raise bad_arguments("member peer urls not provided", "--peer-urls=http://10.0.0.4:7380")
    return urls


def _list(line: Parsed, settings: Settings) -> None:
    printer = settings.printer("member_list")
    with settings.client() as client:
        response = client.member_list()
    show(printer.member_list(response))


def _add(line: Parsed, settings: Settings) -> None:
    if not line.words:
        raise bad_arguments("member name not provided", "coord member add <name> --peer-urls=<url>")
    if len(line.words) > 1:
        urls = [word for word in line.words if word.lower().startswith("http")]
        raise bad_arguments("too many arguments" + "".join(f", did you mean --peer-urls={url}" for url in urls))
    peer_urls = _peer_urls(line)
    printer = settings.printer("member_add")
    with settings.client() as client:
        response = client.member_add(peer_urls, is_learner=line.on("learner"))
    show(printer.member_add(line.words[0], response))


def _remove(line: Parsed, settings: Settings) -> None:
    if not line.words:
        raise bad_arguments("member ID is not provided", _WHERE_IDS_ARE)
    ids = [_member_id(word) for word in line.words]
    printer = settings.printer("member_remove")
    with settings.client() as client:
        response = client.member_remove(*ids)
    show(printer.member_remove(ids, response))


def _update(line: Parsed, settings: Settings) -> None:
    member_id, peer_urls = _only_id(line), _peer_urls(line)
    printer = settings.printer("member_update")
    with settings.client() as client:
        response = client.member_update(member_id, peer_urls)
    show(printer.member_update(member_id, response))


def _promote(line: Parsed, settings: Settings) -> None:
    member_id = _only_id(line)
    printer = settings.printer("member_promote")
    with settings.client() as client:
        response = client.member_promote(member_id)
    show(printer.member_promote(member_id, response))


def _move_leader(line: Parsed, settings: Settings) -> None:
    if len(line.words) != 1:
        raise bad_arguments("move-leader command needs 1 argument", _WHERE_IDS_ARE)
    try:
        to = plain_uint(line.words[0], 16)
    except ValueError as error:
        raise bad_arguments(str(error), _WHERE_IDS_ARE) from None
    if not to:
        # For the cluster 0 is any member; on a command line it is more likely a mistake.
        raise CommandError("etcdserver: bad leader transferee", hint=_WHERE_IDS_ARE)
    printer = settings.printer("move_leader")
    with settings.client() as client:
        before = client.status().leader_id
        response = client.move_leader(to)
    show(printer.move_leader(before, response))


_PEER_URLS = Flag("peer-urls", "Where the other members reach it, comma separated.", (), list_value, "URL,…")

member = Group(
    "member",
    text="List, add, remove, update and promote the members of the cluster.",
    commands=(
        Command(
            "list",
            _list,
            usage="[flags]",
            text="""
            List the members of the cluster.

            The items of a line are: ID, status, name, peer addresses, client addresses, is learner.
            """,
            examples="""
            coord member list
            coord member list -w table
            """,
        ),
        Command(
            "add",
            _add,
            usage="<name> --peer-urls=<url>[,…] [flags]",
            text="""
            Add a member to the cluster, and print with which settings to start it.

            Start it at once, with an empty data directory. It receives all data as a learner, and votes once it has
            caught up; with --learner it stays one until 'coord member promote'. Nothing is added while a voter cannot
            be reached: remove a dead member first.
            """,
            examples="""
            coord member add n4 --peer-urls=http://10.0.0.4:7380
            coord member add n4 --peer-urls=http://10.0.0.4:7380 --learner
            """,
            flags=(_PEER_URLS, Flag("learner", "Keep it from voting until it is promoted.")),
        ),
        Command(
            "remove",
            _remove,
            usage="<id>… [flags]",
            text="""
            Remove members from the cluster; several leave in one step.

            A removed node ends, and its data directory is of no more use: its id never returns. A leader hands over
            before it goes. Refused if too few of those that stay can be reached.
            """,
            examples="""
            coord member remove 8e9e05c52164694d
            """,
        ),
        Command(
            "update",
            _update,
            usage="<id> --peer-urls=<url>[,…] [flags]",
            text="""
            Tell the cluster that a member is reached at other peer URLs.

            The member itself listens where its own --listen-peer-urls say.
            """,
            examples="""
            coord member update 8e9e05c52164694d --peer-urls=http://10.0.0.9:7380
            """,
            flags=(_PEER_URLS,),
        ),
        Command(
            "promote",
            _promote,
            usage="<id> [flags]",
            text="""
            Let a learner vote.

            Refused until it has caught up with the leader.
            """,
            examples="""
            coord member promote 8e9e05c52164694d
            """,
        ),
    ),
)
move_leader = Command(
    "move-leader",
    _move_leader,
    usage="<id> [flags]",
    text="""
    Hand the lead over to another member.

    Any endpoint will do: the node asked has the leader do it. Nothing is lost, and clients notice next to nothing.
    """,
    examples="""
    coord endpoint status --cluster -w table
    coord move-leader 8e9e05c52164694d
    """,
)
