"""`coord watch`: one watch of the command line, or many from standard input (`-i`), each with a command to run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Final, NoReturn

from attrs import frozen

from coord.cli.command import Command
from coord.cli.failure import EXIT_ARGUMENTS, EXIT_INPUT, EXIT_INTERRUPTED, CommandError, bad_arguments
from coord.cli.flags import Flag, Parsed, int_value, parse
from coord.cli.output.lines import LinesPrinter
from coord.cli.output.printer import Printer, WatchEvents
from coord.cli.quoting import quote
from coord.cli.settings import Settings, failing, show
from coord.cli.txn import split_words
from coord.client.blocking import BlockingClient
from coord.client.blocking_watch import BlockingWatch
from coord.client.responses import Batch, Header
from coord.errors import ApiError, Compacted
from coord.types import Event, Revision

FLAGS: Final = (
    Flag("prefix", "Watch all keys that begin with <key>; an empty <key> means every key."),
    Flag("rev", "Begin with what happened at this revision; 0 is from now on.", 0, int_value, "REVISION"),
    Flag("prev-kv", "Print what stood there before, too."),
    Flag("progress-notify", "Print a line from time to time when nothing happens."),
)
_KEY_VARIABLE: Final = "COORD_WATCH_KEY"
_END_VARIABLE: Final = "COORD_WATCH_RANGE_END"
_BAD_NUMBER: Final = "bad number of arguments"
_NO_COMMAND: Final = "bad number of arguments (found separator --, but no commands)"
_CONFLICT: Final = "bad number of arguments (found conflicting environment key)"
_POLL_S: Final = 0.1
"""How long an interactive watch may take to notice that progress is asked for."""


@frozen
class WatchLine:
    """What a line of watching asks for; `command` is run for each event."""

    key: bytes
    range_end: bytes | None
    is_prefix: bool
    since: int
    prev_kv: bool
    progress_notify: bool
    command: Sequence[str]


def watch_line(line: Parsed, environ: Mapping[str, str]) -> WatchLine:
    """Read what to watch; the environment may name the key. Raises `CommandError` if the arguments are wrong."""
    words = list(line.words)
    command: list[str] = []
    if line.after_dashes is not None:
        if not line.after_dashes:
            raise bad_arguments(_NO_COMMAND, "coord watch <key> -- <command> [arguments]")
        command = words[-line.after_dashes :]
        words = words[: -line.after_dashes]
    key, range_end = environ.get(_KEY_VARIABLE, ""), environ.get(_END_VARIABLE, "")
    if range_end and not key:
        raise bad_arguments(f"{_KEY_VARIABLE} is empty but got {_END_VARIABLE}={quote(range_end)}")
    if key and words:
        raise bad_arguments(_CONFLICT, f"unset {_KEY_VARIABLE}, or give no key")
    if key:
        words = [key, *([range_end] if range_end else [])]
    if not words:
        raise bad_arguments(_BAD_NUMBER, "coord watch <key> [range_end]")
    if len(words) == 2 and line.on("prefix"):
        raise bad_arguments("`range_end` and `--prefix` are mutually exclusive")
    return WatchLine(
        os.fsencode(words[0]) or b"\0" * (not line.on("prefix")),
        os.fsencode(words[1]) if len(words) == 2 else None,
        line.on("prefix"),
        line.number("rev"),
        line.on("prev-kv"),
        line.on("progress-notify"),
        command,
    )


class _Follower:
    """Prints one watch as it goes on, and runs its command."""

    def __init__(self, client: BlockingClient, asked: WatchLine, printer: Printer, lock: threading.Lock) -> None:
        self._asked = asked
        self._printer = printer
        self._lock = lock
        self.questions: SimpleQueue[None] = SimpleQueue()
        try:
            self._watch: BlockingWatch = client.watch(
                asked.key,
                prefix=asked.is_prefix,
                range_end=asked.range_end,
                since=asked.since,
                prev_kv=asked.prev_kv,
                progress_notify=asked.progress_notify,
            )
        except Compacted as error:
            self._tell_canceled(error, client.status().header)

    def follow(self, poll_s: float | None = None) -> None:
        """Print until the node ends the watch, which raises `CommandError`.

        With `poll_s` look that often for somebody who asks for progress.
        """
        while True:
            try:
                self._take(self._watch.next(poll_s))
            except TimeoutError:
                self._answer_questions()
            except ApiError as error:
                self._tell_canceled(error, self._watch.header(Revision(0)))

    def _answer_questions(self) -> None:
        try:
            self.questions.get_nowait()
        except Empty:
            return
        self._watch.request_progress()

    def _take(self, batch: Batch) -> None:
        header = self._watch.header(batch.revision)
        with self._lock:
            if not batch.events and not isinstance(self._printer, LinesPrinter):
                show(b"progress notify: %d\n" % batch.revision)
            show(self._printer.watch(WatchEvents(header, batch)))
        if self._asked.command:
            for event in batch.events:
                self._run(event, batch.revision)

    def _run(self, event: Event, revision: Revision) -> None:
        command = self._asked.command
        environ = {
            **os.environ,
            "COORD_WATCH_REVISION": str(revision),
            "COORD_WATCH_EVENT_TYPE": quote(event.type.name),
            "COORD_WATCH_KEY": quote(event.kv.key),
            "COORD_WATCH_VALUE": quote(event.kv.value),
        }
        shown = "[" + " ".join(quote(word) for word in command) + "]"
        try:
            status = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, check=False).returncode
        except FileNotFoundError:
            why = f"exec: {quote(command[0])}: executable file not found in $PATH"
        except OSError as error:
            why = f"exec: {quote(command[0])}: {error.strerror}"
        else:
            if status == 0:
                return
            why = f"exit status {status}" if status > 0 else f"signal {-status}"
        print(f"command {shown} error ({why})", file=sys.stderr)
        raise CommandError("")

    def _tell_canceled(self, error: ApiError, header: Header) -> NoReturn:
        compact_revision = error.compact_revision if isinstance(error, Compacted) else 0
        events = WatchEvents(header, Batch(Revision(0), ()), True, compact_revision)
        with self._lock:
            print(f"watch was canceled ({error.text})", file=sys.stderr)
            show(self._printer.watch(events))
        hint = f"begin at revision {compact_revision} or later: --rev={compact_revision}" if compact_revision else ""
        raise CommandError("watch is canceled by the server", status=EXIT_INTERRUPTED, hint=hint) from error


def _watch(line: Parsed, settings: Settings) -> None:
    printer = settings.printer("watch")
    if line.on("interactive"):
        with settings.client() as client:
            _Session(client, printer).run()
        return
    asked = watch_line(line, os.environ)
    with settings.client() as client:
        _Follower(client, asked, printer, threading.Lock()).follow()


class _Session:
    """Watches named on standard input; each has a thread that prints it."""

    def __init__(self, client: BlockingClient, printer: Printer) -> None:
        self._client = client
        self._printer = printer
        self._lock = threading.Lock()
        self._followers: list[_Follower] = []

    def run(self) -> None:
        """Read lines until there are no more, which is an error as in etcdctl; Ctrl-C is the way out."""
        for raw in iter(sys.stdin.buffer.readline, b""):
            if not raw.endswith(b"\n"):
                break
            self._take(os.fsdecode(raw).removesuffix("\n"))
        raise CommandError("Error reading watch request line: EOF", status=EXIT_INPUT)

    def _take(self, text: str) -> None:
        words = split_words(text)
        if not words:
            self._refuse(f"Invalid command: {text} (watch and progress supported)")
        elif words[0] == "progress":
            for follower in self._followers:
                follower.questions.put(None)
        elif words[0] != "watch":
            self._refuse(f"Invalid command {text} (only support watch)")
        elif len(words) < 2 and _KEY_VARIABLE not in os.environ:
            self._refuse(f"Invalid command {text} (command type or key is not provided)")
        else:
            self._begin(words[1:])

    def _begin(self, words: list[str]) -> None:
        try:
            line = parse(words, FLAGS)
        except CommandError as failure:
            failure.status = EXIT_ARGUMENTS
            raise
        asked = watch_line(line, os.environ)
        with failing():
            follower = _Follower(self._client, asked, self._printer, self._lock)
        self._followers.append(follower)
        threading.Thread(target=self._follow, args=(follower,), daemon=True).start()

    def _follow(self, follower: _Follower) -> None:
        try:
            follower.follow(_POLL_S)
        except CommandError as failure:
            self._followers.remove(follower)
            if not failure.text:
                # A command failed: that ends all, as it does without -i.
                os._exit(failure.status)

    def _refuse(self, text: str) -> None:
        with self._lock:
            print(text, file=sys.stderr)


watch = Command(
    "watch",
    _watch,
    usage="<key> [range_end] [flags] [-- command [arguments]]",
    text="""
    Print what happens to a key, or to all keys from <key> up to but without [range_end], as it happens.

    Prints PUT or DELETE, the key and the value, a line each. Lost connections are made anew, without a gap. A command
    behind '--' runs for every event, with these in its environment, quoted but for the revision:
    COORD_WATCH_REVISION, COORD_WATCH_EVENT_TYPE, COORD_WATCH_KEY, COORD_WATCH_VALUE.

    Without <key> it is taken from COORD_WATCH_KEY and COORD_WATCH_RANGE_END. With -i standard input has lines such as
    'watch <key> [flags]' and 'progress'.
    """,
    examples="""
    coord watch cfg/color
    coord watch cfg/ --prefix                # every key that begins with cfg/
    coord watch cfg/ --prefix --rev=1        # all of the history, then on
    coord watch cfg/ --prefix -w jsonl       # an object a line
    coord watch cfg/color -- sh -c 'echo "$COORD_WATCH_KEY is now $COORD_WATCH_VALUE"'
    """,
    flags=(Flag("interactive", "Read watches from standard input.", short="i"), *FLAGS),
)
