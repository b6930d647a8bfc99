"""Options: three sources, one grammar, and errors that say everything."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.config import OPTIONS, QUOTA_OFF, ServeConfig, Url, load
from coord.config.quantities import duration_ms, size_bytes
from coord.errors import ConfigError


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def mistakes(flags: dict[str, object], environ: dict[str, str] | None = None, file: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(flags, environ or {}, lambda path: file)
    return str(caught.value).split("\n")


def test_without_options_a_single_node_on_loopback() -> None:
    config = load({}, {}, no_file)
    assert config == ServeConfig()
    assert config.listen_client_urls == (Url("127.0.0.1", 7379),)
    assert config.listen_peer_urls == (Url("127.0.0.1", 7380),)
    assert config.initial_cluster == (("default", (Url("127.0.0.1", 7380),)),)
    assert config.data_dir == "./coord.data"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_default_in_the_help_is_the_default(option) -> None:
    shown_in_words = {"none", "as listened", "this member alone", "its own addresses"}
    default = getattr(ServeConfig(), option.attribute)
    if option.default in shown_in_words:
        return
    if option.name == "auto-compaction-retention":
        assert (option.default, default) == ("0", 0)
    else:
        assert option.parse(option.default) == default


def test_flags_win_over_the_environment_and_that_over_the_file() -> None:
    file = 'name = "file"\ndata-dir = "file"\nmax-txn-ops = 7\nconfig-unused = 1'.replace("config-unused = 1", "")
    config = load(
        {"config-file": "coord.toml", "name": "flag", "insecure": None},
        {"COORD_NAME": "environment", "COORD_DATA_DIR": "environment"},
        lambda path: file,
    )
    assert (config.name, config.data_dir, config.max_txn_ops) == ("flag", "environment", 7)
    assert dict(config.sources) == {
        "config-file": "flag",
        "name": "flag",
        "data-dir": "environment",
        "max-txn-ops": "file",
    }


def test_the_file_can_be_named_by_the_environment_and_holds_lists_and_booleans() -> None:
    urls = '["http://10.0.0.1:1", "http://127.0.0.1:1"]'
    file = f"insecure = true\nlisten-client-urls = {urls}\nheartbeat-interval = 50"
    config = load({}, {"COORD_CONFIG_FILE": "x.toml"}, lambda path: file if path == "x.toml" else no_file(path))
    assert config.insecure
    assert config.listen_client_urls == (Url("10.0.0.1", 1), Url("127.0.0.1", 1))
    assert config.advertise_client_urls == config.listen_client_urls
    assert config.heartbeat_interval_ms == 50


def test_an_empty_variable_is_unset() -> None:
    assert load({}, {"COORD_NAME": ""}, no_file).name == "default"


def test_an_error_names_option_value_source_and_what_is_allowed() -> None:
    assert mistakes({"heartbeat-interval": "soon"}) == [
        '--heartbeat-interval is "soon" (given as a flag); allowed is a duration such as 150ms, 10s or 1h30m'
    ]
    assert mistakes({}, {"COORD_MAX_TXN_OPS": "-1"}) == [
        '--max-txn-ops is "-1" (from COORD_MAX_TXN_OPS); allowed is a whole number from 1 to 10000'
    ]
    assert mistakes({"config-file": "c.toml"}, file='log-level = "loud"') == [
        '--log-level is "loud" (from c.toml); allowed is one of debug, info, warn, error'
    ]


def test_all_mistakes_are_told_at_once() -> None:
    assert len(mistakes({"name": "a,b", "cors": "ui.example"}, {"COORD_SNAPSHOT_COUNT": "many"})) == 3


def test_unknown_options_are_refused_with_a_guess() -> None:
    assert mistakes({"config-file": "c.toml"}, file="data_dir = 1") == [
        "c.toml: data_dir is no option; is data-dir meant?"
    ]
    assert mistakes({"nonsense": "red"}) == ["--nonsense is no option; `coord serve --help` lists them"]
    assert "no option" in mistakes({"config-file": "c.toml"}, file='config-file = "d"')[0]


def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match=r'"missing.toml" \(given as a flag\); it cannot be read: .*No such file'):
        load({"config-file": "missing.toml"}, {}, no_file)
    assert "cannot be read" in mistakes({"config-file": "c.toml"}, file="name =")[0]


def test_variables_that_are_no_option_are_noticed() -> None:
    environ = {
        "COORD_DATADIR": "x",
        "COORD_ENDPOINTS": "e",
        "COORD_WATCH_KEY": "k",
        "COORD_NAME": "n",
        "HOME": "/",
    }
    assert load({}, environ, no_file).unrecognized == ("COORD_DATADIR",)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"election-timeout": "499ms"}, "--election-timeout"),
        ({"heartbeat-interval": "201ms"}, "--election-timeout is 1s (by default); allowed is 1005ms or more"),
        ({"listen-client-urls": "http://10.0.0.1:7379"}, "--insecure"),
        ({"listen-peer-urls": "http://[::]:7380", "insecure": "true"}, "--initial-advertise-peer-urls"),
        ({"listen-client-urls": "http://node.example:7379", "insecure": True}, "not the name node.example"),
        ({"listen-peer-urls": "http://127.0.0.1:7379"}, "other than those for clients"),
        ({"initial-cluster": "other=http://127.0.0.1:7380"}, "it has to name this member, --name default"),
        (
            {"initial-cluster": "default=http://127.0.0.1:9"},
            "--initial-advertise-peer-urls: http://127.0.0.1:7380",
        ),
        (
            {"initial-cluster": "default=http://127.0.0.1:7380,n2=http://127.0.0.1:7380"},
            "each peer URL belongs to one member",
        ),
        ({"initial-cluster-state": "existing"}, "--initial-cluster with the other members"),
        ({"auto-compaction-mode": "revision", "auto-compaction-retention": "1h"}, "a number of revisions"),
        ({"auto-compaction-retention": "-1"}, "a plain number is hours"),
        ({"listen-client-urls": "https://127.0.0.1:1"}, "no TLS yet"),
        ({"listen-client-urls": "http://127.0.0.1"}, "URLs such as"),
        ({"listen-client-urls": "http://127.0.0.1:1,http://127.0.0.1:1"}, "each URL once"),
        ({"listen-client-urls": "http://127.0.0.1:1/x"}, "URLs such as"),
        ({"host-whitelist": "http://a"}, "host names without scheme"),
        ({"initial-cluster": "http://a:1"}, "n1=http://10.0.0.1:7380"),
        ({"max-request-bytes": "8MiB"}, "from 1024 to 7340032 bytes"),
    ],
)
def test_values_that_cannot_be_are_refused(flags: dict[str, object], expected: str) -> None:
    assert expected in "\n".join(mistakes(flags))


def test_etcds_grammar_of_compaction_and_quota() -> None:
    def config(**flags: str) -> ServeConfig:
        return load({name.replace("_", "-"): text for name, text in flags.items()}, {}, no_file)

    assert config(auto_compaction_retention="1").compaction_period_ms == 3_600_000
    assert config(auto_compaction_retention="90m").compaction_period_ms == 5_400_000
    by_revision = config(auto_compaction_mode="revision", auto_compaction_retention="1000")
    assert (by_revision.compaction_revisions, by_revision.compaction_period_ms) == (1000, 0)
    assert config().compaction_period_ms == config().compaction_revisions == 0
    assert config(quota_backend_bytes="0").quota_backend_bytes == 2 * 1024**3
    assert config(quota_backend_bytes="-5").quota_backend_bytes == QUOTA_OFF
    assert config(quota_backend_bytes="64MiB").quota_backend_bytes == 64 * 1024**2


def test_three_members() -> None:
    config = load(
        {
            "name": "n2",
            "insecure": True,
            "listen-client-urls": "http://0.0.0.0:7379",
            "advertise-client-urls": "http://n2.example:7379",
            "listen-peer-urls": "http://10.0.0.2:7380",
            "initial-cluster": "n1=http://10.0.0.1:7380, n2=http://10.0.0.2:7380,n3=http://[fd00::3]:7380",
        },
        {},
        no_file,
    )
    assert [name for name, _ in config.initial_cluster] == ["n1", "n2", "n3"]
    assert str(config.initial_cluster[2][1][0]) == "http://[fd00::3]:7380"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("150", 150),
        ("1.5s", 1_500),
        ("1h30m", 5_400_000),
        ("100us", 1),
        ("0", 0),
        ("0s", 0),
        ("2m0.5s", 120_500),
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert duration_ms(text, plain_ms=1) == expected


@pytest.mark.parametrize("text", ["", "s", "1", "-1s", "1 s", "1d", "1s5", "½s", "1e3s", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    if text == "1":
        assert duration_ms(text, plain_ms=7) == 7
        return
    with pytest.raises(ValueError, match="such as 150ms"):
        duration_ms(text, plain_ms=1)


@pytest.mark.parametrize(("text", "expected"), [("7", 7), ("1.5KiB", 1536), ("10MB", 10**7), ("2 GiB", 2**31)])
def test_sizes(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@given(st.text(max_size=20), st.sampled_from(OPTIONS))
def test_no_text_breaks_an_option(text: str, option) -> None:
    """Whatever is given, there is a configuration or a ConfigError."""
    with contextlib.suppress(ConfigError):
        assert load({option.name: text}, {}, no_file).sources == {option.name: "flag"}
