"""Reading options: from a TOML file, the environment and flags, in rising order."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen

from coord.config.options import ENVIRONMENT_PREFIX, OPTIONS
from coord.config.quantities import duration_ms
from coord.config.serve import ServeConfig, check
from coord.errors import ConfigError

_BY_NAME: Final = {option.name: option for option in OPTIONS}
_HOUR_MS: Final = 3_600_000
_OF_CLIENTS: Final = frozenset(
    ENVIRONMENT_PREFIX + name for name in ("ENDPOINTS", "COMMAND_TIMEOUT", "DIAL_TIMEOUT", "WRITE_OUT", "HEX", "DEBUG")
)
"""Variables that client commands read; they mean nothing to a node and are no typing errors."""
_OF_WATCH_COMMANDS: Final = ENVIRONMENT_PREFIX + "WATCH_"
"""What `coord watch -- COMMAND` sets for its command, which may well be a node."""


@frozen
class _Setting:
    """An option's text and where it came from."""

    text: str
    kind: str
    place: str

    def __str__(self) -> str:
        return f'"{self.text}" ({self.place})'


def load(flags: Mapping[str, object], environ: Mapping[str, str], read_file: Callable[[str], str]) -> ServeConfig:
    """Return the checked configuration.

    `flags` maps option names, without dashes, to what was given; None stands for not given. An empty variable
    counts as unset, as with etcd. `read_file` returns a file's text. Raises `ConfigError` that lists every
    mistake, one a line: the option, its value, where that was set, and what is allowed.
    """
    settings, problems = _gather(flags, environ, read_file)
    values: dict[str, Any] = {}
    for name, setting in settings.items():
        option = _BY_NAME[name]
        try:
            if name == "auto-compaction-retention":
                values[option.attribute] = _retention(settings.get("auto-compaction-mode"), setting.text)
            else:
                values[option.attribute] = option.parse(setting.text)
        except ValueError as error:
            problems.append(f"--{name} is {setting}; allowed is {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    config = ServeConfig(
        **values,
        sources={name: setting.kind for name, setting in settings.items()},
        unrecognized=_unrecognized(environ),
    )
    problems = [_explain(name, text, settings) for name, text in check(config)]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _gather(
    flags: Mapping[str, object], environ: Mapping[str, str], read_file: Callable[[str], str]
) -> tuple[dict[str, _Setting], list[str]]:
    """Return what is set, the highest source of each option winning, and what could not be read."""
    settings: dict[str, _Setting] = {}
    problems = [f"--{name} is no option{_similar(name)}" for name in flags if name not in _BY_NAME]
    for option in OPTIONS:
        given = flags.get(option.name)
        if given is not None:
            settings[option.name] = _Setting(_as_text(given), "flag", "given as a flag")
        elif text := environ.get(option.variable):
            settings[option.name] = _Setting(text, "environment", f"from {option.variable}")
    file = settings.get("config-file")
    if file is not None:
        try:
            document = tomllib.loads(read_file(file.text))
        except (OSError, ValueError) as error:
            return settings, [*problems, f"--config-file is {file}; it cannot be read: {error}"]
        for name, value in document.items():
            if name not in _BY_NAME or name == "config-file":
                problems.append(f"{file.text}: {name} is no option{_similar(name)}")
            else:
                settings.setdefault(name, _Setting(_as_text(value), "file", f"from {file.text}"))
    return settings, problems


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return str(value)


def _similar(name: str) -> str:
    close = difflib.get_close_matches(name.replace("_", "-"), _BY_NAME, 1)
    return f"; is {close[0]} meant?" if close else "; `coord serve --help` lists them"


def _unrecognized(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = {option.variable for option in OPTIONS} | _OF_CLIENTS
    ours = (name for name in environ if name.startswith(ENVIRONMENT_PREFIX))
    return tuple(sorted(name for name in ours if name not in known and not name.startswith(_OF_WATCH_COMMANDS)))


def _retention(mode: _Setting | None, text: str) -> int:
    """Read etcd's grammar: a plain number is hours or revisions, by mode."""
    if mode is not None and mode.text == "revision":
        if not (text.isascii() and text.isdigit()):
            raise ValueError("a number of revisions, since --auto-compaction-mode is revision")
        return int(text)
    try:
        return duration_ms(text, plain_ms=_HOUR_MS)
    except ValueError as error:
        raise ValueError(f"{error}; a plain number is hours") from None


def _explain(name: str, allowed: str, settings: Mapping[str, _Setting]) -> str:
    setting = settings.get(name)
    return f"--{name} is {setting or f'{_BY_NAME[name].default} (by default)'}; {allowed}"
