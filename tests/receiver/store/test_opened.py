from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from tests import streams
from tests.receiver.arriving import KEY, RAW
from tests.receiver.helpers import SENDER, push_of

from fullsend_protocol.format.manifest import PartialEntry
from fullsend_protocol.wire.messages import Push
from fullsend_receiver.store.opened import Offer, Opened, entry_of, merge_key, offer_of, partial_key

PUSH = push_of(streams.substream(streams.object_(1))).model_copy(
    update={"base_guid": "9", "flags": "ec", "size_estimate": 7, "zfs_version": "2.4", "properties": {"a": "b"}}
)
AT, LAST = "2026-11-23T06:30:00Z", "2026-11-23T06:40:00Z"
#: What a connection said of itself.
CONNECTION = {"type", "claim", "resume", "whole"}


def test_all_of_an_offer_is_written_down_but_what_its_connection_was() -> None:
    offer = offer_of(PUSH)
    assert Offer.model_fields.keys() == Push.model_fields.keys() - CONNECTION
    assert offer.model_dump() == {name: value for name, value in PUSH.model_dump().items() if name not in CONNECTION}


def test_what_is_written_down_is_read_again() -> None:
    opened = Opened(sender=SENDER, offer=offer_of(PUSH), at=AT)
    said = json.loads(opened.model_dump_json(by_alias=True))
    assert Opened.model_validate(said) == opened
    assert said["format"] == 1
    # A first version wrote no format, and more of the wire.
    del said["format"]
    said["push"] |= {"type": "push", "claim": 7, "resume": "by magic", "whole": []}
    assert Opened.model_validate(said) == opened


def test_a_name_is_all_that_an_offer_must_say() -> None:
    offer = Offer.model_validate({"dataset": "tank", "snapshot": "now"})
    assert (offer.guid, offer.base_guid, offer.flags, offer.properties, offer.keep_orphan) == (*[None] * 4, False)
    for missing in ({"dataset": "tank"}, {"snapshot": "now"}):
        with pytest.raises(ValidationError):
            Offer.model_validate(missing)


@pytest.mark.parametrize("wrong", [{"guid": "0x1"}, {"guid": 1}, {"flags": "z"}, {"size_estimate": -1}, {"dataset": 7}])
def test_what_no_stream_has_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Offer.model_validate({"dataset": "tank", "snapshot": "now", **wrong})


def test_what_a_sender_is_told_of_a_partial() -> None:
    offer = offer_of(PUSH)
    far = {"raw_bytes": 9, "stored_bytes": 5, "resume_offset": 4, "last": LAST, "arriving": True}
    entry = entry_of(
        Opened(sender=SENDER, offer=offer, at=AT),
        raw_bytes=9,
        stored_bytes=5,
        resume_offset=4,
        last=LAST,
        arriving=True,
    )
    about = {"dataset": PUSH.dataset, "snapshot": PUSH.snapshot, "guid": PUSH.guid, "base_guid": "9", "flags": "ec"}
    assert entry == PartialEntry.model_validate({"sender": SENDER, "started": AT, **about, **far})


def test_no_token_resumes_a_package() -> None:
    offer = offer_of(PUSH.model_copy(update={"guid": None, "flags": None, "base_guid": None}))
    opened = Opened(sender=SENDER, offer=offer, at=AT)
    entry = entry_of(opened, raw_bytes=9, stored_bytes=5, resume_offset=4, last=LAST, arriving=False)
    assert (entry.guid, entry.resume_offset) == (None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "tank/other"},
        {"snapshot": "then"},
        {"guid": "1"},
        {"guid": None},
        {"base_guid": "1"},
        {"flags": "L"},
        {"flags": None},
    ],
)
def test_streams_that_are_announced_differently_are_partials_of_their_own(change: dict[str, Any]) -> None:
    assert partial_key(SENDER, push_of(RAW).model_copy(update=change)) != KEY


def test_senders_have_partials_of_their_own() -> None:
    assert partial_key("beta", push_of(RAW)) != KEY


def test_what_a_sender_does_not_know_for_sure_does_not_tell_partials_apart() -> None:
    changed = push_of(RAW).model_copy(update={"size_estimate": 5, "zfs_version": "2.4"})
    assert partial_key(SENDER, changed) == KEY


def test_the_partial_of_a_merge_has_a_key_by_its_inputs_in_their_order() -> None:
    keys = {merge_key(files) for files in (["a", "b"], ["b", "a"], ["a"], ["ab"])}
    assert len(keys) == 4
    assert {len(each) for each in keys} == {len(KEY)}
