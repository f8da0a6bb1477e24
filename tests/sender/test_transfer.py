"""What a driven push adds to a stream from a pipe; the rest of the transfer is in test_push_stdin.py."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests import streams
from tests.sender.peer import Keeper, receiving
from tests.sender.test_pipeline import flowing

from fullsend_protocol.errors import IncompleteStream
from fullsend_protocol.manifest import Receipt
from fullsend_sender.identity import Identity
from fullsend_sender.progress import Progress
from fullsend_sender.transfer import About, Options, Pushed, transfer
from fullsend_sender.zfs import ZfsError

STREAM = streams.package(streams.substream(name="tank/a@2", guid=2, base_guid=1), name="tank/a@2")


async def dead() -> None:
    raise ZfsError("`zfs send` failed (exit 1): I/O error")


async def push(keeper: Keeper, mine: Identity, theirs: Identity, raw: bytes, **about: Any) -> Pushed | Receipt:
    async with receiving(theirs, always=keeper) as receiver, flowing(raw) as fd:
        progress = Progress(time.monotonic())
        return await transfer(fd, receiver.endpoint, mine, Options(1), about=About(**about), progress=progress)


async def test_what_is_known_beforehand_is_offered(identity: Identity, receiver_identity: Identity) -> None:
    keeper = Keeper()
    said = {"single": True, "size": 7, "zfs_version": "zfs-2.4.4", "properties": {"compression": "zstd"}}
    pushed = await push(keeper, identity, receiver_identity, STREAM, **said)
    assert isinstance(pushed, Pushed)
    assert pushed.line().startswith("tank/a@2 (incremental): ")
    (offer,) = keeper.offers
    assert (offer.guid, offer.base_guid, offer.size_estimate, offer.keep_orphan) == ("2", "1", 7, False)
    assert (offer.zfs_version, offer.properties) == ("zfs-2.4.4", {"compression": "zstd"})


@pytest.mark.parametrize("raw", [STREAM, STREAM[:-1], STREAM[:5], b""], ids=["whole", "cut", "opening", "nothing"])
async def test_the_producers_word_decides(identity: Identity, receiver_identity: Identity, raw: bytes) -> None:
    keeper = Keeper()
    with pytest.raises(ZfsError, match="I/O error"):
        await push(keeper, identity, receiver_identity, raw, ended=dead)
    assert keeper.streams == []


async def test_a_producer_that_says_nothing(identity: Identity, receiver_identity: Identity) -> None:
    with pytest.raises(IncompleteStream):
        await push(Keeper(), identity, receiver_identity, STREAM[:-1])
