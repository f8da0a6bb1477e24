from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.receiver.helpers import SENDER, manifest_path, plant

from fullsend_protocol.shared.units import format_time, parse_time
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance import daily_prune, prune
from fullsend_receiver.maintenance.clock import Reading, accept
from fullsend_receiver.maintenance.daily_prune import DailyPrune, is_due
from fullsend_receiver.maintenance.plans import PruneRules
from fullsend_receiver.maintenance.prune_records import read_try, troubles
from fullsend_receiver.maintenance.trash import trash_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from pathlib import Path

    from fullsend_receiver.catalogue.service import Catalogues
    from fullsend_receiver.store.local import LocalStore

DAY: Final = 86400.0
HOUR: Final = 3600.0
AT: Final = time(3, 30)
START: Final = parse_time("2026-11-27T12:00:00Z") or 0.0
RULES: Final = PruneRules(lambda _sender, _dataset: Policy(daily=3))


class Hands:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.wall = START
        self.boottime = 1000.0
        self.boot_id = "one"
        self.synchronised: bool | None = None

    def read(self) -> Reading:
        return Reading(self.wall, self.boottime, self.boot_id, self.synchronised)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.boottime += seconds


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    """A clock, by which the daemon looks at each hour; local time is UTC."""
    hands = Hands()
    real = daily_prune.is_due

    def due(*arguments: Any, **named: Any) -> bool:
        return real(*arguments, **named, local=utc)

    monkeypatch.setattr(daily_prune, "is_due", due)
    return hands


@pytest.fixture
def thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as thread:
        yield thread


def utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def nights(store: LocalStore, count: int = 6) -> None:
    for age in range(count - 1, -1, -1):
        when = format_time(START - age * DAY - 60)
        plant(store, f"n{age}", 1 + age, received=when, sequence=1000 - age)


def count(store: LocalStore) -> int:
    return len(read_catalogue(store).streams)


def live(daily: DailyPrune, hands: Hands, hours: float) -> None:
    """Let time pass, and the daemon look each half hour."""
    for _half in range(round(2 * hours)):
        hands.pass_time(HOUR / 2)
        daily.look()


@pytest.mark.parametrize(
    ("now", "before", "again", "due"),
    [
        ("2026-11-27T03:29:00Z", "2026-11-26T03:31:00Z", False, False),
        ("2026-11-27T03:30:00Z", "2026-11-26T03:31:00Z", False, True),
        ("2026-11-27T12:00:00Z", "2026-11-27T03:30:00Z", False, False),
        ("2026-11-27T12:00:00Z", "2026-11-25T12:00:00Z", False, True),  # the machine was off at night
        ("2026-11-27T03:00:00Z", "2026-11-25T12:00:00Z", False, True),
        ("2026-11-27T04:29:00Z", "2026-11-27T03:30:00Z", True, False),
        ("2026-11-27T04:30:00Z", "2026-11-27T03:30:00Z", True, True),
        ("2026-11-27T12:00:00Z", "2027-11-27T12:00:00Z", False, True),  # the clock was set back
    ],
)
def test_when_it_is_time(now: str, before: str, again: bool, due: bool) -> None:
    assert is_due(parse_time(now) or 0, parse_time(before) or 0, AT, again=again, local=utc) is due


def test_daemon_prunes_once_a_day_at_its_time(store: LocalStore, hands: Hands, thread: Executor) -> None:
    nights(store)
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    live(daily, hands, 15)
    assert count(store) == 6
    live(daily, hands, 1)
    assert count(store) == 3
    said = read_try(store.documents)
    assert said is not None
    assert (said.at, said.refused) == ("2026-11-28T03:30:00Z", None)


@pytest.mark.parametrize(("rules", "at"), [(None, AT), (RULES, None)])
def test_without_a_policy_or_a_time_nothing_goes(
    store: LocalStore, hands: Hands, thread: Executor, rules: PruneRules | None, at: time | None
) -> None:
    nights(store)
    live(DailyPrune(store, rules, at, hands, thread), hands, 40)
    assert count(store) == 6
    assert (store.state / "clock.json").exists()


