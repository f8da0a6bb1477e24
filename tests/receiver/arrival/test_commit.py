from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import stat
import time
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from tests import streams
from tests.receiver.helpers import (
    PROGRAM,
    SENDER,
    check_listed,
    checked,
    commit_stream,
    everything,
    everywhere,
    finish_of,
    hash_path,
    ingest_stream,
    manifest_path,
    plant,
    push_of,
    read_manifest,
    remove,
    store_stream,
)
from tests.streams import each, whole

import fullsend_protocol
from fullsend_protocol.format.manifest import LostSpill, Manifest
from fullsend_protocol.format.tables import table
from fullsend_protocol.shared.errors import ChunkError, IncompleteStream
from fullsend_protocol.shared.units import parse_time
from fullsend_protocol.wire.messages import Stored
from fullsend_receiver.arrival.admission import judge
from fullsend_receiver.arrival.bounds import RoomRequest
from fullsend_receiver.arrival.commit import commit, stored_file
from fullsend_receiver.catalogue import inotify
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.daemon.answers import find_status
from fullsend_receiver.maintenance.scrub import rebuild
from fullsend_receiver.store.errors import StoreError

if TYPE_CHECKING:
    from tests.streams import Genuine

    from fullsend_receiver.store.local import LocalStore

PLAIN = streams.substream(streams.object_(1), streams.write(1, 0, b"x" * 512))
OTHER = streams.substream(streams.object_(1), streams.write(1, 0, b"y" * 512))  # the same identity, other bytes
KEYS = [
    *(
        "format",
        "sender",
        "dataset",
        "snapshot",
        "guid",
        "base_guid",
        "kind",
        "dataset_type",
        "class",
        "flags",
        "features",
    ),
    *(
        "snapshots",
        "created",
        "received",
        "begun",
        "sequence",
        "raw_bytes",
        "stored_bytes",
        "sha256",
        "segments",
        "resumptions",
    ),
    *("file_sha256", "chunks"),
    *("sender_program", "receiver_program", "zfs_version", "properties", "proven_by", "lost_spills"),
]
IVSETS = ("ivset_guid", "base_ivset_guid")


def in_place(store: LocalStore) -> dict[str, Any]:
    """All that is in the senders' folders."""
    return {path: content for path, content in everything(store.root).items() if not path.startswith(".")}


# --- the manifest -----------------------------------------------------------------------------------------------


