"""The table of options of `coord serve`, with etcd's names: the command line makes its flags from it.

`COORD_DATA_DIR` stands for `--data-dir`, and a TOML file has the same names as keys. Every value is text of
one grammar wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from coord.config.addresses import Url, parse_cluster, parse_hosts, parse_origins, parse_urls
from coord.config.quantities import duration_ms, size_bytes
from coord.limits import KIB, MAX_TXN_OPS_DEFAULT, MIB, QUOTA_BACKEND_BYTES_DEFAULT

ENVIRONMENT_PREFIX: Final = "COORD_"
CLIENT_URL_DEFAULT: Final = Url("127.0.0.1", 7379)
PEER_URL_DEFAULT: Final = Url("127.0.0.1", 7380)
QUOTA_OFF: Final = -1
"""`quota_backend_bytes` of a node without a quota."""


@frozen
class Option:
    """An option of `coord serve`.

    `default` is what the help shows; `parse` raises ValueError that says what is allowed. One without a
    `metavar` is true when it is given alone.
    """

    name: str
    group: str
    metavar: str
    default: str
    help: str
    parse: Callable[[str], Any]
    unit: str = ""
    """What the attribute's name adds to the option's, such as `_ms`."""

    @property
    def attribute(self) -> str:
        """The attribute of `ServeConfig` that holds the value."""
        return self.name.replace("-", "_") + self.unit

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()


def _path(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a path")
    return text


def _name(text: str) -> str:
    if not text or not text.isprintable() or "," in text or "=" in text:
        raise ValueError("a name, not empty, without comma, equals sign or control character")
    return text


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("true or false")
    return text.lower() in ("true", "1")


def _milliseconds(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = duration_ms(text, plain_ms=1)
        if not low <= value <= high:
            raise ValueError(f"from {low}ms to {high}ms")
        return value

    return parse


def _size(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = size_bytes(text)
        if not low <= value <= high:
            raise ValueError(f"from {low} to {high} bytes")
        return value

    return parse


def _quota(text: str) -> int:
    """Read a quota as etcd does: 0 is the default, a negative number turns it off."""
    if text.startswith("-") and text[1:].isdigit():
        return QUOTA_OFF
    return size_bytes(text) or QUOTA_BACKEND_BYTES_DEFAULT


def _retention_text(text: str) -> str:
    return text  # its grammar depends on the mode: `load` reads it


_MEMBER: Final = (
    Option("config-file", "Member", "FILE", "none", "TOML file of these options, by these names.", _path),
    Option("name", "Member", "TEXT", "default", "Name of this member, unique in the cluster.", _name),
    Option(
        "data-dir", "Member", "DIR", "./coord.data",
        "Directory of the log and the store; made if missing. Never copy or share it.", _path,
    ),
    Option(
        "listen-client-urls", "Member", "URLS", str(CLIENT_URL_DEFAULT),
        "Where to listen for clients: IP addresses or localhost, comma-separated.", parse_urls,
    ),
    Option(
        "advertise-client-urls", "Member", "URLS", "as listened",
        "URLs under which clients reach this member.", parse_urls,
    ),
    Option(
        "listen-peer-urls", "Member", "URLS", str(PEER_URL_DEFAULT), "Where to listen for other members.",
        parse_urls,
    ),
)  # fmt: skip

_CLUSTER: Final = (
    Option(
        "initial-advertise-peer-urls", "Cluster", "URLS", "as listened",
        "URLs under which other members reach this one.", parse_urls,
    ),
    Option(
        "initial-cluster", "Cluster", "NAME=URL,…", "this member alone",
        "All initial members, as n1=http://10.0.0.1:7380,n2=http://10.0.0.2:7380. Ignored once the data "
        "directory knows its cluster.", parse_cluster,
    ),
    Option(
        "initial-cluster-token", "Cluster", "TEXT", "coord-cluster",
        "Tells clusters apart that were started with equal names and URLs.", _name,
    ),
    Option(
        "initial-cluster-state", "Cluster", "STATE", "new", "new: bootstrap a cluster; existing: join one.",
        _choice("new", "existing"),
    ),
    Option(
        "heartbeat-interval", "Consensus", "DURATION", "100ms",
        "How often a leader tells that it lives; a plain number is milliseconds.",
        _milliseconds(10, 10_000), "_ms",
    ),
    Option(
        "election-timeout", "Consensus", "DURATION", "1s",
        "How long a leader may be silent; at least five heartbeats. A plain number is milliseconds.",
        _milliseconds(50, 50_000), "_ms",
    ),
    Option(
        "snapshot-count", "Consensus", "ENTRIES", "10000",
        "How many applied entries the log keeps for members that lag.", _whole(1, 10**9),
    ),
)  # fmt: skip

_LIMITS: Final = (
    Option(
        "max-request-bytes", "Limits", "SIZE", "1536KiB", "Largest request of a client.",
        _size(1 * KIB, 7 * MIB),
    ),
    Option(
        "max-txn-ops", "Limits", "COUNT", str(MAX_TXN_OPS_DEFAULT),
        "Most compares or operations of a transaction.", _whole(1, 10_000),
    ),
    Option(
        "quota-backend-bytes", "Limits", "SIZE", "2GiB",
        "Space in use that raises the NOSPACE alarm; 0 is the default, a negative number means no quota.",
        _quota,
    ),
    Option(
        "watch-progress-notify-interval", "Limits", "DURATION", "10m",
        "How often idle watches that asked for it are told the revision; a plain number is milliseconds.",
        _milliseconds(100, 86_400_000), "_ms",
    ),
    Option(
        "auto-compaction-mode", "Compaction", "MODE", "periodic", "What --auto-compaction-retention counts.",
        _choice("periodic", "revision"),
    ),
    Option(
        "auto-compaction-retention", "Compaction", "AMOUNT", "0",
        "History to keep. periodic: a duration such as 90m, a plain number is hours. revision: a number of "
        "revisions. 0 keeps everything.", _retention_text,
    ),
)  # fmt: skip

_OTHERS: Final = (
    Option(
        "insecure", "Security", "", "false",
        "Listen beyond loopback without TLS: whoever reaches the port can read and write everything.", _bool,
    ),
    Option(
        "host-whitelist", "Security", "HOSTS", "its own addresses",
        "Further host names that requests may be addressed to; * allows any, DNS rebinding too.", parse_hosts,
    ),
    Option(
        "cors", "Security", "ORIGINS", "none",
        "Web origins whose pages may connect, as https://ui.example; * allows any.", parse_origins,
    ),
    Option(
        "log-level", "Logging", "LEVEL", "info", "Lowest level that is logged.",
        _choice("debug", "info", "warn", "error"),
    ),
    Option(
        "log-format", "Logging", "FORMAT", "auto",
        "json: one object per line; console: for eyes; auto: console on a terminal, else json.",
        _choice("auto", "json", "console"),
    ),
)  # fmt: skip

OPTIONS: Final[tuple[Option, ...]] = _MEMBER + _CLUSTER + _LIMITS + _OTHERS
"""All options, in the order in which the help shows them."""
