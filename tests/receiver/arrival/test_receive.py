"""Streams that arrive: taken whole, acknowledged when durable and not before, and what happens when the disk fails."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import json
import os
import random
import resource
import select
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.receiver.faulty import FaultyDisk
from tests.receiver.helpers import cut, push_of, segments_of, store_stream, zstd_decode
from tests.receiver.peer import (
    HEARTBEAT,
    Chunk,
    Peer,
    chunks,
    compress,
    control,
    cut_records,
    finish,
    make_certificate,
    offer,
)
from tests.receiver.running import MEMORY, MEMORY_PER_STREAM, MIB, Receiver, serving, wait_until

from fullsend_protocol.shared.errors import ChunkError, StreamError
from fullsend_protocol.stream.records import Feature
from fullsend_protocol.wire.connection import Chunk as WireChunk
from fullsend_protocol.wire.connection import ChunkArriving
from fullsend_receiver.arrival.decode_queue import CHUNK_ROOM, DecodeQueue, chunks_held
from fullsend_receiver.arrival.receive import BATCH_BYTES, UNDURABLE_MOST, Receiving
from fullsend_receiver.store.event_journal import EventPlace
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITE_SIZE: Final = 128 << 10


def pieces_of(count: int, name: str = "tank/data@now", *, seed: int = 0) -> list[bytes]:
    """A whole stream of so many chunks that do not compress."""
    noise = random.Random(seed).randbytes(4 * MIB)
    starts = range(0, 4 * MIB * count - WRITE_SIZE, WRITE_SIZE)
    writes = [streams.write(1, at, noise[at % len(noise) :][:WRITE_SIZE]) for at in starts]
    pieces = cut_records([streams.begin(name), streams.object_(1), *writes, streams.end()])
    assert len(pieces) == count
    return pieces


def large_pieces(count: int, name: str = "tank/data@now") -> list[bytes]:
    """A whole stream of chunks that are nearly as large as a chunk may be, and do not compress."""
    noise = random.Random(0).randbytes(16 * MIB)
    short = [streams.write(1, 0, noise[at:][:WRITE_SIZE]) for at in range(0, 31 * WRITE_SIZE, WRITE_SIZE)]
    writes = [*short, streams.write(1, 0, noise)] * count
    pieces = cut_records([streams.begin(name), streams.object_(1), *writes, streams.end()])
    assert len(pieces) == count + 1
    assert len(pieces[0]) > 19 * MIB
    return pieces


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("receiving"), "alpha", "beta", "gamma") as receiver:
        yield receiver


# --- what is taken ---------------------------------------------------------------------------------------------


def offer_of(stream: streams.Genuine) -> dict[str, Any]:
    return {"type": "push", **push_of(stream.read()).model_dump(mode="json")}


@pytest.fixture
def emptied(receiver: Receiver) -> Iterator[Receiver]:
    """The daemon, with nothing stored of alpha: several genuine streams have one name."""
    shutil.rmtree(receiver.store / "alpha", ignore_errors=True)
    yield receiver
    shutil.rmtree(receiver.store / "alpha", ignore_errors=True)


@streams.each(streams.whole)
def test_a_genuine_stream_is_taken_listed_and_given_back(stream: streams.Genuine, emptied: Receiver) -> None:
    raw = stream.read()
    with emptied.peer() as peer:
        receipt = peer.give(raw, offer_of(stream), [piece for _offset, piece in cut(raw)])
        assert (receipt["sender"], receipt["sha256"], receipt["raw_bytes"]) == ("alpha", stream.sha256, len(raw))
        dataset, _, snapshot = stream.begins[0]["toname"].partition("@")
        assert (receipt["dataset"], receipt["snapshot"]) == (dataset, snapshot)
        top = [begin for begin in stream.begins if begin["toname"] == stream.begins[0]["toname"]]
        assert receipt["guid"] == str(top[-1]["toguid"])

        peer.say("list", dataset=dataset)
        (entry,) = [each for each in peer.hear("entries")["entries"] if each["file"] == receipt["file"]]
        same = receipt.keys() - {"file_sha256", "segments", "lost_spills"}
        assert {key: entry[key] for key in same} == {key: receipt[key] for key in same}
        assert receipt["segments"] == [{"start": 0, "end": len(raw), "sha256": stream.sha256}]
        peer.hear("done")

        peer.say("fetch", offset=0, stream=receipt["file"], until=None)
        manifest, given = peer.fetched()
        assert given == raw
        assert manifest["sha256"] == stream.sha256

        peer.write(control(offer_of(stream)))
        if offer_of(stream)["guid"] is None:  # a package: what it is shows at its end only
            peer.hear("accept")
        else:
            assert peer.hear("stored")["receipt"] == receipt
    path = emptied.store / receipt["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == receipt["file_sha256"]
    assert zstd_decode(path) == raw


def cut_as_far_as_it_goes(raw: bytes) -> list[bytes]:
    pieces = []
    with contextlib.suppress(StreamError):
        pieces += [piece for _offset, piece in cut(raw)]
    rest = raw[sum(map(len, pieces)) :]
    return [*pieces, rest] if rest else pieces


@streams.each(streams.broken)
def test_a_stream_that_is_not_whole_is_refused_and_not_listed(stream: streams.Genuine, receiver: Receiver) -> None:
    raw = stream.read()
    with receiver.peer("gamma") as peer:
        dataset, _, snapshot = stream.begins[0]["toname"].partition("@")
        peer.push(offer(dataset, snapshot))
        for chunk in chunks(cut_as_far_as_it_goes(raw)):
            peer.write(chunk.encode())
        peer.write(control(finish(raw)))
        assert peer.refusal().startswith("stream: ")
    with receiver.peer("gamma") as peer:
        peer.say("list", dataset=None)
        peer.hear("done")


def test_a_package_that_is_stored_already_is_taken_and_deleted(receiver: Receiver) -> None:
    raw = streams.package(streams.substream(name="tank/twice@now"), name="tank/twice@now")
    kept = receiver.partials()
    with receiver.peer() as peer:
        first = peer.give(raw, offer("tank/twice"))
        before = {path: path.stat().st_ino for path in (receiver.store / "alpha/tank/twice").iterdir()}
        assert peer.give(raw, offer("tank/twice"), answer="stored") == first
    assert {path: path.stat().st_ino for path in (receiver.store / "alpha/tank/twice").iterdir()} == before
    assert receiver.partials() == kept


# --- two at once, and one that stops ---------------------------------------------------------------------------


def test_a_stream_arrives_once_at_a_time(receiver: Receiver) -> None:
    pieces = pieces_of(2, "tank/once@now")
    with receiver.peer() as first, receiver.peer() as second, receiver.peer("beta") as other:
        first.push(offer("tank/once"))
        second.write(control(offer("tank/once", claim="1" * 16)))
        assert second.refusal() == "busy: tank/once@now: is arriving on another connection"
        other.give(b"".join(pieces), offer("tank/once"), pieces)  # another sender's is another stream
        for chunk in chunks(pieces):
            first.write(chunk.encode())
        first.write(control(finish(b"".join(pieces))))
        first.hear_after_acks("committed")


def test_of_two_offers_at_the_same_moment_one_is_accepted(receiver: Receiver) -> None:
    for _ in range(10):
        with receiver.peer() as first, receiver.peer() as second:
            peers = [first, second]
            for peer, claim in zip(peers, ("1" * 16, "2" * 16), strict=True):
                peer.write(control(offer("tank/race", claim=claim)))
            heard = [peer.hear("accept", "error") for peer in peers]
            assert sorted(each["type"] for each in heard) == ["accept", "error"]
            (accepted,) = [peer for peer, each in zip(peers, heard, strict=True) if each["type"] == "accept"]
            accepted.say("stop", keep=True, reason="enough")
            accepted.hear("stopped")


def test_a_stream_that_is_stopped_is_kept_as_far_as_it_came(receiver: Receiver) -> None:
    pieces = pieces_of(3, "tank/stopped@now")
    raw = b"".join(pieces)
    kept = receiver.partials()
    with receiver.peer() as peer:
        peer.push(offer("tank/stopped"))
        for chunk in chunks(pieces[:2]):
            peer.write(chunk.encode())
        peer.say("stop", keep=True, reason="zfs send\x1b[2J died")
        assert peer.hear_after_acks("stopped")["offset"] == len(pieces[0]) + len(pieces[1])
        (partial,) = set(receiver.partials()) - set(kept)
        assert partial.stat().st_size == sum(len(chunk.frame) for chunk in chunks(pieces[:2]))
        peer.say("list", dataset="tank/stopped")
        peer.hear("done")
        receiver.wait_log(
            "alpha (127.0.0.1): tank/stopped@now: the sender stopped: zfs send\\x1b[2J died; what arrived"
        )
        # It can come again, on this connection too.
        peer.give(raw, offer("tank/stopped"), pieces)
        peer.say("fetch", offset=0, stream="tank/stopped@now", until=None)
        assert peer.fetched()[1] == raw
    assert set(receiver.partials()) == set(kept)


@pytest.mark.parametrize("what", ["frame", "hash"])
def test_behind_a_chunk_that_is_refused_nothing_is_written_and_what_was_before_it_stays(
    what: str, receiver: Receiver
) -> None:
    """Also where those behind it have arrived, and are decoded, before it is looked at."""
    kept = receiver.partials()
    name = f"tank/wrong-{what}"
    first, second, third, fourth = chunks(pieces_of(4, f"{name}@now"))
    wrong = (
        Chunk(second.raw_offset, second.raw_length, second.sha256, second.frame[:-1])
        if what == "frame"
        else Chunk(second.raw_offset, second.raw_length, bytes(32), second.frame)
    )
    with receiver.peer() as peer:
        peer.push(offer(name))
        for chunk in (first, wrong, third, fourth):
            peer.write(chunk.encode())
        assert peer.refusal().startswith("chunk: ")
        assert peer.acks == [first.raw_length]
    (partial,) = set(receiver.partials()) - set(kept)
    assert partial.read_bytes() == first.frame


def keyed(guid: int, base_guid: int = 0, *, ivset_guid: int, base_ivset_guid: int = 0) -> list[bytes]:
    """A whole raw stream of two chunks: snapshot GUID of tank/keys."""
    noise = random.Random(guid).randbytes(MIB)
    payload = streams.keys(ivset_guid, base_ivset_guid)
    begin = streams.begin(f"tank/keys@{guid}", guid, base_guid, features=[Feature.RAW], payload=payload)
    writes = [streams.write(1, number * MIB, noise) for number in range(5)]
    pieces = cut_records([begin, streams.object_(1), *writes, streams.end(guid)])
    assert len(pieces) == 2
    return pieces


def test_a_raw_increment_on_a_base_with_other_keys_is_refused_at_its_first_chunk(receiver: Receiver) -> None:
    """A copy that was received into an encrypted dataset has the same GUIDs. `zfs receive` would refuse it."""
    kept = receiver.partials()
    full, copy = keyed(1, ivset_guid=11), keyed(2, 1, ivset_guid=22, base_ivset_guid=21)
    with receiver.peer() as peer:
        file = peer.give(b"".join(full), offer_of_pieces(full), full)["file"]
        peer.push(offer_of_pieces(copy, keep_orphan=False))
        peer.write(chunks(copy)[0].encode())
        why = f"its base guid:1 is stored only as {file}, which is encrypted with other keys: send a full"
        assert peer.refusal() == f"base: tank/keys@2: {why}"
    wait_until(lambda: receiver.partials() == kept, "the partial is deleted")
    with receiver.peer() as peer:
        # What is kept all the same cannot be restored.
        assert not peer.give(b"".join(copy), offer_of_pieces(copy), copy)["restorable"]
        own = keyed(3, 1, ivset_guid=13, base_ivset_guid=11)
        assert peer.give(b"".join(own), offer_of_pieces(own, keep_orphan=False), own)["restorable"]


def test_a_raw_stream_of_which_all_had_arrived_is_compared_at_its_end(receiver: Receiver) -> None:
    kept = receiver.partials()
    full, more = keyed(4, ivset_guid=14), keyed(5, 4, ivset_guid=25, base_ivset_guid=24)
    leave(receiver, more, 2)
    with receiver.peer() as peer:
        file = peer.give(b"".join(full), offer_of_pieces(full), full)["file"]
        peer.write(control(offer_of_pieces(more, keep_orphan=False, resume="reconnect")))
        assert peer.hear("accept")["offset"] == len(b"".join(more))
        peer.write(control(finish(b"".join(more))))
        assert peer.refusal().startswith(f"base: tank/keys@5: its base guid:4 is stored only as {file}, which is")
    wait_until(lambda: receiver.partials() == kept, "the partial is deleted")


def test_a_stream_with_other_keys_does_not_replace_a_damaged_one(receiver: Receiver) -> None:
    kept = receiver.partials()
    mine, copy = keyed(6, ivset_guid=16), keyed(6, ivset_guid=26)
    with receiver.peer() as peer:
        file = peer.give(b"".join(mine), offer_of_pieces(mine), mine)["file"]
    (receiver.store / file).unlink()
    with receiver.peer() as peer:
        peer.push(offer_of_pieces(copy))
        peer.write(chunks(copy)[0].encode())
        assert peer.refusal() == (
            "stream: tank/keys@6: what is stored of it is encrypted with other keys, so this stream cannot replace it:"
            " push a new snapshot"
        )
    wait_until(lambda: receiver.partials() == kept, "the partial is deleted")
    with receiver.peer() as peer:
        assert peer.give(b"".join(mine), offer_of_pieces(mine), mine)["file"] == file


def test_a_stream_of_which_nothing_came_leaves_nothing(receiver: Receiver) -> None:
    kept = receiver.partials()
    with receiver.peer() as peer:
        peer.push(offer("tank/nothing"))
        assert len(receiver.partials()) == len(kept) + 1
    wait_until(lambda: receiver.partials() == kept, "the partial is deleted")


# --- resuming --------------------------------------------------------------------------------------------------

ANOTHER: Final = "1" * 16


def offer_of_pieces(pieces: list[bytes], **changes: Any) -> dict[str, Any]:
    return {"type": "push", **push_of(b"".join(pieces)).model_dump(mode="json"), **changes}


def rest_of(pieces: list[bytes], number: int) -> list[Chunk]:
    """The chunks from one on, in a segment of their own."""
    start = sum(map(len, pieces[:number]))
    return [
        Chunk(start + each.raw_offset, each.raw_length, each.sha256, each.frame, each.starts_segment)
        for each in chunks(pieces[number:])
    ]


def segments_at(raw: bytes, *borders: int) -> list[dict[str, Any]]:
    return [segment.model_dump() for segment in segments_of(raw, *borders)]


def leave(receiver: Receiver, pieces: list[bytes], count: int, **changes: Any) -> int:
    """Push so many chunks, and stop. Returns: how far the stream has come."""
    with receiver.peer() as peer:
        peer.push(offer_of_pieces(pieces, **changes))
        for chunk in chunks(pieces)[:count]:
            peer.write(chunk.encode())
        peer.say("stop", keep=True, reason="enough")
        assert peer.hear_after_acks("stopped")["offset"] == sum(map(len, pieces[:count]))
    return sum(map(len, pieces[:count]))


def finish_at(peer: Peer, raw: bytes, *borders: int) -> dict[str, Any]:
    peer.say("finish", raw_bytes=len(raw), segments=segments_at(raw, *borders))
    receipt = peer.hear_after_acks("committed")["receipt"]
    assert isinstance(receipt, dict)
    return receipt


def check_given_back(receiver: Receiver, file: str, raw: bytes) -> None:
    path = receiver.store / file
    assert zstd_decode(path) == raw
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_name(path.name + ".sha256").read_text(encoding="ascii") == f"{digest}  {path.name}\n"
    with receiver.peer() as peer:
        peer.say("verify", dataset=None)
        while (said := peer.hear("verdict", "done"))["type"] == "verdict":
            assert said["damage"] == [], said


@pytest.mark.parametrize("how", ["reconnect", "replay", "token"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_stream_resumes_where_it_was_interrupted(how: str, count: int, receiver: Receiver) -> None:
    pieces = pieces_of(3, f"tank/on-{how}-{count}@now")
    raw = b"".join(pieces)
    kept = leave(receiver, pieces, count)
    if how == "token" and count == 3:
        kept, count = kept - len(pieces[2]), 2  # it ends with no record after which it could be resumed
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume=how, claim=ANOTHER)))
        accepted = peer.hear("accept")
        assert (accepted["offset"], accepted["segments"]) == (kept, segments_at(raw[:kept]))
        if how == "token":
            last = max((each for each in streams.split(raw) if each.end <= kept), key=lambda each: each.end)
            assert base64.b64decode(accepted["record"]["header"]) == raw[last.start : last.start + 312]
        else:
            assert accepted["record"] is None
        for chunk in rest_of(pieces, count) if count < 3 else []:
            peer.write(chunk.encode())
        receipt = finish_at(peer, raw, *([kept] if kept < len(raw) else []))
    manifest = json.loads((receiver.store / f"{receipt['file']}.json").read_text(encoding="utf-8"))
    assert [(each["how"], each["offset"]) for each in manifest["resumptions"]] == [(how, kept)]
    assert manifest["segments"] == receipt["segments"] == segments_at(raw, *([kept] if kept < len(raw) else []))
    check_given_back(receiver, receipt["file"], raw)


def test_a_stream_that_is_not_to_be_resumed_starts_over(receiver: Receiver) -> None:
    pieces = pieces_of(2, "tank/over@now")
    leave(receiver, pieces, 1)
    with receiver.peer() as peer:
        peer.give(b"".join(pieces), offer_of_pieces(pieces), pieces)


def test_what_turns_out_not_to_be_the_same_is_deleted(receiver: Receiver) -> None:
    pieces = pieces_of(2, "tank/differs@now")
    before = receiver.partials()
    kept = leave(receiver, pieces, 1)
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume="replay")))
        assert peer.hear("accept")["offset"] == kept
        peer.say("stop", keep=False, reason="another stream")
        assert peer.hear("stopped")["offset"] == 0
        wait_until(lambda: receiver.partials() == before, "the partial is deleted")
        receiver.wait_log("what arrived is deleted")
        peer.write(control(offer_of_pieces(pieces, resume="replay")))
        assert peer.hear("accept")["offset"] == 0


def test_a_token_that_leads_nowhere_is_a_replay(receiver: Receiver) -> None:
    """In a package of several snapshots; what has arrived is not deleted for that."""
    first = b"".join(pieces_of(2, "tank/tree@a"))
    writes = [streams.write(1, at * WRITE_SIZE, bytes(WRITE_SIZE)) for at in range(80)]
    second = streams.substream(*writes, name="tank/tree@b", guid=8, base_guid=streams.GUID)
    raw = streams.package(first, second, name="tank/tree@b")
    pieces = [piece for _offset, piece in cut(raw)]
    kept = leave(receiver, pieces, 3)
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume="token")))
        accepted = peer.hear("accept")
        assert (accepted["offset"], accepted["record"]) == (kept, None)
        for chunk in rest_of(pieces, 3):
            peer.write(chunk.encode())
        receipt = finish_at(peer, raw, kept)
    check_given_back(receiver, receipt["file"], raw)


def test_a_chunk_that_the_disk_has_lost_does_not_keep_a_stream_from_ever_being_stored(receiver: Receiver) -> None:
    pieces = pieces_of(2, "tank/rotten@now")
    before = set(receiver.partials())
    leave(receiver, pieces, 1)
    (data,) = set(receiver.partials()) - before
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume="token")))
        assert peer.hear("accept") == {"type": "accept", "offset": 0, "segments": [], "record": None}
    receiver.wait_log("tank/rotten@now: starts over: its last chunk is not as written: ")


def test_a_line_that_breaks_off_again_and_again_makes_no_manifest_long(receiver: Receiver) -> None:
    pieces = pieces_of(2, "tank/flaps@now")
    kept = leave(receiver, pieces, 1)
    for _ in range(3):
        with receiver.peer() as peer:
            peer.write(control(offer_of_pieces(pieces, resume="reconnect")))
            assert peer.hear("accept")["offset"] == kept
            peer.say("stop", keep=True, reason="again")
            assert peer.hear("stopped")["offset"] == kept
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume="replay")))
        peer.hear("accept")
        peer.write(rest_of(pieces, 1)[0].encode())
        finish_at(peer, b"".join(pieces), kept)
        peer.say("fetch", stream="tank/flaps@now", offset=0, until=None)
        (resumption,) = peer.hear("sending")["manifest"]["resumptions"]
        assert (resumption["how"], resumption["offset"]) == ("replay", kept)


# --- room ------------------------------------------------------------------------------------------------------


def test_a_stream_that_does_not_fit_is_refused_before_its_first_byte(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        peer.write(control(offer(size_estimate=1 << 62)))
        refusal = peer.refusal()
    assert refusal.startswith("space: tank/data@now: no room: about 4194304.0 TiB raw, and its compression ratio is")
    assert refusal.endswith(
        " free, of which 0 B are to stay free (min-free): free space on the receiver, or push it with --no-size-check"
    )


def test_partial_of_a_stream_that_is_stored_meanwhile_counts_for_no_quota(tmp_path: Path) -> None:
    pieces, other = pieces_of(2), pieces_of(3, "tank/other@now")
    with serving(tmp_path, "alpha", quota="22M") as receiver:
        leave(receiver, pieces, 1)
        store_stream(LocalStore(receiver.store), "alpha", b"".join(pieces))
        with receiver.peer() as peer:
            peer.write(control(offer_of_pieces(pieces, resume="replay")))
            peer.hear("stored")
        assert receiver.partials() == []
        with receiver.peer() as peer:  # 8 MiB are stored, and nearly 12 MiB more fit
            peer.give(b"".join(other), offer_of_pieces(other, size_estimate=sum(map(len, other))), other)


def test_what_is_to_stay_free_stays_free(tmp_path: Path) -> None:
    with serving(tmp_path / "receiver", "alpha", min_free="1000000T") as receiver:
        with receiver.peer() as peer:
            peer.write(control(offer()))
            assert " 1000000.0 TiB are to stay free (min-free): free space on the receiver" in peer.refusal()
        with receiver.peer() as peer:  # to read is to need no room
            peer.say("check")
            (problem,) = peer.hear("health")["problems"]
            assert problem.endswith("are free; pushes are refused")


# --- memory ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("measured"), "alpha", "beta", pure=True) as receiver:
        yield receiver


@pytest.mark.slow
def test_memory_is_flat_over_long_streams(measured: Receiver) -> None:
    pieces = pieces_of(75, "tank/long@now")
    assert sum(map(len, pieces)) > 299 * MIB
    last_word = control(finish(b"".join(pieces)))
    wire = [*(chunk.encode() for chunk in chunks(pieces)), last_word]
    peaks = []
    for sender in ("alpha", "beta"):
        measured.reset_peak()
        with measured.peer(sender) as peer:
            peer.push(offer("tank/long"))
            for data in wire:
                peer.write(data)
            peer.hear_after_acks("committed")
        peaks.append(measured.peak)
    assert max(peaks) <= MEMORY + MEMORY_PER_STREAM
    assert peaks[1] <= peaks[0] + 16 * MIB  # a twentieth of what has passed through


@pytest.mark.slow
def test_memory_is_bounded_for_chunks_as_large_as_may_be_and_is_given_back(measured: Receiver) -> None:
    pieces = large_pieces(5, "tank/large@now")
    with measured.peer() as peer:
        held = measured.held
        peer.give(b"".join(pieces), offer("tank/large"), pieces)
        assert measured.peak <= held + CHUNK_ROOM + 6 * MIB
        assert measured.peak <= MEMORY + MEMORY_PER_STREAM
        measured.reset_peak()
        assert measured.peak <= MEMORY
        peer.say("fetch", offset=0, stream="tank/large@now", until=None)
        assert peer.fetched()[1] == b"".join(pieces)
        peer.say("verify", dataset=None)
        while peer.hear("verdict", "done")["type"] != "done":
            pass
    assert measured.peak <= MEMORY + MEMORY_PER_STREAM


@pytest.mark.slow
def test_memory_is_bounded_for_many_streams_at_once(measured: Receiver) -> None:
    count = 6
    sent = [chunks(large_pieces(1, f"tank/many-{number}@now")) for number in range(count)]
    failed: list[BaseException] = []

    def push(number: int) -> None:
        try:
            raw = b"".join(large_pieces(1, f"tank/many-{number}@now"))
            with measured.peer() as peer:
                peer.push(offer(f"tank/many-{number}"))
                for chunk in sent[number]:
                    peer.write(chunk.encode())
                peer.write(control(finish(raw)))
                peer.hear_after_acks("committed")
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    measured.reset_peak()
    threads = [threading.Thread(target=push, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert measured.peak <= MEMORY + count * MEMORY_PER_STREAM


# --- a disk that is slow ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_faulty_disk(tmp_path: Path, *, pure: bool = False, **settings: object) -> Iterator[tuple[Receiver, FaultyDisk]]:
    """A daemon whose disk does as the test says."""
    receiver = Receiver(tmp_path / "receiver")
    receiver.init(heartbeat_every=0.1, **settings)
    disk = FaultyDisk(tmp_path / "faults")
    receiver.start(program=disk.program, env=disk.env, pure=pure)
    try:
        receiver.enrol("alpha")
        yield receiver, disk
        if receiver.process is not None:
            assert receiver.stop() == 0, receiver.log
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


def hear_beats(peer: Peer, count: int, reason: bytes = b"") -> None:
    """Hear heartbeats that say this, and nothing else; before the first of them others may come."""
    while True:
        kind, _offset, _length, payload = peer.read()
        assert kind == HEARTBEAT
        if payload == reason:
            count -= 1
        if count == 0:
            return


def take_acks(peer: Peer, sent: list[Chunk], disk: FaultyDisk) -> None:
    """Hear acknowledgements of all these chunks; each time, those bytes must have been synced before, and the journal
    after them.
    """
    ends = [chunk.raw_offset + chunk.raw_length for chunk in sent]
    while not peer.acks or peer.acks[-1] < ends[-1]:
        offset = peer.hear("ack")["offset"]
        assert offset in ends
        stored = sum(len(chunk.frame) for chunk in sent[: ends.index(offset) + 1])
        assert max(disk.done("fdatasync", ".data"), default=0) >= stored
        assert len(disk.done("fdatasync", ".journal")) > len(peer.acks)  # one is that of its first line


@pytest.mark.slow
def test_nothing_is_acknowledged_before_it_is_durable(tmp_path: Path) -> None:
    sent = chunks(pieces_of(4))
    with on_faulty_disk(tmp_path) as (receiver, disk), receiver.peer() as peer:
        peer.push()
        with disk.blocked("fdatasync"):
            for chunk in sent[:2]:
                peer.write(chunk.encode())
            wait_until(lambda: disk.begun("fdatasync", ".data") == 1, "the batch is being synced")
            for chunk in sent[2:]:
                peer.write(chunk.encode())  # chunks keep arriving meanwhile
            size = sum(len(chunk.frame) for chunk in sent)
            wait_until(lambda: receiver.partials()[0].stat().st_size == size, "all chunks are written")
            hear_beats(peer, 3)
        take_acks(peer, sent, disk)
        assert max(disk.done("fdatasync", ".data")) == size
        peer.write(control(finish(b"".join(pieces_of(4)))))
        peer.hear_after_acks("committed")


class MadeUpIngest:
    """Checks and writes numbered chunks as a test says. `did`: what was done, in order."""

    def __init__(self, *, bad: int | None = None, full_at: int | None = None, checked_before: int = 0) -> None:
        self.did: list[tuple[str, int]] = []
        self.offset = self.unsynced = 0
        self.walker = SimpleNamespace(begins=[])
        self._bad = bad
        self._full_at = full_at
        self._checked_before = checked_before  # the first chunk is written only when so many are checked
        self._checked = threading.Semaphore(0)

    def check(self, chunk: WireChunk, _raw: bytes) -> Any:
        if chunk.raw_offset == self._bad:
            raise ChunkError("bad")
        self.did.append(("check", chunk.raw_offset))
        self._checked.release()
        return chunk

    def write(self, chunk: WireChunk) -> None:
        if chunk.raw_offset == 0:
            for _ in range(self._checked_before):
                assert self._checked.acquire(timeout=30)
        if chunk.raw_offset == self._full_at:
            raise OSError(errno.ENOSPC, "full")
        self.did.append(("write", chunk.raw_offset))


async def write_all(ingest: MadeUpIngest, count: int, *, end: bool = True) -> list[int]:
    """Let so many chunks be checked and written. Returns: those whose room was released. Raises: what ends it."""
    released: list[int] = []
    catalogues: Any = SimpleNamespace(store=SimpleNamespace(space=lambda: SimpleNamespace(free=0)))
    room: Any = SimpleNamespace(wrote=lambda _arrival, payload_length, *_rest: released.append(payload_length))
    with ThreadPoolExecutor(4) as threads:
        workers = Workers(cpu=threads, disk=threads, scrub=threads)
        push = push_of(b"".join(pieces_of(1)))
        receiving = Receiving(catalogues, SimpleNamespace(), workers, "alpha", push, room=room)  # type: ignore[arg-type]
        receiving._looked = True
        queue = DecodeQueue(threads, 4)
        for number in range(count):
            arriving = ChunkArriving(number, 1)
            await queue.claim(arriving)
            queue.put(arriving, WireChunk(number, 1, bytes(32), compress(b"x")))
        if end:
            queue.end()
        async with asyncio.timeout(60):
            await receiving._write_all(ingest, SimpleNamespace(), queue)  # type: ignore[arg-type]
    return released


async def test_a_chunk_is_checked_while_the_one_before_it_is_written() -> None:
    ingest = MadeUpIngest(checked_before=2)
    assert await write_all(ingest, 4) == [0, 1, 2, 3]
    assert ingest.did[:2] == [("check", 0), ("check", 1)]
    assert [number for what, number in ingest.did if what == "write"] == [0, 1, 2, 3]
    assert [number for what, number in ingest.did if what == "check"] == [0, 1, 2, 3]


async def test_behind_a_chunk_that_is_bad_nothing_is_written_and_what_is_before_it_is() -> None:
    ingest = MadeUpIngest(bad=2)
    with pytest.raises(ChunkError, match="bad"):
        await write_all(ingest, 4)
    assert [number for what, number in ingest.did if what == "write"] == [0, 1]


@pytest.mark.parametrize("count", [1, 4])
async def test_a_fault_of_the_disk_ends_it_also_where_no_chunk_comes_any_more(count: int) -> None:
    ingest = MadeUpIngest(full_at=0)
    with pytest.raises(OSError, match="full"):
        await write_all(ingest, count, end=False)
    assert "write" not in [what for what, _number in ingest.did]


async def test_the_fault_of_the_earlier_chunk_counts() -> None:
    ingest = MadeUpIngest(full_at=0, bad=1)
    with pytest.raises(OSError, match="full"):
        await write_all(ingest, 2)


def test_heartbeats_say_why_the_daemon_does_not_read(tmp_path: Path) -> None:
    pieces = pieces_of(chunks_held(len(os.sched_getaffinity(0))) + 2)
    sent = chunks(pieces)
    with on_faulty_disk(tmp_path) as (receiver, disk), receiver.peer() as peer:
        peer.push()
        with disk.blocked("write"):
            for chunk in sent[:-1]:
                peer.write(chunk.encode())
            hear_beats(peer, 2, b"writing")
        peer.write(sent[-1].encode())
        take_acks(peer, sent, disk)
        with disk.blocked("rename"):
            peer.write(control(finish(b"".join(pieces))))
            hear_beats(peer, 2, b"committing")
        peer.hear("committed")


def write_until_nothing_is_taken(peer: Peer, rest: memoryview) -> memoryview:
    """Write as much as the daemon takes, until it waits for its disk. Returns: what is left."""
    before, why = -1, b""
    while (len(rest), why) != (before, b"writing"):
        before = len(rest)
        rest = peer.write_what_goes(rest)
        assert rest, "all of it was taken"
        kind, _offset, _length, why = peer.read()
        assert kind == HEARTBEAT
    return rest


@pytest.mark.slow
def test_a_slow_disk_holds_the_sender_back_not_the_memory(tmp_path: Path) -> None:
    pieces = pieces_of(40)
    with on_faulty_disk(tmp_path, pure=True) as (receiver, disk), receiver.peer() as peer:
        receiver.reset_peak()
        peer.push()
        rest = memoryview(b"".join(chunk.encode() for chunk in chunks(pieces)))
        with disk.blocked("write"):
            rest = write_until_nothing_is_taken(peer, rest)
            assert len(rest) > 100 * MIB
            assert receiver.peak <= MEMORY + MEMORY_PER_STREAM
        peer.write(rest)
        peer.write(control(finish(b"".join(pieces))))
        peer.hear_after_acks("committed")
        assert receiver.peak <= MEMORY + MEMORY_PER_STREAM


@pytest.mark.slow
def test_what_waits_to_become_durable_is_bounded_whatever_the_sender_sends(tmp_path: Path) -> None:
    """This sender ignores its window. In a bucket these bytes would be in memory."""
    pieces = pieces_of(40)
    with on_faulty_disk(tmp_path) as (receiver, disk), receiver.peer() as peer:
        peer.push()
        rest = memoryview(b"".join(chunk.encode() for chunk in chunks(pieces)))
        with disk.blocked("fdatasync"):
            rest = write_until_nothing_is_taken(peer, rest)
            written = receiver.partials()[0].stat().st_size
            assert BATCH_BYTES < written <= UNDURABLE_MOST
        peer.write(rest)
        peer.write(control(finish(b"".join(pieces))))
        peer.hear_after_acks("committed")


def test_who_is_let_in_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    """Neither new connections nor old ones: the loop itself never touches the disk."""
    with on_faulty_disk(tmp_path) as (receiver, disk), receiver.peer() as pushing, receiver.peer() as waiting:
        pushing.push()
        with disk.blocked("fdatasync"), disk.blocked("write"):
            pushing.write(chunks(pieces_of(2))[0].encode())
            wait_until(lambda: disk.begun("write", ".data") == 1, "the disk is at work")
            hear_beats(waiting, 2)
            with receiver.peer() as another:
                another.say("list", dataset=None)
                another.hear("done")
        pushing.say("stop", keep=True, reason="enough")
        pushing.hear_after_acks("stopped")


# --- takeovers -------------------------------------------------------------------------------------------------

TAKEN_OVER: Final = "is arriving on another connection now"


def test_the_same_claim_takes_a_stream_over_with_all_that_has_arrived(receiver: Receiver) -> None:
    pieces = pieces_of(2, "tank/taken@now")
    raw = b"".join(pieces)
    with receiver.peer() as first, receiver.peer() as second, receiver.peer() as other:
        first.push(offer_of_pieces(pieces))
        first.write(chunks(pieces)[0].encode())
        first.write(chunks(pieces)[1].encode()[:1000])  # ... and amid the next
        first.hear("ack")
        other.write(control(offer_of_pieces(pieces, claim=ANOTHER, resume="reconnect")))
        assert other.refusal() == "busy: tank/taken@now: is arriving on another connection"
        second.write(control(offer_of_pieces(pieces, resume="reconnect")))
        accepted = second.hear("accept")
        assert accepted["offset"] == len(pieces[0])
        assert first.refusal() == f"busy: tank/taken@now: {TAKEN_OVER}"
        second.write(rest_of(pieces, 1)[0].encode())
        receipt = finish_at(second, raw, len(pieces[0]))
    check_given_back(receiver, receipt["file"], raw)


def is_taken_over(peer: Peer) -> bool:
    """Whether this connection has heard so by now. Nothing but heartbeats may come before."""
    while peer.sock.pending() or select.select([peer.sock], [], [], 0)[0]:
        kind, _offset, _length, payload = peer.read()
        if kind != HEARTBEAT:
            assert TAKEN_OVER.encode() in payload
            return True
    return False


def test_of_many_takeovers_at_once_one_is_left(receiver: Receiver) -> None:
    pieces = pieces_of(1, "tank/many-taken@now")
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(receiver.peer()) for _ in range(5)]
        for peer in peers:
            peer.write(control(offer_of_pieces(pieces, resume="reconnect")))
        left = [peer for peer in peers if peer.hear("accept", "error")["type"] == "accept"]
        # All but one of those that were accepted hear of another one: however long that takes.
        while len(left) > 1:
            select.select([peer.sock for peer in left], [], [])
            left = [peer for peer in left if not is_taken_over(peer)]
        (winner,) = left
        winner.write(chunks(pieces)[0].encode())
        finish_at(winner, b"".join(pieces))


@pytest.mark.parametrize("package", [False, True], ids=["full", "package"])
def test_a_takeover_amid_the_commit_finds_it_stored(package: bool, tmp_path: Path) -> None:
    """The receipt of the first connection is lost; the commit is not."""
    pieces = pieces_of(2)
    said = offer() if package else offer_of_pieces(pieces)
    raw = b"".join(pieces)
    whole = {"guid": str(streams.GUID), "base_guid": None, "flags": "", "raw_bytes": len(raw)}
    with on_faulty_disk(tmp_path) as (receiver, disk), receiver.peer() as first, receiver.peer() as second:
        first.push(said)
        for chunk in chunks(pieces):
            first.write(chunk.encode())
        with disk.blocked("rename"):
            first.write(control(finish(raw)))
            wait_until(lambda: disk.begun("rename", ".data") == 1, "it is being committed")
            second.write(control({**said, "resume": "reconnect", "whole": whole}))
            receiver.wait_log("is taken over from another connection")
        assert first.refusal() == f"busy: tank/data@now: {TAKEN_OVER}"
        receipt = second.hear("stored")["receipt"]
        assert receipt["segments"] == segments_at(raw)
        assert receiver.partials() == []
        check_given_back(receiver, receipt["file"], raw)
        # ... and so it does later, for who asks by what it has turned out to be.
        second.write(control({**said, "whole": whole}))
        assert second.hear("stored")["receipt"] == receipt
        second.write(control({**said, "whole": {**whole, "raw_bytes": 1}}))
        assert second.hear("accept", "stored")["type"] == ("accept" if package else "stored")


@pytest.mark.parametrize("by", ["a takeover", "the end of the daemon"])
def test_stream_is_reported_once_though_its_connection_is_cut_amid_the_commit(by: str, tmp_path: Path) -> None:
    pieces = pieces_of(2)
    said = offer_of_pieces(pieces)
    with on_faulty_disk(tmp_path, shutdown_grace=0.1) as (receiver, disk):
        with contextlib.ExitStack() as stack:
            first, second = stack.enter_context(receiver.peer()), stack.enter_context(receiver.peer())
            first.push(said)
            for chunk in chunks(pieces):
                first.write(chunk.encode())
            with disk.blocked("rename", ".json"):
                first.write(control(finish(b"".join(pieces))))
                wait_until(lambda: disk.begun("rename", ".json") == 1, "it is being committed")
                if by == "a takeover":
                    second.write(control({**said, "resume": "reconnect"}))
                    receiver.wait_log("is taken over from another connection")
                else:
                    receiver.send_signal(signal.SIGTERM)
                    receiver.wait_log("cancelling the remaining")
            if by == "a takeover":
                second.hear("stored")
                receiver.send_signal(signal.SIGTERM)
            assert receiver.wait() == 0
        events = [each for _place, each in LocalStore(receiver.store).events.read(EventPlace(0, 0)).events]
        (event,) = [each for each in events if each["event"] == "received"]
        assert (event["sender"], event["dataset"], event["raw_bytes"]) == ("alpha", "tank/data", sum(map(len, pieces)))
        assert [each for each in events if each["event"] == "push-failed"] == []


def test_a_stream_that_is_taken_over_amid_its_commit_counts_once_for_the_quota(tmp_path: Path) -> None:
    pieces, other = pieces_of(2), pieces_of(3, "tank/other@now")
    whole = {"guid": str(streams.GUID), "base_guid": None, "flags": "", "raw_bytes": sum(map(len, pieces))}
    with on_faulty_disk(tmp_path, quota="22M") as (receiver, disk):
        with receiver.peer() as first, receiver.peer() as second:
            first.push(offer_of_pieces(pieces))
            begin, end = chunks(pieces)
            first.write(begin.encode())
            first.hear("ack")  # so it was a partial that a later connection could resume
            first.write(end.encode())
            with disk.blocked("rename"):
                first.write(control(finish(b"".join(pieces))))
                wait_until(lambda: disk.begun("rename", ".data") == 1, "it is being committed")
                second.write(control(offer_of_pieces(pieces, resume="reconnect", whole=whole)))
                receiver.wait_log("is taken over from another connection")
            second.hear("stored")
        with receiver.peer() as peer:  # 8 MiB are stored, and nearly 12 MiB more fit
            peer.give(b"".join(other), offer_of_pieces(other, size_estimate=sum(map(len, other))), other)


# --- a disk that fails -----------------------------------------------------------------------------------------

#: call, on files of which name, errno; and what the sender is told.
FAULTS: Final = {
    "the data cannot be synced": ("fdatasync", ".data", errno.EIO, "store: the store's disk fails ("),
    "the data cannot be synced for want of space": (
        "fdatasync",
        ".data",
        errno.ENOSPC,
        "space: tank/failing@now: the store is full (",
    ),
    "the journal cannot be synced": ("fdatasync", ".journal", errno.EIO, "store: the store's disk fails ("),
    "the journal cannot be written": (
        "write",
        ".journal",
        errno.ENOSPC,
        "space: tank/failing@now: the store is full (",
    ),
    "the data cannot be written": ("write", ".data", errno.EIO, "store: the store's disk fails ("),
    "the disk is full": ("write", ".data", errno.ENOSPC, "space: tank/failing@now: the store is full ("),
    "the quota is used up": ("write", ".data", errno.EDQUOT, "space: tank/failing@now: the store is full ("),
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Receiver, FaultyDisk]]:
    with on_faulty_disk(tmp_path_factory.mktemp("failing")) as both:
        yield both


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after_an_ack", [False, True], ids=["first batch", "later"])
def test_a_failing_disk_ends_the_stream_by_name_and_nothing_is_acknowledged_after_it(
    fault: str, after_an_ack: bool, failing: tuple[Receiver, FaultyDisk]
) -> None:
    call, suffix, number, expected = FAULTS[fault]
    receiver, disk = failing
    pieces = pieces_of(3, "tank/failing@now")
    sent = chunks(pieces)
    with receiver.peer() as peer:
        peer.push(offer("tank/failing"))
        if after_an_ack:
            peer.write(sent.pop(0).encode())
            peer.hear("ack")
        with disk.failing(call, suffix, number):
            for chunk in sent[:1]:
                peer.write(chunk.encode())
            heard = peer.refusal()
        assert heard.startswith(expected)
        assert peer.acks == ([len(pieces[0])] if after_an_ack else [])
    with receiver.peer() as peer:
        peer.say("list", dataset=None)
        peer.hear("done")


def test_why_a_stream_ends_is_told_though_the_disk_fails_after_it(failing: tuple[Receiver, FaultyDisk]) -> None:
    receiver, disk = failing
    first, second, _third = chunks(pieces_of(3, "tank/both@now"))
    with receiver.peer() as peer, disk.failing("fdatasync", ".data", errno.EIO):
        peer.push(offer("tank/both"))
        peer.write(first.encode())
        peer.write(Chunk(second.raw_offset, second.raw_length, bytes(32), second.frame).encode())
        assert peer.refusal().startswith(f"chunk: chunk at raw offset {second.raw_offset}: its SHA-256 differs")
        assert peer.acks == []
    receiver.wait_log("tank/both@now: its last chunks are lost: [Errno 5] ")


def test_what_a_check_finds_is_told_though_it_cannot_be_recorded(failing: tuple[Receiver, FaultyDisk]) -> None:
    receiver, disk = failing
    pieces = pieces_of(1, "tank/checked@now")
    with receiver.peer() as peer:
        file = peer.give(b"".join(pieces), offer("tank/checked"), pieces)["file"]
        with disk.failing("write", "alpha.jsonl", errno.ENOSPC):
            peer.say("verify", dataset="tank/checked")
            assert peer.hear("verdict")["damage"] == []
            peer.hear("done")
    receiver.wait_log(f"{file}: the result cannot be recorded: [Errno 28] ")


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.ESTALE])
def test_a_read_error_during_a_check_is_not_damage(number: int, failing: tuple[Receiver, FaultyDisk]) -> None:
    receiver, disk = failing
    pieces = pieces_of(1, f"tank/read-{number}@now")
    with receiver.peer() as peer:
        file = peer.give(b"".join(pieces), offer(f"tank/read-{number}"), pieces)["file"]
        with disk.failing("pread", ".zst", number):
            peer.say("verify", dataset=f"tank/read-{number}")
            (line,) = peer.hear("verdict")["damage"]
            assert line.startswith("not checked, and not known to be damaged by that: ")
            assert os.strerror(number) in line
            peer.hear("done")
        receiver.wait_log(f"{os.strerror(number)} (disk ")
        assert f"{file}: not checked: " in receiver.log
        peer.say("list", dataset=f"tank/read-{number}")
        (entry,) = peer.hear("entries")["entries"]
        peer.hear("done")
        assert (entry["damaged"], entry["verified"], entry["restorable"]) == (None, None, True)
        peer.say("verify", dataset=f"tank/read-{number}")
        assert peer.hear("verdict")["damage"] == []
        peer.hear("done")


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EIO])
def test_a_join_that_cannot_be_written_down_is_none(
    number: int, failing: tuple[Receiver, FaultyDisk], tmp_path: Path
) -> None:
    receiver, disk = failing
    certificate = make_certificate(tmp_path / "joining.pem")
    secret = receiver.secret(f"joining-{number}")
    with Peer(receiver.port) as peer, disk.failing("fsync", "", number):
        peer.hear("hello")
        peer.say("join", secret=secret, certificate=certificate.pem)
        assert peer.refusal().startswith("store: the store's disk fails (")
    with Peer(receiver.port) as peer:
        peer.hear("hello")
        peer.say("join", secret=secret, certificate=certificate.pem)
        assert peer.hear("joined")["sender"] == f"joining-{number}"


def test_a_stream_that_arrives_at_once_is_kept_if_its_commit_fails(failing: tuple[Receiver, FaultyDisk]) -> None:
    """The commit alone would have made it durable."""
    receiver, disk = failing
    pieces = pieces_of(1, "tank/at-once@now")
    raw = b"".join(pieces)
    with receiver.peer() as peer, disk.failing("fsync", ".sha256", errno.EIO):
        peer.push(offer_of_pieces(pieces))
        peer.write(chunks(pieces)[0].encode() + control(finish(raw)))
        assert peer.refusal().startswith("store: the store's disk fails (")
    with receiver.peer() as peer:
        peer.write(control(offer_of_pieces(pieces, resume="replay")))
        assert peer.hear("accept")["offset"] == len(raw)
        assert finish_at(peer, raw)["raw_bytes"] == len(raw)


@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_a_commit_that_fails_is_no_commit(call: str, tmp_path: Path) -> None:
    pieces = pieces_of(1)
    raw = b"".join(pieces)
    with on_faulty_disk(tmp_path) as (receiver, disk):
        with receiver.peer() as peer:
            peer.push()
            peer.write(chunks(pieces)[0].encode())
            peer.hear("ack")
            with disk.failing(call, "", errno.EIO):
                peer.write(control(finish(raw)))
                assert peer.refusal().startswith("store: the store's disk fails (")
        assert receiver.listed() == []
        with receiver.peer() as peer:
            # Where its commit was in the journal, the beginning of this push has completed it.
            receipt = peer.give(raw, offer(), pieces, answer="stored" if call == "rename" else "committed")
        assert [entry["file"] for entry in receiver.listed()] == [receipt["file"]]


def test_after_a_failed_disk_the_next_push_succeeds(failing: tuple[Receiver, FaultyDisk]) -> None:
    receiver, disk = failing
    pieces = pieces_of(2, "tank/next@now")
    with receiver.peer() as peer:
        peer.push(offer("tank/next"))
        with disk.failing("fdatasync", ".data", errno.EIO):
            peer.write(chunks(pieces)[0].encode())
            peer.refusal()
    with receiver.peer() as peer:
        peer.give(b"".join(pieces), offer("tank/next"), pieces)
        peer.say("fetch", offset=0, stream="tank/next@now", until=None)
        assert peer.fetched()[1] == b"".join(pieces)
        peer.say("verify", dataset="tank/next")
        assert peer.hear("verdict")["damage"] == []


@pytest.mark.parametrize("how", ["replay", "token"])
def test_data_that_cannot_be_read_back_cost_one_push_at_most(how: str, failing: tuple[Receiver, FaultyDisk]) -> None:
    receiver, disk = failing
    pieces = pieces_of(2, f"tank/unread-{how}@now")
    raw = b"".join(pieces)
    before = set(receiver.partials())
    kept = leave(receiver, pieces, 1)
    (data,) = set(receiver.partials()) - before
    with disk.failing("pread", ".data", errno.EIO):
        if how == "replay":
            with receiver.peer() as peer:
                peer.write(control(offer_of_pieces(pieces, resume=how)))
                assert peer.hear("accept")["offset"] == kept
                peer.write(rest_of(pieces, 1)[0].encode())
                peer.say("finish", raw_bytes=len(raw), segments=segments_at(raw, kept))
                said = peer.refusal()
            assert said.startswith(f"partial: partial {data.stem}: cannot be read: [Errno 5] ")
        with receiver.peer() as peer:
            peer.write(control(offer_of_pieces(pieces, resume=how)))
            assert peer.hear("accept")["offset"] == 0
            for chunk in chunks(pieces):
                peer.write(chunk.encode())
            finish_at(peer, raw)
    assert receiver.log.count(f"partial {data.stem}: cannot be read: [Errno 5] ") == (2 if how == "replay" else 1)
    assert data.with_name(f"{data.name}.damaged").exists()


def test_a_write_that_stops_half_way_is_none(tmp_path: Path) -> None:
    """For real: the kernel takes a part of the second chunk, and no more."""
    most = 6 * MIB
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    receiver.start()
    assert receiver.process is not None
    resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (most, most))
    try:
        receiver.enrol("alpha")
        pieces = pieces_of(3)
        with receiver.peer() as peer:
            peer.push()
            for chunk in chunks(pieces):
                peer.write(chunk.encode())
            assert peer.refusal().startswith("space: tank/data@now: the store is full (File too large)")
            assert peer.acks == [len(pieces[0])]
        (partial,) = receiver.partials()
        assert partial.stat().st_size == most
        with receiver.peer() as peer:
            peer.give(b"".join(pieces[:0]) + (small := b"".join(pieces_of(1))), offer())
            peer.say("fetch", offset=0, stream="tank/data@now", until=None)
            assert peer.fetched()[1] == small
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


@pytest.mark.slow
def test_nothing_is_taken_away_beneath_a_thread_at_work_however_often_its_task_is_cancelled(tmp_path: Path) -> None:
    (chunk,) = chunks(pieces_of(1))
    with on_faulty_disk(tmp_path, shutdown_grace=0.1) as (receiver, disk), receiver.peer() as peer:
        peer.push()
        with disk.blocked("fdatasync"):
            peer.write(chunk.encode())
            wait_until(lambda: disk.begun("fdatasync", ".data") == 1, "the batch is being synced")
            assert receiver.fullsendd("revoke", "alpha").returncode == 0
            receiver.wait_log("alpha: revoked; its connection ends")  # once
            (receiver.store / ".state/senders.json").touch()
            receiver.wait_log("alpha: revoked; its connection ends", 2)  # twice
            receiver.send_signal(signal.SIGTERM)
            receiver.wait_log("cancelling the remaining 1 connections")  # three times
        assert peer.hear("ack")["offset"] == chunk.raw_length
        assert peer.refusal() == "revoked: the certificate of sender alpha has been revoked"
        assert receiver.wait() == 0
        receiver.check_log()
        (partial,) = receiver.partials()
        assert partial.read_bytes() == chunk.frame


def test_that_a_stream_resumes_is_written_down_before_its_files_are_closed_though_it_is_cut_meanwhile(
    tmp_path: Path,
) -> None:
    """Else the number of its journal would be another file's by the time at which the line is written."""
    pieces = pieces_of(2)
    with on_faulty_disk(tmp_path) as (receiver, disk):
        receiver.enrol("beta")
        leave(receiver, pieces, 1)
        (data,) = receiver.partials()
        with receiver.peer() as peer, receiver.peer("beta") as other:
            with disk.blocked("write", ".journal"):
                before = disk.begun("write", ".journal")
                peer.write(control(offer_of_pieces(pieces, resume="replay")))
                wait_until(lambda: disk.begun("write", ".journal") > before, "the line is being written")
                assert receiver.fullsendd("revoke", "alpha").returncode == 0
                receiver.wait_log("alpha: revoked; its connection ends")
                other.say("list", dataset=None)  # the daemon has turned to other things since
                other.hear("done")
            assert peer.refusal() == "revoked: the certificate of sender alpha has been revoked"
        last = data.with_suffix(".journal").read_bytes().splitlines()[-1]
        assert json.loads(last[9:])["resumed"]["how"] == "replay"


