"""The socket beside the daemon: who may use it, and what is no error."""

from __future__ import annotations

import os
import socket
import stat
import struct
from typing import TYPE_CHECKING, cast

import pytest
from tests.receiver.helpers import make_store

from fullsend_receiver.daemon import local_socket
from fullsend_receiver.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore

#: Seconds; nothing here waits for so long.
PATIENCE = 30.0


@pytest.fixture
def listening(store: LocalStore) -> Iterator[socket.socket]:
    with local_socket.listen(store) as sock:
        sock.setblocking(True)
        yield sock


def test_both_sides_are_connected(store: LocalStore, listening: socket.socket) -> None:
    connection = local_socket.connect(store, PATIENCE)
    assert connection is not None
    accepted, _address = listening.accept()
    with connection, accepted:
        local_socket.check_peer(accepted)
        assert connection.gettimeout() == PATIENCE
        connection.sendall(b"hello")
        assert accepted.recv(16) == b"hello"


def test_nobody_else_may_open_it(store: LocalStore, listening: socket.socket) -> None:
    status = (store.state / "socket").stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE(store.state.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o755])
def test_where_others_may_enter_the_folder_there_is_none(store: LocalStore, mode: int) -> None:
    store.state.chmod(mode)
    with pytest.raises(StoreError, match="no other user may enter it"):
        local_socket.listen(store)
    assert not (store.state / "socket").exists()


def test_in_a_folder_of_somebody_else_there_is_none(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: store.state.stat().st_uid + 1)
    with pytest.raises(StoreError, match="must belong to uid"):
        local_socket.listen(store)


class Other:
    """A connection to another user's process."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.pack("iII", 1, self._uid, 0)


@pytest.mark.parametrize(("uid", "may"), [(1000, True), (0, True), (1001, False), (65534, False)])
def test_only_this_user_and_root_are_spoken_to(uid: int, may: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    other = cast("socket.socket", Other(uid))
    if may:
        local_socket.check_peer(other)
    else:
        with pytest.raises(StoreError, match=f"uid {uid} is at the other end"):
            local_socket.check_peer(other)


def test_where_no_daemon_ever_ran_nobody_answers(store: LocalStore) -> None:
    assert local_socket.connect(store, PATIENCE) is None


def test_what_a_killed_daemon_has_left_is_no_error_and_is_replaced(store: LocalStore) -> None:
    local_socket.listen(store).close()
    assert (store.state / "socket").exists()
    assert local_socket.connect(store, PATIENCE) is None
    with local_socket.listen(store):
        connection = local_socket.connect(store, PATIENCE)
        assert connection is not None
        connection.close()


def test_what_is_removed_is_tried_no_more(store: LocalStore) -> None:
    with local_socket.listen(store):
        local_socket.remove(store)
        assert not (store.state / "socket").exists()
        local_socket.remove(store)
        assert local_socket.connect(store, PATIENCE) is None


def test_the_path_of_the_store_may_be_long(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 200)
    folder.mkdir()
    store = make_store(folder)
    with local_socket.listen(store):
        connection = local_socket.connect(store, PATIENCE)
        assert connection is not None
        connection.close()
