"""What etcdctl said, kept: how it is made comparable, written and read."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Final

from attrs import asdict, frozen

DIRECTORY: Final = Path(__file__).with_name("golden")

_NUMBER: Final = r"[1-9]\d*"
_RULES: Final = [
    (re.compile(pattern, flags), replacement)
    for pattern, replacement, flags in (
        # Names that differ.
        (r"etcdctl version: \S+", "coord version: <version>", 0),
        (r"coord version: \S+", "coord version: <version>", 0),
        (r"API version: \S+", "API version: <version>", 0),
        (r"ETCDCTL_", "COORD_", 0),
        (r"ETCD_(WATCH|NAME|INITIAL|LOCK)", r"COORD_\1", 0),
        (r"etcdctl", "coord", 0),
        (r"from etcd cluster", "from cluster", 0),
        # Ids, terms, sizes, hashes and times, in the forms that each format gives them.
        (rf'("(?:cluster_id|member_id|leader|ID|id|lease)":){_NUMBER}', r"\1<id>", 0),
        (rf'("(?:raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|hash)":){_NUMBER}', r"\1<n>", 0),
        (rf'^("(?:ClusterID|MemberID|Leader|ID|Lease|PrevLease)" : ){_NUMBER}$', r"\1<id>", re.M),
        (rf'^("(?:RaftTerm|RaftIndex|RaftAppliedIndex|DBSize|Hash)" : ){_NUMBER}$', r"\1<n>", re.M),
        (r'("version":|"Version" : )"[^"]*"', r"\1<version>", 0),
        (r"\b[0-9a-f]{12,16}\b(?!\.)", "<id>", 0),
        # A contender's key, as bytes in hex: its name, a slash and the id of its lease.
        (r"((?:\\x[0-9a-f]{2})*\\x2f)(?:\\x3[0-9]|\\x6[1-6]){12,16}", r"\1<id>", 0),
        (r"\b(Member|cluster) +<id>", r"\1 <id>", 0),
        (r"remaining\(\d+s\)", "remaining(<n>s)", 0),
        (r'"ttl":\d+,"granted', '"ttl":<n>,"granted', 0),
        (r'"TTL" : \d+\n"GrantedTTL" : (?!0)', r'"TTL" : <n>\n"GrantedTTL" : ', 0),
        (r"(http://)?127\.0\.0\.1:\d+", r"\1<endpoint>", 0),
        (r"\b[\d.]+(?:ms|µs|s)\b(?=$|\"| \|)", "<time>", re.M),
        (r"\b[\d.]+ [kMG]?B\b", "<size>", 0),
        (r"(<id>, )[\d.]+(, <size>, \w+, \w+, )\d+, \d+, \d+", r"\1<version>\2<n>, <n>, <n>", 0),
        (r"^(\S*<endpoint>, )\d+$", r"\1<n>", re.M),
    )
]


@frozen
class Outcome:
    """What a command line did, made comparable."""

    exit: int | None
    stdout: str
    stderr: list[str]


def outcome(exit_status: int | None, stdout: bytes, stderr: bytes) -> Outcome:
    """Return what is left once ids, names, sizes and times are taken out."""
    text = _comparable(stdout.decode("utf-8", "backslashreplace"))
    if text.startswith(("NAME:", "Usage: coord")):
        # etcdctl shows the whole help after a wrong flag, coord where to find it.
        text = "" if exit_status else "<help>"
    return Outcome(exit_status, text, _told(_comparable(stderr.decode("utf-8", "backslashreplace"))))


def _told(stderr: str) -> list[str]:
    """Return the lines that both say: no log, no help, no proposals for what was meant, nothing twice."""
    lines: list[str] = []
    is_help = False
    for line in stderr.splitlines():
        is_help = line.startswith("Usage:") or (is_help and not line.startswith("Error:"))
        is_extra = line.startswith(('{"level"', "Did you mean", "\t", "Run '"))
        if line and not (is_help or is_extra or line in lines):
            lines.append(line)
    return lines


def _contender(match: re.Match[str]) -> str:
    """Take the lease's id out of a contender's key in base64."""
    name, slash, suffix = b64decode(match[1]).rpartition(b"/")
    is_id = slash and re.fullmatch(rb"[0-9a-f]{12,16}", suffix)
    return f'"key":"<base64 of {name.decode()}/<id>>"' if is_id else match[0]


def _comparable(text: str) -> str:
    text = re.sub(r'"key":"([^"]+)"', _contender, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return "".join(sorted(map(_comparable_line, text.splitlines(keepends=True)), key=_is_of_the_unstarted))


def _is_of_the_unstarted(line: str) -> bool:
    """Members are sorted by their ids, which are random: those that never started come last here."""
    return line.startswith("<id>, unstarted")


def _comparable_line(line: str) -> str:
    if line.startswith("COORD_INITIAL_CLUSTER="):
        name, _, value = line.partition("=")
        return f"{name}={','.join(sorted(value.strip().strip(chr(34)).split(',')))}\n"
    return _table_line(line)


def _table_line(line: str) -> str:
    if line.startswith("+-"):
        return re.sub("-+", "-", line)
    if line.startswith("| "):
        line = re.sub(r"(?<=\| )\d[\d.]*(?= \|)", "<n>", re.sub(" +", " ", line))
        return re.sub(r"(?<=\| )\d[\d.]*(?= \|)", "<n>", line)
    return line


def write(chapter: str, told: list[tuple[str, Outcome]]) -> None:
    """Keep what etcdctl said in a chapter."""
    entries = [{"line": line, **asdict(each)} for line, each in told]
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    (DIRECTORY / f"{chapter}.json").write_text(text + "\n", encoding="utf-8")


def read(chapter: str) -> list[tuple[str, Outcome]]:
    """Return what etcdctl said in a chapter."""
    entries = json.loads((DIRECTORY / f"{chapter}.json").read_text(encoding="utf-8"))
    return [(entry.pop("line"), Outcome(**entry)) for entry in entries]
