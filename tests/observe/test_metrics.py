"""The Prometheus text: what a scraper must be able to read."""

import re

from attrs import fields

from coord.observe.metrics import Histogram, Metrics, render
from coord.observe.process import render_process

SAMPLE = re.compile(r'[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\.)*"\})? [0-9.e+-]+|# (HELP|TYPE) [a-z_]+ .+')


def samples(text: str) -> dict[str, float]:
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    }


def test_every_line_is_of_the_format() -> None:
    metrics = Metrics()
    metrics.client_errors_total['odd "code"\\\n'] += 1
    metrics.server_id["abc"] = 1
    for text in (render(metrics), render_process()):
        assert text.endswith("\n")
        for line in text.splitlines():
            assert SAMPLE.fullmatch(line.replace("+Inf", "inf")), line


def test_counters_gauges_and_labels() -> None:
    metrics = Metrics()
    metrics.mvcc_put_total += 3
    metrics.client_requests_total["put"] += 2
    metrics.collectors.append(lambda: setattr(metrics, "server_is_leader", 1))
    found = samples(render(metrics))
    assert found["coord_mvcc_put_total"] == 3
    assert found['coord_client_requests_total{method="put"}'] == 2
    assert found["coord_server_is_leader"] == 1


def test_a_histogram_is_cumulative() -> None:
    metrics = Metrics()
    metrics.disk_wal_fsync_duration_seconds = Histogram((0.001, 0.01))
    for value in (0.0005, 0.001, 0.002, 5.0):
        metrics.disk_wal_fsync_duration_seconds.observe(value)
    found = samples(render(metrics))
    name = "coord_disk_wal_fsync_duration_seconds"
    assert [found[f'{name}_bucket{{le="{bound}"}}'] for bound in ("0.001", "0.01", "+Inf")] == [2, 3, 4]
    assert found[f"{name}_count"] == 4
    assert abs(found[f"{name}_sum"] - 5.0035) < 1e-9


def test_counters_are_named_as_such() -> None:
    gauges_that_etcd_calls_total = {
        "server_proposals_committed_total",
        "server_proposals_applied_total",
        "mvcc_keys_total",
        "mvcc_pending_events_total",
        "mvcc_watch_stream_total",
        "mvcc_watcher_total",
        "mvcc_slow_watcher_total",
    }
    for attribute in fields(Metrics):
        kind = attribute.metadata.get("type")
        if kind == "counter" and attribute.name != "server_health_failures":
            assert attribute.name.endswith("_total"), attribute.name
        if kind == "gauge" and attribute.name.endswith("_total"):
            assert attribute.name in gauges_that_etcd_calls_total
        if kind == "histogram":
            assert attribute.name.endswith("_seconds")


def test_the_process_figures_are_plausible() -> None:
    found = samples(render_process())
    assert found["process_cpu_seconds_total"] > 0
    assert 1e6 < found.get("process_resident_memory_bytes", 1e7) < 1e10
