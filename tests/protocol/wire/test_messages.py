from __future__ import annotations

import base64
import contextlib
import json
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.protocol.helpers import (
    BASE,
    DRILL,
    HISTORY,
    MERGED,
    PUSH,
    SAYINGS,
    SHA,
    STATUS,
    UNCHANGED,
    a_manifest,
    an_entry,
    document,
    section,
    segments,
    tables,
)

from fullsend_protocol.format import manifest
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, RemoteProtocolError
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk, Role

DECODE = {Role.SENDER: messages.decode_from_sender, Role.RECEIVER: messages.decode_from_receiver}
ALL = [(who, what) for who, said in SAYINGS.items() for what in said.values() if not isinstance(what, Chunk)]

#: What stands on the wire, for one of each. A change here is a change of the protocol.
GOLDEN: dict[Role, dict[str, str]] = {
    Role.RECEIVER: {
        "hello": (
            '{"type":"hello","program":"fullsendd 0.1.0","versions":[1],"sender":"alpha","features":["pipelined"]}'
        ),
        "hello, stranger": '{"type":"hello","program":"fullsendd 0.1.0","versions":[1],"sender":null}',
        "joined": '{"type":"joined","sender":"alpha","store":"/var/lib/fullsend"}',
        "known": '{"type":"known","status":"unknown"}',
        "accept": '{"type":"accept","offset":0,"segments":[],"record":null}',
        "ack": '{"type":"ack","offset":0}',
        "stopped": '{"type":"stopped","offset":0}',
        "bases": (
            '{"type":"bases","bases":[{"dataset":"tank/data","guid":"1234605616436508552","base_guid":null,'
            '"flags":"","streams":1,'
            '"age":60,"full_bytes":624,"increment_bytes":0}]}'
        ),
        "partials": (
            '{"type":"partials","partials":[{"sender":"alpha","dataset":"tank/data","snapshot":"now",'
            '"guid":"1234605616436508552","base_guid":null,"flags":"","raw_bytes":624,"stored_bytes":300,'
            '"resume_offset":null,"started":"2026-11-23T06:29:00Z","last":"2026-11-23T06:30:00Z","arriving":false}]}'
        ),
        "located": '{"type":"located","raw_offset":0}',
        "noted": '{"type":"noted"}',
        "history": (
            '{"type":"history","at":"2026-11-23T07:00:00Z","datasets":[{"dataset":"tank/data",'
            '"since":"2026-11-01T06:30:00Z","every":86400,"limit":129600,"source":"learnt","late":false,"age":1800,'
            '"nights":[{"day":"2026-11-23","received":1,"unchanged":0,"raw_bytes":624,"stored_bytes":120}]}]}'
        ),
        "drills": (
            '{"type":"drills","now":"2026-11-23T07:00:00Z","drills":[{"dataset":"tank/data","snapshot":"now",'
            '"guid":"1234605616436508552","at":"2026-11-23T06:30:00Z","ok":false,"compared":"files",'
            '"text":"3 files differ",'
            '"milliseconds":1500,"raw_bytes":624,"files":20,"succeeded":null}]}'
        ),
        "status": (
            '{"type":"status","now":"2026-11-23T07:00:00Z","datasets":[{"dataset":"tank/data","snapshot":"now",'
            '"guid":"1234605616436508552",'
            '"created":"2026-11-23T06:29:00Z","received":"2026-11-23T06:30:00Z","begun":"2026-11-23T06:29:30Z","unchanged":null,"streams":1,'
            '"stored_bytes":300,"broken":0,"lost_spill_count":0}]}'
        ),
        "verdict": (
            '{"type":"verdict","file":"alpha/tank/data/@now.1122334455667788.full.zfs.zst","dataset":"tank/data",'
            '"snapshot":"now","raw_bytes":624,"damage":[]}'
        ),
        "merged": (
            '{"type":"merged","streams":[{"dataset":"tank/data","snapshot":"now","guid":"1234605616436508552",'
            '"base_guid":null,"flags":"","raw_bytes":624,"file":"alpha/tank/data/@now.1122334455667788.full.zfs.zst",'
            '"proven":null}]}'
        ),
        "head": '{"type":"head","raw":"AAAAAKy69QIAAAAA"}',
        "proven": '{"type":"proven","result":"same","why":""}',
        "form": '{"type":"form","sha256":null,"why":"why"}',
        "health": '{"type":"health","program":"fullsendd 0.1.0","free_bytes":1099511627776,"problems":[]}',
        "done": '{"type":"done"}',
        "error": '{"type":"error","code":"shutdown","message":"the daemon stops"}',
    },
    Role.SENDER: {
        "hello": '{"type":"hello","program":"fullsend 0.1.0","version":1}',
        "join": '{"type":"join","secret":"s3cret","certificate":"-----BEGIN CERTIFICATE-----\\n"}',
        "known?": f'{{"type":"known?","fingerprint":"{SHA}"}}',
        "push": (
            '{"type":"push","dataset":"tank/data","snapshot":"now","guid":"1234605616436508552","base_guid":null,'
            '"flags":"","size_estimate":null,"zfs_version":null,"properties":null,"keep_orphan":true,'
            '"claim":"00c1a1300c1a1300","resume":"none","whole":null}'
        ),
        "finish": f'{{"type":"finish","raw_bytes":624,"segments":[{{"start":0,"end":624,"sha256":"{SHA}"}}]}}',
        "stop": '{"type":"stop","reason":"zfs send exited with status 1","keep":true}',
        "bases?": '{"type":"bases?"}',
        "partials?": '{"type":"partials?"}',
        "locate": '{"type":"locate","stream":"tank/data@now","object":1,"offset":0}',
        "unchanged": (
            '{"type":"unchanged","datasets":[{"dataset":"tank/data","snapshot":"now","guid":"1234605616436508552"}]}'
        ),
        "drilled": (
            '{"type":"drilled","dataset":"tank/data","snapshot":"now","guid":"1234605616436508552","ok":true,'
            '"compared":"files","text":"20 files are the same","milliseconds":1500,"raw_bytes":624,"files":20}'
        ),
        "drills?": '{"type":"drills?"}',
        "status?": '{"type":"status?"}',
        "history?": '{"type":"history?"}',
        "list": '{"type":"list","dataset":null}',
        "fetch": '{"type":"fetch","stream":"tank/data@now","offset":0,"until":null}',
        "verify": '{"type":"verify","dataset":null}',
        "merged?": '{"type":"merged?","dataset":null}',
        "head?": '{"type":"head?","file":"alpha/tank/data/@now.1122334455667788.full.zfs.zst"}',
        "prove": (
            '{"type":"prove","file":"alpha/tank/data/@now.1122334455667788.full.zfs.zst",'
            f'"sha256":"{SHA}","whole":true}}'
        ),
        "form?": '{"type":"form?","file":"alpha/tank/data/@now.1122334455667788.full.zfs.zst"}',
        "files?": (
            '{"type":"files?","stream":"tank/data@now","form":"tar","paths":["Lw=="],"names":["Ki50eHQ="],'
            '"recursive":true,"special":true,"setuid":true}'
        ),
        "diff?": (
            '{"type":"diff?","stream":"tank/data@then","other":"tank/data@now","form":"lines","types":true,"script":true,'
            '"prefix":"L3RhbmsvZGF0YQ=="}'
        ),
        "versions?": '{"type":"versions?","dataset":"tank/data","path":"L2E=","form":"json","last":7}',
        "check": '{"type":"check"}',
        "error": '{"type":"error","code":"shutdown","message":"the daemon stops"}',
    },
}


