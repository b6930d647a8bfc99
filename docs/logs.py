"""Write `docs/logs.md` from the catalogue of log events: `make docs`."""

from __future__ import annotations

from pathlib import Path

from coord.observe.events import CATALOGUE
from coord.observe.kinds import LIMITED_PER_S, EventSpec

PAGE = Path(__file__).with_name("logs.md")

OPENING = f"""# Log events

*This page is made from `src/coord/observe/events.py` by `make docs`.*

A node writes one JSON object a line to stderr; on a terminal, or with `--log-format console`, lines for eyes.
Every decision is an event: a role, a vote, a refusal, a slowness. What happens for each request is a figure of
`/metrics` instead. Names are stable: search and alert by them.

Every line carries

| field | meaning |
| --- | --- |
| `ts` | when, RFC 3339 in UTC with microseconds |
| `level` | `debug`, `info`, `warn`, `error` |
| `event` | the name, as below |
| `node`, `cluster` | whose line it is: the member's `--name`, the cluster's id in hexadecimal (0 until it is known) |
| `term`, `role` | where consensus stood when it was decided |
| `seq` | grows by one a line in each process, so that the order stands even where two times are equal |

Ids are hexadecimal, keys are escaped and cut, values are never logged. A field that does not apply is left out.
Fields ending in `ms` are milliseconds. Events marked *limited*, which a client can cause at will, are written at
most {LIMITED_PER_S} times a second; `suppressed` on the next one tells how many were left out. If nobody reads
stderr, lines wait in memory and are then dropped and counted (`log.lines.dropped`): the node never waits for them.
"""


def section(area: str, specs: list[EventSpec]) -> str:
    """Return the table of one area's events."""
    rows = [
        f"| `{spec.name}` | {spec.level.name.lower()}{', limited' if spec.limited else ''} | {spec.meaning} "
        f"| {', '.join(f'`{name}`' for name in spec.fields)} |"
        for spec in specs
    ]
    return "\n".join([f"## {area}", "", "| event | level | meaning | fields |", "| --- | --- | --- | --- |", *rows])


def page() -> str:
    """Return the whole page."""
    areas: dict[str, list[EventSpec]] = {}
    for spec in CATALOGUE.values():
        areas.setdefault(spec.name.partition(".")[0], []).append(spec)
    return "\n\n".join([OPENING.rstrip(), *(section(area, specs) for area, specs in areas.items())]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
