"""Room on the store's disk: the rules by themselves, then a daemon on a disk that is small."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import streams
from tests.receiver.arrival.test_receive import pieces_of
from tests.receiver.faulty import FaultyDisk
from tests.receiver.peer import Peer, chunks, control, cut_records, finish, offer
from tests.receiver.running import Receiver, wait_until

from fullsend_protocol.shared.settings import SizeOrShare
from fullsend_receiver.arrival.bounds import Arrival, NoRoom, Overrun, Ratio, RoomRequest
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.store.api import DiskSpace

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

MIB: Final = 1 << 20
HALF: Final = Ratio(5, 10, "of its last streams")


class Disk:
    """Says how much is free. `files`: what is written by others."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self.files = 0

    @property
    def free(self) -> int:
        return self.size - self.used - self.files

    async def look(self) -> DiskSpace:
        return DiskSpace(self.free, self.size)


@pytest.fixture
def disk() -> Disk:
    return Disk(1000)


@pytest.fixture
def room(disk: Disk) -> Room:
    return Room(SizeOrShare(100), disk.look)


async def write(room: Room, disk: Disk, arrival: Arrival, size: int, raw: int | None = None) -> None:
    await room.claim(arrival, size, raw or size)
    disk.used += size
    room.wrote(arrival, size, raw or size, disk.free)


def put_away(room: Room, disk: Disk, arrival: Arrival, *, keep: bool) -> None:
    """As Receiving ends a stream."""
    if not keep:
        disk.used -= arrival.stored
    room.leave(arrival)


def wanted(raw: int | None, ratio: Ratio | None = None, **more: Any) -> RoomRequest:
    return RoomRequest("tank/data@now", raw, ratio, **more)


# --- who may begin ----------------------------------------------------------------------------------------------


async def test_what_fits_is_let_in(room: Room) -> None:
    for raw, ratio in ((None, None), (900, None), (1800, HALF), (9000, None), (0, None)):
        room.leave(await room.admit(wanted(raw, ratio)))


@pytest.mark.parametrize(
    ("asked", "about"),
    [
        (wanted(1804, HALF), "about 1.8 KiB raw, 902 B at the ratio of its last streams (2.0)"),
        (wanted(9020), "about 8.8 KiB raw, and its compression ratio is unknown, 902 B at best"),
    ],
)
async def test_what_does_not_fit_compressed_is_refused_with_what_was_compared(
    room: Room, asked: RoomRequest, about: str
) -> None:
    with pytest.raises(NoRoom) as caught:
        await room.admit(asked)
    assert str(caught.value) == (
        f"tank/data@now: no room: {about}; the store has 1000 B free, of which 100 B are to stay free (min-free):"
        " free space on the receiver, or push it with --no-size-check"
    )
    room.leave(await room.admit(wanted(None)))  # --no-size-check


async def test_two_that_fit_alone_but_not_together_are_not_both_let_in(room: Room, disk: Disk) -> None:
    first = await room.admit(wanted(500))
    with pytest.raises(NoRoom) as caught:
        await room.admit(wanted(500))
    assert str(caught.value) == (
        "tank/data@now: no room: about 500 B raw, and its compression ratio is unknown; the store has 1000 B free, of"
        " which 100 B are to stay free (min-free), and 507 B are reserved for arriving streams: push it again"
        " when they have arrived"
    )
    await write(room, disk, first, 400)
    with pytest.raises(NoRoom):  # what has arrived is used, and no more promised
        await room.admit(wanted(500))
    with pytest.raises(NoRoom, match=r"at the ratio of its last streams .* push it again when they have arrived"):
        await room.admit(wanted(800, HALF))
    room.leave(await room.admit(wanted(390)))
    put_away(room, disk, first, keep=False)
    room.leave(await room.admit(wanted(500)))


async def test_a_stream_that_compresses_better_than_expected_gives_back_what_it_was_promised() -> None:
    disk = Disk(1000 * MIB)
    room = Room(SizeOrShare(0), disk.look)
    first = await room.admit(wanted(900 * MIB))
    await write(room, disk, first, 3 * MIB, 30 * MIB)
    with pytest.raises(NoRoom):
        await room.admit(wanted(500 * MIB, HALF))
    await write(room, disk, first, MIB, 10 * MIB)
    assert first.reserved == 86 * MIB
    room.leave(await room.admit(wanted(900 * MIB)))


