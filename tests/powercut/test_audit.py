"""The audit of the power-cut test lets a store pass that keeps its promises, and sees each that is broken."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.powercut.audit import audit
from tests.receiver import helpers
from tests.receiver.helpers import SENDER

from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store.opened import open_offer, partial_key

if TYPE_CHECKING:
    from collections.abc import Callable

STORED, PARTIAL = 0, 1
RAW: Final = tuple(
    helpers.long_stream(2, tail=1, name=f"tank/{name}@now", guid=guid) for guid, name in ((7, "stored"), (8, "partial"))
)


class Case:
    """A store with a stream and a partial, and the book of what was promised of them."""

    def __init__(self, folder: Path) -> None:
        self.store = helpers.make_store(folder)
        self.file = self.store.root / helpers.store_stream(self.store, SENDER, RAW[STORED])
        push = helpers.push_of(RAW[PARTIAL])
        ingest = Ingest(self.store.begin(partial_key(SENDER, push), open_offer(SENDER, push)))
        helpers.take(ingest, list(helpers.chunks_of(RAW[PARTIAL]))[:2])
        ingest.partial.close(keep=True)
        (self.data,) = self.store.partial.glob("*.data")
        self.journal = self.data.with_suffix(".journal")
        self.book: dict[str, Any] = {
            "streams": [self.entry(number, raw) for number, raw in enumerate(RAW)],
            "enrolled": {},
        }
        catalogue = read_catalogue(self.store)
        receipt = catalogue.receipt(catalogue.streams[0]).model_dump(mode="json")
        self.stored.update(receipt=receipt, finished=True, stored=True)
        self.partial["acked"] = self.partial["marks"][1][0]

    @staticmethod
    def entry(number: int, raw: bytes) -> dict[str, Any]:
        push = helpers.push_of(raw)
        marks = []
        for offset, piece in helpers.cut(raw):
            end = offset + len(piece)
            marks.append([end, hashlib.sha256(raw[:end]).hexdigest()])
        source = {"sender": SENDER, "dataset": push.dataset, "snapshot": push.snapshot, "guid": int(push.guid or "")}
        nothing = {"acked": 0, "resumed": False, "finished": False, "receipt": None, "stored": False, "proven": False}
        nothing["pruned"] = False
        return {"number": number, "source": source, "marks": marks, **nothing}

    @property
    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = self.book["streams"][STORED]
        return found

    @property
    def partial(self) -> dict[str, Any]:
        found: dict[str, Any] = self.book["streams"][PARTIAL]
        return found

    def beside(self, suffix: str) -> Path:
        return self.file.with_name(self.file.name + suffix)

    def audit(self, **changes: Any) -> list[str]:
        """`changes`: of what `list` says of each stream."""
        catalogue = read_catalogue(self.store)
        listed = [catalogue.entry(stored).model_dump(mode="json") | changes for stored in catalogue.streams]
        # The book as the guest reads it.
        self.findings = audit(self.store.root, json.loads(json.dumps(self.book)), listed)
        return self.findings.violations


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path / "store")


def test_what_is_kept_passes(case: Case) -> None:
    assert case.audit() == []
    assert case.findings.stored == [STORED]
    assert case.findings.kept == {PARTIAL: case.partial["acked"]}
    assert case.findings.figures == {
        "stored streams read": 1,
        "partials read": 1,
        "receipts held": 1,
        "acknowledged offsets held": 1,
    }


def prune(case: Case, *, dropped: int, stored: int) -> None:
    """Push fulls into a dataset that is pruned, and drop the first ones."""
    for number in range(dropped + stored):
        raw = helpers.small_stream("tank/line/pruned", number, offset=1000)
        file = helpers.store_stream(case.store, SENDER, raw)
        entry = case.entry(len(case.book["streams"]), raw)
        case.book["streams"].append(entry)
        catalogue = read_catalogue(case.store)
        found = catalogue.at(file)
        assert found is not None
        entry.update(receipt=catalogue.receipt(found).model_dump(mode="json"), finished=True, stored=True)
        if number < dropped:
            helpers.remove(case.store, file)


def test_what_is_pruned_need_not_be_there(case: Case) -> None:
    prune(case, dropped=2, stored=2)
    assert case.audit() == []
    assert case.findings.pruned == [2, 3]
    assert case.findings.figures["streams pruned"] == 2
    for number in case.findings.pruned:
        case.book["streams"][number]["pruned"] = True
    assert case.audit() == []
    assert case.findings.figures["streams pruned"] == 0


def test_one_of_the_two_newest_must_not_be_pruned(case: Case) -> None:
    prune(case, dropped=1, stored=1)
    assert any("was stored, and is not listed" in line for line in case.audit())


def test_what_was_pruned_must_not_come_back(case: Case) -> None:
    prune(case, dropped=0, stored=3)
    case.book["streams"][2]["pruned"] = True
    assert any("had been pruned, and is listed again" in line for line in case.audit())


def test_who_has_joined_is_enrolled(case: Case) -> None:
    enrol(case, "beta", "11" * 32, None)
    assert case.audit() == []
    assert case.findings.figures["enrolments held"] == 1


def test_a_stream_may_be_stored_whose_receipt_did_not_arrive(case: Case) -> None:
    case.stored.update(receipt=None, stored=False, acked=100)
    assert case.audit() == []
    assert case.findings.stored == [STORED]
    assert case.findings.figures["stored without a receipt"] == 1


def test_a_stream_in_several_segments_has_no_hash_of_the_whole_at_first(case: Case) -> None:
    (fault,) = case.audit(sha256=None)
    assert "sha256 is None" in fault
    case.stored["resumed"] = True
    assert case.audit(sha256=None) == []
    assert case.audit(sha256="11" * 32)


def test_more_may_be_kept_than_was_acknowledged_and_what_nothing_was_may_be_gone(case: Case) -> None:
    case.partial["acked"] = case.partial["marks"][0][0]
    assert case.audit() == []
    case.partial["acked"] = 0
    case.data.unlink()
    case.journal.unlink()
    assert case.audit() == []


def flip(path: Path, at: int = 1000) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def lose(case: Case) -> None:
    for suffix in ("", ".json", ".sha256"):
        case.beside(suffix).unlink()


def shorten(case: Case) -> None:
    case.data.write_bytes(case.data.read_bytes()[:-1])


def fall_back(case: Case) -> None:
    """To the first acknowledged offset, in good order."""
    lines = case.journal.read_bytes().splitlines(keepends=True)
    case.journal.write_bytes(b"".join(lines[:2]))
    stored = json.loads(lines[1].partition(b" ")[2])["durable"]["stored"]
    case.data.write_bytes(case.data.read_bytes()[:stored])


def enrol(case: Case, name: str, fingerprint: str, revoked: float | None) -> None:
    """`name` has joined; this is in the table."""
    case.book["enrolled"][name] = "11" * 32
    rows = [{"name": "beta", "fingerprint": fingerprint, "revoked": revoked}]
    (case.store.state / "senders.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")


def edit_manifest(case: Case) -> None:
    path = case.beside(".json")
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps(manifest | {"sha256": "11" * 32}), encoding="utf-8")


@pytest.mark.parametrize(
    ("break_it", "seen"),
    [
        (lose, "was stored, and is not listed"),
        (lambda case: case.beside(".json").unlink(), "was stored, and is not listed"),
        (lambda case: case.beside(".json").unlink(), "not all are there"),
        (lambda case: case.beside(".sha256").unlink(), "not all are there"),
        (lambda case: flip(case.file), "cannot be read"),
        (lambda case: flip(case.file, case.file.stat().st_size - 1), "its SHA-256 is"),
        (lambda case: flip(case.beside(".sha256"), 3), "its .sha256 says"),
        (edit_manifest, "sha256 is '1111"),
        (lambda case: case.file.write_bytes(case.file.read_bytes()[:-1]), "restorable is False"),
        (lambda case: shutil.copytree(case.file.parent, case.file.parent.with_name("copy")), "is listed twice"),
        (lambda case: case.book["streams"].__delitem__(STORED), "was never pushed"),
        (lambda case: case.stored.update(finished=False), "never said that it was whole"),
        (lambda case: case.data.unlink(), "means nothing"),
        (lambda case: case.journal.unlink(), "all is gone"),
        (shorten, "its journal says"),
        (fall_back, "raw bytes were acknowledged, and"),
        (lambda case: flip(case.data), "cannot be decoded"),
        (lambda case: flip(case.journal, 20), "is not whole after 0 lines"),
        (lambda case: flip(case.journal, case.journal.stat().st_size - 5), "is not whole after 2 lines"),
        (lambda case: case.partial["marks"][1].__setitem__(1, "11" * 32), "decodes to"),
        (lambda case: case.partial["marks"].__delitem__(1), "no run of chunks"),
        (lambda case: case.book["streams"].__delitem__(PARTIAL), "was never pushed"),
        (lambda case: case.data.rename(case.data.with_suffix(".data.damaged")), "means nothing"),
        (lambda case: case.book["enrolled"].update(gamma="22" * 32), "senders.json: cannot be read"),
        (lambda case: enrol(case, "gamma", "22" * 32, None), "had joined, and is not enrolled"),
        (lambda case: enrol(case, "beta", "22" * 32, None), "had joined, and is not enrolled"),
        (lambda case: enrol(case, "beta", "11" * 32, 1.5), "had joined, and is not enrolled"),
        (lambda case: (case.store.state / ".x.tmp").touch(), "was left behind"),
    ],
)
def test_what_is_broken_is_seen(case: Case, break_it: Callable[[Case], object], seen: str) -> None:
    break_it(case)
    assert any(seen in line for line in case.audit()), case.findings.violations