@pytest.mark.parametrize(("who", "what"), [(who, what) for who in Role for what in GOLDEN[who]])
def test_message_is_these_bytes_and_these_bytes_are_the_message(who: Role, what: str) -> None:
    message = SAYINGS[who][what]
    assert not isinstance(message, Chunk)
    assert messages.encode(message).decode() == GOLDEN[who][what]
    assert DECODE[who](GOLDEN[who][what].encode()) == message


@pytest.mark.parametrize(("who", "message"), ALL)
def test_message_comes_out_as_it_went_in(who: Role, message: messages.Message) -> None:
    encoded = messages.encode(message)
    assert DECODE[who](encoded) == message
    assert DECODE[who](bytearray(encoded)) == message
    assert DECODE[who](json.dumps(json.loads(encoded), indent=3).encode()) == message  # white space means nothing


@pytest.mark.parametrize(("who", "message"), ALL)
def test_message_whose_type_is_not_its_first_key_comes_out_too(who: Role, message: messages.Message) -> None:
    kind, *others = json.loads(messages.encode(message)).items()
    assert DECODE[who](json.dumps(dict([*others, kind])).encode()) == message


def test_only_the_models_of_messages_that_come_are_built() -> None:
    class Built(manifest.WireModel):
        type: Literal["built"] = "built"

    class Other(manifest.WireModel):
        type: Literal["other"] = "other"

    reads = messages.MessageReader((Built, Other))
    assert reads.validate(b'{"type":"built"}') == Built()
    assert (Built.__pydantic_complete__, Other.__pydantic_complete__) == (True, False)
    assert reads.validate(b'{ "type": "other" }') == Other()


