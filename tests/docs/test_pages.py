"""Pages made from the code are current, links lead somewhere, and the samples in configs/ are right."""

import configparser
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from coord.config import OPTIONS, ServeConfig, load

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")


def test_the_page_of_log_events_is_current() -> None:
    spec = importlib.util.spec_from_file_location("logs", ROOT / "docs" / "logs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    broken = [link for link in targets if not (page.parent / link).exists()]
    assert not broken


SHOWN_AS_DEFAULT = {
    "listen-client-urls",
    "listen-peer-urls",
    "initial-cluster-token",
    "initial-cluster-state",
    "heartbeat-interval",
    "election-timeout",
    "snapshot-count",
    "quota-backend-bytes",
    "max-request-bytes",
    "max-txn-ops",
    "watch-progress-notify-interval",
    "auto-compaction-mode",
    "insecure",
    "log-level",
    "log-format",
}


def no_file(path: str) -> str:
    raise FileNotFoundError(path)


def uncommented(text: str) -> str:
    """Return the sample with its examples switched on."""
    return re.sub(r"^# (?=[a-z-]+ = )", "", text, flags=re.MULTILINE)


def test_the_sample_configuration_is_right_as_it_stands() -> None:
    config = load({"config-file": "configs/coord.toml"}, {}, lambda path: (ROOT / path).read_text(encoding="utf-8"))
    assert config.data_dir == "/var/lib/coord"
    assert config.compaction_period_ms == 3_600_000


def test_its_examples_are_options_and_its_defaults_are_the_defaults() -> None:
    text = uncommented((ROOT / "configs" / "coord.toml").read_text(encoding="utf-8"))
    document = tomllib.loads(text)
    assert document.keys() == {option.name for option in OPTIONS} - {"config-file"}, "every option is in the sample"
    examples = {
        name: value
        for name, value in document.items()
        if name not in {"initial-cluster", "initial-advertise-peer-urls"}
    }
    config, default = load(examples, {}, no_file), ServeConfig()
    for option in OPTIONS:
        if option.name in SHOWN_AS_DEFAULT:
            assert getattr(config, option.attribute) == getattr(default, option.attribute), option.name


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "configs" / "coord.service")
    return unit["Service"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("WatchdogSec", "10"),
        ("Restart", "on-failure"),
        ("KillMode", "mixed"),
        ("DynamicUser", "yes"),
        ("StateDirectory", "coord"),
        ("StateDirectoryMode", "0700"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("CapabilityBoundingSet", ""),
    ],
)
def test_the_unit_is_supervised_and_hardened(key: str, value: str) -> None:
    assert service()[key] == value


def test_the_unit_starts_what_there_is() -> None:
    command = service()["ExecStart"].split()
    assert command[1:2] == ["serve"]
    flags = {word.removeprefix("--"): "x" for word in command if word.startswith("--")}
    assert flags.keys() <= {option.name for option in OPTIONS}
    assert int(service()["TimeoutStopSec"]) > 10, "a node may take 10 s to end"


@pytest.mark.conformance
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "configs" / "coord.service").read_text(encoding="utf-8")
    unit = tmp_path / "coord.service"
    unit.write_text(text.replace("/usr/local/bin/coord", sys.executable), encoding="utf-8")
    run = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
