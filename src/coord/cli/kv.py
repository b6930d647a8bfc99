"""`coord put`, `get`, `del` and `compaction`.

What a line of `put`, `get` or `del` asks for is read apart from the sending, because a line of a transaction reads
the same (`coord.cli.txn`).
"""

from __future__ import annotations

import os
import sys
from typing import Final

from attrs import frozen

from coord.cli.command import Command
from coord.cli.failure import EXIT_FEATURE, CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, int_value, plain_int, text_value
from coord.cli.settings import Settings, show
from coord.client.verbs import RangeOptions
from coord.types import SortOrder, SortTarget, prefix_end

_PREFIX_OR_FROM: Final = "`--prefix` and `--from-key` cannot be set at the same time, choose one"
_ONE_KEY: Final = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"
_TO_THE_END: Final = b"\0"
"""As an end of a range: the end of the keyspace; as its start: the beginning."""

PUT_FLAGS: Final = (
    Flag("lease", "Attach the key to this lease (its id in hexadecimal).", "0", text_value, "ID"),
    Flag("prev-kv", "Print the key and value that stood there before."),
    Flag("ignore-value", "Keep the value, and change only the lease."),
    Flag("ignore-lease", "Keep the lease, and change only the value."),
)
GET_FLAGS: Final = (
    Flag("prefix", "Get all keys that begin with <key>; an empty <key> means every key."),
    Flag("from-key", "Get all keys from <key> on, in byte order."),
    Flag("limit", "Most keys to get; 0 is no limit.", 0, int_value, "N"),
    Flag("rev", "Get what the store held at this revision; 0 is now.", 0, int_value, "REVISION"),
    Flag("sort-by", "Sort by CREATE, KEY, MODIFY, VALUE or VERSION.", "", text_value, "FIELD"),
    Flag("order", "Sort ASCEND (the default) or DESCEND.", "", text_value, "ORDER"),
    Flag("keys-only", "Get only the keys."),
    Flag("count-only", "Get only the number of keys (shown by --write-out fields, json and jsonl)."),
    Flag("print-value-only", "Print only values (with --write-out simple)."),
    Flag(
        "consistency",
        "l: linearizable, the newest that the cluster agreed on; s: serializable, what the node asked has.",
        "l",
        text_value,
        "l|s",
    ),
)
DELETE_FLAGS: Final = (
    Flag("prefix", "Delete all keys that begin with <key>; an empty <key> means every key."),
    Flag("from-key", "Delete all keys from <key> on, in byte order."),
    Flag("prev-kv", "Print the keys and values that went."),
)
_SORT_TARGETS: Final = {
    "": SortTarget.KEY,
    "CREATE": SortTarget.CREATE,
    "KEY": SortTarget.KEY,
    "MODIFY": SortTarget.MOD,
    "VALUE": SortTarget.VALUE,
    "VERSION": SortTarget.VERSION,
}
_SORT_ORDERS: Final = {"": SortOrder.NONE, "ASCEND": SortOrder.ASCEND, "DESCEND": SortOrder.DESCEND}


@frozen
class PutLine:
    """What a `put` asks for."""

    key: bytes
    value: bytes
    lease: int
    prev_kv: bool
    ignore_value: bool
    ignore_lease: bool


@frozen
class GetLine:
    """What a `get` asks for."""

    key: bytes
    options: RangeOptions


@frozen
class DeleteLine:
    """What a `del` asks for; without `range_end` one key."""

    key: bytes
    range_end: bytes | None
    prev_kv: bool


def words_of(line: Parsed) -> list[bytes]:
    """Return the words of a line as the bytes that they came as."""
    return [os.fsencode(word) for word in line.words]


def put_line(line: Parsed, *, may_read_stdin: bool) -> PutLine:
    """Read a `put`; the value comes from standard input if it may and none is given.

    Raises `CommandError` if the arguments are wrong.
    """
    words = words_of(line)
    usage = "put command needs 1 argument and input from stdin or 2 arguments"
    if not words:
        raise bad_arguments(usage, "coord put <key> <value>, or: echo value | coord put <key>")
    ignore_value = line.on("ignore-value")
    if ignore_value and len(words) > 1:
        raise bad_arguments("put command needs only 1 argument when 'ignore-value' is set")
    value = b""
    if not ignore_value:
        value = words[1] if len(words) > 1 else sys.stdin.buffer.read() if may_read_stdin else b""
        if len(words) == 1 and not value:
            raise bad_arguments(usage, "an empty value is written '': coord put <key> ''")
    try:
        lease = plain_int(line.text("lease"), 16)
    except ValueError as error:
        raise bad_arguments(f"bad lease ID ({error}), expecting ID in Hex") from None
    return PutLine(words[0], value, lease, line.on("prev-kv"), ignore_value, line.on("ignore-lease"))


def get_line(line: Parsed) -> GetLine:
    """Read a `get`. Raises `CommandError` if the arguments are wrong."""
    if not line.words:
        raise bad_arguments(
            "get command needs one argument as key and an optional argument as range_end",
            "every key: coord get '' --prefix",
        )
    if line.on("prefix") and line.on("from-key"):
        raise bad_arguments(_PREFIX_OR_FROM)
    consistency = line.text("consistency")
    if consistency not in ("l", "s"):
        raise CommandError(f'unknown consistency flag "{consistency}"', status=EXIT_FEATURE, hint="use l or s")
    key, range_end = _range_of(line)
    order, target = line.text("order"), line.text("sort-by")
    if order.upper() not in _SORT_ORDERS:
        raise CommandError(f"bad sort order {order}", status=EXIT_FEATURE, hint="use ASCEND or DESCEND")
    if target.upper() not in _SORT_TARGETS:
        raise CommandError(
            f"bad sort target {target}",
            status=EXIT_FEATURE,
            hint="use CREATE, KEY, MODIFY, VALUE or VERSION",
        )
    options: RangeOptions = {
        "limit": line.number("limit"),
        "revision": max(line.number("rev"), 0),
        "sort_order": _SORT_ORDERS[order.upper()],
        "sort_target": _SORT_TARGETS[target.upper()],
        "serializable": consistency == "s",
        "keys_only": line.on("keys-only"),
        "count_only": line.on("count-only"),
    }
    if range_end is not None:
        options["range_end"] = range_end
    return GetLine(key, options)


