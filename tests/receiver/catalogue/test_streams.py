from __future__ import annotations

import itertools
import os
import re
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import streams
from tests.receiver.helpers import (
    PLANTED,
    SENDER,
    hash_path,
    make_store,
    manifest_path,
    plant,
    read_manifest,
    store_stream,
)

from fullsend_protocol.format.manifest import Receipt
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.catalogue import streams as module
from fullsend_receiver.catalogue.problems import ProblemKind
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.catalogue.streams import (
    AmbiguousStream,
    Catalogue,
    Damaged,
    NoBase,
    NoSuchStream,
    StoredStream,
    read_catalogue,
)
from fullsend_receiver.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_protocol.stream.facts import StreamClass
    from fullsend_receiver.store.local import LocalStore


def snapshots(found: Sequence[StoredStream]) -> list[str]:
    return [each.summary.snapshot for each in found]


def restorable(store: LocalStore) -> list[str]:
    """The snapshots of all streams that are restorable, whichever is asked for first."""
    forwards, backwards = read_catalogue(store), read_catalogue(store)
    found = {each.summary.path for each in forwards.streams if forwards.restorable(each)}
    assert found == {each.summary.path for each in reversed(backwards.streams) if backwards.restorable(each)}
    return sorted(each.summary.snapshot for each in forwards.streams if each.summary.path in found)


def named(catalogue: Catalogue, snapshot: str) -> StoredStream:
    (found,) = (each for each in catalogue.streams if each.summary.snapshot == snapshot)
    return found


def found_damaged(store: LocalStore, file: PurePosixPath) -> None:
    read_catalogue(store).scrubbed.add(
        Scrubbed(str(file), read_manifest(store, file).received, "2026-12-01T00:00:00Z", ("chunk 0: rotten",), None)
    )


# --- what is there ----------------------------------------------------------------------------------------------


def test_empty_store_has_nothing(store: LocalStore) -> None:
    catalogue = read_catalogue(store)
    assert (catalogue.streams, catalogue.problems) == ([], [])
    assert read_catalogue(store, "nobody").streams == []


def test_streams_come_by_sender_dataset_and_creation(store: LocalStore) -> None:
    plant(store, "b2", 2, 1, dataset="tank/b", created="2026-01-02T00:00:00Z")
    plant(store, "b1", 1, dataset="tank/b", created="2026-01-01T00:00:00Z")
    plant(store, "a1", 3, dataset="tank/a", created="2026-01-03T00:00:00Z")
    plant(store, "z1", 4, sender="0first", dataset="tank/z")
    assert snapshots(read_catalogue(store).streams) == ["z1", "a1", "b1", "b2"]


def test_streams_of_one_second_come_bases_first(store: LocalStore) -> None:
    for snapshot, guid, base in (("z", 9, None), ("y", 5, 9), ("x", 7, 5), ("w", 1, 7)):
        plant(store, snapshot, guid, base, created="2026-01-01T00:00:00Z")
    assert snapshots(read_catalogue(store).streams) == ["z", "y", "x", "w"]


def test_catalogue_of_a_sender_has_its_streams_alone(store: LocalStore) -> None:
    plant(store, "mine", 1)
    plant(store, "theirs", 1, sender="beta")
    assert snapshots(read_catalogue(store, SENDER).streams) == ["mine"]
    assert snapshots(read_catalogue(store).select("beta", None)) == ["theirs"]


def test_streams_are_chosen_by_dataset(store: LocalStore) -> None:
    plant(store, "one", 1, dataset="tank/data")
    plant(store, "child", 2, dataset="tank/data/child")
    catalogue = read_catalogue(store)
    assert snapshots(catalogue.select(SENDER, "tank/data")) == ["one"]
    assert snapshots(catalogue.select(None, "tank/data/child")) == ["child"]
    assert snapshots(catalogue.select(None, None)) == ["one", "child"]
    assert catalogue.select(SENDER, "tank") == []


def test_folders_that_are_no_senders_are_not_looked_into(store: LocalStore) -> None:
    for name in ("Capitals", "lost+found", ".hidden", "-x"):
        (store.root / name).mkdir()
        (store.root / name / "@s.0000000000000001.full.zfs.zst").touch()
    (store.root / "file").touch()
    assert read_catalogue(store).problems == []


