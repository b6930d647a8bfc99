"""`coord txn`: compares, then operations for success and for failure, read from standard input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import BinaryIO, Final, TypeVar

from coord.cli.command import Command
from coord.cli.failure import EXIT_INPUT, CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, parse, plain_int
from coord.cli.kv import DELETE_FLAGS, GET_FLAGS, PUT_FLAGS, delete_line, get_line, put_line
from coord.cli.quoting import quote, unquote
from coord.cli.settings import Settings, show
from coord.client import op
from coord.client.txn import Compare, Operation
from coord.types import CompareResult, CompareTarget

T = TypeVar("T")

_WORD: Final = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?""")
_QUOTED: Final = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`)')
_RELATION: Final = re.compile(r"\)\s*(\S+)")
_TARGETS: Final = {
    "ver": CompareTarget.VERSION,
    "version": CompareTarget.VERSION,
    "c": CompareTarget.CREATE,
    "create": CompareTarget.CREATE,
    "m": CompareTarget.MOD,
    "mod": CompareTarget.MOD,
    "val": CompareTarget.VALUE,
    "value": CompareTarget.VALUE,
    "lease": CompareTarget.LEASE,
}
_RELATIONS: Final = {
    "=": CompareResult.EQUAL,
    "!=": CompareResult.NOT_EQUAL,
    ">": CompareResult.GREATER,
    "<": CompareResult.LESS,
}
_COMPARE_HINT: Final = 'a compare reads: mod("key") > "0"; fields: create, mod, version, value, lease; = != > <'
_OPERATION_HINT: Final = "an operation reads: put <key> <value>, get <key> or del <key>, each with its flags"


def split_words(line: str) -> list[str]:
    """Return the words of a line; quotes keep spaces inside one word, and double quotes know escapes.

    Raises `CommandError` for an escape that does not exist.
    """
    words = []
    for word in _WORD.findall(line):
        if word[0] == "'":
            words.append(word[1:-1])
        elif word[0] == '"':
            try:
                words.append(os.fsdecode(unquote(word)))
            except ValueError as error:
                raise CommandError(f"{error}: {word}", status=EXIT_INPUT) from None
        else:
            words.append(word)
    return words


def parse_compare(line: str) -> Compare:
    """Read one compare, such as `value("key") = "blue"`; raises `CommandError`."""
    name, parenthesis, rest = line.partition("(")
    if not parenthesis:
        raise _bad_input(f"malformed comparison: {line}", _COMPARE_HINT)
    key, relation, operand, problem = _compare_parts(rest)
    if problem:
        got = f"{name}({quote(key)}) {relation} {quote(operand)}"
        raise _bad_input(f"malformed comparison: {line}; got {got}", _COMPARE_HINT)
    target = _TARGETS.get(name)
    if target is None:
        raise _bad_input(f"malformed comparison: {line} (unknown target {name})", _COMPARE_HINT)
    if relation not in _RELATIONS:
        raise _bad_input(f"malformed comparison: {line} (unknown operator {relation})", _COMPARE_HINT)
    value: int | bytes = operand
    if target is not CompareTarget.VALUE:
        try:
            value = plain_int(os.fsdecode(operand), 16 if target is CompareTarget.LEASE else 10)
        except ValueError:
            raise _bad_input(f"invalid txn compare request: {line}", "here a number is compared") from None
    return Compare(target, _RELATIONS[relation], key, value)


def _compare_parts(rest: str) -> tuple[bytes, str, bytes, bool]:
    """Return key, relation and operand of `"key") = "value"` as far as they can be read, and whether not all could."""
    key, relation, operand = b"", "", b""
    try:
        match = _QUOTED.match(rest)
        if match is None:
            return key, relation, operand, True
        key = unquote(match[1])
        match = _RELATION.match(rest, match.end())
        if match is None:
            return key, relation, operand, True
        relation = match[1]
        match = _QUOTED.match(rest, match.end())
        if match is None:
            return key, relation, operand, True
        operand = unquote(match[1])
    except ValueError:
        return key, relation, operand, True
    return key, relation, operand, False


def parse_operation(line: str) -> Operation:
    """Read one operation, such as `put key value --prev-kv`; raises `CommandError`."""
    words = split_words(line)
    if len(words) < 2:
        raise _bad_input(f"invalid txn compare request: {line}", _OPERATION_HINT)
    kinds = [kind for kind in ("put", "get", "del") if kind.startswith(words[0])]
    if len(kinds) != 1:
        raise _bad_input(f"invalid txn request: {line}", _OPERATION_HINT)
    flags = {"put": PUT_FLAGS, "get": GET_FLAGS, "del": DELETE_FLAGS}[kinds[0]]
    try:
        parsed = parse(words[1:], flags)
    except CommandError as failure:
        raise _bad_input(f"invalid txn request: {line}", f"{failure.text}; {_OPERATION_HINT}") from None
    if kinds[0] == "put":
        put = put_line(parsed, may_read_stdin=False)
        return op.put(
            put.key,
            put.value,
            lease=put.lease,
            prev_kv=put.prev_kv,
            ignore_value=put.ignore_value,
            ignore_lease=put.ignore_lease,
        )
    if kinds[0] == "get":
        get = get_line(parsed)
        return op.get(get.key, **get.options)
    delete = delete_line(parsed)
    return op.delete(delete.key, range_end=delete.range_end, prev_kv=delete.prev_kv)


def _bad_input(text: str, hint: str) -> CommandError:
    return CommandError(text, status=EXIT_INPUT, hint=hint)


def _read_part(source: BinaryIO, read: Callable[[str], T]) -> list[T]:
    """Read lines up to an empty one."""
    found: list[T] = []
    while True:
        raw = source.readline()
        if not raw.endswith(b"\n"):
            raise _bad_input("EOF", "compares, success and failure requests each end with an empty line")
        line = os.fsdecode(raw).strip()
        if not line:
            return found
        found.append(read(line))


def _txn(line: Parsed, settings: Settings) -> None:
    if line.words:
        raise bad_arguments("txn command does not accept argument", "the transaction is read from standard input")
    printer = settings.printer("txn")
    source = sys.stdin.buffer
    prompt = show if line.on("interactive") else lambda _: None
    prompt(b"compares:\n")
    when = _read_part(source, parse_compare)
    prompt(b"success requests (get, put, del):\n")
    then = _read_part(source, parse_operation)
    prompt(b"failure requests (get, put, del):\n")
    orelse = _read_part(source, parse_operation)
    with settings.client() as client:
        response = client.txn(when=when, then=then, orelse=orelse)
    show(printer.txn(response))


txn = Command(
    "txn",
    _txn,
    usage="[flags]",
    text="""
    Compare, then put, get and delete, as one.

    Standard input has three parts, each ended by an empty line: compares; operations to run if all of them hold;
    operations to run otherwise. Prints SUCCESS or FAILURE, which tells which ran, then each answer after an empty
    line. Either all operations of a part happen, at one revision, or none.

      compare     create("key") = "0"    mod("key") > "5"    version("key") != "1"
                  value("key") = "blue"  lease("key") = "694d71ddacfda227"
                  (a key that does not exist has create, mod and version 0)
      operation   put <key> <value>, get <key>, del <key>, with the flags of these commands;
                  double quotes keep spaces and know \\n, \\t, \\x00, \\u00e9
    """,
    examples="""
    coord txn -i                             # asks for each part
    printf 'create("job/1") = "0"\\n\\nput job/1 mine\\n\\nget job/1\\n\\n' | coord txn
    """,
    flags=(Flag("interactive", "Ask for each part.", short="i"),),
)
