from __future__ import annotations

import ctypes.util
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_receiver.maintenance import running_hash
from fullsend_receiver.maintenance.running_hash import restored, saved, sha256

PIECES = st.lists(st.binary(max_size=200), max_size=6)


@given(first=PIECES, second=PIECES)
def test_a_saved_state_continues_to_the_same_hash(first: list[bytes], second: list[bytes]) -> None:
    running, other = sha256(), hashlib.sha256()
    for piece in first:
        running.update(piece)
        other.update(piece)
    state = saved(running)
    assert state is not None, "this host's libcrypto has no older interface"
    again, copy = restored(state), running.copy()
    for piece in second:
        for each in (running, again, other):
            each.update(piece)
    assert running.digest() == again.digest() == other.digest()
    assert running.digest() == running.digest()
    assert copy.digest() == hashlib.sha256(b"".join(first)).digest()


def test_a_state_counts_more_than_four_gib() -> None:
    state = bytearray(saved(sha256()) or b"")
    state[32:40] = (3 << 40).to_bytes(8, "big")
    assert saved(restored(bytes(state))) == bytes(state)


@pytest.mark.parametrize("state", [b"", b"x" * 39, b"x" * 40, bytes(40) + b"more"])
def test_what_is_no_state_is_refused(state: bytes) -> None:
    with pytest.raises(ValueError, match=r"SHA-256"):
        restored(state)


@pytest.mark.parametrize("library", ["missing", "other"])
def test_without_such_a_library_the_hash_is_the_same_and_cannot_be_saved(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    state = saved(sha256())
    assert state is not None
    running_hash._library.cache_clear()
    with monkeypatch.context() as patch:
        if library == "missing":
            patch.setattr(running_hash, "_LIBRARY", "libmissing.so.0")
            patch.setattr(ctypes.util, "find_library", lambda _name: "libc.so.6")
        else:
            patch.setattr(running_hash, "_fits", lambda _library: False)
        running = sha256()
        running.update(b"x")
        assert running.digest() == hashlib.sha256(b"x").digest()
        assert saved(running) is None
        with pytest.raises(ValueError, match="cannot be restored"):
            restored(state)
    running_hash._library.cache_clear()
