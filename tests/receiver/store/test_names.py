from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests import streams
from tests.streams import each, whole

from fullsend_protocol.format.names import HASH_SUFFIX, MANIFEST_SUFFIX, STREAM_SUFFIX
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.facts import Facts
from fullsend_protocol.stream.records import Walker
from fullsend_receiver.store.names import (
    dataset_folder,
    encode_component,
    guid_in_name,
    stream_file,
)

if TYPE_CHECKING:
    from tests.streams import Genuine

LONGEST_SUFFIX = max(HASH_SUFFIX, MANIFEST_SUFFIX, key=len)

#: What can be a part of a ZFS name, and far more: a BEGIN record may hold any UTF-8 but NUL, `/` and `@`.
names = st.text(st.characters(exclude_characters="\0/@", exclude_categories=["Cs"]), min_size=1, max_size=255).filter(
    lambda name: len(name.encode()) <= 255
)
guids = st.integers(0, (1 << 64) - 1)
flags = st.from_regex(r"\AL?e?c?w?p?(r[0-9a-f]{8})?\Z")


def some_facts(**changes: Any) -> Facts:
    fields: dict[str, Any] = {
        "dataset": "tank/data",
        "snapshot": "now",
        "guid": streams.GUID,
        "base_guid": None,
        "kind": "full",
        "dataset_type": "filesystem",
        "stream_class": "plain",
        "flags": "",
        "features": (),
        "created": 0,
        "substreams": (),
    }
    return Facts(**fields | changes)


def facts_of(raw: bytes) -> Facts:
    walker = Walker()
    walker.walk(raw, 0, len(raw), 1 << 63)
    return facts.conclude(walker.begins)


# --- one component -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("data", "data"),
        ("ABCXYZabcxyz0123456789_.:-", "ABCXYZabcxyz0123456789_.:-"),
        ("two words", "two%20words"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("~", "%7E"),
        ("@", "%40"),
        ("a\tb\nc\x7f", "a%09b%0Ac%7F"),
        ("$(rm -rf *)'\"\\", "%24%28rm%20-rf%20%2A%29%27%22%5C"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("写真", "%E5%86%99%E7%9C%9F"),
        ("😀", "%F0%9F%98%80"),
        ("-rf", "-rf"),
    ],
)
def test_unsafe_bytes_become_percent_and_two_upper_case_digits(name: str, encoded: str) -> None:
    assert encode_component(name) == encoded


def test_every_byte_of_ascii_is_either_safe_or_encoded() -> None:
    safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-"
    for code in range(1, 128):
        assert encode_component(chr(code)) == (chr(code) if chr(code) in safe else f"%{code:02X}")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a" * 134, "a" * 133),
        ("a" * 255, "a" * 133),
        (" " * 45, "%20" * 44),  # 135 bytes encoded: 133 would end inside the last %20
        ("a" + " " * 45, "a" + "%20" * 44),  # here exactly 133 are kept
        ("aa" + " " * 45, "aa" + "%20" * 43),
        ("ö" * 100, "%C3%B6" * 22),  # a character may be parted, its %XX not
        ("aa" + "ö" * 100, "aa" + "%C3%B6" * 21 + "%C3"),
    ],
)
def test_long_name_is_cut_outside_of_an_escape_and_hashed(name: str, kept: str) -> None:
    assert encode_component(name) == f"{kept}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@pytest.mark.parametrize("name", ["a" * 133, "a" + " " * 44, "ö" * 22])
def test_name_of_up_to_133_encoded_bytes_is_kept_whole(name: str) -> None:
    assert "~" not in encode_component(name)


def test_names_that_begin_alike_are_told_apart_by_the_hash() -> None:
    assert encode_component("a" * 200 + "1") != encode_component("a" * 200 + "2")


@given(names)
def test_component_is_safe_and_short(name: str) -> None:
    encoded = encode_component(name)
    assert re.fullmatch(r"(?:[A-Za-z0-9_.:-]|%[0-9A-F]{2})+(?:~[0-9a-f]{16})?", encoded)
    assert len(encoded.split("~")[0]) <= 133


@given(names, names)
def test_different_names_have_different_components(one: str, other: str) -> None:
    assume(one != other)
    assert encode_component(one) != encode_component(other)


@given(st.text("aA %ö~.", min_size=1, max_size=60), st.text("aA %ö~.", min_size=1, max_size=60))
def test_different_names_of_few_characters_have_different_components(one: str, other: str) -> None:
    """Few characters, so that names that nearly collide are found; many, so that some are cut."""
    assert (encode_component(one) == encode_component(other)) == (one == other)


# --- folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("tank", "alpha/tank"),
        ("tank/a/b", "alpha/tank/a/b"),
        ("tank/.", "alpha/tank/%2E"),
        ("tank/../../etc", "alpha/tank/%2E%2E/%2E%2E/etc"),
        ("..", "alpha/%2E%2E"),
        ("tank/...", "alpha/tank/..."),
        ("tank/.hidden", "alpha/tank/.hidden"),
        ("tank/odd name", "alpha/tank/odd%20name"),
    ],
)
def test_dataset_has_a_folder_below_its_sender(dataset: str, folder: str) -> None:
    assert dataset_folder("alpha", dataset) == PurePosixPath(folder)


@given(st.lists(names, min_size=1, max_size=4), st.lists(names, min_size=1, max_size=4))
def test_datasets_have_folders_of_their_own_inside_the_senders(one: list[str], other: list[str]) -> None:
    folders = [dataset_folder("alpha", "/".join(parts)) for parts in (one, other)]
    assert (folders[0] == folders[1]) == (one == other)
    for folder, parts in zip(folders, (one, other), strict=True):
        assert folder.parts[0] == "alpha"
        assert len(folder.parts) == len(parts) + 1
        assert not {".", ".."} & set(folder.parts)


