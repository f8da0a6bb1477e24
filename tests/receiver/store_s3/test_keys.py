from __future__ import annotations

from tests.receiver.buckets import KEY, PUSH
from tests.receiver.helpers import SENDER

from fullsend_receiver.store.opened import open_offer
from fullsend_receiver.store_s3 import keys


def test_bytes_of_a_stream_get_a_key_that_is_never_used_again() -> None:
    opened = open_offer(SENDER, PUSH)
    first, second = keys.data_key(opened), keys.data_key(opened)
    assert first != second
    for key in (first, second):
        assert key.startswith("alpha/tank/data/@now.")
        assert key.endswith(".zfs.zst")


def test_objects_of_a_journal_are_listed_in_the_order_of_their_numbers() -> None:
    numbers = [1, 2, 9, 10, 99, 100, 10_000_000]
    written = [keys.journal_key(KEY, "g", number) for number in numbers]
    assert written == sorted(written)
    assert all(each.startswith(keys.journal_prefix(KEY, "g")) for each in written)


def test_object_of_an_arriving_stream_tells_which_and_its_generation() -> None:
    assert keys.partial_of(keys.open_key(KEY)) == (KEY, None)
    assert keys.partial_of(keys.journal_key(KEY, "g", 1)) == (KEY, "g")


def test_segments_are_listed_behind_the_journal_and_have_keys_that_any_store_can_copy() -> None:
    segment = keys.segment_key(KEY, "g", 7501)
    assert keys.is_segment(segment)
    assert not keys.is_segment(keys.journal_key(KEY, "g", 1))
    assert segment > keys.journal_key(KEY, "g", 99_999_999)
    assert keys.partial_of(segment) == (KEY, "g")
    assert "%" not in segment
