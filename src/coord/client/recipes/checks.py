"""Health checks: what they ask, what counts as an answer, and when an instance is withdrawn for it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from attrs import define, field, frozen

HEAD_BYTES_MAX: Final = 8 * 1024
"""Of the answer to an HTTP check; what comes behind it is not read."""


@frozen
class TcpCheck:
    """Healthy is what takes connections."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://{_authority(self.host, self.port)}"


@frozen
class HttpCheck:
    """Healthy is what answers a GET with a status from 200 to 399; redirects are not followed."""

    host: str
    port: int
    target: str
    """Path and query."""

    def __str__(self) -> str:
        return f"http://{_authority(self.host, self.port)}{self.target}"

    @property
    def request(self) -> bytes:
        """What to send."""
        lines = (
            f"GET {self.target} HTTP/1.1",
            f"Host: {_authority(self.host, self.port)}",
            "User-Agent: coord",
            "Accept: */*",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode()

    def judge(self, head: bytes) -> str:
        """Return why this answer means that the instance is not healthy; empty if it is.

        The first line is enough: the rest need not have come.
        """
        parts = head.split(b"\r\n", 1)[0].split(maxsplit=2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            return f"{self}: the answer is not HTTP"
        status = int(parts[1])
        return "" if 200 <= status < 400 else f"{self}: status {status}"


Check: TypeAlias = TcpCheck | HttpCheck | Callable[[], object]
"""A function is healthy unless it returns False or raises."""


@frozen
class Checking:
    """A health check, how often it is done, and how long it may take."""

    check: Check
    interval_s: float
    timeout_s: float

    def __attrs_post_init__(self) -> None:
        if self.interval_s <= 0 or self.timeout_s <= 0:
            raise ValueError("check_interval and check_timeout are longer than 0 s")


def checking_of(check: str | Callable[[], object], interval_s: float, timeout_s: float | None) -> Checking:
    """Return what `register` asks for; the timeout is the interval unless there is one. Raises `ValueError`."""
    what = parse_check(check) if isinstance(check, str) else check
    return Checking(what, interval_s, interval_s if timeout_s is None else timeout_s)


def shown(check: Check) -> str:
    """Return what a check is called."""
    if isinstance(check, TcpCheck | HttpCheck):
        return str(check)
    return getattr(check, "__name__", type(check).__name__)


def judge_found(check: Check, found: object) -> str:
    """Return why what a function returned, or raised, means that the instance is not healthy; empty if it is."""
    if isinstance(found, Exception):
        return f"{shown(check)}: {type(found).__name__}: {found}"
    return f"{shown(check)}: False" if found is False else ""


def parse_check(text: str) -> TcpCheck | HttpCheck:
    """Return the check that `tcp://host:port` or `http://host:port/path` names. Raises `ValueError`."""
    allowed = "tcp://host:port or http://host:port/path"
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"check {text!r}: expected {allowed}, in ASCII and without spaces")
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise ValueError(f"check {text!r}: {error}") from None
    if url.scheme == "https":
        raise ValueError(f"check {text!r}: https is not checked in this release; give a function that does it")
    if url.scheme not in ("tcp", "http") or not host:
        raise ValueError(f"check {text!r}: expected {allowed}")
    if url.username is not None or url.fragment:
        raise ValueError(f"check {text!r}: a check has neither user nor fragment")
    if url.scheme == "http":
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        return HttpCheck(host, 80 if port is None else port, target)
    if port is None or url.path not in ("", "/") or url.query:
        raise ValueError(f"check {text!r}: expected tcp://host:port")
    return TcpCheck(host, port)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@define(eq=False)
class Health:
    """Whether an instance counts as healthy, after what its checks have said.

    The first check decides at once. From then on it takes `fail_after` failures in a row to count as unhealthy, since
    one lost packet must not cost a server its load, and `pass_after` passes to be trusted again.
    """

    fail_after: int
    pass_after: int
    is_healthy: bool = field(default=False, init=False)
    why_not: str = field(default="it has not been checked yet", init=False)
    """What the last failed check said; empty after one that passed."""
    _is_decided: bool = field(default=False, init=False)
    _against: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if self.fail_after < 1 or self.pass_after < 1:
            raise ValueError("fail_after and pass_after are 1 or more")

    def note(self, why_not: str) -> bool:
        """Take what a check said, empty for a pass; return whether `is_healthy` has changed."""
        self.why_not = why_not
        passed = not why_not
        if passed is self.is_healthy:
            self._against, self._is_decided = 0, True
            return False
        self._against += 1
        if self._is_decided and self._against < (self.pass_after if passed else self.fail_after):
            return False
        self._against, self._is_decided, self.is_healthy = 0, True, passed
        return True
