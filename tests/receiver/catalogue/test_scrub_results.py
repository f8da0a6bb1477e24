from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.store.local import LocalStore

NOW = "2026-11-23T06:30:00Z"


def _result(file: str = "alpha/tank/@a", *damage: str, received: str = NOW, at: str = NOW) -> Scrubbed:
    return Scrubbed(file, received, at, damage, None if damage else "5c" * 32)


def _path(store: LocalStore) -> Path:
    return store.state / "scrub.jsonl"


def test_nothing_is_known_at_first(store: LocalStore) -> None:
    assert ScrubLog(store).get("alpha/tank/@a", NOW) is None
    assert not _path(store).exists()


def test_what_is_added_is_there_for_all(store: LocalStore) -> None:
    log = ScrubLog(store)
    whole, damaged = _result("a"), _result("b", "chunk 0", "chunk 1")
    for result in (whole, damaged):
        log.add(result)
    for each in (log, ScrubLog(store)):
        assert (each.get("a", NOW), each.get("b", NOW)) == (whole, damaged)
        assert [each.is_damaged(file, NOW) for file in "abc"] == [False, True, False]


def test_the_last_result_counts(store: LocalStore) -> None:
    log = ScrubLog(store)
    log.add(_result("a", "chunk 0"))
    log.add(_result("a", at="2026-11-24T00:00:00Z"))
    found = ScrubLog(store).get("a", NOW)
    assert found is not None
    assert (found.damage, found.at) == ((), "2026-11-24T00:00:00Z")
    assert not log.is_damaged("a", NOW)
    assert not ScrubLog(store).is_damaged("a", NOW)


def test_a_file_that_was_removed_and_pushed_again_is_another(store: LocalStore) -> None:
    ScrubLog(store).add(_result("a", "chunk 0"))
    assert ScrubLog(store).get("a", "2026-11-25T00:00:00Z") is None
    assert not ScrubLog(store).is_damaged("a", "2026-11-25T00:00:00Z")
    assert ScrubLog(store).is_damaged("a", NOW)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"file": "b", "rece', b"[1]", b'{"file": 5}', b"\xff\n\n"])
def test_a_line_that_is_not_whole_takes_no_other_with_it(store: LocalStore, torn: bytes) -> None:
    ScrubLog(store).add(_result("a"))
    with _path(store).open("ab") as file:
        file.write(torn)
    ScrubLog(store).add(_result("c"))
    log = ScrubLog(store)
    assert log.get("a", NOW) == _result("a")
    assert log.get("b", NOW) is None
    assert log.get("c", NOW) == _result("c")


def test_the_log_is_written_anew_when_it_has_grown_and_loses_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results._SLACK", 5)
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


# --- what is added meanwhile -------------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of the lines that are read."""
    seen: list[str] = []
    real = json.loads

    def loads(text: bytes) -> object:
        row = real(text)
        if isinstance(row, dict) and "file" in row:
            seen.append(row["file"])
        return row

    monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results.json.loads", loads)
    return seen


def test_only_what_was_added_is_read_again(store: LocalStore, parsed: list[str]) -> None:
    log, other = ScrubLog(store), ScrubLog(store)
    for name in ("a", "b", "c"):
        other.add(_result(name))
    log.read()
    parsed.clear()
    other.add(_result("a", "chunk 0"))
    other.add(_result("d"))
    log.read()
    assert sorted(parsed) == ["a", "d"]
    for name, damage in (("a", ("chunk 0",)), ("b", ()), ("c", ()), ("d", ())):
        found = log.get(name, NOW)
        assert found is not None
        assert found.damage == damage
        assert log.is_damaged(name, NOW) == bool(damage)


def test_a_line_whose_end_comes_later_counts_then(store: LocalStore) -> None:
    log = ScrubLog(store)
    log.add(_result("a"))
    line = json.dumps({"file": "b", "received": NOW, "at": NOW, "damage": ["chunk 0"], "sha256": None}).encode()
    for end in (line[:20], line[20:], b"\n"):
        with _path(store).open("ab") as file:
            file.write(end)
        log.read()
        assert (log.get("b", NOW) is None) == (end == line[:20])
    assert log.get("a", NOW) == _result("a")


