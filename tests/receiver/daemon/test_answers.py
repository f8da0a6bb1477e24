"""What a sender is told of its own streams: by planted stores, and over the wire."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.receiver.helpers import PLANTED, SENDER, cut, everywhere, long_stream, manifest_path, plant, push_of
from tests.receiver.peer import CHUNK, CONTROL, Peer, chunks, control
from tests.receiver.running import Receiver, serving, wait_until

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.messages import Base, DatasetStatus
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.catalogue import inotify
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.daemon.answers import (
    METHODS,
    Answers,
    base_of,
    find_chains,
    find_status,
    find_unread,
    scrub_standing,
)
from fullsend_receiver.maintenance.checks import Checks, ScrubSettings
from fullsend_receiver.maintenance.progress import ReadPlace
from fullsend_receiver.maintenance.schedule import survey
from fullsend_receiver.monitor.overview import DatasetOverview, Overview, ScrubOverview, SenderOverview
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: An hour after what `plant` says of when a stream was received.
NOW: Final = 1_795_482_000.0
FULL: Final = streams.substream(streams.object_(1), streams.write(1, 0, b"full" * 1024))


# --- bases ------------------------------------------------------------------------------------------------------


def bases(store: LocalStore) -> dict[str, Base]:
    """By GUID and flags, which are the snapshot's name here."""
    found = (base_of(stored, *chain) for stored, chain in find_chains(read_catalogue(store, SENDER), NOW))
    return {f"{base.guid}{base.flags}": base for base in found}


def test_base_comes_with_its_chain(store: LocalStore) -> None:
    plant(store, "s1", 1, raw_bytes=1000, created="2021-01-01T00:00:00Z")  # its host's clock tells no age
    plant(store, "s2", 2, 1, raw_bytes=20, created="2026-01-02T00:00:00Z", flags="L")
    plant(store, "s3", 3, 2, raw_bytes=3, created="2026-01-03T00:00:00Z", flags="L", dataset="tank/renamed")
    found = bases(store)
    assert found["1"] == Base(
        dataset="tank/data",
        guid="1",
        base_guid=None,
        flags="",
        streams=1,
        age=3600,
        full_bytes=1000,
        increment_bytes=0,
    )
    assert found["3L"] == Base(
        dataset="tank/renamed",
        guid="3",
        base_guid="2",
        flags="L",
        streams=3,
        age=3600,
        full_bytes=1000,
        increment_bytes=23,
    )
    assert len(found) == 3


def test_base_is_told_with_its_shortest_chain(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, 1)
    plant(store, "s3", 3, 2, raw_bytes=7)
    plant(store, "s3", 3, 1, flags="c", raw_bytes=9)
    plant(store, "s4", 4, 3, raw_bytes=1)
    assert (bases(store)["4"].streams, bases(store)["4"].increment_bytes) == (3, 10)


def test_only_what_can_be_restored_is_a_base_and_no_package(store: LocalStore) -> None:
    plant(store, "s1", 1, kind="package", raw_bytes=5000)
    plant(store, "s2", 2, 1)
    plant(store, "s4", 4, 3)
    damaged = plant(store, "s5", 5)
    plant(store, "s6", 6, 5)
    (store.root / damaged).write_bytes(b"")
    plant(store, "theirs", 7, sender="beta")
    found = bases(store)
    assert set(found) == {"2"}
    assert (found["2"].streams, found["2"].full_bytes) == (2, 5000)


# --- status -----------------------------------------------------------------------------------------------------


def status(store: LocalStore, seen: dict[tuple[str, str], str] | None = None) -> list[DatasetStatus]:
    return list(find_status(read_catalogue(store, SENDER), seen or {}))


