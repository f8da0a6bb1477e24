"""What is stored of one sender, a part at a time: each answer is the one that all of it together gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.receiver.helpers import SENDER, make_store, manifest_path, plant, remove

from fullsend_receiver.catalogue import holdings as module
from fullsend_receiver.catalogue.folded import Folded
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import AmbiguousStream, Catalogue, NoSuchStream, read_catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_receiver.store.local import LocalStore

NOW = "2026-11-24T12:00:00Z"
DATASETS = ("tank/a", "tank/b", "tank/c", "tank/d")


def held(store: LocalStore) -> Holdings:
    return Catalogues(store).current(SENDER)


def files(catalogue: Catalogue) -> list[str]:
    return [each.summary.path for each in catalogue.streams]


def datasets(catalogue: Catalogue) -> list[str]:
    return sorted({each.summary.dataset for each in catalogue.streams})


def answers(whole: Catalogue, part: Catalogue) -> list[tuple[Any, ...]]:
    """All that is said of the streams of a part: by that part, or by all of it."""
    return [
        (
            whole.entry(each),
            bool(whole.chain(each)),
            len(whole.chain(each)),
            sorted(below.summary.path for below in whole.dependents(each)),
            sorted(base.summary.path for base in whole.bases(each)),
        )
        for each in part.streams
    ]


def check(store: LocalStore, found: Holdings) -> None:
    right = read_catalogue(store, SENDER)
    assert len(found) == len(right.streams)
    assert files(found.whole()) == files(right)
    parts = list(found.parts())
    assert sorted(path for part in parts for path in files(part)) == sorted(files(right))
    assert sorted(each for part in parts for each in datasets(part)) == datasets(right)  # none in two parts
    for part in parts:
        assert answers(part, part) == answers(right, part)
    assert [each.summary.path for each in found.select()] == files(right)
    for dataset in DATASETS:
        mine = [each.summary.path for each in right.select(SENDER, dataset)]
        assert [each.summary.path for each in found.select(dataset)] == mine
        around = found.around(dataset=dataset)
        assert [each.summary.path for each in around.select(SENDER, dataset)] == mine
    for each in right.streams:
        assert found.around(file=each.file).at(each.file) == each
        assert found.find(each.summary.path) == each
        assert found.has(each.summary.dataset, each.summary.guid)
        assert not found.has("tank/none", each.summary.guid)
        around = found.around(guid=each.summary.guid)
        assert answers(around, around) == answers(right, around)
    assert found.last_sequence == max((each.summary.sequence or 0 for each in right.streams), default=0)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(DATASETS), st.integers(1, 12), st.none() | st.integers(1, 12), st.sampled_from(["", "L"])
        ),
        unique_by=lambda row: (row[0], row[1], row[2], row[3]),
        max_size=12,
    ),
    st.integers(0, 12),
    st.integers(0, 12),
    st.booleans(),
)
def test_parts_say_what_the_whole_says_however_they_came(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, int, int | None, str]],
    later: int,
    moved: int,
    few: bool,
) -> None:
    store = make_store(tmp_path_factory.mktemp("parts"))
    catalogues = Catalogues(store)
    planted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", 50 if few else 0)
        for number, (dataset, guid, base, flags) in enumerate(rows):
            file = plant(store, f"n{number}", guid, base, dataset=dataset, flags=flags, sequence=1 + number)
            planted.append(file)
            if number == moved:  # by hand: the manifests still say the old name
                folder = store.root / file.parent
                planted = [each for each in planted if each.parent != file.parent]
                folder.rename(folder.with_name("moved"))
            if number >= later:
                catalogues.current(SENDER)
        check(store, catalogues.current(SENDER))
        for file in planted[::3]:
            remove(store, file)
        check(store, catalogues.current(SENDER))


def test_part_is_the_datasets_that_build_on_one_another(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset="tank/old")
    plant(store, "s2", 2, 1, dataset="tank/new")
    plant(store, "s3", 3, dataset="tank/other")
    found = held(store)
    assert datasets(found.around(dataset="tank/new")) == ["tank/new", "tank/old"]
    assert datasets(found.around(dataset="tank/other")) == ["tank/other"]
    assert datasets(found.around(guid="1", dataset="tank/other")) == ["tank/new", "tank/old", "tank/other"]
    assert found.around(dataset="tank/none").streams == []
    assert found.around(guid="77").streams == []
    assert found.around().streams == []
    assert len(list(found.parts())) == 2
    (stored,) = found.select("tank/old")
    assert [each.summary.snapshot for each in found.dependents(stored)] == ["s2"]


def test_dataset_in_two_folders_is_in_one_part(store: LocalStore) -> None:
    """A folder was renamed by hand: its manifests say as before which dataset that is."""
    plant(store, "s1", 1, dataset="tank/a", sequence=1)
    folder = store.root / SENDER / "tank"
    (folder / "a").rename(folder / "b")
    catalogues = Catalogues(store)
    assert len(catalogues.current(SENDER)) == 1
    plant(store, "s2", 2, dataset="tank/a", sequence=2)
    for found in (catalogues.current(SENDER), held(store)):
        assert [datasets(part) for part in found.parts()] == [["tank/a"]]
        check(store, found)


def test_base_that_comes_later_joins_what_has_waited_for_it(store: LocalStore) -> None:
    plant(store, "s2", 2, 1, dataset="tank/new")
    catalogues = Catalogues(store)
    assert datasets(catalogues.current(SENDER).around(dataset="tank/new")) == ["tank/new"]
    plant(store, "s1", 1, dataset="tank/old")
    part = catalogues.current(SENDER).around(dataset="tank/new")
    assert datasets(part) == ["tank/new", "tank/old"]
    assert all(map(part.restorable, part.streams))


def test_results_of_checks_are_not_opened_once_for_each_stream_of_a_chain(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred clones of one template are one part: with the checks of each, a question about one took a second."""
    log = ScrubLog(store)
    for number in range(1, 21):
        file = plant(store, "s", number, 1 if number > 1 else None, dataset=f"tank/{number}")
        log.add(Scrubbed(str(file), "2026-11-24T00:00:00Z", NOW, ("chunk 0",) if number == 5 else (), None))
    found = held(store)
    opened: list[str] = []
    real = Folded._open

    def watched(self: Folded, folder: str) -> Any:
        opened.append(folder)
        return real(self, folder)

    monkeypatch.setattr(Folded, "_open", watched)
    part = found.around(dataset="tank/2")
    assert [each.summary.dataset for each in part.streams if not part.restorable(each)] == ["tank/5"]
    assert opened == []


