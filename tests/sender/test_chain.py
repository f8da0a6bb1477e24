from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullsend_protocol.errors import UsageError
from fullsend_protocol.manifest import StreamEntry
from fullsend_protocol.records import Feature
from fullsend_protocol.resume_token import ResumeToken
from fullsend_sender.chain import Library, NotRestorable


def entry(name: str, guid: int, base: int | None = None, **about: Any) -> StreamEntry:
    dataset, _, snapshot = name.partition("@")
    said: dict[str, Any] = {
        "sender": "alpha",
        "dataset": dataset,
        "snapshot": snapshot,
        "guid": str(guid),
        "kind": "full" if base is None else "incremental",
        "dataset_type": "filesystem",
        "flags": "Lep",
        "base": None,
        "base_guid": None if base is None else str(base),
        "created": f"2026-11-{guid % 28 + 1:02}T02:00:00Z",
        "received": "2026-11-24T02:00:00Z",
        "raw_bytes": 1000,
        "stored_bytes": 500,
        "sha256": "5c" * 32,
        "file": f"alpha/{dataset}/@{snapshot}.{guid:016x}{'' if base is None else f'.from-{base:016x}'}.zfs.zst",
        "verified": None,
        "damaged": None,
        "restorable": True,
        "lost_spill_count": 0,
    }
    return StreamEntry.model_validate(said | about)


def guids(chain: list[StreamEntry] | None) -> list[int] | None:
    return None if chain is None else [int(each.guid) for each in chain]


def test_a_chain_goes_by_guid_alone() -> None:
    last = entry("tank/new@c", 3, 2)
    library = Library([entry("tank/old@a", 1), entry("tank/old@b", 2, 1), last, entry("tank/new@x", 9)])
    assert guids(library.chain(last)) == [1, 2, 3]
    assert guids(library.chain(last, "2")) == [3]
    assert guids(library.chain(last, "3")) == []
    assert library.chain(last, "9") is None


def test_a_clock_that_was_ahead_once_makes_nothing_the_newest_for_ever() -> None:
    ahead = entry("a@a", 1, created="2036-01-01T00:00:00Z", received="2026-11-01T00:00:00Z")
    library = Library([entry("a@b", 2, 1, created="2026-11-02T00:00:00Z"), ahead])
    assert library.find("a").snapshot == "b"


def test_the_shortest_of_several_and_packages_last() -> None:
    second = entry("a@b", 2, 1)
    library = Library([entry("a@a", 1), second, entry("a@b", 2, file="x.zfs.zst"), entry("a@c", 3, 2)])
    assert guids(library.chain(library.find("a@c"))) == [2, 3]
    assert library.find("a@b").base_guid is None
    package = entry("a@a", 1, kind="package", file="p.zfs.zst")
    library = Library([package, entry("a@a", 1), second])
    chain = library.chain(second)
    assert chain is not None
    assert chain[0].kind == "full"
    assert library.find("a@a").kind == "full"
    assert library.find("p.zfs.zst") == package


@pytest.mark.parametrize(("base", "flags", "possible"), [
    ("Lep", "Lep", True), ("ep", "Lep", True), ("Lep", "ep", False), ("Lewp", "Lep", False), ("Le", "Lecp", True),
    ("Lewp", "Lewp", True), ("Lr00000001", "Lep", False),
])  # fmt: skip
def test_what_may_follow_on_what(base: str, flags: str, possible: bool) -> None:
    last = entry("a@b", 2, 1, flags=flags)
    assert (Library([entry("a@a", 1, flags=base), last]).chain(last) is not None) == possible


def test_what_is_damaged_is_gone_around_or_named() -> None:
    damaged = entry("a@b", 2, 1, damaged="chunk 3 is not what it was", restorable=False)
    last = entry("a@c", 3, 2, restorable=False)
    library = Library([entry("a@a", 1), damaged, last])
    assert library.chain(last) is None
    assert damaged.file in library.obstacle(last)
    assert "chunk 3" in library.obstacle(last)
    assert guids(library.chain(last, "2")) == [3]  # what is restored already need not be whole here
    library = Library([entry("a@a", 1), damaged, entry("a@b", 2), entry("a@c", 3, 2)])
    assert guids(library.chain(library.find("a@c"))) == [2, 3]
    alone = entry("a@c", 3, 2, restorable=False)
    assert "guid:2, the base of a@c, is not stored" in Library([alone]).obstacle(alone)
    gone = entry("a@a", 1, restorable=False)
    assert "a file of its chain is missing" in Library([gone]).obstacle(gone)


