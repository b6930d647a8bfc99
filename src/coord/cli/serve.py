"""`coord serve`: one node in the foreground. The options are those of `coord.config`."""

from __future__ import annotations

import os
from pathlib import Path

from coord.cli.command import Command
from coord.cli.failure import CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, bool_text, text_value
from coord.cli.settings import Settings
from coord.config import OPTIONS, load
from coord.errors import ConfigError


def _serve(line: Parsed, settings: Settings) -> None:
    if line.words:
        raise bad_arguments(f"coord serve takes no arguments, but got {' '.join(line.words)}")
    flags = {option.name: line.given[option.name] for option in OPTIONS if option.name in line.given}
    try:
        config = load(flags, os.environ, lambda path: Path(path).read_text(encoding="utf-8"))
    except ConfigError as error:
        raise CommandError(str(error), hint="Run 'coord serve --help' for all options.") from None
    from coord.server.main import run

    status = run(config)
    if status:
        # The log has told why.
        raise CommandError("", status=status)


serve = Command(
    "serve",
    _serve,
    usage="[flags]",
    text="""
    Run a node, in the foreground.

    Without flags: a cluster of this node alone on 127.0.0.1:7379, its data in ./coord.data. SIGTERM or Ctrl-C ends it
    in order. Every flag has a variable, COORD_DATA_DIR for --data-dir, and a place in the TOML file of --config-file;
    a flag wins over a variable, a variable over the file.
    """,
    examples="""
    coord serve
    coord serve --data-dir=/var/lib/coord --auto-compaction-retention=1h
    coord serve --config-file=/etc/coord/coord.toml
    """,
    flags=[
        Flag(
            option.name,
            option.help,
            option.default,
            text_value if option.metavar else bool_text,
            option.metavar,
        )
        for option in OPTIONS
    ],
    is_of_clients=False,
)
