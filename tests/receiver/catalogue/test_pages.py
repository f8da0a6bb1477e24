"""The daemon's catalogue as texts, and put together again: the same as what is read from the disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.receiver.catalogue.test_service import told
from tests.receiver.helpers import SENDER, everywhere, manifest_path, plant

from fullsend_receiver.catalogue import inotify
from fullsend_receiver.catalogue.pages import Pages, items_of
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue

if TYPE_CHECKING:
    from fullsend_receiver.catalogue.streams import Catalogue
    from fullsend_receiver.store.local import LocalStore


@pytest.fixture(params=["told", "not told"])
def filled(request: pytest.FixtureRequest, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """All that can be wrong; on a disk whose changes the kernel tells, and on another."""
    monkeypatch.setattr(inotify, "_OWN", {"told": everywhere(), "not told": frozenset()}[request.param])
    plant(store, "s1", 1, dataset="tank/a")
    damaged = plant(store, "s2", 2, 1, dataset="tank/a")
    ScrubLog(store).add(Scrubbed(str(damaged), "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z", ("rot",), None))
    plant(store, "s3", 3, 2, dataset="tank/renamed")
    (store.root / plant(store, "s1", 11, dataset="tank/b")).unlink()
    plant(store, "s2", 12, 11, dataset="tank/b")
    plant(store, "lost", 20, 19, dataset="tank/größe", sha256=None)
    plant(store, "s9", 90, dataset="tank/other")
    manifest_path(store, plant(store, "orphan", 30, dataset="tank/b")).unlink()
    manifest_path(store, plant(store, "garbage", 31, dataset="tank/b")).write_text("{", encoding="utf-8")
    (store.root / SENDER / "tank" / "link").symlink_to(store.root)
    (store.root / SENDER / "tank" / "\udcff: odd").symlink_to(store.root)
    return store


def through(store: LocalStore, *, dataset: str | None = None, streams: list[str] | None = None) -> Catalogue:
    pages = Pages()
    for item in items_of(Catalogues(store).current(SENDER), dataset=dataset, streams=streams):
        assert item.isascii()
        pages.add([item])
    return pages.catalogue(store)


def test_all_of_it_is_the_same(filled: LocalStore) -> None:
    read = read_catalogue(filled, SENDER)
    assert told(through(filled)) == told(read)
    assert len(read.problems) == 4
    assert [read.obstacle(each) for each in read.streams] == [read.obstacle(each) for each in through(filled).streams]


@pytest.mark.parametrize("dataset", ["tank/a", "tank/renamed", "tank/b", "tank/größe", "tank/other", "tank/none"])
def test_of_a_dataset_comes_all_that_it_depends_on(filled: LocalStore, dataset: str) -> None:
    read, found = read_catalogue(filled, SENDER), through(filled, dataset=dataset)

    def about(catalogue: Catalogue) -> object:
        chosen = catalogue.select(SENDER, dataset)
        return [catalogue.entry(each) for each in chosen], [catalogue.chain(each) for each in chosen]

    assert about(found) == about(read)
    assert found.problems == read.problems
    assert len(found.streams) < len(read.streams)


def test_of_named_streams_comes_all_that_they_depend_on(filled: LocalStore) -> None:
    read = read_catalogue(filled, SENDER)
    for stored in read.streams:
        about = stored.summary
        for what in (f"{about.dataset}@{about.snapshot}", f"guid:{about.guid}", about.path, stored.file.name):
            found = through(filled, streams=["nothing", what])
            same = found.find(SENDER, what)
            assert same == read.find(SENDER, what)
            assert (found.entry(same), found.chain(same)) == (read.entry(stored), read.chain(stored))
    assert through(filled, streams=["nothing"]).streams == []


def test_a_folder_of_many_streams_comes_in_several_items(store: LocalStore) -> None:
    for number in range(1, 251):
        plant(store, f"s{number}", number, number - 1 or None)
    items = list(items_of(Catalogues(store).current(SENDER)))
    assert [len(json.loads(item)[2]) for item in items] == [100, 100, 50]
    assert told(through(store)) == told(read_catalogue(store, SENDER))


@pytest.mark.parametrize(
    "item",
    [
        *("", "{", "7", '["shelf"]', '["shelf", "a", 7]', '["shelf", "a", [7]]', '["shelf", "a", [[]]]'),
        *('["shelf", "a", [["name", true]]]', '["problem", "other", "a", "b"]', '["problem", "link", 7, "b"]'),
    ],
)
def test_what_has_another_form_is_refused(item: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        Pages().add([item])


def test_nothing_is_an_empty_catalogue(store: LocalStore) -> None:
    assert told(Pages().catalogue(store)) == told(read_catalogue(store))