def test_what_a_target_with_a_token_may_have_a_part_of() -> None:
    raw = entry("a@b", 2, 1, flags="Lecwp")
    plain = entry("a@b", 2, 1, flags="Lecp")
    others = [
        entry("a@b", 2, flags=""),
        entry("a@b", 2, 1, flags="Lep"),
        entry("a@b", 2, 1, flags="Lecp", damaged="a bit"),
        entry("a@b", 2, 1, flags="Lecp", kind="package"),
        entry("a@b", 2, 1, flags="Lrecececec"),
        entry("a@c", 3, 1, flags="Lecp"),
    ]
    library = Library([*others, raw, plain])
    features = 1 << Feature.LARGE_BLOCKS | 1 << Feature.EMBED_DATA | 1 << Feature.COMPRESSED
    token = ResumeToken("a@b", 2, 1, 5, 0, features)
    assert library.begun(token) == [plain]
    assert library.begun(replace(token, features=features | 1 << Feature.RAW)) == [raw]
    assert library.begun(replace(token, base_guid=None, features=0)) == [others[0]]
    assert library.begun(replace(token, guid=9)) == []


def test_a_circle_ends() -> None:
    one, two = entry("a@a", 1, 2), entry("a@b", 2, 1)
    library = Library([one, two])
    assert library.chain(one) is None
    assert library.obstacle(one)


def test_names() -> None:
    library = Library([entry("a@a", 1), entry("a@b", 2, 1), entry("c@same", 3), entry("c@same", 4)])
    assert library.find("a").guid == "2"
    assert library.find("guid:1").snapshot == "a"
    assert library.find(entry("c@same", 4).file).guid == "4"
    assert library.find(entry("c@same", 4).file.rpartition("/")[2]).guid == "4"
    with pytest.raises(UsageError, match="c@same: 2 streams fit; name one by its file: alpha/c/@same"):
        library.find("c@same")
    for missing in ("b", "a@c", "guid:7", "@x.0000000000000001.zfs.zst"):
        with pytest.raises(NotRestorable, match="no such stream is stored"):
            library.find(missing)


def test_the_newest_is_not_silently_an_older_one() -> None:
    last = entry("a@b", 2, 1, damaged="a bit", restorable=False)
    assert Library([entry("a@a", 1), last]).find("a") == last


def everything(_name: str) -> bool:
    return True


def test_trees() -> None:
    library = Library([
        entry("t@1", 1), entry("t@2", 2, 1),
        entry("t/a@1", 11), entry("t/a/b@2", 12),
        entry("t/gone@1", 13), entry("t/new@2", 14, 13), entry("tt@1", 15),
    ])  # fmt: skip
    chosen, left_out = library.tree("t", None, everything)
    assert [each.dataset for each in chosen] == ["t", "t/a", "t/a/b", "t/new"]
    assert left_out == [("t/gone", "goes on as t/new")]
    assert chosen[0].guid == "2"
    chosen, left_out = library.tree("t", "1", lambda name: name != "t/a")
    assert ([(each.dataset, each.guid) for each in chosen], left_out) == (
        [("t", "1"), ("t/a/b", "12"), ("t/gone", "13")],
        [],
    )
    with pytest.raises(NotRestorable, match="t@9: nothing of it"):
        library.tree("t", "9", everything)
    with pytest.raises(NotRestorable, match="x: nothing of it"):
        library.tree("x", None, everything)
    # A package brings all that is below, and nothing can be received where it will be.
    library = Library([
        entry("t@1", 1), entry("t/a@1", 11), entry("t/a/b@1", 12), entry("tt@1", 15),
        entry("t/a@2", 21, kind="package"),
    ])  # fmt: skip
    chosen, left_out = library.tree("t", None, everything)
    assert [each.guid for each in chosen] == ["1", "21"]
    assert left_out == [("t/a/b", "comes as it was in the package t/a@2")]


@pytest.mark.slow
def test_large_libraries_take_no_time_that_grows_with_their_square() -> None:
    """A thousand datasets with fifty streams each: a quadratic walk takes minutes, and a test has one."""
    entries = [
        entry(f"t/{number}@{night}", number * 100 + night + 1, number * 100 + night if night else None)
        for number in range(1000)
        for night in range(50)
    ]
    library = Library(entries)
    chosen, _left_out = library.tree("t", None, everything)
    assert len(chosen) == 1000
    assert all(guids(library.chain(each)) for each in chosen)


@given(st.lists(st.tuples(st.integers(1, 8), st.none() | st.integers(1, 8), st.booleans()), max_size=12), st.data())
def test_every_chain_can_be_received(streams: list[tuple[int, int | None, bool]], data: st.DataObject) -> None:
    entries = [
        entry(f"a@{guid}", guid, base, file=f"{number}.zfs.zst", damaged="x" if damaged else None)
        for number, (guid, base, damaged) in enumerate(streams)
    ]
    library = Library(entries)
    after = data.draw(st.none() | st.integers(1, 8).map(str))
    for each in entries:
        chain = library.chain(each, after)
        if chain:
            assert chain[-1].guid == each.guid
            assert chain[0].base_guid == after
            assert all(one.guid == other.base_guid for one, other in itertools.pairwise(chain))
            assert not any(one.damaged for one in chain)
        elif chain is None:
            library.obstacle(each)
