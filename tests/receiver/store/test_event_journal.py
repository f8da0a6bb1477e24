from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
from pathlib import Path

import pytest

from fullsend_receiver.store.errors import StoreFull
from fullsend_receiver.store.event_journal import EventJournal, EventPlace

START = EventPlace(0, 0)


def line(number: int) -> bytes:
    return json.dumps({"event": "e", "number": number}).encode() + b"\n"


def numbers(journal: EventJournal, place: EventPlace = START) -> list[int]:
    """The numbers of all events from a place on."""
    found: list[int] = []
    while True:
        read = journal.read(place)
        found += [said["number"] for _place, said in read.events]
        if read.end == place:
            return found
        place = read.end


@pytest.fixture
def journal(tmp_path: Path) -> EventJournal:
    return EventJournal(tmp_path / "events", segment_max=200, kept=3)


def test_what_is_appended_is_read_in_order_from_any_place(journal: EventJournal) -> None:
    journal.append([line(0), line(1)])
    first = journal.end()
    journal.append([line(2)])
    assert numbers(journal) == [0, 1, 2]
    assert numbers(journal, first) == [2]
    assert journal.read(journal.end()).events == []


def test_a_place_behind_each_event(journal: EventJournal) -> None:
    journal.append([line(0), line(1), line(2)])
    (_, (second, said), _) = journal.read(START).events
    assert said["number"] == 1
    assert numbers(journal, second) == [2]
    assert second.id == f"1-{second.offset}"


def test_an_empty_journal_has_a_place_from_which_all_is_read(journal: EventJournal) -> None:
    place = journal.end()
    assert journal.read(place).end == place
    journal.append([line(7)])
    assert numbers(journal, place) == [7]


def test_a_reader_follows_rotation_and_misses_nothing(journal: EventJournal) -> None:
    place, found = journal.end(), []
    for number in range(100):
        journal.append([line(number)])
        read = journal.read(place)
        while read.end != place:
            assert not read.lost
            found += [said["number"] for _place, said in read.events]
            place = read.end
            read = journal.read(place)
    assert found == list(range(100))
    assert place.segment > 5


def test_its_size_is_bounded_and_a_slow_reader_is_told_what_it_missed(journal: EventJournal) -> None:
    for number in range(200):
        journal.append([line(number)])
    files = sorted(journal.folder.glob("*.jsonl"))
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) < 3 * 300
    read = journal.read(EventPlace(1, 0))
    assert read.lost
    assert read.events[0][1]["number"] > 0
    assert numbers(journal, EventPlace(1, 0))[-1] == 199


def test_a_torn_line_is_passed_over_and_what_follows_is_read(journal: EventJournal) -> None:
    journal.append([line(0)])
    with (journal.folder / "0000000001.jsonl").open("ab") as file:
        file.write(b'{"event": "to')
    place = journal.read(START).end
    assert [said["number"] for _place, said in journal.read(START).events] == [0]
    assert journal.read(place).end == place  # it may still be written
    journal.append([line(1)])
    assert numbers(journal) == [0, 1]
    assert numbers(journal, place) == [1]


def test_a_torn_line_at_the_end_of_a_segment_is_passed_over(journal: EventJournal) -> None:
    journal.append([line(number) for number in range(10)])  # more than a segment
    with (journal.folder / "0000000001.jsonl").open("ab") as file:
        file.write(b'{"event": "to')
    journal.append([line(10)])
    assert (journal.folder / "0000000002.jsonl").exists()
    assert numbers(journal) == list(range(11))


def test_the_end_behind_a_torn_line_is_a_place(journal: EventJournal) -> None:
    journal.append([line(0)])
    with (journal.folder / "0000000001.jsonl").open("ab") as file:
        file.write(b'{"event": "to')
    place = journal.end()
    journal.append([line(1)])
    assert numbers(journal, place) == [1]


def test_what_is_no_event_is_left_out(journal: EventJournal) -> None:
    journal.append([b"[]\n", b"\x00\x00\xff\n", b'{"event": 3}\n', line(5), b"\n"])
    assert numbers(journal) == [5]


def test_a_disk_that_has_lost_the_end_is_told(journal: EventJournal) -> None:
    journal.append([line(0), line(1)])
    place = journal.end()
    with (journal.folder / "0000000001.jsonl").open("r+b") as file:
        file.truncate(len(line(0)))
    read = journal.read(place)
    assert read.lost
    assert read.end == EventPlace(1, len(line(0)))
    journal.append([line(2)])
    assert numbers(journal, read.end) == [2]


def test_an_older_copy_of_a_store_repeats_nothing(journal: EventJournal) -> None:
    journal.append([line(0)])
    read = journal.read(EventPlace(9, 100))
    assert read.lost
    assert read.events == []
    assert read.end == journal.end()


def test_a_journal_that_was_removed_is_told(journal: EventJournal) -> None:
    read = journal.read(EventPlace(3, 100))
    assert (read.lost, read.end) == (True, START)


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    journal = EventJournal(tmp_path / "events")
    journal.append([b"x" * (3 << 20) + b"\n", line(1)])
    assert numbers(journal) == [1]


def test_the_folder_above_is_not_made(tmp_path: Path) -> None:
    """It would hide that the disk is not mounted."""
    with pytest.raises(FileNotFoundError):
        EventJournal(tmp_path / "store" / "events").append([line(0)])


def test_nobody_else_reads_it(journal: EventJournal) -> None:
    journal.append([line(0)])
    assert {path.stat().st_mode & 0o777 for path in journal.folder.iterdir()} == {0o600}
    assert journal.folder.stat().st_mode & 0o077 == 0


def _append(folder: Path, begin: int) -> None:
    journal = EventJournal(folder, segment_max=2000, kept=1000)
    for number in range(begin, begin + 100):
        journal.append([line(number)])


def test_several_processes_append(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(folder, 1000 * each)) for each in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = numbers(EventJournal(folder))
    assert sorted(found) == [1000 * each + number for each in range(3) for number in range(100)]


def test_a_trial_leaves_nothing_behind(journal: EventJournal) -> None:
    journal.check_writable()
    assert list(journal.folder.iterdir()) == []
    journal.append([line(0)])
    (journal.folder / "trial").write_bytes(b"of a process that was killed")
    assert numbers(journal) == [0]
    journal.check_writable()
    assert not (journal.folder / "trial").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_journal_without_room_for_a_block_is_full(
    journal: EventJournal, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_descriptor: int, _data: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StoreFull, match=re.escape(f"{journal.folder}: is full ({os.strerror(number)}): free some")):
        journal.check_writable()
    assert list(journal.folder.iterdir()) == []


def test_a_journal_whose_disk_fails_says_so(journal: EventJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        EventJournal(journal.folder).check_writable()
