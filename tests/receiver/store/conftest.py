from __future__ import annotations

import pytest
from tests.receiver.arriving import (
    RAW,
    begun,
    flip,
    journal_of,
    lose_sector,
    second,
)

from fullsend_receiver.store.local import LocalStore


@pytest.fixture(params=["a bit", "a sector"])
def spoilt(request: pytest.FixtureRequest, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A store with two partials; the disk has lost something of the journal of RAW's."""
    begun(store)
    ingest = second(store, RAW)
    ingest.partial.close(keep=True)
    if request.param == "a bit":
        flip(journal_of(store))
    else:
        lose_sector(journal_of(store), monkeypatch)
    return store
