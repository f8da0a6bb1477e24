from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.receiver.buckets import MemoryBucket

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.access import bucket_setup, config, identity, setup
from fullsend_receiver.access.setup import InitOptions
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store_s3.place import BucketPlace


@pytest.fixture
def plan(tmp_path: Path) -> InitOptions:
    return InitOptions(
        config=tmp_path / "etc" / "receiver.toml",
        store=tmp_path / "store",
        listen="127.0.0.1:7433",
        advertise=[],
        user=None,
        adopt=False,
    )


def test_init_makes_a_store_an_identity_and_a_configuration(plan: InitOptions) -> None:
    fingerprint = setup.init(plan)
    settings = config.load(plan.config)
    assert settings.store == plan.folder
    assert settings.listen == plan.listen
    assert identity.fingerprint(LocalStore(plan.folder)) == fingerprint
    assert plan.config.stat().st_mode & 0o777 == 0o644


def test_init_overwrites_no_configuration(plan: InitOptions) -> None:
    setup.init(plan)
    before = plan.config.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        setup.init(replace(plan, store=plan.folder.with_name("other")))
    assert plan.config.read_bytes() == before
    assert not plan.folder.with_name("other").exists()


def test_init_makes_no_store_over_another(plan: InitOptions) -> None:
    setup.init(plan)
    other = plan.config.with_name("other.toml")
    with pytest.raises(UsageError, match="--adopt"):
        setup.init(replace(plan, config=other))
    assert not other.exists()


def test_init_makes_nothing_within_another_store(plan: InitOptions) -> None:
    """A folder there would be a sender."""
    setup.init(plan)
    before = sorted(plan.folder.iterdir())
    user = pwd.getpwuid(os.geteuid()).pw_name
    other = replace(plan, config=plan.config.with_name("other.toml"), store=plan.folder / "a" / "inner", user=user)
    with pytest.raises(UsageError, match="is within the store"):
        setup.init(other)
    assert sorted(plan.folder.iterdir()) == before


def test_adopt_takes_a_store_over_identity_included(plan: InitOptions, tmp_path: Path) -> None:
    fingerprint = setup.init(plan)
    moved = plan.folder.rename(tmp_path / "moved")
    other = replace(plan, config=tmp_path / "other.toml", store=moved, adopt=True)
    assert setup.init(other) == fingerprint
    assert config.load(other.config).store == moved
    assert config.load(other.config).store_id == config.load(plan.config).store_id


def test_adopt_makes_no_store(plan: InitOptions) -> None:
    with pytest.raises(StoreError, match="no store here"):
        setup.init(replace(plan, adopt=True))
    assert not plan.folder.exists()
    assert not plan.config.exists()


@pytest.mark.parametrize("wrong", ["listen", "advertise", "user"])
def test_what_is_wrong_is_found_before_anything_is_made(plan: InitOptions, wrong: str) -> None:
    said: dict[str, Any] = {wrong: ["nobody or nowhere"] if wrong == "advertise" else "nobody or nowhere"}
    with pytest.raises(UsageError):
        setup.init(replace(plan, **said))
    assert not plan.folder.exists()
    assert not plan.config.exists()


