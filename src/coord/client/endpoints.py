"""Endpoints: how they are written, in which order they are tried, and after which pauses. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import Final

from attrs import define, field, frozen

PORT_DEFAULT: Final = 7379
ENDPOINTS_DEFAULT: Final = f"127.0.0.1:{PORT_DEFAULT}"
BACKOFF_FIRST_S: Final = 0.025
BACKOFF_MAX_S: Final = 2.0
REFUSAL_PAUSE_MAX_S: Final = 0.2
STAGGER_S: Final = 0.25
"""An endpoint that has not said hello by then is joined by the next one; the first to say hello is used."""
ANOTHER_TRY_S: Final = 0.5
"""What was refused is not sent again with less time than this: the answer would come too late, and of a write it would
no longer be known that nothing was done."""
REFUSALS_BEFORE_MOVING: Final = 2
"""A node that refused so often in a row is left for another."""
_SCHEMES: Final = {"http": False, "ws": False, "https": True, "wss": True}


@frozen
class Endpoint:
    """An address where a node serves clients."""

    host: str
    port: int
    is_tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint that `host:port`, `[v6]:port` or an `http(s)://` or `ws(s)://` URL names.

    The port may be left out: it is 7379 then. Raises `ValueError` saying what is wrong.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    if separator and scheme.lower() not in _SCHEMES:
        raise ValueError(f"endpoint {text!r}: unknown scheme {scheme!r}, use one of {', '.join(_SCHEMES)}")
    address = rest.rstrip("/")
    if address.startswith("["):
        host, closed, tail = address[1:].partition("]")
        port_text = tail.removeprefix(":")
        if not closed or (tail and not tail.startswith(":")):
            raise ValueError(f"endpoint {text!r}: an IPv6 address is written [address]:port")
    else:
        host, _, port_text = address.partition(":")
        if ":" in port_text:
            raise ValueError(f"endpoint {text!r}: an IPv6 address is written [address]:port")
    if not host or "/" in address:
        raise ValueError(f"endpoint {text!r}: expected host:port")
    if not port_text and address.endswith(":"):
        raise ValueError(f"endpoint {text!r}: the port is missing after the colon")
    if port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise ValueError(f"endpoint {text!r}: {port_text!r} is no port, expected 1 to 65535")
    return Endpoint(host, int(port_text) if port_text else PORT_DEFAULT, _SCHEMES.get(scheme.lower(), False))


def parse_endpoints(endpoints: str | Sequence[str]) -> list[Endpoint]:
    """Return the endpoints of a comma-separated string, or of a sequence of strings, without repetitions.

    Raises `ValueError` if there is none, or one of them is wrong.
    """
    texts = endpoints.split(",") if isinstance(endpoints, str) else endpoints
    found = list(dict.fromkeys(parse_endpoint(text) for text in texts if text.strip()))
    if not found:
        raise ValueError("no endpoint given, expected for example 127.0.0.1:7379")
    return found


def backoff_s(attempt: int, random: Random, longest_s: float = BACKOFF_MAX_S) -> float:
    """Return how long to wait before try number `attempt` (from 1): doubling, bounded, spread by ± 50 %.

    Without the spread all clients of a node that died would call at the next one in the same moments.
    """
    full: float = min(BACKOFF_FIRST_S * 2 ** min(attempt - 1, 16), longest_s)
    return full * random.uniform(0.5, 1.5)


def refusal_pause_s(attempt: int, random: Random) -> float:
    """Return how long a refused call rests: not long, since an election takes a few tenths of a second."""
    return backoff_s(attempt, random, REFUSAL_PAUSE_MAX_S)


@define(eq=False)
class Rotation:
    """Which endpoint to try next.

    They are tried in turn, from a random one so that the clients of a cluster spread over its members; but
    first the leader's, once one of the connections has told who leads and another which endpoint that member
    has.
    """

    endpoints: list[Endpoint]
    random: Random
    failures: dict[Endpoint, str] = field(factory=dict)
    """Why the last try of each endpoint failed; empty for one that was reached since."""
    leader_id: int = 0
    _turned_away: dict[Endpoint, str] = field(factory=dict)
    _members: dict[Endpoint, int] = field(factory=dict)
    _next: int = 0
    _failed_in_row: int = 0

    def __attrs_post_init__(self) -> None:
        self._next = self.random.randrange(len(self.endpoints))

    def next_endpoint(self, avoid: Collection[Endpoint] = ()) -> Endpoint:
        """Return the endpoint to try now; none of `avoid`, if there is another."""
        if self.leader_id and not self._failed_in_row:
            for endpoint, member_id in self._members.items():
                if member_id == self.leader_id and endpoint not in avoid:
                    return endpoint
        for _ in self.endpoints:
            endpoint = self.endpoints[self._next % len(self.endpoints)]
            self._next += 1
            if endpoint not in avoid:
                break
        return endpoint

    def begun(self, endpoint: Endpoint) -> None:
        """Note that `endpoint` is being tried."""
        self.failures.setdefault(endpoint, "no answer yet")

    def leads(self, endpoint: Endpoint) -> bool:
        """Tell whether `endpoint` is known to be the leader's."""
        return bool(self.leader_id) and self._members.get(endpoint) == self.leader_id

    def may_lead(self) -> Endpoint | None:
        """Return the leader's endpoint or, while that is not known, one whose member is not; None if there is none."""
        if not self.leader_id:
            return None
        leading = (endpoint for endpoint in self.endpoints if self.leads(endpoint))
        unmet = (endpoint for endpoint in self.endpoints if endpoint not in self._members)
        return next(leading, None) or next(unmet, None)

    def reached(self, endpoint: Endpoint, member_id: int) -> None:
        """Note that `endpoint` answered, as `member_id`."""
        self._members[endpoint] = member_id
        self.failures.pop(endpoint, None)
        self._turned_away.clear()
        self._failed_in_row = 0

    def failed(self, endpoint: Endpoint, reason: str, *, is_standby: bool = False) -> None:
        """Note that `endpoint` could not be reached, or was lost, and why.

        What was only to stand by does not count towards the pause: the next real need is to be served at once.
        """
        self.failures[endpoint] = reason
        self._turned_away.pop(endpoint, None)
        if not is_standby:
            self._failed_in_row += 1

    def turned_away(self, endpoint: Endpoint, reason: str) -> None:
        """Note that `endpoint` was reached, but takes no clients yet, and what it said; call it after `failed`."""
        self._turned_away[endpoint] = reason

    @property
    def why_turned_away(self) -> str:
        """What a node said whose last word was that it takes no clients yet; empty if there is none."""
        return next(iter(self._turned_away.values()), "")

    @property
    def rounds(self) -> int:
        """How often every endpoint was tried in vain since one was reached."""
        return self._failed_in_row // len(self.endpoints)

    def pause_s(self) -> float:
        """Return how long to wait before the next try: nothing until every endpoint had its turn.

        A node that turns clients away may serve in a moment, so that it is asked more often than one that is down.
        """
        if not self.rounds:
            return 0.0
        return refusal_pause_s(self.rounds, self.random) if self._turned_away else backoff_s(self.rounds, self.random)

    def explain(self) -> str:
        """Return one line that names each endpoint and why it cannot be used."""
        return "; ".join(f"{endpoint}: {self.failures.get(endpoint, 'not tried yet')}" for endpoint in self.endpoints)
