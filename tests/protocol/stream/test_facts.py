from __future__ import annotations

import contextlib
import hashlib
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import streams
from tests.streams import Genuine, broken, each, file_system, named, package, redacted, substream, tree, whole

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, StreamError, UnsupportedStream
from fullsend_protocol.stream import facts
from fullsend_protocol.stream.facts import Facts, check_package, conclude, feature_words, package_datasets, split_name
from fullsend_protocol.stream.records import Begin, Feature, Walker

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = 1 << 62


def begins(raw: bytes) -> list[Begin]:
    walker = Walker()
    assert walker.walk(raw, 0, len(raw), NEVER) == len(raw)
    return walker.begins


def told(raw: bytes) -> Facts:
    return conclude(begins(raw))


def identity(one: Facts) -> tuple[object, ...]:
    """The identity of a stream: what distinguishes it from all others."""
    return one.dataset, one.guid, one.base_guid, one.kind, one.flags


# --- what a stream is --------------------------------------------------------------------------------------------


def test_full() -> None:
    full = told(substream(name="tank/data@monday", guid=7))
    assert (full.dataset, full.snapshot, full.guid, full.base_guid) == ("tank/data", "monday", 7, None)
    assert (full.kind, full.stream_class, full.flags, full.features) == ("full", "plain", "", ())
    assert full.created == streams.CREATED
    assert [begin.guid for begin in full.substreams] == [7]


def test_incremental() -> None:
    one = told(substream(name="tank/data@tuesday", guid=8, base_guid=7))
    assert (one.kind, one.guid, one.base_guid) == ("incremental", 8, 7)


@pytest.mark.parametrize(
    ("features", "stream_class", "flags", "words"),
    [
        ([], "plain", "", ()),
        ([Feature.SA_SPILL], "plain", "", ("sa_spill",)),
        ([Feature.LARGE_BLOCKS], "plain", "L", ("large_blocks",)),
        ([Feature.EMBED_DATA, Feature.LZ4], "plain", "e", ("embed_data", "lz4")),
        ([Feature.COMPRESSED, Feature.ZSTD], "plain", "c", ("compressed", "zstd")),
        ([Feature.RAW, Feature.COMPRESSED], "raw", "cw", ("compressed", "raw")),
        (
            [Feature.RAW, Feature.COMPRESSED, Feature.EMBED_DATA, Feature.LARGE_BLOCKS],
            "raw",
            "Lecw",
            ("embed_data", "large_blocks", "compressed", "raw"),
        ),
        ([40, 29], "plain", "", ("large_microzap", "bit_40")),
    ],
)
def test_features_show_class_and_flags(
    features: list[int], stream_class: str, flags: str, words: tuple[str, ...]
) -> None:
    one = told(substream(features=features))
    assert (one.stream_class, one.flags, one.features) == (stream_class, flags, words)


def test_redacted_stream_is_told_by_what_it_is_redacted_for() -> None:
    one, other, none = told(redacted([5, 6])), told(redacted([6, 5])), told(redacted([]))
    digest = hashlib.sha256(struct.pack(">QQ", 5, 6)).hexdigest()[:8]
    assert (one.stream_class, one.flags) == ("redacted", "r" + digest)
    assert len({one.flags, other.flags, none.flags}) == 3
    assert told(redacted([5], features=[Feature.LARGE_BLOCKS, Feature.RAW])).stream_class == "redacted"
    assert told(redacted([5], features=[Feature.LARGE_BLOCKS])).flags[:2] == "Lr"


def test_iv_sets_are_those_of_the_top_dataset_from_its_base_to_its_last_snapshot() -> None:
    first = streams.encrypted(name="t@1", guid=1, base_guid=9, ivset_guid=11, base_ivset_guid=19)
    last = streams.encrypted(name="t@2", guid=2, base_guid=1, ivset_guid=12, base_ivset_guid=11)
    below = streams.encrypted(name="t/below@2", guid=3, ivset_guid=13)
    for raw, ivset_guid, base_ivset_guid in (
        (below, 13, None),
        (last, 12, 11),
        (package(first, last, below, name="t@2"), 12, 19),
        (substream(), None, None),
    ):
        assert (told(raw).ivset_guid, told(raw).base_ivset_guid) == (ivset_guid, base_ivset_guid)


def test_redacted_stream_that_does_not_say_for_what_is_redacted_all_the_same() -> None:
    bare = told(substream(features=[Feature.REDACTED]))
    odd = told(substream(features=[Feature.REDACTED], payload=streams.native({"redact_snaps": "none"})))
    assert bare.flags == odd.flags == "r" + hashlib.sha256(b"").hexdigest()[:8]


def test_plain_large_raw_and_redacted_sends_of_one_snapshot_are_kept_apart() -> None:
    """They all have one GUID."""
    sends = [
        substream(),
        substream(features=[Feature.LARGE_BLOCKS]),
        substream(features=[Feature.EMBED_DATA]),
        substream(features=[Feature.COMPRESSED]),
        substream(features=[Feature.RAW]),
        redacted([5]),
        redacted([6]),
        redacted([5], features=[Feature.LARGE_BLOCKS]),
        package(substream(), nvlist=tree("now", file_system("tank/data", {"now": streams.GUID}))),
        substream(base_guid=5),
        substream(name="tank/clone@now"),
    ]
    assert len({identity(told(raw)) for raw in sends}) == len(sends)


def test_genuine_sends_of_one_snapshot_are_kept_apart() -> None:
    plain, large, compressed = named("full-large"), named("full-large-L"), named("full-large-Lec")
    whole_, red, red_large = named("unredacted-L"), named("redacted"), named("redacted-L")
    for group in ([plain, large, compressed], [whole_, red, red_large], [named("full-enc"), named("full-enc-w")]):
        found = [told(stream.read()) for stream in group]
        assert len({one.guid for one in found}) == 1
        assert len({identity(one) for one in found}) == len(group)


@each(whole)
def test_genuine_stream_is_what_its_command_says(stream: Genuine) -> None:
    one = told(stream.read())
    words = stream.command.split("'")[0].split()
    options = [word for word in words if word.startswith("-") and not word.startswith("--")]
    letters = "".join(options)
    assert f"{one.dataset}@{one.snapshot}" == stream.begins[0]["toname"]
    if "-R" in options:
        assert one.kind == "package"
    elif "I" in letters:
        assert one.kind == ("package" if len(one.substreams) > 1 else "incremental")
    else:
        assert one.kind == ("incremental" if "i" in letters else "full")
    assert one.stream_class == ("redacted" if "--redact" in words else "raw" if "w" in letters else "plain")
    assert ("p" in one.flags) == ("p" in letters or "R" in letters)
    assert ("r" in one.flags) == ("--redact" in words)
    assert set(one.flags) & set("Lec") <= set(letters) | set("ec" if "w" in letters else "")
    assert one.dataset_type == ("volume" if one.dataset.split("/")[-1].startswith("vol") else "filesystem")
    check_package(begins(stream.read()))


@pytest.mark.parametrize(("objset_type", "dataset_type"), [(2, "filesystem"), (3, "volume"), (0, "filesystem")])
def test_type_of_the_objects_says_what_the_dataset_is(objset_type: int, dataset_type: str) -> None:
    raw = streams.begin(objset_type=objset_type) + streams.end()
    assert told(raw).dataset_type == dataset_type


def test_package_is_of_its_top_datasets_type() -> None:
    parts = [
        streams.begin("t/volume@z", 1, objset_type=3) + streams.end(1),
        streams.begin("t@z", 2, objset_type=2) + streams.end(2),
        streams.begin("t/other@z", 3, objset_type=3) + streams.end(3),
    ]
    assert told(package(*parts, name="t@z")).dataset_type == "filesystem"
    assert told(package(*parts[:1], parts[2], name="t/volume@z")).dataset_type == "volume"


def test_genuine_package_takes_its_guids_from_its_top_dataset() -> None:
    said = {begin["toname"]: begin["toguid"] for begin in named("tree-R-I").begins}
    one = told(named("tree-R-I").read())
    assert one.guid == said["tank/tree@end"]
    assert one.base_guid == named("tree-R-I").begins[1]["fromguid"]
    assert told(named("tree-R").read()).base_guid is None


# --- packages ----------------------------------------------------------------------------------------------------


def test_package_of_one_substream_is_a_full_or_an_incremental_for_its_user() -> None:
    """-p, and -I over one snapshot."""
    said = tree("now", file_system("tank/data", {"now": streams.GUID}), not_recursive=True)
    full = told(package(substream(), nvlist=said))
    assert (full.kind, full.flags) == ("full", "p")
    one = told(package(substream(base_guid=5)))
    assert (one.kind, one.base_guid, one.flags) == ("incremental", 5, "")


