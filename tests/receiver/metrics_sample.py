"""An overview in which every metric of the receiver has a value, and counters to it."""

from __future__ import annotations

from typing import Final

from fullsend_receiver.arrival.counters import Counters
from fullsend_receiver.monitor.overview import (
    Alarm,
    CopyOverview,
    DatasetOverview,
    Drill,
    Expectation,
    History,
    Overview,
    Reception,
    ScrubOverview,
    SenderOverview,
)
from fullsend_transport.channel import Traffic

NOW: Final = 1_790_000_000.0
HOUR: Final = 3600.0
HOME: Final = DatasetOverview(
    sender="alpha",
    dataset='tank/home "old"',
    snapshot="fullsend-1",
    guid="17",
    created=NOW - 3 * HOUR,
    received=NOW - 2 * HOUR,
    unchanged=NOW - HOUR,
    age=HOUR,
    streams=5,
    fulls=2,
    raw_bytes=5000,
    stored_bytes=2500,
    chain_streams=3,
    chain_raw_bytes=3000,
    chain_stored_bytes=1500,
    broken=1,
    damaged=1,
    lost_spill_count=2,
    oldest_check=NOW - 9 * HOUR,
    unchecked=1,
    expectation=Expectation(every=24 * HOUR, source="learnt"),
    history=History(
        receptions=(
            Reception(at=NOW - 2 * HOUR, kind="incremental", snapshot="fullsend-1", raw_bytes=100, stored_bytes=50),
            Reception(at=NOW - HOUR, kind="unchanged"),
        )
    ),
    drill=Drill(
        at=NOW - 5 * HOUR,
        snapshot="fullsend-1",
        ok=False,
        compared="files",
        text="3 files differ",
        seconds=12.5,
        raw_bytes=3000,
        succeeded=NOW - 99 * HOUR,
    ),
)
BARE: Final = DatasetOverview(sender="beta", dataset="tank")
OVERVIEW: Final = Overview(
    at=NOW,
    program="fullsendd 0.1.0",
    store="/srv/backups",
    free=1000,
    size=9000,
    min_free=100,
    full_at=NOW + 500 * HOUR,
    senders=(
        SenderOverview(
            name="alpha",
            enrolled=True,
            datasets=(HOME,),
            stored_bytes=2500,
            used_bytes=2600,
            quota=4000,
            partials=1,
            partial_bytes=100,
            pruned=NOW - 7 * HOUR,
            pruned_bytes=700,
            merged_bytes=800,
        ),
        SenderOverview(name="beta", enrolled=False, datasets=(BARE,)),
    ),
    scrub=ScrubOverview(
        every=30 * 24 * HOUR,
        streams=5,
        current=4,
        checked=3,
        oldest=NOW - 9 * HOUR,
        due_streams=1,
        due_bytes=500,
        damaged=1,
        unreadable=1,
        behind=True,
    ),
    aside_bytes=11,
    trash_bytes=12,
    copy=CopyOverview(
        to="s3://offsite/zfs",
        limit=72 * HOUR,
        since=NOW - 900 * HOUR,
        complete=NOW - 26 * HOUR,
        age=26 * HOUR,
        began=NOW - 2 * HOUR,
        ended=NOW - HOUR,
        ok=False,
        left=3,
        named=(("alpha/tank/home/@s1", "no room"),),
        older=4,
        streams=5,
        stored_bytes=600,
        bytes_ever=7000,
    ),
    alarms=(
        Alarm(code="damage", level="critical", text="1 stream is damaged", sender="alpha", dataset=HOME.dataset),
        Alarm(code="scrub-behind", level="warning", text="the scrub is behind"),
    ),
)


def sample_counters() -> Counters:
    counters = Counters(
        started=NOW - 100 * HOUR,
        open_connections=2,
        connections=70,
        traffic=Traffic(received=900, sent=90),
        pushes=33,
        scrubbed_bytes=123,
    )
    counters.push_failures["space"] = 2
    counters._waited["wire"] = 5.5
    return counters
