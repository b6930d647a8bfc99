"""The flags that every command takes, and what comes of them: a client, a printer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from coord.cli.explain import explain
from coord.cli.failure import EXIT_ARGUMENTS, EXIT_ERROR, EXIT_FEATURE, CommandError
from coord.cli.flags import Flag, Parsed, duration_value, list_value, text_value
from coord.errors import ApiError, ClientError

if TYPE_CHECKING:
    from coord.cli.output.printer import Printer
    from coord.client.blocking import BlockingClient

GLOBAL_FLAGS: Final = (
    Flag(
        "endpoints",
        "Nodes to ask, comma separated; the first that answers is used.",
        ("127.0.0.1:7379",),
        list_value,
        "HOST:PORT,…",
    ),
    Flag("command-timeout", "How long a command may take.", 5.0, duration_value, "DURATION"),
    Flag("dial-timeout", "How long connecting may take.", 2.0, duration_value, "DURATION"),
    Flag(
        "write-out",
        "Format of the output: simple, table, json (etcdctl's documents), jsonl (readable objects), fields.",
        "simple",
        text_value,
        "FORMAT",
        "w",
    ),
    Flag("hex", "Print keys and values as \\x61\\x62 (only with --write-out=simple)."),
    Flag("debug", "Print the settings to stderr."),
)
ENVIRONMENT_PREFIX: Final = "COORD_"

_PRINTERS: Final[Mapping[str, tuple[str, str]]] = {
    "simple": ("coord.cli.output.simple", "SimplePrinter"),
    "fields": ("coord.cli.output.fields", "FieldsPrinter"),
    "json": ("coord.cli.output.documents", "JsonPrinter"),
    "jsonl": ("coord.cli.output.lines", "LinesPrinter"),
    "table": ("coord.cli.output.table", "TablePrinter"),
}


@frozen
class Settings:
    """What the global flags and `COORD_…` say."""

    endpoints: tuple[str, ...]
    command_timeout_s: float
    dial_timeout_s: float
    format: str
    hex: bool

    def printer(self, shown: str, *, value_only: bool = False) -> Printer:
        """Return the printer of the chosen format; `shown` names its method that is going to be used.

        It is asked for before the request is sent, so that nothing happens that could not be shown. Raises
        `CommandError` for a format that does not exist or cannot show this.
        """
        self._check_format()
        module, name = _PRINTERS[self.format]
        made = getattr(import_module(module), name)
        if not hasattr(made, shown):
            raise CommandError(
                f"{self.format} not supported as output format",
                status=EXIT_FEATURE,
                hint=f"--write-out takes one of {', '.join(_showing(shown))} here",
            )
        printer: Printer = made(self.hex, value_only) if self.format == "simple" else made()
        return printer

    def _check_format(self) -> None:
        if self.format not in _PRINTERS:
            raise CommandError(
                "unsupported output format",
                status=EXIT_FEATURE,
                hint=f"--write-out takes one of {', '.join(_PRINTERS)}",
            )

    @contextmanager
    def client(self, *, exactly_once: bool = False) -> Iterator[BlockingClient]:
        """Open a client and close it afterwards; it connects with its first request.

        Most commands are one write: a record of each would push those of programs out, and so none is kept unless
        `exactly_once`.

        Errors of the cluster and of the connection end the command, with status 1, as does a format that does not
        exist, with status 4.
        """
        import coord

        self._check_format()
        with failing():
            client = coord.connect_sync(
                self.endpoints,
                timeout=self.command_timeout_s,
                connect_timeout=self.dial_timeout_s,
                name="coord",
                exactly_once=exactly_once,
            )
            with client:
                yield client


@contextmanager
def failing(status: int = EXIT_ERROR, told: str = "{}") -> Iterator[None]:
    """Turn errors of the cluster and of the connection into the end of the command.

    `told` is what etcdctl makes of the error's text, with `{}` in its place.
    """
    try:
        yield
    except (ApiError, ClientError) as error:
        text, hint = explain(error)
        raise CommandError(told.format(text), status=status, hint=hint) from error
    except ValueError as error:
        raise CommandError(str(error), status=EXIT_ARGUMENTS) from error


def _showing(shown: str) -> list[str]:
    """Return the formats whose printers have the method `shown`."""
    return [form for form, (module, name) in _PRINTERS.items() if hasattr(getattr(import_module(module), name), shown)]


def settings_of(line: Parsed, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a command line; what it does not say the environment does.

    Raises `CommandError` for a variable that cannot be read.
    """
    values: dict[str, Any] = {}
    for flag in GLOBAL_FLAGS:
        variable = _variable(flag)
        text = (os.environ if environ is None else environ).get(variable)
        if flag.name in line.given or not text:
            values[flag.name] = line.given.get(flag.name, flag.default)
            continue
        try:
            values[flag.name] = flag.read(text)
        except ValueError as error:
            raise CommandError(f"invalid value in {variable}: {error}", hint=f"unset {variable}") from None
    if values["debug"]:
        for flag in GLOBAL_FLAGS:
            print(f"{_variable(flag)}={flag.shown(values[flag.name])}", file=sys.stderr)
    return Settings(
        values["endpoints"] or GLOBAL_FLAGS[0].default,
        values["command-timeout"],
        values["dial-timeout"],
        values["write-out"],
        values["hex"],
    )


def _variable(flag: Flag) -> str:
    return ENVIRONMENT_PREFIX + flag.name.upper().replace("-", "_")


def show(data: bytes) -> None:
    """Print what a printer returned, at once."""
    out = sys.stdout.buffer
    left = memoryview(data)
    while left:
        # Where Python was told not to buffer this is the file itself, which may take only a part.
        left = left[out.write(left) :]
    out.flush()
