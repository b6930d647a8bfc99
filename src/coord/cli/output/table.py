"""The `table` format, for members and endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from unicodedata import east_asian_width

from coord.cli.output import rows
from coord.cli.output.printer import EndpointHash, EndpointStatus, ServiceNews, text_lines
from coord.client import responses as r

SHOWS: Final = frozenset({"member_list", "health", "status", "hash_kv", "instances", "changes"})
"""What can be shown as a table."""

_WRAP_CHARS: Final = 30


class TablePrinter:
    """Prints rows in a frame, aligned to the right."""

    def member_list(self, response: r.MemberListResponse) -> bytes:
        """Show a row for each member."""
        return render(rows.MEMBER_HEADER, rows.member_rows(response))

    def health(self, healths: Sequence[r.Health]) -> bytes:
        """Show a row for each endpoint."""
        return render(rows.HEALTH_HEADER, rows.health_rows(healths))

    def status(self, statuses: Sequence[EndpointStatus]) -> bytes:
        """Show a row for each endpoint."""
        return render(rows.STATUS_HEADER, rows.status_rows(statuses))

    def hash_kv(self, hashes: Sequence[EndpointHash]) -> bytes:
        """Show a row for each endpoint."""
        return render(rows.HASH_HEADER, rows.hash_rows(hashes))

    def instances(self, news: ServiceNews) -> bytes:
        """Show a row for each instance."""
        return render(rows.INSTANCE_HEADER, rows.instance_rows(news.instances))

    def changes(self, news: ServiceNews) -> bytes:
        """Show a row for each instance that there is now."""
        return self.instances(news)


def render(header: Sequence[str], body: Sequence[rows.Row]) -> bytes:
    """Return the table; cells longer than thirty characters are wrapped between words."""
    titles = [title.upper() for title in header]
    wrapped = [[_wrap(cell) for cell in row] for row in body]
    widths = [
        max(_width(line) for line in (title, *(line for row in wrapped for line in row[column])))
        for column, title in enumerate(titles)
    ]
    ruler = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [ruler, _line([_center(title, width) for title, width in zip(titles, widths, strict=True)]), ruler]
    for row in wrapped:
        for number in range(max(len(cell) for cell in row)):
            cells = [cell[number] if number < len(cell) else "" for cell in row]
            lines.append(_line([_right(cell, width) for cell, width in zip(cells, widths, strict=True)]))
    return text_lines([*lines, ruler])


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " for cell in cells) + "|"


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _right(text: str, width: int) -> str:
    return " " * (width - _width(text)) + text


def _center(text: str, width: int) -> str:
    gap = width - _width(text)
    return " " * (gap // 2) + text + " " * (gap - gap // 2)


def _wrap(cell: str) -> list[str]:
    if _width(cell) <= _WRAP_CHARS:
        return [cell]
    lines: list[str] = []
    for word in cell.split(" "):
        if lines and _width(lines[-1]) + 1 + _width(word) <= _WRAP_CHARS:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines
