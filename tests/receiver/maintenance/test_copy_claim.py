"""One process of all hosts copies from one store into another."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.receiver.buckets import MemoryBucket, store_in

from fullsend_receiver.maintenance import copy_claim
from fullsend_receiver.maintenance.copy_claim import CopyBusy, CopyClaimNote, claimed, name_of
from fullsend_receiver.store_s3.bucket import BucketError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ID: Final = "0f"


class Hosts:
    """Hosts that serve one bucket. What waits, waits for no time here."""

    def __init__(self, folder: Path) -> None:
        self.bucket = MemoryBucket(least_part=0)
        self.folder = folder
        self.told: list[str] = []

    def store(self, name: str) -> Any:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return store_in(self.bucket, home, 100_000)

    def claimed(self, name: str, lost: Callable[[], None] = lambda: None, **options: float) -> Any:
        usual = {"beat_every": 3600.0, "look_every": 0.001, "patience": 0.0}
        return claimed(self.store(name), ID, lost, tell=self.told.append, **usual | options)  # type: ignore[arg-type]

    def note(self) -> CopyClaimNote:
        found = self.store("any").documents.get(name_of(ID))
        return CopyClaimNote.model_validate_json(found.data)

    def leave(self, name: str) -> None:
        """Leave a claim, as a host that died."""
        note = CopyClaimNote(token="dead", host=copy_claim.host_of(self.store(name)))
        self.store(name).documents.put(name_of(ID), note.model_dump_json().encode(), if_match=None)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def test_claim_is_given_back(hosts: Hosts) -> None:
    for host in ("one", "two", "one"):
        with hosts.claimed(host):
            assert hosts.note().host.endswith(f"/{host}")
        assert (hosts.note().token, hosts.note().host) == ("", "")
    assert hosts.told == []


def test_host_that_lives_keeps_its_claim(hosts: Hosts) -> None:
    with (
        hosts.claimed("one", beat_every=0.001),
        pytest.raises(CopyBusy, match="copies into that store: wait for its end"),
        hosts.claimed("two", patience=3600.0),
    ):
        pytest.fail("both have it")
    assert hosts.note().token == ""
    assert len(hosts.told) == 1
    assert "copies, or was stopped amid it: waiting for a sign, for 60 min at most" in hosts.told[0]


def test_other_process_of_this_host_has_it(hosts: Hosts) -> None:
    with (
        hosts.claimed("one"),
        pytest.raises(CopyBusy, match="another process of this host"),
        hosts.claimed("one"),
    ):
        pytest.fail("both have it")


def test_other_target_is_another_claim(hosts: Hosts) -> None:
    with hosts.claimed("one"), claimed(hosts.store("one"), "1f", lambda: None):
        pass


def test_claim_of_a_process_of_this_host_that_died_is_taken_at_once(hosts: Hosts) -> None:
    hosts.leave("one")
    with hosts.claimed("one", patience=3600.0):
        assert hosts.note().token != "dead"
    assert hosts.told == []


def test_claim_that_does_not_change_is_taken_over(hosts: Hosts) -> None:
    hosts.leave("one")
    with hosts.claimed("two", patience=0.005):
        assert hosts.note().host.endswith("/two")
    assert len(hosts.told) == 1


def test_wait_ends_when_it_is_told_to(hosts: Hosts) -> None:
    hosts.leave("one")
    stop = threading.Event()
    stop.set()
    with (
        pytest.raises(CopyBusy, match="was told to end"),
        claimed(hosts.store("two"), ID, lambda: None, stop=stop),
    ):
        pytest.fail("it has it")
    assert hosts.note().token == "dead"


def test_owner_is_told_that_its_claim_was_taken_over(hosts: Hosts) -> None:
    lost = threading.Event()
    with hosts.claimed("one", lost.set, beat_every=0.001):
        store = hosts.store("two")
        said = CopyClaimNote(token="other", host="two").model_dump_json().encode()
        while not store.documents.put(name_of(ID), said, if_match=store.documents.get(name_of(ID)).tag):
            pass
        assert lost.wait(30)
    assert hosts.note().token == "other"


def test_owner_that_cannot_renew_its_claim_ends(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(copy_claim, "_GIVES_UP", 0.005)
    lost = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(hosts.claimed("one", lost.set, beat_every=0.001))

        def fail(*_words: object) -> None:
            raise BucketError("s3://memory: is away")

        monkeypatch.setattr(hosts.bucket, "get", fail)
        assert lost.wait(30)
        stack.close()
    assert "the claim of this copy cannot be renewed: s3://memory: is away" in caplog.text
    assert "the claim of this copy cannot be given back: s3://memory: is away" in caplog.text


def test_claim_that_cannot_be_read_is_nobody_s(hosts: Hosts) -> None:
    hosts.store("one").documents.put(name_of(ID), b"{", if_match=None)
    with hosts.claimed("one"):
        assert hosts.note().token