def test_dataset_folders_are_not_followed_out_of_the_store(store: LocalStore) -> None:
    """A symbolic link to a folder above would be walked forever."""
    plant(store, "one", 1)
    (store.root / SENDER / "loop").symlink_to(store.root / SENDER)
    assert snapshots(read_catalogue(store).streams) == ["one"]


def test_manifest_is_read_in_full_where_it_is_asked_for(store: LocalStore) -> None:
    file = plant(store, "one", 1)
    (stored,) = read_catalogue(store).streams
    assert stored.manifest == read_manifest(store, file)
    assert stored.file == file
    manifest_path(store, file).unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        _ = stored.manifest


# --- what is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "cannot be read"),
        (b"{}", "cannot be read"),
        (b'{"format": 2}', "cannot be read"),
    ],
)
def test_manifest_that_cannot_be_read_is_a_problem_and_hides_no_other(
    store: LocalStore, content: bytes, why: str
) -> None:
    file = plant(store, "one", 1)
    plant(store, "two", 2)
    manifest_path(store, file).write_bytes(content)
    catalogue = read_catalogue(store)
    assert snapshots(catalogue.streams) == ["two"]
    (problem,) = catalogue.problems
    assert (problem.kind, problem.path) == (ProblemKind.MANIFEST, f"{file}.json")
    assert problem.what.startswith("cannot be read: ")
    assert "\n" not in str(problem)


def test_manifest_with_one_wrong_value_is_a_problem(store: LocalStore) -> None:
    file = plant(store, "one", 1)
    path = manifest_path(store, file)
    right = path.read_text(encoding="utf-8")
    for old, new in (
        ('"guid": "1"', '"guid": 1'),
        ('"guid": "1"', '"guid": "18446744073709551616"'),
        ('"kind": "full"', '"kind": "half"'),
        ('"class": "plain"', '"class": "first"'),
        ('"flags": ""', '"flags": "xL"'),
        ('"stored_bytes": 7', '"stored_bytes": -7'),
        ('"sender": "alpha"', '"sender": "../alpha"'),
    ):
        assert old in right
        path.write_text(right.replace(old, new), encoding="utf-8")
        catalogue = read_catalogue(store)
        assert catalogue.streams == [], new
        assert len(catalogue.problems) == 1, new


def test_manifest_that_is_a_folder_is_a_problem(store: LocalStore) -> None:
    file = plant(store, "one", 1)
    manifest_path(store, file).unlink()
    manifest_path(store, file).mkdir()
    assert len(read_catalogue(store).problems) == 1


def test_manifest_of_another_sender_is_a_problem(store: LocalStore) -> None:
    """Else a user who can move files decides who may read them."""
    plant(store, "one", 1, sender="beta")
    (store.root / "beta").rename(store.root / SENDER)
    catalogue = read_catalogue(store)
    assert catalogue.streams == []
    (problem,) = catalogue.problems
    assert "belongs to sender beta" in problem.what


def test_data_without_manifest_are_a_problem_and_offered_to_verify(store: LocalStore) -> None:
    file = plant(store, "one", 1)
    manifest_path(store, file).unlink()
    catalogue = read_catalogue(store)
    assert catalogue.streams == []
    assert [*map(str, catalogue.problems)] == [f"{file}: has no manifest; `fullsendd verify` makes one if it is whole"]
    assert [(each.kind, each.path) for each in catalogue.problems] == [(ProblemKind.NO_MANIFEST, str(file))]
    assert read_catalogue(store, SENDER).problems == catalogue.problems
    assert read_catalogue(store, "beta").problems == []


