"""The log: events of the catalogue as JSON lines on stderr, or in colour on a terminal.

This is the only place that sets structlog up. A call costs about 10 µs, and 1 µs if its level is filtered
out; so decisions are logged and requests are counted. A mistake in a log call must neither end a node nor
lose the line: in a node what is not as catalogued is written as text; in tests `RecordingLog` raises.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import structlog
from attrs import frozen

from coord.observe.events import CATALOGUE, check_event
from coord.observe.kinds import LIMITED_PER_S, RENDER, EventSpec, Level, clip, show_id
from coord.observe.output import DescriptorOutput, MemoryOutput, Output

_METHODS: Final = {Level.DEBUG: "debug", Level.INFO: "info", Level.WARN: "warning", Level.ERROR: "error"}


@frozen
class LogContext:
    """What every line carries besides its event: whose it is, and where consensus stood.

    `cluster` is 0 until it is known; `role` is a raft role's name in lower case.
    """

    node: str = ""
    cluster: int = 0
    term: int = 0
    role: str = ""


class Log:
    """Writes events: `log("wal.segment.rolled", segment=7, index=1200)`.

    `context` is asked at every line; the node sets it to a function of its own as soon as it knows who it is.
    `seq` grows by one a line, so that the order stands even where two lines have the same time.
    """

    def __init__(
        self,
        output: Output,
        *,
        level: Level = Level.INFO,
        console: bool = False,
        colors: bool = False,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.context: Callable[[], LogContext] = LogContext
        self._output = output
        self._now_ns = now_ns
        self._render = _console_renderer(colors) if console else structlog.processors.JSONRenderer(orjson.dumps)
        self._seq = 0
        self._second = -1
        self._second_text = ""
        self._limits: dict[str, tuple[int, int, int]] = {}
        self.set_level(level)

    def set_level(self, level: Level) -> None:
        """Write events of `level` and above from now on."""
        bound: Any = structlog.wrap_logger(
            _Writer(self._output),
            processors=[self._complete, self._render],
            wrapper_class=structlog.make_filtering_bound_logger(int(level)),
        ).bind()
        self._methods = {at: getattr(bound, name) for at, name in _METHODS.items()}

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write `event` with its fields, if its level is wanted. Never waits and never raises."""
        spec = CATALOGUE.get(event)
        self._methods[Level.WARN if spec is None else spec.level](event, **fields)
        if self._output.dropped and self._output.pump():
            lines, self._output.dropped = self._output.dropped, 0
            self("log.lines.dropped", lines=lines)

    def pump(self, timeout_s: float = 0.0) -> None:
        """Write lines that stderr did not take at once; to be called at each tick.

        At the end of the process a `timeout_s` gives a slow reader its last chance.
        """
        self._output.pump(timeout_s)

    def _complete(self, _writer: object, method: str, given: Any) -> dict[str, object]:
        """Turn what was given into the line: rendered fields, who and where, time and number."""
        event: str = given.pop("event")
        spec = CATALOGUE.get(event)
        now_ns = self._now_ns()
        suppressed = self._limit(spec, now_ns // 1_000_000_000) if spec is not None and spec.limited else 0
        self._seq += 1
        context = self.context()
        line: dict[str, object] = {
            "ts": self._time(now_ns),
            "level": "warn" if method == "warning" else method,
            "event": event,
        }
        for name, value in given.items():
            if value is not None:
                line[name] = _show(spec, name, value)
        if suppressed:
            line["suppressed"] = suppressed
        line["node"] = context.node
        line["cluster"] = show_id(context.cluster)
        line.setdefault("term", context.term)
        line.setdefault("role", context.role)
        line["seq"] = self._seq
        return line

    def _limit(self, spec: EventSpec, second: int) -> int:
        """Return how many lines of this event were left out before this one, or leave out this one too."""
        at, written, suppressed = self._limits.get(spec.name, (second, 0, 0))
        if at != second:
            written = 0
        if written >= LIMITED_PER_S:
            self._limits[spec.name] = (second, written, suppressed + 1)
            raise structlog.DropEvent
        self._limits[spec.name] = (second, written + 1, 0)
        return suppressed

    def _time(self, now_ns: int) -> str:
        """Return RFC 3339 in UTC with microseconds; the part down to seconds is made once a second."""
        second, rest_ns = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{rest_ns // 1000:06d}Z"


class RecordingLog(Log):
    """A log for tests: keeps `(event, fields)` in `records`, and raises where one is not as catalogued."""

    def __init__(self) -> None:
        self.output = MemoryOutput()
        super().__init__(self.output, level=Level.DEBUG)
        self.records: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: object) -> None:
        """Keep the event. Raises `MalformedEventError`."""
        check_event(event, fields)
        self.records.append((event, fields))
        super().__call__(event, **fields)

    @property
    def names(self) -> list[str]:
        """The events in order."""
        return [name for name, _ in self.records]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The fields of each time that `event` was logged."""
        return [fields for name, fields in self.records if name == event]


class _Writer:
    """What structlog hands finished lines to."""

    def __init__(self, output: Output) -> None:
        self.debug = self.info = self.warning = self.error = output.write


class _LibraryHandler(logging.Handler):
    """Carries what libraries say through Python's `logging` into the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log("log.library.warned", library=record.name, text=record.getMessage())


def _show(spec: EventSpec | None, name: str, value: object) -> object:
    kind = spec.fields.get(name) if spec is not None else None
    try:
        if kind is not None:
            return RENDER[kind](value)
        return value if isinstance(value, int) else clip(str(value))
    except (TypeError, ValueError):
        return clip(repr(value))


def _console_renderer(colors: bool) -> Any:
    return structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False, timestamp_key="ts")


def open_log(level: Level, form: str, environ: Mapping[str, str]) -> Log:
    """Return the log of this process, on stderr, with what libraries warn about.

    `form` is `json`, `console`, or `auto`: console where stderr is a terminal. Colours only on a terminal,
    and not if `NO_COLOR` is set.
    """
    terminal = sys.stderr.isatty()
    log = Log(
        DescriptorOutput(sys.stderr.fileno()),
        level=level,
        console=form == "console" or (form == "auto" and terminal),
        colors=terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb",
    )
    logging.basicConfig(handlers=[_LibraryHandler(log)], level=logging.WARNING, force=True)
    return log
