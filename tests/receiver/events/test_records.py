from __future__ import annotations

from fullsend_receiver.events import records
from fullsend_receiver.events.records import Event, PushFailed, facts_of, fields_of

FAILED = PushFailed(
    text="alpha (::1): no room",
    sender="alpha",
    dataset="tank/home",
    snapshot="now",
    code="quota",
    why="no room",
    address="::1",
)


def all_events() -> list[type[Event]]:
    found = [each for each in vars(records).values() if isinstance(each, type) and issubclass(each, Event)]
    return [each for each in found if each is not Event]


def test_each_event_has_a_name_of_its_own() -> None:
    names = [each.name for each in all_events()]
    assert len(names) == len(set(names)) > 20
    assert all(name.replace("-", "").isalpha() and name.islower() for name in names)


def test_no_event_hides_a_field_of_every_line() -> None:
    head = facts_of(FAILED, at=0, level="info").keys() - fields_of(FAILED).keys()
    assert head == {"version", "time", "program", "event", "level", "text"}
    for each in all_events():
        assert not head & (set(each.__dataclass_fields__) - {"text"}), each
        assert not {"id", "hook", "host", "message"} & set(each.__dataclass_fields__), (
            each
        )  # a hook has them in addition


def test_the_facts_of_an_event() -> None:
    said = facts_of(FAILED, at=1_700_000_000.5, level="warning")
    assert said["time"] == "2023-11-14T22:13:20Z"
    assert (said["event"], said["level"], said["code"]) == ("push-failed", "warning", "quota")
    assert said["text"] == "alpha (::1): no room"