def test_hash_file_alone_is_nothing(store: LocalStore) -> None:
    file = plant(store, "one", 1)
    manifest_path(store, file).unlink()
    (store.root / file).unlink()
    assert hash_path(store, file).exists()
    catalogue = read_catalogue(store)
    assert (catalogue.streams, catalogue.problems) == ([], [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_cannot_be_read_is_a_problem_and_hides_no_other(store: LocalStore) -> None:
    plant(store, "one", 1)
    plant(store, "two", 2, dataset="tank/closed")
    (store.root / SENDER / "tank" / "closed").chmod(0)
    try:
        catalogue = read_catalogue(store)
    finally:
        (store.root / SENDER / "tank" / "closed").chmod(0o700)
    assert snapshots(catalogue.streams) == ["one"]
    assert [*map(str, catalogue.problems)] == ["alpha/tank/closed: cannot be read: Permission denied"]


# --- chains -----------------------------------------------------------------------------------------------------


def test_full_is_restorable_and_carries_its_increments(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, 1)
    plant(store, "s3", 3, 2)
    assert restorable(store) == ["s1", "s2", "s3"]
    catalogue = read_catalogue(store)
    assert snapshots(catalogue.bases(named(catalogue, "s3"))) == ["s2"]
    assert catalogue.bases(named(catalogue, "s1")) == []
    assert sorted(snapshots(catalogue.dependents(named(catalogue, "s1")))) == ["s2", "s3"]
    assert catalogue.dependents(named(catalogue, "s3")) == []


def test_increment_without_its_base_is_not_restorable_nor_what_builds_on_it(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s3", 3, 2)
    plant(store, "s4", 4, 3)
    assert restorable(store) == ["s1"]


def test_chain_continues_under_a_new_name_of_its_dataset(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset="tank/old")
    plant(store, "s2", 2, 1, dataset="tank/new/name")
    assert restorable(store) == ["s1", "s2"]
    catalogue = read_catalogue(store)
    assert catalogue.entry(named(catalogue, "s2")).base == "tank/old@s1"


def test_chain_does_not_care_for_times_and_names(store: LocalStore) -> None:
    plant(store, "z", 1, created="2030-01-01T00:00:00Z")
    plant(store, "y", 2, 1, created="2020-01-01T00:00:00Z")
    plant(store, "x", 3, 2, created="@99999999999999")
    assert restorable(store) == ["x", "y", "z"]


def test_branches_after_a_rollback_are_restorable_each_by_itself(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "left", 2, 1)
    plant(store, "left2", 3, 2)
    right = plant(store, "right", 4, 1)
    plant(store, "right2", 5, 4)
    (store.root / right).unlink()
    assert restorable(store) == ["left", "left2", "s1"]
    catalogue = read_catalogue(store)
    assert sorted(snapshots(catalogue.dependents(named(catalogue, "s1")))) == ["left", "left2", "right", "right2"]
    assert snapshots(catalogue.dependents(named(catalogue, "right"))) == ["right2"]


def test_any_whole_base_will_do(store: LocalStore) -> None:
    """Plain and -c sends of one snapshot: one GUID, two streams."""
    first = plant(store, "s1", 1)
    plant(store, "s1", 1, flags="c")
    plant(store, "s2", 2, 1)
    (store.root / first).unlink()
    assert restorable(store) == ["s1", "s2"]
    catalogue = read_catalogue(store)
    assert len(catalogue.bases(named(catalogue, "s2"))) == 2


@pytest.mark.parametrize(
    ("base", "follower", "follows"),
    [
        ("", "", True),
        ("", "L", True),
        ("L", "L", True),
        ("L", "", False),
        ("Lec", "ec", False),
        ("ecp", "L", True),
        ("c", "", True),
        ("e", "p", True),
        ("Lw", "Lw", True),
    ],
)
def test_stream_without_large_blocks_follows_on_none_with_them(
    store: LocalStore, base: str, follower: str, follows: bool
) -> None:
    plant(store, "s1", 1, flags=base)
    plant(store, "s2", 2, 1, flags=follower)
    assert restorable(store) == (["s1", "s2"] if follows else ["s1"])
    catalogue = read_catalogue(store)
    assert bool(catalogue.dependents(named(catalogue, "s1"))) == follows


@pytest.mark.parametrize("base", ["plain", "raw", "redacted"])
@pytest.mark.parametrize("follower", ["plain", "raw", "redacted"])
def test_chain_is_of_one_class(store: LocalStore, base: str, follower: str) -> None:
    plant(store, "s1", 1, stream_class=base)
    plant(store, "s2", 2, 1, stream_class=follower)
    assert restorable(store) == (["s1", "s2"] if base == follower else ["s1"])


def test_chain_never_leads_to_another_sender(store: LocalStore) -> None:
    plant(store, "s1", 1, sender="beta")
    plant(store, "s2", 2, 1)
    assert restorable(store) == ["s1"]
    catalogue = read_catalogue(store)
    assert catalogue.dependents(named(catalogue, "s1")) == []
    assert catalogue.entry(named(catalogue, "s2")).base is None


def test_package_carries_what_builds_on_its_last_snapshot(store: LocalStore) -> None:
    plant(store, "s5", 5, kind="package")
    plant(store, "s6", 6, 5)
    plant(store, "s9", 9, 6, kind="package")
    assert restorable(store) == ["s5", "s6", "s9"]


@pytest.mark.parametrize("harm", ["removed", "cut", "longer", "found damaged"])
def test_base_that_is_missing_or_damaged_breaks_the_chain(store: LocalStore, harm: str) -> None:
    plant(store, "s1", 1)
    file = plant(store, "s2", 2, 1)
    plant(store, "s3", 3, 2)
    path = store.root / file
    if harm == "removed":
        path.unlink()
    elif harm == "found damaged":
        found_damaged(store, file)
    else:
        path.write_bytes(PLANTED[:-1] if harm == "cut" else PLANTED + b"\0")
    assert restorable(store) == ["s1"]
    catalogue = read_catalogue(store)
    assert not catalogue.whole(named(catalogue, "s2"))
    assert catalogue.whole(named(catalogue, "s3"))


def test_damaged_full_breaks_all(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    plant(store, "s2", 2, 1)
    found_damaged(store, file)
    assert restorable(store) == []


def test_forged_circles_are_not_restorable(store: LocalStore) -> None:
    plant(store, "self", 1, 1)
    plant(store, "a", 2, 4)
    plant(store, "b", 3, 2)
    plant(store, "c", 4, 3)
    plant(store, "tail", 5, 4)
    plant(store, "good", 6)
    assert restorable(store) == ["good"]
    catalogue = read_catalogue(store)
    assert sorted(snapshots(catalogue.dependents(named(catalogue, "a")))) == ["b", "c", "tail"]
    assert catalogue.dependents(named(catalogue, "self")) == []


def test_circle_that_a_full_leads_into_is_restorable(store: LocalStore) -> None:
    """Whatever order the streams are asked in: a full of GUID 1, and forged increments from 1 to 2 and back."""
    plant(store, "full", 1)
    plant(store, "there", 2, 1)
    plant(store, "back", 1, 2)
    assert restorable(store) == ["back", "full", "there"]


def test_chain_longer_than_the_interpreters_stack_is_walked(store: LocalStore) -> None:
    length = sys.getrecursionlimit() + 100
    plant(store, "s1", 1)
    for guid in range(2, length + 1):
        plant(store, f"s{guid}", guid, guid - 1)
    assert len(restorable(store)) == length
    catalogue = read_catalogue(store)
    assert len(catalogue.dependents(named(catalogue, "s1"))) == length - 1


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.none() | st.integers(1, 6), st.sampled_from(["", "L"]), st.booleans()),
        unique_by=lambda row: row[:3],
        max_size=12,
    )
)
def test_stream_is_restorable_exactly_where_some_way_leads_back_to_a_full(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int | None, str, bool]]
) -> None:
    """Held against the plainest possible reading of the rule, on streams that build on one another anyhow."""
    store = make_store(tmp_path_factory.mktemp("chains"))
    names = {}
    for number, (guid, base, flags, whole) in enumerate(rows):
        file = plant(store, f"n{number}", guid, base, flags=flags)
        names[f"n{number}"] = (guid, base, flags, whole)
        if not whole:
            (store.root / file).unlink()
    good: set[str] = set()
    while True:
        more = {
            name
            for name, (_guid, base, flags, whole) in names.items()
            if whole
            and (
                base is None
                or any(names[other][0] == base and (flags == "L" or names[other][2] == "") for other in good)
            )
        }
        if more == good:
            break
        good = more
    assert restorable(store) == sorted(good)
    catalogue = read_catalogue(store)
    ways = {here.summary.path: base for here, base in catalogue.ways()}
    for stored in catalogue.streams:
        chain = catalogue.chain(stored)
        assert bool(chain) == (stored.summary.snapshot in good) == (stored.summary.path in ways)
        if not chain:
            assert catalogue.obstacle(stored)
            continue
        # The shortest chain is that of the way, whichever of several as short ones either takes.
        assert chain[-1] == stored
        assert chain[0].summary.base_guid is None
        assert all(base in catalogue.bases(each) for base, each in itertools.pairwise(chain))
        length, here = 1, ways[stored.summary.path]
        while here is not None:
            length, here = length + 1, ways[here.summary.path]
        assert len(chain) == length


