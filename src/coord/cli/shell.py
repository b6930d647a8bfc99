"""`coord version`, `completion` and `help`."""

from __future__ import annotations

from typing import Final

import click

from coord.cli.command import Command, Group
from coord.cli.failure import CommandError, bad_arguments
from coord.cli.flags import Parsed
from coord.cli.quoting import quote
from coord.cli.settings import Settings, show

API_VERSION: Final = "1.0"
"""Of the client protocol: `coord.v1`."""
_SHELLS: Final = ("bash", "zsh", "fish")


def _version(line: Parsed, settings: Settings) -> None:
    import coord

    show(f"coord version: {coord.__version__}\nAPI version: {API_VERSION}\n".encode())


def _completion(line: Parsed, settings: Settings) -> None:
    if len(line.words) != 1 or line.words[0] not in _SHELLS:
        raise bad_arguments(f"completion needs one argument: {', '.join(_SHELLS)}")
    from click.shell_completion import get_completion_class

    from coord.cli.main import COMPLETE_VARIABLE

    root = click.get_current_context().find_root().command
    shell = get_completion_class(line.words[0])
    assert shell is not None
    show(shell(root, {}, "coord", COMPLETE_VARIABLE).source().encode() + b"\n")


def _help(line: Parsed, settings: Settings) -> None:
    context = click.get_current_context().find_root()
    for word in line.words:
        group = context.command
        command = group.get_command(context, word) if isinstance(group, Group) else None
        if command is None:
            topic = quote(" ".join(line.words), "'")
            raise CommandError(f"unknown help topic {topic}", hint="Run 'coord --help' for all commands.")
        context = click.Context(command, parent=context, info_name=command.name)
    show(context.get_help().encode() + b"\n")


version = Command("version", _version, usage="", text="Print the version.", examples="coord version")
completion = Command(
    "completion",
    _completion,
    usage="bash|zsh|fish",
    text="Print a completion script for bash, zsh or fish.",
    examples="""
    source <(coord completion bash)          # in ~/.bashrc, to have it always
    coord completion fish > ~/.config/fish/completions/coord.fish
    """,
)
help_ = Command(
    "help",
    _help,
    usage="[command]",
    text="Show the help of a command.",
    examples="""
    coord help get
    coord help lease grant
    """,
)
