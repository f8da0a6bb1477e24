"""What a later version may have added to the files of a store changes nothing for this one: an upgrade or a downgrade
keeps no daemon from starting, and costs no stream, no partial, no sender and no known damage.

The store here has every kind of file that this version writes; a kind of which nothing is said here fails the test.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import threading
import time
import zlib
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest
import zstandard
from tests import streams
from tests.receiver.helpers import (
    PROGRAM,
    SENDER,
    chunks_from,
    chunks_of,
    commit_stream,
    finish_of,
    ingest_stream,
    push_of,
    read_manifest,
    resume,
    store_stream,
    take,
)
from tests.receiver.peer import make_certificate

from fullsend_protocol.format.manifest import Resumption
from fullsend_protocol.wire.messages import Drilled, UnchangedDataset
from fullsend_receiver.access import identity, senders
from fullsend_receiver.access.copy_settings import CopyScope
from fullsend_receiver.access.hook_settings import HookSettings
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.expiry import find_partials
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.arrival.overruns import OverrunRecord
from fullsend_receiver.catalogue import pins, search, summaries, unchanged
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.files import kept_indexes
from fullsend_receiver.maintenance import (
    checkpoints,
    clock,
    copy_claim,
    copy_records,
    merge_records,
    prune_records,
    suspicion,
)
from fullsend_receiver.maintenance.copy_claim import claimed
from fullsend_receiver.maintenance.copy_run import noted
from fullsend_receiver.maintenance.merge_records import note_proof, note_refusal
from fullsend_receiver.maintenance.reading import FilePass
from fullsend_receiver.maintenance.scrub import StreamCheck
from fullsend_receiver.monitor import drills, sizes
from fullsend_receiver.monitor.alarm_log import AlarmLog, read_alarms
from fullsend_receiver.monitor.history import Histories
from fullsend_receiver.monitor.hook_events import hook_of
from fullsend_receiver.monitor.hook_follower import HookFollower
from fullsend_receiver.monitor.overview import Alarm, Overview, ScrubOverview
from fullsend_receiver.store import journal, removals
from fullsend_receiver.store import local as stores
from fullsend_receiver.store.event_journal import EventPlace
from fullsend_receiver.store.event_recorder import recording
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.marker import read_id
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.partials import journals
from fullsend_receiver.store.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Callable

RECEIVER: Final = Path(journal.__file__).parent.parent
NOW: Final = "2026-11-23T06:30:00Z"
#: The spill block of an object, which `zfs receive` loses.
SPILL: Final = streams.write_embedded(1, 1 << 63, b"target")
FULL, NEXT, LOST = (
    streams.substream(
        streams.object_(1),
        SPILL,
        streams.write(1, 0, bytes(70_000)),
        name=f"tank/data@{name}",
        guid=guid,
        base_guid=base,
    )
    for name, guid, base in (("full", 11, 0), ("next", 12, 11), ("lost", 13, 0))
)
PROVEN: Final = streams.substream(streams.object_(2), name="tank/proven@now", guid=14)
REPLACED, TRASHED = (
    streams.substream(streams.object_(number), name=f"tank/{name}@now", guid=number)
    for number, name in ((16, "replaced"), (17, "trashed"))
)
#: Of three chunks.
LONG: Final = streams.substream(
    streams.object_(1),
    SPILL,
    *(streams.write(1, number << 20, bytes([number]) * (1 << 20)) for number in range(9)),
    name="tank/long@now",
    guid=15,
)


# --- a store with all that there can be --------------------------------------------------------------------------


class StoppedError(Exception):
    """The daemon is killed, as it were."""


def leave_partials(store: LocalStore) -> None:
    """Leave one partial that was resumed, and one that is proven and not in place."""
    push = push_of(LONG).model_copy(update={"properties": {"compression": "lz4"}, "size_estimate": len(LONG)})
    first, second, *_rest = chunks_of(LONG)
    ingest = Ingest(store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
    take(ingest, [first])
    ingest.partial.note_resumed(Resumption(how="reconnect", offset=ingest.offset, at=NOW))
    take(ingest, [second])
    ingest.partial.close(keep=True)
    proven = ingest_stream(store, SENDER, PROVEN)
    with patch("fullsend_receiver.store.uploads.put_in_place", side_effect=StoppedError), pytest.raises(StoppedError):
        commit(Catalogues(store), SENDER, proven, finish_of(PROVEN), push_of(PROVEN), sender_program=PROGRAM)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A store as this version writes it."""
    folder = tmp_path_factory.mktemp("written")
    store, _store_id = stores.make_store(folder / "store", identity.make_identity)
    files = [store_stream(store, SENDER, raw) for raw in (FULL, NEXT, LOST)]
    secret = senders.invite(store, SENDER, 3600, replace_existing=True)
    senders.join(store, secret, make_certificate(folder / "alpha.pem").pem)
    senders.join(
        store, senders.invite(store, "gone", 3600, replace_existing=False), make_certificate(folder / "gone.pem").pem
    )
    senders.revoke(store, "gone")
    senders.invite(store, "beta", 3600, replace_existing=False)
    catalogue = read_catalogue(store, SENDER)
    for file, damage in zip(files, ((), (), ("chunk 0",)), strict=True):
        stored = catalogue.at(file)
        assert stored is not None
        ScrubLog(store).add(Scrubbed(str(file), stored.summary.received, NOW, damage, None))
    leave_check(store, files[1])
    unchanged.note(catalogue, SENDER, [UnchangedDataset(dataset="tank/data", snapshot="next", guid="12")])
    overruns.note(store, SENDER, push_of(LONG), OverrunRecord(70, 50))
    note_refusal(store.documents, SENDER, (catalogue.streams[0].summary, catalogue.streams[1].summary), "a test")
    note_proof(store.documents, SENDER, "alpha/file", received=NOW, how="stream", now=0.0)
    leave_replaced(store)
    leave_prunes(store, files)
    leave_copies(store)
    leave_monitoring(store)
    for work in ("merge", "hooks", "copy"):
        with store.alone(work):
            pass
    leave_partials(store)
    leave_removing(store)
    copy_summaries(store)
    indexes = kept_indexes.folder_of(store)
    indexes.mkdir(mode=0o700)
    (indexes / "of-another-version.sqlite").write_bytes(b"nothing that this version reads")
    (store.state / "serving").touch()  # by the daemon
    return store


