"""What `fullsendd cat` writes of a stream that is whole, and of one that is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from tests import forked
from tests.receiver.command import damage
from tests.receiver.helpers import SENDER, cut, long_stream, manifest_path, store_stream

from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.seekable import places

if TYPE_CHECKING:
    from tests.receiver.running import Receiver

RAW = long_stream(4)
PIECES = [piece for _offset, piece in cut(RAW)]


def cat(receiver: Receiver, file: PurePosixPath) -> subprocess.CompletedProcess[bytes]:
    words = ["--config", str(receiver.config), "cat", "--skip-damaged", str(file)]
    return forked.run("fullsend_receiver", words, os.environ)


def starts(store: LocalStore, file: PurePosixPath) -> list[int]:
    """Where the chunks are in the file."""
    blob = store.open(file)
    found = [place.file_offset for place in places(blob)]
    blob.close()
    return found


def test_what_is_whole_is_written_without_a_word(receiver: Receiver) -> None:
    done = cat(receiver, store_stream(LocalStore(receiver.store), SENDER, RAW))
    assert (done.returncode, done.stdout, done.stderr) == (0, RAW, b"")


@pytest.mark.parametrize("bad", [[0], [1], [3], [1, 2], [0, 3]])
def test_each_hole_is_named_with_its_range_and_the_objects_in_it(receiver: Receiver, bad: list[int]) -> None:
    store = LocalStore(receiver.store)
    file = store_stream(store, SENDER, RAW)
    places_of_chunks = starts(store, file)
    for number in bad:
        damage(receiver, file, places_of_chunks[number] + 30)
    done = cat(receiver, file)
    said = done.stderr.decode()
    assert done.returncode == 1
    assert done.stdout == b"".join(piece for number, piece in enumerate(PIECES) if number not in bad)
    assert [int(number) for number in re.findall(r"hole: chunk (\d+) ", said)] == bad
    first = sum(map(len, PIECES[: bad[0]]))
    assert f"(raw bytes {first} to {first + len(PIECES[bad[0]])})" in said
    assert ("it has records of the objects 1 to 1" in said) == (bad != [3])
    assert "refuses the stream at the first one" in said


def test_without_an_index_what_can_be_found_is_written(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    file = store_stream(store, SENDER, RAW)
    cuts = starts(store, file)
    path = store.root / file
    path.write_bytes(path.read_bytes()[: cuts[3]])
    done = cat(receiver, file)
    assert (done.returncode, done.stdout) == (1, b"".join(PIECES[:3]))
    assert b"hole: no seek table at the end" in done.stderr
    assert json.loads(manifest_path(store, file).read_bytes())["chunks"] == len(PIECES)
