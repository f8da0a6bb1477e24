from __future__ import annotations

from fullsend_protocol.shared import limits
from fullsend_receiver.store_s3.part_sizes import COPY_MOST, OBJECT_MOST, PARTS_MAX, PartSizes

#: S3 refuses smaller parts, except for the last one.
LEAST = 5 << 20


def test_parts_grow_so_that_their_number_is_enough_for_a_large_stream() -> None:
    sizes = PartSizes()
    assert sizes.part(0) >= LEAST
    assert sizes.part(PARTS_MAX) == sizes.most
    assert sizes.without_segments > 500 << 30
    assert sum(map(sizes.part, range(sizes.direct))) > 350 << 30


def test_segments_are_enough_for_the_largest_object() -> None:
    sizes = PartSizes()
    assert (sizes.parts_most - 1 - sizes.direct) * sizes.segment >= OBJECT_MOST == sizes.object_most


def test_segment_can_be_copied_whole_and_is_no_part_that_is_too_small() -> None:
    """The last one may have a single part. The others have a part more than is enough, which waited for its end."""
    sizes = PartSizes()
    assert sizes.segment + 2 * sizes.most + limits.CHUNK_FRAME_MAX <= COPY_MOST
    assert sizes.part(sizes.direct) >= LEAST
