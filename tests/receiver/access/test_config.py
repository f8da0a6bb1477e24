from __future__ import annotations

import re
import stat
from datetime import time
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.access import config
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.store_s3.place import BucketPlace

MINIMAL = 'store = "/srv/backups"\nstore-id = "0123"\n'


def _load(folder: Path, text: str) -> ReceiverSettings:
    path = folder / "receiver.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def _wrong(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        _load(folder, text)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(folder / "receiver.toml"))
    return said


def test_what_is_not_said_has_the_designs_defaults(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL)
    assert settings.store == Path("/srv/backups")
    assert (settings.listen, settings.min_free, settings.unidentified) == (":7433", SizeOrShare(1 << 30), 256)
    assert (settings.tries_per_minute, settings.identify_within, settings.silence) == (20, 10.0, 30.0)
    assert (settings.partial_keep, settings.partial_max) == (14 * 86400.0, None)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert _load(tmp_path, "\ufeff" + MINIMAL).store == Path("/srv/backups")


def test_sizes_and_durations_are_written_as_people_write_them(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL + 'min-free = "20G"\nshutdown-grace = "2m"\nsilence = 12.5\n')
    assert (settings.min_free, settings.shutdown_grace, settings.silence) == (SizeOrShare(20 << 30), 120.0, 12.5)
    settings = _load(tmp_path, MINIMAL + 'partial-keep = "3d"\npartial-max = "500G"\n')
    assert (settings.partial_keep, settings.partial_max) == (3 * 86400.0, 500 << 30)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('stor = "/x"', "unknown key 'stor'; did you mean 'store'?"),
        ('min_free = "1G"', "unknown key 'min_free'; did you mean 'min-free'?"),
        ('min-free = "much"', "min-free: 'much' is not a size"),
        ('silence = "soon"', "silence: 'soon' is not a duration"),
        ('partial-keep = "long"', "partial-keep: 'long' is not a duration"),
        ('partial-max = "all"', "partial-max: 'all' is not a size"),
        ("connections = 0", "connections: "),
        (
            'metrics-file = "fullsend.prom"',
            "metrics-file: 'fullsend.prom' is not an absolute path that ends",
        ),
        ('metrics-file = "/srv/fullsend.txt"', "node_exporter reads no other files"),
        ('metrics-listen = ":9812"', "metrics-listen: ':9812' is not an address of this host alone"),
        ('metrics-listen = "0.0.0.0:9812"', "is not an address of this host alone"),
        ('metrics-listen = "backup.example:9812"', "is not an address of this host alone"),
        ('metrics-listen = "127.0.0.1"', "metrics-listen: '127.0.0.1' is not HOST:PORT"),
        ('metrics-listen = "[::1]:7433"', "metrics-listen: port 7433 is that of `listen`"),
        ("metrics-datasets = -1", "metrics-datasets: "),
        ('heartbeat-every = "30s"', "heartbeat-every: Input should be less than 30"),
        ('heartbeat-every = "0s"', "heartbeat-every: Input should be greater than 0"),
        ('listen = "nowhere"', "listen: 'nowhere' is not HOST:PORT"),
        ('advertise = "host:99999"', "advertise: 'host:99999' is not HOST:PORT"),
        ('prune-at = "3:30"', """prune-at: '3:30' is not a time of day such as "03:30", nor "never\""""),
        ('prune-at = "24:00"', "prune-at: '24:00' is not a time of day"),
        ("prune-at = 3", "prune-at: 3 is not a time of day"),
        ('prune-at-most = "130%"', "prune-at-most: Input should be less than or equal to 1"),
        ("prune-at-most = 20", 'prune-at-most: 20 is not a share: write one such as "20%"'),
        ('when-full = "prune"', "when-full: Input should be 'refuse' or 'prune-early'"),
        ('report-file = "index.html"', "report-file: 'index.html' is not an absolute path"),
        ('report-every = "5s"', "report-every: Input should be greater than or equal to 60"),
        ('report-at = "6:00"', "report-at: '6:00' is not a time of day"),
        ("x", "Expected '='"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, line: str, says: str) -> None:
    assert says in _wrong(tmp_path, MINIMAL + line + "\n")


def test_metrics_are_on_this_host_alone(tmp_path: Path) -> None:
    for address in ("127.0.0.1:9812", "127.1.2.3:0", "[::1]:9812"):
        assert _load(tmp_path, MINIMAL + f'metrics-listen = "{address}"\n').metrics_listen == address
    settings = _load(tmp_path, MINIMAL)
    assert (settings.metrics_file, settings.metrics_listen, settings.metrics_datasets) == (None, None, 2000)