def test_package_has_the_union_of_its_substreams_features() -> None:
    parts = [
        substream(name="t@a", guid=1, features=[Feature.LARGE_BLOCKS]),
        substream(name="t@b", guid=2, base_guid=1, features=[Feature.RAW]),
    ]
    both = told(package(*parts, name="t@b"))
    assert (both.kind, both.stream_class, both.flags) == ("package", "raw", "Lw")
    more = told(package(*parts, redacted([9], name="t@c", guid=3, base_guid=2), name="t@c"))
    assert more.stream_class == "redacted"
    assert more.flags == "Lwr" + hashlib.sha256(struct.pack(">Q", 9)).hexdigest()[:8]


def test_package_is_named_after_its_top_dataset_wherever_that_stands() -> None:
    one = told(
        package(
            substream(name="t/child@z", guid=1),
            substream(name="t@a", guid=2, base_guid=9),
            substream(name="t@z", guid=3, base_guid=2),
            substream(name="t/other@z", guid=4),
            name="t@z",
        )
    )
    assert (one.dataset, one.snapshot, one.guid, one.base_guid) == ("t", "z", 3, 9)


def test_package_of_nothing_is_no_backup() -> None:
    with pytest.raises(IncompleteStream, match="without a single snapshot"):
        told(package())
    with pytest.raises(IncompleteStream):
        conclude([])


@pytest.mark.parametrize("stream", [stream for stream in broken() if stream.sort == "resumed"], ids=lambda s: s.name)
def test_genuine_resumed_stream_is_refused(stream: Genuine) -> None:
    """It looks like a full, with the right GUID, and holds the end alone."""
    with pytest.raises(UnsupportedStream, match="is a resumed stream"):
        told(stream.read())


def test_resumed_substream_is_refused_too() -> None:
    with pytest.raises(UnsupportedStream, match="t@b is a resumed stream"):
        told(package(substream(name="t@a"), substream(name="t@b", features=[Feature.RESUMING]), name="t@b"))


def test_facts_of_an_unfinished_package_are_of_what_has_come() -> None:
    raw = package(substream(name="t@a", guid=1), name="t@b")[: -2 * len(streams.CLOSING_END)]
    assert told(raw + bytes(0)).guid == 1


# --- is a package whole? -----------------------------------------------------------------------------------------

#: Datasets of a package: a top with two snapshots, a child, a clone of the child.
TOP = {"base": 1, "mid": 2, "end": 3}
CHILD = {"base": 11, "mid": 12, "end": 13}
CLONE = {"end": 21}
FSS = (file_system("t", TOP), file_system("t/child", CHILD), file_system("t/clone", CLONE, origin=12))


def sub(name: str, guid: int, base_guid: int = 0) -> bytes:
    return substream(name=name, guid=guid, base_guid=base_guid)


FULL_PARTS = {
    "t@base": sub("t@base", 1),
    "t@mid": sub("t@mid", 2, 1),
    "t@end": sub("t@end", 3, 2),
    "t/child@base": sub("t/child@base", 11),
    "t/child@mid": sub("t/child@mid", 12, 11),
    "t/child@end": sub("t/child@end", 13, 12),
    "t/clone@end": sub("t/clone@end", 21, 12),
}
FROM_BASE_PARTS = {name: part for name, part in FULL_PARTS.items() if not name.endswith("@base")}


def check(parts: dict[str, bytes], fromsnap: str | None = None, *, name: str = "t@end") -> None:
    check_package(begins(package(*parts.values(), name=name, nvlist=tree("end", *FSS, fromsnap=fromsnap))))


def without(parts: dict[str, bytes], *missing: str) -> dict[str, bytes]:
    return {name: part for name, part in parts.items() if name not in missing}


def test_whole_package_is_whole() -> None:
    check(FULL_PARTS)
    check(FROM_BASE_PARTS, "base")


def test_package_of_single_increments_need_not_have_what_lies_between() -> None:
    """-R -i @base: the nvlist is that of -R -I; only clones' origins are sent besides the newest."""
    check(without(FROM_BASE_PARTS, "t@mid", "t@end") | {"t@end": sub("t@end", 3, 1)}, "base")


def test_dataset_without_the_base_is_sent_from_nothing_or_from_its_origin() -> None:
    late = tree("end", *FSS, file_system("t/late", {"own": 31, "end": 32}), fromsnap="base")
    for parts in ([sub("t/late@own", 31), sub("t/late@end", 32, 31)], [sub("t/late@end", 32)]):
        check_package(begins(package(*FROM_BASE_PARTS.values(), *parts, name="t@end", nvlist=late)))
    with pytest.raises(IncompleteStream, match="t/late@end is the first of its dataset, and does not follow @base"):
        check_package(begins(package(*FROM_BASE_PARTS.values(), sub("t/late@end", 32, 31), name="t@end", nvlist=late)))