def leave_replaced(store: LocalStore) -> None:
    """Leave a damaged stream that was pushed again, and is set aside."""
    file = store_stream(store, SENDER, REPLACED)
    ScrubLog(store).add(Scrubbed(str(file), read_manifest(store, file).received, NOW, ("chunk 0",), None))
    store_stream(store, SENDER, REPLACED)


def leave_prunes(store: LocalStore, files: list[PurePosixPath]) -> None:
    """Leave what prunes write, and what keeps them from streams."""
    documents, catalogue = store.documents, read_catalogue(store, SENDER)
    pins.pin(documents, files[:1], now=0.0, until=None, note="for ever")
    pins.pin(documents, files[1:2], now=0.0, until=4e9)
    clock.accept(documents, clock.Reading(1e9, 5.0, "boot", synchronised=True), 2e9)
    suspicion.accept(documents, f"{SENDER}/tank/data", 2, 1e9)
    about = catalogue.streams[0].summary
    record = prune_records.DatasetRecord(
        sequence=2,
        given_up=["11"],
        trouble="a test",
        suspect="is large",
        suspect_at=2,
        sizes=[suspicion.copied_size(each.summary) for each in catalogue.streams],
    )
    done = prune_records.PruneRecord(at=NOW, dropped=1, freed=2, freed_ever=3, datasets={"tank/data": record})
    prune_records.write_record(documents, SENDER, done)
    prune_records.write_try(documents, 1e9, "a test", {SENDER: "a test"})
    merge_records.note_merge_run(documents, "a test", 1e9)
    prune_records.write_history(documents, [(about, "no rule"), (about, "again")], now=1e9, trash="2026")
    hold = store.hold()
    hold.add(files[0])
    hold.close()


