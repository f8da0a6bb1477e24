"""The stored streams are what MANIFEST.json says, and few bytes."""

from __future__ import annotations

import json

import pytest
from tests.data.load import HERE, STREAMS, stream


@pytest.mark.parametrize("name", STREAMS)
def test_it_is_the_stream_that_was_sent(name: str) -> None:
    raw = stream(name)  # compares the SHA-256
    assert len(raw) == STREAMS[name]["size"]
    assert all(raw[begin["at"] : begin["at"] + 4] == bytes(4) for begin in STREAMS[name]["begins"])


def test_nothing_else_is_stored() -> None:
    assert {path.name for path in HERE.glob("*.zst")} == {f"{name}.zfs.zst" for name in STREAMS}
    assert sum(path.stat().st_size for path in HERE.iterdir() if path.is_file()) <= 5 << 19
    names = [entry["name"] for entry in json.loads((HERE / "MANIFEST.json").read_text(encoding="utf-8"))]
    assert len(names) == len(set(names))


def test_a_part_is_a_prefix_of_its_whole() -> None:
    for name, entry in STREAMS.items():
        if name.endswith("-part"):
            assert stream(entry["whole"]).startswith(stream(name))
