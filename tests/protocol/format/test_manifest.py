from __future__ import annotations

import json
from types import NoneType
from typing import get_args, get_type_hints

import pytest
from pydantic import BaseModel, ValidationError
from tests.protocol.helpers import SHA, a_manifest, an_entry, receipt

from fullsend_protocol.format.manifest import (
    Manifest,
    PartialEntry,
    PastReplacement,
    Receipt,
    Segment,
    StreamEntry,
    StreamSnapshot,
    copied,
)
from fullsend_protocol.wire.messages import Base, DatasetStatus

GOLDEN = f"""{{
 "format": 1,
 "sender": "alpha",
 "dataset": "tank/data",
 "snapshot": "now",
 "guid": "1234605616436508552",
 "base_guid": null,
 "kind": "full",
 "dataset_type": "filesystem",
 "class": "plain",
 "flags": "",
 "features": [
  "sa_spill"
 ],
 "snapshots": [
  {{
   "dataset": "tank/data",
   "snapshot": "now",
   "guid": "1234605616436508552",
   "base_guid": "0"
  }}
 ],
 "created": "2026-11-23T06:29:00Z",
 "received": "2026-11-23T06:30:00Z",
 "begun": "2026-11-23T06:29:30Z",
 "sequence": 1,
 "raw_bytes": 624,
 "stored_bytes": 300,
 "sha256": "{SHA}",
 "segments": [
  {{
   "start": 0,
   "end": 624,
   "sha256": "{SHA}"
  }}
 ],
 "resumptions": [],
 "file_sha256": "{SHA}",
 "chunks": 1,
 "sender_program": "fullsend 0.1.0",
 "receiver_program": "fullsendd 0.1.0",
 "zfs_version": null,
 "properties": {{
  "compression": "lz4"
 }},
 "proven_by": "both",
 "lost_spills": []
}}
"""
#: What the first version wrote.
FIRST = GOLDEN.replace(',\n "lost_spills": []', "").replace(' "begun": "2026-11-23T06:29:30Z",\n "sequence": 1,\n', "")


def test_manifest_is_these_bytes_and_these_bytes_are_the_manifest() -> None:
    """Every released version is read forever: these texts may get sisters, and stay."""
    assert a_manifest().to_json().decode() == GOLDEN
    assert Manifest.model_validate_json(GOLDEN) == a_manifest()
    assert FIRST != GOLDEN
    assert Manifest.model_validate_json(FIRST) == a_manifest().model_copy(update={"begun": None, "sequence": None})


def test_a_replacement_is_written_and_read_back() -> None:
    was = PastReplacement(at="2026-11-24T00:00:00Z", received="2026-11-23T06:30:00Z", why="chunk 7", same_bytes=True)
    replaced = a_manifest().model_copy(update={"replacements": [was]})
    assert Manifest.model_validate_json(replaced.to_json()) == replaced
    assert '"same_bytes": true' in replaced.to_json().decode()


def test_key_that_a_later_version_added_is_passed_over() -> None:
    said = json.loads(GOLDEN) | {"colour": "blue"}
    assert Manifest.model_validate_json(json.dumps(said)) == a_manifest()


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("segments", {"start": 0, "end": 936, "sha256": "5c" * 32}),
        ("snapshots", {"dataset": "tank", "snapshot": "now", "guid": "1", "base_guid": "0"}),
        ("resumptions", {"how": "token", "offset": 936, "at": "2026-11-23T06:30:00Z"}),
        ("lost_spills", {"snapshot": "tank@now", "object": 7}),
        ("replacements", {"at": "2026-11-24T00:00:00Z", "received": None, "why": "damaged", "same_bytes": None}),
    ],
)
def test_key_that_a_later_version_added_further_in_is_passed_over(name: str, one: dict[str, object]) -> None:
    manifest = json.loads(GOLDEN) | {name: [one]}
    said = json.loads(GOLDEN) | {name: [one | {"colour": "blue"}]}
    assert Manifest.model_validate_json(json.dumps(said)) == Manifest.model_validate_json(json.dumps(manifest))
    for wrong in (5, [one], one | {next(iter(one)): None}):
        with pytest.raises(ValidationError, match=name):
            Manifest.model_validate_json(json.dumps(said | {name: [wrong]}))