#: The id of the other store.
OTHER: Final = "0f"


def leave_copies(store: LocalStore) -> None:
    """Leave what is noted of a copy in another store, which is still claimed."""
    scope = CopyScope((SENDER,))
    with contextlib.suppress(StoppedError), noted(store, OTHER, "/other", scope, scope) as totals:
        totals.left["alpha/x"] = "no room"
        raise StoppedError
    copy_records.change_left(store.documents, OTHER, add=["alpha/x"])
    with claimed(store, OTHER, lambda: None):
        found = store.documents.get(copy_claim.name_of(OTHER))
        assert found is not None
    free = store.documents.get(copy_claim.name_of(OTHER))
    assert free is not None
    assert store.documents.put(copy_claim.name_of(OTHER), found.data, if_match=free.tag)


def leave_monitoring(store: LocalStore) -> None:
    """Leave what has come, alarms, events, and a hook that has not been run for the last ones."""
    holdings = Catalogues(store).current(SENDER)
    drilled = Drilled(
        dataset="tank/data",
        snapshot="next",
        guid="12",
        ok=True,
        compared="files",
        text="fine",
        milliseconds=1,
        raw_bytes=2,
        files=3,
    )
    drills.note_drill(holdings, SENDER, drilled)
    histories = Histories(store.documents, keeps=True)
    reported = {dataset: at for (dataset, _guid), at in unchanged.last_seen(store, SENDER).items()}
    streams_of = [each.summary for each in read_catalogue(store, SENDER).streams]
    histories.fold(SENDER, streams_of, reported, time.time())
    histories.write()
    looks = [sizes.Look(day, 70 + day, 100, {SENDER: {"tank/data": 50 + day}}) for day in (1, 2)]
    noted = sizes.noted(sizes.noted(sizes.Sizes(), looks[0]), looks[1])
    sizes.write(store.documents, noted)
    alarms = AlarmLog(store.documents)
    with recording(store):
        alarms.note(overview(LATE))
    assert not follower(store).step()  # it begins at the journal's end
    with recording(store):
        alarms.note(overview(LATE, replace(LATE, dataset="tank/other"), LOW))


LATE: Final = Alarm(code="late", level="warning", text="is late", sender=SENDER, dataset="tank/data", since=1.0)
LOW: Final = Alarm(code="low-space", level="warning", text="is low", since=2.0)


def overview(*alarms: Alarm) -> Overview:
    scrub = ScrubOverview(every=0)
    return Overview(at=0.0, program="x", store="/s", free=1, size=2, min_free=0, scrub=scrub, alarms=alarms)


def follower(store: LocalStore) -> HookFollower:
    return HookFollower("on-late", store, lambda: HookSettings(on_late=("true",)), threading.Event())


def leave_removing(store: LocalStore) -> None:
    """Leave a stream in the trash, and the log of its return, as at a stop of the daemon."""
    file = store_stream(store, SENDER, TRASHED)
    assert store.remove(lambda: [file], trash="2026") == [file]
    with patch.object(removals, "_return", side_effect=StoppedError), pytest.raises(StoppedError):
        store.bring_back(lambda: list(store.trashed()))
    removals.make_spare(store)


def leave_check(store: LocalStore, file: PurePosixPath) -> None:
    """Leave a check amid the file, as at a stop of the daemon."""
    check = StreamCheck(store, file, read_manifest(store, file).received)
    check.run()
    checkpoints.write(store, check, NOW)