async def test_where_less_is_free_than_is_to_stay_free_nothing_is_let_in(room: Room, disk: Disk) -> None:
    disk.files = 901
    for asked in (wanted(None), wanted(0), wanted(1, HALF)):
        with pytest.raises(NoRoom, match=r"no room: .*the store has 99 B free, of which 100 B are to stay free"):
            await room.admit(asked)


async def test_who_had_too_little_room_the_last_time_must_find_more(room: Room, disk: Disk) -> None:
    with pytest.raises(NoRoom) as caught:
        await room.admit(wanted(None, failed_at=801))
    assert str(caught.value) == (
        "tank/data@now: no room: more than 801 B of it arrived the last time, and was not all; the store has 1000 B"
        " free, of which 100 B are to stay free (min-free): free space on the receiver, or say how large it is (--size"
        " with --stdin; else without --no-size-check)"
    )
    room.leave(await room.admit(wanted(None, failed_at=800)))
    room.leave(await room.admit(wanted(None, failed_at=880, before=100)))
    room.leave(await room.admit(wanted(900, failed_at=5000)))  # it says how large it is now


# --- which stream must end --------------------------------------------------------------------------------------


async def test_a_stream_of_unknown_size_ends_before_what_is_to_stay_free(room: Room, disk: Disk) -> None:
    arrival = await room.admit(wanted(None, before=5))
    await write(room, disk, arrival, 900)
    with pytest.raises(Overrun) as caught:
        await room.claim(arrival, 1, 3)
    assert str(caught.value) == (
        "tank/data@now: ended, since the store has no more room for it: the store has 100 B free, of which 100 B are to"
        " stay free (min-free); it had no reservation; 905 B of it are deleted: free space on the receiver"
    )
    assert arrival.refused == (1, 3)


async def test_nobody_may_use_what_is_promised_to_another(room: Room, disk: Disk) -> None:
    reservation = await room.admit(wanted(500))
    other = await room.admit(wanted(None))
    await write(room, disk, reservation, 100)
    await write(room, disk, other, 300)
    with pytest.raises(Overrun, match="407 B are reserved for arriving streams"):
        await room.claim(other, 100, 100)
    put_away(room, disk, other, keep=False)
    await write(room, disk, reservation, 400)


async def test_who_stores_more_than_was_promised_may_use_what_nobody_was_promised(room: Room, disk: Disk) -> None:
    first = await room.admit(wanted(100, HALF))
    second = await room.admit(wanted(500))
    await write(room, disk, first, 390)
    assert not first.is_within()
    with pytest.raises(Overrun, match=r"it had a reservation of 50 B; 390 B of it are deleted"):
        await room.claim(first, 10, 10)
    put_away(room, disk, first, keep=False)
    await write(room, disk, second, 500)


async def test_of_several_the_one_ends_that_holds_the_most_beyond_its_promise(room: Room, disk: Disk) -> None:
    large, small = await room.admit(wanted(None)), await room.admit(wanted(None))
    await write(room, disk, large, 800)
    await write(room, disk, small, 50)
    large.ended.add_done_callback(lambda _ended: put_away(room, disk, large, keep=False))
    await write(room, disk, small, 100)
    with pytest.raises(Overrun, match="800 B of it are deleted"):
        large.ended.result()
    await write(room, disk, small, 700)


async def test_where_something_else_fills_the_disk_those_beyond_their_promise_end_first(room: Room, disk: Disk) -> None:
    reservation, other = await room.admit(wanted(500)), await room.admit(wanted(None))
    await write(room, disk, reservation, 100)
    await write(room, disk, other, 300)
    disk.files = 480
    await write(room, disk, reservation, 10)  # it is seen now
    other.ended.add_done_callback(lambda _ended: put_away(room, disk, other, keep=False))
    await write(room, disk, reservation, 20)
    assert isinstance(other.ended.exception(), Overrun)
    with pytest.raises(NoRoom) as caught:
        await write(room, disk, reservation, 300)
    assert not isinstance(caught.value, Overrun)  # it has done nothing that it may not
    assert str(caught.value) == (
        "tank/data@now: ended, since something else has filled the store's disk: the store has 390 B free, of which"
        " 100 B are to stay free (min-free): free space on the receiver"
    )


async def test_what_is_claimed_counts_before_it_is_written(room: Room, disk: Disk) -> None:
    one, other = await room.admit(wanted(None)), await room.admit(wanted(None))
    await room.claim(one, 500, 500)
    with pytest.raises(NoRoom):
        await room.admit(wanted(401, Ratio(1, 1, "")))
    one.ended.add_done_callback(lambda _ended: put_away(room, disk, one, keep=False))
    await room.claim(other, 401, 401)
    assert one.ended.done()
    put_away(room, disk, other, keep=False)


