from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import programs
from tests.fakezfs import FakeZfs

from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_time
from fullsend_protocol.wire import messages
from fullsend_receiver.catalogue.scrub_results import Scrubbed, ScrubLog
from fullsend_receiver.maintenance.prune_records import DatasetRecord, PruneRecord, write_record, write_try
from fullsend_receiver.store.local import LocalStore
from fullsend_sender.monitor.status import ReceiverState, judge, with_drill

NOW = 1_795_478_400.0  # 2026-11-24T00:00:00Z
HOUR = 3600.0


def about(created: str | None = "2026-11-23T02:00:00Z", **said: Any) -> messages.DatasetStatus:
    fields: dict[str, Any] = {
        "dataset": "tank/a",
        "snapshot": created and "s1",
        "guid": created and "7",
        "created": created,
        "received": created,
        "begun": created,
        "unchanged": None,
        "streams": 3,
        "stored_bytes": 4096,
        "broken": 0,
        "lost_spill_count": 0,
    }
    return messages.DatasetStatus(**fields | said)


@pytest.mark.parametrize(("stored", "max_age", "state", "age"), [
    (about(), None, NagiosState.OK, 22 * HOUR),
    (about(), 22 * HOUR, NagiosState.OK, 22 * HOUR),
    (about(), 22 * HOUR - 1, NagiosState.CRITICAL, 22 * HOUR),
    (about(unchanged="2026-11-23T23:00:00Z"), 2 * HOUR, NagiosState.OK, HOUR),
    (about(unchanged="2026-11-20T23:00:00Z"), None, NagiosState.OK, 22 * HOUR),
    (about("2026-11-25T00:00:00Z"), HOUR, NagiosState.OK, 0.0),
    # Its host's clock was ahead, or behind; and of no year.
    (about("2036-11-25T00:00:00Z", begun="2026-11-23T02:00:00Z"), HOUR, NagiosState.CRITICAL, 22 * HOUR),
    (about("2036-11-25T00:00:00Z", begun="2026-11-23T02:00:00Z"), 23 * HOUR, NagiosState.WARNING, 22 * HOUR),
    (about("2021-11-25T00:00:00Z", begun="2026-11-23T02:00:00Z"), 23 * HOUR, NagiosState.WARNING, 22 * HOUR),
    (about("@99999999999999", begun="2026-11-23T02:00:00Z"), 23 * HOUR, NagiosState.WARNING, 22 * HOUR),
    (about("2026-11-23T02:00:00Z", begun="@99999999999999"), None, NagiosState.WARNING, 0.0),
    (about("2026-11-23T02:00:00Z", begun="then"), None, NagiosState.CRITICAL, None),
    # It took three days to come: it is as old as its offer.
    (about("2026-11-20T02:00:00Z", received="2026-11-23T02:00:00Z"), 26 * HOUR, NagiosState.CRITICAL, 94 * HOUR),
    (about(broken=1), 23 * HOUR, NagiosState.WARNING, 22 * HOUR),
    (about(broken=1), HOUR, NagiosState.CRITICAL, 22 * HOUR),
    (about(lost_spill_count=1), 23 * HOUR, NagiosState.WARNING, 22 * HOUR),
    (about(lost_spill_count=1), HOUR, NagiosState.CRITICAL, 22 * HOUR),
    # The receiver's clock was ahead: what came then would be young for years.
    (about(begun="2027-11-23T02:00:00Z"), None, NagiosState.WARNING, 0.0),
    (about(begun="2027-11-23T02:00:00Z"), HOUR, NagiosState.CRITICAL, 0.0),
    (about(unchanged="2027-11-23T02:00:00Z"), None, NagiosState.WARNING, 22 * HOUR),
    (about(unchanged="2027-11-23T02:00:00Z"), HOUR, NagiosState.CRITICAL, 22 * HOUR),
    (about(begun="2027-11-23T02:00:00Z", unchanged="2026-11-23T23:00:00Z"), 2 * HOUR, NagiosState.WARNING, HOUR),
    (about(None, broken=3), None, NagiosState.CRITICAL, None),
    (None, None, NagiosState.CRITICAL, None),
])  # fmt: skip
def test_how_one_dataset_is_judged(
    stored: messages.DatasetStatus | None, max_age: float | None, state: NagiosState, age: float | None
) -> None:
    judged = judge("tank/a", stored, max_age, NOW)
    assert (judged.state, judged.age) == (state, age), judged.why
    assert bool(judged.why) == (state is not NagiosState.OK)
    assert judged.line().startswith(state.name)
    assert judged.to_dict()["state"] == state.name


