from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.receiver.buckets import MemoryBucket, store_in
from tests.receiver.helpers import make_store, plant, remove

from fullsend_receiver.catalogue import line_logs, scrub_results
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.store.local import LocalStore

NOW = "2026-11-23T06:30:00Z"
LATER = "2026-11-24T06:30:00Z"


def _result(file: str = "a", *damage: str, received: str = NOW, at: str = NOW, **more: Any) -> Scrubbed:
    return Scrubbed(f"alpha/{file}", received, at, damage, None if damage else "5c" * 32, **more)


def _unreadable(file: str = "a", *, at: str = NOW, received: str = NOW) -> Scrubbed:
    return Scrubbed(f"alpha/{file}", received, at, (), None, unreadable="Input/output error")


def _path(store: LocalStore, sender: str = "alpha") -> Path:
    return store.state / "scrub" / f"{sender}.jsonl"


def _common(store: LocalStore) -> Path:
    return store.state / "scrub.jsonl"


def _write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _known(log: ScrubLog, file: str, received: str = NOW) -> Scrubbed | None:
    return log.get(f"alpha/{file}", received)


def _damaged(log: ScrubLog, files: str, received: str = NOW) -> list[str]:
    return [file for file in files if log.is_damaged(f"alpha/{file}", received)]


def _get(log: ScrubLog, file: str, received: str = NOW) -> Scrubbed:
    found = _known(log, file, received)
    assert found is not None
    return found


def test_nothing_is_known_at_first(store: LocalStore) -> None:
    assert _known(ScrubLog(store), "a") is None
    assert not _path(store).exists()


def test_what_is_added_is_there_for_all(store: LocalStore) -> None:
    log = ScrubLog(store)
    assert log.add(_result("a")) is None
    assert log.add(_result("b", "chunk 0", "chunk 1")) is None
    for each in (log, ScrubLog(store)):
        assert _known(each, "a") == _result("a", whole_since=NOW)
        assert _known(each, "b") == _result("b", "chunk 0", "chunk 1")
        assert _damaged(each, "abc") == ["b"]


def test_each_sender_has_a_file(store: LocalStore) -> None:
    log = ScrubLog(store)
    for sender in ("alpha", "beta"):
        log.add(Scrubbed(f"{sender}/tank/@a", NOW, NOW, (), None))
        assert [row["file"] for row in _rows(_path(store, sender))] == [f"{sender}/tank/@a"]
    assert not _common(store).exists()


def test_the_last_result_counts(store: LocalStore) -> None:
    log = ScrubLog(store)
    log.add(_result("a", "chunk 0"))
    before = log.add(_result("a", at=LATER))
    assert before == _result("a", "chunk 0")
    for each in (log, ScrubLog(store)):
        assert (_get(each, "a").damage, _get(each, "a").at) == ((), LATER)
        assert not _damaged(each, "a")


def test_a_file_that_was_removed_and_pushed_again_is_another(store: LocalStore) -> None:
    ScrubLog(store).add(_result("a", "chunk 0"))
    assert _known(ScrubLog(store), "a", LATER) is None
    assert not _damaged(ScrubLog(store), "a", LATER)
    assert _damaged(ScrubLog(store), "a")
    # Also where nothing but a read error is known of it.
    ScrubLog(store).add(_unreadable("a", received=LATER))
    for log in (ScrubLog(store), ScrubLog(store)):
        assert not _damaged(log, "a", LATER)
        assert _get(log, "a", LATER).damage == ()


@pytest.mark.parametrize("torn", [b"", b"{", b'{"file": "alpha/b", "rece', b"[1]", b'{"file": 5}', b"\xff\n\n"])
def test_a_line_that_is_not_whole_takes_no_other_with_it(store: LocalStore, torn: bytes) -> None:
    ScrubLog(store).add(_result("a"))
    with _path(store).open("ab") as file:
        file.write(torn)
    ScrubLog(store).add(_result("c"))
    log = ScrubLog(store)
    assert [_known(log, file) is not None for file in "abc"] == [True, False, True]