def copy_summaries(store: LocalStore) -> None:
    """Have the copy written that `list` reads instead of manifests. It is of no use to a copy of the store."""
    with patch.object(summaries, "_WORTH", 1), patch.object(summaries, "_SETTLED_NS", -1):
        search.find_streams(store, SENDER)


def duplicate(store: LocalStore, root: Path) -> LocalStore:
    """Copy a store."""
    shutil.copytree(store.root, root)
    copy_summaries(LocalStore(root))
    return LocalStore(root)


# --- what is added -----------------------------------------------------------------------------------------------


#: Names are keys of these: only what they stand for can have one more.
MAPS: Final = frozenset({"properties", "datasets", "failed", "stored"})


def more(value: object, *, lists: bool = False) -> None:
    """Add a key that no version knows to each object, and with `lists` something behind what each list has."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name in MAPS and isinstance(each, dict):
                more(list(each.values()), lists=lists)
            else:
                more(each, lists=lists)
        value["to come"] = [1, {"deep": None}]
    elif isinstance(value, list):
        for each in value:
            more(each, lists=lists)
        if lists:
            value.append("to come")


def add_to_document(content: bytes) -> bytes:
    said = json.loads(content)
    more(said)
    return json.dumps(said, indent=1).encode()


def add_to_map(content: bytes) -> bytes:
    """Names are keys here: only what they stand for can have one more."""
    said = json.loads(content)
    more(list(said.values()))
    return json.dumps(said).encode()


def add_to_rows(content: bytes) -> bytes:
    rows = [json.loads(line) for line in content.splitlines()]
    more(rows)
    later = {"repaired": "a line of another kind"}
    return b"".join(json.dumps(row).encode() + b"\n" for row in [later, *rows, later])


def add_to_sizes(content: bytes) -> bytes:
    said = json.loads(content)
    days = [rows for sender in said["stored"].values() for rows in sender.values()]
    for row in [row for rows in (said["disk"], *days) for row in rows]:
        row.append("to come")
    said["to come"] = {"deep": None}
    return json.dumps(said).encode()


def add_to_pruned(content: bytes) -> bytes:
    said = json.loads(add_to_document(content))
    for row in [row for dataset in said["datasets"].values() for row in dataset["sizes"]]:
        row.append("to come")
    return json.dumps(said).encode()


def add_to_copied(content: bytes) -> bytes:
    said = json.loads(add_to_document(content))
    for row in said["named"]:
        row.append("to come")
    return json.dumps(said).encode()


def add_to_events(content: bytes) -> bytes:
    """A later version has written all but the first line, behind which the hook's place is."""
    first, rest = content.split(b"\n", 1)
    return first + b"\n" + add_to_rows(rest) + b'{"event": "to-come", "code": "late"}\n["event"]\n'


def add_to_history(content: bytes) -> bytes:
    """Add to the head, to each dataset, to each of its rows, and a frame behind those that the head tells of."""
    begin = 8 + int.from_bytes(content[4:8], "little")
    head = json.loads(content[8:begin])
    body = b""
    for about in head["datasets"]:
        said = json.loads(zstandard.decompress(content[begin : begin + about["bytes"]]))
        begin += about["bytes"]
        more(said)
        for row in [*said["receptions"], *said["nights"]]:
            row.append("to come")
        packed = zstandard.ZstdCompressor().compress(json.dumps(said).encode())
        about["bytes"] = len(packed)
        body += packed
    body += zstandard.ZstdCompressor().compress(b'{"to come": 1}\n')
    more(head)
    head["crc"] = zlib.crc32(body)
    data = json.dumps(head).encode()
    return content[:4] + len(data).to_bytes(4, "little") + data + body


def summed(said: object) -> bytes:
    body = json.dumps(said).encode()
    return b"%08x %b\n" % (zlib.crc32(body), body)


def add_to_copy(content: bytes) -> bytes:
    """The lines have no keys: something is added behind each list."""
    rows = [json.loads(line[9:]) for line in content.splitlines()]
    more(rows, lists=True)
    return b"".join(map(summed, rows[:-1]))


