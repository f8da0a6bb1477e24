"""What commands print: lines for a person, JSON for a program."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests import streams
from tests.sender.peer import entry, partial_entry, receipt_of

from fullsend_cli.progress import CLEAR
from fullsend_protocol.format.tables import partials_table, table
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.exit_codes import Exit, NagiosState
from fullsend_protocol.wire import messages
from fullsend_sender.cli import results
from fullsend_sender.monitor.all_receivers import ReceiverPart
from fullsend_sender.monitor.check import Finding
from fullsend_sender.monitor.prove import ProofOutcome, StoredCopy
from fullsend_sender.monitor.status import BackupState, ReceiverState
from fullsend_sender.restore.run import Restored, RestoreJob
from fullsend_sender.transfer.pairing import Paired
from fullsend_sender.transfer.send import Pushed

if TYPE_CHECKING:
    from fullsend_sender.host.config import SenderSettings


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Any:
    """The lines on stdout since it was last called."""

    def lines() -> list[str]:
        return capsys.readouterr().out.splitlines()

    return lines


def settings(progress: str = "never", jobs: int = 1) -> SenderSettings:
    return cast("SenderSettings", SimpleNamespace(progress=progress, jobs=jobs))


def test_paired(out: Any) -> None:
    results.print_paired(Paired(sender="alpha", receiver="nas", config="/x.toml"))
    assert out() == ["paired: receiver 'nas' knows this host as 'alpha' (written to /x.toml)"]


def test_commands(out: Any) -> None:
    lines = ["zfs send tank/ä@now  # full, 3.0 GiB", "zfs hold x"]
    results.print_commands(lines, as_json=False)
    assert out() == lines
    results.print_commands(lines, as_json=True)
    assert out() == [
        '{"command": "zfs send tank/ä@now", "about": "full, 3.0 GiB"}',
        '{"command": "zfs hold x", "about": null}',
    ]


@pytest.mark.parametrize(("jobs", "before"), [(1, ""), (2, CLEAR)])
def test_pushed(capsys: pytest.CaptureFixture[str], jobs: int, before: str) -> None:
    raw = streams.substream()
    pushed = cast(
        "Pushed",
        SimpleNamespace(receipt=receipt_of(raw), line=lambda: "tank/\x1bdata", to_dict=lambda: {"dataset": "tank/ä"}),
    )
    results.pushed_printer(settings("always", jobs), as_json=False)(pushed)
    assert capsys.readouterr() == ("", f"{before}tank/\\x1bdata\n")
    results.pushed_printer(settings("always", jobs), as_json=True)(pushed)
    assert capsys.readouterr() == ('{"dataset": "tank/ä"}\n', "")


def test_entries(out: Any) -> None:
    stored = [entry(snapshot="a"), entry(snapshot="b")]
    entries = results.EntryPrinter(as_json=True)
    entries.add(stored[0])
    assert [json.loads(line) for line in out()] == [stored[0].model_dump()]  # at once
    entries.end()
    assert out() == []
    entries = results.EntryPrinter(as_json=False)
    for each in stored:
        entries.add(each)
    assert out() == []
    entries.end()
    assert out() == list(table(stored, with_sender=False))


def test_partials(out: Any) -> None:
    partials = [partial_entry(snapshot="a"), partial_entry(snapshot="b")]
    results.print_partials(partials, as_json=True)
    assert [json.loads(line)["snapshot"] for line in out()] == ["a", "b"]
    results.print_partials(partials, as_json=False)
    assert out() == list(partials_table(partials, with_sender=False))


def test_one_stream(out: Any) -> None:
    results.print_stream(entry(), as_json=True)
    (line,) = out()
    assert json.loads(line) == entry().model_dump()
    results.print_stream(entry(), as_json=False)
    assert "snapshot           now" in out()


def test_judged(out: Any) -> None:
    judged = [BackupState("tank/a", NagiosState.CRITICAL, None, None, "it has never been pushed")]
    receiver = ReceiverState("nas", messages.Health(program="x", free_bytes=1, problems=["pushes are refused"]))
    parts = [ReceiverPart(receiver, judged)]
    results.print_judged(parts, as_json=False)
    first, *table, line, more = out()
    assert first == "CRITICAL: 1 of 1 dataset: tank/a: it has never been pushed; receiver nas: pushes are refused"
    assert [row.split()[0] for row in table] == ["DATASET", "tank/a"]
    assert (line, [more]) == (judged[0].line(), list(receiver.lines()))
    results.print_judged(parts, as_json=True)
    assert [json.loads(line) for line in out()] == [{"receiver": "nas", **judged[0].to_dict()}, receiver.to_dict()]


def test_unknown(out: Any) -> None:
    results.print_unknown(FullsendError("no \x1bword"), as_json=False)
    assert out() == [r"UNKNOWN: no \x1bword"]
    results.print_unknown(FullsendError("no word"), as_json=True)
    assert out() == ['{"state": "UNKNOWN", "why": "no word"}']


def restored(target: str, *, undo: str | None = "zfs inherit", package: bool = False) -> Restored:
    return Restored(entry(), target, 1, 1 << 20, 0, 1.0, undo, package)


@pytest.mark.parametrize("package", [False, True])
def test_restored(capsys: pytest.CaptureFixture[str], package: bool) -> None:
    job = cast("RestoreJob", SimpleNamespace(undo_all=lambda targets, package: f"undo {targets} {package}"))
    restores = results.RestorePrinter(settings("always"), as_json=False)
    restores.end(job)
    assert capsys.readouterr() == ("", "")
    restores.add(restored("pool/a"))
    restores.add(restored("pool/b", undo=None))
    restores.add(restored("pool/c", package=package))
    said = capsys.readouterr()
    assert said.out.splitlines()[1] == "tank/data@now is restored into pool/b: 1 stream, 1.0 MiB, in 0:00:01"
    assert said.err == CLEAR * 3
    restores.end(job)
    undo = f"undo ['pool/a', 'pool/c'] {package}"
    said = capsys.readouterr()
    assert said.out == f"not mounted, and will not mount at boot (canmount=noauto); to undo that: {undo}\n"


def test_restored_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    restores = results.RestorePrinter(settings(), as_json=True)
    restores.add(restored("pool/a"))
    restores.end(cast("RestoreJob", None))  # each object says it
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == (restored("pool/a").to_dict(), "")


def test_what_was_told_of_datasets_is_in_the_json(out: Any) -> None:
    restores = results.RestorePrinter(settings(), as_json=True)
    restores.add(replace(restored("pool/a"), note="comes as of @old"))
    restores.left_out({"tank/data": "comes as of @old", "tank/b": "has nothing"})
    first, second = map(json.loads, out())
    assert (first["target"], first["note"]) == ("pool/a", "comes as of @old")
    assert second == {"dataset": "tank/b", "target": None, "streams": 0, "note": "has nothing"}
    restores = results.RestorePrinter(settings(), as_json=False)
    restores.left_out({"tank/b": "has nothing"})  # a warning has said it
    assert out() == []


def test_verdicts(out: Any) -> None:
    whole = messages.Verdict(file="f", dataset="tank/a", snapshot="1", raw_bytes=1 << 20, damage=[])
    damaged = messages.Verdict(file="g", dataset="tank/a", snapshot="2", raw_bytes=1, damage=["chunk 1", "chunk 2"])
    verdicts = results.VerdictPrinter(settings(), as_json=False)
    for verdict in (whole, damaged, whole):
        verdicts.add(verdict)
    assert (verdicts.whole, verdicts.damaged) == (2, 1)
    assert out() == ["tank/a@2: g: chunk 1", "tank/a@2: g: chunk 2"]
    verdicts.end()
    assert out() == ["2 streams are whole, 2.0 MiB raw"]
    verdicts = results.VerdictPrinter(settings(), as_json=True)
    verdicts.add(whole)
    (line,) = out()
    assert json.loads(line) == whole.model_dump(exclude={"type"})
    verdicts.end()
    assert out() == ["1 stream is whole, 1.0 MiB raw"]


def outcome(result: Any, **more: Any) -> ProofOutcome:
    return ProofOutcome(StoredCopy("tank/a", "s\x1b", "1", None, "", "f", package=False), result, **more)


def test_outcomes(out: Any) -> None:
    every = [outcome(each) for each in ("same", "state", "differs", "different")]
    every += [outcome(each, why="why") for each in ("impossible", "failed")]
    for all_lines, named, count in ((False, False, 3), (False, True, 4), (True, False, 6)):
        printer = results.OutcomePrinter(as_json=False, all_lines=all_lines, named=named)
        for each in every:
            printer.add(each)
        assert (printer.count, printer.proven, printer.wrong) == (6, 2, 3)
        lines = out()
        assert len(lines) == count
        assert all(line.startswith(r"tank/a@s\x1b: ") for line in lines)
    printer.end()
    assert out() == ["2 streams proven, 4 cannot be proven by this host"]
    printer = results.OutcomePrinter(as_json=True, all_lines=False, named=False)
    printer.add(every[0])
    (line,) = out()
    assert json.loads(line) == every[0].to_dict()
    results.OutcomePrinter(as_json=False, all_lines=True, named=False).end()
    assert out() == ["nothing is left to prove"]


def test_finding(out: Any) -> None:
    finding = Finding("zfs", Exit.FAILED, "is not here")
    results.print_finding(finding, as_json=False)
    assert out() == ["problem zfs: is not here"]
    results.print_finding(finding, as_json=True)
    assert out() == ['{"check": "zfs", "ok": false, "warning": false, "detail": "is not here"}']
    results.print_finding(Finding("nas", Exit.OK, "the store's disk: 90% used", warning=True), as_json=False)
    assert out() == ["warning nas: the store's disk: 90% used"]
