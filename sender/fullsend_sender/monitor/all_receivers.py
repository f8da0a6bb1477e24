"""What all receivers know of this host's backups, and the one state that follows: what `fullsend status` says.

A receiver that cannot be asked is unknown for its part, and the others are judged all the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_protocol.shared.exit_codes import NagiosState
from fullsend_protocol.shared.units import format_duration, plural, printable
from fullsend_sender.monitor.status import BackupState, ReceiverState, look_here, status
from fullsend_sender.zfs.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fullsend_sender.host.config import SenderSettings
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.zfs.commands import Zfs

#: The states, the worst last. What is known to be wrong is worse than what is not known, and that may hide anything.
_RISING: Final = (NagiosState.OK, NagiosState.WARNING, NagiosState.UNKNOWN, NagiosState.CRITICAL)
#: Names in the first line, which is all that many monitoring systems show.
_NAMED: Final = 3
_NOTHING: Final = "nothing is stored"


@dataclass(frozen=True, slots=True)
class UnknownReceiver:
    """A receiver that could not be asked. `name`: in sender.toml; `why`: what went wrong."""

    name: str
    why: str

    @property
    def state(self) -> NagiosState:
        """UNKNOWN."""
        return NagiosState.UNKNOWN

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object of the receiver: the keys of one that has answered."""
        unknown = dict.fromkeys(("program", "free_bytes", "problems", "warnings", "scrub"))
        return {"receiver": self.name, "dataset": None, "state": self.state.name, "why": self.why, **unknown}


@dataclass(frozen=True, slots=True)
class ReceiverPart:
    """What one receiver knows of this host's backups. `receiver`: its own state; `judged`: the datasets, in the order
    of their names; `some`: a person has named datasets, so nothing of them need be at this receiver.
    """

    receiver: ReceiverState | UnknownReceiver
    judged: Sequence[BackupState] = ()
    some: bool = False

    @property
    def name(self) -> str:
        """The receiver's name in sender.toml."""
        return self.receiver.name

    @property
    def state(self) -> NagiosState:
        """The worst state of the receiver and the datasets; UNKNOWN if nothing is stored."""
        return _worst([self._own, *(each.state for each in self.judged)])

    @property
    def is_unknown(self) -> bool:
        """Whether the receiver could not be asked."""
        return isinstance(self.receiver, UnknownReceiver)

    @property
    def _nothing(self) -> bool:
        """Whether the receiver has answered, and nothing is stored where something should be."""
        return not (self.judged or self.some or self.is_unknown)

    @property
    def _own(self) -> NagiosState:
        return NagiosState.UNKNOWN if self._nothing else self.receiver.state

    def summary(self, *, alone: bool) -> str:
        """Return the part of the first line: the worst datasets by name, and what the receiver reports. `alone`: it is
        the whole line, in which only the receiver's own report needs its name. "": there is nothing to say.
        """
        if isinstance(self.receiver, UnknownReceiver):
            return self.receiver.why
        said = []
        bad = sorted((each for each in self.judged if each.state is not NagiosState.OK), key=lambda each: -each.state)
        if bad:
            named = "; ".join(f"{each.dataset}: {each.why}" for each in bad[:_NAMED])
            more = f"; {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            said.append(f"{len(bad)} of {plural(len(self.judged), 'dataset')}: {named}{more}")
        if self.receiver.findings:
            first, *others = self.receiver.findings
            whose = f"receiver {self.name}: " if alone else ""
            said.append(f"{whose}{first}{f'; {len(others)} more' if others else ''}")
        if self._nothing:
            said.insert(0, _NOTHING)
        elif self.judged and not bad:
            oldest = max(self.judged, key=lambda each: each.age or 0.0)
            said.append(
                f"{plural(len(self.judged), 'dataset')}, the oldest backup is of"
                f" {format_duration(oldest.age or 0.0)} ago ({oldest.dataset})"
            )
        return "; ".join(said)

    def lines(self, *, alone: bool) -> Iterator[str]:
        """Yield a line for each thing that is wrong, and how the checks of what is stored stand. Each begins with its
        state. `alone`: the first line says what the whole part is, and a dataset needs no receiver's name.
        """
        for each in self.judged:
            if each.why:
                yield each.line("" if alone else self.name)
        why = self.receiver.why if isinstance(self.receiver, UnknownReceiver) else _NOTHING if self._nothing else ""
        if why and not alone:
            yield printable(f"{NagiosState.UNKNOWN.name:<8}  receiver {self.name}: {why}")
        if isinstance(self.receiver, ReceiverState):
            yield from self.receiver.lines()

    def to_dicts(self) -> Iterator[dict[str, object]]:
        """Yield the JSON objects: of each dataset, then of the receiver. The worst state is that of the part."""
        for each in self.judged:
            yield {"receiver": self.name, **each.to_dict()}
        about = self.receiver.to_dict()
        if self._nothing:
            about |= {"state": self._own.name, "why": "; ".join(filter(None, (_NOTHING, str(about["why"]))))}
        yield about


async def ask_all(
    settings: SenderSettings, identity: Identity, zfs: Zfs, patterns: Sequence[str], *, max_age: float | None
) -> list[ReceiverPart]:
    """Ask all receivers that answer for this host's backups, at the same time, and judge. `patterns`: of datasets,
    none: all; `max_age`: in seconds, None: no limit.

    Returns: a part of each receiver, in the order of the configuration. Raises: UsageError if no receiver is
    configured, or if a pattern fits nothing at any of them.
    """
    names = settings.watched()
    here = await look_here(zfs)

    async def ask(name: str) -> ReceiverPart:
        try:
            endpoint = settings.endpoint(name)
            where = settings, endpoint, identity, zfs, here
            judged, receiver = await status(*where, patterns=patterns, max_age=max_age)
        except FullsendError as error:
            return ReceiverPart(UnknownReceiver(name, str(error)))
        return ReceiverPart(receiver, judged, some=bool(patterns))

    parts = await asyncio.gather(*map(ask, names))
    if patterns and not any(part.is_unknown for part in parts):
        found = sorted({each.dataset for part in parts for each in part.judged})
        if missing := Selection(tuple(patterns)).missing(found):
            raise UsageError(f"{', '.join(missing)}: nothing of that name is stored, or named by the configuration")
    return parts


def worst(parts: Sequence[ReceiverPart]) -> NagiosState:
    """Return the worst state of all parts: CRITICAL before UNKNOWN before WARNING."""
    return _worst(part.state for part in parts)


def headline(parts: Sequence[ReceiverPart]) -> str:
    """Return the one line that a monitoring system shows: the worst state, and of each receiver, the worst first, its
    worst datasets by name and what it reports.
    """
    if len(parts) == 1:
        said = parts[0].summary(alone=True)
    else:
        falling = sorted(parts, key=lambda part: -_RISING.index(part.state))
        texts = ((part.name, part.summary(alone=False)) for part in falling)
        said = "; ".join(f"receiver {name}: {text}" for name, text in texts if text)
    return printable(f"{worst(parts).name}: {said}")


def _worst(states: Iterable[NagiosState]) -> NagiosState:
    return max(states, key=_RISING.index)