def test_what_cannot_be_listed_is_broken_and_named_by_verify(store: LocalStore) -> None:
    """By the name of its dataset where another stream tells it, else by that of its folder."""
    plant(store, "s1", 1, dataset="tank/größe")
    for snapshot, guid, dataset in (("s2", 2, "tank/größe"), ("s1", 3, "tank/other"), ("s1", 4, "tank/other/deep")):
        manifest_path(store, plant(store, snapshot, guid, dataset=dataset)).write_text("{")
    found = [(each.dataset, each.streams, each.broken, each.snapshot) for each in status(store)]
    assert sorted(found) == [("tank/größe", 2, 1, "s1"), ("tank/other", 1, 1, None), ("tank/other/deep", 1, 1, None)]
    catalogue = read_catalogue(store, SENDER)
    for wanted, count in {None: 3, "tank/größe": 1, "tank/other": 1, "tank/other/deep": 1, "tank": 0}.items():
        verdicts = list(find_unread(catalogue, SENDER, wanted))
        assert len(verdicts) == count
        assert all(each.file.endswith(".json") and "cannot be read" in each.damage[0] for each in verdicts)


def test_a_folder_that_was_moved_elsewhere_is_not_silently_gone(store: LocalStore) -> None:
    """A link is not followed: nothing behind it was listed, and nothing said so."""
    for number, dataset in enumerate(("tank/kept", "tank/moved", "tank/moved/deep"), 1):
        plant(store, "s1", number, dataset=dataset)
    (store.root / SENDER / "tank" / "moved").rename(store.root.parent / "elsewhere")
    (store.root / SENDER / "tank" / "moved").symlink_to(store.root.parent / "elsewhere")
    for _time in range(2):
        catalogue = read_catalogue(store, SENDER)
        assert [*map(str, catalogue.problems)] == [
            f"{SENDER}/tank/moved: is a symbolic link, so nothing in it is listed"
        ]
        assert {each.dataset: each.broken for each in status(store)} == {"tank/kept": 0, "tank/moved": 1}
    assert [each.file for each in find_unread(catalogue, SENDER, "tank/moved/deep")] == [f"{SENDER}/tank/moved"]


def test_status_is_that_of_the_newest_restorable_stream(store: LocalStore) -> None:
    plant(store, "s1", 1, created="2026-01-01T00:00:00Z", received="2026-02-01T00:00:00Z", stored_bytes=7)
    plant(store, "s2", 2, 1, created="2026-01-02T00:00:00Z", received="2026-02-02T00:00:00Z", stored_bytes=7)
    plant(store, "s9", 9, 8, created="2026-01-09T00:00:00Z", received="2026-02-09T00:00:00Z", stored_bytes=7)
    for path in (store.root / SENDER).rglob("*.zst"):
        path.write_bytes(b"7 bytes")
    assert status(store) == [
        DatasetStatus(
            dataset="tank/data",
            snapshot="s2",
            guid="2",
            created="2026-01-02T00:00:00Z",
            received="2026-02-02T00:00:00Z",
            begun="2026-02-02T00:00:00Z",
            unchanged=None,
            streams=3,
            stored_bytes=21,
            broken=1,
            lost_spill_count=0,
        )
    ]


def test_a_clock_that_was_behind_makes_no_old_stream_the_newest(store: LocalStore) -> None:
    """sanoid issue 815. `begun` is when the newest was offered, whatever its host's clock said."""
    plant(store, "s1", 1, sequence=1)
    plant(store, "s2", 2, 1, created="2021-01-01T00:00:00Z", sequence=2)
    plant(store, "s3", 3, 2, created="2021-01-02T00:00:00Z", sequence=3, begun="2026-11-23T23:00:00Z")
    (one,) = status(store)
    assert (one.snapshot, one.begun, one.received) == ("s3", "2026-11-23T23:00:00Z", "2026-11-24T00:00:00Z")


def test_what_is_said_to_be_unchanged_after_an_older_one_was_pushed_is_the_newest(store: LocalStore) -> None:
    plant(store, "s1", 1, sequence=1)
    plant(store, "s3", 3, 1, sequence=2, received="2026-11-23T00:00:00Z")
    plant(store, "s2", 2, 1, sequence=3, received="2026-11-24T00:00:00Z")
    when = "2026-11-25T00:00:00Z"
    assert [one.snapshot for one in status(store)] == ["s2"]
    (one,) = status(store, {("tank/data", "3"): when})
    assert (one.snapshot, one.unchanged) == ("s3", when)
    (one,) = status(store, {("tank/data", "3"): "2026-11-23T12:00:00Z"})
    assert (one.snapshot, one.unchanged) == ("s2", None)


