"""Health checks as etcd answers them, metrics, version."""

from __future__ import annotations

import json

import pytest

from coord.errors import no_leader, not_for_learner
from coord.observe.log import RecordingLog
from coord.observe.metrics import Metrics
from coord.server.http import Pages
from coord.transport.http import HttpRequest, HttpResponse

from .fake_node import FakeNode


@pytest.fixture
def pages() -> Pages:
    return Pages(FakeNode(), Metrics(), RecordingLog())


def get(pages: Pages, target: str, method: str = "GET") -> HttpResponse:
    path, _, query = target.partition("?")
    return pages.answer(HttpRequest(method, path, query, {}))


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/livez", "ok\n"),
        ("/readyz", "ok\n"),
        ("/livez?verbose", "[+]serializable_read ok\nok\n"),
        (
            "/readyz?verbose&exclude=non_learner",
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n"
            "[+]non_learner excluded: ok\nok\n",
        ),
        ("/readyz/linearizable_read", "ok\n"),
        ("/readyz/linearizable_read?verbose", "[+]linearizable_read ok\nok\n"),
    ],
)
def test_healthy(pages: Pages, target: str, body: str) -> None:
    assert get(pages, target) == HttpResponse(200, body.encode())


def test_node_without_leader_is_alive_but_not_ready(pages: Pages) -> None:
    pages.node.failing["linearizable_read"] = no_leader()  # type: ignore[attr-defined]

    assert get(pages, "/livez").status == 200
    response = get(pages, "/readyz")
    assert response.status == 503
    assert b"[-]linearizable_read failed: etcdserver: no leader\n" in response.body
    assert get(pages, "/readyz/linearizable_read").status == 503
    assert get(pages, "/readyz/data_corruption").status == 200
    assert get(pages, "/readyz?exclude=linearizable_read").body == b"ok\n"
    assert pages.metrics.server_health_failures == 2
    assert len(pages.log.of("http.check.failed")) == 2  # type: ignore[attr-defined]


def test_the_old_health_check_names_the_reason() -> None:
    node = FakeNode()
    pages = Pages(node, Metrics(), RecordingLog())
    assert json.loads(get(pages, "/health").body) == {"health": "true", "reason": ""}
    node.failing["linearizable_read"] = no_leader("n1 waits for n2, n3")
    response = get(pages, "/health")
    assert response.status == 503
    assert json.loads(response.body) == {
        "health": "false",
        "reason": "etcdserver: no leader: n1 waits for n2, n3",
    }


def test_a_learner_is_healthy_but_not_ready(pages: Pages) -> None:
    """As in etcd: clients are not sent to it, and the older check does not ask."""
    pages.node.failing["non_learner"] = not_for_learner()  # type: ignore[attr-defined]
    response = get(pages, "/readyz")
    assert response.status == 503
    assert b"[-]non_learner failed: not supported for learner\n" in response.body
    assert get(pages, "/readyz?exclude=non_learner").status == 200
    assert get(pages, "/livez").status == get(pages, "/health").status == 200


def test_unknown_pages_checks_and_methods(pages: Pages) -> None:
    assert get(pages, "/").status == 404
    assert b"/metrics" in get(pages, "/nothing").body
    response = get(pages, "/readyz/nothing")
    assert response.status == 404
    assert b"linearizable_read" in response.body
    response = get(pages, "/livez", "POST")
    assert (response.status, response.headers) == (405, (("Allow", "GET, HEAD"),))


def test_version(pages: Pages) -> None:
    response = get(pages, "/version")
    assert json.loads(response.body) == {"coordserver": "0.1.0", "coordcluster": "0.1.0"}
    assert response.content_type == "application/json"


def test_metrics(pages: Pages) -> None:
    pages.metrics.client_connections_total = 5
    response = get(pages, "/metrics")
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\ncoord_client_connections_total 5\n" in response.body
