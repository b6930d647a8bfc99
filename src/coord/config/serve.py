"""`ServeConfig`: what a node is told, and which values go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from coord.config.addresses import Url
from coord.config.options import CLIENT_URL_DEFAULT, PEER_URL_DEFAULT
from coord.limits import (
    MAX_REQUEST_BYTES_DEFAULT,
    MAX_TXN_OPS_DEFAULT,
    QUOTA_BACKEND_BYTES_DEFAULT,
    WATCH_PROGRESS_INTERVAL_S_DEFAULT,
)

HEARTBEATS_PER_ELECTION_TIMEOUT = 5
"""Fewer, and one late heartbeat would cost a leader its term (Raft thesis §9.2)."""


@frozen
class ServeConfig:
    """What a node is told. Made by `load`, which checks it; durations and sizes carry their unit in the name.

    A single node on 127.0.0.1 by default. Unless given, the advertised URLs are those listened on, and the
    initial cluster is this node alone. `auto_compaction_retention` is milliseconds if the mode is `periodic`
    and revisions if it is `revision`; 0 is off.
    """

    config_file: str = ""
    name: str = "default"
    data_dir: str = "./coord.data"
    listen_client_urls: tuple[Url, ...] = (CLIENT_URL_DEFAULT,)
    advertise_client_urls: tuple[Url, ...] = field()
    listen_peer_urls: tuple[Url, ...] = (PEER_URL_DEFAULT,)
    initial_advertise_peer_urls: tuple[Url, ...] = field()
    initial_cluster: tuple[tuple[str, tuple[Url, ...]], ...] = field()
    initial_cluster_token: str = "coord-cluster"
    initial_cluster_state: str = "new"
    heartbeat_interval_ms: int = 100
    election_timeout_ms: int = 1_000
    snapshot_count: int = 10_000
    max_request_bytes: int = MAX_REQUEST_BYTES_DEFAULT
    max_txn_ops: int = MAX_TXN_OPS_DEFAULT
    quota_backend_bytes: int = QUOTA_BACKEND_BYTES_DEFAULT
    auto_compaction_mode: str = "periodic"
    auto_compaction_retention: int = 0
    watch_progress_notify_interval_ms: int = int(WATCH_PROGRESS_INTERVAL_S_DEFAULT * 1000)
    insecure: bool = False
    host_whitelist: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: str = "auto"
    sources: Mapping[str, str] = field(factory=dict, eq=False)
    """Option -> `flag`, `environment` or `file`, for those that were set."""
    unrecognized: tuple[str, ...] = field(default=(), eq=False)
    """Variables `COORD_…` that are no option: to be warned about, since a typing error would be silent."""

    @advertise_client_urls.default
    def _advertise_what_clients_reach(self) -> tuple[Url, ...]:
        return self.listen_client_urls

    @initial_advertise_peer_urls.default
    def _advertise_what_peers_reach(self) -> tuple[Url, ...]:
        return self.listen_peer_urls

    @initial_cluster.default
    def _alone(self) -> tuple[tuple[str, tuple[Url, ...]], ...]:
        return ((self.name, self.initial_advertise_peer_urls),)

    @property
    def compaction_period_ms(self) -> int:
        """How long history is kept, or 0 if it is not compacted by time."""
        return self.auto_compaction_retention if self.auto_compaction_mode == "periodic" else 0

    @property
    def compaction_revisions(self) -> int:
        """How many revisions are kept, or 0 if history is not compacted by revision."""
        return self.auto_compaction_retention if self.auto_compaction_mode == "revision" else 0


def check(config: ServeConfig) -> Iterator[tuple[str, str]]:
    """Yield `(option, what is allowed)` for values that are each fine but do not go together."""
    least_ms = HEARTBEATS_PER_ELECTION_TIMEOUT * config.heartbeat_interval_ms
    if config.election_timeout_ms < least_ms:
        yield (
            "election-timeout",
            f"allowed is {least_ms}ms or more: {HEARTBEATS_PER_ELECTION_TIMEOUT} times --heartbeat-interval",
        )
    yield from _check_listening(config)
    yield from _check_advertised(config)
    yield from _check_cluster(config)


def _check_listening(config: ServeConfig) -> Iterator[tuple[str, str]]:
    for option, urls in (
        ("listen-client-urls", config.listen_client_urls),
        ("listen-peer-urls", config.listen_peer_urls),
    ):
        for url in urls:
            if not url.is_bindable:
                yield option, f"allowed are IP addresses and localhost, not the name {url.host}"
            elif not url.is_loopback and not config.insecure:
                yield (
                    option,
                    f"{url} can be reached from other machines, and there is no TLS yet: "
                    "allowed are loopback addresses, or others with --insecure in a network that you trust",
                )
    for url in config.listen_peer_urls:
        if url.port and url in config.listen_client_urls:
            yield "listen-peer-urls", f"allowed are addresses other than those for clients, not {url}"


def _check_advertised(config: ServeConfig) -> Iterator[tuple[str, str]]:
    for option, urls in (
        ("advertise-client-urls", config.advertise_client_urls),
        ("initial-advertise-peer-urls", config.initial_advertise_peer_urls),
    ):
        for url in urls:
            if url.is_unspecified:
                yield option, f"nobody can connect to {url}: allowed are addresses that reach this machine"


def _check_cluster(config: ServeConfig) -> Iterator[tuple[str, str]]:
    members = dict(config.initial_cluster)
    if config.name not in members:
        yield "initial-cluster", f"it has to name this member, --name {config.name}"
    elif set(members[config.name]) != set(config.initial_advertise_peer_urls):
        advertised = ",".join(str(url) for url in config.initial_advertise_peer_urls)
        yield (
            "initial-cluster",
            f"its URLs of {config.name} have to be those of --initial-advertise-peer-urls: {advertised}",
        )
    urls = [url for _, member_urls in config.initial_cluster for url in member_urls]
    if len(urls) != len(set(urls)):
        yield "initial-cluster", "each peer URL belongs to one member"
    if config.initial_cluster_state == "existing" and len(members) < 2:
        yield "initial-cluster-state", "existing needs --initial-cluster with the other members"