def test_a_stream_cut_before_it_was_accepted_leaves_nothing(tmp_path: Path) -> None:
    with on_faulty_disk(tmp_path) as (receiver, disk):
        with receiver.all_closed(), receiver.peer() as peer:
            with disk.blocked("fdatasync"):
                peer.write(control(offer()))
                wait_until(lambda: disk.begun("fdatasync", ".journal") == 1, "the partial is being made")
                assert receiver.fullsendd("revoke", "alpha").returncode == 0
                receiver.wait_log("alpha: revoked; its connection ends")
            assert peer.refusal() == "revoked: the certificate of sender alpha has been revoked"
        assert receiver.partials() == []


@pytest.mark.slow
def test_a_bug_costs_one_connection_and_leaves_its_traceback(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    disk = FaultyDisk(tmp_path / "faults")
    receiver.start(program=disk.program, env=disk.env)
    try:
        receiver.enrol("alpha")
        with receiver.peer() as peer:
            peer.push()
            with disk.failing("fdatasync", ".data", 0):
                peer.write(chunks(pieces_of(1))[0].encode())
                assert peer.refusal() == "internal: a bug in fullsendd; its log has more"
        assert "ERROR: alpha (127.0.0.1): a bug in fullsendd\nTraceback" in receiver.log
        assert "RuntimeError: a bug, for a test" in receiver.log
        with receiver.peer() as peer:
            pieces = pieces_of(1)
            peer.give(b"".join(pieces), offer(), pieces)
        assert receiver.stop() == 0
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


# --- kill -9 ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_listed_that_is_not_whole_and_the_next_push_succeeds(tmp_path: Path) -> None:
    pieces = pieces_of(4)
    raw = b"".join(pieces)
    wire = b"".join(chunk.encode() for chunk in chunks(pieces)) + control(finish(raw))
    chance = random.Random(7)
    moments = [0, *(chance.randrange(len(wire)) for _ in range(4)), len(wire) - 1, len(wire), len(wire), len(wire)]
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    receiver.start()
    try:
        receiver.enrol("alpha")
        for moment in moments:
            with receiver.peer() as peer:
                peer.write(control(offer()))
                if peer.hear("accept", "stored")["type"] == "accept":
                    peer.write(wire[:moment])
                receiver.stop(signal.SIGKILL)
            receiver.start()
            listed = receiver.listed()
            with receiver.peer() as peer:
                if listed:
                    peer.say("fetch", offset=0, stream="tank/data@now", until=None)
                    assert peer.fetched()[1] == raw
                    for path in (receiver.store / listed[0]["file"]).parent.iterdir():
                        path.unlink()
                peer.give(raw, offer(), pieces)
                peer.say("verify", dataset=None)
                assert peer.hear("verdict")["damage"] == []
            for path in (receiver.store / receiver.listed()[0]["file"]).parent.iterdir():
                path.unlink()
            assert receiver.partials() == []
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


@pytest.mark.slow
def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    pieces = pieces_of(3)
    sent = chunks(pieces)
    receiver = Receiver(tmp_path / "receiver")
    receiver.init()
    receiver.start()
    try:
        receiver.enrol("alpha")
        with receiver.peer() as peer:
            peer.push()
            for chunk in sent[:2]:
                peer.write(chunk.encode())
            while peer.acks[-1:] != [len(pieces[0]) + len(pieces[1])]:
                peer.hear("ack")
            peer.write(sent[2].encode()[:-1])
            receiver.stop(signal.SIGKILL)
        receiver.start()
        (partial,) = receiver.partials()
        assert zstd_decode(partial) == pieces[0] + pieces[1]
        receiver.wait_log(f"kept, with {len(pieces[0]) + len(pieces[1])} raw bytes")
        assert receiver.stop() == 0
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)
