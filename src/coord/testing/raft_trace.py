"""What happened lately in a simulated run: tuples while it runs, text only for who reads it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from attrs import define, field, fields

Step = tuple[int, int, str, int, Any]
"""(step, time in microseconds, what, member, more)."""


def describe(value: Any) -> str:
    """Return a message or another value on one short line."""
    if hasattr(value, "__attrs_attrs__"):
        parts = []
        for attribute in fields(type(value)):
            item = getattr(value, attribute.name)
            if attribute.name in {"sender", "to"} or item in (False, ""):
                continue
            parts.append(f"{attribute.name}={describe(item)}")
        ends = f" {value.sender}→{value.to}" if hasattr(value, "sender") else ""
        return f"{type(value).__name__}{ends}({', '.join(parts)})"
    if isinstance(value, frozenset | set):
        return "{" + ",".join(str(item) for item in sorted(value)) + "}"
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], bytes):
        return f"{value[0]}@{value[1]}:{value[2].decode(errors='replace')}"
    if isinstance(value, dict):
        return " ".join(f"{key}={describe(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + " ".join(describe(item) for item in value) + "]"
    return str(value)


def line(step: Step) -> str:
    """Return one event as a line."""
    number, time_us, what, member, more = step
    told = "" if more is None else " " + describe(more)
    return f"{number:>7} {time_us / 1000:>11.3f}ms  n{member:<3} {what}{told}"


@define
class Trace:
    """A ring of the last steps; with `is_told` each is printed as it happens."""

    is_told: bool = False
    steps: deque[Step] = field(factory=lambda: deque(maxlen=300))

    def add(self, number: int, time_us: int, what: str, member: int, more: Any = None) -> None:
        """Remember one event."""
        step = (number, time_us, what, member, more)
        self.steps.append(step)
        if self.is_told:
            print(line(step))

    def lines(self) -> Iterator[str]:
        """Return the ring as text, oldest first."""
        return (line(step) for step in self.steps)
