"""Plain HTTP on the client port: health checks as etcd has them, old and new, metrics, version."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from attrs import define

from coord import __version__
from coord.errors import ApiError
from coord.node.ports import NodePort
from coord.observe.log import Log
from coord.observe.metrics import CONTENT_TYPE, Metrics, render
from coord.observe.process import render_process
from coord.transport.http import HttpRequest, HttpResponse

_LIVE_CHECKS: Final = frozenset(("serializable_read",))
"""What must hold or a restart is due; that there is no leader is no reason to restart."""


@define
class Pages:
    """Answers what is no WebSocket handshake."""

    node: NodePort
    metrics: Metrics
    log: Log

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Return the page, 404 or 405."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(405, b"only GET is served here\n", headers=(("Allow", "GET, HEAD"),))
        root, _, rest = request.path.removeprefix("/").partition("/")
        if root in ("livez", "readyz"):
            return self._health(root, rest, request.query)
        page = self._pages().get(request.path)
        if page is None:
            text = "coord serves /livez /readyz /health /metrics /version, and WebSocket links at /\n"
            return HttpResponse(404, text.encode())
        return page()

    def _pages(self) -> dict[str, Callable[[], HttpResponse]]:
        return {"/metrics": self._metrics, "/version": self._version, "/health": self._old_health}

    def _metrics(self) -> HttpResponse:
        return HttpResponse(200, (render(self.metrics) + render_process()).encode(), CONTENT_TYPE)

    def _version(self) -> HttpResponse:
        version = {"coordserver": __version__, "coordcluster": __version__}
        return HttpResponse(200, json.dumps(version).encode() + b"\n", "application/json")

    def _old_health(self) -> HttpResponse:
        """Answer as etcd's /health does: one word, and the reason."""
        checks = self.node.health()
        # etcd's older check does not ask it: a learner is healthy, though no client should be sent to it.
        del checks["non_learner"]
        failed = {check: error for check, error in checks.items() if error is not None}
        if failed:
            self.metrics.server_health_failures += 1
            for check, error in failed.items():
                self.log("http.check.failed", check=check, reason=error.text)
        reason = "; ".join(error.text for error in failed.values())
        page = {"health": "false" if failed else "true", "reason": reason}
        return HttpResponse(503 if failed else 200, json.dumps(page).encode() + b"\n", "application/json")

    def _health(self, root: str, name: str, query: str) -> HttpResponse:
        """Answer all checks, or the one that the path names.

        `?verbose` lists them, `?exclude=` leaves one out.
        """
        checks = self.node.health()
        if root == "livez":
            checks = {check: error for check, error in checks.items() if check in _LIVE_CHECKS}
        if name:
            if name not in checks:
                return HttpResponse(404, f"no such check: {name}; there are {', '.join(checks)}\n".encode())
            checks = {name: checks[name]}
        options = parse_qs(query, keep_blank_values=True)
        excluded = frozenset(options.get("exclude", ()))
        lines = [self._line(check, error, excluded) for check, error in checks.items()]
        if any(error is not None and check not in excluded for check, error in checks.items()):
            self.metrics.server_health_failures += 1
            return HttpResponse(503, "".join(lines).encode())
        return HttpResponse(200, ("".join(lines) if "verbose" in options else "").encode() + b"ok\n")

    def _line(self, check: str, error: ApiError | None, excluded: frozenset[str]) -> str:
        if check in excluded:
            return f"[+]{check} excluded: ok\n"
        if error is None:
            return f"[+]{check} ok\n"
        self.log("http.check.failed", check=check, reason=error.text)
        return f"[-]{check} failed: {error.text}\n"