def test_clock_that_jumps_stops_the_prune_until_it_is_accepted(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    nights(store)
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    hands.wall += 30 * DAY
    live(daily, hands, 24)
    assert count(store) == 6
    assert sum("nothing is pruned: the clock says" in each.message for each in caplog.records) <= 2
    said = read_try(store.documents)
    assert said is not None
    assert "has jumped ahead" in (said.refused or "")
    accept(store.documents, hands.read(), START)
    live(daily, hands, 1.5)
    assert count(store) == 3


def test_clock_that_is_years_ahead_prunes_nothing_of_a_store_without_a_note(
    store: LocalStore, hands: Hands, thread: Executor
) -> None:
    """A copy of a store, and a host whose clock is wrong: also not after a push has come by that clock."""
    nights(store)
    hands.wall += 3 * 365 * DAY
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    live(daily, hands, 24)
    assert count(store) == 6
    plant(store, "wrong", 99, received=format_time(hands.wall - 60), sequence=2000)
    live(daily, hands, 48)
    assert count(store) == 7
    said = read_try(store.documents)
    assert said is not None
    assert "has jumped ahead" in (said.refused or "")
    accept(store.documents, hands.read(), hands.wall)
    live(daily, hands, 24)
    assert count(store) == 3


def test_a_stream_that_comes_while_the_store_is_looked_at_stops_no_prune(
    store: LocalStore, hands: Hands, thread: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights(store)

    def slowly(_catalogues: Catalogues) -> float:
        hands.pass_time(60)
        return hands.wall - 30

    monkeypatch.setattr(daily_prune, "newest_reception", slowly)
    live(DailyPrune(store, RULES, AT, hands, thread), hands, 16)
    assert count(store) == 3


def test_prune_waits_for_a_time_server_and_then_begins_by_itself(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nights(store)
    hands.synchronised = False
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    live(daily, hands, 15)
    assert "waits" not in caplog.text  # it is not time for it yet
    live(daily, hands, 3)
    assert count(store) == 6
    (line,) = (each.message for each in caplog.records if "the daily prune waits" in each.message)
    assert "no time server has set the clock since this host's start, and it says 2026-11-28T03:30:00Z" in line
    said = read_try(store.documents)
    assert said is not None
    assert said.refused is None  # nothing is wrong yet
    hands.synchronised = True
    hands.pass_time(60)
    daily.look()
    assert count(store) == 3
    assert "waits no longer" in caplog.text


def test_prune_of_a_host_without_a_time_server_begins_some_day(
    store: LocalStore, hands: Hands, thread: Executor
) -> None:
    nights(store)
    hands.synchronised = False
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    live(daily, hands, 23)
    assert count(store) == 6
    live(daily, hands, 1)
    assert count(store) == 3


def test_wrong_clock_before_a_time_server_has_set_it_is_no_error_yet(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A host without a battery for its clock has the time of its last shutdown, at each start."""
    nights(store)
    DailyPrune(store, RULES, AT, hands, thread).look()
    hands.boot_id, hands.boottime, hands.synchronised = "two", 10.0, False
    hands.wall -= DAY
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    assert [each.levelname for each in caplog.records] == ["WARNING"]  # it waits
    hands.wall += 3 * DAY
    hands.synchronised = True
    daily.look()
    assert count(store) == 3
    assert "ERROR" not in {each.levelname for each in caplog.records}


async def test_push_that_needs_room_does_not_wait_for_a_time_server(
    store: LocalStore, hands: Hands, thread: Executor
) -> None:
    nights(store)
    hands.synchronised = False
    daily = DailyPrune(store, RULES, None, hands, thread)
    daily.look()
    assert await daily.make_room(1, None) > 0


def test_what_a_prune_may_not_do_is_in_the_log(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    nights(store, 20)
    live(DailyPrune(store, RULES, AT, hands, thread), hands, 24)
    assert count(store) == 20
    assert "alpha/tank/data: nothing is pruned: the policy gives up " in caplog.text


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("of a kind that nobody has foreseen")])
def test_sender_whose_prune_fails_does_not_keep_others_from_theirs(
    store: LocalStore,
    hands: Hands,
    thread: Executor,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    nights(store)
    for age in range(5, -1, -1):
        when = format_time(START - age * DAY - 60)
        plant(store, f"n{age}", 1 + age, received=when, sequence=1000 - age, sender="beta")
    real = prune.Pruner.prune

    def failing(self: prune.Pruner, sender: str, *arguments: Any, **named: Any) -> Any:
        if sender == SENDER:
            raise error
        return real(self, sender, *arguments, **named)

    monkeypatch.setattr(prune.Pruner, "prune", failing)
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    hands.pass_time(16 * HOUR)
    assert daily.look()  # so the merges of the others begin
    assert count(store) == 9
    said = read_try(store.documents)
    assert said is not None
    assert str(error) in (said.refused or "")
    assert str(error) in (said.why(SENDER) or "")
    assert said.why("beta") is None


def test_a_trash_that_cannot_be_deleted_keeps_nothing_else_from_going(
    store: LocalStore, hands: Hands, thread: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a folder with a bad sector, or with a file of root's. Otherwise the disk would fill."""
    nights(store)
    names = [trash_name(START - 2 * DAY), trash_name(START - DAY)]
    for number, name in enumerate(names):
        file = plant(store, f"t{number}", 100 + number)
        store.remove(lambda: [file], trash=name)  # noqa: B023 - called at once
    real = shutil.rmtree

    def rmtree(path: Path) -> None:
        if path.name == names[0]:
            raise OSError(5, "Input/output error", str(path))
        real(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    live(DailyPrune(store, RULES, AT, hands, thread), hands, 17)
    assert count(store) == 3
    assert [each.folder for each in store.trashed()] == names[:1]
    (said,) = troubles(store, None, now=hands.wall, since=hands.wall)
    assert "the trash cannot be deleted: " in said
    assert names[0] in said


def test_prune_that_fails_as_nobody_has_foreseen_is_a_problem_at_once(
    store: LocalStore, hands: Hands, thread: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights(store)

    def fails(*_arguments: object) -> None:
        raise ValueError("of a kind that nobody has foreseen")

    monkeypatch.setattr(daily_prune, "newest_reception", fails)
    live(DailyPrune(store, RULES, AT, hands, thread), hands, 17)
    (said,) = troubles(store, None, now=hands.wall, since=hands.wall)
    assert "it failed: ValueError: of a kind that nobody has foreseen" in said


def test_pins_that_cannot_be_read_are_no_reason_to_end_the_daemon(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    nights(store)
    (store.state / "pins.json").write_text("{", encoding="ascii")
    live(DailyPrune(store, RULES, AT, hands, thread), hands, 17)
    assert count(store) == 6
    assert "so nothing is deleted" in caplog.text


def test_disk_that_fails_is_no_reason_to_end_the_daemon(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("fullsend_receiver.store.documents.LocalDocuments.put", fail)
    DailyPrune(store, RULES, AT, hands, thread).look()
    assert "the clock cannot be noted: " in caplog.text
    assert "the daily prune has failed: OSError" in caplog.text


def test_prune_that_fails_is_not_begun_again_at_each_look(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that is read-only its failure cannot be recorded either."""
    nights(store)
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    hands.pass_time(16 * HOUR)
    began = 0

    def begin(*_arguments: Any, **_named: Any) -> Any:
        nonlocal began
        began += 1
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("fullsend_receiver.store.documents.LocalDocuments.put", begin)
        patch.setattr(type(store), "remove", begin)
        for _minute in range(10):
            daily.look()
            hands.pass_time(60)
    assert caplog.text.count("the daily prune has failed") == 1
    live(daily, hands, 1)
    assert count(store) == 3


async def test_daemon_that_stops_ends_the_prune_with_its_batch(
    store: LocalStore, hands: Hands, thread: Executor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prune, "_BATCH", 1)
    monkeypatch.setattr(prune, "_BATCHES", 1000)
    nights(store)
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    hands.pass_time(16 * HOUR)
    removing, go = threading.Event(), threading.Event()
    real = type(store).remove

    def remove(self: LocalStore, *arguments: Any, **named: Any) -> Any:
        removing.set()
        go.wait(50)
        return real(self, *arguments, **named)

    monkeypatch.setattr(type(store), "remove", remove)
    caplog.set_level(logging.INFO)
    task = asyncio.create_task(daily.run())
    assert await asyncio.to_thread(removing.wait, 50)
    daily.abandon()
    task.cancel()
    go.set()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert count(store) == 5
    assert "ends, since the daemon stops" in caplog.text
    assert not list(manifest_path(store, next(iter(store.objects())).file).parent.glob("*.tmp"))


def test_other_rules_and_another_time_count_from_now_on(store: LocalStore, hands: Hands, thread: Executor) -> None:
    nights(store)
    daily = DailyPrune(store, None, AT, hands, thread)
    daily.look()
    daily.change(RULES, time(14, 0))
    live(daily, hands, 1.5)
    assert count(store) == 6
    live(daily, hands, 1)
    assert count(store) == 3


def test_prune_by_rules_that_are_none_any_more_ends_with_its_batch(
    store: LocalStore, hands: Hands, thread: Executor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody sees that too much goes, and mends receiver.toml."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(prune, "_BATCH", 1)
    monkeypatch.setattr(prune, "_BATCHES", 1000)
    nights(store)
    daily = DailyPrune(store, RULES, AT, hands, thread)
    daily.look()
    hands.pass_time(16 * HOUR)
    real = type(store).remove

    def remove(self: LocalStore, *arguments: Any, **named: Any) -> Any:
        gone = real(self, *arguments, **named)
        daily.change(PruneRules(lambda _sender, _dataset: Policy(daily=5)), AT)
        return gone

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "remove", remove)
        daily.look()
    assert count(store) == 5
    assert "the daily prune ends, since receiver.toml has changed" in caplog.text
    daily.look()
    assert count(store) == 5
    said = read_try(store.documents)
    assert said is not None
    assert said.at == "2026-11-28T04:00:00Z"  # it has begun again, by the new rules


async def test_push_that_needs_room_has_old_streams_dropped_early(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nights(store)
    plant(store, "other", 99, sender="beta", received=format_time(START - 60))
    sizes = {each.summary.snapshot: each.summary.stored_bytes for each in read_catalogue(store).streams}
    daily = DailyPrune(store, RULES, None, hands, thread)
    daily.look()
    assert await daily.make_room(1, "beta") == 0  # nothing of it may go
    hands.pass_time(HOUR)
    freed = await daily.make_room(1, None)
    assert freed == sizes["n3"] + sizes["n4"] + sizes["n5"]  # nothing that a rule keeps
    assert count(store) == 4
    assert "pruned early" in caplog.text
    assert await daily.make_room(1 << 40, SENDER) == 0
    assert count(store) == 4


async def test_early_prune_that_frees_nothing_is_not_repeated_at_once(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nights(store, 3)
    daily = DailyPrune(store, RULES, None, hands, thread)
    daily.look()
    assert await daily.make_room(1, None) == 0
    nights(store)
    assert await daily.make_room(1, None) == 0
    assert caplog.text.count("pruned early") == 1
    hands.pass_time(HOUR)
    assert await daily.make_room(1, None) > 0


async def test_sender_of_whom_nothing_may_go_does_not_keep_others_from_their_room(
    store: LocalStore, hands: Hands, thread: Executor
) -> None:
    nights(store)
    plant(store, "other", 99, sender="beta", received=format_time(START - 60))
    daily = DailyPrune(store, RULES, None, hands, thread)
    daily.look()
    assert await daily.make_room(1, "beta") == 0  # it tries again and again
    assert await daily.make_room(1, SENDER) > 0


async def test_where_nothing_of_anybody_may_go_no_sender_is_tried(
    store: LocalStore, hands: Hands, thread: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nights(store, 3)
    daily = DailyPrune(store, RULES, None, hands, thread)
    daily.look()
    assert await daily.make_room(1, None) == 0
    assert await daily.make_room(1, SENDER) == 0
    assert caplog.text.count("pruned early") == 1


@pytest.mark.parametrize("rules", [None, dataclasses.replace(RULES, undelete_within=DAY)])
async def test_without_a_policy_or_with_a_trash_no_early_prune_frees_anything(
    store: LocalStore, hands: Hands, thread: Executor, rules: PruneRules | None
) -> None:
    nights(store)
    daily = DailyPrune(store, rules, None, hands, thread)
    daily.look()
    assert await daily.make_room(1, None) == 0
    assert count(store) == 6


async def test_clock_that_jumped_and_a_disk_that_fails_make_no_room(
    store: LocalStore, hands: Hands, thread: Executor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nights(store)
    daily = DailyPrune(store, RULES, None, hands, thread)
    daily.look()
    hands.wall += 30 * DAY
    assert await daily.make_room(1, None) == 0
    assert "nothing is pruned" in caplog.text
    hands.wall -= 30 * DAY

    def fails(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(daily_prune, "newest_reception", fails)
    assert await daily.make_room(1, None) == 0
    assert "the early prune has failed" in caplog.text
    assert count(store) == 6


async def test_early_prune_ends_with_the_daemon(store: LocalStore, hands: Hands, thread: Executor) -> None:
    nights(store)
    daily = DailyPrune(store, RULES, None, hands, thread)
    daily.look()
    daily.abandon()
    assert await daily.make_room(1, None) == 0
    assert count(store) == 6


async def test_push_that_needs_room_empties_the_trash_of_merges_first(
    store: LocalStore, hands: Hands, thread: Executor
) -> None:
    nights(store)
    (first, *_rest) = (each.file for each in store.objects())
    size = store.size(first)
    store.remove(lambda: [first], trash=trash_name(START, merged=True))
    other = plant(store, "other", 99)
    store.remove(lambda: [other], trash=trash_name(START))
    daily = DailyPrune(store, RULES, None, hands, thread)
    assert await daily.make_room(1, None, early=False) == size
    assert [each.file for each in store.trashed()] == [other]
    assert await daily.make_room(1, None, early=False) == 0
    assert count(store) == 5
    assert await daily.make_room(1, None) > 0


async def test_what_follows_a_daily_prune_is_begun_after_it(store: LocalStore, hands: Hands, thread: Executor) -> None:
    begun = asyncio.Event()
    nights(store)
    daily = DailyPrune(store, RULES, AT, hands, thread, pruned=begun.set)
    daily.look()
    assert not begun.is_set()
    hands.pass_time(16 * HOUR)
    task = asyncio.create_task(daily.run(0.001))
    await begun.wait()
    assert count(store) == 3
    task.cancel()
    await asyncio.wait([task])