@pytest.mark.parametrize(("who", "message"), [pair for pair in ALL if pair[1].type not in {"hello", "error"}])
def test_message_of_the_other_side_is_refused(who: Role, message: messages.Message) -> None:
    with pytest.raises(RemoteProtocolError):
        DECODE[who.peer](messages.encode(message))


@pytest.mark.parametrize(("who", "message"), ALL)
def test_message_that_lacks_a_key_is_refused_by_name(who: Role, message: messages.Message) -> None:
    said = json.loads(messages.encode(message))
    for key in said.keys() - getattr(message, "later", set()):
        with pytest.raises(RemoteProtocolError, match=re.escape(key)):
            DECODE[who](json.dumps({name: value for name, value in said.items() if name != key}).encode())


OPEN = {"hello", "error", "join", "joined", "known?", "known"}


@pytest.mark.parametrize(("who", "message"), ALL)
def test_key_that_is_unknown_is_refused_but_where_no_version_is_agreed_on(who: Role, message: messages.Message) -> None:
    said = json.loads(messages.encode(message)) | {"new": 1}
    if message.type in OPEN:
        assert DECODE[who](json.dumps(said).encode()) == message
    else:
        with pytest.raises(RemoteProtocolError, match="new: Extra inputs are not permitted"):
            DECODE[who](json.dumps(said).encode())


@pytest.mark.parametrize(("who", "message"), ALL)
def test_value_of_another_type_is_refused(who: Role, message: messages.Message) -> None:
    said = json.loads(messages.encode(message))
    for key in said:
        for odd in (1.5, {"x": 1}, [[1]], True):
            with pytest.raises(RemoteProtocolError):
                DECODE[who](json.dumps(said | {key: odd if said[key] is not True else 1}).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b"{}",
        b'{"type":"no"}',
        b'{"type":null}',
        b'{"type":["ack"]}',
        b'{"type":"ack","offset":-1}',
        b'{"type":"ack","offset":9223372036854775808}',
        b'{"type":"ack","offset":1e3}',
        b'{"type":"ack","offset":"1"}',
        b'{"type":"ack","offset":NaN}',
        b'{"type":"ack","offset":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"type":' * 50_000,
        b'{"type":"done"} {"type":"done"}',
        b"\xff\xfe",
        b'{"type":"\xff"}',
        b'{"type":"error","code":"shutdown","message":"\\ud800"}',
    ],
    ids=range(21),
)
@pytest.mark.parametrize("who", Role)
def test_what_is_no_message_is_the_peers_fault_in_one_printable_line(payload: bytes, who: Role) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        DECODE[who](payload)
    assert str(caught.value).startswith("message that cannot be read")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 500