def delete_line(line: Parsed) -> DeleteLine:
    """Read a `del`. Raises `CommandError` if the arguments are wrong."""
    if not 1 <= len(line.words) <= 2:
        raise bad_arguments("del command needs one argument as key and an optional argument as range_end")
    if line.on("prefix") and line.on("from-key"):
        raise bad_arguments(_PREFIX_OR_FROM)
    key, range_end = _range_of(line)
    return DeleteLine(key, range_end, line.on("prev-kv"))


def _range_of(line: Parsed) -> tuple[bytes, bytes | None]:
    words = words_of(line)
    key, range_end = words[0], words[1] if len(words) > 1 else None
    is_open = line.on("prefix") or line.on("from-key")
    if is_open and range_end is not None:
        raise bad_arguments(_ONE_KEY)
    if not is_open:
        return key, range_end
    if line.on("from-key") or not key:
        return key or _TO_THE_END, _TO_THE_END
    return key, prefix_end(key)


def _put(line: Parsed, settings: Settings) -> None:
    asked = put_line(line, may_read_stdin=True)
    printer = settings.printer("put")
    with settings.client() as client:
        response = client.put_response(
            asked.key,
            asked.value,
            lease=asked.lease,
            prev_kv=asked.prev_kv,
            ignore_value=asked.ignore_value,
            ignore_lease=asked.ignore_lease,
        )
    show(printer.put(response))


def _get(line: Parsed, settings: Settings) -> None:
    asked = get_line(line)
    value_only = line.on("print-value-only")
    if value_only and settings.format != "simple":
        raise bad_arguments("print-value-only is only for `--write-out=simple`")
    printer = settings.printer("get", value_only=value_only)
    with settings.client() as client:
        response = client.range_response(asked.key, **asked.options)
    show(printer.get(response))


def _delete(line: Parsed, settings: Settings) -> None:
    asked = delete_line(line)
    printer = settings.printer("delete")
    with settings.client() as client:
        response = client.delete_response(asked.key, range_end=asked.range_end, prev_kv=asked.prev_kv)
    show(printer.delete(response))


def _compaction(line: Parsed, settings: Settings) -> None:
    if len(line.words) != 1:
        raise bad_arguments("compaction command needs 1 argument", "coord compaction <revision>")
    try:
        revision = plain_int(line.words[0])
    except ValueError as error:
        raise CommandError(str(error)) from None
    with settings.client() as client:
        client.compact(revision, physical=line.on("physical"))
    show(b"compacted revision %d\n" % revision)


put = Command(
    "put",
    _put,
    usage="<key> <value> [flags]     (without <value> it is read from standard input)",
    text="""
    Put a key.

    A value that begins with '-' would be taken for a flag; it goes behind '--'.
    Prints OK, and with --prev-kv what stood there before.
    """,
    examples="""
    coord put cfg/color blue
    coord put cfg/motd < /etc/motd           # the value from standard input
    coord put -- cfg/offset -5               # a value that begins with '-'
    coord put cfg/color red --prev-kv
    coord put node/7 up --lease=694d71ddacfda227
    """,
    flags=PUT_FLAGS,
)
get = Command(
    "get",
    _get,
    usage="<key> [range_end] [flags]",
    text="""
    Get a key, or all keys from <key> up to but without [range_end], in byte order.

    Prints the key and the value, a line each; nothing if there is none. The exit status is 0 either way.
    """,
    examples="""
    coord get cfg/color
    coord get cfg/color --print-value-only
    coord get cfg/ --prefix                  # every key that begins with cfg/
    coord get '' --prefix --keys-only        # every key there is
    coord get a c                            # from a up to but without c
    coord get cfg/color --rev=5              # as it was at revision 5
    coord get jobs/ --prefix --sort-by=CREATE --limit=1
    coord get cfg/ --prefix -w jsonl         # an object a line
    """,
    flags=GET_FLAGS,
)
delete = Command(
    "del",
    _delete,
    usage="<key> [range_end] [flags]",
    text="""
    Delete a key, or all keys from <key> up to but without [range_end], in byte order.

    Prints how many keys went, and with --prev-kv what they were.
    """,
    examples="""
    coord del cfg/color
    coord del cfg/ --prefix --prev-kv        # every key that begins with cfg/
    coord del a c                            # from a up to but without c
    """,
    flags=DELETE_FLAGS,
)
compaction = Command(
    "compaction",
    _compaction,
    usage="<revision> [flags]",
    text="""
    Forget the history before a revision, to free space.

    Afterwards older revisions cannot be read or watched. The keys themselves stay. 'coord get x -w json' shows the
    present revision; a node that was started with --auto-compaction-retention does this by itself.
    """,
    examples="""
    coord compaction 1234
    coord compaction 1234 --physical         # return when the space is free
    """,
    flags=(Flag("physical", "Wait until the old revisions are removed from disk."),),
)