def test_a_relative_store_is_written_down_absolute(
    plan: InitOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setup.init(replace(plan, store=Path("store")))
    assert config.load(plan.config).store == tmp_path / "store"


def test_more_addresses_than_an_invitation_holds_are_refused_first(plan: InitOptions) -> None:
    with pytest.raises(UsageError, match="--listen, --advertise: advertise: "):
        setup.init(replace(plan, advertise=[f"host{number}:1" for number in range(9)]))
    assert not plan.folder.exists()
    assert not plan.config.exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_home_of_a_bucket_is_given_to_its_user_and_nothing_beside_it(
    plan: InitOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, was_there: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    home = tmp_path / "home"
    if was_there:
        home.mkdir()
        (home / "other").touch()
    monkeypatch.setattr(bucket_setup, "reach", lambda _place, _settings: MemoryBucket())
    bucket = config.BucketSettings(home=home)
    setup.init(replace(plan, store=BucketPlace("backups", "zfs"), bucket=bucket, user="nobody"))
    nobody = pwd.getpwnam("nobody").pw_uid
    assert (home / ".state" / "key.pem").stat().st_uid == (home / ".state").stat().st_uid == nobody
    assert home.stat().st_uid == (0 if was_there else nobody)
    assert not was_there or (home / "other").stat().st_uid == 0


def test_host_with_a_new_key_prunes_and_checks_as_the_only_one(
    plan: InitOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = MemoryBucket()
    monkeypatch.setattr(bucket_setup, "reach", lambda _place, _settings: bucket)
    first = replace(plan, store=BucketPlace("backups", "zfs"), bucket=config.BucketSettings(home=tmp_path / "lost"))
    lost = setup.init(first)
    user = pwd.getpwuid(os.geteuid()).pw_name
    home = tmp_path / "deep" / "home"
    asked = replace(first, config=tmp_path / "new.toml", bucket=config.BucketSettings(home=home), adopt=True, user=user)
    assert setup.init(replace(asked, new_key=True)) != lost
    made = config.load(asked.config)
    assert (made.store_id, made.folder) == (config.load(first.config).store_id, home)
    assert made.prune_at is not None
    assert made.scrub_every > 0


def test_the_store_is_given_to_its_user_all_of_it(plan: InitOptions) -> None:
    if os.geteuid() != 0:
        # Only root can give; the user who runs this may still name itself.
        setup.init(replace(plan, user=pwd.getpwuid(os.geteuid()).pw_name))
        return
    setup.init(replace(plan, user="nobody"))
    nobody = pwd.getpwnam("nobody").pw_uid
    assert {path.stat().st_uid for path in [plan.folder, *plan.folder.rglob("*")]} == {nobody}
    assert plan.config.stat().st_uid == 0


def test_an_adopted_store_is_given_to_its_user_all_of_it_but_nothing_beyond(plan: InitOptions, tmp_path: Path) -> None:
    """Links lead out of the store, and what they lead to is not its user's."""
    setup.init(plan)
    outside = tmp_path / "outside"
    outside.write_text("not ours", encoding="ascii")
    (plan.folder / "alpha" / "tank").mkdir(parents=True)
    (plan.folder / "alpha" / "tank" / "link").symlink_to(outside)
    (plan.folder / "alpha" / "out").symlink_to(tmp_path)
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    setup.init(replace(plan, config=tmp_path / "other.toml", adopt=True, user=user.pw_name))
    assert {path.lstat().st_uid for path in [plan.folder, *plan.folder.rglob("*")]} == {user.pw_uid}
    assert {path.stat().st_uid for path in (outside, tmp_path)} == {os.geteuid()}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_configuration_is_found_before_a_store_is_made(plan: InitOptions) -> None:
    plan.config.parent.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        setup.init(plan)
    assert not plan.folder.exists()


def test_a_configuration_that_has_no_folder_is_found_before_a_store_is_made(plan: InitOptions, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be created: File exists"):
        setup.init(replace(plan, config=tmp_path / "file" / "etc" / "receiver.toml"))
    assert not plan.folder.exists()


def test_a_store_whose_path_is_no_text_is_refused_before_it_is_made(plan: InitOptions) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        setup.init(replace(plan, store=plan.folder / "\udcff"))
    assert not plan.folder.exists()


def test_adopting_a_store_without_an_identity_is_refused(plan: InitOptions, tmp_path: Path) -> None:
    setup.init(plan)
    identity.certificate_file(LocalStore(plan.folder)).unlink()
    other = tmp_path / "other.toml"
    with pytest.raises(StoreError, match=r"certificate\.pem: cannot be read"):
        setup.init(replace(plan, config=other, adopt=True))
    assert not other.exists()


def test_invitations_name_what_was_advertised_else_this_host() -> None:
    assert setup.advertised(":7433", ["backup.example:1", "[::1]:2"]) == [("backup.example", 1), ("::1", 2)]
    assert setup.advertised("10.0.0.1:7433", []) == [("10.0.0.1", 7433)]
    assert setup.advertised(":7433", []) == [(socket.getfqdn(), 7433)]


# --- a user other than root -----------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a store away")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are for one user."""
    with tempfile.TemporaryDirectory(prefix="fullsend-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture
def tight_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def can_read(user: str, path: Path) -> bool:
    found = pwd.getpwnam(user)
    done = subprocess.run(
        ["cat", str(path)], user=found.pw_uid, group=found.pw_gid, extra_groups=[], capture_output=True, check=False
    )
    return done.returncode == 0


@needs_root
def test_another_user_can_reach_configuration_and_store_whatever_the_umask_is(
    plan: InitOptions, open_folder: Path, tight_umask: None, caplog: pytest.LogCaptureFixture
) -> None:
    config_file, store = open_folder / "etc" / "deep" / "receiver.toml", open_folder / "srv" / "deep" / "store"
    setup.init(replace(plan, config=config_file, store=store, user="nobody"))
    assert can_read("nobody", config_file)
    assert can_read("nobody", store / ".fullsend")
    assert store.stat().st_mode & 0o007 == 0
    assert caplog.messages == []


def test_without_another_user_the_umask_holds(plan: InitOptions, tight_umask: None) -> None:
    setup.init(plan)
    assert plan.config.parent.stat().st_mode & 0o777 == 0o700
    assert plan.config.stat().st_mode & 0o777 == 0o600


@needs_root
def test_a_folder_that_keeps_the_user_out_is_named(
    plan: InitOptions, open_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (open_folder / "private").mkdir(mode=0o700)
    store = open_folder / "private" / "store"
    setup.init(replace(plan, config=open_folder / "receiver.toml", store=store, user="nobody"))
    [message] = caplog.messages
    assert f"{open_folder}/private: closed to user nobody" in message


# --- the drop-in for systemd ----------------------------------------------------------------------------------------


@pytest.fixture
def systemd_plan(plan: InitOptions, tmp_path: Path) -> InitOptions:
    return replace(plan, units=tmp_path / "units")


def settings_of(drop_in: Path | None) -> list[str]:
    assert drop_in is not None
    return [line for line in drop_in.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#"]


def test_a_store_elsewhere_is_opened_by_a_drop_in(systemd_plan: InitOptions, tight_umask: None) -> None:
    setup.init(systemd_plan)
    drop_in = setup.drop_in(systemd_plan)
    assert systemd_plan.units is not None
    assert drop_in == systemd_plan.units / "fullsendd.service.d" / "store.conf"
    assert drop_in.stat().st_mode & 0o777 == 0o644
    assert settings_of(drop_in)[:2] == [
        f'RequiresMountsFor="{systemd_plan.store}"',
        f'ReadWritePaths="-{systemd_plan.store}"',
    ]


def test_no_drop_in_is_made_where_it_was_not_asked_for(plan: InitOptions) -> None:
    """Nor does a test, or a second daemon with a file of its own, change the system's."""
    setup.init(plan)
    assert setup.drop_in(plan) is None


@needs_root
def test_where_root_sets_up_the_service_the_drop_in_goes_to_systemd(
    plan: InitOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = replace(plan, config=config.DEFAULT_FILE)
    monkeypatch.setattr(setup, "_UNITS", tmp_path)
    assert setup.drop_in(service) == tmp_path / "fullsendd.service.d" / "store.conf"
    monkeypatch.setattr(setup, "_UNITS", tmp_path / "missing")
    assert setup.drop_in(service) is None


def test_the_default_store_needs_no_drop_in(systemd_plan: InitOptions) -> None:
    default = replace(systemd_plan, store=config.DEFAULT_STORE)
    assert setup.drop_in(default) is None
    assert setup.drop_in(replace(default, store=config.DEFAULT_STORE / "beneath")) is None
    assert setup.drop_in(replace(default, user="fullsend")) is None
    assert setup.drop_in(replace(default, user="backup")) is not None


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/srv/my store", '"/srv/my store"'),
        ("/srv/100%", '"/srv/100%%"'),
        ('/srv/"a"\\b', '"/srv/\\"a\\"\\\\b"'),
        ("/srv/ü", '"/srv/ü"'),
    ],
)
def test_paths_are_quoted_as_systemd_reads_them(path: str, word: str) -> None:
    text = setup._render_drop_in(Path(path), None).splitlines()
    assert f"RequiresMountsFor={word}" in text
    assert f'ReadWritePaths="-{word[1:]}' in text


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("/home/me/store", "ProtectHome=read-only"),
        ("/root/store", "ProtectHome=read-only"),
        ("/tmp/x", "PrivateTmp=no"),
    ],
)
def test_a_store_in_a_folder_that_the_unit_hides_is_shown(path: str, setting: str) -> None:
    assert setting in setup._render_drop_in(Path(path), None).splitlines()
    assert setting not in setup._render_drop_in(Path("/srv/store"), None)


def test_a_store_behind_a_link_is_shown(tmp_path: Path) -> None:
    (tmp_path / "home").symlink_to("/home")
    assert "ProtectHome=read-only" in setup._render_drop_in(tmp_path / "home" / "store", None)


def test_the_service_runs_as_the_user_that_got_the_store() -> None:
    nobody = pwd.getpwnam("nobody")
    text = setup._render_drop_in(Path("/srv/store"), nobody).splitlines()
    assert "User=nobody" in text
    assert f"Group={nobody.pw_gid}" in text


@needs_root
def test_the_hooks_run_as_the_same_user(systemd_plan: InitOptions, tight_umask: None) -> None:
    asked = replace(systemd_plan, user="nobody")
    setup.init(asked)
    nobody = pwd.getpwnam("nobody")
    both = [setup.drop_in(asked), setup.hooks_drop_in(asked)]
    assert [path.parent.name for path in both if path] == ["fullsendd.service.d", "fullsendd-hooks.service.d"]
    for drop_in in both:
        assert settings_of(drop_in)[-2:] == ["User=nobody", f"Group={nobody.pw_gid}"]
    assert both[1] is not None
    assert both[1].stat().st_mode & 0o777 == 0o644


def test_hooks_of_the_units_own_user_need_no_drop_in(systemd_plan: InitOptions) -> None:
    assert setup.hooks_drop_in(systemd_plan) is None
    assert setup.hooks_drop_in(replace(systemd_plan, user="fullsend")) is None
    setup.init(systemd_plan)
    assert systemd_plan.units is not None
    assert [path.name for path in systemd_plan.units.iterdir()] == ["fullsendd.service.d"]


@pytest.mark.parametrize("name", ["units", "line\nbreak"])
def test_a_drop_in_that_cannot_be_written_is_no_failure_and_is_said(
    systemd_plan: InitOptions, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert systemd_plan.units is not None
    if name == "units":
        systemd_plan.units.write_text("no folder", encoding="ascii")
    store = systemd_plan.folder.with_name(name.replace("units", "store"))
    asked = replace(systemd_plan, store=store)
    assert setup.init(asked) == identity.fingerprint(LocalStore(store))
    assert config.load(asked.config).store == store
    assert "cannot be written" in caplog.messages[-1]
    assert "ReadWritePaths=" in caplog.messages[-1]
    assert "\n" not in caplog.messages[-1]


@needs_root
def test_a_store_that_stays_root_s_is_said(systemd_plan: InitOptions, caplog: pytest.LogCaptureFixture) -> None:
    setup.init(systemd_plan)
    assert f"chown -R fullsend: {systemd_plan.store}" in caplog.text