def test_the_settings_of_the_report(tmp_path: Path) -> None:
    plain = _load(tmp_path, MINIMAL)
    assert (plain.report_file, plain.report_every, plain.report_at) == (None, 3600.0, None)
    settings = _load(tmp_path, MINIMAL + 'report-file = "/srv/www/index.html"\nreport-at = "06:00"\n')
    assert settings.report_file == Path("/srv/www/index.html")
    assert settings.report_at == time(6, 0)


def test_a_quota_is_of_all_senders_or_of_one(tmp_path: Path) -> None:
    assert _load(tmp_path, MINIMAL).quota_of("alpha") is None
    settings = _load(
        tmp_path,
        MINIMAL + 'quota = "2T"\n[senders.alpha]\nquota = "500G"\n[senders.beta]\nquota = "none"\n[senders.gamma]\n',
    )
    quotas = [settings.quota_of(name) for name in ("alpha", "beta", "gamma", "delta")]
    assert quotas == [500 << 30, None, 2 << 40, 2 << 40]


def test_what_stays_free_may_be_a_share(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL + 'min-free = "5%"\nwarn-at = "90%"\n')
    assert settings.min_free.of(1000) == 50
    assert settings.warn_at == pytest.approx(0.9)
    assert _load(tmp_path, MINIMAL).warn_at == 0.85


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('quota = "all"', "quota: 'all' is not a size"),
        ('[senders.alpha]\nquote = "1T"', "unknown key 'senders.alpha.quote'; did you mean 'quota'?"),
        ('[senders.Alpha]\nquota = "1T"', "senders.Alpha.[key]: is not a sender's name"),
        ("warn-at = 0.9", "warn-at: 0.9 is not a share"),
    ],
)
def test_what_is_wrong_with_a_quota_is_named(tmp_path: Path, lines: str, says: str) -> None:
    assert says in _wrong(tmp_path, MINIMAL + lines + "\n")


def test_what_lacks_is_named(tmp_path: Path) -> None:
    assert "store-id: Field required" in _wrong(tmp_path, 'store = "/srv"\n')


def test_a_file_that_is_not_there_leads_to_init(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file; make a store with `fullsendd init`"):
        config.load(tmp_path / "receiver.toml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "receiver.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        config.load(tmp_path / "receiver.toml")


def test_the_argument_goes_before_the_environment_and_that_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FULLSENDD_CONFIG", raising=False)
    assert config.config_file(None) == Path("/etc/fullsend/receiver.toml")
    monkeypatch.setenv("FULLSENDD_CONFIG", "/env.toml")
    assert config.config_file(None) == Path("/env.toml")
    assert config.config_file(Path("/argument.toml")) == Path("/argument.toml")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (":7433", ("", 7433)),
        ("backup.example:1", ("backup.example", 1)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:7433", ("::1", 7433)),
        ("[fe80::1%eth0]:7433", ("fe80::1%eth0", 7433)),
    ],
)
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    assert config.parse_address(text) == parts


@pytest.mark.parametrize("text", ["", "host", "host:", "::1:7433", "[::1]", "host:65536", "a b:1", "host:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not HOST:PORT"):
        config.parse_address(text)


@pytest.mark.parametrize("name", ["/srv/backups", '/srv/a "b"\\c', "/srv/ü\x7f\n", "/srv/😀"])
def test_what_is_rendered_is_read_back(tmp_path: Path, name: str) -> None:
    settings = _load(tmp_path, config.render(Path(name), "id", "127.0.0.1:1", ["[::1]:2"]))
    assert (settings.store, settings.store_id) == (Path(name), "id")
    assert (settings.listen, settings.advertise) == ("127.0.0.1:1", ("[::1]:2",))


def test_several_addresses_are_read_back(tmp_path: Path) -> None:
    said = ["one.example:1", "two.example:2"]
    assert _load(tmp_path, config.render(Path("/srv"), "id", ":1", said)).advertise == tuple(said)
    with pytest.raises(UsageError, match="advertise"):
        _load(tmp_path, config.render(Path("/srv"), "id", ":1", ["a:1"] * 9))


def test_bucket_is_read_back(tmp_path: Path) -> None:
    bucket = config.BucketSettings(home=Path("/srv/home"), endpoint="https://rgw.example", region="here")
    text = config.render(BucketPlace("backups", "zfs"), "id", ":1", [], bucket)
    settings = _load(tmp_path, text + "quota = 5\n")
    assert (settings.store, settings.bucket, settings.quota) == (BucketPlace("backups", "zfs"), bucket, 5)
    assert (settings.prune_at, settings.scrub_every) == (time(3, 30), 30 * 86400)
    text = config.render(BucketPlace("backups", "zfs"), "id", ":1", [], bucket, is_first=False)
    settings = _load(tmp_path, text)
    assert (settings.prune_at, settings.scrub_every) == (None, 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('store = "s3://B/x"\nstore-id = "id"', "store: 's3://B/x': 'B' cannot name a bucket"),
        ('store = "/srv"\nstore-id = "id"\nbucket.region = "here"', "bucket: `store` is a folder"),
        ('store = "s3://bucket"\nstore-id = "id"\nbucket.home = "here"', "bucket.home: 'here' is not an absolute path"),
        ('store = "s3://bucket"\nstore-id = "id"\nbucket.secret = "x"', "unknown key 'bucket.secret'"),
    ],
)
def test_bucket_that_cannot_be_is_named(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)):
        _load(tmp_path, text)


