"""Checks decoded CBOR against coord.cddl and peer.cddl: what a schema is worth is what it refuses.

The parser is a library's; of CDDL's types this knows those that these two use, and raises for any other.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from cddlparser import ast, parse

from coord.codec import decode

_BUILT_IN = {
    "any": lambda value: True,
    "bool": lambda value: type(value) is bool,
    "bstr": lambda value: type(value) is bytes,
    "int": lambda value: type(value) is int,
    "null": lambda value: value is None,
    "tstr": lambda value: type(value) is str,
    "uint": lambda value: type(value) is int and value >= 0,
}


class Schema:
    """The rules of a CDDL text."""

    def __init__(self, text: str) -> None:
        self.rules = {rule.name.name: rule.type for rule in parse(text).rules}

    @classmethod
    def of_coord(cls) -> Schema:
        return cls((resources.files("coord.protocol") / "coord.cddl").read_text("utf-8"))

    @classmethod
    def of_peers(cls) -> Schema:
        return cls((resources.files("coord.protocol") / "peer.cddl").read_text("utf-8"))

    def allows(self, rule: str, value: Any) -> bool:
        """Tell whether `value` is what `rule` describes."""
        if rule in self.rules:
            return self._is(self.rules[rule], value)
        return bool(_BUILT_IN[rule](value))

    def undefined(self) -> set[str]:
        """Return the names that are used but not defined."""
        names: set[str] = set()
        for node in self.rules.values():
            self._names(node, names)
        return names - set(self.rules) - set(_BUILT_IN)

    def _names(self, node: Any, names: set[str]) -> None:
        if isinstance(node, ast.Typename):
            names.add(node.name)
        for child in node.getChildren():
            if not isinstance(child, ast.Memberkey):
                self._names(child, names)

    def _is(self, node: Any, value: Any) -> bool:
        match node:
            case ast.Array():
                choices = [choice.groupEntries for choice in node.groupChoices] or [[]]
                return type(value) is list and any(self._matches(entries, value) for entries in choices)
            case ast.Type():
                return any(self._is(choice, value) for choice in node.types)
            case ast.GroupEntry():
                return self._is(node.type, value)
            case ast.Typename():
                return self.allows(node.name, value)
            case ast.Value():
                return type(value) is int and value == int(node.value)
            case ast.Range():
                return type(value) is int and int(node.min.value) <= value <= int(node.max.value)
            case ast.Operator():
                return self._is(node.type, value) and self._is_controlled(node, value)
        raise NotImplementedError(f"{type(node).__name__} in coord.cddl: {node}")

    def _is_controlled(self, node: Any, value: bytes) -> bool:
        if node.name.literal == "cbor":
            return self._is(node.controller, decode(value))
        if node.name.literal == "size":
            return self._is(node.controller, len(value))
        raise NotImplementedError(f".{node.name.literal} in coord.cddl")

    def _matches(self, entries: list[Any], items: list[Any]) -> bool:
        if not entries:
            return not items
        entry, rest = entries[0], entries[1:]
        least, most = (1, 1) if entry.occurrence is None else (entry.occurrence.n, entry.occurrence.m)
        group = self._group(entry)
        width = len(group) if group else 1
        taken = 0
        while True:
            if taken >= least and self._matches(rest, items[taken * width :]):
                return True
            part = items[taken * width : (taken + 1) * width]
            is_one = len(part) == width and (self._matches(group, part) if group else self._is(entry.type, part[0]))
            if taken == most or not is_one:
                return False
            taken += 1

    def _group(self, entry: Any) -> list[Any] | None:
        """Return the entries of a group of items that come together, or None for a single item."""
        # An array is a group to the parser too.
        if not isinstance(entry.type, ast.Type) or type(entry.type.types[0]) is not ast.Group:
            return None
        (choice,) = entry.type.types[0].groupChoices
        entries: list[Any] = choice.groupEntries
        return entries
