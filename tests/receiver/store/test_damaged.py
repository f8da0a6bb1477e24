"""A damaged stream gives way to a whole one: at every moment the one or the other is listed, and neither is lost."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.receiver import crash
from tests.receiver.arriving import DRAWS, FILE, RAW, SHORT, begun, flip, journal_of, second
from tests.receiver.helpers import (
    PROGRAM,
    SENDER,
    check_listed,
    checked,
    everything,
    finish_of,
    hash_path,
    ingest_stream,
    make_store,
    manifest_path,
    push_of,
    read_manifest,
    store_stream,
)
from tests.receiver.powercut import Disk

from fullsend_protocol.wire.messages import Committed, Stored
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store.api import Replaced
from fullsend_receiver.store.errors import ManifestError, StoreError
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.partials import committing
from fullsend_receiver.store.recovery import recover

if TYPE_CHECKING:
    from tests.receiver.crash import Crasher

#: Byte of a stored file that is changed.
AT = 60


def spoilt_store(folder: Path, name: str, raw: bytes = RAW) -> tuple[LocalStore, bytes]:
    """A store with one stream that is known to be damaged. Returns: it, and the damaged bytes."""
    store = make_store(folder, name)
    assert store_stream(store, SENDER, raw) == FILE
    path = store.root / FILE
    data = bytearray(path.read_bytes())
    data[AT] ^= 1
    path.write_bytes(data)
    catalogue = read_catalogue(store)
    catalogue.scrubbed.add(checked(store, catalogue.streams[0]))
    return store, bytes(data)


def check(store: LocalStore, damaged: bytes, received: str) -> bool:
    """Exactly one stream is listed, and the damaged one is not lost. Returns: whether the new one is listed."""
    assert [path.name for path in (store.root / FILE).parent.glob("*.json")] == [manifest_path(store, FILE).name]
    (stored,) = read_catalogue(store).streams
    new = stored.summary.received != received
    if new:
        assert check_listed(store) == [str(FILE)]
    assert read_catalogue(store).restorable(stored) is new
    kept = [path for path in (store.root / FILE, *store.partial.glob("*.zst.damaged")) if path.exists()]
    assert damaged in [path.read_bytes() for path in kept]
    return new


def check_restarted(store: LocalStore, damaged: bytes, received: str) -> bool:
    """The same after a start; a second one changes nothing; and a push replaces what is still damaged."""
    under_way = bool(committing(store))
    before = check(store, damaged, received)
    recover(store)
    after = check(store, damaged, received)
    assert after is (before or under_way)
    there = everything(store.root)
    recover(store)
    assert everything(store.root) == there
    return after


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "amid writes"])
def test_kill_at_any_call_of_a_replacement(swift_path: Path, crasher: Crasher, torn: bool) -> None:
    whole, damaged = spoilt_store(swift_path, "like")
    received = read_manifest(whole, FILE).received
    outcomes = set()
    for at in itertools.count(1):
        store = LocalStore(swift_path / f"store{at}")
        shutil.copytree(whole.root, store.root)
        outcome = crasher.run("push", store.root, at=at, call="write" if torn else None, torn=torn)
        new = check_restarted(store, damaged, received)
        assert new or f"stored {FILE}" not in outcome.told
        outcomes.add(new)
        if not outcome.killed:
            break
        assert store_stream(store, SENDER, RAW) == FILE
        assert check(store, damaged, received)
        shutil.rmtree(store.root)
    assert outcomes == {False, True}
    assert outcome.told[-1] == f"stored {FILE}"


@pytest.mark.slow
def test_kill_at_any_call_of_the_start_that_completes_it(swift_path: Path, crasher: Crasher) -> None:
    like, damaged = spoilt_store(swift_path, "like")
    received = read_manifest(like, FILE).received
    renames = 0
    for rename in itertools.count(1):
        begun_one = LocalStore(swift_path / f"begun{rename}")
        shutil.copytree(like.root, begun_one.root)
        if not crasher.run("push", begun_one.root, at=rename, call="rename").killed:
            break
        renames += 1
        for at in itertools.count(1):
            store = LocalStore(swift_path / f"store{rename}.{at}")
            shutil.copytree(begun_one.root, store.root)
            killed = crasher.run("start", store.root, at=at).killed
            assert check_restarted(store, damaged, received)
            shutil.rmtree(store.root)
            if not killed:
                break
    assert renames == 7  # what is set aside: about, manifest, file and hash; then the new file, hash, and manifest


@pytest.mark.slow
def test_power_cut_at_any_moment_of_a_replacement(swift_path: Path) -> None:
    store, damaged = spoilt_store(swift_path, "store", SHORT)
    received = read_manifest(store, FILE).received
    found: list[tuple[LocalStore, bool]] = []
    done = False

    def lights_out(disk: Disk) -> None:
        for draw in range(DRAWS + 1):
            folder = swift_path / f"{disk.steps}.{draw}"
            disk.leave(folder, seed=100 * disk.steps + draw if draw else None)
            found.append((LocalStore(folder), done))

    with Disk(store.root, lights_out) as disk:
        ingest = ingest_stream(store, SENDER, SHORT)
        commit(Catalogues(store), SENDER, ingest, finish_of(SHORT), push_of(SHORT), sender_program=PROGRAM)
        done = True
        disk.step()
    assert disk.steps > 40
    for left, told in found:
        assert check_restarted(left, damaged, received) or not told


def test_of_two_replacements_at_once_one_wins_and_the_other_gets_its_receipt(swift_path: Path) -> None:
    for number in range(10):
        store, damaged = spoilt_store(swift_path, f"store{number}", SHORT)
        received = read_manifest(store, FILE).received
        catalogues = Catalogues(store)
        ingests = [ingest_stream(store, SENDER, SHORT), second(store, SHORT)]
        barrier = threading.Barrier(2)

        def put(which: int) -> Committed | Stored:
            barrier.wait()  # noqa: B023 - the threads end within this round
            offer = push_of(SHORT)
            return commit(catalogues, SENDER, ingests[which], finish_of(SHORT), offer, sender_program=PROGRAM)  # noqa: B023

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(put, (0, 1)))
        assert sorted(type(each).__name__ for each in answers) == ["Committed", "Stored"]
        assert answers[0].receipt == answers[1].receipt
        (replaced,) = (each.replaced for each in answers if isinstance(each, Committed))
        assert replaced is not None
        assert check(store, damaged, received)
        assert len(list(store.set_aside())) == 1
        recover(store)
        assert check(store, damaged, received)


def test_stream_that_came_in_between_stays(swift_path: Path, crasher: Crasher) -> None:
    """As after a downgrade, whose version knows nothing of replacements."""
    store, _damaged = spoilt_store(swift_path, "store")
    assert crasher.run("push", store.root, at=1, call="rename").killed
    told = manifest_path(store, FILE).read_bytes()
    manifest_path(store, FILE).write_bytes(told + b"\n")
    there = (store.root / FILE).read_bytes()
    assert recover(store) == [f"{FILE}: was stored twice; the first one stays"]
    assert manifest_path(store, FILE).read_bytes() == told + b"\n"
    assert (store.root / FILE).read_bytes() == there
    assert not list(store.partial.iterdir())


def test_stream_that_was_removed_in_between_is_stored_as_any(swift_path: Path) -> None:
    store, _damaged = spoilt_store(swift_path, "store", SHORT)
    ingest = ingest_stream(store, SENDER, SHORT)
    catalogues = Catalogues(store)
    assert not catalogues.current(SENDER).problems
    store.remove(lambda: [FILE])
    answer = commit(catalogues, SENDER, ingest, finish_of(SHORT), push_of(SHORT), sender_program=PROGRAM)
    assert isinstance(answer, Committed)
    assert answer.replaced is None
    assert check_listed(store) == [str(FILE)]
    assert not list(store.set_aside())


def test_stream_that_is_removed_after_it_was_judged_is_stored_as_any(swift_path: Path) -> None:
    """The store's lock is held by then, and must not be taken twice."""
    store, _damaged = spoilt_store(swift_path, "store", SHORT)
    like, stamp = read_manifest(store, FILE), store.stamp(FILE)
    assert stamp is not None
    ingest = ingest_stream(store, SENDER, SHORT)
    size, sha256 = ingest.partial.seal(ingest.chunks)
    manifest = like.model_copy(update={"stored_bytes": size, "file_sha256": sha256, "received": "2027-01-01T00:00:00Z"})
    store.remove(lambda: [FILE])
    assert ingest.partial.commit(FILE, manifest, Replaced(stamp, "rotten"))
    assert check_listed(store) == [str(FILE)]
    assert not list(store.set_aside())


