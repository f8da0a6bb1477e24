from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest
from tests import streams
from tests.receiver.helpers import (
    SENDER,
    check_listed,
    checked,
    fail_reads,
    hash_path,
    manifest_path,
    plant,
    read_manifest,
    store_stream,
)

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.arrival.replacement import find_damage, has_other_keys, place_in_time, snapshots_of
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.daemon.answers import find_damaged, find_status
from fullsend_receiver.store.errors import ManifestError, StoreError
from fullsend_receiver.store.names import stream_file

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from fullsend_protocol.stream.facts import Facts
    from fullsend_receiver.store.local import LocalStore

FULL, MORE, TREE = (streams.named(name).read() for name in ("full", "incr", "tree-R-i"))


def about(raw: bytes) -> Facts:
    walker = Walker()
    walker.walk(raw, 0, len(raw), 1 << 63)
    return facts.conclude(walker.begins)


def spoil(store: LocalStore, file: PurePosixPath) -> None:
    """Change a byte, and let a check find it."""
    path = store.root / file
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    catalogue = read_catalogue(store)
    found = next(each for each in catalogue.streams if each.file == file)
    catalogue.scrubbed.add(checked(store, found))


def test_only_what_this_receiver_has_found_is_damage(store: LocalStore) -> None:
    file = store_stream(store, SENDER, FULL)
    catalogues = Catalogues(store)
    assert find_damage(catalogues, file, about(FULL)) is None
    content = bytearray((store.root / file).read_bytes())
    content[60] ^= 1
    (store.root / file).write_bytes(content)
    assert find_damage(catalogues, file, about(FULL)) is None  # nobody has read it yet
    catalogue = read_catalogue(store)
    catalogue.scrubbed.add(checked(store, catalogue.streams[0]))
    found = find_damage(catalogues, file, about(FULL))
    assert found is not None
    assert (found.stamp, found.manifest) == (store.stamp(file), read_manifest(store, file))
    assert found.why.startswith("damaged (chunk 0")
    manifest_path(store, file).unlink()
    assert find_damage(catalogues, file, about(FULL)) is None  # it was removed


def test_manifest_that_no_version_has_written_is_damage_and_others_are_not(store: LocalStore) -> None:
    file = store_stream(store, SENDER, FULL)
    catalogues = Catalogues(store)
    told = manifest_path(store, file).read_text(encoding="utf-8")
    for text in ("", "{", "[]", told.replace('"guid"', '"guiD"')):
        manifest_path(store, file).write_text(text, encoding="utf-8")
        found = find_damage(catalogues, file, about(FULL))
        assert found is not None
        assert found.manifest is None
    for text in (told.replace('"format": 1', '"format": 2'), told.replace(f'"sender": "{SENDER}"', '"sender": "beta"')):
        manifest_path(store, file).write_text(text, encoding="utf-8")
        with pytest.raises(ManifestError):
            find_damage(catalogues, file, about(FULL))
    package = store_stream(store, SENDER, TREE)
    manifest_path(store, package).write_text("{", encoding="utf-8")
    with pytest.raises(ManifestError):
        find_damage(catalogues, package, about(TREE))


