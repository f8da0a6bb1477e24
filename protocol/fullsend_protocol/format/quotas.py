"""Quotas and reservations that come with a stream, and are held back until a chain is whole.

A source may have held 20 MB below a quota of 30, while its chain holds 40 during a restore. Then the received quota
would stop its own restore, every time (openzfs issue 4492). The reservation of a thick volume comes with its first
stream (openzfs issue 17450).

`zfs receive -o` sets a value beside the received one, which `zfs inherit -S` restores. `-x` would lose the received
one. Tried with OpenZFS 2.4.4: fulls, increments, volumes, `-s`; for a package it affects the top alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fullsend_protocol.format.manifest import DatasetType, StreamEntry

#: Values that limit nothing, and that no user sets, unlike `none`: 4 EiB, and a byte.
_TYPED: Final[Mapping[str, str]] = {"quota": "4E", "refquota": "4E", "reservation": "1", "refreservation": "1"}
#: The same values, as `zfs get -p` prints them.
HELD: Final[Mapping[str, str]] = {name: str(4 << 60) if typed == "4E" else typed for name, typed in _TYPED.items()}
_OF_VOLUMES: Final = ("reservation", "refreservation")


def quotas_of(kind: DatasetType) -> tuple[str, ...]:
    """Return the names of the quotas and reservations of this type of dataset."""
    return _OF_VOLUMES if kind == "volume" else tuple(HELD)


def brings_properties(entry: StreamEntry) -> bool:
    """Whether a stream has properties: quotas, and `encryption=off`."""
    return entry.kind == "package" or "p" in entry.flags


def held_back(names: Iterable[str]) -> list[str]:
    """Return the options of `zfs receive` that hold these quotas and reservations back."""
    return [word for name in names for word in ("-o", f"{name}={_TYPED[name]}")]
