"""Quotas and reservations that come with a stream, and are held back until a chain is whole.

A source may have held 20 MB below a quota of 30, while its chain holds 40 for as long as it is restored: the received
quota would stop its own restore, for ever (openzfs issue 4492). The reservation of a thick volume comes with its first
stream (openzfs issue 17450).

`zfs receive -o` sets a value beside the received one, which `zfs inherit -S` brings back. With `-x` the received one
would be lost. Tried with OpenZFS 2.4.4: fulls, increments, volumes, `-s`; of a package it reaches the top alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fullsend_protocol.format.manifest import DatasetType, StreamEntry

#: What is set meanwhile limits nothing, and is no value of a user's, as `none` may be: 4 EiB, and a byte.
_TYPED: Final[Mapping[str, str]] = {"quota": "4E", "refquota": "4E", "reservation": "1", "refreservation": "1"}
#: The same, as `zfs get -p` prints it.
HELD: Final[Mapping[str, str]] = {name: str(4 << 60) if typed == "4E" else typed for name, typed in _TYPED.items()}
_OF_VOLUMES: Final = ("reservation", "refreservation")


def quotas_of(kind: DatasetType) -> tuple[str, ...]:
    """Return the names of the quotas and reservations that a dataset of this type has."""
    return _OF_VOLUMES if kind == "volume" else tuple(HELD)


def brings_properties(entry: StreamEntry) -> bool:
    """Whether a stream has properties: quotas, and that it is not encrypted."""
    return entry.kind == "package" or "p" in entry.flags


def held_back(names: Iterable[str]) -> list[str]:
    """Return the options with which `zfs receive` takes these quotas and reservations without obeying them."""
    return [word for name in names for word in ("-o", f"{name}={_TYPED[name]}")]