# --- what is known after several checks --------------------------------------------------------------------------


def test_whole_since_is_the_first_whole_result_of_an_unbroken_run(store: LocalStore) -> None:
    log = ScrubLog(store)
    times = [f"2026-11-{day}T00:00:00Z" for day in range(10, 20)]
    log.add(_result("a", at=times[0]))
    log.add(_result("a", at=times[1]))
    assert _get(log, "a").whole_since == times[0]
    log.add(_unreadable("a", at=times[2]))  # says nothing about the file
    log.add(_result("a", at=times[3]))
    assert _get(ScrubLog(store), "a").whole_since == times[0]
    log.add(_result("a", "chunk 0", at=times[4]))
    assert _get(ScrubLog(store), "a").whole_since is None
    log.add(_result("a", at=times[5]))
    log.add(_result("a", at=times[6]))
    assert _get(ScrubLog(store), "a").whole_since == times[5]
    # A clock that was ahead, and is right again.
    log.add(_result("a", at=times[1]))
    assert _get(ScrubLog(store), "a").whole_since == times[1]


def test_whole_since_of_a_row_of_an_earlier_version_is_its_time(store: LocalStore) -> None:
    _write(_common(store), {"file": "alpha/a", "received": NOW, "at": NOW, "damage": [], "sha256": None})
    log = ScrubLog(store)
    assert _get(log, "a").whole_since == NOW
    log.add(_result("a", at=LATER))
    assert _get(log, "a").whole_since == NOW


def test_a_read_error_changes_nothing_that_is_known(store: LocalStore) -> None:
    log = ScrubLog(store)
    log.add(_result("a"))
    log.add(_result("b", "chunk 0"))
    for number in range(3):
        for file in "abc":
            log.add(_unreadable(file, at=f"2026-11-25T00:00:0{number}Z"))
    for each in (log, ScrubLog(store)):
        assert _damaged(each, "abc") == ["b"]
        for file, at, damage in (("a", NOW, ()), ("b", NOW, ("chunk 0",)), ("c", "", ())):
            found = _get(each, file)
            assert (found.at, found.damage) == (at, damage)
            assert (found.unreadable, found.tried, found.tries) == ("Input/output error", "2026-11-25T00:00:02Z", 3)
    log.add(_result("c", at=LATER))
    assert (_get(log, "c").unreadable, _get(log, "c").tries) == (None, 0)


def test_what_the_last_check_could_not_read_is_told_until_one_can(store: LocalStore) -> None:
    log, other = ScrubLog(store), ScrubLog(store)
    log.add(_result("a"))
    log.add(_unreadable("a", at=LATER))
    log.add(_result("c"))
    other.read("alpha")
    for each in (log, other, ScrubLog(store)):
        found = each.unreadable("alpha/a", NOW)
        assert found == _get(each, "a")
        assert (found.at, found.unreadable, found.tried) == (NOW, "Input/output error", LATER)
        assert each.unreadable("alpha/a", LATER) is None  # pushed again
        assert each.unreadable("alpha/b", NOW) is each.unreadable("alpha/c", NOW) is None
    log.add(_result("a", at=LATER))
    other.read("alpha")
    for each in (log, other, ScrubLog(store)):
        assert each.unreadable("alpha/a", NOW) is None


def test_that_a_person_has_asked_is_known_as_long_as_the_damage(store: LocalStore) -> None:
    log = ScrubLog(store)
    log.add(_result("a", "chunk 0"))
    assert not _get(log, "a").asked
    log.add(_result("a", "chunk 0", at=LATER), asked=True)
    log.add(_result("a", "chunk 0", at=LATER))  # the daemon finds it again
    log.add(_unreadable("a", at=LATER))
    assert _get(ScrubLog(store), "a").asked
    log.add(_result("a", at=LATER), asked=True)
    assert not _get(ScrubLog(store), "a").asked
    log.add(_result("a", "chunk 0", at=LATER))
    assert not _get(ScrubLog(store), "a").asked


# --- rewriting ---------------------------------------------------------------------------------------------------