async def test_who_waits_for_another_to_end_may_have_to_end_itself(room: Room, disk: Disk) -> None:
    """Nothing is left waiting for something that waits."""
    first, second = await room.admit(wanted(None)), await room.admit(wanted(None))
    reservation = await room.admit(wanted(300))
    await write(room, disk, first, 300)
    await write(room, disk, second, 290)
    disk.files = 300
    first.ended.add_done_callback(lambda _ended: second.ended.set_exception(Overrun("x", "y")))
    with pytest.raises(Overrun, match="x"):
        await room.claim(second, 20, 20)
    for each in (first, second):
        put_away(room, disk, each, keep=False)
    await write(room, disk, reservation, 200)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_takes_no_more_is_the_same(room: Room, disk: Disk, number: int) -> None:
    error = OSError(number, os.strerror(number))
    reservation, other = await room.admit(wanted(500)), await room.admit(wanted(None))
    await write(room, disk, reservation, 100)
    await write(room, disk, other, 50)
    kept = room.used_up(reservation, error)
    assert not isinstance(kept, Overrun)
    assert str(kept) == (f"tank/data@now: the store is full ({error.strerror}): free space on the receiver")
    assert isinstance(other.ended.exception(), Overrun)  # that one goes first, and makes room again
    gone = room.used_up(other, error)
    assert isinstance(gone, Overrun)
    assert str(gone).endswith("it had no reservation; 50 B of it are deleted: free space on the receiver")


# --- a share of the disk ----------------------------------------------------------------------------------------


async def test_a_share_of_the_disk_stays_free(disk: Disk) -> None:
    room = Room(SizeOrShare(share=0.2), disk.look)
    with pytest.raises(NoRoom, match=r"has 1000 B free, of which 200 B are to stay free \(min-free\)"):
        await room.admit(wanted(801, Ratio(1, 1, "")))
    room.leave(await room.admit(wanted(800, Ratio(1, 1, ""))))
    disk.size = 2000  # it was made larger
    room.leave(await room.admit(wanted(1600, Ratio(1, 1, ""))))


async def test_another_share_stays_free_from_now_on(room: Room, disk: Disk) -> None:
    arriving = await room.admit(wanted(500, Ratio(1, 1, "")))
    room.keep_free(SizeOrShare(450))
    with pytest.raises(NoRoom, match=r"450 B are to stay free"):
        await room.admit(wanted(100, Ratio(1, 1, "")))
    await write(room, disk, arriving, 500)
    room.keep_free(SizeOrShare(501))
    with pytest.raises(NoRoom, match=r"something else has filled the store's disk"):
        await room.claim(arriving, 1, 1)
    room.leave(arriving)
    room.keep_free(SizeOrShare(0))
    room.leave(await room.admit(wanted(480, Ratio(1, 1, ""))))


# --- quotas -----------------------------------------------------------------------------------------------------