def test_a_log_that_was_changed_otherwise_is_read_from_its_beginning(store: LocalStore) -> None:
    log = ScrubLog(store)
    for name in ("a", "b"):
        log.add(_result(name, "chunk 0"))
    log.read()
    lines = _path(store).read_bytes().splitlines(keepends=True)
    longer = [lines[0].replace(b"chunk 0", b"chunk 1"), lines[1], lines[1].replace(b'"b"', b'"c"')]
    _path(store).write_bytes(b"".join(longer))
    log.read()
    assert log.get("a", NOW) == _result("a", "chunk 1")
    assert log.get("c", NOW) == _result("c", "chunk 0")
    _path(store).write_bytes(lines[1])
    log.read()
    assert (log.get("a", NOW), log.get("b", NOW)) == (None, _result("b", "chunk 0"))
    assert [log.is_damaged(file, NOW) for file in "abc"] == [False, True, False]
    _path(store).unlink()
    log.read()
    assert log.get("b", NOW) is None


def test_long_log_that_has_grown_is_not_held_in_memory(store: LocalStore) -> None:
    """After each check the next question reads what was added: with 100,000 files that took 58 MB for a moment."""
    rows = (_result(f"alpha/tank/{number // 100}/@{number}.zfs.zst").to_row() for number in range(20_000))
    _path(store).write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    log, other = ScrubLog(store), ScrubLog(store)
    other.add(_result("alpha/tank/7/@777.zfs.zst", "chunk 0"))
    tracemalloc.start()
    try:
        log.read()
        assert tracemalloc.get_traced_memory()[1] < _path(store).stat().st_size / 4
    finally:
        tracemalloc.stop()
    assert log.is_damaged("alpha/tank/7/@777.zfs.zst", NOW)


def test_many_lines_are_read_a_part_at_a_time(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results._AT_ONCE", 3)
    log = ScrubLog(store)
    for number in range(10):
        log.add(_result(f"tank/{number % 7}", *(["chunk 0"] if number == 9 else [])))
    fresh = ScrubLog(store)
    found = [fresh.get(f"tank/{number}", NOW) for number in range(7)]
    assert [each is not None and each.damage for each in found] == [(), (), ("chunk 0",), (), (), (), ()]


# --- what another version wrote ----------------------------------------------------------------------------------


def test_known_damage_survives_keys_that_are_not_known(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert [file for file in "abcde" if log.is_damaged(file, NOW)] == ["a", "b", "c"]
        # Only b's row does not say of which file of that name it is.
        assert [file for file in "abcde" if log.is_damaged(file, "later")] == ["b"]
        # Written anew, nothing is lost, also not what this version does not know.
        monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results._SLACK", -100)
        log.add(_result("z"))
        assert b'"parity": "no"' in _path(store).read_bytes()
        assert b"of a form to come" in _path(store).read_bytes()


def test_a_line_is_as_the_documentation_has_it(store: LocalStore) -> None:
    ScrubLog(store).add(_result("a", "chunk 0"))
    row = {"format": 1, "file": "a", "received": NOW, "at": NOW, "damage": ["chunk 0"], "sha256": None}
    assert json.loads(_path(store).read_bytes()) == row


@pytest.mark.parametrize("said", [{}, {"format": 1}, {"format": 2}, {"format": "to come"}])
@pytest.mark.parametrize("damage", [[], ["chunk 0"]])
def test_a_line_of_any_format_counts_by_what_is_known_of_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, said: dict[str, object], damage: list[str]
) -> None:
    """The first version wrote no format; a later one may write another."""
    row = {"file": "a", "received": NOW, "at": NOW, "damage": damage, "sha256": None, **said}
    _path(store).write_bytes(json.dumps(row).encode() + b"\n")
    log = ScrubLog(store)
    assert log.get("a", NOW) == Scrubbed("a", NOW, NOW, tuple(damage), None)
    assert log.is_damaged("a", NOW) == bool(damage)
    # Written anew, a line keeps the format that it has.
    monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results._SLACK", -100)
    log.add(_result("z"))
    rows = [json.loads(line) for line in _path(store).read_bytes().splitlines()]
    assert rows == [row, _result("z").to_row() | {"damage": []}]


_ADD = """
import sys
from pathlib import Path
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.store.local import LocalStore
log = ScrubLog(LocalStore(Path(sys.argv[1])))
for number in range(100):
    log.add(Scrubbed(f"{sys.argv[2]}/{number}", "then", "now", ("x" * 5000,), None))
"""


def test_two_that_add_at_once_lose_nothing(store: LocalStore) -> None:
    adding = [subprocess.Popen([sys.executable, "-c", _ADD, store.root, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in adding] == [0, 0]
    log = ScrubLog(store)
    assert all(log.get(f"{name}/{number}", "then") for name in ("a", "b") for number in range(100))
