"""How `coord dev` tells a log event: when, who, what happened in words, and the fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any, Final

COLORS: Final = ("36", "33", "35", "32", "34", "96", "93")
"""One for each node, as terminals number them (SGR)."""
_DIM: Final = "2"
_LEVEL_COLORS: Final = {"warn": "33", "error": "31;1"}
_OMITTED: Final = frozenset({"ts", "level", "event", "node", "cluster", "seq", "role", "term"})

WORDS: Final[Mapping[str, str]] = {
    "node.process.started": "starts (process {pid})",
    "node.service.ready": "serves clients, at revision {revision}",
    "node.process.failed": "ends: {error}",
    "node.shutdown.started": "is asked to stop ({reason})",
    "node.shutdown.finished": "has stopped in order",
    "cluster.identity.created": "a new cluster begins",
    "cluster.member.added": "{name} is a member now",
    "cluster.member.promoted": "{name} votes now",
    "cluster.member.removed": "{name} is no member any more",
    "raft.leader.found": "follows {leader}",
    "raft.leader.lost": "follows {leader} no more: {reason}",
    "raft.campaign.planned": "will ask for votes soon: {reason}",
    "raft.election.started": "asks for {pre}votes: {reason}",
    "raft.election.won": "has {votes} votes, {quorum} were needed",
    "raft.election.lost": "gets no quorum: {votes} {pre}votes, {refusals} refusals",
    "raft.vote.granted": "gives {candidate} its {pre}vote",
    "raft.vote.refused": "refuses {candidate} its {pre}vote: {reason}",
    "raft.quorum.lost": "hears too few others to lead",
    "raft.role.changed": "is {to_role} now, was {from_role}: {reason}",
    "raft.transfer.started": "hands the lead over to {to}",
    "peer.link.opened": "reaches {name}",
    "peer.link.lost": "loses a link with {name}: {reason}",
    "peer.link.failed": "cannot reach {name}: {error}",
    "peer.link.refused": "is not let in by {name}: {reason}",
    "peer.process.gone": "sees that {name}'s process has died",
    "snapshot.transfer.started": "sends {member} the whole state, {bytes} bytes",
    "snapshot.state.installed": "takes over the state of index {index}",
    "alarm.state.raised": "alarm {alarm}: {reason}",
    "alarm.state.cleared": "alarm {alarm} is over: {reason}",
}
"""The decisions, in words; their fields stand in braces. These are shown, and whatever warns; others only on demand."""


def painted(text: str, color: str, is_colored: bool) -> str:
    """Return `text` in a colour, if colours are wanted."""
    return f"\x1b[{color}m{text}\x1b[0m" if is_colored and color else text


def is_shown(record: Mapping[str, Any], shows_all: bool) -> bool:
    """Tell whether an event is a decision, or all are wanted."""
    return shows_all or record["event"] in WORDS or record["level"] in _LEVEL_COLORS


def told(record: Mapping[str, Any], color: str, names: Mapping[str, str], is_colored: bool) -> str:
    """Return the line for one log event; `names` has the nodes' names by member id, which are easier to read."""
    fields = {name: _shown(value, names) for name, value in record.items() if name not in _OMITTED}
    template = WORDS.get(record["event"], "")
    used = {name for _, name, _, _ in Formatter().parse(template) if name}
    words = template.format_map(_Given({**fields, "pre": "pre-" if record.get("pre") else ""}))
    rest = " ".join(f"{name}={value}" for name, value in fields.items() if name not in used)
    clock = record["ts"][11:23]
    text = painted(words or record["event"], _LEVEL_COLORS.get(record["level"], ""), is_colored)
    about = " ".join(part for part in (record["event"] if words else "", f"term={record['term']}", rest) if part)
    return f"{clock} {painted(record['node'], color, is_colored)}  {text}  {painted(about, _DIM, is_colored)}"


class _Given(dict[str, str]):
    """Fields for a template; one that does not apply to this event is a dash."""

    def __missing__(self, name: str) -> str:
        return "–"


def _shown(value: Any, names: Mapping[str, str]) -> str:
    if isinstance(value, list):
        return ",".join(_shown(item, names) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return names.get(text, text)
