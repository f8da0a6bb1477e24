"""Three years of nights: a host pushes with `full-after`, and the storage host prunes by its policy, both by one clock
that the test sets.

A model says what must be stored after each night. It knows the rules of the policy and which stream builds on which,
and nothing of how the programs decide. Bytes are compared with another model, which was made before the programs: a
table of what is stored and pushed with these rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tests.nights import BEGIN, DAILY, MONTHLY, RETENTION, WEEKLY, Hosts, hosts, kept_by_policy
from tests.programs import good, rows

NIGHT: Final = timedelta(days=1)
NIGHTS: Final = 3 * 365 + 1
#: Of some datasets only these nights are pushed.
TWO_YEARS: Final = range(365, NIGHTS)
HALF_A_YEAR: Final = range(NIGHTS - 183, NIGHTS)
#: A prune takes as long as a push, and how often there is one does not change what stays. But after a week without one
#: the clock would seem to have jumped.
PRUNE: Final = {*range(0, NIGHTS, 6), *range(NIGHTS - 30, NIGHTS)}
#: In these nights what is listed is compared with the model.
LOOK: Final = {*range(0, NIGHTS, 60), NIGHTS - 1}
#: The chains that end by their age do so after at most so many days.
AGE: Final = 90
#: Bytes of a WRITE record's block.
BLOCK: Final = 4_000


@dataclass(frozen=True)
class Load:
    """A dataset. `full`, `increment`: bytes of content of its streams; `grows`: of its full, each night; `after`: the
    rule for a new full; `nights`: those in which it is pushed.
    """

    full: int
    increment: int
    after: str | None
    kind: str = "filesystem"
    grows: int = 0
    nights: range = range(NIGHTS)

    def full_in(self, night: int) -> int:
        """Bytes of content of a full in this night."""
        return self.full + night * self.grows


@dataclass(frozen=True)
class Told:
    """A row of the table: the bytes that are stored on average in the third year, and those that are pushed in a year,
    both as so many fulls; and the streams of the longest restore.
    """

    stored: float
    pushed: float
    streams: int


LOADS: Final = {
    "tank/files": Load(100 * BLOCK, 5 * BLOCK, f'age = "{AGE}d"'),
    # Some blocks of an image are written again and again, and the others never.
    "tank/image": Load(87 * BLOCK, BLOCK, "increments = 1.0", kind="volume", nights=TWO_YEARS),
    # Nearly all of a database is written again within some nights.
    "tank/base": Load(14 * BLOCK, BLOCK, "increments = 1.0", nights=HALF_A_YEAR),
    "tank/grows": Load(20 * BLOCK, 2 * BLOCK, f'age = "{AGE}d"', grows=BLOCK // 20, nights=TWO_YEARS[::4]),
    # Never gets a new full.
    "tank/ever": Load(20 * BLOCK, 2 * BLOCK, None, nights=range(0, NIGHTS, 8)),
}
#: The table has VM images of 500 GiB, with new fulls when increments equal them: 6,254 GB stored on average, 6,286
#: pushed in a year, 57 streams to restore. And a database of 100 GiB: 4,206, 7,486 and 13.
TABLE: Final = {"tank/image": Told(6254 / 500, 6286 / 500, 57), "tank/base": Told(4206 / 100, 7486 / 100, 13)}


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
    """What must be stored of a dataset, in the order of reception. `pushed`: bytes of each stream; `sizes`: bytes that
    were stored after each prune, and `longest`: streams of the longest restore then.
    """

    stored: list[Night] = field(default_factory=list)
    fulls: int = 0
    pushed: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    longest: list[int] = field(default_factory=list)

    def add(self, night: Night) -> None:
        """Receive a stream."""
        self.stored.append(night)
        self.fulls += night.base_guid is None
        self.pushed.append(night.raw_bytes)

    def prune(self) -> None:
        """Drop what nothing needs."""
        chains = self.chains(kept_by_policy(self.stored))
        needed = {each.guid for chain in chains for each in chain}
        self.stored = [each for each in self.stored if each.guid in needed]
        self.sizes.append(self.raw_bytes)
        self.longest.append(max(map(len, chains)))

    def chains(self, nights: list[Night]) -> list[list[Night]]:
        """The streams that restore each of these, in their order."""
        by_guid = {each.guid: each for each in self.stored}
        found = []
        for last in nights:
            chain = [last]
            while (base := chain[-1].base_guid) is not None:
                chain.append(by_guid[base])
            found.append(chain[::-1])
        return found

    @property
    def raw_bytes(self) -> int:
        return sum(each.raw_bytes for each in self.stored)


class World(Hosts):
    """What happens in a night."""

    def push(self, night: int) -> Iterator[Night]:
        """Write to the datasets of this night, and push them."""
        names = [name for name, load in LOADS.items() if night in load.nights]

        def write(state: dict[str, Any]) -> None:
            for name in names:
                state["datasets"][name].update(written=8192, size=LOADS[name].full_in(night))

        self.fake.edit(write)
        for row in self.sender.push(*names):
            said = row["receipt"]
            content = self.fake.sent(f"{said['dataset']}@{said['snapshot']}", said["base_guid"])
            facts = {name: said[name] for name in ("dataset", "snapshot", "guid", "base_guid", "raw_bytes")}
            yield Night(**facts, at=self.now, content=content)

    def restore(self, night: Night, into: str) -> list[str]:
        """Restore a snapshot. Returns: what `FakeZfs.received` says of it."""
        good(self.sender.fullsend("restore", f"{night.dataset}@{night.snapshot}", "--into", into))
        return self.fake.received(into)


@pytest.fixture
def world(swift_path: Path) -> Iterator[World]:
    with hosts(World, swift_path, f'merge = "off"\n{RETENTION}') as world:
        rules = []
        for name, load in LOADS.items():
            world.fake.create(name, kind=load.kind, size=load.full, increment=load.increment, block=BLOCK)
            rules += [f'[datasets."{name}"]', f"full-after = {{ {load.after} }}"] if load.after else []
        world.fake.create("back")
        with (world.sender.folder / "sender.toml").open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *rules]))
        yield world


@pytest.mark.slow
@pytest.mark.timeout(1800)  # beside other work it takes ten minutes
def test_three_years_of_nights(world: World) -> None:
    models = {name: Model() for name in LOADS}
    for number in range(NIGHTS):
        world.sleep()
        for night in world.push(number):
            models[night.dataset].add(night)
        begun = {name: model for name, model in models.items() if model.pushed}
        if number in PRUNE:
            good(world.receiver.fullsendd("prune"))
            for model in begun.values():
                model.prune()
        if number in LOOK:
            for name, model in begun.items():
                _check(world, name, model)
    for name, model in models.items():
        load = LOADS[name]
        assert len(model.pushed) == len(load.nights)
        if load.after is None:
            assert model.fulls == 1
            assert len(model.stored) == len(model.pushed)  # it is all
        elif load.after.startswith("age"):
            _check_by_age(load.nights, model)
        else:
            _check_by_increments(model, TABLE[name])
        _restore(world, name, model)
    # The host says where nothing ends.
    checked = {row["check"]: row["detail"] for row in rows(good(world.sender.fullsend("check", "--json")))}
    ever = models["tank/ever"].stored
    since = ever[0].at.date().isoformat()
    assert checked["tank/ever"].startswith(f"chain of {len(ever)} streams on receiver since {since}: nothing")
    assert checked.keys().isdisjoint(LOADS.keys() - {"tank/ever"})


def _check(world: World, name: str, model: Model) -> None:
    """What is stored is what the model says, and its bytes are as many."""
    found = world.receiver.list(f"alpha/{name}")
    assert [(each["snapshot"], each["guid"]) for each in found] == [(each.snapshot, each.guid) for each in model.stored]
    assert all(each["restorable"] for each in found)
    assert sum(each["raw_bytes"] for each in found) == model.raw_bytes


def _check_by_age(nights: range, model: Model) -> None:
    """A chain ends after two thirds of the age to all of it, at the first push after that."""
    shortest, longest = AGE * 2 / 3, AGE + nights.step
    days = len(nights) * nights.step
    assert days / longest <= model.fulls <= days / shortest + 1
    # What is stored: the chains of which something is not older than 12 months.
    reach = MONTHLY * 31 + longest
    fulls, increments = reach / shortest + 1, reach / nights.step
    assert max(model.sizes) <= fulls * max(model.pushed) + increments * model.pushed[1]
    # How much a restore reads.
    assert max(model.longest) <= AGE / nights.step + 1


def _check_by_increments(model: Model, told: Told) -> None:
    """A chain ends when its increments have two thirds of the bytes of its full to all of them. In the table it is all.
    So more is pushed and stored: 30 % more if all chains were the shortest.
    """
    full, increment, *_ = model.pushed
    longest, nights = full / increment, len(model.pushed)
    assert nights / (longest + 2) <= model.fulls <= nights / (longest * 2 / 3 + 1) + 1
    in_a_year = sum(model.pushed) / nights * 365
    assert 0.85 * told.pushed * full <= in_a_year <= 1.3 * told.pushed * full
    last = model.sizes[len(model.sizes) // 2 :]
    assert sum(last) / len(last) <= 1.3 * told.stored * full
    assert max(model.longest) <= told.streams


def _restore(world: World, name: str, model: Model) -> None:
    """What the policy promises is there: so many days, weeks and months, and each restores."""
    kept = kept_by_policy(model.stored)
    nights, pushed = [each.at for each in kept], LOADS[name].nights
    if pushed.step == 1:
        assert {(BEGIN + (NIGHTS - back) * NIGHT).date() for back in range(DAILY)} <= {at.date() for at in nights}
    assert len({at.isocalendar()[:2] for at in nights}) >= WEEKLY
    assert len({(at.year, at.month) for at in nights}) >= min(MONTHLY, len(pushed) * pushed.step // 31)
    if name != "tank/files":  # of the others the end of each chain, which restores all before it
        bases = {each.base_guid for each in model.stored}
        kept = [each for each in kept if each.guid not in bases]
    for number, chain in enumerate(model.chains(kept)):
        into = f"back/{name.rpartition('/')[2]}-{number}"
        assert world.restore(chain[-1], into) == [each.content() for each in chain]