def test_what_is_held_stays_as_it_was(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    catalogues = Catalogues(store)
    before = catalogues.current(SENDER)
    plant(store, "s2", 2, 1)
    manifest_path(store, file).unlink()
    after = catalogues.current(SENDER)
    assert [each.summary.snapshot for each in before.select()] == ["s1"]
    assert [each.summary.snapshot for each in after.select()] == ["s2"]
    assert before.problems == []
    assert len(after.problems) == 1
    assert after.whole().problems == after.problems


def test_folder_with_streams_of_two_datasets_has_both(store: LocalStore) -> None:
    """Somebody has moved one: its manifest says whose it is."""
    file = plant(store, "s1", 1, dataset="tank/a")
    other = plant(store, "s2", 2, dataset="tank/b")
    for suffix in ("", ".json", ".sha256"):
        (store.root / f"{other}{suffix}").rename((store.root / file).parent / f"{other.name}{suffix}")
    found = held(store)
    assert [each.summary.snapshot for each in found.select("tank/b")] == ["s2"]
    assert (found.has("tank/a", "1"), found.has("tank/a", "2"), found.has("tank/b", "2")) == (True, False, True)
    assert found.find("tank/b@s2").summary.snapshot == "s2"


@pytest.mark.parametrize("guid", ["", "x", "-1", "²", "1" * 30, "18446744073709551616"])
def test_what_is_no_guid_is_not_there(store: LocalStore, guid: str) -> None:
    plant(store, "s1", 1)
    found = held(store)
    assert not found.has("tank/data", guid)
    assert found.around(guid=guid).streams == []
    with pytest.raises(NoSuchStream):
        found.find(f"guid:{guid}")


@pytest.mark.parametrize(
    ("what", "snapshot"),
    [
        ("tank/a@s1", "s1"),
        ("guid:1", "s1"),
        ("tank/a@x.zfs.zst", "x.zfs.zst"),
        ("@s1.0000000000000001.full.zfs.zst", "s1"),
        ("alpha/tank/a/@s1.0000000000000001.full.zfs.zst", "s1"),
        ("tank/b@same", "same"),
    ],
)
def test_stream_is_found_by_name_guid_or_file(store: LocalStore, what: str, snapshot: str) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    plant(store, "x.zfs.zst", 2, dataset="tank/a")
    plant(store, "same", 7, dataset="tank/a")
    plant(store, "same", 7, dataset="tank/b")
    assert held(store).find(what).summary.snapshot == snapshot


@pytest.mark.parametrize("what", ["guid:7", "@same.0000000000000007.full.zfs.zst"])
def test_stream_that_could_be_several_is_refused(store: LocalStore, what: str) -> None:
    plant(store, "same", 7, dataset="tank/a")
    plant(store, "same", 7, dataset="tank/b")
    with pytest.raises(AmbiguousStream, match="2 streams fit"):
        held(store).find(what)


@pytest.mark.parametrize("what", ["", "tank/a", "@s1", "alpha/tank/@s1.0000000000000001.full.zfs.zst", "s1.zfs.zst"])
def test_stream_that_is_not_there_is_said_to_be_none(store: LocalStore, what: str) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    with pytest.raises(NoSuchStream):
        held(store).find(what)


def test_only_what_nobody_has_read_is_to_be_read(store: LocalStore) -> None:
    plant(store, "s1", 1)
    plant(store, "s2", 2, dataset="tank/b", sha256=None)
    assert [each.summary.snapshot for each in held(store).unread()] == ["s2"]


def test_datasets_come_in_order_and_few_parts_are_open(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        plant(store, "s1", 1 + number, dataset=f"tank/{number}")
        plant(store, "s2", 101 + number, 1 + number, dataset=f"tank/z{number}")
    opened: list[int] = []
    real: Callable[..., Catalogue] = Holdings._open

    def count(found: Holdings, paths: Any) -> Catalogue:
        opened.append(1)
        return real(found, paths)

    found = held(store)
    monkeypatch.setattr(Holdings, "_open", count)
    names = [dataset for dataset, _part in found.datasets()]
    assert names == sorted(names)
    assert len(names) == 16
    assert len(opened) == 16


def test_what_cannot_be_listed_comes_with_the_streams_beside_it(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset="tank/a")
    manifest_path(store, plant(store, "s2", 2, dataset="tank/a")).unlink()
    plant(store, "s3", 3, dataset="tank/b")
    (store.root / SENDER / "tank" / "link").symlink_to(store.root)
    catalogues = Catalogues(store)
    for _ in range(2):
        found = catalogues.current(SENDER).troubled()
        assert datasets(found) == ["tank/a"]
        assert found.problems == read_catalogue(store, SENDER).problems
        assert len(found.problems) == 2
    (store.root / SENDER / "tank" / "link").unlink()
    (store.root / SENDER / "tank" / "b" / "link").symlink_to(store.root)
    assert catalogues.current(SENDER).problems == read_catalogue(store, SENDER).problems
