from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from tests.receiver.crash import Crasher
from tests.receiver.powercut import Disk

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.store.durable import replace_file
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore, make_store, open_store
from fullsend_receiver.store.marker import read_id


def _nothing(_store: LocalStore) -> None:
    """No identity is needed here."""


def test_a_new_store_is_a_store_and_private_where_it_must_be(tmp_path: Path) -> None:
    store, store_id = make_store(tmp_path / "deep" / "store", _nothing)
    assert json.loads(store.marker.read_text(encoding="ascii")) == {"format": 1, "id": store_id}
    assert open_store(store.root, store_id) == store
    assert {path.name for path in store.root.iterdir()} == {".fullsend", ".state", ".partial"}
    assert (store.state.stat().st_mode & 0o777, store.partial.stat().st_mode & 0o777) == (0o700, 0o700)


def test_every_store_has_an_id_of_its_own(tmp_path: Path) -> None:
    assert make_store(tmp_path / "a", _nothing)[1] != make_store(tmp_path / "b", _nothing)[1]


def test_a_disks_lost_and_found_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    make_store(tmp_path, _nothing)


def test_a_store_is_not_made_twice(tmp_path: Path) -> None:
    _store, store_id = make_store(tmp_path / "store", _nothing)
    with pytest.raises(UsageError, match="is already a store; take it over with --adopt"):
        make_store(tmp_path / "store", _nothing)
    assert read_id(tmp_path / "store") == store_id


def test_a_store_is_not_made_within_another_one(tmp_path: Path) -> None:
    make_store(tmp_path / "outer", _nothing)
    with pytest.raises(UsageError, match=r"is within the store \S+/outer, which would take it for a sender"):
        make_store(tmp_path / "outer" / "a" / "inner", _nothing)
    assert not (tmp_path / "outer" / "a").exists()
    (tmp_path / "link").symlink_to(tmp_path / "outer" / "sub")
    (tmp_path / "outer" / "sub").mkdir()
    with pytest.raises(UsageError, match="is within the store"):
        make_store(tmp_path / "link" / "inner", _nothing)


def test_a_store_beside_another_one_may_be_named_from_within_that(tmp_path: Path) -> None:
    make_store(tmp_path / "outer", _nothing)
    make_store(tmp_path / "outer" / ".." / "beside", _nothing)
    assert read_id(tmp_path / "beside")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear", encoding="ascii")
    with pytest.raises(UsageError, match="not empty and not a store"):
        make_store(tmp_path, _nothing)
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(StoreError, match="cannot make a store"):
        make_store(tmp_path / "file" / "store", _nothing)


@pytest.mark.parametrize("error", [UsageError("no openssl"), OSError("disk full"), KeyboardInterrupt()])
def test_a_store_that_could_not_be_furnished_is_taken_back(tmp_path: Path, error: BaseException) -> None:
    def furnish(store: LocalStore) -> None:
        (store.state / "key.pem").write_text("half a key", encoding="ascii")
        raise error

    expected = StoreError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        make_store(tmp_path / "store", furnish)
    assert list((tmp_path / "store").iterdir()) == []
    make_store(tmp_path / "store", _nothing)


def test_kill_at_any_call_of_an_init_leaves_a_whole_store_or_none(swift_path: Path, crasher: Crasher) -> None:
    for at in itertools.count(1):
        root = swift_path / f"store{at}"
        outcome = crasher.run("init", root, at=at)
        if (root / ".fullsend").exists():
            store = open_store(root, read_id(root))
            assert (store.state / "key.pem").read_bytes() == b"key"
            assert store.state.is_dir()
            assert store.partial.is_dir()
        else:
            assert outcome.killed
            with pytest.raises(StoreError, match="is its disk mounted"):
                read_id(root)
        if not outcome.killed:
            break
    assert outcome.told == (read_id(root),)
    assert at > 8


def test_power_cut_at_any_moment_of_an_init_leaves_a_whole_store_or_none(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    left: list[Path] = []

    def lights_out(disk: Disk) -> None:
        for draw in range(6):
            left.append(tmp_path / f"{disk.steps}.{draw}")
            disk.leave(left[-1], seed=100 * disk.steps + draw if draw else None)

    with Disk(parent, lights_out) as disk:
        _store, store_id = make_store(parent / "store", lambda store: replace_file(store.state / "key.pem", b"key"))
        disk.step()
        disk.leave(tmp_path / "sure")
    left.append(tmp_path / "sure")
    for folder in left:
        if (folder / "store" / ".fullsend").exists():
            assert read_id(folder / "store") == store_id
            assert (LocalStore(folder / "store").state / "key.pem").read_bytes() == b"key"
            assert LocalStore(folder / "store").partial.is_dir()
    assert (tmp_path / "sure" / "store" / ".fullsend").exists()


def test_a_disk_that_is_not_mounted_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is its disk mounted"):
        open_store(tmp_path, "0123")


def test_another_disk_is_not_served(tmp_path: Path) -> None:
    _store, store_id = make_store(tmp_path / "store", _nothing)
    with pytest.raises(StoreError, match=f"is store {store_id}, but the configuration names 0123"):
        open_store(tmp_path / "store", "0123")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}'])
def test_a_damaged_marker_is_named(tmp_path: Path, content: str) -> None:
    store, _store_id = make_store(tmp_path / "store", _nothing)
    store.marker.write_text(content, encoding="ascii")
    with pytest.raises(StoreError, match="cannot be read"):
        read_id(store.root)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    store, _store_id = make_store(tmp_path / "store", _nothing)
    store.marker.write_text('{"format": 2, "id": "x"}', encoding="ascii")
    with pytest.raises(StoreError, match="a store of format 2; this fullsendd reads format 1"):
        read_id(store.root)


def test_space_is_that_of_the_disk(store: LocalStore) -> None:
    status = os.statvfs(store.root)
    free, total = store.space()
    assert 0 <= free <= total <= status.f_blocks * status.f_frsize
