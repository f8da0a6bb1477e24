from __future__ import annotations

from tests.protocol.helpers import an_entry

from fullsend_protocol.format.tables import table

ENTRY = an_entry()


LOST = "not restorable: its file or a base is missing or damaged"


def test_streams_stand_in_columns_under_a_heading() -> None:
    follows = {"kind": "incremental", "base": "tank/data@now", "base_guid": "1234"}
    entries = [
        ENTRY,
        ENTRY.model_copy(update={**follows, "snapshot": "next", "flags": "Le", "raw_bytes": 44_774_301_696}),
        ENTRY.model_copy(update={**follows, "dataset": "tank/far", "restorable": False}),
        ENTRY.model_copy(update={"kind": "package", "base_guid": "77", "damaged": "chunk 3", "restorable": False}),
    ]
    now = ENTRY.received
    assert list(table(entries, with_sender=False)) == [
        "STREAM          KIND         BASE           FLAGS  RECEIVED                   RAW  STORED  STATE",
        f"tank/data@now   full         -              -      {now}     624 B   300 B  ok",
        f"tank/data@next  incremental  @now           Le     {now}  41.7 GiB   300 B  ok",
        f"tank/far@now    incremental  tank/data@now  -      {now}     624 B   300 B  {LOST}",
        f"tank/data@now   package      guid:77        -      {now}     624 B   300 B  DAMAGED: chunk 3",
    ]


def test_names_cannot_steer_the_terminal() -> None:
    evil = ENTRY.model_copy(update={"dataset": "tank/größe\n\x1b[2J", "damaged": "\r\nok", "base_guid": "7"})
    lines = list(table([evil, evil.model_copy(update={"base": "\x1b@\n"})], with_sender=True))
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert r"alpha/tank/größe\n\x1b[2J@now" in lines[1]


def test_state_says_what_matters_most() -> None:
    def state(**changed: object) -> str:
        return list(table([ENTRY.model_copy(update=changed)], with_sender=True))[1].split("300 B  ")[1]

    assert state() == "ok"
    assert state(verified="x") == "verified x"
    assert state(verified="x", restorable=False) == "not restorable: its file or a base is missing or damaged"
    assert state(restorable=False, damaged="chunk 7\n") == r"DAMAGED: chunk 7\n"


def test_sender_stands_in_front_where_the_daemon_lists() -> None:
    assert next(iter(list(table([ENTRY], with_sender=True))[1:])).startswith("alpha/tank/data@now  ")


def test_nothing_stored_is_no_heading_either() -> None:
    assert list(table([], with_sender=True)) == []