def test_a_path_that_is_no_text_cannot_be_rendered() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        config.render(Path("/srv/\udcff"), "id", ":1", [])


def test_the_file_has_a_comment_that_leads_on(tmp_path: Path) -> None:
    path = tmp_path / "receiver.toml"
    path.write_text(config.render(Path("/srv"), "id", ":1", []), encoding="utf-8")
    assert "docs/operations.md" in path.read_text(encoding="utf-8").splitlines()[0]
    assert not path.stat().st_mode & stat.S_IXUSR


def test_the_settings_of_prune(tmp_path: Path) -> None:
    settings = _load(tmp_path, MINIMAL)
    assert (settings.retention, settings.prune_at, settings.undelete_within) == (None, time(3, 30), 0.0)
    assert (settings.prune_at_most, settings.when_full) == (0.2, "refuse")
    settings = _load(
        tmp_path,
        MINIMAL
        + 'prune-at = "23:05"\nundelete-within = "7d"\nprune-at-most = "12.5 %"\nwhen-full = "prune-early"\n'
        + "[retention]\ndaily = 7\n",
    )
    assert settings.retention is not None
    assert (settings.prune_at, settings.undelete_within) == (time(23, 5), 7 * 86400.0)
    assert (settings.prune_at_most, settings.when_full) == (0.125, "prune-early")
    assert _load(tmp_path, MINIMAL + 'prune-at = "never"\n').prune_at is None


RETENTION = '[retention]\ndaily = 7\n[retention."alpha/**"]\nlast = 3\n[retention."*/tank"]\nlast = 4\n'


@pytest.mark.parametrize(
    ("before", "after", "changed", "fixed"),
    [
        ("", "", [], []),
        ("", 'min-free = "1G"\n', [], []),  # its default
        ('quota = "1T"\n', 'quota = "2T"\nwarn-at = "90%"\n', ["quota", "warn-at"], []),
        ('quota = "1T"\n', "", ["quota"], []),
        ('[senders.beta]\nquota = "1T"\n', '[senders.beta]\nquota = "none"\n', ["senders"], []),
        ("[senders.beta]\n", '[senders.beta]\nquota = "none"\n', ["senders"], []),
        ("", RETENTION, ["retention"], []),
        (RETENTION, RETENTION, [], []),
        # The later table counts.
        (
            RETENTION,
            RETENTION.replace("alpha/**", "x").replace("*/tank", "alpha/**").replace('"x"', '"*/tank"'),
            ["retention"],
            [],
        ),
        ("", 'metrics-listen = "127.0.0.1:1"\nmetrics-datasets = 1\n', ["metrics-datasets"], ["metrics-listen"]),
        ("", 'listen = ":1"\nlog-format = "json"\nscrub-rate = 0\n', ["scrub-rate"], ["listen", "log-format"]),
    ],
)
def test_reload_names_what_changes_and_what_cannot(
    tmp_path: Path, before: str, after: str, changed: list[str], fixed: list[str]
) -> None:
    present, found = _load(tmp_path, MINIMAL + before), _load(tmp_path, MINIMAL + after)
    reloaded = config.reload(present, found)
    assert (reloaded.changed, reloaded.fixed) == (changed, fixed)


def test_reload_keeps_what_a_running_daemon_cannot_change(tmp_path: Path) -> None:
    present = _load(tmp_path, MINIMAL + 'quota = "1T"\n')
    elsewhere = 'store = "/srv/other"\nstore-id = "4567"\nlisten = ":1"\n[senders.beta]\nquota = "none"\n'
    reloaded = config.reload(present, _load(tmp_path, elsewhere))
    assert sorted(reloaded.fixed) == ["listen", "store", "store-id"]
    settings = reloaded.settings
    assert (settings.store, settings.store_id, settings.listen) == (Path("/srv/backups"), "0123", ":7433")
    assert (settings.quota, settings.quota_of("beta"), sorted(settings.senders)) == (None, None, ["beta"])
    again = config.reload(settings, _load(tmp_path, elsewhere))
    assert (again.changed, sorted(again.fixed)) == ([], ["listen", "store", "store-id"])