def test_key_that_the_peer_chose_cannot_write_on_a_terminal() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        messages.decode_from_sender(json.dumps({"type": "check", "\x1b[2J\n": 1}).encode())
    assert r"\x1b[2J\n: Extra inputs" in str(caught.value)


@given(st.binary(max_size=200), st.sampled_from(Role))
def test_any_bytes_are_a_message_or_the_peers_fault(payload: bytes, who: Role) -> None:
    with pytest.raises(RemoteProtocolError):
        DECODE[who](payload)


ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(ALL), st.data())
def test_message_with_any_values_is_a_message_or_the_peers_fault(
    said: tuple[Role, messages.Message], data: st.DataObject
) -> None:
    who, message = said
    fields = json.loads(messages.encode(message))
    for key in data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)):
        fields[key] = data.draw(ANY_JSON)
    with contextlib.suppress(RemoteProtocolError):
        read = DECODE[who](json.dumps(fields).encode())
        assert DECODE[who](messages.encode(read)) == read


def test_error_code_of_a_later_version_is_read_as_internal() -> None:
    read = messages.decode_from_receiver(b'{"type":"error","code":"eclipse","message":"the moon"}')
    assert read == messages.Error(code=ErrorCode.INTERNAL, message="the moon")
    with pytest.raises(RemoteProtocolError):
        messages.decode_from_receiver(b'{"type":"error","code":5,"message":"the moon"}')


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_travels(code: ErrorCode) -> None:
    error = messages.Error(code=code, message="x")
    assert messages.decode_from_sender(messages.encode(error)) == error
    assert f'"code":"{code.value}"' in messages.encode(error).decode()


@pytest.mark.parametrize(
    ("guid", "good"),
    [
        ("0", True),
        ("1", True),
        ("18446744073709551615", True),
        ("18446744073709551616", False),
        ("99999999999999999999", False),
        ("01", False),
        ("-1", False),
        ("", False),
        ("1\n", False),
        ("٣", False),
    ],
)
def test_guid_is_a_decimal_of_64_bits(guid: str, good: bool) -> None:
    said = json.loads(GOLDEN[Role.SENDER]["push"]) | {"guid": guid}
    if good:
        messages.decode_from_sender(json.dumps(said).encode())
    else:
        with pytest.raises(RemoteProtocolError, match="guid"):
            messages.decode_from_sender(json.dumps(said).encode())


@pytest.mark.parametrize("flags", ["", "L", "Lecwp", "Lecwpr0123abcd", "r00000000", "ew"])
def test_flags_are_letters_in_their_order(flags: str) -> None:
    push = SAYINGS[Role.SENDER]["push"]
    assert isinstance(push, messages.Push)
    messages.decode_from_sender(messages.encode(push.model_copy(update={"flags": flags})))


@pytest.mark.parametrize("flags", ["eL", "LL", "r", "r0123", "rABCDEF01", "x", "L "])
def test_flags_of_another_form_are_refused(flags: str) -> None:
    said = json.loads(GOLDEN[Role.SENDER]["push"]) | {"flags": flags}
    with pytest.raises(RemoteProtocolError, match="flags"):
        messages.decode_from_sender(json.dumps(said).encode())


def worst_properties() -> dict[str, str]:
    """As many bytes of JSON as can be made of properties: each of their characters is escaped to six."""
    short = {chr(code): "" for code in range(1, 32)}
    rest = limits.PROPERTIES_MAX - 2 * len(short) - 2
    return {**short, "\x01\x01": "\x01" * (rest - 1)}


