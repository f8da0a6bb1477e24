"""What the daemon checks by itself: streams that came in several segments, of which nobody has a hash of the whole."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tests import streams
from tests.receiver.arrival.test_receive import (
    finish_at,
    leave,
    offer_of_pieces,
    pieces_of,
    rest_of,
    segments_at,
)
from tests.receiver.helpers import SENDER, make_store, plant, remove, store_stream
from tests.receiver.peer import chunks, control
from tests.receiver.running import serving, wait_until

from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.checks import Checks
from fullsend_receiver.maintenance.verify import Removed, Subject
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.receiver.running import Receiver


def push_in_two(receiver: Receiver, name: str) -> tuple[str, bytes]:
    """Push a stream that is interrupted once. Returns: its file, and the stream."""
    pieces = pieces_of(2, name)
    raw = b"".join(pieces)
    kept = leave(receiver, pieces, 1)
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume="replay")))
        assert peer.hear("accept")["offset"] == kept
        for chunk in rest_of(pieces, 1):
            peer.write(chunk.encode())
        receipt = finish_at(peer, raw, kept)
    assert receipt["sha256"] is None
    return receipt["file"], raw


def listed(receiver: Receiver, file: str) -> dict[str, Any]:
    with receiver.peer() as peer:
        peer.say("list", dataset=None)
        (found,) = (each for each in peer.hear("entries")["entries"] if each["file"] == file)
        peer.hear("done")
    return found  # type: ignore[no-any-return]  # JSON


def wait_for_hash(receiver: Receiver, file: str) -> None:
    wait_until(lambda: listed(receiver, file)["sha256"] is not None, "the SHA-256")


def test_the_hash_of_the_whole_is_found_after_the_commit(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as receiver:
        for name in ("tank/one@now", "tank/two@now"):
            file, raw = push_in_two(receiver, name)
            wait_for_hash(receiver, file)
            entry = listed(receiver, file)
            assert entry["sha256"] == hashlib.sha256(raw).hexdigest()
            assert entry["verified"]
        # And once: what has been read is not read again.
        checks = (receiver.store / ".state" / "scrub.jsonl").read_bytes().splitlines()
        receiver.stop()
        receiver.start()
        file, _raw = push_in_two(receiver, "tank/three@now")
        wait_for_hash(receiver, file)
        assert len((receiver.store / ".state" / "scrub.jsonl").read_bytes().splitlines()) == len(checks) + 1


def test_what_was_not_read_before_a_restart_is_read_after_it(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as receiver:
        file, raw = push_in_two(receiver, "tank/data@now")
        wait_for_hash(receiver, file)
        receiver.stop()
        (receiver.store / ".state" / "scrub.jsonl").unlink()
        receiver.start()
        wait_for_hash(receiver, file)
        assert listed(receiver, file)["sha256"] == hashlib.sha256(raw).hexdigest()


def test_what_rotted_before_the_commit_gets_no_receipt(tmp_path: Path) -> None:
    """The bytes of a partial are what its journal says as long as the disk keeps them."""
    with serving(tmp_path, "alpha") as receiver:
        pieces = pieces_of(2)
        raw = b"".join(pieces)
        kept = leave(receiver, pieces, 1)
        (data,) = (receiver.store / ".partial").glob("*.data")
        with data.open("r+b") as file:
            file.seek(1000)
            file.write(b"rot")
        with receiver.peer() as peer:
            peer.write(control(offer_of_pieces(pieces, resume="replay")))
            peer.hear("accept")
            for chunk in rest_of(pieces, 1):
                peer.write(chunk.encode())
            peer.say("finish", raw_bytes=len(raw), segments=segments_at(raw, kept))
            said = peer.refusal()
        assert said.startswith("partial: ")
        assert f"chunk 0 (raw bytes 0 to {len(pieces[0])}) is not as it arrived" in said
        assert sorted(path.suffix for path in (receiver.store / ".partial").iterdir()) == [".damaged", ".damaged"]
        with receiver.peer() as peer:  # the same, from its start
            peer.write(control(offer_of_pieces(pieces, resume="replay")))
            assert peer.hear("accept")["offset"] == 0
            for chunk in chunks(pieces):
                peer.write(chunk.encode())
            stored = finish_at(peer, raw)["file"]
        assert listed(receiver, stored)["restorable"] is True
        receiver.stop()


def test_a_catalogue_that_cannot_be_read_is_no_end(tmp_path: Path) -> None:
    with serving(tmp_path, "alpha") as receiver:
        receiver.stop()
        scrub_log = receiver.store / ".state" / "scrub.jsonl"
        scrub_log.mkdir()
        plant(LocalStore(receiver.store), "old", 7)
        receiver.start()
        wait_until(lambda: "streams that arrived in several segments cannot be read" in receiver.log, "the warning")
        scrub_log.rmdir()
        file, _raw = push_in_two(receiver, "tank/data@now")
        wait_for_hash(receiver, file)


async def test_what_is_removed_before_its_turn_is_no_damage(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    raw = streams.substream(streams.object_(1))
    file = store_stream(store, SENDER, raw)
    catalogue = read_catalogue(store)
    remove(store, file)
    with ThreadPoolExecutor(1) as pool:
        found = await Checks(Catalogues(store), Workers(pool, pool, pool)).check(catalogue.streams[0])
        assert found == Removed(Subject.of(catalogue.streams[0]))
    store_stream(store, SENDER, raw)  # within the same second
    (again,) = read_catalogue(store).streams
    assert read_catalogue(store).whole(again)
