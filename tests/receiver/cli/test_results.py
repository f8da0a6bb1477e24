"""What commands print: lines for a person, JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast

import pytest

from fullsend_receiver.access.senders import Sender
from fullsend_receiver.catalogue.problems import symbolic_link
from fullsend_receiver.catalogue.scrub_results import Scrubbed
from fullsend_receiver.cli import results
from fullsend_receiver.maintenance.verify import Checked, Lost, Rebuilt, Removed, Subject, Unlisted

#: The lines on stdout and on stderr since it was last called.
Said = Callable[[], tuple[list[str], list[str]]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def lines() -> tuple[list[str], list[str]]:
        out, err = capsys.readouterr()
        return out.splitlines(), err.splitlines()

    return lines


def subject(file: str) -> Subject:
    return Subject(PurePosixPath(file), dataset="tank", snapshot="now", received="then", raw_bytes=1 << 20)


def checked(file: str, *damage: str, breaks: tuple[str, ...] = (), unrecorded: OSError | None = None) -> Checked:
    result = Scrubbed(file=file, received="then", at="now", damage=damage, sha256=None)
    return Checked(subject(file), result, breaks, unrecorded)


def test_complaints(said: Said) -> None:
    results.complain("one")
    results.complain_of(["tw\x1bo", "three"])
    assert said() == ([], ["fullsendd: one", r"fullsendd: tw\x1bo", "fullsendd: three"])


def test_what_init_has_made(said: Said) -> None:
    results.print_made(Path("/store"), Path("/x.toml"), "00ff")
    out, (hint,) = said()
    assert out == ["store        /store", "config       /x.toml", "fingerprint  00ff"]
    assert hint.startswith("next: ")
    assert "--replace" not in hint
    results.print_made(Path("/store"), Path("/x.toml"), "00ff", new_key=True)
    assert "`fullsendd invite NAME --replace` for each ZFS host: it must join again" in said()[1][0]


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
    out = results.CheckResults()
    out.good("store")
    out.problem("disk")
    assert said() == (["ok       store", "problem  disk"], [])


def test_what_verify_finds(said: Said) -> None:
    findings = results.Findings(as_json=False)
    findings.add(Rebuilt(PurePosixPath("alpha/x")))
    assert said() == ([], ["alpha/x: had no manifest; rebuilt from the file"])
    findings.add(checked("a"))
    assert said() == (["ok       a"], [])
    findings.add(Removed(subject("d")))
    assert said() == ([], ["fullsendd: d: was removed before it could be checked"])
    assert not findings.failed
    findings.add(Lost(PurePosixPath("y"), "y: has no manifest, and none can be made\x1b"))
    assert said() == ([], [r"fullsendd: y: has no manifest, and none can be made\x1b"])
    findings.add(checked("b", "chunk \x1b1", "chunk 2", breaks=("c",)))
    assert said() == (
        ["DAMAGED  b"],
        [r"fullsendd: b: chunk \x1b1", "fullsendd: b: chunk 2", "fullsendd: b: breaks c"],
    )
    findings.sum_up()
    out, (line,) = said()
    assert out == []
    assert line.startswith("2 streams, 2.0 MiB raw, in 0:00:0")
    assert line.endswith(": 2 damaged")
    assert findings.failed


def test_what_cannot_be_recorded_is_said_once(said: Said) -> None:
    findings = results.Findings(as_json=False)
    for _ in range(2):
        findings.add(checked("a", unrecorded=OSError("read-only")))
    assert said() == (
        ["ok       a"] * 2,
        ["fullsendd: the results cannot be recorded: the store cannot be used (read-only)"],
    )
    assert findings.failed


def test_what_is_not_listed_was_not_checked(said: Said) -> None:
    findings = results.Findings(as_json=False)
    findings.add(Unlisted(symbolic_link("alpha/x")))
    assert said() == ([], ["fullsendd: alpha/x: is a symbolic link, so nothing in it is listed"])
    assert findings.failed


def test_what_verify_finds_as_json(said: Said) -> None:
    results.Findings(as_json=True).add(checked("b", "chunk 1"))
    (line,), err = said()
    assert json.loads(line) == {
        "file": "b",
        "received": "then",
        "at": "now",
        "verdict": "damaged",
        "damage": ["chunk 1"],
        "unreadable": None,
        "sha256": None,
    }
    assert err == ["fullsendd: b: chunk 1"]