# --- chains -----------------------------------------------------------------------------------------------------


def test_chain_is_the_shortest_of_whole_streams(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, 1)
    plant(store, "s3", 3, 2)
    shortcut = plant(store, "s3", 3, 1, flags="c")
    plant(store, "s4", 4, 3)
    catalogue = read_catalogue(store)
    last = named(catalogue, "s4")
    assert [(each.summary.snapshot, each.summary.flags) for each in catalogue.chain(last)] == [
        ("s1", ""),
        ("s3", "c"),
        ("s4", ""),
    ]
    found_damaged(store, shortcut)
    assert snapshots(read_catalogue(store).chain(last)) == ["s1", "s2", "s3", "s4"]


def test_chain_begins_with_a_package_only_where_it_must(store: LocalStore) -> None:
    package = plant(store, "s1", 1, kind="package")
    full = plant(store, "s1", 1, flags="c")
    plant(store, "s2", 2, 1)
    catalogue = read_catalogue(store)
    assert catalogue.chain(named(catalogue, "s2"))[0].file == full
    assert next(base for here, base in catalogue.ways() if here.summary.snapshot == "s2").file == full  # type: ignore[union-attr]
    (store.root / full).unlink()
    assert catalogue.chain(named(catalogue, "s2"))[0].file == package