@pytest.mark.parametrize("missing", FULL_PARTS)
def test_package_that_lacks_any_snapshot_is_not_whole(missing: str) -> None:
    with pytest.raises(IncompleteStream) as caught:
        check(without(FULL_PARTS, missing))
    assert missing in str(caught.value) or "gap" in str(caught.value)


@pytest.mark.parametrize("missing", FROM_BASE_PARTS)
def test_incremental_package_that_lacks_any_snapshot_is_not_whole(missing: str) -> None:
    with pytest.raises(IncompleteStream):
        check(without(FROM_BASE_PARTS, missing), "base")


@pytest.mark.parametrize("dataset", ["t", "t/child", "t/clone"])
@pytest.mark.parametrize("fromsnap", [None, "base"])
def test_package_that_lacks_a_dataset_is_not_whole(dataset: str, fromsnap: str | None) -> None:
    parts = FULL_PARTS if fromsnap is None else FROM_BASE_PARTS
    missing = [name for name in parts if name.startswith(dataset + "@")]
    with pytest.raises(IncompleteStream, match=r"did not arrive|ends without t@end"):
        check(without(parts, *missing), fromsnap)


@pytest.mark.parametrize("kept", range(7))
def test_package_that_ends_after_any_of_its_snapshots_is_not_whole(kept: int) -> None:
    with pytest.raises(IncompleteStream):
        check(dict(list(FULL_PARTS.items())[:kept]))


def test_snapshot_that_arrived_in_another_dataset_has_not_arrived() -> None:
    """A GUID alone is no proof: `zfs receive` would put it where its name says."""
    with pytest.raises(IncompleteStream):
        check(without(FULL_PARTS, "t/child@base", "t/child@mid", "t/child@end") | {"x": sub("t/other@end", 13)})


def test_package_without_nvlist_must_be_gapless_and_end_where_its_name_says() -> None:
    """A plain -I: nothing else tells that `zfs send` failed half-way."""
    parts = [sub("t@mid", 2, 1), sub("t@end", 3, 2)]
    check_package(begins(package(*parts, name="t@end")))
    with pytest.raises(IncompleteStream, match="ends without t@end"):
        check_package(begins(package(parts[0], name="t@end")))
    with pytest.raises(IncompleteStream, match="t@end does not follow t@mid"):
        check_package(begins(package(parts[0], sub("t@end", 3, 9), name="t@end")))
    with pytest.raises(IncompleteStream, match="t@mid does not follow t@end"):
        check_package(begins(package(*reversed(parts), name="t@end")))


def test_stream_that_is_no_package_has_nothing_to_check() -> None:
    check_package([])
    check_package(begins(substream()))


def test_genuine_package_with_an_excluded_dataset_is_refused_and_the_line_says_why() -> None:
    with pytest.raises(IncompleteStream, match=r"tank/tree/late@.*excluded \(-X\)"):
        check_package(begins(named("tree-R-X").read()))


@each(lambda: [stream for stream in whole() if stream.begins[0]["compound"]])
def test_genuine_package_is_whole_and_without_any_one_substream_it_is_not(stream: Genuine) -> None:
    found = begins(stream.read())
    check_package(found)
    for lost in range(1, len(found)):
        kept = [*found[:lost], *found[lost + 1 :]]
        if lost == 1 and not found[0].payload:
            continue  # a plain -I says nowhere where it begins: without a stored base it is not restorable, then
        with pytest.raises(IncompleteStream):
            check_package(kept)


# --- which datasets a package brings -----------------------------------------------------------------------------


@pytest.mark.parametrize(("fromsnap", "more"), [(None, {"t/old"}), ("base", set())])
def test_package_brings_the_datasets_of_which_it_has_snapshots(fromsnap: str | None, more: set[str]) -> None:
    """From a base on it has nothing of what lacks its last snapshot."""
    none, old = file_system("t/none", {}), file_system("t/old", {"base": 41})
    (outer, *_others) = begins(
        package(*FULL_PARTS.values(), name="t@end", nvlist=tree("end", *FSS, none, old, fromsnap=fromsnap))
    )
    assert package_datasets(outer.payload) == {"t", "t/child", "t/clone"} | more
    assert package_datasets(b"") == frozenset()


@each(lambda: [stream for stream in whole() if stream.begins[0]["compound"]])
def test_genuine_package_says_what_has_arrived_of_it(stream: Genuine) -> None:
    outer, *others = begins(stream.read())
    arrived = {split_name(begin.name)[0] for begin in others}
    assert package_datasets(outer.payload) == (arrived if outer.payload else set())


