from __future__ import annotations

import errno
import os
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

FILES = [PurePosixPath(f"alpha/tank/@{name}.zfs.zst") for name in ("one", "two", "three")]


def age(store: LocalStore, seconds: float) -> None:
    """Let so much time pass for the files of all holds."""
    for path in store.reading.iterdir():
        when = time.time() - seconds
        os.utime(path, (when, when))


def test_nothing_is_held_where_nobody_reads(store: LocalStore) -> None:
    assert store.held() == set()
    store.hold().close()
    assert store.held() == set()
    assert not store.reading.exists()


def test_what_readers_read_is_held(store: LocalStore) -> None:
    one, other = store.hold(), store.hold()
    one.add(FILES[0])
    one.add(FILES[0])
    other.add(FILES[1])
    other.add(FILES[2])
    assert store.held() == set(FILES)
    for hold in (one, other):
        hold.close()


def test_hold_lasts_as_long_as_its_reader_and_an_hour_more(store: LocalStore) -> None:
    hold = store.hold()
    hold.add(FILES[0])
    age(store, 90_000)
    assert store.held() == {FILES[0]}  # a restore of a day
    hold.close()
    age(store, 3500)
    assert store.held() == {FILES[0]}
    age(store, 3700)
    assert store.held() == set()


def test_file_of_a_hold_that_is_over_goes_with_the_next_hold(store: LocalStore) -> None:
    for _reader in range(3):
        hold = store.hold()
        hold.add(FILES[0])
        hold.close()
        age(store, 4000)
    assert len(list(store.reading.iterdir())) == 1


def test_hold_of_the_future_ends_with_its_reader(store: LocalStore) -> None:
    """A clock that was ahead must not hold anything for years."""
    hold = store.hold()
    hold.add(FILES[0])
    age(store, -90_000)
    assert store.held() == {FILES[0]}
    hold.close()
    age(store, -90_000)
    assert store.held() == set()


def test_line_that_is_not_whole_holds_nothing(store: LocalStore) -> None:
    hold = store.hold()
    hold.add(FILES[0])
    (path,) = store.reading.iterdir()
    with path.open("ab") as file:
        file.write(b"alpha/tank/@tw")
    assert store.held() == {FILES[0]}
    hold.close()


def test_a_line_that_broke_off_spoils_not_the_next_one(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk. A prune must still see what is read after it."""
    hold = store.hold()
    hold.add(FILES[0])
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) > 9:
            return real(descriptor, data[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            hold.add(FILES[1])
    hold.add(FILES[2])
    assert store.held() >= {FILES[0], FILES[2]}
    assert FILES[1] not in store.held()
    hold.add(FILES[1])
    assert store.held() >= set(FILES)
    hold.close()
