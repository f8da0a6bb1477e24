"""What `fullsendd check` says of the checks of stored streams."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.receiver.helpers import long_stream, plant, store_stream

from fullsend_protocol.shared.units import format_size, format_time, parse_time
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.cli.results import CheckResults
from fullsend_receiver.cli.scrub_standing import print_standing
from fullsend_receiver.maintenance import checkpoints
from fullsend_receiver.maintenance.scrub import StreamCheck

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore

DAY = 86400.0
EVERY = 30 * DAY
RECEIVED = "2026-11-24T00:00:00Z"  # as `plant` has it
NOW = parse_time(RECEIVED) or 0.0


def said(
    capsys: pytest.CaptureFixture[str], store: LocalStore, *, every: float = EVERY, days: float = 1.0
) -> list[str]:
    """The lines, and whether there is no problem."""
    good = print_standing(read_catalogue(store), every, CheckResults(), now=NOW + days * DAY)
    return [*capsys.readouterr().out.splitlines(), str(good)]


def record(store: LocalStore, number: int, *damage: str, unreadable: str | None = None) -> None:
    file = str(plant(store, f"s{number}", number))
    ScrubLog(store).add(Scrubbed(file, RECEIVED, RECEIVED, damage, None, unreadable=unreadable))


def test_an_empty_store_has_nothing_to_check(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, store) == ["True"]


def test_what_was_checked_is_counted(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    plant(store, "s1", 1)
    record(store, 2)
    text = "scrub: 2 of 2 streams checked or received within 30 days, 1 ever checked; "
    assert said(capsys, store) == [f"ok       {text}the oldest check, or reception, was at {RECEIVED}", "True"]
    assert said(capsys, store, every=0) == ["ok       scrub-every is 0: 1 of 2 streams were ever checked", "True"]


def test_a_scrub_that_is_behind_is_a_warning(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    record(store, 1)
    warning, good = said(capsys, store, days=46)
    assert warning.startswith(
        "warning  scrub: 0 of 1 stream checked or received within 30 days, 1 ever checked; it is b"
    )
    assert good == "True"


def test_what_cannot_be_read_is_a_problem_of_the_disk(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    record(store, 1, unreadable="chunk 7 cannot be read: Input/output error")
    _ok, problem, good = said(capsys, store)
    assert ": could not be checked: chunk 7 cannot be read: Input/output error (disk " in problem
    assert problem.startswith("problem  alpha/tank/data/@s1.")
    assert good == "False"


def test_much_damage_is_a_problem_until_a_person_asks(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 5):
        record(store, number, "chunk 0")
    _ok, problem, good = said(capsys, store)
    assert problem.startswith("problem  the scrub has stopped: 4 streams are damaged, such as alpha/tank/data/@s1.")
    assert good == "False"
    assert said(capsys, store, every=0)[-1] == "True", "nothing checks by itself, so nothing has stopped"
    log = ScrubLog(store)
    for stored in read_catalogue(store).streams:
        log.add(Scrubbed(str(stored.file), RECEIVED, RECEIVED, ("chunk 0",), None), asked=True)
    assert said(capsys, store)[-1] == "True"


class StopHere(Exception):  # noqa: N818 - reads as what it does
    """Ends a check between two chunks."""


def test_what_is_being_read_is_named(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    file = store_stream(store, "alpha", long_stream(4))
    check = StreamCheck(store, file, "then")

    def between() -> None:
        if check.reading.chunks == 2:
            raise StopHere

    with pytest.raises(StopHere):
        check.run(between)
    checkpoints.write(store, check, format_time(time.time() - 100))
    assert print_standing(read_catalogue(store), EVERY, CheckResults())
    line = capsys.readouterr().out.splitlines()[-1]
    done, size = check.reading.stored_bytes, (store.root / file).stat().st_size
    assert line.startswith(f"ok       scrub: {format_size(done)} of ")
    assert f" of {file} read as of " in line
    assert line.endswith(" a second")
    assert 0 < done < size