def test_what_stands_in_the_way_is_named(store: LocalStore) -> None:
    first = plant(store, "s1", 1)
    second = plant(store, "s2", 2, 1)
    third = plant(store, "s3", 3, 2)
    catalogue = read_catalogue(store)
    (store.root / first).write_bytes(b"")
    assert catalogue.chain(named(catalogue, "s3")) == []
    assert catalogue.obstacle(named(catalogue, "s3")) == (
        f"{first} is damaged (the file is missing, or not as long as it was)"
    )
    found_damaged(store, third)
    catalogue = read_catalogue(store)
    assert catalogue.obstacle(named(catalogue, "s3")) == f"{third} is damaged (chunk 0: rotten)"
    for path in (store.root / first).parent.glob("@s1*"):
        path.unlink()
    catalogue = read_catalogue(store)
    assert catalogue.obstacle(named(catalogue, "s2")) == f"guid:1, the base of {second}, is not stored"


@pytest.mark.parametrize(
    ("base_guid", "stream_class", "flags", "why"),
    [
        ("2", "plain", "", None),
        ("2", "plain", "Lec", None),
        ("2", None, None, None),
        ("3", "plain", "L", None),
        ("3", None, None, None),
        ("3", "plain", "", "guid:3 is stored only as {large}, which it cannot follow: send a full"),
        ("2", "raw", "w", "guid:2 is stored only as {second}, which it cannot follow: send a full"),
        ("7", "plain", "", "guid:7 is not stored: send a full"),
        ("9", "plain", "", "guid:9 is stored, but not restorable: guid:8, the base of {orphan}, is not stored: send a"),
        ("5", "plain", "", "guid:5 is not stored: send a full"),
    ],
)
def test_base_that_an_increment_may_have(
    store: LocalStore, base_guid: str, stream_class: StreamClass | None, flags: str | None, why: str | None
) -> None:
    plant(store, "s1", 1)
    files = {
        "second": plant(store, "s2", 2, 1),
        "large": plant(store, "s3", 3, 2, flags="L"),
        "orphan": plant(store, "s9", 9, 8),
    }
    plant(store, "theirs", 5, sender="beta")
    catalogue = read_catalogue(store)
    if why is None:
        catalogue.check_base(SENDER, base_guid, stream_class=stream_class, flags=flags)
    else:
        with pytest.raises(NoBase, match=re.escape(why.format(**files))):
            catalogue.check_base(SENDER, base_guid, stream_class=stream_class, flags=flags)


@pytest.mark.parametrize(
    ("base_guid", "made_from", "why"),
    [
        ("2", "12", None),
        ("2", "22", None),
        ("2", None, None),
        ("2", "99", "guid:2 is stored only as {first}, which is encrypted with other keys: send a full"),
        ("3", "33", "guid:3 is stored, but not restorable: guid:2, the base of {orphan}, is not stored: send a full"),
        ("4", "99", None),
    ],
)
def test_base_of_a_raw_increment_has_its_keys(
    store: LocalStore, base_guid: str, made_from: str | None, why: str | None
) -> None:
    """A copy with another key has the same GUID; of `old` no keys are known."""
    raw: dict[str, Any] = {"stream_class": "raw", "flags": "w"}
    files = {
        "first": plant(store, "s2", 2, dataset="tank/a", ivset_guid="12", **raw),
        "copy": plant(store, "s2", 2, dataset="tank/b", ivset_guid="22", **raw),
        "orphan": plant(store, "s3", 3, 2, dataset="tank/c", ivset_guid="33", base_ivset_guid="32", **raw),
        "old": plant(store, "s4", 4, **raw),
    }
    catalogue = read_catalogue(store)
    assert not catalogue.restorable(next(each for each in catalogue.streams if each.file == files["orphan"]))
    about: dict[str, Any] = {"stream_class": "raw", "flags": "w", "base_ivset_guid": made_from}
    if why is None:
        catalogue.check_base(SENDER, base_guid, **about)
    else:
        with pytest.raises(NoBase, match=re.escape(why.format(**files))):
            catalogue.check_base(SENDER, base_guid, **about)