@pytest.mark.parametrize(("ahead", "says"), [(-5 * 365 * 86400.0, "1825d 00:00:00 behind"), (90000.0, "ahead of")])
def test_a_clock_of_this_host_that_is_wrong_is_said_and_tells_no_age(ahead: float, says: str) -> None:
    judged = judge("tank/a", about(), 22 * HOUR, NOW, ahead=ahead)
    assert (judged.state, judged.age) == (NagiosState.WARNING, 22 * HOUR)
    assert says in judged.why
    assert judge("tank/a", about(), 22 * HOUR - 1, NOW, ahead=ahead).state is NagiosState.CRITICAL
    assert judge("tank/a", about(), 22 * HOUR, NOW, ahead=3600.0).state is NagiosState.OK


def drilled(*, ok: bool, succeeded: str | None = None) -> messages.DrillEntry:
    at, text = "2026-11-22T02:00:00Z", "1 difference: \x1b"
    facts: dict[str, Any] = {
        "snapshot": "s1",
        "guid": "7",
        "compared": "files",
        "milliseconds": 1500,
        "raw_bytes": 10,
        "files": 3,
    }
    return messages.DrillEntry(dataset="tank/a", ok=ok, at=at, text=text, succeeded=succeeded, **facts)


def test_a_drill_that_has_failed_is_a_warning() -> None:
    good = judge("tank/a", about(), None, NOW)
    assert with_drill(good, None) == good
    fine = with_drill(good, drilled(ok=True))
    assert (fine.state, fine.why) == (NagiosState.OK, "")
    assert ", drill ok 2026-11-22" in fine.line()
    failed = with_drill(good, drilled(ok=False))
    assert failed.state is NagiosState.WARNING
    assert failed.why == "the drill of @s1 at 2026-11-22T02:00:00Z has failed (none was ever ok): 1 difference: \x1b"
    assert ", drill FAILED 2026-11-22: the drill of @s1" in failed.line()
    assert "\x1b" not in failed.line()
    assert failed.to_dict()["drill"] == drilled(ok=False).model_dump(exclude={"dataset"})
    before = with_drill(good, drilled(ok=False, succeeded="2026-11-01T02:00:00Z"))
    assert "(the last that was ok was at 2026-11-01T02:00:00Z)" in before.why
    # What is worse stays so.
    old = judge("tank/a", about(), HOUR, NOW)
    assert with_drill(old, drilled(ok=False)).state is NagiosState.CRITICAL


def reported(*problems: str, warnings: tuple[str, ...] = (), **said: Any) -> ReceiverState:
    """A receiver that reports this."""
    health = messages.Health(program="x", free_bytes=1, problems=[*problems], warnings=[*warnings], **said)
    return ReceiverState("nas", health)


WELL = reported()


def test_what_the_receiver_reports_is_a_warning() -> None:
    full = reported(warnings=("the quota of alpha is \x1b full",))
    assert list(full.lines()) == [r"WARNING   receiver nas: the quota of alpha is \x1b full"]
    facts = reported("pushes are refused", warnings=("full",)).to_dict()
    assert (facts["receiver"], facts["dataset"], facts["state"]) == ("nas", None, "WARNING")
    assert facts["why"] == "pushes are refused; full"
    # An earlier receiver tells nothing of its checks.
    assert (facts["problems"], facts["warnings"], facts["scrub"]) == (["pushes are refused"], ["full"], None)