def add_to_journal(kind: str) -> Callable[[bytes], bytes]:
    """Add to the lines of one kind; with "later" lines of a kind to come."""

    def add(content: bytes) -> bytes:
        lines = []
        for line in content.splitlines(keepends=True):
            said = json.loads(line[9:])
            if kind in said:
                more(said)
                for chunk in said.get("durable", {}).get("chunks", ()):
                    chunk.append("to come")
                for spill in said.get("durable", {}).get("embedded_spills", ()):
                    spill.append("to come")
                lines.append(summed(said))
            else:
                lines.append(line)
            if kind == "later":
                lines.append(summed({"later": {"offset": 7}}))
        return b"".join(lines)

    return add


#: Each kind of file that has keys, or lists in their place, by what its path in the store looks like.
KINDS: Final[dict[str, tuple[str, Callable[[bytes], bytes]]]] = {
    "marker": (".fullsend", add_to_document),
    "manifest": (f"{SENDER}/*.zfs.zst.json", add_to_document),
    "manifest that is not in place": (".partial/*.json", add_to_document),
    "journal: open": (".partial/*.journal", add_to_journal("open")),
    "journal: durable": (".partial/*.journal", add_to_journal("durable")),
    "journal: resumed": (".partial/*.journal", add_to_journal("resumed")),
    "journal: commit": (".partial/*.journal", add_to_journal("commit")),
    "journal: lines to come": (".partial/*.journal", add_to_journal("later")),
    "scrub results": (".state/scrub/*.jsonl", add_to_rows),
    "scrub results for an earlier version": (".state/scrub.jsonl", add_to_rows),
    "checkpoint of a check": (".state/scrub-checkpoint.json", add_to_document),
    "sender table": (".state/senders.json", add_to_document),
    "invitations": (".state/invitations.json", add_to_document),
    "summaries": (f".state/summaries.{SENDER}", add_to_copy),
    "unchanged": (f".state/unchanged.{SENDER}.json", add_to_map),
    "crossed": (f".state/crossed.{SENDER}.json", add_to_document),
    "merged": (f".state/merged.{SENDER}.json", add_to_document),
    "last merges": (".state/merge.json", add_to_document),
    "about a stream that is set aside": (".partial/*.about.damaged", add_to_document),
    "manifest that is set aside": (".partial/*.json.damaged", add_to_document),
    "manifest in the trash": (".state/trash/*.zfs.zst.json", add_to_document),
    "removing": (".state/removing.json", add_to_document),
    "pins": (".state/pins.json", add_to_document),
    "clock": (".state/clock.json", add_to_document),
    "accepted": (".state/accepted.json", add_to_document),
    "prune": (".state/prune.json", add_to_document),
    "pruned": (f".state/pruned.{SENDER}.json", add_to_pruned),
    "history of prunes": (".state/prune.jsonl", add_to_rows),
    "copied": (".state/copied.*.json", add_to_copied),
    "left by copies": (".state/copy-left.*.json", add_to_document),
    "claim of a copy": (".state/copying.*.json", add_to_document),
    "drills": (f".state/drills.{SENDER}.json", add_to_map),
    "history": (f".state/history.{SENDER}.zst", add_to_history),
    "sizes": (".state/sizes.json", add_to_sizes),
    "alarms": (".state/alarms.json", add_to_document),
    "events": (".state/events/*.jsonl", add_to_events),
    "place of a hook": (".state/hooks.on-late.json", add_to_document),
}
#: What has no keys.
PLAIN: Final = (
    *(f"{SENDER}/*.zfs.zst", f"{SENDER}/*.zfs.zst.sha256", ".partial/*.data", ".partial/*.sha256"),
    *(".state/key.pem", ".state/certificate.pem", ".state/lock", ".state/serving"),
    *(".state/merge.lock", ".state/hooks.lock", ".state/copy.lock", ".state/copying.*.lock"),
    ".state/events/lock",
    *(".state/reading/*", ".state/removing.spare"),
    ".state/files/*.sqlite",
    *(".state/trash/*.zfs.zst", ".state/trash/*.zfs.zst.sha256"),
    *(".partial/*.zst.damaged", ".partial/*.sha256.damaged"),
)


