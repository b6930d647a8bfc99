"""`coord check perf`: can the cluster take a steady load of writes?"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING, Final

from coord.cli.command import Command, Group
from coord.cli.failure import EXIT_ERROR, EXIT_FEATURE, EXIT_INPUT, CommandError
from coord.cli.flags import Flag, Parsed, duration_value, text_value
from coord.cli.quoting import quote
from coord.cli.settings import Settings, failing, show

if TYPE_CHECKING:
    from coord.cli.load import Report

_LOADS: Final = {"s": (150, 50), "m": (1000, 200), "l": (8000, 500), "xl": (15_000, 1000)}
"""Puts a second, and callers at once."""
_ALIASES: Final = {"small": "s", "medium": "m", "large": "l", "xLarge": "xl"}
_CALLERS_PER_CONNECTION: Final = 10
_SLOWEST_S: Final = 0.5
_DEVIATION_S: Final = 0.1
_RATE_SHARE: Final = 0.9
_CLEANING_TIMEOUT_S: Final = 30.0


def _perf(line: Parsed, settings: Settings) -> None:
    name = line.text("load")
    if _ALIASES.get(name, name) not in _LOADS:
        raise CommandError(f"unknown load option {name}", status=EXIT_FEATURE, hint="use s, m, l or xl")
    rate, callers = _LOADS[_ALIASES.get(name, name)]
    prefix = line.text("prefix")
    with settings.client() as client:
        if client.range_response(prefix, prefix=True, limit=1).kvs:
            raise CommandError(
                f"prefix {quote(prefix)} has keys. Delete with coord del --prefix {prefix} first",
                status=EXIT_INPUT,
                hint="the check deletes all keys below its prefix when it is done",
            )
        report = _pushed(settings, rate, callers, prefix, line.seconds("duration"))
        deleted = client.delete_response(prefix, prefix=True, timeout=_CLEANING_TIMEOUT_S)
        if line.on("auto-compact"):
            revision = deleted.header.revision
            show(b"Compacting with revision %d\n" % revision)
            client.compact(revision, physical=True, timeout=_CLEANING_TIMEOUT_S)
            show(b"Compacted with revision %d\n" % revision)
    text, is_good = verdict(report, rate)
    show(text.encode())
    if not is_good:
        raise CommandError("", status=EXIT_ERROR)


def _pushed(settings: Settings, rate: int, callers: int, prefix: str, duration_s: float) -> Report:
    """Run the load, with ten callers to a connection."""
    # Only here: no other client command waits for Trio to be loaded.
    import trio

    import coord
    from coord.cli.load import Model, push

    def tick(gone_s: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{gone_s:3.0f} / {duration_s:g} s", end="", file=sys.stderr, flush=True)

    async def run() -> Report:
        async with AsyncExitStack() as stack:
            clients = []
            for _ in range(callers // _CALLERS_PER_CONNECTION):
                opened = coord.connect(settings.endpoints, timeout=settings.command_timeout_s, name="coord check")
                clients.append(await stack.enter_async_context(opened))
            return await push(clients, Model(rate, callers), prefix.encode(), duration_s, Random(), tick)

    with failing():
        report = trio.run(run)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return report


def verdict(report: Report, rate: int) -> tuple[str, bool]:
    """Return what to print about a load, and whether it was carried."""
    lines = []
    if report.errors:
        lines.append("FAIL: too many errors")
        lines += [f"FAIL: ERROR({text}) -> {count}" for text, count in report.errors.items()]
    throughput = int(report.puts_per_second) + 1
    is_fast = report.puts_per_second > _RATE_SHARE * rate
    lines.append(
        f"PASS: Throughput is {throughput} writes/s" if is_fast else f"FAIL: Throughput too low: {throughput} writes/s"
    )
    is_prompt = report.slowest_s <= _SLOWEST_S
    slowest = f"{report.slowest_s:f}s"
    lines.append(f"PASS: Slowest request took {slowest}" if is_prompt else f"Slowest request took too long: {slowest}")
    is_steady = report.deviation_s <= _DEVIATION_S
    deviation = f"{report.deviation_s:f}s"
    lines.append(f"PASS: Stddev is {deviation}" if is_steady else f"Stddev too high: {deviation}")
    is_good = is_fast and is_prompt and is_steady and not report.errors
    lines.append("PASS" if is_good else "FAIL")
    return "\n".join(lines) + "\n", is_good


check = Group(
    "check",
    text="Check what a cluster can do.",
    commands=(
        Command(
            "perf",
            _perf,
            usage="[flags]",
            text="""
            Write at a steady rate for a minute, and tell whether the cluster keeps up.

            It passes if nine tenths of the rate are reached, no write takes longer than 500 ms, and the standard
            deviation is at most 100 ms. Keys have 256 bytes below the prefix, values 1 KiB; the keys are deleted at
            the end. Exits with 1 if the check fails.

              load   writes/s   callers, ten to a connection
              s           150     50
              m          1000    200
              l          8000    500
              xl        15000   1000
            """,
            examples="""
            coord check perf
            coord check perf --load=l --duration=10s
            """,
            flags=(
                Flag("load", "How hard to push: s, m, l or xl.", "s", text_value, "LOAD"),
                Flag("prefix", "Where the keys go; it has to be empty.", "/coord-check-perf/", text_value, "PREFIX"),
                Flag("duration", "How long to push.", 60.0, duration_value, "DURATION"),
                Flag("auto-compact", "Compact the history when done."),
            ),
        ),
    ),
)