STANDING = "2 of 3 streams checked or received within 30 days, the oldest at 2026-10-24T00:00:00Z"
SCRUB: dict[str, Any] = {
    "every": 30 * 86400,
    "streams": 3,
    "current": 2,
    "checked": 1,
    "oldest": "2026-10-24T00:00:00Z",
    "due_streams": 0,
    "due_bytes": 0,
    "reading": None,
}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({}, STANDING),
        (
            {
                "due_streams": 1,
                "due_bytes": 2048,
                "reading": messages.BeingRead(file="alpha/x", read_bytes=1024, stored_bytes=2048),
            },
            f"{STANDING}, 1 left to check (2.0 KiB); reads alpha/x: 1.0 KiB of 2.0 KiB",
        ),
        ({"every": 0}, "1 of 3 streams were ever checked; it checks none by itself (scrub-every = 0)"),
        ({"every": 3600}, "2 of 3 streams checked or received within 1:00:00, the oldest at 2026-10-24T00:00:00Z"),
    ],
)
def test_how_the_receivers_checks_stand_is_no_warning(said: dict[str, Any], line: str) -> None:
    receiver = reported(scrub=messages.ScrubStanding(**SCRUB | said))
    assert receiver.state is NagiosState.OK
    assert list(receiver.lines()) == [f"OK        receiver nas: scrub: {line}"]


def test_without_a_stream_there_is_no_line_about_checks() -> None:
    assert list(reported(scrub=messages.ScrubStanding(**SCRUB | {"streams": 0, "oldest": None})).lines()) == []
    assert list(WELL.lines()) == []


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[programs.Receiver, programs.Sender, FakeZfs]]:
    with programs.serving(programs.Receiver(tmp_path / "receiver", inside=True)) as receiver:
        sender = programs.Sender(tmp_path / "sender", inside=True)
        sender.join(receiver)
        fake = FakeZfs.make(tmp_path / "zfs")
        config = sender.folder / "sender.toml"
        text = config.read_text()
        config.write_text(f'zfs-command = {json.dumps(fake.program)}\n{text}\n[[push]]\ndatasets = ["tank/*"]\n')
        yield receiver, sender, fake


def everything_said(sender: programs.Sender, code: int, *arguments: str) -> list[str]:
    done = sender.fullsend("status", *arguments)
    assert (done.returncode, done.stderr) == (code, b"")
    return done.stdout.decode().splitlines()


def said(sender: programs.Sender, code: int, *arguments: str) -> list[str]:
    """The first line, and those about datasets."""
    about_receiver = re.compile(r'(OK|WARNING) +receiver |\{.*"free_bytes": [0-9]')
    return [line for line in everything_said(sender, code, *arguments) if not about_receiver.match(line)]


