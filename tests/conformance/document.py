"""Writes `docs/conformance.md` from the table: `make docs`, or `python -m tests.conformance.document`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from .table import ROWS
from .vocabulary import Row

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

OPENING = """# Conformance

*This page is made from the table in `tests/conformance/` by `make docs`.*

coord keeps etcd v3's semantics. What that means is written down as a table of scenarios, one row a rule: {count} rows,
each a few requests and the exact replies they must get: fields, revisions, error codes and texts. The same table runs
against

| server | how | with |
| --- | --- | --- |
| coord's state machine alone | each write is an entry, over a backend in memory | `make test` |
| a coord node | [`coord.v1`](protocol.md), without coord's client | `make test` |
| the naive model that coord's random tests compare with | plain calls | `make test` |
| Debian's etcd 3.4 | its JSON gateway, and the WebSocket form of its `/v3/watch` | `make conformance` |

so that a rule that was misread fails on etcd, and one that was broken fails on coord. Besides the table, random
sequences of requests run against two of them in lockstep, replies and watched histories compared: state machine and
model, state machine and node, state machine and etcd. Command lines are compared with etcdctl's by a table of their
own, in `tests/cli/`.

`make conformance` needs `etcd` and `etcdctl` (`apt-get install etcd-server etcd-client`); it starts them on free
loopback ports, with their data in a temporary directory, and ends them.

A new rule is a new row in one of the `rows_*.py`. Keys and revisions in it are relative, so that rows share a server;
a row that looks at the whole keyspace, or at a store that was never compacted, is `fresh` and gets its own. Write what
you believe, run it against etcd first, then against coord.
"""

DIFFERENCES = """## Where coord differs on purpose

Each of these rows carries both expectations, and both are tested. Nothing else in the table differs; what follows
from coord's promises beyond the table is in [divergence.md](internals/divergence.md).
"""

NEWER = """## Where etcd 3.4 is older than the rule

coord does as newer releases of etcd do; the rows carry what 3.4 answers too.
"""

RULES = """## The rules
"""


def table(rows: list[Row], reason: str) -> str:
    """Return a table of rows with the sentence that each gives as `differs` or `newer`."""
    head = ["| row | rule in coord | why |", "| --- | --- | --- |"]
    return "\n".join([*head, *(f"| `{row.name}` | {row.rule} | {getattr(row, reason)} |" for row in rows)])


def rules() -> list[str]:
    """Return the sections with all rules."""
    sections = []
    for title, rows in groupby(ROWS, key=lambda row: row.section):
        sections.append(
            "\n".join([f"### {title.partition(' ')[2]}", "", *(f"- `{row.name}`: {row.rule}" for row in rows)])
        )
    return sections


def page() -> str:
    """Return the whole page."""
    parts = [
        OPENING.format(count=len(ROWS)).rstrip(),
        DIFFERENCES.rstrip(),
        table([row for row in ROWS if row.differs], "differs"),
        NEWER.rstrip(),
        table([row for row in ROWS if row.newer], "newer"),
        RULES.rstrip(),
        *rules(),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