@given(names)
def test_child_dataset_never_has_the_name_of_a_stream(name: str) -> None:
    assert not encode_component(name).startswith("@")
    assert stream_file("alpha", some_facts(snapshot=name)).name.startswith("@")


# --- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "@now.1122334455667788.full.zfs.zst"),
        ({"guid": 1}, "@now.0000000000000001.full.zfs.zst"),
        ({"flags": "Lec"}, "@now.1122334455667788.full.Lec.zfs.zst"),
        ({"flags": "r0123abcd"}, "@now.1122334455667788.full.r0123abcd.zfs.zst"),
        ({"kind": "incremental", "base_guid": 2}, "@now.1122334455667788.from.0000000000000002.zfs.zst"),
        ({"kind": "package"}, "@now.1122334455667788.package.zfs.zst"),
        ({"kind": "package", "base_guid": 2}, "@now.1122334455667788.package.from.0000000000000002.zfs.zst"),
        ({"kind": "package", "flags": "p"}, "@now.1122334455667788.package.p.zfs.zst"),
        ({"snapshot": "."}, "@..1122334455667788.full.zfs.zst"),
        ({"snapshot": "snap shot:1"}, "@snap%20shot:1.1122334455667788.full.zfs.zst"),
    ],
)
def test_stream_has_its_name(changes: dict[str, Any], name: str) -> None:
    assert stream_file("alpha", some_facts(**changes)) == PurePosixPath("alpha/tank/data") / name


@pytest.mark.parametrize("snapshot", ["x" * 255, " " * 255, "ö" * 127, "a" * 132 + " " + "b" * 122])
def test_longest_name_with_the_longest_suffix_fits_a_file_system(snapshot: str) -> None:
    about = some_facts(snapshot=snapshot, kind="package", base_guid=(1 << 64) - 1, flags="Lecwpr01234567")
    assert len(stream_file("a" * 63, about).name + LONGEST_SUFFIX) <= 255


@given(
    dataset=names,
    snapshot=names,
    guid=guids,
    base_guid=st.none() | guids,
    flags=flags,
    kind=st.sampled_from(["full", "incremental", "package"]),
)
def test_every_name_fits_a_file_system(
    *, dataset: str, snapshot: str, guid: int, base_guid: int | None, flags: str, kind: str
) -> None:
    about = some_facts(dataset=dataset, snapshot=snapshot, guid=guid, base_guid=base_guid, flags=flags, kind=kind)
    file = stream_file("alpha", about)
    assert file.name.endswith(STREAM_SUFFIX)
    assert all(len(part + LONGEST_SUFFIX) <= 255 for part in file.parts)
    assert str(file).isascii()


identities = st.tuples(
    st.text("a.@fulr12 ", min_size=1, max_size=12).filter(lambda name: "@" not in name),
    guids,
    st.tuples(st.just("full"), st.none()) | st.tuples(st.sampled_from(["incremental", "package"]), st.integers(1, 9)),
    flags,
)


@given(identities, identities)
def test_streams_that_differ_in_anything_have_different_names(
    one: tuple[str, int, tuple[str, int | None], str], other: tuple[str, int, tuple[str, int | None], str]
) -> None:
    files = [
        stream_file("alpha", some_facts(snapshot=snapshot, guid=guid, kind=kind, base_guid=base, flags=flags))
        for snapshot, guid, (kind, base), flags in (one, other)
    ]
    assert (files[0] == files[1]) == (one == other)


@given(identities)
def test_guid_is_read_from_a_name_again(identity: tuple[str, int, tuple[str, int | None], str]) -> None:
    snapshot, guid, (kind, base), flags = identity
    about = some_facts(snapshot=snapshot, guid=guid, kind=kind, base_guid=base, flags=flags)
    assert guid_in_name(stream_file("alpha", about).name) == str(guid)


def test_snapshot_that_is_called_as_a_file_is_has_its_own_guid() -> None:
    name = f"s.{1:016x}.from"
    assert guid_in_name(stream_file("alpha", some_facts(snapshot=name)).name) == str(streams.GUID)
    for other in ("@now.zfs.zst", f"@now.{1:016x}.zfs.zst", f"@now.{1:016x}.full.zfs.zst.json", ".zst"):
        assert guid_in_name(other) is None


@each(whole)
def test_genuine_stream_is_named_by_what_it_is(stream: Genuine) -> None:
    about = facts_of(stream.read())
    file = stream_file("alpha", about)
    assert file.parent == dataset_folder("alpha", about.dataset)
    assert file.name.startswith(f"@{encode_component(about.snapshot)}.{about.guid:016x}.")


@pytest.mark.parametrize(
    "same_snapshot",
    [
        ["full-large", "full-large-L", "full-large-Lec"],
        ["full-embed", "full-embed-e"],
        ["full-lz4", "full-lz4-c", "full-p"],
        ["full-enc", "full-enc-w"],
        ["redacted", "redacted-L", "unredacted-L"],
        ["all-I", "all-pI", "incr-2"],
        ["tree-R", "tree-R-i"],
    ],
)
def test_other_sends_of_one_snapshot_have_names_of_their_own(same_snapshot: list[str]) -> None:
    abouts = [facts_of(streams.named(name).read()) for name in same_snapshot]
    assert len({about.guid for about in abouts}) == 1, "else this test shows nothing"
    assert len({stream_file("alpha", about) for about in abouts}) == len(abouts)
