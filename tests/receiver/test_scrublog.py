from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fullsend_receiver.scrublog import Scrubbed, ScrubLog
from fullsend_receiver.store import Store

NOW = "2026-11-23T06:30:00Z"


def _result(file: str = "alpha/tank/@a", *damage: str, received: str = NOW, at: str = NOW) -> Scrubbed:
    return Scrubbed(file, received, at, damage, None if damage else "5c" * 32)


def _path(store: Store) -> Path:
    return store.state / "scrub.jsonl"


def test_nothing_is_known_at_first(store: Store) -> None:
    assert ScrubLog(store).get("alpha/tank/@a", NOW) is None
    assert not _path(store).exists()


def test_what_is_added_is_there_for_all(store: Store) -> None:
    log = ScrubLog(store)
    whole, damaged = _result("a"), _result("b", "chunk 0", "chunk 1")
    for result in (whole, damaged):
        log.add(result)
    for each in (log, ScrubLog(store)):
        assert (each.get("a", NOW), each.get("b", NOW)) == (whole, damaged)


def test_the_last_result_counts(store: Store) -> None:
    log = ScrubLog(store)
    log.add(_result("a", "chunk 0"))
    log.add(_result("a", at="2026-11-24T00:00:00Z"))
    found = ScrubLog(store).get("a", NOW)
    assert found is not None
    assert (found.damage, found.at) == ((), "2026-11-24T00:00:00Z")


def test_a_file_that_was_removed_and_pushed_again_is_another(store: Store) -> None:
    ScrubLog(store).add(_result("a", "chunk 0"))
    assert ScrubLog(store).get("a", "2026-11-25T00:00:00Z") is None


@pytest.mark.parametrize("torn", [b"", b"{", b'{"file": "b", "rece', b"[1]", b'{"file": 5}', b"\xff\n\n"])
def test_a_line_that_is_not_whole_takes_no_other_with_it(store: Store, torn: bytes) -> None:
    ScrubLog(store).add(_result("a"))
    with _path(store).open("ab") as file:
        file.write(torn)
    ScrubLog(store).add(_result("c"))
    log = ScrubLog(store)
    assert log.get("a", NOW) == _result("a")
    assert log.get("b", NOW) is None
    assert log.get("c", NOW) == _result("c")


def test_the_log_is_written_anew_when_it_has_grown_and_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullsend_receiver.scrublog._SLACK", 5)
    log, other = ScrubLog(store), ScrubLog(store)
    other.add(_result("of another process"))
    for number in range(30):
        log.add(_result("a", at=f"2026-11-23T06:30:{number:02}Z"))
    assert len(_path(store).read_bytes().splitlines()) < 10
    fresh = ScrubLog(store)
    assert fresh.get("of another process", NOW) is not None
    found = fresh.get("a", NOW)
    assert found is not None
    assert found.at == "2026-11-23T06:30:29Z"


# --- what another version wrote ----------------------------------------------------------------------------------


def test_known_damage_survives_keys_that_are_not_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key more in a row, and a stream known to be damaged was whole again, and a base."""
    rows: list[dict[str, object]] = [
        {"file": "a", "received": NOW, "at": NOW, "damage": ["chunk 0"], "sha256": None, "parity": "no"},
        {"file": "b", "damage": ["chunk 1"], "version": 2},
        {"file": "c", "received": NOW, "at": NOW, "damage": "chunk 2", "sha256": None},
        {"file": "d", "received": NOW, "at": NOW, "damage": [], "sha256": "5c" * 32, "since": NOW},
        {"file": "a", "received": NOW, "verdict": "unreadable"},  # says nothing that is known of damage
        {"stream": "e", "damage": ["of a form to come"]},
    ]
    _path(store).write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    for _ in range(2):
        log = ScrubLog(store)
        found = {file: log.get(file, NOW) for file in "abcd"}
        damage = {file: each.damage for file, each in found.items() if each is not None}
        assert damage == {"a": ("chunk 0",), "b": ("chunk 1",), "c": ("chunk 2",), "d": ()}
        # Written anew, nothing is lost, also not what this version does not know.
        monkeypatch.setattr("fullsend_receiver.scrublog._SLACK", -100)
        log.add(_result("z"))
        assert b'"parity": "no"' in _path(store).read_bytes()
        assert b"of a form to come" in _path(store).read_bytes()


def test_a_line_is_as_the_documentation_has_it(store: Store) -> None:
    ScrubLog(store).add(_result("a", "chunk 0"))
    row = {"format": 1, "file": "a", "received": NOW, "at": NOW, "damage": ["chunk 0"], "sha256": None}
    assert json.loads(_path(store).read_bytes()) == row


@pytest.mark.parametrize("said", [{}, {"format": 1}, {"format": 2}, {"format": "to come"}])
@pytest.mark.parametrize("damage", [[], ["chunk 0"]])
def test_a_line_of_any_format_counts_by_what_is_known_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, said: dict[str, object], damage: list[str]
) -> None:
    """The first version wrote no format; a later one may write another."""
    row = {"file": "a", "received": NOW, "at": NOW, "damage": damage, "sha256": None, **said}
    _path(store).write_bytes(json.dumps(row).encode() + b"\n")
    log = ScrubLog(store)
    assert log.get("a", NOW) == Scrubbed("a", NOW, NOW, tuple(damage), None)
    # Written anew, a line keeps the format that it has.
    monkeypatch.setattr("fullsend_receiver.scrublog._SLACK", -100)
    log.add(_result("z"))
    rows = [json.loads(line) for line in _path(store).read_bytes().splitlines()]
    assert rows == [row, _result("z").to_row() | {"damage": []}]


_ADD = """
import sys
from pathlib import Path
from fullsend_receiver.scrublog import Scrubbed, ScrubLog
from fullsend_receiver.store import Store
log = ScrubLog(Store(Path(sys.argv[1])))
for number in range(100):
    log.add(Scrubbed(f"{sys.argv[2]}/{number}", "then", "now", ("x" * 5000,), None))
"""


def test_two_that_add_at_once_lose_nothing(store: Store) -> None:
    adding = [subprocess.Popen([sys.executable, "-c", _ADD, store.root, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in adding] == [0, 0]
    log = ScrubLog(store)
    assert all(log.get(f"{name}/{number}", "then") for name in ("a", "b") for number in range(100))
