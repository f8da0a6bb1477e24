"""Resumes a push by a token: `zfs send -t` makes only the rest that the receiver lacks.

The token is made here, of what this host meant to send. From the receiver come the last record that it keeps, and the
features of its stream. Both are compared with the output of `zfs send -t` (openzfs issue 14153: a token names any
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
from fullsend_sender.transfer.segments import DifferentBytes
from fullsend_sender.transfer.send import Pushed, StreamAnnouncement, StreamContext, Transfer, TransferOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fullsend_cli.progress import Progress
    from fullsend_protocol.format.manifest import PartialEntry, Receipt
    from fullsend_protocol.stream.checksums import Piece
    from fullsend_protocol.wire import messages
    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint
    from fullsend_sender.zfs.commands import Zfs

#: A substitute for the properties in the BEGIN of a stream with -p, which `zfs send -t` does not repeat: an empty
#: nvlist. The receiver has the real one, and compares the stream with it.
_SOME_PROPERTIES: Final = nvlist.encode({})


async def resume_by_token(
    zfs: Zfs,
    begun: PartialEntry,
    endpoint: Endpoint,
    identity: Identity,
    options: TransferOptions,
    *,
    about: StreamContext,
    progress: Progress,
) -> Pushed | Receipt:
    """Push the rest of a stream of which the receiver has a part.

    `begun`: the receiver's entry of it. The local dataset has that snapshot, with that GUID and base, and is to be sent
    in the class that the flags show. Returns: as `transfer`.

    Raises: as `transfer`; NotTheSameStream, ZfsError if a token cannot serve: the receiver keeps what it has.
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
            source = SplicedSource(Source(sending.fd), splicer)
            pipeline = Pipeline(
                source, level=options.level, threads=options.threads, walker=walker, waits=progress.waits
            )
            await stack.enter_async_context(pipeline)
            pipeline.proceed(accept.segments)
            progress.skip(accept.offset)
            return pipeline

        about = replace(about, resume="token", ended=producer_ended)
        offer = StreamAnnouncement(begun.dataset, begun.snapshot, begun.guid, begun.base_guid, begun.flags)
        return await Transfer(endpoint, identity, options, about, offer, begin=begin, progress=progress).run()


def _prepare(begun: PartialEntry, accept: messages.Accept) -> tuple[ResumeToken, Splicer]:
    """Return the token for `zfs send -t`, and the splicer that makes the rest of the stream from its output.

    Raises: NotTheSameStream.
    """
    if accept.record is None or begun.guid is None:
        raise NotTheSameStream("the receiver has no record after which the stream could be resumed")
    features = accept.record.features
    # This host decides whether it is sent raw: the receiver must not make it send an encrypted dataset plain.
    if bool(features >> Feature.RAW & 1) != ("w" in (begun.flags or "")):
        raise NotTheSameStream("the receiver says that its part of the stream is of another class")
    point = ResumePoint(base64.b64decode(accept.record.header), bytes.fromhex(accept.record.payload_sha256))
    name, guid = f"{begun.dataset}@{begun.snapshot}", int(begun.guid)
    base_guid = None if begun.base_guid is None else int(begun.base_guid)
    # The splicer first: it refuses what no token could ask for.
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
    """Return a walker behind the record that the receiver keeps."""
    compound = "p" in (begun.flags or "")
    outer = Begin(True, token.name, 0, 0, 0, 0, False, _SOME_PROPERTIES)
    # Only those of its features that show as flags, which a receipt has.
    inner = Begin(False, token.name, token.guid, token.base_guid or 0, 0, token.features, False, b"")
    state = WalkerState(offset, Phase.SUBSTREAM, resumable=True)
    return Walker.resume(state, [outer, inner] if compound else [inner])


class SplicedSource:
    """Reads the rest of a stream from `zfs send -t`, as pipeline.RawSource; `at_end` is that of its pipe."""

    def __init__(self, source: Source, splicer: Splicer) -> None:
        self._source = source
        self._splicer = splicer
        self._buffer = memoryview(bytearray(PIPE_SIZE))
        self._pieces: deque[Piece] = deque()  # of the buffer, which is filled again only when there are none
        self._finished = False

    @property
    def at_end(self) -> bool:
        return self._source.at_end

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte. Returns: bytes read, 0 at the end.

        Raises: OSError, PipeStopped; NotTheSameStream, DifferentBytes (the same, after something was read: that must
        not be kept), IncompleteStream.
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
                raise DifferentBytes(str(error)) from error
            raise
        if rest:
            self._pieces.append(rest)

    def stop(self) -> None:
        """Make this and every later read raise PipeStopped. From any thread."""
        self._source.stop()

    def close(self) -> None:
        """Free the resources."""
        self._source.close()