class Stored:
    """What is stored of each sender, as the catalogue says."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self.looks = 0

    async def look(self, sender: str) -> tuple[int, int]:
        self.looks += 1
        return self.looks, self.bytes.get(sender, 0)


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def shared(disk: Disk, stored: Stored) -> Room:
    """A disk on which alpha may have 500 bytes."""
    return Room(SizeOrShare(100), disk.look, quota_of={"alpha": 500}.get, stored_of=stored.look)


def of(sender: str, raw: int | None, **more: Any) -> RoomRequest:
    return wanted(raw, None if raw is None else Ratio(1, 1, "of its last streams"), sender=sender, **more)


async def test_a_sender_with_a_quota_is_refused_beyond_it_and_others_are_not(shared: Room, stored: Stored) -> None:
    stored.bytes["alpha"] = 300
    with pytest.raises(NoRoom) as caught:
        await shared.admit(of("alpha", 201))
    assert str(caught.value) == (
        "tank/data@now: no room: about 201 B raw, 201 B at the ratio of its last streams (1.0); alpha has used 300 B of"
        " its quota of 500 B (300 B stored): on the receiver, raise the quota of alpha, or remove old streams of it, or"
        " push it with --no-size-check"
    )
    shared.leave(await shared.admit(of("alpha", 200)))
    shared.leave(await shared.admit(of("beta", 900)))


async def test_all_that_a_sender_has_counts(shared: Room, stored: Stored) -> None:
    stored.bytes["alpha"] = 100
    shared.count({"alpha": {"k1": 50, "k2": 30}}, {"alpha": 20, "beta": 1000})
    arriving = await shared.admit(of("alpha", 100, key="k3"))
    with pytest.raises(NoRoom) as caught:
        await shared.admit(of("alpha", 200, key="k4"))
    assert (
        "alpha has used 200 B of its quota of 500 B (100 B stored, 80 B in partial streams, 20 B set aside), and 101 B"
        " are reserved for arriving streams: push it again when they have arrived"
    ) in str(caught.value)
    shared.leave(arriving)
    # A partial that is resumed counts once.
    resumed = await shared.admit(of("alpha", 300, key="k1", before=50))
    shared.leave(resumed)
    with pytest.raises(NoRoom):
        await shared.admit(of("alpha", 301, key="k1", before=50))


async def test_a_quota_holds_while_streams_arrive(shared: Room, disk: Disk, stored: Stored) -> None:
    stored.bytes["alpha"] = 100
    unknown = await shared.admit(of("alpha", None, key="k1", before=50))
    await write(shared, disk, unknown, 350)
    with pytest.raises(Overrun) as caught:
        await shared.claim(unknown, 1, 1)
    assert str(caught.value) == (
        "tank/data@now: ended, since the quota of alpha has no more room for it: alpha has used 500 B of its quota of"
        " 500 B (100 B stored, 400 B in partial streams); it had no reservation; 400 B of it are deleted: on the"
        " receiver, raise the quota of alpha, or remove old streams of it"
    )
    put_away(shared, disk, unknown, keep=False)


async def test_a_stream_of_another_sender_does_not_end_for_a_quota(shared: Room, disk: Disk) -> None:
    other = await shared.admit(of("beta", None))
    await write(shared, disk, other, 300)
    small, large = await shared.admit(of("alpha", None, key="a")), await shared.admit(of("alpha", None, key="b"))
    await write(shared, disk, large, 300)
    await write(shared, disk, small, 100)
    large.ended.add_done_callback(lambda _ended: put_away(shared, disk, large, keep=False))
    await write(shared, disk, small, 150)
    assert isinstance(large.ended.exception(), Overrun)
    assert not other.ended.done()


async def test_within_its_reservation_a_stream_is_kept_if_others_have_used_the_quota(
    shared: Room, disk: Disk, stored: Stored
) -> None:
    arriving = await shared.admit(of("alpha", 400, key="k"))
    await write(shared, disk, arriving, 100)
    stored.bytes["alpha"] = 300  # brought back from the trash
    with pytest.raises(NoRoom):
        await shared.admit(of("alpha", 1, key="other"))
    await write(shared, disk, arriving, 10)
    shared.count({}, {"alpha": 50}, but={"k"})
    with pytest.raises(NoRoom) as caught:
        await write(shared, disk, arriving, 100)
    assert not isinstance(caught.value, Overrun)
    said = "tank/data@now: ended, since other streams of alpha have used its quota: alpha has used 460 B of its quota "
    assert said in str(caught.value)


async def test_what_has_been_stored_counts_once(shared: Room, disk: Disk, stored: Stored) -> None:
    arriving = await shared.admit(of("alpha", 300, key="k"))
    await write(shared, disk, arriving, 300)
    shared.arrived(arriving)
    with pytest.raises(NoRoom):
        await shared.admit(of("alpha", 201))
    arriving.committing = True
    stored.bytes["alpha"] = 300  # from here on it is in both
    second = asyncio.create_task(shared.admit(of("alpha", 200)))
    await asyncio.sleep(0)
    await shared.stored(arriving)
    shared.leave(arriving)
    shared.leave(await second)
    (_disk, quota) = await shared.fills("alpha")
    assert (quota.used, quota.total) == (300, 500)


async def test_a_look_that_began_earlier_does_not_hide_what_was_stored_since(disk: Disk) -> None:
    answers = {"alpha": [(2, 400), (1, 100)]}

    async def look(sender: str) -> tuple[int, int]:
        return answers[sender].pop(0) if answers[sender] else (1, 100)

    room = Room(SizeOrShare(0), disk.look, quota_of={"alpha": 500}.get, stored_of=look)
    room.leave(await room.admit(of("alpha", 100)))
    with pytest.raises(NoRoom, match="has used 400 B"):
        await room.admit(of("alpha", 101))


async def test_what_waits_as_a_partial_is_counted_when_it_is_put_away(shared: Room, disk: Disk) -> None:
    arriving = await shared.admit(of("alpha", 450, key="k"))
    await write(shared, disk, arriving, 400)
    shared.leave(arriving, kept=400)
    with pytest.raises(NoRoom, match=r"has used 400 B of its quota of 500 B \(0 B stored, 400 B in partial streams\)"):
        await shared.admit(of("alpha", 101, key="other"))
    shared.count({"alpha": {"k": 390}}, {})  # found so by the sweep
    shared.leave(await shared.admit(of("alpha", 110, key="other")))
    shared.count({}, {})  # it was too old
    shared.leave(await shared.admit(of("alpha", 500, key="other")))


class Change(NamedTuple):
    """What a stream of a random history does next."""

    sender: str
    raw: int | None
    announced_ratio: int
    writes: list[int]
    outcome: Literal["stored", "kept", "deleted"]


CHANGES = st.lists(
    st.builds(
        Change,
        sender=st.sampled_from(["alpha", "beta"]),
        raw=st.none() | st.integers(0, 400),
        announced_ratio=st.integers(1, 4),
        writes=st.lists(st.integers(1, 80), max_size=6),
        outcome=st.sampled_from(["stored", "kept", "deleted"]),
    ),
    max_size=12,
)


@given(changes=CHANGES, quota=st.integers(0, 600), order=st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_whatever_is_pushed_no_bound_is_exceeded(changes: list[Change], quota: int, order: random.Random) -> None:
    """Streams arrive at the same time, in any order of their chunks; nothing else writes to the disk."""

    async def history() -> None:
        disk, stored = Disk(1000), Stored()
        room = Room(SizeOrShare(100), disk.look, quota_of={"alpha": quota}.get, stored_of=stored.look)
        kept: dict[str, int] = {}

        def used() -> int:
            arriving = sum(each.held for each in room._arrivals if each.wanted.sender == "alpha")
            return stored.bytes.get("alpha", 0) + sum(kept.values()) + arriving

        async def push(number: int, change: Change) -> None:
            key = f"{change.sender}{number}"
            request = RoomRequest("x", change.raw, Ratio(1, change.announced_ratio, ""), sender=change.sender, key=key)
            try:
                arrival = await room.admit(request)
            except NoRoom:
                return
            ended = change.outcome
            try:
                for size in change.writes:
                    await asyncio.sleep(0)
                    await room.claim(arrival, size, size)
                    disk.used += size
                    room.wrote(arrival, size, size, disk.free)
                    assert disk.free >= 100
                    assert used() <= quota or change.sender != "alpha"
            except NoRoom as error:
                ended = "deleted" if isinstance(error, Overrun) else "kept"
            if ended == "stored":
                room.arrived(arrival)
                arrival.committing = True
                stored.bytes[change.sender] = stored.bytes.get(change.sender, 0) + arrival.stored
                await room.stored(arrival)
            elif ended == "kept" and change.sender == "alpha":
                kept[key] = arrival.stored
            if ended == "deleted":
                disk.used -= arrival.stored
            room.leave(arrival, arrival.stored if ended == "kept" else 0)

        numbers = list(range(len(changes)))
        order.shuffle(numbers)
        async with asyncio.timeout(20):
            await asyncio.gather(*(push(number, changes[number]) for number in numbers))
        assert used() <= quota or not any(change.sender == "alpha" and change.writes for change in changes)
        assert not room._arrivals

    asyncio.run(history())


# --- room that is made ------------------------------------------------------------------------------------------


class Pruner:
    """Removes so much as it may, and remembers what it was asked for."""

    def __init__(self, disk: Disk, may: int) -> None:
        self.disk = disk
        self.may = may
        self.asked: list[tuple[int, str | None]] = []

    async def make_room(self, wanted: int, sender: str | None) -> int:
        self.asked.append((wanted, sender))
        freed = min(wanted, self.may)
        self.may -= freed
        self.disk.files -= freed
        return freed


async def test_old_streams_make_room_for_a_stream_that_is_offered(disk: Disk) -> None:
    disk.files = 500
    pruner = Pruner(disk, 150)
    room = Room(SizeOrShare(100), disk.look, make_room=pruner.make_room)
    room.leave(await room.admit(wanted(500, Ratio(1, 1, ""))))
    assert pruner.asked == [(100, None)]
    with pytest.raises(NoRoom, match="the store has 650 B free"):  # no more may go
        await room.admit(wanted(600, Ratio(1, 1, "")))
    assert pruner.asked[1:] == [(100, None), (50, None)]


async def test_room_that_was_made_for_one_stream_is_there_for_others_that_were_offered_meanwhile(disk: Disk) -> None:
    """A prune drops all of a sender that may go: more than what the first stream lacks. The next one frees nothing."""
    disk.files = 900
    asked = 0

    async def make_room(_wanted: int, _sender: str | None) -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        freed, disk.files = disk.files, 0
        return freed

    room = Room(SizeOrShare(100), disk.look, make_room=make_room)
    arrivals = await asyncio.gather(*(room.admit(wanted(200, Ratio(1, 1, ""))) for _ in range(3)))
    assert asked == 1
    for each in arrivals:
        room.leave(each)


async def test_old_streams_make_room_before_a_stream_ends(disk: Disk) -> None:
    pruner = Pruner(disk, 150)
    room = Room(SizeOrShare(100), disk.look, make_room=pruner.make_room)
    disk.files = 500
    arriving = await room.admit(wanted(None))
    await write(room, disk, arriving, 400)
    await write(room, disk, arriving, 100)
    assert pruner.asked == [(100, None)]
    with pytest.raises(Overrun):
        await write(room, disk, arriving, 100)
    assert pruner.asked[1:] == [(100, None), (50, None)]


async def test_for_a_quota_only_streams_of_that_sender_make_room(disk: Disk, stored: Stored) -> None:
    stored.bytes["alpha"] = 450

    async def make_room(wanted: int, sender: str | None) -> int:
        assert (wanted, sender) == (50, "alpha")
        stored.bytes["alpha"] -= wanted
        return wanted

    room = Room(SizeOrShare(0), disk.look, quota_of={"alpha": 500}.get, stored_of=stored.look, make_room=make_room)
    room.leave(await room.admit(of("alpha", 100)))


# --- a daemon on a small disk -----------------------------------------------------------------------------------


class Small:
    """A daemon, and its small disk, of which 8 MiB are to stay free."""

    def __init__(self, receiver: Receiver, disk: FaultyDisk) -> None:
        self.receiver = receiver
        self.disk = disk

    def has(self, size: int) -> None:
        """From now on there is room for so many bytes more than are there, and what is to stay free."""
        store = self.receiver.store
        self.disk.set_size(size + 8 * MIB + sum(path.stat().st_size for path in store.rglob("*") if path.is_file()))

    def refused(self, pieces: list[bytes], said: dict[str, Any], sender: str = "alpha") -> str:
        """Offer a stream that is to be refused."""
        with self.receiver.peer(sender) as peer:
            peer.write(control(said))
            return peer.refusal()

    def pushed(self, pieces: list[bytes], said: dict[str, Any], sender: str = "alpha") -> None:
        with self.receiver.peer(sender) as peer:
            peer.give(b"".join(pieces), said, pieces)

    def partials(self) -> list[Path]:
        return self.receiver.partials()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    receiver = Receiver(tmp_path / "receiver")
    receiver.init(min_free=8 * MIB)
    disk = FaultyDisk(tmp_path / "faults")
    receiver.start(program=disk.program, env=disk.env)
    try:
        for name in ("alpha", "beta"):
            receiver.enrol(name)
        yield Small(receiver, disk)
        assert receiver.stop() == 0, receiver.log
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


def write_until_refused(peer: Peer, pieces: list[bytes]) -> str:
    """Send chunks until the daemon ends it. Returns: its last words."""
    with contextlib.suppress(OSError):  # it has closed
        for chunk in chunks(pieces):
            peer.write(chunk.encode())
    return peer.refusal()


def test_a_stream_of_unknown_size_does_not_fill_the_disk_for_all(small: Small) -> None:
    large = pieces_of(6, "tank/large@now")
    other = pieces_of(3, "tank/other@now", seed=1)
    small.has(15 * MIB)
    with small.receiver.peer() as peer:
        peer.push(offer("tank/large"))
        assert write_until_refused(peer, large).startswith(
            "space: tank/large@now: ended, since the store has no more room for it: the store has "
        )
    assert small.partials() == []
    assert list((small.receiver.store / ".partial").iterdir()) == []
    # The next night it is refused before it has filled the disk again; another is not.
    assert small.refused(large, offer("tank/large")).startswith(
        "space: tank/large@now: no room: more than 16.0 MiB of it arrived the last time, and was not all; the store has"
    )
    small.pushed(other, offer("tank/other"), "beta")
    # Where there is room again, or it says how large it is, it is taken.
    small.has(30 * MIB)
    small.pushed(large, offer("tank/large"))
    assert (small.receiver.store / ".state/crossed.alpha.json").read_bytes() == b"[]\n"


def test_of_two_at_once_that_fit_alone_the_second_is_refused_without_a_name(small: Small) -> None:
    first = pieces_of(3, "tank/secret@now")
    second = pieces_of(3, "tank/other@now", seed=1)
    size = sum(map(len, first))
    small.has(20 * MIB)
    with small.receiver.peer() as peer:
        peer.push(offer("tank/secret", size_estimate=size))
        peer.write(chunks(first)[0].encode())
        said = small.refused(second, offer("tank/other", size_estimate=size), "beta")
        assert said.startswith(
            "space: tank/other@now: no room: about 11.9 MiB raw, and its compression ratio is unknown"
        )
        assert said.endswith(" reserved for arriving streams: push it again when they have arrived")
        assert "secret" not in said
        assert "alpha" not in said
        # One of unknown size may come, and ends where it would take what was promised.
        with small.receiver.peer("beta") as greedy:
            greedy.push(offer("tank/other"))
            greedy.write(chunks(second)[0].encode())
            greedy.hear("ack")
            greedy.write(b"".join(chunk.encode() for chunk in chunks(second)[1:]))
            assert greedy.refusal().startswith("space: tank/other@now: ended, since the store has no more room for it")
        assert len(small.partials()) == 1
        for chunk in chunks(first)[1:]:
            peer.write(chunk.encode())
        peer.write(control(finish(b"".join(first))))
        peer.hear_after_acks("committed")


@pytest.mark.slow
def test_where_something_else_fills_the_disk_a_stream_within_its_size_is_kept_and_resumed(small: Small) -> None:
    pieces = pieces_of(4, "tank/large@now")
    said = offer("tank/large", size_estimate=sum(map(len, pieces)))
    small.has(20 * MIB)
    with small.receiver.peer() as peer, small.receiver.peer("beta") as unknown:
        unknown.push(offer("tank/other"))
        unknown.write(chunks(pieces_of(2, "tank/other@now", seed=1))[0].encode())
        unknown.hear("ack")
        peer.push(said)
        sent = chunks(pieces)
        peer.write(sent[0].encode())
        peer.hear("ack")
        small.has(5 * MIB)
        peer.write(sent[1].encode())  # after this one is written, the disk is seen to be full
        peer.hear("ack")
        peer.write(sent[2].encode())
        # What was promised no room goes first, though nothing came of it just now.
        assert unknown.refusal().startswith("space: tank/other@now: ended, since the store has no more room for it")
        peer.hear("ack")
        peer.write(sent[3].encode())
        assert peer.refusal().startswith("space: tank/large@now: ended, since something else has filled the store's")
    (partial,) = small.partials()
    assert partial.stat().st_size > 3 * 4 * MIB
    small.has(20 * MIB)
    with small.receiver.peer() as peer:
        peer.write(control({**said, "resume": "reconnect"}))
        assert peer.hear("accept")["offset"] == sum(map(len, pieces[:3]))


def test_a_size_that_is_raw_does_not_refuse_what_fits_compressed(small: Small) -> None:
    def soft(name: str) -> list[bytes]:
        writes = [streams.write(1, at << 17, bytes(1 << 17)) for at in range(160)]
        return cut_records([streams.begin(name), streams.object_(1), *writes, streams.end()])

    pieces = soft("tank/soft@now")
    size = sum(map(len, pieces))
    small.has(10 * MIB)
    assert size > 20 * MIB
    # Nobody knows yet how it compresses; then the last streams tell.
    small.pushed(pieces, offer("tank/soft", size_estimate=size))
    small.pushed(soft("tank/soft@later"), offer("tank/soft", "later", size_estimate=1000 * MIB))
    said = small.refused(pieces, offer("tank/soft", "then", size_estimate=1 << 50))
    assert " at the ratio of its last streams (" in said
    assert said.endswith("free space on the receiver, or push it with --no-size-check")


def test_a_stream_that_came_too_far_is_not_let_in_again_as_it_was(small: Small) -> None:
    """Also where its size is known, and its last streams say that it fits."""
    small.has(60 * MIB)
    writes = [streams.write(1, at << 17, bytes(1 << 17)) for at in range(40)]
    soft = cut_records([streams.begin("tank/data@soft"), streams.object_(1), *writes, streams.end()])
    small.pushed(soft, offer(snapshot="soft"))
    hard = pieces_of(4)
    said = offer(size_estimate=sum(map(len, hard)))
    small.has(9 * MIB)
    with small.receiver.peer() as peer:
        peer.push(said)
        assert write_until_refused(peer, hard).startswith("space: tank/data@now: ended, since the store has no more")
    assert small.partials() == []
    heard = small.refused(hard, said)
    assert " at the ratio of the last try, which had too little room (1.0); " in heard
    small.pushed(pieces_of(1, "tank/data@little", seed=2), offer(snapshot="little", size_estimate=5 * MIB))


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unknown"])
def test_a_disk_that_takes_no_more_keeps_only_what_was_promised(small: Small, announced: bool) -> None:
    pieces = pieces_of(3)
    small.has(100 * MIB)
    with small.receiver.peer() as peer:
        peer.push(offer(size_estimate=sum(map(len, pieces)) if announced else None))
        peer.write(chunks(pieces)[0].encode())
        peer.hear("ack")
        with small.disk.failing("write", ".data", errno.ENOSPC):
            peer.write(chunks(pieces)[1].encode())
            assert peer.refusal().startswith("space: tank/data@now: the store is full (No space left on device); ")
    wait_until(lambda: len(small.partials()) == announced, "the partial to be put away")


@pytest.mark.slow
def test_a_quota_is_held_by_the_daemon_and_shown(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "receiver")
    receiver.init(quota="9M", warn_at="40%")
    with receiver.config.open("a", encoding="utf-8") as config:
        config.write('[senders.beta]\nquota = "none"\n')
    receiver.start()
    try:
        for name in ("alpha", "beta"):
            receiver.enrol(name)
        first, more = pieces_of(1, "tank/first@now"), pieces_of(2, "tank/more@now", seed=1)
        with receiver.peer() as peer:
            peer.give(b"".join(first), offer("tank/first"), first)
            peer.write(control(offer("tank/first", "later", size_estimate=sum(map(len, more)))))
            said = peer.refusal()
        assert said.startswith(
            "space: tank/first@later: no room: about 7.9 MiB raw, 7.9 MiB at the ratio of its last streams (1.0); alpha"
            " has used 3.9 MiB of its quota of 9.0 MiB (3.9 MiB stored): on the receiver, raise the quota of alpha, or "
        ), said
        with receiver.peer() as peer:
            peer.push(offer("tank/more"))
            assert write_until_refused(peer, more).startswith(
                "space: tank/more@now: ended, since the quota of alpha has no more room for it: alpha has used "
            )
        assert receiver.partials() == []
        with receiver.peer("beta") as peer:
            peer.give(b"".join(more), offer("tank/more"), more)
        full = "the quota of alpha: 43% used (3.9 MiB of 9.0 MiB)"
        with Peer(receiver.port, receiver.senders["alpha"]) as peer:
            peer.hear("hello")
            peer.say("hello", program="raw peer", version=1, features=["later", "warnings"])
            peer.say("check")
            health = peer.hear("health")
        assert full in health["warnings"]
        assert not [line for line in (*health["problems"], *health["warnings"]) if "beta" in line]
        with receiver.peer() as peer:
            peer.say("check")
            assert "warnings" not in peer.hear("health")  # it would refuse what it does not know
        done = receiver.fullsendd("check")
        assert done.returncode == 0, done.stdout
        assert f"warning  {full}: free space soon, or pushes will be refused" in done.stdout.splitlines()
        text = receiver.config.read_text(encoding="utf-8").replace("9M", "3M")
        receiver.config.write_text(text, encoding="utf-8")
        done = receiver.fullsendd("check")
        assert done.returncode == 1
        assert "problem  the quota of alpha: 130% used (3.9 MiB of 3.0 MiB): pushes are refused" in done.stdout
        assert receiver.stop() == 0
        receiver.start()
        with receiver.peer() as peer:
            peer.say("check")
            problems = peer.hear("health")["problems"]
            assert problems == ["the quota of alpha: 130% used (3.9 MiB of 3.0 MiB); pushes are refused"]
            peer.say("list", dataset=None)
            peer.hear("entries")
        assert receiver.stop() == 0
        receiver.check_log()
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)
