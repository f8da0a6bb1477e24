"""A ZFS host and a storage host with one clock that the test sets, and what a policy keeps of a push each night.

The model of the policy knows its rules, and nothing of how the programs decide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from tests.clocked import Clock
from tests.fakezfs import FakeZfs
from tests.fakezfs_inside import inside
from tests.programs import Receiver, Sender, started

BEGIN: Final = datetime(2027, 1, 2, 2, 0, tzinfo=UTC)
DAILY, WEEKLY, MONTHLY = 7, 5, 12
#: As the receiver's settings have it.
RETENTION: Final = f"[retention]\ndaily = {DAILY}\nweekly = {WEEKLY}\nmonthly = {MONTHLY}\n"


class Pushed(Protocol):
    """A snapshot that was pushed."""

    @property
    def guid(self) -> str: ...

    @property
    def at(self) -> datetime: ...


_P = TypeVar("_P", bound=Pushed)


def kept_by_policy(pushed: Sequence[_P]) -> list[_P]:
    """Return what `RETENTION` promises, and the newest three: `minimum-count`, and among them is what two days keep.

    `pushed`: in the order of their reception.
    """
    guids = {each.guid for each in pushed[-3:]}
    rules: list[tuple[int, Callable[[datetime], Any]]] = [
        (DAILY, lambda at: at.date()),
        (WEEKLY, lambda at: at.isocalendar()[:2]),
        (MONTHLY, lambda at: (at.year, at.month)),
    ]
    for count, period in rules:
        first: dict[Any, str] = {}
        for each in pushed:
            first.setdefault(period(each.at), each.guid)
        guids |= set(list(first.values())[-count:])
    return [each for each in pushed if each.guid in guids]


@dataclass
class Hosts:
    """A ZFS host and a storage host with one clock."""

    receiver: Receiver
    sender: Sender
    fake: FakeZfs
    clock: Clock
    now: datetime = BEGIN

    def sleep(self, days: int = 1) -> None:
        """Wait for so many nights."""
        self.now += timedelta(days=days)
        self.clock.set(self.now.timestamp())
        self.fake.clock(int(self.now.timestamp()))


_H = TypeVar("_H", bound=Hosts)


@contextmanager
def hosts(kind: type[_H], folder: Path, settings: str) -> Iterator[_H]:
    """Start a receiver with these lines at the end of its settings, and join a sender whose `zfs` is a fake."""
    clock = Clock(folder / "clock")
    clock.set(BEGIN.timestamp())
    receiver = Receiver(folder / "receiver", inside=True)
    sender = Sender(folder / "sender", "alpha", inside=True)
    with ExitStack() as stack:
        stack.enter_context(clock.here())
        receiver.init()
        with (receiver.folder / "receiver.toml").open("a", encoding="utf-8") as file:
            file.write(settings)
        serve = clock.command("fullsend_receiver", "serve")
        stack.enter_context(started(receiver, *serve, PYTHONPATH=os.getcwd()))
        sender.join(receiver)
        fake = FakeZfs.make(folder / "zfs")
        stack.enter_context(inside(fake))
        toml = sender.folder / "sender.toml"
        toml.write_text(f'zfs-command = "{fake.program}"\n{toml.read_text(encoding="utf-8")}', encoding="utf-8")
        yield kind(receiver, sender, fake, clock)