def test_format_of_a_later_version_is_refused() -> None:
    with pytest.raises(ValidationError, match="format"):
        Manifest.model_validate_json(GOLDEN.replace('"format": 1', '"format": 2'))


@pytest.mark.parametrize("key", [key for key in json.loads(FIRST) if key != "format"])
def test_manifest_that_lacks_a_key_is_refused_by_name(key: str) -> None:
    said = json.loads(GOLDEN)
    del said[key]
    with pytest.raises(ValidationError, match=key):
        Manifest.model_validate_json(json.dumps(said))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sender", "../etc"),
        ("guid", 1234605616436508552),
        ("guid", "18446744073709551616"),
        ("base_guid", "0x1"),
        ("kind", "half"),
        ("class", "secret"),
        ("dataset_type", "snapshot"),
        ("properties", {"quota": 5}),
        ("properties", {"note": "x" * (32 << 10)}),
        ("flags", "wL"),
        ("raw_bytes", -1),
        ("raw_bytes", "624"),
        ("raw_bytes", 1 << 63),
        ("sha256", SHA.upper()),
        ("sha256", SHA[:-1]),
        ("segments", [{"start": 0, "end": 624}]),
        ("proven_by", "nobody"),
    ],
)
def test_manifest_with_a_wrong_value_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        Manifest.model_validate_json(json.dumps(json.loads(GOLDEN) | {key: value}))


def test_class_can_be_given_by_its_name_in_python() -> None:
    said = json.loads(GOLDEN)
    said["stream_class"] = said.pop("class")
    assert Manifest.model_validate_json(json.dumps(said)) == a_manifest()
    assert a_manifest().stream_class == "plain"


@pytest.mark.parametrize(
    "model", [a_manifest(), an_entry(), receipt(), Segment(start=0, end=1, sha256=SHA)], ids=lambda m: type(m).__name__
)
def test_what_is_written_down_comes_out_as_it_went_in_and_does_not_change(
    model: Manifest | StreamEntry | Receipt | Segment,
) -> None:
    assert type(model).model_validate_json(model.model_dump_json(by_alias=True)) == model
    with pytest.raises(ValidationError):
        model.sha256 = SHA  # type: ignore[misc]


@pytest.mark.parametrize("model", [StreamEntry, Receipt, Segment, StreamSnapshot])
def test_unknown_key_is_refused_on_the_wire(model: type[StreamEntry | Receipt | Segment | StreamSnapshot]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        model.model_validate_json('{"colour": "blue"}')


def test_names_that_json_must_escape_come_out_as_they_went_in() -> None:
    for name in ('a"b\\c', "größe/日本", "\x00\x1f\x7f", "\N{PILE OF POO}"):
        one = StreamSnapshot(dataset=name, snapshot=name, guid="1", base_guid="0")
        assert StreamSnapshot.model_validate_json(one.model_dump_json()) == one


def meanings(model: type[BaseModel]) -> dict[str, object]:
    """The types of a model's fields, by name; what may be missing alone is no other type."""
    hints = {name: hint for name, hint in get_type_hints(model).items() if name in model.model_fields}
    return {name: frozenset(get_args(hint) or [hint]) - {NoneType} for name, hint in hints.items()}


@pytest.mark.parametrize("model", [StreamEntry, PartialEntry, Receipt, StreamSnapshot, Base, DatasetStatus])
def test_a_field_of_a_stream_means_the_same_in_every_model(model: type[BaseModel]) -> None:
    mine, said = meanings(model), meanings(Manifest) | meanings(StreamEntry) | meanings(Receipt)
    shared = mine.keys() & said.keys()
    assert {"dataset", "guid"} <= shared
    assert {name: mine[name] for name in shared} == {name: said[name] for name in shared}


def test_a_field_is_copied_from_the_first_that_has_it() -> None:
    entry = copied(StreamEntry, an_entry(), a_manifest(), restorable=False)
    assert entry == an_entry().model_copy(update={"restorable": False})
    found = copied(Receipt, entry, a_manifest())
    assert (found.restorable, found.file) == (False, an_entry().file)
    assert (found.file_sha256, found.segments) == (a_manifest().file_sha256, a_manifest().segments)
    with pytest.raises(ValidationError, match="file_sha256"):
        copied(Receipt, entry)