def test_the_log_is_written_anew_when_it_has_grown_and_loses_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results._SLACK", 5)
    file = str(plant(store, "s1", 1).relative_to("alpha"))
    other_file = str(plant(store, "s2", 2).relative_to("alpha"))
    log, other = ScrubLog(store), ScrubLog(store)
    other.add(_result(other_file))
    for number in range(30):
        log.add(_result(file, at=f"2026-11-23T06:30:{number:02}Z"))
    assert len(_rows(_path(store))) < 10
    fresh = ScrubLog(store)
    assert _known(fresh, other_file) is not None
    assert _get(fresh, file).at == "2026-11-23T06:30:29Z"


def test_rows_of_removed_streams_are_dropped_but_not_known_damage(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that is not mounted at the moment looks like removed streams."""
    monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results._SLACK", 5)
    files = [plant(store, f"s{number}", number) for number in (1, 2, 3)]
    names = [str(file.relative_to("alpha")) for file in files]
    log = ScrubLog(store)
    log.add(_result(names[0]))
    log.add(_result(names[1], "chunk 0"))
    for file in files[:2]:
        remove(store, file)
    for _ in range(8):
        log.add(_result(names[2]))
    for each in (log, ScrubLog(store)):
        assert _known(each, names[0]) is None
        assert _get(each, names[1]).damage == ("chunk 0",)
        assert _known(each, names[2]) is not None


def test_own_lines_are_neither_read_nor_counted_again(store: LocalStore, parsed: list[str]) -> None:
    log = ScrubLog(store)
    for number in range(10):
        log.add(_result("a", at=f"2026-11-23T06:30:{number:02}Z"))
        log.read("alpha")
    assert parsed == []
    assert log._sender("alpha").lines == 10


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
    log.read("alpha")
    parsed.clear()
    other.add(_result("a", "chunk 0"))
    other.add(_result("d"))
    log.read("alpha")
    assert sorted(set(parsed)) == ["alpha/a", "alpha/d"]
    for name, damage in (("a", ("chunk 0",)), ("b", ()), ("c", ()), ("d", ())):
        assert _get(log, name).damage == damage
    assert _damaged(log, "abcd") == ["a"]


def test_a_line_whose_end_comes_later_counts_then(store: LocalStore) -> None:
    log = ScrubLog(store)
    log.add(_result("a"))
    line = json.dumps(_result("b", "chunk 0").to_row()).encode()
    for end in (line[:20], line[20:], b"\n"):
        with _path(store).open("ab") as file:
            file.write(end)
        log.read("alpha")
        assert (_known(log, "b") is None) == (end != b"\n")
    assert _known(log, "a") is not None


def test_a_log_that_was_changed_otherwise_is_read_from_its_beginning(store: LocalStore) -> None:
    log = ScrubLog(store)
    for name in ("a", "b"):
        log.add(_result(name, "chunk 0"))
    _common(store).unlink()
    log.read("alpha")
    lines = _path(store).read_bytes().splitlines(keepends=True)
    longer = [lines[0].replace(b"chunk 0", b"chunk 1"), lines[1], lines[1].replace(b"alpha/b", b"alpha/c")]
    _path(store).write_bytes(b"".join(longer))
    log.read("alpha")
    assert _known(log, "a") == _result("a", "chunk 1")
    assert _known(log, "c") == _result("c", "chunk 0")
    _path(store).write_bytes(lines[1])
    log.read("alpha")
    assert (_known(log, "a"), _known(log, "b")) == (None, _result("b", "chunk 0"))
    assert _damaged(log, "abc") == ["b"]
    _path(store).unlink()
    log.read("alpha")
    assert _known(log, "b") is None


def test_long_log_that_has_grown_is_not_held_in_memory(store: LocalStore) -> None:
    """After each check the next question reads what was added: with 100,000 files that took 58 MB for a moment."""
    rows = (_result(f"tank/{number // 100}/@{number}.zfs.zst").to_row() for number in range(20_000))
    _write(_path(store), *rows)
    log, other = ScrubLog(store), ScrubLog(store)
    log.read("alpha")
    other.add(_result("tank/7/@777.zfs.zst", "chunk 0"))
    tracemalloc.start()
    try:
        log.read("alpha")
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
    found = [_get(fresh, f"tank/{number}") for number in range(7)]
    assert [each.damage for each in found] == [(), (), ("chunk 0",), (), (), (), ()]


# --- what another version wrote ----------------------------------------------------------------------------------


def test_known_damage_survives_keys_that_are_not_known(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key more in a row, and a stream known to be damaged was whole again, and a base."""
    rows: list[dict[str, object]] = [
        {"file": "alpha/a", "received": NOW, "at": NOW, "damage": ["chunk 0"], "sha256": None, "parity": "no"},
        {"file": "alpha/b", "damage": ["chunk 1"], "version": 2},
        {"file": "alpha/c", "received": NOW, "at": NOW, "damage": "chunk 2", "sha256": None},
        {"file": "alpha/d", "received": NOW, "at": NOW, "damage": [], "sha256": "5c" * 32, "since": NOW},
        {"file": "alpha/a", "received": NOW, "verdict": "unreadable"},  # says nothing that is known of damage
        {"stream": "e", "damage": ["of a form to come"]},
    ]
    for path in (_path(store), _common(store)):
        shutil.rmtree(_path(store).parent, ignore_errors=True)
        _common(store).unlink(missing_ok=True)
        _write(path, *rows)
        for _ in range(2):
            log = ScrubLog(store)
            found = {file: _known(log, file) for file in "abcd"}
            damage = {file: each.damage for file, each in found.items() if each is not None}
            assert damage == {"a": ("chunk 0",), "b": ("chunk 1",), "c": ("chunk 2",), "d": ()}
            assert _damaged(log, "abcde") == ["a", "b", "c"]
            # Only b's row does not say of which file of that name it is.
            assert _damaged(log, "abcde", "later") == ["b"]
            # Written anew, nothing is lost, also not what this version does not know.
            with monkeypatch.context() as patch:
                patch.setattr("fullsend_receiver.catalogue.scrub_results._SLACK", -100)
                patch.setattr(LocalStore, "stamp", lambda _store, _file: (1,))
                log.add(_result("z"))
            assert b'"parity": "no"' in path.read_bytes()
            assert b"of a form to come" in path.read_bytes()


def test_a_line_is_as_the_documentation_has_it(store: LocalStore) -> None:
    ScrubLog(store).add(_result("a", "chunk 0"))
    row = {"format": 1, "file": "alpha/a", "received": NOW, "at": NOW, "damage": ["chunk 0"], "sha256": None}
    assert _rows(_path(store)) == _rows(_common(store)) == [row]
    ScrubLog(store).add(_result("b"))
    whole = row | {"file": "alpha/b", "damage": [], "sha256": "5c" * 32, "whole_since": NOW}
    assert _rows(_path(store))[-1] == whole
    ScrubLog(store).add(_unreadable("b", at=LATER))
    assert _rows(_path(store))[-1] == whole | {"unreadable": "Input/output error", "tried": LATER, "tries": 1}
    ScrubLog(store).add(_result("a", "chunk 0"), asked=True)
    assert _rows(_path(store))[-1] == row | {"asked": True}


@pytest.mark.parametrize("said", [{}, {"format": 1}, {"format": 2}, {"format": "to come"}])
@pytest.mark.parametrize("damage", [[], ["chunk 0"]])
@pytest.mark.parametrize("where", [_path, _common])
def test_a_line_of_any_format_counts_by_what_is_known_of_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, said: dict[str, object], damage: list[str], where: Any
) -> None:
    """The first version wrote no format; a later one may write another."""
    row = {"file": "alpha/a", "received": NOW, "at": NOW, "damage": damage, "sha256": None, **said}
    _write(where(store), row)
    log = ScrubLog(store)
    assert _get(log, "a").damage == tuple(damage)
    assert _damaged(log, "a") == ["a"] * bool(damage)
    # Written anew, a line keeps the format that it has.
    monkeypatch.setattr("fullsend_receiver.catalogue.scrub_results._SLACK", -100)
    monkeypatch.setattr(LocalStore, "stamp", lambda _store, _file: (1,))
    log.add(_result("z"))
    assert row in [*_rows(_path(store)), *(_rows(_common(store)) if _common(store).exists() else [])]