def paths_of(store: LocalStore) -> list[str]:
    return [str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()]


def add_to_all(store: LocalStore, kind: str) -> int:
    """Add to all files of a kind, which stay as old as they are. Returns: how many these are."""
    pattern, add = KINDS[kind]
    count = 0
    for name in paths_of(store):
        if fnmatch(name, pattern):
            path = store.root / name
            before, content = path.stat(), path.read_bytes()
            changed = add(content)
            path.write_bytes(changed)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            count += changed != content
    return count


def add_files(store: LocalStore) -> None:
    """What a later version may keep beside what this one knows."""
    for name in ("holds.json", "pruned.jsonl", "whole.alpha.json", "summaries.alpha.2", "drills.alpha.zst"):
        (store.state / name).write_text('{"to come": 1}\n', encoding="utf-8")
    (store.state / "tables").mkdir()
    (store.state / "tables" / "alpha").write_bytes(b"\xff")


# --- what is seen of it ------------------------------------------------------------------------------------------


def seen(store: LocalStore) -> dict[str, Any]:
    """All that this version takes from a store."""
    catalogue = read_catalogue(store)
    standings = [[each and replace(each, line=0) for each in journal.standings(path)] for _key, path in journals(store)]
    return {
        "id": read_id(store.root),
        "streams": [(catalogue.entry(each), each.manifest) for each in catalogue.streams],
        "problems": [*map(str, catalogue.problems)],
        "partials": list(find_partials(store, None)),
        "opened": [journal.read_opened(path) for _key, path in journals(store)],
        "journals": [replace(journal.read(path), whole=0) for _key, path in journals(store)],
        "standings": standings,
        "chunks": [list(journal.entries(path)) for _key, path in journals(store)],
        "senders": list(senders.SenderTable(store)),
        "invitations": senders._read_invitations(store),
        "unchanged": unchanged.last_seen(store, SENDER),
        "crossed": overruns.find(store, SENDER, push_of(LONG)),
        "merged": merge_records.read_merges(store.documents, SENDER).reasons(),
        "last merges": merge_records.read_merge_run(store.documents),
        "proven": merge_records.read_merges(store.documents, SENDER).proofs(),
        "checkpoint": place_of_check(store),
        "aside": list(store.set_aside()),
        "manifests aside": [store.aside_manifest(each.name) for each in store.set_aside()],
        "trash": [(each, store.trashed_manifest(each)) for each in store.trashed()],
        "removing": removals._logged(store),
        "held": store.held(),
        **seen_of_prunes(store),
        **seen_of_monitoring(store),
    }


def seen_of_prunes(store: LocalStore) -> dict[str, Any]:
    documents = store.documents
    return {
        "pins": [(file, each.at, each.until, each.note) for file, each in pins.read_pins(documents).items()],
        "clock": clock.read_note(documents),
        "accepted": (suspicion.read_accepted(documents), suspicion.read_accepted_times(documents)),
        "prune": prune_records.read_try(documents),
        "pruned": prune_records.read_record(documents, SENDER),
        "history of prunes": prune_records.read_history(documents),
        "copied": copy_records.read_record(documents, OTHER),
        "left by copies": copy_records.read_left(documents, OTHER),
        "claim of a copy": claim_of(store),
    }


def claim_of(store: LocalStore) -> copy_claim.CopyClaimNote:
    found = store.documents.get(copy_claim.name_of(OTHER))
    return copy_claim._parse(None if found is None else found.data)


