"""URLs of members, and the lists of them that options hold."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from attrs import frozen


@frozen
class Url:
    """Where a member listens or is reached.

    `str()` gives `http://host:port`, the form kept in the cluster's state. The scheme says only that there is
    no TLS; what is spoken is WebSocket. Port 0 lets the system choose one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{self.authority}"

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True if only this machine reaches it."""
        address = _address(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def is_unspecified(self) -> bool:
        """True for `0.0.0.0` and `::`, which can be listened on but not called."""
        address = _address(self.host)
        return address is not None and address.is_unspecified

    @property
    def is_bindable(self) -> bool:
        """True if it can be listened on without asking a name server."""
        return self.host == "localhost" or _address(self.host) is not None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def parse_url(text: str) -> Url:
    """Return the URL that `http://host:port`, `ws://host:port` or `host:port` names.

    Raises ValueError saying what is allowed.
    """
    allowed = "URLs such as http://10.0.0.1:7379 or http://[::1]:7379"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(allowed) from None
    if parts.scheme in ("https", "wss"):
        raise ValueError(f"{allowed}; there is no TLS yet")
    beyond = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "ws") or not host or port is None or beyond:
        raise ValueError(allowed)
    return Url(host, port)


def parse_urls(text: str) -> tuple[Url, ...]:
    """Return the URLs of a comma-separated list; raise ValueError if there is none, or one twice."""
    urls = tuple(parse_url(item.strip()) for item in text.split(","))
    if len(set(urls)) != len(urls):
        raise ValueError("each URL once")
    return urls


def parse_cluster(text: str) -> tuple[tuple[str, tuple[Url, ...]], ...]:
    """Return `(name, urls)` of each member of `n1=URL,n2=URL`.

    A member with several URLs is named several times. Raises ValueError.
    """
    members: dict[str, list[Url]] = {}
    for item in text.split(","):
        name, equals, url = item.strip().partition("=")
        if not name or not equals:
            raise ValueError("a list such as n1=http://10.0.0.1:7380,n2=http://10.0.0.2:7380")
        members.setdefault(name, []).append(parse_url(url))
    return tuple((name, tuple(urls)) for name, urls in members.items())


def parse_hosts(text: str) -> tuple[str, ...]:
    """Return the lower-case host names of a comma-separated list; `*` stands for any. Raises ValueError."""
    hosts = tuple(item.strip().lower() for item in text.split(",") if item.strip())
    for host in hosts:
        if any(character in host for character in "/@ ") or (":" in host and _address(host) is None):
            raise ValueError("host names without scheme and port, comma-separated, or *")
    return hosts


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the lower-case web origins of a comma-separated list; `*` stands for any. Raises ValueError."""
    origins = tuple(item.strip().lower() for item in text.split(",") if item.strip())
    for origin in origins:
        scheme, separator, rest = origin.partition("://")
        if origin != "*" and (scheme not in ("http", "https") or not separator or not rest or "/" in rest):
            raise ValueError("origins such as https://ui.example:8443, comma-separated, or *")
    return origins
