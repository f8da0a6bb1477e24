"""Second pass: contents of chosen objects."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import pytest
from tests import streams
from tests.file_trees import LONG, TREES, GenuineTree, Tree, an_object, raw, stream_of

from fullsend_protocol.dataset.contents import read_contents
from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_protocol.shared.errors import IncompleteStream
from fullsend_protocol.stream.merge import MergeInput, merge


def test_only_what_is_wanted_is_decompressed() -> None:
    """The block of the other object would not decompress."""
    data = stream_of(
        an_object(7, 19, 512),
        streams.write(7, 0, bytes(512), logical_size=1024),
        an_object(8, 19, 512),
        streams.write(8, 512, b"w" * 512),
    )
    found = list(read_contents(ObjectReader("it", [data]), {8}))
    assert [(each.number, each.offset, bytes(each.data)) for each in found] == [(8, 512, b"w" * 512)]


def test_the_stream_is_read_to_its_end() -> None:
    made = Tree()
    file = made.file(made.root, b"f", b"x")
    with pytest.raises(IncompleteStream):
        list(read_contents(ObjectReader("it", [made.stream()[:-312]]), {file}))


@pytest.mark.parametrize("tree", [*TREES, LONG], ids=str)
def test_genuine_files_have_the_contents_that_the_pool_said(tree: GenuineTree) -> None:
    """A full, and a full with its increment, merged on the fly."""
    inputs = [raw(path) for path in tree.paths()]
    pieces = inputs if len(inputs) == 1 else merge([MergeInput("x", [data]) for data in inputs])
    wanted = {each["ino"]: each for each in tree.listing().values() if "sha256" in each}
    found: dict[int, hashlib._Hash] = defaultdict(hashlib.sha256)
    ends: dict[int, int] = defaultdict(int)
    for block in read_contents(ObjectReader("it", pieces), wanted):
        size = wanted[block.number]["size"]
        data = memoryview(block.data)[: max(size - block.offset, 0)]
        found[block.number].update(bytes(block.offset - ends[block.number]) + bytes(data))
        ends[block.number] = block.offset + len(data)
    for number, about in wanted.items():
        found[number].update(bytes(about["size"] - ends[number]))
        assert found[number].hexdigest() == about["sha256"], number
    assert len(wanted) > 100