def test_file_without_manifest_beside_a_replacement_is_refused_as_ever(swift_path: Path) -> None:
    store, damaged = spoilt_store(swift_path, "store", SHORT)
    manifest_path(store, FILE).unlink()
    with pytest.raises(StoreError, match="exists without its manifest"):
        store_stream(store, SENDER, SHORT)
    assert (store.root / FILE).read_bytes() == damaged


def test_what_is_set_aside_is_listed_and_deleted_by_its_age(store: LocalStore, swift_path: Path) -> None:
    spoilt, damaged = spoilt_store(swift_path, "store", SHORT)
    sha256 = hash_path(spoilt, FILE).read_bytes()
    before = read_manifest(spoilt, FILE)
    store_stream(spoilt, SENDER, SHORT)
    (stream,) = spoilt.set_aside()
    assert (stream.sender, stream.what) == (SENDER, f"{before.dataset}@{before.snapshot}")
    assert stream.stored_bytes == len(damaged)
    assert abs(stream.at - time.time()) < 3600
    assert stream.why.startswith("damaged (chunk 0")
    assert stream.file is not None
    assert (spoilt.root / stream.file).read_bytes() == damaged
    assert (spoilt.partial / f"{stream.name}.sha256.damaged").read_bytes() == sha256
    assert spoilt.aside_manifest(stream.name) == before
    # A partial is set aside in the same way.
    begun(spoilt)
    flip(journal_of(spoilt))
    recover(spoilt)
    assert sorted(each.why for each in spoilt.set_aside()) == ["a part that had arrived was damaged", stream.why]
    spoilt.discard_damaged(time.time() - 3600)
    assert len(list(spoilt.set_aside())) == 2
    spoilt.discard_damaged(time.time() + 3600)
    assert not list(spoilt.set_aside())
    assert not list(spoilt.partial.iterdir())
    assert check_listed(spoilt) == [str(FILE)]
    assert not list(store.set_aside())


@pytest.mark.parametrize("text", [b"", b"[1]", b"{}", b'{"file": 7}'])
def test_record_that_cannot_be_read_still_shows_that_something_is_set_aside(store: LocalStore, text: bytes) -> None:
    (store.partial / "00.about.damaged").write_bytes(text)
    (found,) = store.set_aside()
    assert (found.name, found.file, found.why) == ("00", None, "?")
    assert not list(store.set_aside("alpha"))
    with pytest.raises(ManifestError):
        store.aside_manifest("00")


def test_crash_scenario_is_the_replacement(swift_path: Path) -> None:
    """Or the kills above would prove nothing."""
    store, damaged = spoilt_store(swift_path, "store")
    crash.push(store.root, lambda _text: None)
    assert check(store, damaged, "")
    assert len(list(store.set_aside())) == 1
