"""What commands print: lines for a person, JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from fullsend_receiver.access.senders import Sender
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.cli import results

if TYPE_CHECKING:
    from fullsend_receiver.catalogue.streams import Stored

#: The lines on stdout and on stderr since it was last called.
Said = Callable[[], tuple[list[str], list[str]]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def lines() -> tuple[list[str], list[str]]:
        out, err = capsys.readouterr()
        return out.splitlines(), err.splitlines()

    return lines


def stored(file: str, raw_bytes: int = 1 << 20) -> Stored:
    return cast("Stored", SimpleNamespace(file=PurePosixPath(file), summary=SimpleNamespace(raw_bytes=raw_bytes)))


def scrubbed(file: str, *damage: str) -> Scrubbed:
    return Scrubbed(file=file, received="then", at="now", damage=damage, sha256=None)


def test_complaints(said: Said) -> None:
    results.complain("one")
    results.complain_of(["tw\x1bo", "three"])
    assert said() == ([], ["fullsendd: one", r"fullsendd: tw\x1bo", "fullsendd: three"])


def test_what_init_has_made(said: Said) -> None:
    results.print_made(Path("/store"), Path("/x.toml"), "00ff")
    out, (hint,) = said()
    assert out == ["store        /store", "config       /x.toml", "fingerprint  00ff"]
    assert hint.startswith("next: ")


@pytest.mark.parametrize(("revoked", "state"), [(None, "enrolled"), (90.0, "revoked 1970-01-01T00:01:30Z")])
def test_a_sender(said: Said, revoked: float | None, state: str) -> None:
    sender = cast("Sender", SimpleNamespace(name="alpha", fingerprint="00ff", enrolled=0.0, revoked=revoked))
    results.print_sender(sender, as_json=False)
    assert said() == ([f"alpha                 00ff  1970-01-01T00:00:00Z  {state}"], [])
    results.print_sender(sender, as_json=True)
    (line,), _ = said()
    assert json.loads(line) == {
        "sender": "alpha",
        "fingerprint": "00ff",
        "enrolled": "1970-01-01T00:00:00Z",
        "revoked": state.removeprefix("revoked ") if revoked else None,
    }


def test_one_stream(said: Said) -> None:
    results.print_stream({"file": "a/ä"}, as_json=True)
    assert said() == ([r'{"file": "a/\u00e4"}'], [])


def test_what_was_looked_at(said: Said) -> None:
    results.print_good("store")
    results.print_problem("disk")
    assert said() == (["ok       store", "problem  disk"], [])


def test_a_manifest_that_was_made_anew_is_no_result(said: Said) -> None:
    results.print_rebuilt(PurePosixPath("alpha/x"))
    assert said() == ([], ["alpha/x: had no manifest; rebuilt from the file"])


def test_scrubs(said: Said) -> None:
    scrubs = results.ScrubPrinter(as_json=False, failed=1)
    scrubs.add(stored("a"), scrubbed("a"), [])
    assert said() == (["ok       a"], [])
    scrubs.add(stored("b"), scrubbed("b", "chunk \x1b1", "chunk 2"), [stored("c")])
    assert said() == (
        ["DAMAGED  b"],
        [r"fullsendd: b: chunk \x1b1", "fullsendd: b: chunk 2", "fullsendd: b: breaks c"],
    )
    scrubs.removed(stored("d"))
    assert said() == ([], ["fullsendd: d: was removed before it could be checked"])
    for _ in range(2):
        scrubs.not_recorded(OSError("read-only"))
    assert said() == ([], ["fullsendd: the results cannot be recorded: read-only"])
    assert (scrubs.failed, scrubs.unrecorded) == (2, 2)
    scrubs.end()
    out, (line,) = said()
    assert out == []
    assert line.startswith("2 streams, 2.0 MiB raw, in 0:00:0")
    assert line.endswith(": 2 damaged")


def test_scrubs_as_json(said: Said) -> None:
    scrubs = results.ScrubPrinter(as_json=True, failed=0)
    scrubs.add(stored("b"), scrubbed("b", "chunk 1"), [])
    (line,), err = said()
    assert json.loads(line) == {"file": "b", "received": "then", "at": "now", "damage": ["chunk 1"], "sha256": None}
    assert err == ["fullsendd: b: chunk 1"]