# --- one file for all senders, of earlier versions ----------------------------------------------------------------


def _earlier(store: LocalStore) -> dict[str, tuple[str, ...]]:
    """What an earlier version reads: of each file the last line in the file for all, by these keys."""
    known: dict[str, tuple[str, ...]] = {}
    for row in _rows(_common(store)) if _common(store).exists() else []:
        if isinstance(row.get("file"), str) and "damage" in row:
            known[row["file"]] = tuple(row["damage"])
    return {file: damage for file, damage in known.items() if damage}


def _add_as_earlier(store: LocalStore, result: Scrubbed) -> None:
    """What an earlier version does with a result."""
    row = {"format": 1, "file": result.file, "received": result.received, "at": result.at}
    with _common(store).open("ab") as file:
        file.write(json.dumps(row | {"damage": list(result.damage), "sha256": result.sha256}).encode() + b"\n")


def test_what_an_earlier_version_wrote_is_moved(store: LocalStore) -> None:
    rows = [_result("a"), _result("b", "chunk 0"), Scrubbed("beta/c", NOW, NOW, (), "5c" * 32)]
    for each in rows:
        _add_as_earlier(store, each)
    with _common(store).open("ab") as file:
        file.write(b'{"stream": "to come"}\n{"file": "../x", "received": "then", "damage": [], "at": "now"}\n')
    log = ScrubLog(store)
    before = {each.file: log.get(each.file, NOW) for each in rows}
    assert [each and each.damage for each in before.values()] == [(), ("chunk 0",), ()]
    log.add(_result("z"))
    assert [row["file"] for row in _rows(_path(store))] == ["alpha/a", "alpha/b", "alpha/z"]
    assert [row["file"] for row in _rows(_path(store, "beta"))] == ["beta/c"]
    # What only an earlier version reads keeps the damage, and what nobody understands.
    assert [row.get("file") for row in _rows(_common(store))] == [None, "alpha/b", "../x"]
    for known in (log, ScrubLog(store)):
        assert {file: known.get(file, NOW) for file in before} == before
    size = _path(store).stat().st_size
    log.add(_result("z"))
    assert _path(store).stat().st_size < 2 * size  # and once


