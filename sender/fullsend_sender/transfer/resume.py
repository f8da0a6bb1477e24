"""Going on by a token: `zfs send -t` makes only what the receiver lacks of a stream (design section 7).

The token is made here, of what this host meant to send: from outside come the last record that is kept, and the
features of its stream, and both are held against what `zfs send -t` gives (openzfs issue 14153: a token names any
snapshot of a host).
"""

from __future__ import annotations

import base64
import contextlib
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import NotTheSameStream
from fullsend_protocol.stream import nvlist
from fullsend_protocol.stream.records import Begin, Feature, Phase, Walker, WalkerState
from fullsend_protocol.stream.resume_token import ResumeToken, token_features
from fullsend_protocol.stream.splice import ResumePoint, Splicer
from fullsend_sender.transfer.pipeline import Pipeline
from fullsend_sender.transfer.pipes import PIPE_SIZE, Source
from fullsend_sender.transfer.segments import OtherBytes
from fullsend_sender.transfer.send import About, Offer, Options, Pushed, Transfer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fullsend_protocol.format.manifest import PartialEntry, Receipt
    from fullsend_protocol.stream.checksums import Piece
    from fullsend_protocol.wire import messages
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.transfer.progress import Progress
    from fullsend_sender.zfs.commands import Zfs

#: Stands for the properties in the BEGIN of a stream with -p, which `zfs send -t` does not repeat: an nvlist that names
#: nothing. The receiver has the real one, and holds the stream against it.
_SOME_PROPERTIES: Final = nvlist.encode({})


async def go_on_by_token(
    zfs: Zfs,
    begun: PartialEntry,
    endpoint: Endpoint,
    identity: Identity,
    options: Options,
    *,
    about: About,
    progress: Progress,
) -> Pushed | Receipt:
    """Push what the receiver lacks of a stream that it has begun to take.

    `begun`: what it says of it; our dataset has that snapshot, of that GUID and with that base, and means to send it in
    the class that the flags show. Returns: as `transfer`.

    Raises: as `transfer`; NotTheSameStream, ZfsError where a token cannot serve: the receiver keeps what it has.
    """
    ended: list[Callable[[], Awaitable[None]]] = []

    async def producer_ended() -> None:
        for wait in ended:
            await wait()

    async with contextlib.AsyncExitStack() as stack:

        async def begin(accept: messages.Accept) -> Pipeline:
            token, splicer = _prepare(begun, accept)
            sending = await stack.enter_async_context(zfs.send("-t", token.encode()))
            ended.append(sending.succeeded)
            walker = partial(_walker, begun, token, accept.offset)
            source = Spliced(Source(sending.fd), splicer)
            pipeline = Pipeline(source, level=options.level, threads=options.threads, walker=walker)
            await stack.enter_async_context(pipeline)
            pipeline.proceed(accept.segments)
            progress.add(accept.offset, 0)
            return pipeline

        about = replace(about, resume="token", ended=producer_ended)
        offer = Offer(begun.dataset, begun.snapshot, begun.guid, begun.base_guid, begun.flags)
        return await Transfer(endpoint, identity, options, about, offer, begin=begin, progress=progress).run()


def _prepare(begun: PartialEntry, accept: messages.Accept) -> tuple[ResumeToken, Splicer]:
    """Return what to ask `zfs send -t` for, and what makes of its answer the rest of the stream.

    Raises: NotTheSameStream.
    """
    if accept.record is None or begun.guid is None:
        raise NotTheSameStream("the receiver has no record behind which it could go on")
    features = accept.record.features
    # Whether it goes out raw, this host decides: the receiver must not make it send an encrypted dataset plain.
    if bool(features >> Feature.RAW & 1) != ("w" in (begun.flags or "")):
        raise NotTheSameStream("the receiver says that its part of the stream is of another class")
    point = ResumePoint(base64.b64decode(accept.record.header), bytes.fromhex(accept.record.payload_sha256))
    name, guid = f"{begun.dataset}@{begun.snapshot}", int(begun.guid)
    base_guid = None if begun.base_guid is None else int(begun.base_guid)
    # First the splicer, which refuses what no token could ask for.
    splicer = Splicer(
        point,
        name=name,
        guid=guid,
        base_guid=base_guid,
        features=features,
        compound="p" in (begun.flags or ""),
    )
    token = ResumeToken(
        name=name,
        guid=guid,
        base_guid=base_guid,
        object=point.object,
        offset=point.offset,
        features=token_features(features),
    )
    return token, splicer


def _walker(begun: PartialEntry, token: ResumeToken, offset: int) -> Walker:
    """Return a walker that stands behind the record that the receiver keeps."""
    compound = "p" in (begun.flags or "")
    outer = Begin(True, token.name, 0, 0, 0, 0, False, _SOME_PROPERTIES)
    # Of its features only those that show as flags, which a receipt says.
    inner = Begin(False, token.name, token.guid, token.base_guid or 0, 0, token.features, False, b"")
    state = WalkerState(offset, Phase.SUBSTREAM, resumable=True)
    return Walker.resume(state, [outer, inner] if compound else [inner])


class Spliced:
    """Reads the rest of a stream out of `zfs send -t`, as pipeline.RawSource; `at_end` is that of its pipe."""

    def __init__(self, source: Source, splicer: Splicer) -> None:
        self._source = source
        self._splicer = splicer
        self._buffer = memoryview(bytearray(PIPE_SIZE))
        self._pieces: deque[Piece] = deque()  # of the buffer, which is read into again only when there are none
        self._finished = False

    @property
    def at_end(self) -> bool:
        return self._source.at_end

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte. Returns: bytes read, 0 at the end.

        Raises: OSError, Stopped; NotTheSameStream, OtherBytes (the same, after something has been read: that is not to
        be kept), IncompleteStream.
        """
        while not self._pieces:
            if self._finished:
                return 0
            self._read()
        piece = memoryview(self._pieces.popleft())
        count = min(len(piece), len(view))
        view[:count] = piece[:count]
        if count < len(piece):
            self._pieces.appendleft(piece[count:])
        return count

    def _read(self) -> None:
        found = self._splicer.found
        try:
            count = self._source.readinto(self._buffer)
            if count:
                self._pieces.extend(self._splicer.feed(self._buffer[:count]))
                return
            self._finished = True
            rest = self._splicer.finish()
        except NotTheSameStream as error:
            if found:
                raise OtherBytes(str(error)) from error
            raise
        if rest:
            self._pieces.append(rest)

    def stop(self) -> None:
        """Make this and every later read raise Stopped. From any thread."""
        self._source.stop()

    def close(self) -> None:
        """Let go of what reading took."""
        self._source.close()
