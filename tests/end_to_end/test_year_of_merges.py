"""A year, and three years, of nights whose streams are merged.

A host pushes, and the storage host prunes by its policy, both by one clock that the test sets. A model says what must
be stored: it knows the rules of the policy and the snapshots that were pushed, and nothing of how the programs decide.
What each stored stream must be, byte for byte, says the `zfs send` of the fake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from tests.fakezfs import Blocks
from tests.nights import MONTHLY, RETENTION, Hosts, hosts, kept_by_policy
from tests.programs import good

DATASET: Final = "tank/vm"
#: `rebase-after`, by default.
REBASE_AFTER: Final = 0.3


@dataclass(frozen=True)
class Load:
    """`days`: so long; `step`: a push and a prune once in so many days; `blocks`: what is pushed."""

    days: int
    step: int
    blocks: Blocks


#: 500 blocks stand for 1 TB. A night rewrites 1 % of it: of a hot twentieth, or of all of it.
LOADS: Final = {
    "a year, a hot twentieth": Load(365, 1, Blocks(500, hot=25, rewritten=5)),
    "three years, all of it": Load(3 * 365, 4, Blocks(500, hot=500, rewritten=20)),
}


@dataclass(frozen=True)
class Night:
    """A snapshot that was pushed. `sent`: the stream of it, as its source gives it, by the GUID of its base; `blocks`:
    what restoring it must give.
    """

    snapshot: str
    guid: str
    base_guid: str | None
    stored_bytes: int
    at: datetime
    sent: Callable[..., bytes]
    blocks: Callable[[], object]


@dataclass
class Model:
    """What was pushed, in its order, and what must be stored of it. `proven`: streams that were compared already."""

    pushed: list[Night] = field(default_factory=list)
    proven: set[tuple[str, str | None, str]] = field(default_factory=set)

    def check(self, found: list[dict[str, Any]]) -> None:
        """What is stored is one chain of what is kept, below it at most its foot; each stream is what its source gives.

        `found`: what the receiver lists.
        """
        foot = [] if found[0]["guid"] in {each.guid for each in kept_by_policy(self.pushed)} else found[:1]
        assert [each["guid"] for each in found[len(foot) :]] == [each.guid for each in kept_by_policy(self.pushed)]
        by_guid = {each.guid: each for each in self.pushed}
        for base, each in zip([None, *found], found, strict=False):
            assert each["base_guid"] == (base and base["guid"])
            assert each["restorable"]
            stream = (each["guid"], each["base_guid"], each["sha256"])
            if stream not in self.proven:
                sent = by_guid[each["guid"]].sent(each["base_guid"], ["-L", "-p"])
                assert each["sha256"] == hashlib.sha256(sent).hexdigest()
                self.proven.add(stream)
        if foot:  # it waits until the increments that it would swallow are worth it
            assert found[1]["stored_bytes"] <= REBASE_AFTER * found[0]["stored_bytes"]


class World(Hosts):
    """What happens in a night."""

    def push(self) -> Night:
        """Write to the dataset, and push it."""
        self.fake.change(DATASET)
        (row,) = self.sender.push(DATASET)
        said = row["receipt"]
        name = f"{DATASET}@{said['snapshot']}"
        facts = {key: said[key] for key in ("snapshot", "guid", "base_guid", "stored_bytes")}
        return Night(**facts, at=self.now, sent=self.fake.stream(name), blocks=self.fake.blocks(name))

    def restore(self, night: Night, target: str) -> None:
        """Restore a snapshot: all of it, or what the target does not have yet."""
        good(self.sender.fullsend("restore", f"{DATASET}@{night.snapshot}", "--into", target))
        assert self.fake.received_blocks(target) == night.blocks()


@pytest.fixture
def world(swift_path: Path) -> Iterator[World]:
    with hosts(World, swift_path, f"min-free = '1M'\n{RETENTION}") as world:
        world.fake.create("back")
        yield world


@pytest.mark.slow
@pytest.mark.timeout(1800)  # beside other work it takes ten minutes
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_what_is_kept_restores_and_one_full_is_sent_ever(
    world: World, load: Load, record_property: Callable[[str, object], None]
) -> None:
    world.fake.create(DATASET, blocks=load.blocks)
    model = Model()
    most = 0  # bytes, with what waits in the trash
    for number in range(load.days // load.step):
        world.sleep(load.step)
        model.pushed.append(world.push())
        good(world.receiver.fullsendd("prune"))
        most = max(most, sum(file.stat().st_size for file in world.receiver.store.rglob("*.zst")))
        if number % (60 // load.step) == 0:
            model.check(world.receiver.list())
    found = world.receiver.list()
    model.check(found)
    assert [each.base_guid for each in model.pushed] == [None, *(each.guid for each in model.pushed[:-1])]
    kept = kept_by_policy(model.pushed)
    assert len({(each.at.year, each.at.month) for each in kept}) == MONTHLY
    for night in kept:
        world.restore(night, "back/each")
    assert len(world.fake.received("back/each")) == len(found)
    world.restore(kept[-1], "back/last")
    # Without merges all would be stored: the newest snapshot needs each stream.
    bytes_with, bytes_without = (sum(each["stored_bytes"] for each in found), sum(n.stored_bytes for n in model.pushed))
    # As so many fulls: docs/performance.md has these.
    full = model.pushed[0].stored_bytes
    record_property("streams", f"{len(found)}, without merges {len(model.pushed)}")
    record_property("pushed, and stored without merges", f"{bytes_without / full:.2f}")
    record_property("stored", f"{bytes_with / full:.2f}; with the trash at most {most / full:.2f}")
    assert bytes_with < bytes_without / 2
