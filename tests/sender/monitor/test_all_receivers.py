"""The state of all receivers together; how one dataset is judged is in tests/sender/monitor/test_status.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests import programs
from tests.fakezfs import FakeZfs

from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.wire import messages
from fullsend_sender.monitor.all_receivers import ReceiverPart, UnknownReceiver, headline, worst
from fullsend_sender.monitor.status import BackupState, ReceiverState

HOUR: Final = 3600.0


def good(dataset: str, hours: int = 1) -> BackupState:
    return BackupState(dataset, NagiosState.OK, None, hours * HOUR)


def bad(dataset: str, why: str = "never") -> BackupState:
    return BackupState(dataset, NagiosState.CRITICAL, None, None, why)


def broken(dataset: str) -> BackupState:
    return BackupState(dataset, NagiosState.WARNING, None, HOUR, "broken")


def reported(*problems: str, name: str = "nas", warnings: tuple[str, ...] = ()) -> ReceiverState:
    """A receiver that reports this."""
    return ReceiverState(name, messages.Health(program="x", free_bytes=1, problems=[*problems], warnings=[*warnings]))


WELL: Final = reported()
FAR: Final = reported(name="far")
AWAY: Final = UnknownReceiver("attic", "cannot connect to attic\x1b")


# --- one receiver ------------------------------------------------------------------------------------------------


def test_the_worst_of_all_is_named_first() -> None:
    nothing = [ReceiverPart(WELL)]
    assert (worst(nothing), headline(nothing)) == (NagiosState.UNKNOWN, "UNKNOWN: nothing is stored")
    fine = [good(f"tank/{age}", age) for age in (1, 3, 2)]
    assert headline([ReceiverPart(WELL, fine)]) == "OK: 3 datasets, the oldest backup is of 3:00:00 ago (tank/3)"
    wrong = [broken("tank/w"), *[bad(f"tank/c{n}\x1b") for n in range(3)]]
    parts = [ReceiverPart(WELL, fine + wrong)]
    assert worst(parts) is NagiosState.CRITICAL
    assert headline(parts) == (
        r"CRITICAL: 4 of 7 datasets: tank/c0\x1b: never; tank/c1\x1b: never; tank/c2\x1b: never; 1 more"
    )


def test_what_the_receiver_reports_is_a_warning() -> None:
    full = [ReceiverPart(reported(warnings=("the quota of alpha is \x1b full",)), [good("tank/a")])]
    assert worst(full) is NagiosState.WARNING
    assert headline(full) == (
        r"WARNING: receiver nas: the quota of alpha is \x1b full;"
        " 1 dataset, the oldest backup is of 1:00:00 ago (tank/a)"
    )
    both = reported("pushes are refused", warnings=("full",))
    parts = [ReceiverPart(both, [good("tank/a"), bad("tank/b")])]
    assert worst(parts) is NagiosState.CRITICAL
    assert headline(parts) == ("CRITICAL: 1 of 2 datasets: tank/b: never; receiver nas: pushes are refused; 1 more")
    empty = ReceiverPart(both)
    assert headline([empty]) == "UNKNOWN: nothing is stored; receiver nas: pushes are refused; 1 more"
    assert worst([empty]) is NagiosState.UNKNOWN
    (about,) = empty.to_dicts()
    assert (about["state"], about["why"]) == ("UNKNOWN", "nothing is stored; pushes are refused; full")


def test_one_receiver_needs_no_name() -> None:
    assert list(ReceiverPart(WELL, [bad("tank/b")]).lines(alone=True)) == [bad("tank/b").line()]
    away = ReceiverPart(AWAY)
    assert (headline([away]), list(away.lines(alone=True))) == (r"UNKNOWN: cannot connect to attic\x1b", [])


# --- several -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ([ReceiverPart(WELL, [good("a")]), ReceiverPart(FAR, [good("a")])], NagiosState.OK),
        ([ReceiverPart(WELL, [good("a")]), ReceiverPart(FAR, [broken("a")])], NagiosState.WARNING),
        (
            [ReceiverPart(WELL, [good("a")]), ReceiverPart(reported("full", name="far"), [good("a")])],
            NagiosState.WARNING,
        ),
        ([ReceiverPart(AWAY), ReceiverPart(FAR, [good("a")])], NagiosState.UNKNOWN),
        ([ReceiverPart(WELL, [good("a")]), ReceiverPart(FAR)], NagiosState.UNKNOWN),
        # What is known to be wrong comes before what is not known, and that before what is still young enough.
        ([ReceiverPart(AWAY), ReceiverPart(FAR, [broken("a")])], NagiosState.UNKNOWN),
        ([ReceiverPart(AWAY), ReceiverPart(FAR, [bad("a")])], NagiosState.CRITICAL),
    ],
)
def test_the_worst_receiver_counts(parts: list[ReceiverPart], state: NagiosState) -> None:
    assert worst(parts) is worst(parts[::-1]) is state
    assert headline(parts).startswith(f"{state.name}: ")
    # A program that reads the objects comes to the same result.
    told = [str(facts["state"]) for part in parts for facts in part.to_dicts()]
    assert max(told, key=["OK", "WARNING", "UNKNOWN", "CRITICAL"].index) == state.name


def test_each_receiver_is_named_and_the_worst_first() -> None:
    parts = [
        ReceiverPart(reported("full"), [good("tank/a", 2)]),
        ReceiverPart(AWAY),
        ReceiverPart(FAR, [good("tank/a"), bad("tank/b")]),
    ]
    assert headline(parts) == (
        r"CRITICAL: receiver far: 1 of 2 datasets: tank/b: never; receiver attic: cannot connect to attic\x1b;"
        " receiver nas: full; 1 dataset, the oldest backup is of 2:00:00 ago (tank/a)"
    )
    assert [line for part in parts for line in part.lines(alone=False)] == [
        "WARNING   receiver nas: full",
        r"UNKNOWN   receiver attic: cannot connect to attic\x1b",
        "CRITICAL  receiver far: tank/b: never, nothing stored: never",
    ]
    assert list(ReceiverPart(FAR).lines(alone=False)) == ["UNKNOWN   receiver far: nothing is stored"]


def test_each_json_object_names_its_receiver() -> None:
    parts = [ReceiverPart(WELL, [good("tank/a")]), ReceiverPart(AWAY)]
    found = [facts for part in parts for facts in part.to_dicts()]
    assert [(each["receiver"], each["dataset"], each["state"]) for each in found] == [
        ("nas", "tank/a", "OK"),
        ("nas", None, "OK"),
        ("attic", None, "UNKNOWN"),
    ]
    assert found[2]["why"] == AWAY.why
    assert found[1].keys() == found[2].keys()


def test_where_nothing_of_what_was_named_is_there_nothing_is_said() -> None:
    named = [ReceiverPart(WELL, [good("tank/a")], some=True), ReceiverPart(FAR, some=True)]
    assert worst(named) is NagiosState.OK
    assert headline(named) == "OK: receiver nas: 1 dataset, the oldest backup is of 1:00:00 ago (tank/a)"
    assert list(named[1].lines(alone=False)) == []


# --- with both programs


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[dict[str, programs.Receiver], programs.Sender, FakeZfs]]:
    """A host that pushes tank/a to `one`, the default, and tank/b to `two`."""
    sender = programs.Sender(tmp_path / "sender", inside=True)
    sender.folder.mkdir()
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank/a", "tank/b"):
        fake.create(name)
    with (
        programs.serving(programs.Receiver(tmp_path / "one", inside=True)) as one,
        programs.serving(programs.Receiver(tmp_path / "two", inside=True)) as other,
    ):
        receivers = {"one": one, "two": other}
        for name, receiver in receivers.items():
            programs.good(sender.fullsend("join", receiver.invite("zfshost"), "--as", name))
        config = sender.folder / "sender.toml"
        top = f'zfs-command = {json.dumps(fake.program)}\nreceiver = "one"\n'
        tables = '[[push]]\ndatasets = ["tank/a"]\n\n[[push]]\ndatasets = ["tank/b"]\nreceiver = "two"\n'
        config.write_text(f"{top}\n{config.read_text(encoding='utf-8')}\n{tables}", encoding="utf-8")
        yield receivers, sender, fake


def said(sender: programs.Sender, code: int, *arguments: str) -> list[str]:
    done = sender.fullsend("status", *arguments)
    assert (done.returncode, done.stderr) == (code, b""), done.stdout
    return done.stdout.decode().splitlines()


def objects(sender: programs.Sender, code: int, *arguments: str) -> list[tuple[str, str | None, str]]:
    """Of each JSON object: the receiver, the dataset and the state."""
    found: list[dict[str, Any]] = [json.loads(line) for line in said(sender, code, "--json", *arguments)]
    return [(each["receiver"], each["dataset"], each["state"]) for each in found]


def test_a_receiver_of_which_only_a_push_knows_is_asked_too(
    two: tuple[dict[str, programs.Receiver], programs.Sender, FakeZfs],
) -> None:
    """`status` asked the default receiver alone, and was content while the other was dead."""
    receivers, sender, fake = two
    sender.push()
    first, heading, *lines = said(sender, 0, "--max-age", "26h")
    assert first.startswith("OK: receiver one: 1 dataset, the oldest backup is of ")
    assert "; receiver two: 1 dataset, the oldest backup is of " in first
    assert heading.split()[:2] == ["RECEIVER", "DATASET"]
    assert [line.split()[:2] for line in lines[:2]] == [["one", "tank/a"], ["two", "tank/b"]]
    whole = [("one", "tank/a", "OK"), ("one", None, "OK"), ("two", "tank/b", "OK"), ("two", None, "OK")]
    assert objects(sender, 0) == whole
    # One that is chosen is the only one, and its output that of a host with one receiver.
    assert objects(sender, 0, "--receiver", "one") == whole[:2]
    assert said(sender, 0, "--receiver", "one")[0].startswith("OK: 1 dataset, ")
    # As for `push`, it takes the place of the default one, to which tank/a goes.
    assert said(sender, 2, "--receiver", "two")[0] == "CRITICAL: 1 of 2 datasets: tank/a: it has never been pushed"
    # A dataset that is named is at one of them; what is at neither is a mistake.
    assert objects(sender, 0, "tank/b") == [("one", None, "OK"), *whole[2:]]
    assert said(sender, 3, "tank/c")[0].startswith("UNKNOWN: tank/c: nothing of that name is stored")
    assert receivers["two"].stop() == 0
    first, *lines = said(sender, 3, "--max-age", "26h")
    assert first.startswith("UNKNOWN: receiver two: ")
    assert "cannot connect" in first
    assert "; receiver one: 1 dataset, " in first
    assert [line for line in lines if line.startswith("UNKNOWN   receiver two: ")]
    assert objects(sender, 3) == [*whole[:2], ("two", None, "UNKNOWN")]
    # A backup that is known to be wrong is worse than a receiver of which nothing is known.
    fake.destroy("tank/a")
    first, *_lines = said(sender, 2)
    assert first.startswith("CRITICAL: receiver one: 1 of 1 dataset: tank/a: it is stored, and is not here")
    assert "; receiver two: " in first


def test_a_misspelt_receiver_is_unknown_and_the_others_are_judged(
    two: tuple[dict[str, programs.Receiver], programs.Sender, FakeZfs],
) -> None:
    _receivers, sender, _fake = two
    sender.push()
    config = sender.folder / "sender.toml"
    config.write_text(config.read_text() + '\n[[push]]\ndatasets = ["tank/a"]\nreceiver = "tow"\n')
    first, *_lines = said(sender, 3)
    assert first.startswith(
        "UNKNOWN: receiver tow: no receiver 'tow' is configured: there are one, two; receiver one: "
    )
    assert objects(sender, 3)[-1] == ("tow", None, "UNKNOWN")


def test_without_a_default_and_without_a_push_all_are_asked(
    two: tuple[dict[str, programs.Receiver], programs.Sender, FakeZfs],
) -> None:
    _receivers, sender, _fake = two
    sender.push()
    config = sender.folder / "sender.toml"
    config.write_text(config.read_text().partition("[[push]]")[0].replace('receiver = "one"\n', ""))
    assert [row[:2] for row in objects(sender, 0)] == [
        ("one", "tank/a"),
        ("one", None),
        ("two", "tank/b"),
        ("two", None),
    ]