def failing_from(real: Any, at: int) -> Any:
    """The function, which fails from its `at`-th call on."""
    calls = itertools.count(1)

    def call(*arguments: Any, **named: Any) -> Any:
        if next(calls) >= at:
            raise OSError(28, "No space left on device")
        return real(*arguments, **named)

    return call


def test_a_move_that_is_interrupted_loses_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (_result("a"), _result("b", "chunk 0"), Scrubbed("beta/c", NOW, NOW, (), "5c" * 32)):
        _add_as_earlier(store, each)
    for name, least in (("replace_file", 1), ("append_lines", 1), ("append_lines", 2)):
        copy = LocalStore(store.root.with_name(f"{name}-{least}"))
        shutil.copytree(store.root, copy.root)
        with monkeypatch.context() as patch:
            patch.setattr(line_logs, name, failing_from(getattr(line_logs, name), least))
            with pytest.raises(OSError, match="No space"):
                ScrubLog(copy).add(_result("z"))
        for again in (False, True):
            log = ScrubLog(copy)
            assert [log.get(file, NOW) is not None for file in ("alpha/a", "alpha/b", "beta/c")] == [True] * 3
            assert _damaged(log, "ab") == ["b"]
            assert log.is_damaged("beta/c", NOW) is False
            if not again:
                log.add(_result("z"))


_FILES = "abc"
_step = st.tuples(
    st.sampled_from(["this", "earlier", "other process", "unreadable", "rewrite"]),
    st.sampled_from(_FILES),
    st.booleans(),
    # Clocks jump, in both directions.
    st.integers(0, 9),
)