def test_what_a_check_cannot_read_is_not_replaced(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    file = store_stream(store, SENDER, FULL)
    path = store.root / file
    fail_reads(monkeypatch, path, errno.EIO)
    catalogue = read_catalogue(store)
    found = checked(store, catalogue.streams[0])
    assert found.verdict == "unreadable"
    catalogue.scrubbed.add(found)
    assert find_damage(Catalogues(store), file, about(FULL)) is None
    assert not list(find_damaged(read_catalogue(store)))
    inode = path.stat().st_ino
    assert store_stream(store, SENDER, FULL) == file
    assert path.stat().st_ino == inode
    assert not list(store.set_aside())


def test_file_that_cannot_be_examined_is_neither_damaged_nor_whole(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_stream(store, SENDER, FULL)
    real = os.stat

    def stat(path: Any, **more: Any) -> os.stat_result:
        if str(path).endswith(file.name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    catalogue = read_catalogue(store)
    assert not catalogue.restorable(catalogue.streams[0])
    assert not list(find_damaged(catalogue))
    for ask in (catalogue.damage, catalogue.receipt):
        with pytest.raises(OSError, match="Input/output"):
            ask(catalogue.streams[0])
    with pytest.raises(OSError, match="Input/output"):
        find_damage(Catalogues(store), file, about(FULL))


def test_another_package_of_the_same_name_is_never_replaced(store: LocalStore) -> None:
    file = store_stream(store, SENDER, TREE)
    spoil(store, file)
    with pytest.raises(StoreError, match="with other snapshots"):
        find_damage(Catalogues(store), file, about(streams.named("tree-R-I").read()))


RAW = streams.encrypted(streams.object_(1), ivset_guid=11)
COPY = streams.encrypted(streams.object_(1), ivset_guid=21)
UNTOLD = streams.encrypted(streams.object_(1), ivset_guid=0)


@pytest.mark.parametrize(
    ("stored", "arriving", "other"),
    [(RAW, COPY, True), (RAW, RAW, False), (RAW, UNTOLD, False), (UNTOLD, COPY, False), (None, COPY, False)],
    ids=["other", "same", "arriving untold", "stored untold", "not stored"],
)
def test_a_stream_of_the_same_name_may_have_other_keys(
    store: LocalStore, stored: bytes | None, arriving: bytes, *, other: bool
) -> None:
    if stored is not None:
        store_stream(store, SENDER, stored)
    said = about(arriving)
    assert has_other_keys(store, stream_file(SENDER, said), said) is other


def test_the_keys_of_a_stream_without_a_readable_manifest_are_not_known(store: LocalStore) -> None:
    file = store_stream(store, SENDER, RAW)
    told = manifest_path(store, file).read_text(encoding="utf-8")
    manifest_path(store, file).write_text("{", encoding="utf-8")
    assert not has_other_keys(store, file, about(COPY))
    manifest_path(store, file).write_text(told.replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(ManifestError):
        has_other_keys(store, file, about(COPY))


def test_what_is_replaced_while_it_is_judged_is_judged_again(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest must not be the new one, and the judgement that of the old one."""
    file = store_stream(store, SENDER, FULL)
    spoil(store, file)
    catalogues = Catalogues(store)
    current = catalogues.current

    def late(sender: str) -> object:
        found = current(sender)
        monkeypatch.undo()
        assert store_stream(store, SENDER, FULL) == file
        return found

    monkeypatch.setattr(catalogues, "current", late)
    assert find_damage(catalogues, file, about(FULL)) is None
    assert check_listed(store) == [str(file)]


def test_a_replacement_has_the_place_of_the_damaged_one_in_time(store: LocalStore) -> None:
    """Else `status` would take it for the newest state, and young."""
    first, second = store_stream(store, SENDER, FULL), store_stream(store, SENDER, MORE)
    told = manifest_path(store, first).read_text(encoding="utf-8")
    before = read_manifest(store, first)
    for key in ("received", "begun"):
        told = told.replace(f'"{key}": "{getattr(before, key)}"', f'"{key}": "2025-01-01T00:00:00Z"')
    manifest_path(store, first).write_text(told, encoding="utf-8")
    spoil(store, first)
    assert [each.summary.path for each in read_catalogue(store).damaged()] == [str(first)]
    (entry,) = find_damaged(read_catalogue(store))
    assert (entry.guid, entry.raw_bytes) == (before.guid, len(FULL))
    assert [each.snapshot for each in find_status(read_catalogue(store), {})] == [None]

    assert store_stream(store, SENDER, FULL) == first

    after = read_manifest(store, first)
    assert (after.begun, after.received) == ("2025-01-01T00:00:00Z", "2025-01-01T00:00:01Z")
    assert after.sequence == before.sequence
    assert after.sequence is not None
    last = read_manifest(store, second)
    assert (last.sequence or 0) > after.sequence
    (status,) = find_status(read_catalogue(store), {})
    assert (status.snapshot, status.broken) == (last.snapshot, 0)
    assert not list(find_damaged(read_catalogue(store)))


def test_no_old_result_counts_for_a_new_stream(store: LocalStore) -> None:
    file = store_stream(store, SENDER, FULL)
    catalogues = Catalogues(store)
    spoil(store, file)
    damaged = find_damage(catalogues, file, about(FULL))
    assert damaged is not None
    received = parse_time(read_manifest(store, file).received)
    assert received is not None
    at = format_time(received + 1)
    catalogues.record(Scrubbed(str(file), at, at, ("rotten",), None))
    placed = place_in_time(catalogues, file, damaged, begun=None, segments=read_manifest(store, file).segments)
    assert placed["received"] == format_time(received + 2)
    assert [each.same_bytes for each in placed["replacements"]] == [True]
    for _time in range(7):
        spoil(store, file)
        store_stream(store, SENDER, FULL)
    assert len(read_manifest(store, file).replacements) == 5
    assert hash_path(store, file).exists()


def test_damaged_stream_of_an_older_version_keeps_its_place_too(store: LocalStore) -> None:
    file = store_stream(store, SENDER, FULL)
    told = manifest_path(store, file).read_text(encoding="utf-8")
    before = read_manifest(store, file)
    told = told.replace(f'"sequence": {before.sequence}', '"sequence": null')
    told = told.replace(f'"begun": "{before.begun}"', '"begun": null')
    manifest_path(store, file).write_text(told, encoding="utf-8")
    spoil(store, file)
    store_stream(store, SENDER, FULL)
    after = read_manifest(store, file)
    assert (after.sequence, after.begun) == (None, before.received)


def test_packages_are_not_told_to_senders(store: LocalStore) -> None:
    """They are no base; the next one is a full in any case."""
    (store.root / plant(store, "p", 1, kind="package")).unlink()
    assert not list(find_damaged(read_catalogue(store)))
    (store.root / plant(store, "f", 2)).unlink()
    (entry,) = find_damaged(read_catalogue(store))
    assert entry.why == "damaged (the file is missing, or not as long as it was)"


def test_snapshots_are_those_of_the_records() -> None:
    (one,) = snapshots_of(about(FULL))
    assert f"{one.dataset}@{one.snapshot}" == "tank/data@now" or one.base_guid == "0"
    assert len(snapshots_of(about(TREE))) > 1
