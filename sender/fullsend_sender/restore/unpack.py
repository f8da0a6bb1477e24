"""Makes files, or a volume's image, of a pack that the receiver sends: all of it, or nothing is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fullsend_protocol.shared.errors import RemoteProtocolError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.host.log import log

if TYPE_CHECKING:
    from typing import Self

    from fullsend_protocol.wire.messages import Files


class Unpacked(Protocol):
    """What is being made: a Folder or an Image."""

    def publish(self) -> None:
        """Give it its place. Raises: OutputExists, OutputFailed."""

    def discard(self) -> None:
        """Remove it."""


class PackTaker(Protocol):
    """Reads a pack. `ended`: whether its end was there."""

    @property
    def ended(self) -> bool: ...

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises: RemoteProtocolError, OutputFailed."""


class Unpacking:
    """An AnswerTaker that reads a pack. As a context, it discards what is made, unless `settle` has published it."""

    def __init__(self, reader: PackTaker, made: Unpacked, where: str) -> None:
        """`made`: what `reader` makes; `where`: its name, for messages."""
        self._reader = reader
        self._made = made
        self._where = where
        self._began = False
        self._is_settled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if not self._is_settled:
            self._made.discard()
            if self._began:
                log.error("%s: what was written there is not whole, and is removed", self._where)

    # --- as an AnswerTaker ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See AnswerTaker. Raises: RemoteProtocolError, OutputFailed."""
        self._began = True
        self._reader.feed(data)

    def finish(self) -> None:
        """See AnswerTaker: whether the end is there is for `settle` to judge, which knows the code."""

    def stop(self) -> None:
        """See AnswerTaker: no write waits for anybody."""

    def close(self) -> None:
        """See AnswerTaker."""

    # --- the end -------------------------------------------------------------------------------------------------

    def settle(self, end: Files, *, may_lack: bool = False) -> None:
        """Publish what came, if it is proven. `end`: of the answer; `may_lack`: with FAILED and the end of the pack,
        all is proven, but the receiver could not give some of it back as it was, and has named that.

        Raises: RemoteProtocolError if all should be there, and is not; OutputExists, OutputFailed.
        """
        if end.code == Exit.OK and not self._reader.ended:
            raise RemoteProtocolError("the receiver says that it has sent all, but the end is not there")
        if self._reader.ended and (end.code == Exit.OK or (may_lack and end.code == Exit.FAILED)):
            self._is_settled = True
            self._made.publish()
            if end.code:
                log.error("%s is not whole: it lacks what the lines above name", self._where)