@given(steps=st.lists(_step, max_size=20))
def test_known_damage_is_never_lost_through_upgrades_and_downgrades(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bool, int]]
) -> None:
    store = make_store(tmp_path_factory.mktemp("store"))
    log = ScrubLog(store)
    damaged: set[str] = set()
    for who, file, bad, hour in steps:
        result = _result(file, *(["chunk 0"] if bad else []), at=f"2026-11-23T0{hour}:00:00Z")
        match who:
            case "this":
                log.add(result)
            case "other process":
                ScrubLog(store).add(result)
            case "earlier":
                _add_as_earlier(store, result)
            case "unreadable":
                log.add(_unreadable(file, at=result.at))
            case _:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(scrub_results, "_SLACK", -100)
                    log.add(_result("z"))
        if who in {"this", "other process", "earlier"}:
            damaged.discard(file)
            damaged |= {file} if bad else set()
        log.read("alpha")
        for each in (log, ScrubLog(store)):
            assert {*_damaged(each, _FILES)} == damaged
            assert {name for name in _FILES if (found := _known(each, name)) and found.damage} == damaged
        assert {*_earlier(store)} == {f"alpha/{name}" for name in damaged}


_ADD = """
import sys
from pathlib import Path
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.store.local import LocalStore
log = ScrubLog(LocalStore(Path(sys.argv[1])))
for number in range(100):
    log.add(Scrubbed(f"alpha/{sys.argv[2]}/{number}", "then", "now", ("x" * 5000,), None))
"""


def test_two_that_add_at_once_lose_nothing(store: LocalStore) -> None:
    adding = [subprocess.Popen([sys.executable, "-c", _ADD, store.root, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in adding] == [0, 0]
    log = ScrubLog(store)
    assert all(log.get(f"alpha/{name}/{number}", "then") for name in ("a", "b") for number in range(100))


def test_a_file_of_no_sender_is_not_looked_for(store: LocalStore) -> None:
    before = sorted(store.state.iterdir())
    for name in ("../x", "", "/etc/passwd"):
        assert ScrubLog(store).get(name, NOW) is None
    assert sorted(store.state.iterdir()) == before


# --- several daemons of one store in a bucket ---------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> tuple[ScrubLog, ScrubLog]:
    """What two hosts know of the checks of one store."""
    bucket = MemoryBucket()
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    return ScrubLog(store_in(bucket, homes[0])), ScrubLog(store_in(bucket, homes[1]))


def test_damage_is_known_to_all_daemons_and_so_is_its_end(two: tuple[ScrubLog, ScrubLog]) -> None:
    one, other = two
    assert not _damaged(other, "a")
    one.add(_result("a", "chunk 0"))
    other.read("alpha")
    assert _damaged(other, "a") == ["a"]
    other.add(_result("a", at=LATER))
    one.read("alpha")
    assert (_damaged(one, "a"), _damaged(other, "a")) == ([], [])
    assert _get(one, "a").damage == ()
    one.add(_result("a", "chunk 1", at=LATER))
    other.read("alpha")
    assert _damaged(other, "a") == ["a"]


def test_damage_that_is_found_at_once_by_two_daemons_is_known_to_both(two: tuple[ScrubLog, ScrubLog]) -> None:
    one, other = two
    one.read("alpha")
    other.read("alpha")
    one.add(_result("a", "chunk 0"))
    other.add(_result("b", "chunk 0"))
    for each in two:
        each.read("alpha")
        assert _damaged(each, "ab") == ["a", "b"]


def test_rows_without_damage_are_dropped_for_all_daemons(
    two: tuple[ScrubLog, ScrubLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(scrub_results, "_SLACK", 3)
    one.add(_result("b", "chunk 0"))
    for _time in range(5):
        one.add(_result("a", "chunk 0"))
        other.read("alpha")
        other.add(_result("a"))
        one.read("alpha")
    data = one._store.documents.get("scrub.jsonl")
    assert data is not None
    assert len(data.data.splitlines()) < 8
    for each in (*two, ScrubLog(one._store)):
        each.read("alpha")
        assert _damaged(each, "ab") == ["b"]
