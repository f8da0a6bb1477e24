"""A push without room has old streams dropped early, where the policy says so, and never below the floors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest
from tests import streams
from tests.receiver.peer import control, offer
from tests.receiver.running import MIB, Receiver, serving

#: Room for four streams.
QUOTA: Final = 9 * MIB // 2
#: Each push is a full of its own, which is suspicious.
SETTINGS: Final = {"quota": str(QUOTA), "when_suspicious": "prune", "prune_at": "never"}
#: Floors that let streams of today go. The two newest snapshots stay in any case, and the first one of this day.
POLICY: Final = '[retention]\nlast = 1\nminimum-count = 1\nminimum-age = "0s"\n'


def full(number: int) -> bytes:
    """A full stream of 1 MiB that does not compress."""
    write = streams.write(1, 0, os.urandom(MIB))
    begin = streams.begin(f"tank/data@s{number}", guid=number)
    return b"".join([begin, streams.object_(1), write, streams.end(number)])


def offered(number: int, raw: bytes) -> dict[str, object]:
    return offer(snapshot=f"s{number}", size_estimate=len(raw))


def give(receiver: Receiver, number: int) -> None:
    raw = full(number)
    with receiver.peer() as peer:
        peer.give(raw, offered(number, raw))


def restart_with_policy(receiver: Receiver) -> None:
    """Tables come last in receiver.toml."""
    assert receiver.stop() == 0
    with receiver.config.open("a", encoding="utf-8") as file:
        file.write(POLICY)
    receiver.start()


def snapshots(receiver: Receiver) -> list[str]:
    return [entry["snapshot"] for entry in receiver.listed()]


def test_oldest_streams_make_room_for_a_push(tmp_path: Path) -> None:
    configured: dict[str, Any] = {
        "quota": str(QUOTA),
        "when_full": "prune-early",
        "when_suspicious": "prune",
        "prune_at": "never",
    }
    with serving(tmp_path / "receiver", "alpha", **configured) as receiver:
        restart_with_policy(receiver)
        for number in (1, 2, 3, 4):
            give(receiver, number)
        assert snapshots(receiver) == ["s1", "s2", "s3", "s4"]
        give(receiver, 5)
        assert snapshots(receiver) == ["s1", "s3", "s4", "s5"]
        assert "pruned early, for a push: 1.0 MiB freed" in receiver.log
        give(receiver, 6)
        assert snapshots(receiver) == ["s1", "s4", "s5", "s6"]


@pytest.mark.parametrize(
    "settings",
    [{"when_full": "refuse"}, {"when_full": "prune-early", "undelete_within": "1d"}],
    ids=["refuse", "trash"],
)
def test_push_is_refused_where_nothing_may_make_room(tmp_path: Path, settings: dict[str, str]) -> None:
    configured: dict[str, Any] = {**SETTINGS, **settings}
    with serving(tmp_path / "receiver", "alpha", **configured) as receiver:
        restart_with_policy(receiver)
        for number in (1, 2, 3, 4):
            give(receiver, number)
        with receiver.peer() as peer:
            peer.write(control(offered(5, full(5))))
            assert peer.refusal().startswith("space: tank/data@s5: no room: ")
        assert snapshots(receiver) == ["s1", "s2", "s3", "s4"]