# --- STREAM -----------------------------------------------------------------------------------------------------


@pytest.fixture
def chosen(store: LocalStore) -> Catalogue:
    plant(store, "one", 1, flags="L")
    plant(store, "one", 1)
    plant(store, "two", 2, 1, flags="L")
    plant(store, "same", 7, dataset="tank/a")
    plant(store, "same", 7, dataset="tank/b")
    plant(store, "one", 1, sender="beta")
    return read_catalogue(store)


@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("tank/data@two", "alpha/tank/data/@two.0000000000000002.from.0000000000000001.L.zfs.zst"),
        ("guid:2", "alpha/tank/data/@two.0000000000000002.from.0000000000000001.L.zfs.zst"),
        ("tank/a@same", "alpha/tank/a/@same.0000000000000007.full.zfs.zst"),
        ("@one.0000000000000001.full.zfs.zst", "alpha/tank/data/@one.0000000000000001.full.zfs.zst"),
        ("@one.0000000000000001.full.L.zfs.zst", "alpha/tank/data/@one.0000000000000001.full.L.zfs.zst"),
        ("alpha/tank/b/@same.0000000000000007.full.zfs.zst", "alpha/tank/b/@same.0000000000000007.full.zfs.zst"),
    ],
)
def test_stream_is_found_by_name_guid_or_file(chosen: Catalogue, what: str, file: str) -> None:
    assert chosen.find(SENDER, what).summary.path == file


@pytest.mark.parametrize(
    "what",
    [
        "tank/data@three",
        "tank/data",
        "@two",
        "two",
        "",
        "guid:",
        "guid:3",
        "guid:02",
        "guid:two",
        "@one.0000000000000001.full.zfs",
        "@one.0000000000000001.full.zfs.zst.json",
        "beta/tank/data/@one.0000000000000001.full.zfs.zst",
        "tank/data/@one.0000000000000001.full.zfs.zst",
        "../alpha/tank/data/@one.0000000000000001.full.zfs.zst",
    ],
)
def test_stream_that_is_not_there_is_said_to_be_none(chosen: Catalogue, what: str) -> None:
    with pytest.raises(NoSuchStream, match="no such stream is stored"):
        chosen.find(SENDER, what)


@pytest.mark.parametrize(
    ("what", "candidates"),
    [
        ("tank/data@one", ["/data/@one.0000000000000001.full.zfs.zst", "/data/@one.0000000000000001.full.L.zfs.zst"]),
        ("guid:1", ["/data/@one.0000000000000001.full.zfs.zst", "/data/@one.0000000000000001.full.L.zfs.zst"]),
        ("guid:7", ["/a/@same.0000000000000007.full.zfs.zst", "/b/@same.0000000000000007.full.zfs.zst"]),
        (
            "@same.0000000000000007.full.zfs.zst",
            ["/a/@same.0000000000000007.full.zfs.zst", "/b/@same.0000000000000007.full.zfs.zst"],
        ),
    ],
)
def test_stream_that_could_be_several_is_refused_with_its_candidates(
    chosen: Catalogue, what: str, candidates: list[str]
) -> None:
    with pytest.raises(AmbiguousStream, match=r"2 streams fit") as refusal:
        chosen.find(SENDER, what)
    assert refusal.value.exit_code is Exit.USAGE
    for candidate in candidates:
        assert f" alpha/tank{candidate}" in str(refusal.value)
        assert chosen.find(SENDER, f"alpha/tank{candidate}").summary.path == f"alpha/tank{candidate}"


def test_other_senders_streams_are_not_there(chosen: Catalogue) -> None:
    assert chosen.find("beta", "tank/data@one").summary.sender == "beta"
    with pytest.raises(NoSuchStream):
        chosen.find("gamma", "tank/data@one")


