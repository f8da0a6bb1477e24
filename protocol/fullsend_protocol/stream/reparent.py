"""Rewrites a clone's increment, so that `zfs receive` accepts it in the dataset that has its base.

    Reparenter  from the increment of a clone on its origin, the same increment without the clone mark

`zfs send -i tank/a@one tank/clone@two` marks its BEGIN as a clone's (DRR_FLAG_CLONE). `zfs receive` creates a new
dataset from such a stream, and refuses an existing one (lib/libzfs/libzfs_sendrecv.c, zfs_receive_one;
module/zfs/dmu_recv.c, dmu_recv_begin_check). A restore receives a chain into one dataset, which has the base by then.
The records have the difference to the base, in any dataset. So the mark is removed, and the running checksums are
rewritten.

Tried with OpenZFS 2.4: tests/zfs/test_push_stdin.py.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, UnsupportedStream
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.checksums import BEFORE_SUM, CLOSING_END, Beginning, ChecksumRewriter, Piece, sum_of
from fullsend_protocol.stream.fletcher import State
from fullsend_protocol.stream.records import without_clone
from fullsend_protocol.stream.rejoin import opening

_GUID_AT: Final = 40
_U64: Final = struct.Struct("<Q")


class Reparenter:
    """Makes a clone's increment acceptable to the dataset that has its base. Any other stream passes unchanged.

    Feed it a stream, plain or with properties (-p), from its first byte. It holds the bytes up to the end of BEGIN.
    """

    def __init__(self) -> None:
        """Beginning before the first byte."""
        self._start = bytearray()  # the bytes up to the end of BEGIN, until that is whole
        self._begun = False
        self._rewriter: ChecksumRewriter | None = None  # None: the stream is not a clone's
        self._compound = False

    def feed(self, data: Piece) -> list[Piece]:
        """Take the next bytes. Returns: the next bytes of the result, in pieces as those of Splicer.feed.

        Raises: DamagedStream for impossible records; UnsupportedStream for a clone's without running checksums.
        """
        if self._begun:
            return [data] if self._rewriter is None else self._rewritten(data)
        self._start += data
        found = opening(self._start)
        if found is None:
            return []
        self._begun = True
        package, begin = found
        changed = without_clone(begin)
        if changed == begin:
            return [self._start]
        (guid,) = _U64.unpack_from(begin, _GUID_AT)
        self._compound = bool(package)
        self._rewriter = ChecksumRewriter(_First(begin, changed), guid)
        rest = self._rewritten(self._start[len(package) + len(begin) :])
        return [package, changed, *rest]

    def finish(self) -> list[Piece]:
        """Note the end of the bytes. Returns: what is left. Raises: IncompleteStream if a clone's lacks its END."""
        if not self._begun:
            return [self._start] if self._start else []
        if self._rewriter is not None and not self._rewriter.done:
            raise IncompleteStream("the stream ends before its END record")
        return []

    def _rewritten(self, data: Piece) -> list[Piece]:
        assert self._rewriter is not None  # noqa: S101 - for mypy
        ended = self._rewriter.done
        pieces = self._rewriter.feed(data)
        if self._compound and self._rewriter.done and not ended:
            pieces.append(CLOSING_END)
        return pieces


class _First:
    """Passes on all records, from the first one after BEGIN."""

    def __init__(self, begin: bytes, changed: bytes) -> None:
        moved = fletcher.difference(fletcher.summed(changed), fletcher.summed(begin))
        self._difference = fletcher.advanced(moved, BEFORE_SUM)

    def take_header(self, head: bytearray) -> Beginning | None:
        if sum_of(head) == fletcher.ZERO:
            msg = (
                "a clone's increment without running checksums (it was sent before 2015): receive it with `zfs receive`"
            )
            raise UnsupportedStream(msg)
        return Beginning([], self._difference)

    def take_payload(self, payload: memoryview) -> None:
        pass

    def end_record(self) -> State | None:
        return None

    def take_rest(self, count: int) -> None:
        pass  # the closing END of a package

    def fail(self, what: str) -> NoReturn:
        msg = f"the stored stream {what}"
        raise DamagedStream(msg)