def test_what_the_receiver_warns_of_is_said_on_the_zfs_host(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    receiver, sender, fake = host
    fake.create("tank/a")
    sender.push()
    first, _heading, _dataset, scrub = everything_said(sender, 0)
    assert first.startswith("OK: 1 dataset")
    name = f"receiver {next(iter(tomllib.loads((sender.folder / 'sender.toml').read_text())['receivers']))}"
    assert scrub.startswith(
        f"OK        {name}: scrub: 1 of 1 stream checked or received within 30 days, the oldest at "
    )
    assert receiver.stop() == 0
    with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
        file.write('warn-at = "1%"\nquota = "1M"\n\n[retention]\nlast = 1\n')
    record = DatasetRecord(trouble="more than prune-at-most")
    documents = LocalStore(receiver.store).documents
    write_record(documents, sender.name, PruneRecord(at=format_time(time.time()), datasets={"tank/a": record}))
    write_try(documents, time.time(), "the clock was set back")
    (stored,) = programs.stored_files(receiver)
    stored_name = str(stored.relative_to(receiver.store))
    received = json.loads(Path(f"{stored}.json").read_bytes())["received"]
    result = Scrubbed(stored_name, received, received, (), None, unreadable="chunk 0 cannot be read: EIO")
    ScrubLog(LocalStore(receiver.store)).add(result)
    receiver.start()
    first, *lines = everything_said(sender, 1)
    assert first.startswith(f"WARNING: {name}: ")
    assert first.endswith("ago (tank/a)")
    for words in (
        "prune: did not run at ",
        "the clock was set back",
        f"prune: {sender.name}/tank/a: nothing goes: more than prune-at-most",
        f"{stored_name}: could not be checked: chunk 0 cannot be read: EIO",
    ):
        assert any(words in line and line.startswith(f"WARNING   {name}: ") for line in lines), (words, lines)
    rows = [json.loads(line) for line in everything_said(sender, 1, "--json", "tank/a")]
    assert [(row["dataset"], row["state"]) for row in rows] == [("tank/a", "OK"), (None, "WARNING")]
    assert any("quota" in line for line in rows[1]["warnings"]), rows[1]
    assert rows[1]["scrub"]["streams"] == 1


@pytest.mark.slow
def test_as_a_plugin_of_nagios(host: tuple[programs.Receiver, programs.Sender, FakeZfs]) -> None:
    receiver, sender, fake = host
    assert said(sender, 3) == ["UNKNOWN: nothing is stored"]
    for name in ("tank", "tank/a", "tank/b"):
        fake.create(name)
    sender.push("tank/a")
    # What the configuration wants and nobody has pushed is no backup; the pool itself nobody wants.
    first, *lines = said(sender, 2, "--max-age", "26h")
    assert first.startswith("CRITICAL: ")
    assert "tank/b: it has never been pushed" in first
    assert [line.split()[0] for line in lines] == ["DATASET", "tank/a", "tank/b", "CRITICAL"]
    programs.good(sender.fullsend("push"))
    assert said(sender, 0, "--max-age", "26h")[0].startswith("OK: 2 datasets")
    # A missing dataset is critical until the user says that it is missing on purpose.
    fake.destroy("tank/b")
    assert "tank/b: it is stored, and is not here: it was destroyed or renamed here" in said(sender, 2)[0]
    config = sender.folder / "sender.toml"
    config.write_text('retired = ["tank/b"]\n' + config.read_text())
    (row,) = [json.loads(line) for line in said(sender, 0, "--json")]
    assert (row["dataset"], row["state"], row["streams"], row["broken"]) == ("tank/a", "OK", 1, 0)
    assert "tank/b" in said(sender, 0, "tank/b")[2]
    # A damaged stream is a warning as long as another one is good.
    fake.change("tank/a")
    sender.push("tank/a")
    file = receiver.store / sender.list("tank/a")[-1]["file"]
    file.write_bytes(file.read_bytes()[:-1])
    assert "WARNING: 1 of 1 dataset: tank/a: 1 of its streams are damaged" in said(sender, 1)[0]
    assert said(sender, 3, "tank/nothing")[0].startswith("UNKNOWN: tank/nothing: nothing of that name is stored")
    # Without a `zfs` that answers, all that is stored is judged.
    fake.fail("list", "no such thing")
    assert said(sender, 1)[0].startswith("WARNING: 1 of 2 datasets: tank/a")


@pytest.mark.slow
def test_what_is_configured_and_not_here(host: tuple[programs.Receiver, programs.Sender, FakeZfs]) -> None:
    _receiver, sender, fake = host
    config = sender.folder / "sender.toml"
    config.write_text(config.read_text().replace('["tank/*"]', '["tank/a", "other"]\nrecursive = true'))
    for name in ("tank/a", "other", "other/b"):
        fake.create(name)
    sender.push()
    # A pool that was not imported at boot: nothing of it is pushed, and all that is left is well.
    for name in ("other", "other/b"):
        fake.destroy(name)
    sender.push("tank/a")
    first, *lines = said(sender, 2, "--max-age", "26h")
    assert "other: it is stored, and is not here: no pool other is imported" in first
    assert [line.split()[0] for line in lines[1:4]] == ["other", "other/b", "tank/a"]
    assert [line.split()[:2] for line in lines[4:]] == [["CRITICAL", "other:"], ["CRITICAL", "other/b:"]]


@pytest.mark.slow
def test_a_suspended_pool_is_no_backup_and_check_says_so(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    _receiver, sender, fake = host
    config = sender.folder / "sender.toml"
    config.write_text(config.read_text().replace('["tank/*"]', '["**"]'))
    for name in ("tank/a", "ext/b"):
        fake.create(name)
    sender.push()
    assert said(sender, 0)[0].startswith("OK: 2 datasets")
    assert sender.fullsend("check").returncode == 0
    fake.pool("ext", health="SUSPENDED")
    assert sender.fullsend("push").returncode == 1
    assert "ext/b: the pool is SUSPENDED, and cannot be used" in said(sender, 2)[0]
    checked = sender.fullsend("check")
    assert (checked.returncode, b"ext: the pool is SUSPENDED" in checked.stdout) == (1, True)


def test_a_pool_that_was_never_pushed_is_no_backup_either(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    _receiver, sender, fake = host
    config = sender.folder / "sender.toml"
    for name in ("tank/a", "ext/b"):
        fake.create(name)
    fake.pool("ext", health="SUSPENDED")
    config.write_text(config.read_text().replace('["tank/*"]', '["**"]\nexclude = ["ext"]'))
    sender.push()
    assert said(sender, 0)[0].startswith("OK: 1 dataset,")
    assert sender.fullsend("check").returncode == 0
    config.write_text(config.read_text().replace('exclude = ["ext"]', ""))
    assert "ext: the pool is SUSPENDED" in said(sender, 2)[0]


@pytest.mark.slow
def test_what_is_missed_is_said_by_check_and_status_though_a_replica_is_here(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    _receiver, sender, fake = host
    config = sender.folder / "sender.toml"
    config.write_text(config.read_text().replace('["tank/*"]', '["**"]'))
    fake.create("ext/home")
    for _night in range(2):
        fake.change("ext/home")
        sender.push()
        fake.replicate("ext/home", "tank/replica")
    sender.push()
    assert said(sender, 0)[0].startswith("OK: 2 datasets")
    fake.destroy("ext/home")
    assert "ext/home: it is stored, and is not here: no pool ext is imported" in said(sender, 2)[0]
    checked = sender.fullsend("check")
    assert checked.returncode == 1
    assert b"problem ext/home: it is stored, and is not here: no pool ext is imported" in checked.stdout


@pytest.mark.slow
def test_a_replica_that_is_always_pushed_last_stands_for_nothing(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    """Each night it builds on what it is a replica of, as if that had been renamed: `status` was content."""
    _receiver, sender, fake = host
    config = sender.folder / "sender.toml"
    config.write_text(config.read_text().replace('["tank/*"]', '["**"]'))
    fake.create("ext/home")
    for _night in range(2):
        fake.change("ext/home")
        sender.push("ext/home")
        fake.replicate("ext/home", "tank/replica")
        sender.push("tank/replica")
    fake.destroy("ext/home")
    assert "ext/home: it is stored, and is not here: no pool ext is imported" in said(sender, 2)[0]
    for command in ("check", "push"):
        done = sender.fullsend(command)
        assert (done.returncode, b"ext/home: it is stored, and is not here" in done.stdout + done.stderr) == (1, True)


@pytest.mark.slow
def test_what_was_renamed_and_not_pushed_since_is_judged_under_its_new_name(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    """`status` dropped it: not here under the old name, and not stored under the new one."""
    _receiver, sender, fake = host
    fake.create("tank/home")
    sender.push("tank/home")
    fake.rename("tank/home", "new/home")
    (row,) = [json.loads(line) for line in said(sender, 1, "--json")]
    assert (row["dataset"], row["state"], row["streams"]) == ("new/home", "WARNING", 1)
    assert row["why"] == "was tank/home, and has not been pushed under this name"
    assert said(sender, 1, "new/home")[0].startswith("WARNING: 1 of 1 dataset: new/home: was tank/home")
    sender.push("new/home")  # though nothing was written to it since
    (row,) = [json.loads(line) for line in said(sender, 0, "--json")]
    assert row["dataset"] == "new/home"


@pytest.mark.slow
def test_a_replica_that_is_not_pushed_hides_nothing(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    """It has the snapshots of what is gone, and was taken for its new name: a warning, and advice to retire it."""
    _receiver, sender, fake = host
    config = sender.folder / "sender.toml"
    config.write_text(config.read_text().replace('["tank/*"]', '["**"]\nexclude = ["backup"]'))
    fake.create("tank/home")
    for _night in range(2):
        fake.change("tank/home")
        sender.push()
        fake.replicate("tank/home", "backup/home")
    fake.create("other/data")
    fake.destroy("tank/home")
    assert "tank/home: it is stored, and is not here: no pool tank is imported" in said(sender, 2)[0]
    for command in ("check", "push"):
        done = sender.fullsend(command)
        assert (done.returncode, b"tank/home: it is stored, and is not here" in done.stdout + done.stderr) == (1, True)


@pytest.mark.slow
def test_what_the_receiver_cannot_read_is_no_backup(host: tuple[programs.Receiver, programs.Sender, FakeZfs]) -> None:
    """A stream whose manifest is gone, or is garbage, was in no list; `status` and `verify` were content without it."""
    receiver, sender, fake = host
    for name in ("by/hand", "by/two"):
        fake.create(name)
    sender.push("by/hand", "by/two")
    fake.change("by/two")
    sender.push("by/two")
    assert said(sender, 0)[0].startswith("OK: 2 datasets")
    programs.good(sender.fullsend("verify"))
    (hand,) = sender.list("by/hand")
    (receiver.store / f"{hand['file']}.json").write_text("{")
    (receiver.store / f"{sender.list('by/two')[-1]['file']}.json").unlink()
    first, *lines = said(sender, 2)
    assert "by/hand: nothing of it can be restored" in first
    assert "by/two: 1 of its streams are damaged or lack a base" in first
    assert [line.split()[0] for line in lines] == ["DATASET", "by/hand", "by/two", "CRITICAL", "WARNING"]
    assert "2 stored" in lines[4]
    done = sender.fullsend("verify")
    assert (done.returncode, b"damaged: 2 of 3 streams" in done.stderr) == (1, True)
    assert done.stdout.decode().splitlines()[0].startswith(f"by/hand@?: {hand['file']}.json: cannot be")
    rows = programs.rows(sender.fullsend("verify", "--json", "by/two").stdout)
    assert [bool(row["damage"]) for row in rows] == [False, True]
    # And of what is not stored there is nothing to say.
    done = sender.fullsend("verify", "by/tow")
    assert (done.returncode, b"no stream of by/tow is stored, so none was read" in done.stderr) == (2, True)


def test_what_excludes_all_that_it_names_pushes_nothing(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    """`push` and `check` were content with that."""
    _receiver, sender, fake = host
    config = sender.folder / "sender.toml"
    fake.create("tank/a")
    config.write_text(config.read_text().replace('["tank/*"]', '["tank/**"]\nexclude = ["tank"]'))
    words = b"tank/**: all of it that is here is excluded, so nothing is pushed"
    for command in ("push", "check"):
        done = sender.fullsend(command)
        assert (done.returncode, words in done.stdout + done.stderr) == (1, True)


@pytest.mark.slow
def test_a_named_snapshot_of_a_replica_is_known_by_its_own_name(
    host: tuple[programs.Receiver, programs.Sender, FakeZfs],
) -> None:
    """`push` said that it is stored, because it was one of its original. Nothing knew the replica."""
    _receiver, sender, fake = host
    fake.create("tank")
    fake.create("tank/home")
    for name in ("mon", "tue"):
        fake.change("tank/home")
        fake.snapshot(f"tank/home@{name}")
        sender.push(f"tank/home@{name}")
    fake.replicate("tank/home", "tank/copy")
    for name, kind in (("tue", "incremental"), ("mon", "full")):
        (pushed,) = sender.push(f"tank/copy@{name}")
        assert (pushed["dataset"], pushed["snapshot"], pushed["kind"]) == ("tank/copy", name, kind)
        programs.good(sender.fullsend("restore", "-n", f"tank/copy@{name}", "--into", "tank/back"))
        assert sender.push(f"tank/copy@{name}") == []
    assert {row["dataset"] for row in sender.list()} == {"tank/home", "tank/copy"}
    programs.good(sender.fullsend("restore", "tank/copy@tue", "--into", "tank/back"))
    assert said(sender, 0, "tank/copy")[0].startswith("OK: 1 dataset")


def test_what_cannot_be_told_is_unknown(host: tuple[programs.Receiver, programs.Sender, FakeZfs]) -> None:
    receiver, sender, _fake = host
    assert sender.fullsend("status", "--max-age", "soon").returncode == 3
    assert sender.fullsend("status", "--config", "/nowhere").stdout.startswith(b"UNKNOWN: /nowhere is missing")
    assert receiver.stop() == 0
    assert "cannot connect" in said(sender, 3)[0]
    (row,) = [json.loads(line) for line in said(sender, 3, "--json")]
    assert (row["state"], "cannot connect" in row["why"]) == ("UNKNOWN", True)