def seen_of_monitoring(store: LocalStore) -> dict[str, Any]:
    history = Histories(store.documents, keeps=False).read(SENDER)
    place = follower(store)._begin()
    read = store.events.read(place)
    assert not read.lost
    known = [{key: each for key, each in facts.items() if key != "to come"} for _place, facts in read.events]
    return {
        "drills": (drills.read_drills(store, SENDER), drills.drill_entries(store, SENDER)),
        "sequence": history.sequence,
        "history": {
            name: (history.of(name), len(history.of(name).receptions), each.newest, each.unchanged)
            for name, each in history.datasets.items()
        },
        "sizes": sizes.read(store.documents),
        "alarms": read_alarms(store.documents),
        "place": place,
        "hook": [(hook_of(facts), facts) for facts in known if hook_of(facts) is not None],
    }


def place_of_check(store: LocalStore) -> object:
    """What the checkpoint says; its manifest is not that of a copy of the store."""
    found = checkpoints.read(store)
    assert found is not None
    return found.file, found.received, found.begun, FilePass(store, PurePosixPath(found.file), found.reading).state


def check_whole(everything: dict[str, Any]) -> None:
    """Nothing of what is compared is empty."""
    assert all(everything[name] for name in everything.keys() - {"problems"}), everything
    assert everything["problems"] == []
    assert any(
        place.embedded_spills and place.resumptions for both in everything["standings"] for place in both if place
    )
    assert any(manifest.lost_spills for _entry, manifest in everything["streams"])
    assert [entry.damaged for entry, _manifest in everything["streams"]].count(None) == 3
    assert {name for name, _facts in everything["hook"]} == {"on-late", "on-low-space"}
    assert everything["place"] > EventPlace(1, 0)
    assert all(found for found in everything["drills"])
    assert all(each.receptions and each.nights for each, *_rest in everything["history"].values())
    assert everything["sizes"].disk
    assert everything["sizes"].of(SENDER, "tank/data")
    assert everything["pruned"].datasets["tank/data"].sizes
    assert {sender.revoked is None for sender in everything["senders"]} == {True, False}


@pytest.mark.parametrize("kind", [*KINDS, "files to come", "all at once"])
def test_what_is_not_known_changes_nothing(tmp_path: Path, written: LocalStore, kind: str) -> None:
    store, same = (duplicate(written, tmp_path / name) for name in ("store", "same"))
    before = seen(store)
    check_whole(before)
    if kind in KINDS:
        assert add_to_all(store, kind)
    else:
        for each in KINDS if kind == "all at once" else ():
            assert add_to_all(store, each)
        add_files(store)
    assert seen(store) == before

    # A start completes the commit and sets nothing aside; then the partial is resumed.
    assert recover(store) == recover(same)
    for one in (store, same):
        removals.finish_removals(one)
        assert not (one.state / "removing.json").exists()
        assert list(one.trashed()) == []
    after = seen(store)
    assert after == seen(same)
    assert {"tank/proven", "tank/trashed"} <= {entry.dataset for entry, _manifest in after["streams"]}
    assert len(after["aside"]) == 1
    ingest = resume(store, SENDER, LONG)
    take(ingest, chunks_from(LONG, ingest.offset))
    commit_stream(store, SENDER, ingest, LONG)
    assert "tank/long" in {each.summary.dataset for each in read_catalogue(store).streams}