def test_of_two_snapshots_of_one_second_the_one_that_builds_on_the_other_is_newer(store: LocalStore) -> None:
    for snapshot, guid, base in (("z", 9, None), ("m", 5, 9), ("a", 1, 5)):
        plant(store, snapshot, guid, base, created="2026-01-01T00:00:00Z")
    assert [one.snapshot for one in status(store)] == ["a"]


def test_a_clock_that_was_ahead_once_makes_nothing_the_newest_for_ever(store: LocalStore) -> None:
    plant(store, "s1", 1, created="2036-01-01T00:00:00Z", received="2026-01-01T00:00:00Z")
    plant(store, "s2", 2, 1, created="2026-01-02T00:00:00Z", received="2026-01-02T00:00:01Z")
    assert [one.snapshot for one in status(store)] == ["s2"]


def test_unchanged_counts_only_for_the_newest_restorable_stream(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, 1)
    when = "2026-03-01T00:00:00Z"
    assert status(store, {("tank/data", "2"): when})[0].unchanged == when
    assert status(store, {("tank/data", "1"): when})[0].unchanged is None
    assert status(store, {("tank/other", "2"): when})[0].unchanged is None


def test_dataset_of_packages_alone_is_backed_up(store: LocalStore) -> None:
    plant(store, "s1", 1, kind="package")
    (one,) = status(store)
    assert (one.snapshot, one.broken) == ("s1", 0)


def test_dataset_without_a_restorable_stream_has_no_backup(store: LocalStore) -> None:
    plant(store, "s2", 2, 1, dataset="tank/b")
    plant(store, "s1", 7, dataset="tank/a")
    plant(store, "theirs", 8, sender="beta", dataset="tank/c")
    first, second = status(store, {("tank/b", "2"): "2026-03-01T00:00:00Z"})
    assert (first.dataset, second.dataset) == ("tank/a", "tank/b")
    assert (second.snapshot, second.guid, second.created, second.received, second.unchanged) == (None,) * 5
    assert (second.streams, second.broken) == (1, 1)


# --- over the wire ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serving_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("answers"), SENDER, "beta") as receiver:
        yield receiver


@pytest.fixture
def receiver(serving_all: Receiver) -> Receiver:
    """The daemon, with nothing stored."""
    for name in (SENDER, "beta"):
        shutil.rmtree(serving_all.store / name, ignore_errors=True)
        (serving_all.store / f".state/unchanged.{name}.json").unlink(missing_ok=True)
    return serving_all


def asked(peer: Peer, what: str, answer: str, key: str) -> list[dict[str, Any]]:
    peer.say(what)
    found = []
    while (said := peer.hear(answer, "done"))["type"] == answer:
        found += said[key]
    return found


