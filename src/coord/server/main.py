"""The life of a node's process: recover, serve, and end in order.

recover ─► listen ─► run actors and gateway ─► SIGTERM: goodbye, drain, flush, sync ─► end
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio
from attrs import define, field

from coord import __version__
from coord.config import QUOTA_OFF, ServeConfig
from coord.disk import Disk, RealDisk
from coord.errors import NodeError
from coord.limits import SNAPSHOT_SHARE
from coord.mvcc.machine import StateMachine
from coord.node.arrival import Flags, arrive, is_settled, options_of
from coord.node.node import Node
from coord.node.options import Options, Seams
from coord.node.worker import ThreadWorker
from coord.observe.kinds import Level
from coord.observe.log import Log, LogContext, open_log
from coord.observe.metrics import Metrics
from coord.observe.sdnotify import Notifier
from coord.server.collect import collect
from coord.server.gateway import Gateway
from coord.server.health import Watchdog
from coord.server.peer_gateway import PeerGateway, SocketNetwork
from coord.store.courtesy import Courtesy
from coord.store.identity import DataDirectory, open_data_directory
from coord.store.mapped import StoreMap
from coord.store.store import open_store
from coord.transport.hub import current_hub
from coord.wal.recovery import recover

SHUTDOWN_S = 8.0
"""An orderly end takes no longer; whatever it does not reach, a restart recovers from the log."""
_SWITCH_INTERVAL_S = 0.0005
"""How long a thread keeps the interpreter while another wants it: with Python's 5 ms the log's thread would wait that
long after each sync, behind a busy loop."""
_TRIM_INTERVAL_S = 1.0


def run(config: ServeConfig) -> int:
    """Run a node until it is asked to stop; return the exit status."""
    log = open_log(Level[config.log_level.upper()], config.log_format, os.environ)
    log.context = lambda: LogContext(config.name)
    notifier = Notifier.from_environ(os.environ)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        with _recovered(config, log, notifier) as process:
            trio.run(process.run)
    except NodeError as error:
        log("node.process.failed", actor="node", error=error)
        return 1
    except BaseExceptionGroup as group:
        reasons = list(_leaves(group))
        for reason in reasons:
            log("node.process.failed", actor="node", error=reason)
        if not all(isinstance(reason, NodeError) for reason in reasons):
            raise
        return 1
    finally:
        log.pump(1.0)
        notifier.close()
    return 0


@define(eq=False)
class Process:
    """Everything a running node's process owns."""

    config: ServeConfig
    log: Log
    notifier: Notifier
    make_node: Callable[[Seams], Node]
    disk: Disk
    directory: DataDirectory
    store_map: StoreMap
    started: float
    metrics: Metrics = field(factory=Metrics)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; the second one cuts the orderly end short."""
        config, log = self.config, self.log
        workers = [ThreadWorker(f"coord-{name}") for name in ("log", "store", "prepare", "snapshot")]
        seams = Seams(
            # What Trio's own clock reads, without three calls of Python's around it.
            clock=time.monotonic,
            new_id=_new_id,
            log=log,
            log_worker=workers[0],
            store_worker=workers[1],
            prepare_worker=workers[2],
            snapshot_worker=workers[3],
            network=SocketNetwork(),
            memory=self.directory,
            disk=self.disk,
            snapshots=self.directory.snapshots,
            chance=random.Random(),
            observe_sync=self.metrics.disk_wal_fsync_duration_seconds.observe,
            observe_commit=self.metrics.disk_backend_commit_duration_seconds.observe,
            owed_s=Courtesy(SNAPSHOT_SHARE).owed_s,
        )
        node = self.make_node(seams)
        if (hub := current_hub()) is not None:
            hub.let_linger(unless=lambda: node.loop.is_awake)
        log.context = lambda: LogContext(config.name, node.cluster_id, node.raft_term, node.raft.role.name.lower())
        hosts = [url.host for url in config.advertise_client_urls]
        gateway = Gateway(node, log, self.metrics, (*hosts, *config.host_whitelist), config.cors)
        urls = gateway.listen(config.listen_client_urls)
        peer_hosts = [url.host for url in config.initial_advertise_peer_urls]
        peer_gateway = PeerGateway(node.peers, log, (*peer_hosts, *config.host_whitelist))
        peer_urls = peer_gateway.listen(config.listen_peer_urls)
        self.metrics.collectors.append(lambda: collect(self.metrics, node))
        watchdog = Watchdog(node, self.notifier, log)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(peer_gateway.serve)
                nursery.start_soon(node.run)
                nursery.start_soon(watchdog.run)
                nursery.start_soon(self._trim_memory)
                await node.ready.wait()
                await nursery.start(gateway.serve)
                self.notifier.ready(watchdog.status())
                log(
                    "node.service.ready",
                    client_urls=[str(url) for url in urls],
                    peer_urls=[str(url) for url in peer_urls],
                    revision=node.revision,
                    ms=round((time.monotonic() - self.started) * 1000, 1),
                )
                await self._until_stopped(node, gateway)
                nursery.cancel_scope.cancel()
        finally:
            are_closed = [worker.close() for worker in workers]
            if not all(are_closed):
                # A thread hangs in the kernel, on a disk that does not answer, and holds the files open. All that was
                # acknowledged is in the log; waiting for systemd's SIGKILL would change nothing.
                log("node.shutdown.forced", reason="a worker hangs on the disk")
                log.pump(1.0)
                os._exit(1)

    async def _trim_memory(self) -> None:
        while True:
            await trio.sleep(_TRIM_INTERVAL_S)
            self.store_map.trim()

    async def _until_stopped(self, node: Node, gateway: Gateway) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            reason = await _reason_to_stop(node, signals)
            started = trio.current_time()
            self.log("node.shutdown.started", reason=reason)
            self.notifier.stopping(f"stopping after {reason}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end, node, gateway, nursery.cancel_scope)
                nursery.start_soon(self._second_signal, signals, nursery.cancel_scope)
            self.log("node.shutdown.finished", ms=round((trio.current_time() - started) * 1000, 1))

    async def _end(self, node: Node, gateway: Gateway, scope: trio.CancelScope) -> None:
        with trio.move_on_after(SHUTDOWN_S) as limit:
            await gateway.leave("server stopped", node.stop)
        if limit.cancelled_caught:
            self.log("node.shutdown.forced", reason=f"not done within {SHUTDOWN_S} s")
        scope.cancel()

    async def _second_signal(self, signals: object, scope: trio.CancelScope) -> None:
        await anext(signals)  # type: ignore[call-overload]  # trio's iterator has no exported type
        self.log("node.shutdown.forced", reason="a second signal")
        scope.cancel()


@contextmanager
def _recovered(config: ServeConfig, log: Log, notifier: Notifier) -> Iterator[Process]:
    """Open what the data directory holds, and close it at the end. Raises `NodeError`."""
    started = time.monotonic()
    _announce(config, log)
    disk = RealDisk()
    chance = random.SystemRandom()
    flags = _flags(config)
    with ExitStack() as cleanup:
        directory = open_data_directory(
            disk,
            Path(config.data_dir).absolute(),
            member=flags.member_id,
            token=flags.token,
            random64=lambda: chance.randrange(1, 2**64),
        )
        cleanup.callback(directory.close)
        _tell_identity(directory, log)
        if not is_settled(directory, flags) and not trio.run(_arrive, directory, flags, config, log, notifier):
            raise SystemExit(0)
        member = directory.identity.member
        notifier.extend_timeout(60)
        recovering = time.monotonic()
        wal, recovery = recover(disk, directory.wal, member, salt=lambda: chance.getrandbits(32))
        cleanup.callback(wal.close)
        for name, fields in recovery.notes:
            log(name, **fields)
        log(
            "wal.log.recovered",
            segments=wal.statistics().segments,
            first_index=recovery.start_index + 1,
            last_index=recovery.last_index,
            commit=recovery.hard_state.commit,
            vote=recovery.hard_state.vote,
            ms=round((time.monotonic() - recovering) * 1000, 1),
        )
        mark = recovery.snapshot
        opening = time.monotonic()
        marker = None if mark is None else (mark.index, mark.term)
        store = open_store(disk, directory.store, marker, new_rest=lambda: Courtesy(SNAPSHOT_SHARE).rest)
        cleanup.callback(store.close)
        log(
            "store.environment.opened",
            applied=store.applied_index,
            size_bytes=store.space().size_bytes,
            ms=round((time.monotonic() - opening) * 1000, 1),
        )
        machine = StateMachine(store)
        store_map = StoreMap(directory.store)
        _load(machine, store_map, log, notifier)
        options = _options(config, flags, directory)

        def make_node(seams: Seams) -> Node:
            return Node.recover(options, seams, store, machine, wal, recovery)

        yield Process(config, log, notifier, make_node, disk, directory, store_map, started)


async def _arrive(directory: DataDirectory, flags: Flags, config: ServeConfig, log: Log, notifier: Notifier) -> bool:
    """Settle how this member comes into its cluster; False if it was asked to stop while it waited for that."""
    patience_s = config.election_timeout_ms / 1000
    has_arrived = False

    def wait() -> None:
        notifier.extend_timeout(30)
        log.pump()

    async def stop(scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            log("node.shutdown.started", reason=signal.Signals(await anext(signals)).name)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop, nursery.cancel_scope)
        await arrive(directory, flags, SocketNetwork(), log, random.Random(), trio.current_time, patience_s, wait)
        has_arrived = True
        nursery.cancel_scope.cancel()
    return has_arrived


async def _reason_to_stop(node: Node, signals: AsyncIterator[int]) -> str:
    """Wait for a signal, or for the cluster to have removed this member."""
    reason = "this member was removed from the cluster"

    async def take_signal(scope: trio.CancelScope) -> None:
        nonlocal reason
        reason = signal.Signals(await anext(signals)).name
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_signal, nursery.cancel_scope)
        await node.removed.wait()
        nursery.cancel_scope.cancel()
    return reason


def _tell_identity(directory: DataDirectory, log: Log) -> None:
    identity = directory.identity
    if directory.is_new:
        log("node.identity.created", member=identity.member, incarnation=identity.incarnation)
    log("node.identity.loaded", member=identity.member, incarnation=identity.incarnation, boot=identity.boot)


def _load(machine: StateMachine, store_map: StoreMap, log: Log, notifier: Notifier) -> None:
    """Rebuild the index, without the collector, which would walk over it again and again while it grows."""
    started = time.monotonic()
    gc.disable()
    try:
        for number, _ in enumerate(machine.load()):
            if number % 100 == 0:
                notifier.extend_timeout(30)
                store_map.trim()
    finally:
        gc.enable()
    store_map.trim()
    # A full collection over a large index stalls the loop for tenths of a second, and none of it is garbage.
    gc.collect()
    gc.freeze()
    log(
        "store.state.loaded",
        keys=machine.key_count,
        revision=machine.revision,
        applied=machine.applied_index,
        ms=round((time.monotonic() - started) * 1000, 1),
    )


def _flags(config: ServeConfig) -> Flags:
    return Flags(
        name=config.name,
        peer_urls=tuple(map(str, config.initial_advertise_peer_urls)),
        client_urls=tuple(map(str, config.advertise_client_urls)),
        token=config.initial_cluster_token,
        initial_cluster=tuple((name, tuple(map(str, urls))) for name, urls in config.initial_cluster),
        is_existing=config.initial_cluster_state == "existing",
    )


def _options(config: ServeConfig, flags: Flags, directory: DataDirectory) -> Options:
    periodic = config.auto_compaction_mode == "periodic"
    return options_of(
        flags,
        directory.identity,
        heartbeat_s=config.heartbeat_interval_ms / 1000,
        election_s=config.election_timeout_ms / 1000,
        max_request_bytes=config.max_request_bytes,
        max_txn_ops=config.max_txn_ops,
        quota_bytes=0 if config.quota_backend_bytes == QUOTA_OFF else config.quota_backend_bytes,
        compaction_mode=config.auto_compaction_mode,
        compaction_retention=config.auto_compaction_retention / 1000 if periodic else config.auto_compaction_retention,
        snapshot_count=config.snapshot_count,
        progress_interval_s=config.watch_progress_notify_interval_ms / 1000,
    )


def _announce(config: ServeConfig, log: Log) -> None:
    log(
        "node.process.started",
        version=__version__,
        python=sys.version.split()[0],
        pid=os.getpid(),
        data_dir=config.data_dir,
    )
    by_source = {
        source: sorted(option for option, where in config.sources.items() if where == source)
        for source in ("flag", "environment", "file")
    }
    log(
        "config.options.loaded",
        flags=by_source["flag"],
        environment=by_source["environment"],
        file=by_source["file"],
    )
    for name in config.unrecognized:
        log("config.variable.unrecognized", name=name)
    for url in config.listen_client_urls:
        if not url.is_loopback:
            log("config.bind.exposed", url=str(url))


def _new_id() -> int:
    return random.SystemRandom().randrange(1, 2**63)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