def test_what_is_written_anew_is_what_it_was(tmp_path: Path, written: LocalStore) -> None:
    """A command that changes a file of a later version loses no row of it, and no known damage."""
    store = duplicate(written, tmp_path / "store")
    for kind in KINDS:
        add_to_all(store, kind)
    before = seen(store)
    senders.invite(store, "delta", 3600, replace_existing=False)
    senders.revoke(store, "delta")
    with patch("fullsend_receiver.catalogue.scrub_results._SLACK", -100):
        ScrubLog(store).add(Scrubbed("alpha/other", NOW, NOW, (), None))
    for path in (store.state / "scrub.jsonl", store.state / "scrub" / f"{SENDER}.jsonl"):
        assert b"to come" in path.read_bytes()
        assert b"a line of another kind" in path.read_bytes()
    unchanged.note(read_catalogue(store, SENDER), SENDER, [])
    overruns.note(store, SENDER, push_of(FULL), OverrunRecord(1, 1))
    other = PurePosixPath("alpha/other")
    pins.pin(store.documents, [other], now=0.0)
    assert pins.unpin(store.documents, other)
    suspicion.accept(store.documents, f"{SENDER}/tank/data", 2, 1e9)
    for name in ("pins.json", "accepted.json"):
        assert b"to come" in (store.state / name).read_bytes()
    assert seen(store) == before


def test_every_kind_of_file_is_tried(written: LocalStore) -> None:
    patterns = [*PLAIN, *(pattern for pattern, _add in KINDS.values())]
    found = paths_of(written)
    assert [name for name in found if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in found)] == []


#: What a name of a file in the state folder looks like, in the source.
NAME: Final = re.compile(r"(?:[a-z][a-z-]*|\{\w+\})(?:\.\{\w+\})?\.(?:json|jsonl|zst|lock|spare|pem)")
#: The modules that keep documents for others, under the names that these give.
KEEPERS: Final = frozenset({"catalogue/line_logs.py", "store/api.py", "store/documents.py"})


def written_as(node: ast.expr) -> str | None:
    """Return a string of the source, with the last name of each expression in braces: `{sender}`; None: it is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = []
    for each in node.values:
        if isinstance(each, ast.FormattedValue):
            parts.append("{" + ast.unparse(each.value).rpartition(".")[2].lstrip("_") + "}")
        else:
            parts.append(written_as(each) or "")
    return "".join(parts)


def names_in(tree: ast.Module) -> set[str]:
    """Return the names that a module has for files of the state folder: each string that looks like one, and what is
    joined to the path of the folder.
    """
    strings = {text for node in ast.walk(tree) if isinstance(node, ast.expr) and (text := written_as(node))}
    names = {text for text in strings if NAME.fullmatch(text)}
    constants = {
        node.target.id: written_as(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and is_state(node.left):
            source = ast.unparse(node.right)
            names.add(written_as(node.right) or constants.get(source) or source)
    return names


def is_state(node: ast.expr) -> bool:
    return ast.unparse(node) in {"state", "store.home", "self._store.home"} or (
        isinstance(node, ast.Attribute) and node.attr == "state"
    )


def calls_in(tree: ast.Module) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def writes_documents(tree: ast.Module) -> bool:
    functions = {ast.unparse(call.func) for call in calls_in(tree)}
    return any(name == "update" or re.search(r"documents\.(put|append)$", name) for name in functions)


def test_every_file_of_the_state_folder_is_in_that_store(written: LocalStore) -> None:
    """Those that the source names: a new one has to be written above, too."""
    names: set[str] = set()
    works: set[str] = set()
    for path in RECEIVER.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = str(path.relative_to(RECEIVER))
        if module.startswith("store_s3/"):
            continue  # a store in a bucket has no such folder, but for what any store has in `home`
        found = names_in(tree)
        names |= found
        assert found or module in KEEPERS or not writes_documents(tree), f"{module}: how does it name its document?"
        for call in calls_in(tree):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "alone":
                works.add(str(written_as(call.args[0])))
    names = {name for name in names if not name.endswith(".tmp")}
    assert {name for name in names if "{" in name} >= {"{sender}.jsonl", "{work}.lock", "hooks.{hook}.json"}
    names |= {f"{work}.lock" for work in works}
    names = {name.format(sender=SENDER, hook="on-late", work="merge", store_id=OTHER) for name in names}
    # Below the other folders, names say nothing: the kinds above have them.
    there = {path.name for path in (*written.state.iterdir(), *(written.state / "scrub").iterdir())}
    assert names == there
