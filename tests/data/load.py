"""The genuine streams beside this file, as bytes and as what MANIFEST.json knows of them.

from tests.data.load import STREAMS, stream
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import pathlib
import struct
from typing import Any, Final

import zstandard

HEADER: Final = 312
BEGIN, OBJECT, END = 0, 1, 5
NOTHING: Final = (0, 0, 0, 0)
EMPTY: Final = {2, 4}  # FREEOBJECTS and FREE have no payload

HERE: Final = pathlib.Path(__file__).resolve().parent

#: Every stream by name, with the facts of MANIFEST.json.
STREAMS: Final[dict[str, dict[str, Any]]] = {
    entry["name"]: entry for entry in json.loads((HERE / "MANIFEST.json").read_text(encoding="utf-8"))
}


@functools.lru_cache(maxsize=4)
def stream(name: str) -> bytes:
    """The raw stream, proven by its SHA-256."""
    entry = STREAMS[name]
    raw = summed(name) if entry.get("stored") == "without running checksums" else unpacked(name)
    if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
        raise AssertionError(f"tests/data/{name}.zfs.zst does not hold what MANIFEST.json says")
    return raw


def unpacked(name: str) -> bytes:
    """What the file holds."""
    stored = (HERE / f"{name}.zfs.zst").read_bytes()
    return zstandard.ZstdDecompressor().decompress(stored, max_output_size=STREAMS[name]["size"])


@functools.cache  # it takes seconds, and there is one such stream
def summed(name: str) -> bytes:
    """What the file holds, with the running checksums that are left out of it."""
    return with_sums(unpacked(name))


def with_sums(raw: bytes) -> bytes:
    """The stream with the running checksums that are left out of its file, where they were most of what is there.

    fletcher-4 over little-endian words, zero at a BEGIN: a header's 280 bytes, then the sum itself, then the payload.
    """
    out = bytearray(raw)
    at = 0
    sums: tuple[int, ...] = NOTHING
    while at < len(out):
        kind, length = struct.unpack_from("<II", out, at)
        end = at + HEADER
        if kind == BEGIN:
            end += length
            sums = fletcher(out[at:end], NOTHING)
        else:
            if kind == OBJECT:
                end += (struct.unpack_from("<I", out, at + 28)[0] + 7) // 8 * 8
            elif kind == END:
                struct.pack_into("<4Q", out, at + 8, *sums)
            elif kind not in EMPTY:
                raise AssertionError(f"no stream with records of type {kind} is stored this way")
            sums = fletcher(out[at : at + 280], sums)
            struct.pack_into("<4Q", out, at + 280, *sums)
            sums = fletcher(out[at + 280 : end], sums)
        at = end
    return bytes(out)


def fletcher(data: bytes | bytearray, sums: tuple[int, ...]) -> tuple[int, ...]:
    """Extend the four sums by `data`: each is the running total of the one before it, the first that of the words."""
    totals = [word for (word,) in struct.iter_unpack("<I", data)]
    grown = []
    for start in sums:
        totals = list(itertools.accumulate(totals, initial=start))
        grown.append(totals[-1] % 2**64)
        del totals[0]
    return tuple(grown)
