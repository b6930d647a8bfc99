"""The sides of a comparison: three nodes of coord, three of etcd, and Redis where it is installed, for context."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from attrs import define, field

import coord
from cluster import HOST, READY_TIMEOUT_S, STOP_TIMEOUT_S, free_port, metrics
from load import cpu_s

BENCH = Path(__file__).parent
BUILT = BENCH.parent / "build"
GO_PATH = Path("/usr/share/gocode")
NODES = 3
QUOTA_BYTES = 8 << 30
"""Of every node: no row may end in an alarm."""
PACKAGES = "apt-get install etcd-server golang-go golang-etcd-server-dev"
CLEAR_PEAK = "5"
"""What /proc/PID/clear_refs takes to begin to look for the peak of memory anew."""


@define(eq=False)
class Member:
    """One node of either side, which can be killed and started again on its data."""

    command: list[str]
    """Without what is the cluster's."""
    endpoint: str
    peer_url: str
    name: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, initial_cluster: str) -> None:
        with self.log.open("ab") as log:
            flags = [
                f"--name={self.name}",
                f"--listen-client-urls=http://{self.endpoint}",
                f"--advertise-client-urls=http://{self.endpoint}",
                f"--listen-peer-urls={self.peer_url}",
                f"--initial-advertise-peer-urls={self.peer_url}",
                f"--initial-cluster={initial_cluster}",
                f"--quota-backend-bytes={QUOTA_BYTES}",
                "--log-level=error",
            ]
            self.process = subprocess.Popen([*self.command, *flags], stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


@define(eq=False)
class ClusterSide:
    """Three nodes that take etcd's flags, as both do."""

    name: str
    version: str
    load: list[str]
    """The program that loads it."""
    members: list[Member]
    ready_path: str

    @property
    def pids(self) -> list[int]:
        return [member.pid for member in self.members]

    @property
    def _initial_cluster(self) -> str:
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def start(self) -> None:
        for member in self.members:
            member.start(self._initial_cluster)
        for member in self.members:
            self._wait_ready(member)

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def endpoints(self) -> str:
        """Return the endpoints, the leader's first: what has one connection has it to the leader."""
        leader = self.leader()
        others = [member.endpoint for member in self.members if member is not leader]
        return ",".join([leader.endpoint, *others])

    def leader(self) -> Member:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            for member in self.members:
                try:
                    if metrics(member.endpoint)[f"{self.name}_server_is_leader"]:
                        return member
                except OSError:
                    continue
            time.sleep(0.05)
        raise TimeoutError(f"{self.name}: nobody leads after {READY_TIMEOUT_S:g} s; see {self.members[0].log.parent}")

    def restart(self, member: Member) -> None:
        member.start(self._initial_cluster)
        self._wait_ready(member)

    def _wait_ready(self, member: Member) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            assert member.process is not None
            if member.process.poll() is not None:
                raise RuntimeError(f"{self.name}: {member.name} has ended: {member.log.read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"http://{member.endpoint}{self.ready_path}", timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"{self.name}: {member.name} is not ready after {READY_TIMEOUT_S:g} s; see {member.log}")


def coord_side(directory: Path) -> ClusterSide:
    command = [sys.executable, "-m", "coord", "serve"]
    load = [sys.executable, str(BENCH / "coordload.py")]
    version = f"{coord.__version__} ({described()}), Python {sys.version.split()[0]}"
    return ClusterSide("coord", version, load, members_in(directory / "coord", command), "/readyz")


def etcd_side(directory: Path) -> ClusterSide:
    command = ["etcd", "--logger=zap", "--enable-pprof=false"]
    version = output("etcd", "--version").splitlines()[0].rpartition(" ")[2]
    version = f"{version}, client {output('go', 'version').split()[2]}"
    return ClusterSide("etcd", version, [str(build_etcdload())], members_in(directory / "etcd", command), "/health")


def members_in(directory: Path, command: list[str]) -> list[Member]:
    directory.mkdir(parents=True)
    members = []
    for number in range(NODES):
        name = f"n{number + 1}"
        members.append(
            Member(
                [*command, f"--data-dir={directory / name}"],
                f"{HOST}:{free_port()}",
                f"http://{HOST}:{free_port()}",
                name,
                directory / f"{name}.log",
            )
        )
    return members


def missing() -> str:
    """Say what a comparison needs and does not find; empty if it has all."""
    lacks = [program for program in ("etcd", "go") if shutil.which(program) is None]
    if not (GO_PATH / "src/go.etcd.io/etcd/clientv3").is_dir():
        lacks.append("etcd's Go client")
    return f"needs {', '.join(lacks)}: {PACKAGES}" if lacks else ""


def build_etcdload() -> Path:
    """Build the program that loads etcd from Debian's sources, without modules and without the network."""
    BUILT.mkdir(exist_ok=True)
    program = BUILT / "etcdload"
    environ = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=BENCH / "etcdload", env=environ, check=True)
    return program


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCH).stdout.strip()


def described() -> str:
    """Name the commit that is measured, and say if the working tree has more than that."""
    try:
        return output("git", "describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return "not from a checkout"


@define
class Usage:
    """What the processes of a side take: CPU since it was made, and the most memory since then."""

    pids: list[int]
    _began_s: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text(CLEAR_PEAK)
        self._began_s = sum(map(cpu_s, self.pids))

    def cpu_s(self) -> float:
        return sum(map(cpu_s, self.pids)) - self._began_s

    def peak_mib(self) -> float:
        """Return the sum of the peaks of resident memory, which need not have been at one time."""
        return sum(map(peak_mib, self.pids))


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def machine(directory: Path) -> dict[str, object]:
    """Describe where this runs."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processors": f"{len(os.sched_getaffinity(0))} of {len(cpus)}, {cpus[0] if cpus else 'unknown'}",
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "kernel": os.uname().release,
        "file_system": output("stat", "--file-system", "--format=%T", str(directory)),
        "load_average": os.getloadavg()[0],
    }
