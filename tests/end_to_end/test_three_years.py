"""Three years of nights: a host pushes with `full-after`, and the storage host prunes by its policy, both by one clock
that the test sets.

A model says what must be stored after each night. It knows the rules of the policy and which stream builds on which,
and nothing of how the programs decide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tests.clocked import Clock
from tests.fakezfs import FakeZfs
from tests.programs import Receiver, Sender, good, rows, started

#: Each fourth night is pushed: a push starts a dozen programs, and the other nights would find nothing else.
STEP: Final = timedelta(days=4)
BEGIN: Final = datetime(2027, 1, 2, 2, 0, tzinfo=UTC)
YEARS: Final = timedelta(days=3 * 365 + 1)
#: tank/files sends a new full when the last one is 90 days old. tank/ever, which is pushed half as often, never does.
AGE: Final = timedelta(days=90)
FULL: Final = 1_000_000
INCREMENT: Final = 100_000
#: Bytes of a stream that are not content.
MORE: Final = 10_000

DAILY, WEEKLY, MONTHLY = 7, 5, 12
POLICY: Final = f'merge = "off"\n[retention]\ndaily = {DAILY}\nweekly = {WEEKLY}\nmonthly = {MONTHLY}\n'


@dataclass(frozen=True)
class Night:
    """A stream that was pushed. `content`: what restoring it must give."""

    dataset: str
    snapshot: str
    guid: str
    base_guid: str | None
    raw_bytes: int
    at: datetime
    content: Callable[[], str]


@dataclass
class Model:
    """What must be stored of a dataset, in the order of reception."""

    stored: list[Night] = field(default_factory=list)
    fulls: int = 0

    def add(self, night: Night) -> None:
        """Receive a stream, and prune."""
        self.stored.append(night)
        self.fulls += night.base_guid is None
        needed = {each.guid for kept in self.kept() for each in self.chain(kept)}
        self.stored = [each for each in self.stored if each.guid in needed]

    def kept(self) -> list[Night]:
        """What the policy promises, and the two newest."""
        kept = {each.guid for each in self.stored[-3:]}  # minimum-count; what is younger than two days is among them
        rules: list[tuple[int, Callable[[datetime], Any]]] = [
            (DAILY, lambda at: at.date()),
            (WEEKLY, lambda at: at.isocalendar()[:2]),
            (MONTHLY, lambda at: (at.year, at.month)),
        ]
        for count, period in rules:
            first: dict[Any, str] = {}
            for each in self.stored:
                first.setdefault(period(each.at), each.guid)
            kept |= set(list(first.values())[-count:])
        return [each for each in self.stored if each.guid in kept]

    def chain(self, last: Night) -> list[Night]:
        """The streams that restore this one, in their order."""
        by_guid = {each.guid: each for each in self.stored}
        chain = [last]
        while (base := chain[-1].base_guid) is not None:
            chain.append(by_guid[base])
        return chain[::-1]

    @property
    def raw_bytes(self) -> int:
        return sum(each.raw_bytes for each in self.stored)


@dataclass
class World:
    """A ZFS host and a storage host with one clock."""

    receiver: Receiver
    sender: Sender
    fake: FakeZfs
    clock: Clock
    now: datetime = BEGIN

    def push(self, *names: str) -> Iterator[Night]:
        """Write to datasets, and push them."""
        for name in names:
            self.fake.change(name)
        for row in self.sender.push(*names):
            said = row["receipt"]
            content = self.fake.sent(f"{said['dataset']}@{said['snapshot']}", said["base_guid"])
            facts = {name: said[name] for name in ("dataset", "snapshot", "guid", "base_guid", "raw_bytes")}
            yield Night(**facts, at=self.now, content=content)

    def sleep(self) -> None:
        """Wait for the next night."""
        self.now += STEP
        self.clock.set(self.now.timestamp())
        self.fake.clock(int(self.now.timestamp()))

    def stored(self, dataset: str) -> list[dict[str, Any]]:
        """What the receiver lists of a dataset."""
        return self.receiver.list(f"alpha/{dataset}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = Clock(tmp_path / "clock")
    clock.set(BEGIN.timestamp())
    receiver = Receiver(tmp_path / "receiver", inside=True)
    sender = Sender(tmp_path / "sender", "alpha", inside=True)
    with ExitStack() as stack:
        stack.enter_context(clock.here())
        receiver.init()
        with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
            file.write(POLICY)
        serve = clock.command("fullsend_receiver", "serve")
        stack.enter_context(started(receiver, *serve, PYTHONPATH=os.getcwd()))
        sender.join(receiver)
        fake = FakeZfs.make(tmp_path / "zfs")
        for name in ("tank/files", "tank/ever"):
            fake.create(name, size=FULL, increment=INCREMENT)
        fake.create("back")
        toml = sender.folder / "sender.toml"
        toml.write_text(
            f'zfs-command = "{fake.program}"\n{toml.read_text(encoding="utf-8")}'
            f'[datasets."tank/files"]\nfull-after = {{ age = "{AGE.days}d" }}\n',
            encoding="utf-8",
        )
        yield World(receiver, sender, fake, clock)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # beside other work it takes ten minutes
def test_three_years_of_nights(world: World) -> None:
    files, ever = Model(), Model()
    models = {"tank/files": files, "tank/ever": ever}
    most = 0  # bytes of tank/files
    for number in range(YEARS // STEP):
        world.sleep()
        for night in world.push("tank/files", *["tank/ever"] * (number % 2 == 0)):
            models[night.dataset].add(night)
        good(world.receiver.fullsendd("prune"))
        most = max(most, files.raw_bytes)
        if (world.now - BEGIN).days % 60 == 0:
            for name, model in models.items():
                _check(world, name, model)
    for name, model in models.items():
        _check(world, name, model)
    # What was sent: a chain ends after 60 to 90 days, at the first push after that.
    assert YEARS / (AGE + STEP) <= files.fulls <= YEARS / (AGE * 2 / 3) + 1
    assert ever.fulls == 1
    # What is stored: the chains of which something is not older than 12 months. Without new fulls it is all.
    reach = timedelta(days=MONTHLY * 31) + AGE + STEP
    fulls, increments = reach / (AGE * 2 / 3) + 1, reach / STEP
    assert most <= fulls * (FULL + MORE) + increments * (INCREMENT + MORE)
    assert len(ever.stored) == YEARS / STEP / 2
    # How much a restore reads.
    assert all(len(files.chain(each)) <= AGE / STEP + 1 for each in files.stored)
    # What the policy promises is there: so many days, weeks and months, and each restores.
    kept = files.kept()
    assert len({each.at.date() for each in kept}) >= DAILY
    assert len({(each.at.year, each.at.month) for each in kept}) >= MONTHLY
    for number, night in enumerate(kept):
        good(world.sender.fullsend("restore", f"{night.dataset}@{night.snapshot}", "--into", f"back/{number}"))
        assert world.fake.received(f"back/{number}") == [each.content() for each in files.chain(night)]
    # The host says where nothing ends.
    checked = {row["check"]: row["detail"] for row in rows(good(world.sender.fullsend("check", "--json")))}
    since = ever.stored[0].at.date().isoformat()
    assert checked["tank/ever"].startswith(f"chain of {len(ever.stored)} streams on receiver since {since}: nothing")
    assert "tank/files" not in checked


def _check(world: World, name: str, model: Model) -> None:
    """What is stored is what the model says, and its bytes are as many."""
    found = world.stored(name)
    assert [(each["snapshot"], each["guid"]) for each in found] == [(each.snapshot, each.guid) for each in model.stored]
    assert all(each["restorable"] for each in found)
    assert sum(each["raw_bytes"] for each in found) == model.raw_bytes
