"""Genuine chains: a full and the increments on it, and what `zfs send` gave for every pair of their snapshots.

They are those of tests/data/chains, plus, where there is one, a larger set of the same form: the folder that
$FULLSEND_CHAINS names, else ../shared/chains beside the checkout. OpenZFS 2.4.4 made them.

    chain = chains()[0]
    chain.run(1, 3)         # the increments 1 -> 2 and 2 -> 3
    chain.genuine(1, 3)     # the SHA-256 of `zfs send -i @1 @3`, if it is known
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from tests.data import load


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain of `snapshots` snapshots, numbered from 0; `sends`: what is known of each `zfs send`."""

    name: str
    folder: Path
    snapshots: int
    sends: dict[str, dict[str, Any]]

    def run(self, base: int | None, to: int) -> list[tuple[str, bytes]]:
        """The stored streams that lead from a snapshot, or from nothing, to another one, each with its name."""
        names = [f"incr-{number}-{number + 1}" for number in range(base or 0, to)]
        if base is None:
            names.insert(0, "full-0")
        return [(name, _read(self.folder / f"{name}.zfs.zst")) for name in names]

    def genuine(self, base: int | None, to: int) -> str | None:
        """The SHA-256 of `zfs send` of the same."""
        send = self.sends.get(f"full-{to}" if base is None else f"incr-{base}-{to}")
        return None if send is None else str(send["sha256"])

    def pairs(self) -> list[tuple[int | None, int]]:
        """All (base, snapshot) that take more than one stream."""
        bases: list[int | None] = [None, *range(self.snapshots)]
        return [(base, to) for base in bases for to in range(self.snapshots) if len(self.run(base, to)) > 1]


@functools.lru_cache(maxsize=8)
def _read(path: Path) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()


@functools.cache
def chains() -> tuple[Chain, ...]:
    """All chains; those of the larger set are there once."""
    named = os.environ.get("FULLSEND_CHAINS")
    beside = Path(named) if named else load.HERE.parent.parent.parent / "shared" / "chains"
    found: dict[str, Chain] = {}
    for folder in (load.HERE / "chains", beside):
        manifest = folder / "MANIFEST.json"
        if folder == beside and not named and not manifest.is_file():
            continue
        for name, about in json.loads(manifest.read_text(encoding="utf-8")).items():
            found.setdefault(name, Chain(name, folder / name, about["snapshots"], about["genuine"]))
    return tuple(found.values())


def named(name: str) -> Chain:
    """The chain of this name."""
    (found,) = (chain for chain in chains() if chain.name == name)
    return found