def test_empty_store_answers_with_done_alone(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        assert asked(peer, "bases?", "bases", "bases") == []
        assert asked(peer, "status?", "status", "datasets") == []
        peer.say("unchanged", datasets=[])
        assert peer.hear("noted") == {"type": "noted"}


def test_what_is_pushed_is_a_base_and_in_status_and_may_be_unchanged(receiver: Receiver) -> None:
    with receiver.peer() as peer, receiver.peer("beta") as other:
        receipt = peer.give(FULL, {"type": "push", **push_of(FULL).model_dump()})
        (base,) = asked(peer, "bases?", "bases", "bases")
        assert base == {
            "dataset": "tank/data",
            "guid": str(streams.GUID),
            "base_guid": None,
            "flags": "",
            "streams": 1,
            "age": base["age"],
            "full_bytes": len(FULL),
            "increment_bytes": 0,
        }
        (before,) = asked(peer, "status?", "status", "datasets")
        assert before["unchanged"] is None
        assert base["age"] >= 0
        assert before["received"] == receipt["received"] >= before["begun"]
        assert before["stored_bytes"] == receipt["stored_bytes"]
        said = {"dataset": "tank/data", "snapshot": "now", "guid": str(streams.GUID)}
        for speaker in (other, peer):
            speaker.say("unchanged", datasets=[said, {**said, "dataset": "tank/nope"}])
            speaker.hear("noted")
            (after,) = asked(peer, "status?", "status", "datasets")
            assert (after["unchanged"] is None) == (speaker is other)
        assert after == {**before, "unchanged": after["unchanged"]}
        assert after["unchanged"] >= receipt["received"]
        assert asked(other, "bases?", "bases", "bases") == []
        assert asked(other, "status?", "status", "datasets") == []


def test_long_answers_come_in_pages(receiver: Receiver) -> None:
    store = LocalStore(receiver.store)
    count = limits.BASES_PAGE + 1
    for guid in range(1, count + 1):
        plant(store, "s", guid, dataset=f"tank/d{guid}")
    with receiver.peer() as peer:
        peer.say("bases?")
        pages = [len(peer.hear("bases")["bases"]) for _ in range(2)]
        peer.hear("done")
        assert pages == [limits.BASES_PAGE, 1]
        assert len({base["guid"] for base in asked(peer, "bases?", "bases", "bases")}) == count
        names = [one["dataset"] for one in asked(peer, "status?", "status", "datasets")]
        assert names == sorted(names)
        assert len(names) == count


def test_requests_follow_on_one_another_over_one_connection(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        for _ in range(3):
            peer.write(control({"type": "bases?"}))
            peer.hear("done")
            peer.write(control({"type": "status?"}))
            peer.hear("done")
        peer.say("check")
        peer.hear("health")


# --- what has arrived in part -----------------------------------------------------------------------------------


def leave(receiver: Receiver, raw: bytes, count: int, name: str = SENDER) -> int:
    """Send so many chunks of a stream, and stop. Returns: the offset that is kept."""
    with receiver.peer(name) as peer:
        peer.push({"type": "push", **push_of(raw).model_dump()})
        for chunk in chunks([piece for _offset, piece in cut(raw)][:count]):
            peer.write(chunk.encode())
        peer.say("stop", keep=True, reason="enough")
        kept = peer.hear_after_acks("stopped")["offset"]
        assert isinstance(kept, int)
        return kept


def test_partials_are_told_to_whose_they_are_and_to_nobody_else(receiver: Receiver) -> None:
    mine, theirs = long_stream(3, name="tank/mine@now"), long_stream(3, name="tank/theirs@now")
    kept = leave(receiver, mine, 2)
    leave(receiver, theirs, 1, "beta")
    with receiver.peer() as peer, receiver.peer("beta") as other, receiver.peer() as pushing:
        (found,) = asked(peer, "partials?", "partials", "partials")
        assert found == {
            "sender": SENDER,
            "dataset": "tank/mine",
            "snapshot": "now",
            "guid": str(streams.GUID),
            "base_guid": None,
            "flags": "",
            "raw_bytes": kept,
            "stored_bytes": found["stored_bytes"],
            "resume_offset": kept,
            "started": found["started"],
            "last": found["last"],
            "arriving": False,
        }
        assert [each["dataset"] for each in asked(other, "partials?", "partials", "partials")] == ["tank/theirs"]
        pushing.write(control({"type": "push", **push_of(mine).model_dump(), "resume": "reconnect"}))
        assert pushing.hear("accept")["offset"] == kept
        (again,) = asked(peer, "partials?", "partials", "partials")
        assert again == {**found, "last": again["last"], "arriving": True}
        pushing.say("stop", keep=False, reason="not the same")
        assert pushing.hear("stopped")["offset"] == 0
        assert asked(peer, "partials?", "partials", "partials") == []
        assert asked(pushing, "partials?", "partials", "partials") == []


def test_many_partials_come_in_pages(receiver: Receiver) -> None:
    count = limits.PARTIALS_PAGE + 1
    with receiver.peer() as peer:
        before = len(asked(peer, "partials?", "partials", "partials"))
        leave(receiver, long_stream(2, name="tank/0@now"), 1)
        folder = receiver.store / ".partial"
        (journal,) = [path for path in folder.glob("*.journal") if b"tank/0" in path.read_bytes()]
        copies = [folder / f"{number:032x}.journal" for number in range(count - before - 1)]
        for copy in copies:
            shutil.copyfile(journal, copy)
        peer.say("partials?")
        assert [len(peer.hear("partials")["partials"]) for _ in range(2)] == [limits.PARTIALS_PAGE, 1]
        peer.hear("done")
        for copy in copies:
            copy.unlink()


# --- from where one has read ------------------------------------------------------------------------------------

LONG: Final = long_stream(3, name="tank/long@now")


@pytest.fixture
def stored(receiver: Receiver) -> tuple[Receiver, str, list[tuple[int, bytes]]]:
    """The daemon, with a stream of three chunks: its file, and the chunks."""
    pieces = list(cut(LONG))
    with receiver.peer() as peer:
        said = {"type": "push", **push_of(LONG).model_dump()}
        return receiver, peer.give(LONG, said, [piece for _, piece in pieces])["file"], pieces


def test_a_stream_is_given_from_where_a_chunk_begins(stored: tuple[Receiver, str, list[tuple[int, bytes]]]) -> None:
    receiver, file, pieces = stored
    with receiver.peer() as peer:
        for offset in (*(at for at, _piece in pieces), len(LONG)):
            peer.say("fetch", stream=file, offset=offset, until=None)
            assert peer.hear("sending")["manifest"]["raw_bytes"] == len(LONG)
            expected = offset
            while (frame := peer.read())[0] == CHUNK:
                assert frame[1] == expected
                expected += frame[2]
                assert frame[3][:32] == hashlib.sha256(LONG[:expected]).digest()
            assert (frame[0], json.loads(frame[3])) == (CONTROL, {"type": "done"})
            assert expected == len(LONG)


def test_a_stream_is_given_up_to_where_it_is_wanted(stored: tuple[Receiver, str, list[tuple[int, bytes]]]) -> None:
    receiver, file, pieces = stored
    second, third = pieces[1][0], pieces[2][0]
    with receiver.peer() as peer:
        for offset, until, given in [
            (0, 1, [0]),
            (second, second, []),
            (second, second + 1, [second]),
            (second, third, [second]),
            (second, third + 1, [second, third]),
            (0, 1 << 62, [0, second, third]),
            (len(LONG), len(LONG) + 1, []),
        ]:
            peer.say("fetch", stream=file, offset=offset, until=until)
            peer.hear("sending")
            found = []
            while (frame := peer.read())[0] == CHUNK:
                found.append(frame[1])
            assert (frame[0], json.loads(frame[3])) == (CONTROL, {"type": "done"})
            assert found == given


@pytest.mark.parametrize("offset", [1, 4 << 20, len(LONG) - 1, len(LONG) + 1, (1 << 63) - 1])
def test_a_stream_is_given_from_nowhere_else(
    stored: tuple[Receiver, str, list[tuple[int, bytes]]], offset: int
) -> None:
    receiver, file, _pieces = stored
    with receiver.peer() as peer:
        peer.say("fetch", stream=file, offset=offset, until=None)
        if offset <= len(LONG):
            peer.hear("sending")
        assert peer.refusal() == f"damaged: {file}: no chunk begins at raw offset {offset}"


def test_a_record_is_located_in_ones_own_streams_alone(stored: tuple[Receiver, str, list[tuple[int, bytes]]]) -> None:
    receiver, file, pieces = stored
    with receiver.peer() as peer:
        for number, (at, _piece) in enumerate(pieces):
            peer.say("locate", stream=file, object=1, offset=(4 << 20) * number + (1 << 20))
            assert peer.hear("located") == {"type": "located", "raw_offset": at}
        peer.say("locate", stream="tank/nope@now", object=1, offset=0)
        assert peer.refusal().startswith("not-found: tank/nope@now: ")
    with receiver.peer("beta") as other:
        other.say("locate", stream=file, object=1, offset=0)
        assert other.refusal().startswith(f"not-found: {file}: ")
    (receiver.store / file).unlink()
    with receiver.peer() as peer:
        peer.say("locate", stream=file, object=1, offset=0)
        assert peer.refusal().startswith("damaged: ")


# --- questions --------------------------------------------------------------------------------------------------


def test_what_is_read_is_held_as_long_as_the_connection_lasts(
    stored: tuple[Receiver, str, list[tuple[int, bytes]]],
) -> None:
    """A restore reads its chain over one connection, the full first."""
    receiver, file, _pieces = stored
    store = LocalStore(receiver.store)
    shutil.rmtree(store.reading, ignore_errors=True)
    with receiver.peer() as peer:
        peer.say("fetch", stream=file, offset=len(LONG), until=None)
        peer.hear("sending")
        peer.hear("done")
        assert store.held() == {PurePosixPath(file)}
        (path,) = store.reading.iterdir()
        os.utime(path, (0, 0))
        assert store.held() == {PurePosixPath(file)}
    wait_until(lambda: path.stat().st_mtime > 0, "the end of the hold")
    assert store.held() == {PurePosixPath(file)}
    os.utime(path, (0, 0))
    assert store.held() == set()


def test_stream_that_is_pruned_before_it_is_read_is_not_found(
    stored: tuple[Receiver, str, list[tuple[int, bytes]]],
) -> None:
    receiver, file, _pieces = stored
    store = LocalStore(receiver.store)
    with receiver.peer() as peer:
        peer.say("fetch", stream=file, offset=len(LONG), until=None)
        peer.hear("sending")
        peer.hear("done")
        assert store.remove(lambda: [PurePosixPath(file)]) == [PurePosixPath(file)]
        peer.say("fetch", stream=file, offset=len(LONG), until=None)
        assert peer.hear("error")["code"] == "not-found"


async def health_of(store: LocalStore, *, stopped: bool = False, every: float = 0, **said: Any) -> messages.Health:
    """What a sender is told of the receiver's state, beside a daemon that checks nothing now."""
    catalogues = Catalogues(store)
    with ThreadPoolExecutor(1) as threads:
        workers = Workers(threads, threads, threads)
        checks = Checks(catalogues, workers, ScrubSettings(every, 0))
        checks._stopped = stopped
        answers = Answers(
            *(catalogues, workers, checks, SENDER, Room(SizeOrShare(0), lambda: workers.run(store.space))),
            **{"peer": SENDER, "warn_at": None} | said,
        )
        (health,) = [part async for part in answers.answer(messages.Check())]
        await answers.close()
    assert isinstance(health, messages.Health)
    return health


@pytest.mark.parametrize("count", [0, 1, limits.HISTORIES_PAGE + 1])
async def test_a_sender_is_told_the_history_of_its_own_datasets(store: LocalStore, count: int) -> None:
    mine = tuple(DatasetOverview(sender=SENDER, dataset=f"tank/{number:03}") for number in range(count))
    theirs = (DatasetOverview(sender="beta", dataset="secret"),)
    senders = (
        SenderOverview(name=SENDER, enrolled=True, datasets=mine),
        SenderOverview(name="beta", enrolled=True, datasets=theirs),
    )
    overview = Overview(
        at=NOW, program="", store="", free=0, size=0, min_free=0, senders=senders, scrub=ScrubOverview(every=0.0)
    )
    *pages, end = await history_of(store, lambda: overview)
    assert end == messages.Done()
    told = [page for page in pages if isinstance(page, messages.HistoryPage)]
    assert len(told) == len(pages)
    assert {page.at for page in told} <= {format_time(NOW)}
    assert [each.dataset for page in told for each in page.datasets] == [each.dataset for each in mine]
    assert all(len(page.datasets) <= limits.HISTORIES_PAGE for page in told)


async def test_before_the_first_look_there_is_no_history(store: LocalStore) -> None:
    assert await history_of(store, lambda: None) == [messages.Done()]


async def history_of(store: LocalStore, overview: Callable[[], Overview | None]) -> list[object]:
    catalogues = Catalogues(store)
    with ThreadPoolExecutor(1) as threads:
        workers = Workers(threads, threads, threads)
        answers = Answers(
            *(catalogues, workers, Checks(catalogues, workers, ScrubSettings(0, 0)), SENDER),
            Room(SizeOrShare(0), lambda: workers.run(store.space)),
            peer=SENDER,
            warn_at=None,
            overview=overview,
        )
        found: list[object] = [part async for part in answers.answer(messages.HistoryWanted())]
        await answers.close()
    return found


async def test_how_the_checks_of_its_streams_stand_is_told_to_a_sender_that_understands_it(store: LocalStore) -> None:
    for number in (1, 2):
        plant(store, f"s{number}", number)
    plant(store, "theirs", 9, sender="beta")
    assert (await health_of(store)).scrub is None
    day = 86400
    found = (await health_of(store, every=day, scrub=True)).scrub
    due = 2 if time.time() - NOW > day else 0
    assert found == messages.ScrubStanding(
        every=day,
        streams=2,
        current=2 - due,
        checked=0,
        oldest="2026-11-24T00:00:00Z",
        due_streams=due,
        due_bytes=due * len(PLANTED),
        reading=None,
    )


@pytest.mark.parametrize(("file", "told"), [("alpha/tank/@now.zst", True), ("alphabet/tank/@now.zst", False)])
def test_only_its_own_stream_is_named_as_being_read(file: str, told: bool) -> None:
    standing = scrub_standing(survey([], now=NOW, every=0), ReadPlace(file, 1, 2, None), "alpha")
    assert standing.reading == (messages.BeingRead(file=file, read_bytes=1, stored_bytes=2) if told else None)
    assert standing.oldest is None


async def test_what_could_not_be_checked_is_a_problem_of_its_sender(store: LocalStore) -> None:
    log = ScrubLog(store)
    received = "2026-11-24T00:00:00Z"
    for number in range(22):
        file = str(plant(store, f"s{number:02}", number + 1))
        log.add(Scrubbed(file, received, received, (), None, unreadable="chunk 7 cannot be read"))
    theirs = str(plant(store, "theirs", 99, sender="beta"))
    log.add(Scrubbed(theirs, received, received, (), None, unreadable="chunk 8 cannot be read"))
    problems = (await health_of(store)).problems
    assert len(problems) == 21
    assert problems[0].endswith(": could not be checked: chunk 7 cannot be read; it is tried again later")
    assert problems[0].startswith("alpha/tank/data/@s00.")
    assert problems[-1] == "2 more streams could not be checked"


async def test_a_scrub_that_has_stopped_or_is_behind_is_told(store: LocalStore) -> None:
    plant(store, "s1", 1, received="2026-01-01T00:00:00Z")
    (problem,) = (await health_of(store, stopped=True)).problems
    assert problem.startswith("the scrub has stopped, because many streams are damaged")
    health = await health_of(store, every=86400, warn_at=2.0)
    assert health.problems == []
    assert health.warnings == ["the scrub is behind: a stream was last checked, or received, at 2026-01-01T00:00:00Z"]


async def test_what_keeps_prunes_from_their_work_is_told_to_their_sender(store: LocalStore) -> None:
    health = await health_of(store, troubles=lambda sender: [f"{sender}: why"])
    assert health.problems == [f"{SENDER}: why"]


def test_each_question_of_the_wire_has_one_answer() -> None:
    assert METHODS.questions == {messages.Fetch, *(request.ask for request in messages.REQUESTS)}


async def test_drills_are_kept_and_given_back_in_pages(store: LocalStore) -> None:
    names = [f"tank/{number:03}" for number in range(limits.DRILLS_PAGE + 1)]
    for number, name in enumerate(names, 1):
        plant(store, "s1", number, dataset=name)
    with ThreadPoolExecutor(4) as threads:
        workers, catalogues = Workers(threads, threads, threads), Catalogues(store)
        answers = Answers(
            *(catalogues, workers, Checks(catalogues, workers, ScrubSettings(0, 0)), SENDER),
            Room(SizeOrShare(0), lambda: workers.run(store.space)),
            peer=SENDER,
            warn_at=None,
        )

        async def ask(question: messages.Question) -> list[object]:
            return [part async for part in answers.answer(question)]

        assert await ask(messages.DrillsWanted()) == [messages.Done()]
        facts: dict[str, Any] = {
            "snapshot": "s1",
            "guid": "1",
            "compared": "files",
            "milliseconds": 5,
            "raw_bytes": 6,
            "files": 7,
        }
        for name in [*names, "tank/nope"]:
            said = messages.Drilled(dataset=name, ok=True, text="fine", **facts)
            assert await ask(said) == [messages.Noted()]
        *pages, done = await ask(messages.DrillsWanted())
    assert done == messages.Done()
    found = [each for page in pages if isinstance(page, messages.Drills) for each in page.drills]
    assert [each.dataset for each in found] == names
    assert len(pages) == 2
    assert all(each.succeeded == each.at for each in found)


@pytest.mark.slow
async def test_the_questions_of_a_night_of_a_thousand_datasets_look_at_nothing_that_is_stored(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What increments build on, how old each backup is, what is unchanged: a look at the sender's folder for each."""
    monkeypatch.setattr(inotify, "_OWN", everywhere())
    names = [f"tank/{number}" for number in range(1000)]
    for number, name in enumerate(names, 1):
        plant(store, "s1", number, dataset=name)
    with ThreadPoolExecutor(4) as threads:
        workers, catalogues = Workers(threads, threads, threads), Catalogues(store)
        answers = Answers(
            *(catalogues, workers, Checks(catalogues, workers, ScrubSettings(0, 0)), SENDER),
            Room(SizeOrShare(0), lambda: workers.run(store.space)),
            peer=SENDER,
            warn_at=None,
        )

        async def ask(question: messages.Question) -> list[object]:
            return [part async for part in answers.answer(question)]

        await ask(messages.Check())  # the first question reads all
        seen: list[str] = []
        for call in ("stat", "lstat", "open", "scandir", "listdir", "readlink"):
            real = getattr(os, call)

            def watched(path: Any, *more: Any, real: Any = real, **named: Any) -> Any:
                seen.append(path if isinstance(path, str) else os.fspath(path) if not isinstance(path, int) else "")
                return real(path, *more, **named)

            monkeypatch.setattr(os, call, watched)
        bases, status, entries = [
            await ask(question)
            for question in (messages.BasesWanted(), messages.StatusWanted(), messages.List(dataset=None))
        ]
        said = [messages.UnchangedDataset(dataset=name, snapshot="s1", guid=str(n)) for n, name in enumerate(names, 1)]
        assert await ask(messages.Unchanged(datasets=said)) == [messages.Noted()]
        for name in names[::20]:
            entries += await ask(messages.List(dataset=name))
        monkeypatch.undo()
    assert sum(len(page.bases) for page in bases if isinstance(page, messages.Bases)) == 1000
    assert sum(len(page.datasets) for page in status if isinstance(page, messages.Status)) == 1000
    assert sum(len(page.entries) for page in entries if isinstance(page, messages.Entries)) == 1050
    there, mine = str(store.root), str(store.root / SENDER)
    seen = [path for path in seen if path.startswith((there, "@"))]
    assert [path for path in seen if path.startswith((f"{mine}/", "@"))] == []
    # Whether the sender's folder is in place, and whether checks have found something.
    assert len(seen) < 3 * 55 + 20
