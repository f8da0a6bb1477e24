from __future__ import annotations

from dataclasses import replace

import pytest
from tests import streams
from tests.sender.command import answering_each
from tests.sender.peer import manifest_of, receiving
from tests.sender.restore.test_chains import entry
from tests.sender.restore.test_resume import NAME, Shelf

from fullsend_protocol.format.manifest import MergedInput
from fullsend_protocol.shared.errors import ErrorCode, PeerError, Unreachable
from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity
from fullsend_sender.restore.details import StoredDetails

STREAM = entry(NAME, 1, file=NAME)


def package(*names: str) -> bytes:
    parts = [streams.substream(name=f"{name}@now", guid=guid) for guid, name in enumerate(names, 1)]
    told = [streams.file_system(name, {"now": guid}) for guid, name in enumerate(names, 1)]
    return streams.package(*parts, name=NAME, nvlist=streams.tree("now", *told))


async def test_what_was_merged_is_asked_over_one_connection(identity: Identity, receiver_identity: Identity) -> None:
    manifest = manifest_of(streams.substream(name=NAME, guid=1))
    merged = MergedInput(file="f", dataset="tank/data", snapshot="a", guid="5", base_guid=None, sha256="5c" * 32)
    answers = [
        [messages.Sending(manifest=each), messages.Done()]
        for each in (manifest, manifest.model_copy(update={"merged": [merged]}))
    ]
    async with (
        receiving(receiver_identity, answering_each(*answers)) as receiver,
        StoredDetails(receiver.endpoint, identity) as details,
    ):
        assert await details.merged_into(STREAM) == set()
        assert await details.merged_into(STREAM) == {("5", None)}


async def test_a_package_says_itself_what_it_brings(identity: Identity, receiver_identity: Identity) -> None:
    """Its manifest comes without its snapshots, once they are many."""
    names = ["tank/data", *(f"tank/data/{number}" for number in range(400))]
    shelf = Shelf(package(*names), [5_000, 200_000])
    async with receiving(receiver_identity, shelf) as receiver, StoredDetails(receiver.endpoint, identity) as details:
        assert await details.datasets_in(STREAM) == frozenset(names)
        assert shelf.given == [0, 5_000]


async def test_a_package_that_cannot_be_read(identity: Identity, receiver_identity: Identity) -> None:
    gone = answering_each([messages.Error(code=ErrorCode.NOT_FOUND, message="it is gone")])
    shelf = Shelf(package("tank/data", "tank/data/a"), [])
    async with (
        receiving(receiver_identity, gone, shelf, gone) as receiver,
        StoredDetails(receiver.endpoint, identity) as details,
    ):
        assert await details.datasets_in(STREAM) is None
        assert await details.datasets_in(STREAM) == frozenset({"tank/data", "tank/data/a"})  # another connection
        shelf.chunks[0] = replace(shelf.chunks[0], frame=b"no frame")
        assert await details.datasets_in(STREAM) is None
        with pytest.raises(PeerError, match="it is gone"):
            await details.merged_into(STREAM)
        with pytest.raises(Unreachable):
            await details.datasets_in(STREAM)
