"""What is remembered of what has come: through merges, prunes, crashes, and clocks that were wrong."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.receiver.histories import DAY, START, stream

from fullsend_protocol.shared.units import format_time
from fullsend_receiver.monitor.history import (
    NIGHTS_MAX,
    RECEPTIONS_MAX,
    Histories,
    PackedHistory,
    SenderHistory,
    fold,
    local_day,
)
from fullsend_receiver.monitor.overview import History, Night, Reception

if TYPE_CHECKING:
    from fullsend_receiver.catalogue.rows import Summary
    from fullsend_receiver.store.local import LocalStore

HOME: Final = "tank/home"
NOW: Final = START + 1000 * DAY
EMPTY: Final = SenderHistory()


def folded(
    *streams: Summary, before: SenderHistory = EMPTY, unchanged: str | None = None, now: float = NOW
) -> SenderHistory:
    return fold(before, streams, {} if unchanged is None else {HOME: unchanged}, now)


def snapshots(history: SenderHistory, dataset: str = HOME) -> list[str]:
    return [each.snapshot for each in history.of(dataset).receptions]


def test_each_stream_is_remembered_once() -> None:
    first = folded(stream(1), stream(2, 1))
    assert folded(stream(1), stream(2, 1), before=first) is first
    second = folded(stream(2, 1), stream(3, 2, kind="incremental", raw_bytes=7, stored_bytes=5), before=first)
    assert snapshots(second) == ["s1", "s2", "s3"]
    newest = second.of(HOME).receptions[-1]
    assert newest == Reception(at=START + 3 * DAY, kind="incremental", snapshot="s3", raw_bytes=7, stored_bytes=5)
    assert second.sequence == 4


def test_a_night_has_what_came_on_it() -> None:
    both = folded(stream(1), stream(2, 1, at=START + DAY + 60))
    day = local_day(START + DAY)
    assert day == datetime.fromtimestamp(START + DAY, UTC).astimezone().date().toordinal()
    assert list(both.of(HOME).nights) == [Night(day=day, received=2, raw_bytes=400, stored_bytes=200)]
    again = folded(before=both, unchanged=format_time(START + DAY + 120))
    assert list(again.of(HOME).nights) == [Night(day=day, received=2, unchanged=1, raw_bytes=400, stored_bytes=200)]


def test_what_is_there_says_since_when_nothing_is_missing() -> None:
    assert EMPTY.of(HOME).since is None
    first = folded(stream(1), now=START + 2 * DAY)
    later = folded(stream(3, 2), before=SenderHistory.from_bytes(first.to_bytes()), now=START + 4 * DAY)
    assert SenderHistory.from_bytes(later.to_bytes()).of(HOME).since == START + 2 * DAY
    other = folded(stream(4, dataset="tank/b"), before=later, now=START + 5 * DAY)
    assert other.of("tank/b").since == START + 5 * DAY


def test_what_a_prune_drops_is_remembered() -> None:
    before = folded(stream(1), stream(2, 1))
    after = folded(stream(3, None), before=before)
    assert snapshots(after) == ["s1", "s2", "s3"]


def merged(number: int, **changes: Any) -> Summary:
    """Return what a merge has made of a full and the streams up to this one: with the place of the last."""
    return stream(number, None, proven_by="merge", raw_bytes=10**9, **changes)


def test_a_merge_is_no_reception() -> None:
    """The time of reception of its last input may have moved by a few seconds."""
    before = folded(stream(1), stream(2, 1))
    assert folded(merged(2), before=before) is before
    assert folded(merged(2, received=format_time(START + 2 * DAY + 9000)), before=before) is before


def test_what_was_merged_before_anybody_looked_has_come_and_its_size_is_unknown() -> None:
    (found,) = folded(merged(2)).of(HOME).receptions
    assert found == Reception(at=START + 2 * DAY, kind="incremental", snapshot="s2")


def test_a_replacement_of_a_damaged_stream_is_no_reception() -> None:
    before = folded(stream(1), stream(2, 1))
    assert folded(stream(2, 1, at=START + 2 * DAY + 1), before=before) is before


def test_what_comes_after_the_newest_was_removed_by_hand_is_new() -> None:
    """It gets the number of the removed one."""
    before = folded(stream(1), stream(2, 1))
    assert snapshots(folded(stream(3, 1, sequence=3), before=before)) == ["s1", "s2", "s3"]


def test_what_is_brought_back_from_the_trash_is_not_new() -> None:
    before = folded(stream(1), stream(2, 1))
    assert folded(stream(1), before=before) is before


def test_streams_of_a_version_without_numbers_are_remembered() -> None:
    before = folded(stream(1, sequence=None), stream(2, 1, sequence=None))
    assert snapshots(before) == ["s1", "s2"]
    assert folded(stream(1, sequence=None), before=before) is before


def test_a_report_counts_once() -> None:
    at = format_time(START + 5 * DAY)
    first = folded(stream(1), unchanged=at)
    assert first.of(HOME).receptions[-1] == Reception(at=START + 5 * DAY, kind="unchanged")
    assert folded(before=first, unchanged=at) is first
    later = folded(before=first, unchanged=format_time(START + 6 * DAY))
    assert [each.kind for each in later.of(HOME).receptions] == ["full", "unchanged", "unchanged"]


def test_a_clock_that_was_ahead_hides_nothing_that_comes_later() -> None:
    """The newest receptions stay, in the order in which they came; the night is that of the moment of the look."""
    history = folded(stream(1, at=START), now=START)
    ahead = [stream(number, at=START + 400 * DAY + number) for number in range(2, 80)]
    history = folded(*ahead, before=history, now=START + DAY)
    back = [stream(number, at=START + number * 60) for number in range(80, 90)]
    history = folded(*back, before=history, now=START + 2 * DAY)
    assert snapshots(history) == [f"s{number}" for number in range(90 - RECEPTIONS_MAX, 90)]
    assert max(each.day for each in history.of(HOME).nights) == local_day(START + DAY)


def test_a_time_that_is_none_is_left_out() -> None:
    assert folded(stream(1, received="soon")).of(HOME) == History(since=NOW)


@given(st.lists(st.integers(1, 600), unique=True, min_size=1), st.data())
def test_folding_in_any_pieces_is_the_same(numbers: list[int], data: st.DataObject) -> None:
    streams = [stream(number) for number in sorted(numbers)]
    whole = folded(*streams)
    history = EMPTY
    while streams:
        count = data.draw(st.integers(1, len(streams)))
        history = folded(*streams[:count], before=history)
        streams = streams[count:]
    assert history == whole
    found = whole.of(HOME)
    assert len(found.receptions) == min(len(numbers), RECEPTIONS_MAX)
    assert len(found.nights) == min(len(numbers), NIGHTS_MAX)
    assert SenderHistory.from_bytes(whole.to_bytes()) == whole


# --- the document


def test_the_document_is_read_again(store: LocalStore) -> None:
    Histories(store.documents, keeps=True).fold("alpha", [stream(1)], {}, NOW)
    assert snapshots(Histories(store.documents, keeps=True).read("alpha")) == ["s1"]


def test_a_command_writes_nothing(store: LocalStore) -> None:
    histories = Histories(store.documents, keeps=False)
    histories.fold("alpha", [stream(1)], {}, NOW)
    histories.write()
    assert snapshots(histories.read("alpha")) == ["s1"]
    assert store.documents.get("history.alpha.zst") is None


def test_nothing_is_written_where_nothing_has_come(store: LocalStore) -> None:
    now = 0.0
    histories = Histories(store.documents, keeps=True, clock=lambda: now)
    histories.fold("alpha", [stream(1)], {}, NOW)
    path = store.state / "history.alpha.zst"
    first = path.stat().st_ino
    now = 60.0
    histories.fold("alpha", [stream(1)], {}, NOW)
    histories.write()
    assert path.stat().st_ino == first
    histories.fold("alpha", [stream(2, 1)], {}, NOW)
    assert path.stat().st_ino == first  # soon, not at once
    histories.write()
    assert snapshots(Histories(store.documents, keeps=True).read("alpha")) == ["s1", "s2"]


@pytest.mark.parametrize("place", [0, 5, 30, -1])
def test_a_document_that_is_spoilt_is_made_anew(
    store: LocalStore, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    Histories(store.documents, keeps=True).fold("alpha", [stream(1)], {}, NOW)
    path = store.state / "history.alpha.zst"
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)
    histories = Histories(store.documents, keeps=True)
    assert histories.read("alpha") == EMPTY
    assert "history.alpha.zst: cannot be read, and is made anew" in caplog.text
    histories.fold("alpha", [stream(1)], {}, NOW)
    assert snapshots(Histories(store.documents, keeps=True).read("alpha")) == ["s1"]


def test_unknown_keys_are_ignored() -> None:
    data = folded(stream(1)).to_bytes()
    head = data[8 : 8 + int.from_bytes(data[4:8], "little")]
    new = head.replace(b'{"format":1', b'{"later":[],"format":1').replace(b'{"dataset"', b'{"later":1,"dataset"')
    assert new.count(b"later") == 2
    found = SenderHistory.from_bytes(data[:4] + len(new).to_bytes(4, "little") + new + data[8 + len(head) :])
    assert snapshots(found) == ["s1"]


def test_a_year_of_a_thousand_datasets_takes_a_few_megabytes() -> None:
    seeded = random.Random(13)
    nights = tuple(
        Night(
            day=740_000 + day, received=1, raw_bytes=seeded.randrange(1 << 34), stored_bytes=seeded.randrange(1 << 33)
        )
        for day in range(NIGHTS_MAX)
    )
    receptions = tuple(
        Reception(
            at=START + number * DAY + seeded.randrange(3600),
            kind="incremental",
            snapshot=f"fullsend-{number:08}",
            raw_bytes=seeded.randrange(1 << 34),
            stored_bytes=seeded.randrange(1 << 33),
        )
        for number in range(RECEPTIONS_MAX)
    )
    one = PackedHistory.of(HOME, History(receptions=receptions, nights=nights), newest=START, unchanged="")
    assert 1000 * len(one.packed) < 7 << 20
    assert tuple(one.unpack().nights) == nights
    assert tuple(one.unpack().receptions) == receptions
