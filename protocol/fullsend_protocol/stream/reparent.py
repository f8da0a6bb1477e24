"""A clone's increment, as `zfs receive` takes it into the dataset that has its base.

    Reparenter  of the increment of a clone on its origin, the same increment without the clone

`zfs send -i tank/a@one tank/clone@two` marks its BEGIN as a clone's (DRR_FLAG_CLONE). `zfs receive` makes a new
dataset of such a stream, and refuses one that exists (lib/libzfs/libzfs_sendrecv.c, zfs_receive_one;
module/zfs/dmu_recv.c, dmu_recv_begin_check). A restore brings a chain into one dataset, which has the base by then.
What the records say is the difference to the base, in whatever dataset that is; so the mark is taken away, and the
running checksums are carried over it.

**Not tried** against OpenZFS: concluded from its source, and from the checksums.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from fullsend_protocol.shared.errors import DamagedStream, IncompleteStream, UnsupportedStream
from fullsend_protocol.stream import fletcher
from fullsend_protocol.stream.checksums import BEFORE_SUM, CLOSING_END, Carrier, Piece, Start, sum_of
from fullsend_protocol.stream.fletcher import State
from fullsend_protocol.stream.records import without_clone
from fullsend_protocol.stream.rejoin import opening

_GUID_AT: Final = 40
_U64: Final = struct.Struct("<Q")


class Reparenter:
    """Makes of a clone's increment one for the dataset that has its base. Any other stream comes out as it is.

    Feed it a stream, plain or with properties (-p), from its first byte. It holds what comes up to the end of BEGIN.
    """

    def __init__(self) -> None:
        """Start before the first byte."""
        self._start = bytearray()  # up to the end of BEGIN, as long as that is not whole
        self._begun = False
        self._carrier: Carrier | None = None  # None: it is no clone's
        self._compound = False

    def feed(self, data: Piece) -> list[Piece]:
        """Take the next bytes. Returns: the next bytes of the result, in pieces as those of Splicer.feed.

        Raises: DamagedStream for records that cannot be; UnsupportedStream for a clone's without running checksums.
        """
        if self._begun:
            return [data] if self._carrier is None else self._carried(data)
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
        self._carrier = Carrier(_First(begin, changed), guid)
        rest = self._carried(self._start[len(package) + len(begin) :])
        return [package, changed, *rest]

    def finish(self) -> list[Piece]:
        """The bytes have ended. Returns: what is left. Raises: IncompleteStream where a clone's lacks its END."""
        if not self._begun:
            return [self._start] if self._start else []
        if self._carrier is not None and not self._carrier.done:
            raise IncompleteStream("the stream ends before its END record")
        return []

    def _carried(self, data: Piece) -> list[Piece]:
        assert self._carrier is not None  # noqa: S101 - for mypy
        ended = self._carrier.done
        pieces = self._carrier.feed(data)
        if self._compound and self._carrier.done and not ended:
            pieces.append(CLOSING_END)
        return pieces


class _First:
    """Passes on all records, from the first one behind BEGIN."""

    def __init__(self, begin: bytes, changed: bytes) -> None:
        moved = fletcher.difference(fletcher.summed(changed), fletcher.summed(begin))
        self._difference = fletcher.advanced(moved, BEFORE_SUM)

    def meet(self, head: bytearray) -> Start | None:
        if sum_of(head) == fletcher.ZERO:
            msg = "a clone's increment without running checksums (it was sent before 2015): receive it by hand"
            raise UnsupportedStream(msg)
        return Start([], self._difference)

    def sift(self, payload: memoryview) -> None:
        pass

    def met(self) -> State | None:
        return None

    def left_over(self, count: int) -> None:
        pass  # the closing END of a package

    def stray(self, what: str) -> NoReturn:
        msg = f"the stored stream {what}"
        raise DamagedStream(msg)