@each(whole)
def test_manifest_says_what_the_stream_is(store: LocalStore, stream: Genuine) -> None:
    """Held against what another reader wrote down of it."""
    raw = stream.read()
    file = store_stream(store, SENDER, raw)
    manifest = json.loads(manifest_path(store, file).read_bytes())
    outer = stream.begins[0] if stream.begins[0]["compound"] else None
    inner = [begin for begin in stream.begins if not begin["compound"]]
    dataset, snapshot = stream.begins[0]["toname"].split("@")
    top = [begin for begin in inner if begin["toname"].split("@")[0] == dataset]
    features = 0
    for begin in inner:
        features |= begin["features"]
    letters = {bit: letter for bit, letter in ((19, "L"), (16, "e"), (22, "c"), (24, "w")) if features >> bit & 1}
    flags = "".join(letters.values()) + ("p" if outer and outer["payload"] else "")
    redacted = bool(features >> 21 & 1)

    assert list(manifest) == KEYS + [name for name in IVSETS if name in manifest]
    raw_top = bool(top[-1]["features"] >> 24 & 1)
    assert [name in manifest for name in IVSETS] == [raw_top, raw_top and manifest["base_guid"] is not None]
    assert manifest["format"] == 1
    assert (manifest["sender"], manifest["dataset"], manifest["snapshot"]) == (SENDER, dataset, snapshot)
    assert manifest["guid"] == str(top[-1]["toguid"])
    assert manifest["base_guid"] == (str(top[0]["fromguid"]) if top[0]["fromguid"] else None)
    assert manifest["kind"] == ("package" if len(inner) > 1 else "incremental" if top[0]["fromguid"] else "full")
    assert manifest["class"] == ("redacted" if redacted else "raw" if 24 in letters else "plain")
    assert re.fullmatch(flags + ("r[0-9a-f]{8}" if redacted else ""), manifest["flags"])
    assert ("large_blocks" in manifest["features"]) == (19 in letters)
    assert len(manifest["features"]) == features.bit_count()
    assert manifest["snapshots"] == [
        {
            "dataset": begin["toname"].split("@")[0],
            "snapshot": begin["toname"].split("@")[1],
            "guid": str(begin["toguid"]),
            "base_guid": str(begin["fromguid"]),
        }
        for begin in inner
    ]
    created = datetime.strptime(manifest["created"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert created.timestamp() == top[-1]["creation"]
    assert manifest["raw_bytes"] == stream.size
    assert manifest["sha256"] == stream.sha256
    assert manifest["segments"] == [{"start": 0, "end": stream.size, "sha256": stream.sha256}]
    data = (store.root / file).read_bytes()
    assert manifest["stored_bytes"] == len(data)
    assert manifest["file_sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["sender_program"] == PROGRAM
    assert manifest["receiver_program"] == f"fullsendd {fullsend_protocol.__version__}"
    assert manifest["zfs_version"] is None
    assert manifest["proven_by"] == "both"
    assert manifest["lost_spills"] == []
    assert len(manifest_path(store, file).read_bytes()) < 16 << 10


def test_streams_are_numbered_in_the_order_of_reception(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clocks say: here the receiver's own goes back by a year between two nights."""
    night = itertools.count()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - next(night) * 365 * 86400)
    for guid in range(1, 4):
        store_stream(store, SENDER, streams.substream(name=f"tank/data@{guid}", guid=guid, base_guid=guid - 1))
    other = streams.substream(name="tank/other@1", guid=9)
    receipt = commit(
        Catalogues(store),
        "beta",
        ingest_stream(store, "beta", other),
        finish_of(other),
        push_of(other),
        sender_program=PROGRAM,
    ).receipt
    catalogue = read_catalogue(store)
    assert [(each.summary.sender, each.summary.snapshot, each.summary.sequence) for each in catalogue.streams] == [
        ("alpha", "1", 1), ("alpha", "2", 2), ("alpha", "3", 3), ("beta", "1", 1),
    ]  # fmt: skip
    manifest = read_manifest(store, PurePosixPath(receipt.file))
    assert manifest.begun is not None
    monkeypatch.undo()
    newest = next(each for each in catalogue.streams if each.summary.snapshot == "3")
    remove(store, newest.file)
    store_stream(store, SENDER, streams.substream(name="tank/data@4", guid=4, base_guid=2))
    assert [each.summary.sequence for each in read_catalogue(store, SENDER).streams] == [1, 2, 3]


def test_a_rebuilt_manifest_makes_nothing_the_newest(store: LocalStore) -> None:
    first = store_stream(store, SENDER, streams.substream(name="tank/data@1", guid=1))
    store_stream(store, SENDER, streams.substream(name="tank/data@2", guid=2))
    manifest_path(store, first).unlink()
    assert rebuild(store, first).sequence is None
    assert [one.snapshot for one in find_status(read_catalogue(store, SENDER), {})] == ["2"]


def test_manifest_has_when_it_was_received_and_by_which_zfs_it_was_made(store: LocalStore) -> None:
    before = int(time.time())
    ingest = ingest_stream(store, SENDER, PLAIN)
    properties = {"compression": "zstd", "user:note": "größe\n"}
    push = push_of(PLAIN).model_copy(update={"zfs_version": "zfs-2.4.4", "properties": properties})
    receipt = commit(Catalogues(store), SENDER, ingest, finish_of(PLAIN), push, sender_program="fullsend 9").receipt
    manifest = read_manifest(store, PurePosixPath(receipt.file))
    assert manifest.properties == properties
    received = datetime.strptime(manifest.received, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    assert before <= received <= time.time()
    assert (manifest.sender_program, manifest.zfs_version) == ("fullsend 9", "zfs-2.4.4")


def test_time_beyond_all_calendars_is_no_reason_to_lose_a_stream(store: LocalStore) -> None:
    raw = streams.begin(created=(1 << 64) - 1) + streams.end()
    assert read_manifest(store, store_stream(store, SENDER, raw)).created == f"@{(1 << 64) - 1}"


@pytest.mark.parametrize(
    "name",
    [
        "tank/odd name@snap shot:1",
        "tank/100%@%41",
        "tank/../../etc@..",
        "tank/größe/写真@😀",
        "tank/new\nline@\x1b[31mred",
        "t/" + "a" * 250 + "@s",
        "t@" + "ö" * 126,
    ],
)
def test_any_name_is_stored_safely_and_told_truly(store: LocalStore, name: str) -> None:
    file = store_stream(store, SENDER, streams.substream(name=name))
    manifest = read_manifest(store, file)
    assert f"{manifest.dataset}@{manifest.snapshot}" == name
    assert check_listed(store) == [str(file)]
    assert (store.root / file).resolve().is_relative_to(store.root.resolve() / SENDER)
    (stored,) = read_catalogue(store).streams
    assert checked(store, stored).damage == ()


def test_manifest_of_a_later_version_with_more_in_it_is_read(store: LocalStore) -> None:
    file = store_stream(store, SENDER, PLAIN)
    told = json.loads(manifest_path(store, file).read_bytes())
    told["of_a_later_version"] = {"more": 1}
    assert Manifest.model_validate_json(json.dumps(told)) == read_manifest(store, file)


# --- the files --------------------------------------------------------------------------------------------------


def test_stored_stream_is_three_files_that_its_group_may_read_and_nothing_else(store: LocalStore) -> None:
    file = store_stream(store, SENDER, PLAIN)
    names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (store.root / file).parent.iterdir()}
    assert names == {file.name + suffix: 0o640 for suffix in ("", ".json", ".sha256")}
    assert not list(store.partial.iterdir())


def test_hash_file_names_the_file_as_sha256sum_wants_it(store: LocalStore) -> None:
    file = store_stream(store, SENDER, PLAIN)
    sha256 = hashlib.sha256((store.root / file).read_bytes()).hexdigest()
    assert hash_path(store, file).read_text(encoding="ascii") == f"{sha256}  {file.name}\n"


def test_senders_are_kept_apart(store: LocalStore) -> None:
    files = [store_stream(store, sender, PLAIN) for sender in ("alpha", "beta")]
    assert [str(file) for file in files] == check_listed(store)
    assert [file.parts[0] for file in files] == ["alpha", "beta"]


# --- not whole --------------------------------------------------------------------------------------------------


def test_stream_that_is_not_whole_is_not_stored_and_stays_a_partial(store: LocalStore) -> None:
    raw = streams.begin() + streams.write(1, 0, b"x" * 512)
    ingest = ingest_stream(store, SENDER, raw)
    with pytest.raises(IncompleteStream):
        commit_stream(store, SENDER, ingest, raw)
    assert in_place(store) == {}
    assert {path.suffix for path in store.partial.iterdir()} == {".data", ".journal"}


def test_stream_whose_hash_the_sender_does_not_confirm_is_not_stored(store: LocalStore) -> None:
    ingest = ingest_stream(store, SENDER, PLAIN)
    with pytest.raises(ChunkError):
        commit(Catalogues(store), SENDER, ingest, finish_of(OTHER), push_of(PLAIN), sender_program=PROGRAM)
    ingest.partial.close(keep=True)
    assert in_place(store) == {}


# --- stored already ---------------------------------------------------------------------------------------------


def test_stream_that_is_stored_already_is_deleted_and_the_first_one_stays(store: LocalStore) -> None:
    file = store_stream(store, SENDER, PLAIN)
    there = in_place(store)
    answer = commit(
        Catalogues(store),
        SENDER,
        ingest_stream(store, SENDER, OTHER),
        finish_of(OTHER),
        push_of(OTHER),
        sender_program=PROGRAM,
    )
    assert isinstance(answer, Stored)
    assert (answer.receipt.file, answer.receipt.raw_bytes) == (str(file), len(PLAIN))
    assert in_place(store) == there
    assert not list(store.partial.iterdir())


def test_whether_a_stream_is_stored_is_told_by_its_manifest(store: LocalStore) -> None:
    ingest = ingest_stream(store, SENDER, PLAIN)
    about = ingest.conclude(finish_of(PLAIN))
    file, stored = stored_file(store, SENDER, about)
    assert not stored
    assert commit_stream(store, SENDER, ingest, PLAIN) == file
    assert stored_file(store, SENDER, about) == (file, True)
    manifest_path(store, file).unlink()
    assert stored_file(store, SENDER, about) == (file, False)


def test_file_without_manifest_is_neither_overwritten_nor_removed(store: LocalStore) -> None:
    file = store_stream(store, SENDER, PLAIN)
    manifest_path(store, file).unlink()
    there = in_place(store)
    with pytest.raises(StoreError, match=r"exists without its manifest; run `fullsendd verify`"):
        store_stream(store, SENDER, PLAIN)
    assert in_place(store) == there


@pytest.mark.parametrize("harm", ["removed", "cut", "found damaged"])
def test_stream_that_is_stored_but_damaged_is_replaced(store: LocalStore, harm: str) -> None:
    """To say that it is stored would be a false success."""
    file = store_stream(store, SENDER, PLAIN)
    before = read_manifest(store, file)
    path = store.root / file
    if harm == "removed":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        content = bytearray(path.read_bytes())
        content[60] ^= 1
        path.write_bytes(content)
        catalogue = read_catalogue(store)
        catalogue.scrubbed.add(checked(store, catalogue.streams[0]))
    spoilt = path.read_bytes() if path.exists() else None
    assert store_stream(store, SENDER, PLAIN) == file
    assert check_listed(store) == [str(file)]
    catalogue = read_catalogue(store)
    assert catalogue.restorable(catalogue.streams[0])
    after = read_manifest(store, file)
    # It stands for the same moment, so nothing takes it for a newer state; but no old result is taken for its own.
    assert (after.sequence, after.begun) == (before.sequence, before.begun)
    assert parse_time(after.received) == (parse_time(before.received) or 0) + 1
    (was,) = after.replacements
    assert (was.received, was.same_bytes) == (before.received, True)
    (aside,) = store.set_aside(SENDER)
    assert aside.what == f"{before.dataset}@{before.snapshot}"
    assert aside.why == was.why
    assert store.aside_manifest(aside.name) == before
    assert (aside.file and (store.root / aside.file).read_bytes()) == spoilt
    assert not list(store.set_aside("beta"))


def test_stream_that_nobody_has_found_damaged_is_never_replaced(store: LocalStore) -> None:
    """Whatever its sender says: other bytes under the same GUIDs, or the same again."""
    file = store_stream(store, SENDER, PLAIN)
    there = in_place(store)
    other = streams.substream(
        streams.object_(1),
        streams.write(1, 0, b"other" * 100),
        name=f"{read_manifest(store, file).dataset}@{read_manifest(store, file).snapshot}",
        guid=int(read_manifest(store, file).guid),
    )
    for raw in (PLAIN, other):
        assert store_stream(store, SENDER, raw) == file
        assert in_place(store) == there
    assert not list(store.set_aside())


def test_damaged_stream_is_replaced_by_pushing_it_again_once_it_was_moved_away(store: LocalStore) -> None:
    file = store_stream(store, SENDER, PLAIN)
    path = store.root / file
    path.write_bytes(bytes(path.stat().st_size))
    catalogue = read_catalogue(store)
    damaged = checked(store, catalogue.streams[0])
    assert damaged.damage
    # As if it had been received long ago: the old result must not count for the new one.
    told = manifest_path(store, file).read_text(encoding="utf-8")
    received = read_manifest(store, file).received
    manifest_path(store, file).write_text(told.replace(received, "2020-01-01T00:00:00Z"), encoding="utf-8")
    catalogue = read_catalogue(store)
    catalogue.scrubbed.add(checked(store, catalogue.streams[0]))
    assert not read_catalogue(store).restorable(read_catalogue(store).streams[0])
    remove(store, file)
    store_stream(store, SENDER, PLAIN)
    catalogue = read_catalogue(store)
    assert catalogue.restorable(catalogue.streams[0])
    assert catalogue.entry(catalogue.streams[0]).damaged is None


def test_package_that_brings_other_snapshots_is_not_taken_for_the_stored_one(store: LocalStore) -> None:
    """`-R -i` and `-R -I` have one name. What only the second one has would be lost, with a receipt for it."""
    file = store_stream(store, SENDER, streams.named("tree-R-i").read())
    there = in_place(store)
    with pytest.raises(StoreError, match="is stored, but with other snapshots"):
        store_stream(store, SENDER, streams.named("tree-R-I").read())
    assert in_place(store) == there
    assert store_stream(store, SENDER, streams.named("tree-R-i").read()) == file


def test_package_that_was_stored_by_a_quicker_connection_is_compared_too(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the name free, one is first."""
    file = store_stream(store, SENDER, streams.named("tree-R-i").read())
    there = in_place(store)
    monkeypatch.setattr("fullsend_receiver.arrival.commit.stored_file", lambda *_arguments: (file, False))
    assert store_stream(store, SENDER, streams.named("tree-R-i").read()) == file
    with pytest.raises(StoreError, match="is stored, but with other snapshots"):
        store_stream(store, SENDER, streams.named("tree-R-I").read())
    assert in_place(store) == there


def test_stored_stream_whose_manifest_cannot_be_read_is_not_taken_for_stored(store: LocalStore) -> None:
    file = store_stream(store, SENDER, PLAIN)
    manifest_path(store, file).write_text("{", encoding="utf-8")
    assert store_stream(store, SENDER, PLAIN) == file
    assert read_manifest(store, file).replacements[0].received is None
    assert check_listed(store) == [str(file)]


def test_manifest_of_a_later_format_is_not_replaced(store: LocalStore) -> None:
    """A later version may have written it: after a downgrade this one cannot read it."""
    file = store_stream(store, SENDER, PLAIN)
    told = manifest_path(store, file).read_text(encoding="utf-8").replace('"format": 1', '"format": 2')
    manifest_path(store, file).write_text(told, encoding="utf-8")
    there = in_place(store)
    with pytest.raises(StoreError, match="cannot be read"):
        store_stream(store, SENDER, PLAIN)
    assert in_place(store) == there


def test_package_whose_manifest_cannot_be_read_is_not_replaced(store: LocalStore) -> None:
    """Its name does not show which snapshots it has."""
    file = store_stream(store, SENDER, streams.named("tree-R-i").read())
    manifest_path(store, file).write_text("{", encoding="utf-8")
    there = in_place(store)
    with pytest.raises(StoreError, match="cannot be read"):
        store_stream(store, SENDER, streams.named("tree-R-i").read())
    assert in_place(store) == there


# --- all kinds side by side --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_genuine_streams_live_in_one_store(store: LocalStore) -> None:
    own = [stream for stream in whole() if "/" not in stream.name]
    stored: dict[str, str] = {}
    for stream in own:
        if stream.name == "tree-R-I":
            continue  # see above
        file = store_stream(store, SENDER, stream.read())
        assert stored.setdefault(str(file), stream.sha256) == stream.sha256, f"{stream.name} collides with another"
    assert sorted(check_listed(store)) == sorted(stored)


# --- spill blocks that zfs receive loses ------------------------------------------------------------------------


def test_spill_blocks_that_a_restore_will_lose_are_written_down_and_told(store: LocalStore) -> None:
    """openzfs issue 18239: the stream is whole and stored, and its owner must know."""
    lost = streams.substream(streams.object_(17), streams.write_embedded(17, 1 << 63, b"target"))
    then = streams.substream(streams.object_(18), guid=6, base_guid=streams.GUID, name="tank/data@later")
    ingest = ingest_stream(store, SENDER, lost)
    receipt = commit(Catalogues(store), SENDER, ingest, finish_of(lost), push_of(lost), sender_program=PROGRAM).receipt
    spill = LostSpill(snapshot="tank/data@now", object=17)
    assert receipt.lost_spills == [spill]
    assert read_manifest(store, PurePosixPath(receipt.file)).lost_spills == [spill]
    store_stream(store, SENDER, then)
    catalogue = read_catalogue(store, SENDER)
    entries = {each.summary.snapshot: catalogue.entry(each) for each in catalogue.streams}
    assert {name: each.lost_spill_count for name, each in entries.items()} == {"now": 1, "later": 0}
    (line,) = (line for line in table(entries.values(), with_sender=False) if "tank/data@now" in line)
    assert "ok, but `zfs receive` loses 1 spill block of it" in line
    (status,) = find_status(catalogue, {})
    assert (status.snapshot, status.lost_spill_count) == ("later", 1)  # it restores through the one that loses some
    manifest_path(store, PurePosixPath(receipt.file)).unlink()
    assert rebuild(store, PurePosixPath(receipt.file)).lost_spills == [spill]


def test_a_night_of_pushes_looks_at_nothing_that_was_stored_before(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many datasets and streams there are: each stream that comes is looked at, and its base is known."""
    monkeypatch.setattr(inotify, "_OWN", everywhere())
    for dataset, number in itertools.product(range(30), range(5)):
        guid = 1 + 10 * dataset + number
        plant(store, f"s{number}", guid, guid - 1 if number else None, dataset=f"tank/{dataset}", sequence=guid)
    catalogues = Catalogues(store)
    assert len(catalogues.current(SENDER)) == 150
    seen: list[str] = []
    for call in ("stat", "open", "scandir"):
        real = getattr(os, call)

        def watched(path: Any, *more: Any, real: Any = real, **named: Any) -> Any:
            seen.append(os.fspath(path) if not isinstance(path, int) else "")
            return real(path, *more, **named)

        monkeypatch.setattr(os, call, watched)
    for dataset in range(30):
        raw = streams.substream(
            streams.object_(1), name=f"tank/{dataset}@night", guid=10**6 + dataset, base_guid=5 + 10 * dataset
        )
        push = push_of(raw).model_copy(update={"keep_orphan": False})
        assert isinstance(judge(catalogues, SENDER, push), RoomRequest)
        ingest = ingest_stream(store, SENDER, raw)
        done = commit(catalogues, SENDER, ingest, finish_of(raw), push, sender_program=PROGRAM)
        assert done.receipt.restorable
    names = [os.path.basename(path) for path in seen]
    assert sum(name.startswith("@night.") for name in names) >= 30
    assert [name for name in names if name.startswith("@s")] == []
    assert len(names) / 30 < 100  # whatever it takes: nothing goes by the number of datasets
