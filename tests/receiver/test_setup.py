from __future__ import annotations

import os
import pwd
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fullsend_protocol.errors import UsageError
from fullsend_receiver import config, identity, setup
from fullsend_receiver.setup import Plan
from fullsend_receiver.store import Store, StoreError


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        config=tmp_path / "etc" / "receiver.toml",
        store=tmp_path / "store",
        listen="127.0.0.1:7433",
        advertise=None,
        user=None,
        adopt=False,
    )


def test_init_makes_a_store_an_identity_and_a_configuration(plan: Plan) -> None:
    fingerprint = setup.init(plan)
    settings = config.load(plan.config)
    assert settings.store == plan.store
    assert settings.listen == plan.listen
    assert identity.fingerprint(Store(plan.store)) == fingerprint
    assert plan.config.stat().st_mode & 0o777 == 0o644


def test_init_overwrites_no_configuration(plan: Plan) -> None:
    setup.init(plan)
    before = plan.config.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        setup.init(replace(plan, store=plan.store.with_name("other")))
    assert plan.config.read_bytes() == before
    assert not plan.store.with_name("other").exists()


def test_init_makes_no_store_over_another(plan: Plan) -> None:
    setup.init(plan)
    other = plan.config.with_name("other.toml")
    with pytest.raises(UsageError, match="--adopt"):
        setup.init(replace(plan, config=other))
    assert not other.exists()


def test_adopt_takes_a_store_over_identity_included(plan: Plan, tmp_path: Path) -> None:
    fingerprint = setup.init(plan)
    moved = plan.store.rename(tmp_path / "moved")
    other = replace(plan, config=tmp_path / "other.toml", store=moved, adopt=True)
    assert setup.init(other) == fingerprint
    assert config.load(other.config).store == moved
    assert config.load(other.config).store_id == config.load(plan.config).store_id


def test_adopt_makes_no_store(plan: Plan) -> None:
    with pytest.raises(StoreError, match="no store here"):
        setup.init(replace(plan, adopt=True))
    assert not plan.store.exists()
    assert not plan.config.exists()


@pytest.mark.parametrize("wrong", ["listen", "advertise", "user"])
def test_what_is_wrong_is_found_before_anything_is_made(plan: Plan, wrong: str) -> None:
    said: dict[str, Any] = {wrong: "nobody or nowhere"}
    with pytest.raises(UsageError):
        setup.init(replace(plan, **said))
    assert not plan.store.exists()
    assert not plan.config.exists()


def test_a_relative_store_is_written_down_absolute(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    setup.init(replace(plan, store=Path("store")))
    assert config.load(plan.config).store == tmp_path / "store"


def test_the_store_is_given_to_its_user_all_of_it(plan: Plan) -> None:
    if os.geteuid() != 0:
        # Only root can give; whoever runs this may still name itself.
        setup.init(replace(plan, user=pwd.getpwuid(os.geteuid()).pw_name))
        return
    setup.init(replace(plan, user="nobody"))
    nobody = pwd.getpwnam("nobody").pw_uid
    assert {path.stat().st_uid for path in [plan.store, *plan.store.rglob("*")]} == {nobody}
    assert plan.config.stat().st_uid == 0


def test_an_adopted_store_is_given_to_its_user_all_of_it_but_nothing_beyond(plan: Plan, tmp_path: Path) -> None:
    """Links lead out of the store, and what they lead to is not its user's."""
    setup.init(plan)
    outside = tmp_path / "outside"
    outside.write_text("not ours", encoding="ascii")
    (plan.store / "alpha" / "tank").mkdir(parents=True)
    (plan.store / "alpha" / "tank" / "link").symlink_to(outside)
    (plan.store / "alpha" / "out").symlink_to(tmp_path)
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    setup.init(replace(plan, config=tmp_path / "other.toml", adopt=True, user=user.pw_name))
    assert {path.lstat().st_uid for path in [plan.store, *plan.store.rglob("*")]} == {user.pw_uid}
    assert {path.stat().st_uid for path in (outside, tmp_path)} == {os.geteuid()}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_configuration_is_found_before_a_store_is_made(plan: Plan) -> None:
    plan.config.parent.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        setup.init(plan)
    assert not plan.store.exists()


def test_a_configuration_that_has_no_folder_is_found_before_a_store_is_made(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        setup.init(replace(plan, config=tmp_path / "file" / "etc" / "receiver.toml"))
    assert not plan.store.exists()


def test_a_store_whose_path_is_no_text_is_refused_before_it_is_made(plan: Plan) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        setup.init(replace(plan, store=plan.store / "\udcff"))
    assert not plan.store.exists()


def test_adopting_a_store_without_an_identity_is_refused(plan: Plan, tmp_path: Path) -> None:
    setup.init(plan)
    Store(plan.store).certificate.unlink()
    other = tmp_path / "other.toml"
    with pytest.raises(StoreError, match=r"certificate\.pem: cannot be read"):
        setup.init(replace(plan, config=other, adopt=True))
    assert not other.exists()


def test_invitations_name_what_was_advertised_else_this_host() -> None:
    assert setup.advertised(":7433", "backup.example:1") == ("backup.example", 1)
    assert setup.advertised("10.0.0.1:7433", None) == ("10.0.0.1", 7433)
    assert setup.advertised(":7433", None) == (socket.getfqdn(), 7433)