def test_snapshot_whose_name_ends_like_a_file_is_found_by_its_name(store: LocalStore) -> None:
    plant(store, "x.zfs.zst", 1)
    assert read_catalogue(store).find(SENDER, "tank/data@x.zfs.zst").summary.guid == "1"


# --- what is said of a stream -----------------------------------------------------------------------------------


def test_entry_and_receipt_say_what_the_manifest_says(store: LocalStore) -> None:
    store_stream(store, SENDER, streams.named("full").read())
    file = store_stream(store, SENDER, streams.named("incr").read())
    manifest = read_manifest(store, file)
    catalogue = read_catalogue(store)
    stored = catalogue.find(SENDER, str(file))
    entry = catalogue.entry(stored)
    for name in type(entry).model_fields.keys() & type(manifest).model_fields.keys():
        assert getattr(entry, name) == getattr(manifest, name), name
    assert entry.base == "tank/plain@s1"
    assert entry.file == str(file)
    assert (entry.verified, entry.damaged, entry.restorable) == (None, None, True)
    receipt = catalogue.receipt(stored)
    assert isinstance(receipt, Receipt)
    assert receipt.file_sha256 == manifest.file_sha256
    assert receipt.restorable


def test_entry_says_when_the_stream_was_found_whole(store: LocalStore) -> None:
    file = plant(store, "s1", 1, sha256=None)
    received = read_manifest(store, file).received
    read_catalogue(store).scrubbed.add(Scrubbed(str(file), received, "2026-12-01T00:00:00Z", (), "22" * 32))
    catalogue = read_catalogue(store)
    entry = catalogue.entry(catalogue.streams[0])
    assert (entry.verified, entry.damaged, entry.restorable) == ("2026-12-01T00:00:00Z", None, True)
    assert entry.sha256 == "22" * 32, "what `verify` computed where the manifest has none"


def test_only_what_is_there_and_not_damaged_counts_as_unreadable(store: LocalStore) -> None:
    files = [plant(store, f"s{number}", number) for number in range(1, 5)]
    log = read_catalogue(store).scrubbed
    at = "2026-12-01T00:00:00Z"
    found_damaged(store, files[2])
    for file in files[:3]:
        log.add(Scrubbed(str(file), read_manifest(store, file).received, at, (), None, unreadable="EIO"))
    (store.root / files[1]).unlink()
    catalogue = read_catalogue(store)
    found = [catalogue.unreadable(named(catalogue, f"s{number}")) for number in range(1, 5)]
    assert [each and (each.unreadable, each.tried) for each in found] == [("EIO", at), None, None, None]


def test_entry_says_what_was_found_damaged(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    found_damaged(store, file)
    catalogue = read_catalogue(store)
    entry = catalogue.entry(catalogue.streams[0])
    assert (entry.verified, entry.damaged, entry.restorable) == (None, "chunk 0: rotten", False)
    with pytest.raises(Damaged, match=r"s1.*full\.zfs\.zst: is stored, and damaged \(chunk 0: rotten\): push it again"):
        catalogue.receipt(catalogue.streams[0])


def test_what_was_found_of_an_earlier_stream_of_that_name_is_not_said_of_this_one(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    found_damaged(store, file)
    plant(store, "s1", 1, received="2026-12-24T00:00:00Z")
    catalogue = read_catalogue(store)
    entry = catalogue.entry(catalogue.streams[0])
    assert (entry.damaged, entry.restorable) == (None, True)


def test_streams_of_a_dataset_are_found_among_many_by_a_few_looks(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of 400 clones went through all their streams for each: 20,000 took two seconds."""
    for sender, number in itertools.product(("alpha", "beta"), range(40)):
        plant(store, f"s{number}", 1 + number, number or None, dataset=f"tank/{number % 13}", sender=sender)
    catalogue = read_catalogue(store)
    looks = 0
    real = module._whose

    def whose(stored: StoredStream) -> tuple[str, str]:
        nonlocal looks
        looks += 1
        return real(stored)

    monkeypatch.setattr(module, "_whose", whose)
    for sender, dataset in itertools.product(("alpha", "beta", "gamma"), ("tank/0", "tank/12", "tank/5", "none", "z")):
        found = catalogue.select(sender, dataset)
        assert found == [each for each in catalogue.streams if real(each) == (sender, dataset)]
    assert looks <= 15 * 16
    assert len(catalogue.select(None, "tank/0")) == 8