def test_properties_count_by_their_characters_and_one_more_for_each() -> None:
    """So that no number of short ones makes a longer message than a few long ones."""
    many = {chr(code): "" for code in range(256, 256 + limits.PROPERTIES_MAX // 2)}
    assert messages.Push.model_validate(PUSH.model_dump() | {"properties": many}).properties == many
    with pytest.raises(ValidationError, match="more than 32768 characters of properties"):
        messages.Push.model_validate(PUSH.model_dump() | {"properties": many | {"x": ""}})


def test_longest_messages_stay_within_the_limit() -> None:
    """What limits.py promises of CONTROL_MAX."""
    finish = messages.Finish(
        raw_bytes=limits.OFFSET_END - 1,
        segments=[
            manifest.Segment(start=limits.OFFSET_END - 2, end=limits.OFFSET_END - 1, sha256=SHA)
            for _ in range(limits.SEGMENTS_MAX)
        ],
    )
    assert len(messages.encode(finish)) < 200_000
    name = "\N{EURO SIGN}" * 42  # 126 bytes: a name of 253, and all of it escaped in the file's name
    entry = an_entry().model_copy(
        update={
            "dataset": name,
            "snapshot": name,
            "base": f"{name}@{name}",
            "file": "x" * 1000,
            "damaged": "x" * 500,
            "base_guid": "1" * 20,
            "ivset_guid": "1" * 20,
            "base_ivset_guid": "1" * 20,
        }
    )
    entry = manifest.copied(manifest.KeyedEntry, entry)
    page = messages.Entries(entries=[entry] * limits.ENTRIES_PAGE)
    assert len(messages.encode(page)) <= limits.CONTROL_MAX
    merged = messages.MergedEntry(
        dataset=name,
        snapshot=name,
        guid=str(2**64 - 1),
        base_guid=str(2**64 - 1),
        flags="Lecwpr01234567",
        raw_bytes=limits.OFFSET_END - 1,
        file="x" * 1000,
        proven="2026-11-23T06:30:00Z",
    )
    streams = messages.MergedStreams(streams=[merged] * limits.ENTRIES_PAGE)
    assert len(messages.encode(streams)) <= limits.CONTROL_MAX
    head = messages.Head(raw=base64.b64encode(bytes(limits.HEAD_MAX)).decode())
    assert len(messages.encode(head)) <= limits.CONTROL_MAX
    odd = "\x01" * 126
    properties = worst_properties()
    snapshot = manifest.StreamSnapshot(dataset=odd, snapshot=odd, guid=str(2**64 - 1), base_guid=str(2**64 - 1))
    sending = messages.Sending(
        manifest=a_manifest().model_copy(
            update={
                "dataset": odd,
                "snapshot": odd,
                "snapshots": [snapshot] * limits.SNAPSHOTS_SENT,
                "segments": finish.segments,
                "properties": properties,
            }
        )
    )
    assert len(sending.manifest.snapshots) == limits.SNAPSHOTS_SENT
    assert len(messages.encode(sending)) <= limits.CONTROL_MAX
    push = PUSH.model_copy(update={"dataset": odd, "snapshot": odd, "properties": properties})
    assert len(messages.encode(push)) <= limits.CONTROL_MAX // 4
    most, when = limits.OFFSET_END - 1, f"@{2**64 - 1}"
    guid, long = str(2**64 - 1), "d" * limits.NAME_MAX  # `zfs` keeps its names to ASCII
    base = messages.Base(
        dataset=long,
        guid=guid,
        flags="Lecwpr01234567",
        streams=most,
        base_guid=guid,
        age=most,
        full_bytes=most,
        increment_bytes=most,
    )
    assert len(messages.encode(messages.Bases(bases=[base] * limits.BASES_PAGE))) <= limits.CONTROL_MAX
    unchanged = messages.UnchangedDataset(dataset=long, snapshot=long, guid=guid)
    said = messages.Unchanged(datasets=[unchanged] * limits.DATASETS_PAGE)
    assert len(messages.encode(said)) <= limits.CONTROL_MAX
    status = messages.DatasetStatus(
        dataset=long[:127],  # together 255
        snapshot=long[:127],
        guid=guid,
        created=when,
        received=when,
        begun=when,
        unchanged=when,
        streams=most,
        stored_bytes=most,
        broken=most,
        lost_spill_count=most,
    )
    assert (
        len(messages.encode(messages.Status(now=when, datasets=[status] * limits.DATASETS_PAGE))) <= limits.CONTROL_MAX
    )
    night = messages.NightEntry(day="2026-11-23", received=most, unchanged=most, raw_bytes=most, stored_bytes=most)
    history = messages.DatasetHistory(
        dataset=odd * 2,
        since=when,
        every=most,
        limit=most,
        source="configured",
        late=False,
        age=most,
        nights=[night] * limits.HISTORY_NIGHTS,
    )
    longest = messages.HistoryPage(at=when, datasets=[history] * limits.HISTORIES_PAGE)
    assert len(messages.encode(longest)) <= limits.CONTROL_MAX
    drill = messages.DrillEntry(
        dataset=odd * 2,
        snapshot=odd * 2,
        guid=guid,
        at=when,
        ok=False,
        compared="nothing",
        text="\x01" * limits.DRILL_TEXT_MAX,
        milliseconds=most,
        raw_bytes=most,
        files=most,
        succeeded=when,
    )
    drills = messages.Drills(now=when, drills=[drill] * limits.DRILLS_PAGE)
    assert len(messages.encode(drills)) <= limits.CONTROL_MAX
    path = base64.b64encode(bytes(limits.FILES_PATH_MAX)).decode()
    paths, names = [path] * limits.FILES_PATHS, [path] * limits.FILES_NAMES
    files_wanted = SAYINGS[Role.SENDER]["files?"]
    assert isinstance(files_wanted, messages.FilesWanted)
    wanted = files_wanted.model_copy(update={"stream": "\x01" * 4096, "paths": paths, "names": names})
    assert len(messages.encode(wanted)) <= limits.CONTROL_MAX
    diff_wanted = SAYINGS[Role.SENDER]["diff?"]
    assert isinstance(diff_wanted, messages.DiffWanted)
    wanted_diff = diff_wanted.model_copy(update={"stream": "\x01" * 4096, "other": "\x01" * 4096, "prefix": path})
    assert len(messages.encode(wanted_diff)) <= limits.CONTROL_MAX
    part = messages.FilesPart(data=base64.b64encode(bytes(limits.FILES_PART)).decode())
    assert len(messages.encode(part)) <= limits.CONTROL_MAX
    files = messages.Files(code=most, said=["\x01" * 4096] * limits.FILES_SAID)
    assert len(messages.encode(files)) <= limits.CONTROL_MAX
    join = messages.Join(secret="x" * 128, certificate="x" * 8192)
    assert len(messages.encode(join)) <= limits.UNIDENTIFIED_MAX


@pytest.mark.parametrize(
    "build",
    [
        lambda: messages.Join(secret="x" * 129, certificate=""),
        lambda: messages.Join(secret="", certificate="x" * 8193),
        lambda: messages.Finish(raw_bytes=1, segments=segments(1) * (limits.SEGMENTS_MAX + 1)),
        lambda: messages.Entries(entries=[an_entry()] * (limits.ENTRIES_PAGE + 1)),
        lambda: messages.Error(code=ErrorCode.BUSY, message="x" * 4097),
        lambda: messages.ReceiverHello(program="x", versions=[], sender=None),
        lambda: messages.ReceiverHello(program="x" * 101, versions=[1], sender=None),
        lambda: messages.ReceiverHello(program="x", versions=[1], sender="Alpha"),
        lambda: messages.List(dataset="x" * 256),
        lambda: messages.MergedStreams(streams=[MERGED] * (limits.ENTRIES_PAGE + 1)),
        lambda: messages.Head(raw=base64.b64encode(bytes(limits.HEAD_MAX + 9)).decode()),
        lambda: messages.FilesPart(data=base64.b64encode(bytes(limits.FILES_PART + 3)).decode()),
        lambda: messages.Files(code=0, said=["x"] * (limits.FILES_SAID + 1)),
        lambda: messages.Bases(bases=[BASE] * (limits.BASES_PAGE + 1)),
        lambda: messages.Unchanged(datasets=[UNCHANGED] * (limits.DATASETS_PAGE + 1)),
        lambda: messages.Drills(now="x", drills=[DRILL] * (limits.DRILLS_PAGE + 1)),
        lambda: messages.DrillEntry.model_validate(DRILL.model_dump() | {"text": "x" * (limits.DRILL_TEXT_MAX + 1)}),
        lambda: messages.Status(now="x", datasets=[STATUS] * (limits.DATASETS_PAGE + 1)),
        lambda: messages.HistoryPage(at="x", datasets=[HISTORY] * (limits.HISTORIES_PAGE + 1)),
        lambda: messages.DatasetHistory.model_validate(HISTORY.model_dump() | {"nights": [*HISTORY.nights] * 92}),
        lambda: messages.NightEntry(day="Monday", received=1, unchanged=0, raw_bytes=0, stored_bytes=0),
        lambda: messages.Push.model_validate(
            PUSH.model_dump() | {"properties": {"a": "x" * (limits.PROPERTIES_MAX - 1)}}
        ),
    ],
)
def test_message_beyond_a_limit_cannot_be_made(build: Any) -> None:
    with pytest.raises(ValidationError):
        build()


def test_messages_do_not_change() -> None:
    done = messages.Ack(offset=1)
    with pytest.raises(ValidationError):
        done.offset = 2  # type: ignore[misc]


# --- keys that came later ----------------------------------------------------------------------------------------

DAMAGED = messages.DamagedEntry(
    dataset="tank", snapshot="now", guid="2", base_guid="1", flags="Lp", raw_bytes=936, why="damaged (chunk 0)"
)
SCRUB = messages.ScrubStanding(
    every=1,
    streams=3,
    current=2,
    checked=1,
    oldest="2026-11-23T06:30:00Z",
    due_streams=1,
    due_bytes=936,
    reading=messages.BeingRead(file="alpha/tank/@now.zst", read_bytes=1, stored_bytes=936),
)
#: By message with such a key: the same without it, and the key.
LATER: list[tuple[Role, messages.Message, messages.Message, str]] = [
    (
        Role.SENDER,
        messages.SenderHello(program="x", version=1, features=[messages.REPAIR]),
        messages.SenderHello(program="x", version=1),
        "features",
    ),
    (
        Role.RECEIVER,
        messages.ReceiverHello(program="x", versions=[1], sender=None, features=[messages.PIPELINED]),
        messages.ReceiverHello(program="x", versions=[1], sender=None),
        "features",
    ),
    (Role.RECEIVER, messages.Bases(bases=[], damaged=[DAMAGED]), messages.Bases(bases=[]), "damaged"),
    (
        Role.RECEIVER,
        messages.Health(program="x", free_bytes=1, problems=[], warnings=["full soon"]),
        messages.Health(program="x", free_bytes=1, problems=[]),
        "warnings",
    ),
    (
        Role.RECEIVER,
        messages.Health(program="x", free_bytes=1, problems=[], scrub=SCRUB),
        messages.Health(program="x", free_bytes=1, problems=[]),
        "scrub",
    ),
]


def test_iv_sets_of_an_entry_are_written_only_for_those_who_read_them() -> None:
    """A sender of before refuses the keys. It is not told them by mistake: an entry has to be made for that."""
    ivsets = {"ivset_guid": "12", "base_ivset_guid": "11"}
    entry = an_entry().model_copy(update=ivsets)
    keyed = manifest.copied(manifest.KeyedEntry, entry)
    said = messages.encode(messages.Entries(entries=[an_entry(), entry, keyed]))
    plain, untold, told = json.loads(said)["entries"]
    assert plain == untold == {name: told[name] for name in plain}
    assert {name: told[name] for name in told.keys() - plain.keys()} == ivsets
    read = messages.decode_from_receiver(said)
    assert read == messages.Entries(entries=[an_entry(), an_entry(), entry])


@pytest.mark.parametrize(("who", "with_it", "without", "key"), LATER)
def test_a_later_key_is_written_only_with_a_value(
    who: Role, with_it: messages.Message, without: messages.Message, key: str
) -> None:
    """A peer of before refuses the key, but for a greeting's."""
    assert DECODE[who](messages.encode(with_it)) == with_it
    assert DECODE[who](messages.encode(without)) == without
    assert json.loads(messages.encode(with_it)).keys() - json.loads(messages.encode(without)).keys() == {key}


def test_what_is_damaged_is_known_by_what_announces_it() -> None:
    assert DAMAGED.model_copy(update={"why": "otherwise"}).identity == DAMAGED.identity
    assert DAMAGED.model_copy(update={"flags": "L"}).identity != DAMAGED.identity
    assert DAMAGED.stream_class == "plain"


# --- docs/protocol.md --------------------------------------------------------------------------------------------

MODELS = [
    (who, model)
    for who, models in ((Role.RECEIVER, messages.FROM_RECEIVER), (Role.SENDER, messages.FROM_SENDER))
    for model in models
]
PARTS: dict[type[manifest.WireModel], str] = {
    manifest.Segment: "A segment",
    manifest.Receipt: "A receipt",
    manifest.PartialEntry: "A partial",
    messages.Whole: "A whole",
    messages.Record: "A record",
    manifest.StreamEntry: "An entry",
    messages.Base: "A base",
    messages.DamagedEntry: "A damaged stream",
    messages.MergedEntry: "A merged stream",
    messages.UnchangedDataset: "An unchanged dataset",
    messages.DrillEntry: "A drill",
    messages.DatasetStatus: "A dataset's status",
    messages.DatasetHistory: "A dataset's history",
    messages.NightEntry: "A night",
    messages.ScrubStanding: "A standing of checks",
    messages.BeingRead: "A reading",
}


def keys(model: type[manifest.WireModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if name != "type"]


@pytest.mark.parametrize(("who", "model"), MODELS)
def test_document_describes_every_message_key_by_key(who: Role, model: type[manifest.WireModel]) -> None:
    name = model.model_fields["type"].default
    title = "`error`" if name == "error" else f"`{name}` ({who.value})"
    described = [row["key"].strip("`") for table in tables(section(title)) for row in table]
    assert described == keys(model)


@pytest.mark.parametrize("model", PARTS)
def test_document_describes_every_part_of_messages_key_by_key(model: type[manifest.WireModel]) -> None:
    assert [row["key"].strip("`") for table in tables(section(PARTS[model])) for row in table] == keys(model)


def test_document_describes_no_other_message() -> None:
    titles = re.findall(r"^#+ `([a-z?]+)`(?: \((\w+)\))?$", document(), re.MULTILINE)
    expected = {(model.model_fields["type"].default, who.value) for who, model in MODELS}
    assert {(name, who) for name, who in titles if who} == {pair for pair in expected if pair[0] != "error"}
    assert [name for name, who in titles if not who] == ["error"]


def test_manifest_of_a_large_package_travels_without_its_list_of_snapshots() -> None:
    """With it the message would be too long, and the package could never be given back. The stream names them."""
    many = [
        manifest.StreamSnapshot(dataset="tank/data", snapshot=f"s{n}", guid=str(n), base_guid="0")
        for n in range(20_000)
    ]
    large = a_manifest().model_copy(update={"snapshots": many})
    sending = messages.Sending(manifest=large)
    assert sending.manifest == large.model_copy(update={"snapshots": []})
    assert len(large.snapshots) == 20_000  # on disk it keeps them
    assert messages.decode_from_receiver(messages.encode(sending)) == sending


def test_sending_carries_a_manifest_under_its_names_on_disk() -> None:
    encoded = json.loads(messages.encode(messages.Sending(manifest=a_manifest())))
    assert encoded["manifest"]["class"] == "plain"
    assert "stream_class" not in encoded["manifest"]
