from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from fullsend_receiver.events.records import Event
from fullsend_receiver.monitor.outage import Away, Outage


@dataclass
class Told:
    """An outage whose time the test sets. What reaches a person, and in how many tries."""

    now: float = 0.0
    reached: bool = True
    names: list[str] = field(default_factory=list)
    tries: list[tuple[Event, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outage = Outage(self.tell, retry_for=lambda: 120.0, clock=lambda: self.now, patience=600)

    def tell(self, event: Event, at: float) -> bool:
        self.tries.append((event, at))
        if self.reached:
            self.names.append(event.name)
        return self.reached

    def away(self, now: float) -> None:
        self.now = now
        self.outage.note_away(Away("it is unmounted"))

    def there(self, now: float) -> None:
        self.now = now
        self.outage.note_there()


@pytest.fixture
def told() -> Told:
    return Told()


def test_what_lasts_for_long_is_told_once_and_its_end_once(told: Told) -> None:
    for now in (0.0, 599.0):
        told.away(now)
    assert told.names == []
    for now in (600.0, 660.0):
        told.away(now)
    for now in (720.0, 780.0):
        told.there(now)
    assert told.names == ["store-away", "store-back"]
    assert "it is unmounted" in told.tries[0][0].text


def test_short_outages_are_not_added_up(told: Told) -> None:
    told.away(0.0)
    told.there(300.0)
    told.away(360.0)
    told.away(700.0)
    assert told.tries == []


def test_what_cannot_be_told_is_tried_again_as_the_same_event_and_given_up(told: Told) -> None:
    told.reached = False
    for now in range(0, 1200, 60):
        told.away(float(now))
    assert len(told.tries) == 3
    assert len({at for _event, at in told.tries}) == 1
    told.reached = True
    told.there(1200.0)
    assert told.names == ["store-back"]


def test_a_hang_counts_while_the_disk_is_asked_and_not_afterwards(told: Told) -> None:
    with told.outage.asking():
        told.now = 599.0
        told.outage.look_for_hang()
        assert told.names == []
        told.now = 600.0
        told.outage.look_for_hang()
    assert told.names == ["store-away"]
    told.now = 2000.0
    told.outage.look_for_hang()
    assert len(told.tries) == 1