#: Values that no libzfs writes where these stand.
ODD: list[dict[str, Any]] = [
    {"tosnap": "end", "fss": 5},
    {"tosnap": "end", "fss": {"0x1": "x"}},
    {"tosnap": "end", "fss": {"0x1": {"name": 5, "snaps": 6}}},
    {"tosnap": 5, "fromsnap": 6, "fss": {"0x1": {"snaps": {"end": 3}}}},
    {"tosnap": "end", "fss": {"0x1": {"name": "t", "snaps": {"end": "x", "mid": {}}}}},
    {"tosnap": "end", "fss": {"0x1": {"name": "t", "snaps": {"end": {}}}}},
    {"tosnap": "end", "fss": {"0x1": {"name": "t", "snaps": {"end": (3,)}}}},
    {},
]


@pytest.mark.parametrize("said", ODD)
def test_nvlist_of_another_form_is_a_stream_error_at_most(said: dict[str, Any]) -> None:
    with contextlib.suppress(StreamError):
        check_package(begins(package(sub("t@end", 3), name="t@end", nvlist=said)))


NV: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([True, 0, 1, 2, 3, "end", "base", "t", (1, 2)]),
    lambda inner: st.dictionaries(
        st.sampled_from(["tosnap", "fromsnap", "fss", "name", "snaps", "origin", "end", "base", "t"]), inner, max_size=4
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["tosnap", "fromsnap", "fss"]), NV))
def test_any_nvlist_is_a_stream_error_at_most(said: dict[str, Any]) -> None:
    with contextlib.suppress(StreamError):
        found = begins(package(sub("t@end", 3), name="t@end", nvlist=said))
        check_package(found)
        conclude(found)
        package_datasets(found[0].payload)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dataset", "snapshot"),
    [
        ("tank@s", "tank", "s"),
        ("tank/a b@snap shot:1", "tank/a b", "snap shot:1"),
        ("tank/100%@50%", "tank/100%", "50%"),
        ("tank/../etc@..", "tank/../etc", ".."),
        ("tank/./x@.", "tank/./x", "."),
        ("tank/Größe/日本@früh", "tank/Größe/日本", "früh"),
        ("tank/#bookmark@s#t", "tank/#bookmark", "s#t"),
        ("t" * 200 + "@" + "s" * 54, "t" * 200, "s" * 54),
        ("tank/\x1b[2J@\n", "tank/\x1b[2J", "\n"),
    ],
)
def test_name_of_any_kind_is_taken_as_it_is(name: str, dataset: str, snapshot: str) -> None:
    """The store makes a safe path of it, and what prints it makes it printable; here nothing is lost."""
    assert len(name.encode()) <= limits.NAME_MAX
    one = told(substream(name=name))
    assert (one.dataset, one.snapshot) == (dataset, snapshot)
    assert split_name(name) == (dataset, snapshot)


@pytest.mark.parametrize(
    "name",
    ["", "@", "tank", "tank@", "@s", "tank//x@s", "/tank@s", "tank/@s", "tank@a@b", "tank@a/b", "tank@@", "/@s", "//"],
)
def test_name_that_is_no_dataset_and_snapshot_is_refused(name: str) -> None:
    with pytest.raises(DamagedStream, match="which is not DATASET@SNAPSHOT"):
        told(substream(name=name))
    with pytest.raises(DamagedStream, match="which is not DATASET@SNAPSHOT"):
        told(package(substream(), substream(name=name)))


@given(st.text(max_size=30))
def test_any_name_is_split_or_refused(name: str) -> None:
    try:
        dataset, snapshot = split_name(name)
    except DamagedStream:
        return
    assert f"{dataset}@{snapshot}" == name
    assert all([*dataset.split("/"), snapshot])


@pytest.mark.parametrize(
    ("features", "words"),
    [(0, ()), (1 << 20, ("resuming",)), (1 << 61 | 1, ("dedup", "bit_61")), (1 << 18, ("bit_18",))],
)
def test_unknown_features_are_shown_by_number(features: int, words: tuple[str, ...]) -> None:
    assert feature_words(features) == words


def test_nothing_is_concluded_from_a_peers_word() -> None:
    """What a stream is called rests on its bytes: no function here takes anything else."""
    functions: list[Callable[..., object]] = [facts.conclude, facts.check_package]
    assert all(function.__code__.co_argcount == 1 for function in functions)
