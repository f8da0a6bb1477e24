from __future__ import annotations

from tests.protocol.helpers import an_entry

from fullsend_protocol.listing import table

ENTRY = an_entry()
OTHER = ENTRY.model_copy(
    update={
        "dataset": "tank/größe\n\x1b[2J",
        "kind": "incremental",
        "flags": "Lec",
        "raw_bytes": 44_774_301_696,
        "verified": "2026-11-24T02:00:00Z",
    }
)


def test_streams_stand_in_columns_under_a_heading() -> None:
    assert list(table([ENTRY, OTHER], with_sender=False)) == [
        r"STREAM                   KIND             CREATED                    RAW  STORED  STATE",
        r"tank/data@now            full             2026-11-23T06:29:00Z     624 B   300 B  ok",
        (
            r"tank/größe\n\x1b[2J@now  incremental Lec  2026-11-23T06:29:00Z  41.7 GiB   300 B"
            r"  verified 2026-11-24T02:00:00Z"
        ),
    ]


def test_state_says_what_matters_most() -> None:
    def state(**changed: object) -> str:
        return list(table([ENTRY.model_copy(update=changed)], with_sender=True))[1].split("300 B  ")[1]

    assert state() == "ok"
    assert state(verified="x") == "verified x"
    assert state(verified="x", restorable=False) == "not restorable: a base is missing or damaged"
    assert state(restorable=False, damaged="chunk 7\n") == r"DAMAGED: chunk 7\n"


def test_sender_stands_in_front_where_the_daemon_lists() -> None:
    assert next(iter(list(table([ENTRY], with_sender=True))[1:])).startswith("alpha/tank/data@now  ")


def test_nothing_stored_is_no_heading_either() -> None:
    assert list(table([], with_sender=True)) == []
