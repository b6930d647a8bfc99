"""Durations and sizes as people write them: `150ms`, `1h30m`, `64MiB`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_UNITS_MS: Final = {
    "ns": Decimal("0.000001"),
    "us": Decimal("0.001"),
    "µs": Decimal("0.001"),
    "ms": Decimal(1),
    "s": Decimal(1_000),
    "m": Decimal(60_000),
    "h": Decimal(3_600_000),
}
_UNITS_BYTES: Final = {
    "": 1,
    "B": 1,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
}
_PART: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?([KMGT]?i?B)?", re.ASCII)


def duration_ms(text: str, *, plain_ms: int) -> int:
    """Return whole milliseconds of a duration in Go's grammar; `plain_ms` is the unit of a plain number.

    Raises ValueError saying what is allowed. A duration above zero is at least one millisecond.
    """
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text) * plain_ms
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("a duration such as 150ms, 10s or 1h30m")
    exact_ms = sum((Decimal(number) * _UNITS_MS[unit] for number, unit in parts), Decimal(0))
    return max(int(exact_ms), 1) if exact_ms else 0


def size_bytes(text: str) -> int:
    """Return the bytes of a size such as `1536KiB`, `2GiB` or `10MB`; a number without a unit is bytes.

    Raises ValueError saying what is allowed.
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match[2] or "") not in _UNITS_BYTES:
        raise ValueError("a size such as 1572864, 64MiB or 2GiB")
    return int(Decimal(match[1]) * _UNITS_BYTES[match[2] or ""])
