"""What a later version may have added to the files of a store changes nothing for this one: an upgrade or a downgrade
keeps no daemon from starting, and costs no stream, no partial, no sender and no known damage.

The store here has every kind of file that this version writes; a kind of which nothing is said here fails the test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest
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
from fullsend_protocol.wire.messages import UnchangedDataset
from fullsend_receiver.access import identity, senders
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.expiry import find_partials
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.arrival.overruns import OverrunRecord
from fullsend_receiver.catalogue import summaries, unchanged
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import checkpoints, merge_records
from fullsend_receiver.maintenance.merge_records import note_proof, note_refusal
from fullsend_receiver.maintenance.reading import FilePass
from fullsend_receiver.maintenance.scrub import StreamCheck
from fullsend_receiver.store import journal
from fullsend_receiver.store import local as stores
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
    with store.alone("merge"):
        pass
    leave_partials(store)
    copy_summaries(store)
    (store.state / "serving").touch()  # by the daemon
    (store.state / "reading").touch()  # by commands that read streams
    (store.state / "trash").mkdir()
    return store


def leave_check(store: LocalStore, file: PurePosixPath) -> None:
    """Leave a check amid the file, as at a stop of the daemon."""
    check = StreamCheck(store, file, read_manifest(store, file).received)
    check.run()
    checkpoints.write(store, check, NOW)


def copy_summaries(store: LocalStore) -> None:
    """Have the copy written that `list` reads instead of manifests. It is of no use to a copy of the store."""
    with patch.object(summaries, "_WORTH", 1), patch.object(summaries, "_SETTLED_NS", -1):
        summaries.find_streams(store, SENDER)


def duplicate(store: LocalStore, root: Path) -> LocalStore:
    """Copy a store."""
    shutil.copytree(store.root, root)
    copy_summaries(LocalStore(root))
    return LocalStore(root)


# --- what is added -----------------------------------------------------------------------------------------------


def more(value: object, *, lists: bool = False) -> None:
    """Add a key that no version knows to each object, and with `lists` something behind what each list has."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name != "properties":  # its keys are what it says
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
}
#: What has no keys.
PLAIN: Final = (
    *(f"{SENDER}/*.zfs.zst", f"{SENDER}/*.zfs.zst.sha256", ".partial/*.data", ".partial/*.sha256"),
    *(".state/key.pem", ".state/certificate.pem", ".state/lock", ".state/serving", ".state/reading"),
    ".state/merge.lock",
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
    for name in ("pins.json", "pruned.jsonl", "whole.alpha.json", "summaries.alpha.2"):
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
        "proven": merge_records.read_merges(store.documents, SENDER).proofs(),
        "checkpoint": place_of_check(store),
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
    assert [entry.damaged for entry, _manifest in everything["streams"]].count(None) == 2
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
    after = seen(store)
    assert after["streams"][-1][0].dataset == "tank/proven"
    assert after == seen(same)
    assert not list(store.partial.glob("*.damaged"))
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
    assert seen(store) == before


def test_every_kind_of_file_is_tried(written: LocalStore) -> None:
    patterns = [*PLAIN, *(pattern for pattern, _add in KINDS.values())]
    found = paths_of(written)
    assert [name for name in found if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in found)] == []


def test_every_file_of_the_state_folder_is_in_that_store(written: LocalStore) -> None:
    """Those that the source names: a new one has to be written above, too."""
    names: set[str] = set()
    for path in RECEIVER.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        names.update(re.findall(r"\bstate / f?\"([^\"]+)\"", source))
        names.update(re.findall(r"def _document\(sender: str\) -> str:\n    return f\"([^\"]+)\"", source))
    names = {name.replace("{sender}", SENDER).replace("{work}", "merge") for name in names}
    names = {name for name in names if not name.endswith(".tmp")}
    names.add("scrub-checkpoint.json")  # a document of the whole store
    assert len(names) == 16
    assert names == {path.name for path in written.state.iterdir()}
