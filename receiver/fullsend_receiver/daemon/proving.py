"""What of a stored stream its host can prove, by comparing it with its own `zfs send`.

    to_compare     the stream, or the chain, whose SHA-256 is compared
    head_of        how the stream begins
    ChainHasher    the SHA-256 of the full that a chain makes, and of a stream without redundant FREE records

Both take long, and Python's lock while they run. So a process of its own does it, one at a time, for all senders,
and at the lowest priority. It stores nothing, and proves each file by its `.sha256`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import Generator, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import FullsendError, StreamError
from fullsend_protocol.stream.opening import opening_of
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.streams import Damaged
from fullsend_receiver.daemon.processes import end, start
from fullsend_receiver.maintenance.io_priority import step_back
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.playback import DamagedChunk, checked_chunks_of
from fullsend_receiver.store.seekable import FileDamaged

_SHA256: Final = re.compile(rb"[0-9a-f]{64}\n")
#: Characters of what the process says that go into the reason.
_SAID_MAX: Final = 1000


class Compared(NamedTuple):
    """A stored stream that is to be compared with what its host sends. `chain`: the files that are, its own the last;
    `received`: of the stream; `sha256`: the known one, None: the chain must be merged; `why`: why it cannot be
    compared, "": it can.
    """

    chain: tuple[str, ...]
    received: str
    sha256: str | None
    why: str


def to_compare(holdings: Holdings, file: PurePosixPath, *, whole: bool) -> Compared | None:
    """Return what to compare; None: the file is not stored any more. `whole`: its chain."""
    part = holdings.around(file=file)
    stored = part.at(file)
    if stored is None:
        return None
    about = stored.summary
    chain, why = [stored], ""
    if not part.whole(stored):
        why = f"the receiver's copy is {part.damage(stored) or 'damaged'}"
    elif about.kind == "package":
        why = "it is a package of several snapshots"
    elif whole:
        chain = part.chain(stored)
        why = "" if chain else part.obstacle(stored)
    sha256 = part.entry_of(stored, restorable=True).sha256 if len(chain) == 1 else None
    if not why and len(chain) == 1 and sha256 is None:
        why = "it came in several segments and was not read since: run `fullsendd verify`"
    return Compared(tuple(each.summary.path for each in chain), about.received, sha256, why)


def head_of(store: Store, file: PurePosixPath) -> str | None:
    """Return how a stored stream begins, in base64; None: not as a single snapshot does, or it is too long.

    Raises: Damaged, OSError.
    """

    def pieces() -> Generator[bytes]:
        with contextlib.closing(store.open(file)) as blob:
            for chunk in checked_chunks_of(blob):
                if isinstance(chunk, DamagedChunk):
                    msg = f"{file}: {chunk}"
                    raise Damaged(msg)
                yield chunk.raw

    try:
        with contextlib.closing(pieces()) as raw:
            head = bytes(opening_of(str(file), raw))
    except FileDamaged as error:
        msg = f"{file}: {error}"
        raise Damaged(msg) from None
    except StreamError:
        return None
    return base64.b64encode(head).decode() if len(head) <= limits.HEAD_MAX else None


class ChainNotHashed(FullsendError):  # noqa: N818 - reads as what it says
    """A chain cannot be merged. The message is the reason, for a person."""


class ChainHasher:
    """Merges chains for all senders of a daemon."""

    def __init__(self, command: Sequence[str]) -> None:
        """`command`: the program that prints the SHA-256 of the stream that files make, without the files; empty: there
        is none.
        """
        self._command = command
        self._one = asyncio.Lock()

    async def sha256(self, files: Sequence[str], *, without_frees: bool = False) -> str:
        """Return the SHA-256 of the raw stream that these files make, in hex; `without_frees`: without the FREE records
        that may be redundant. After a cancellation the process has ended. Raises: ChainNotHashed.
        """
        if not self._command:
            msg = "this receiver cannot merge"
            raise ChainNotHashed(msg)
        options = ["--without-frees"] if without_frees else []
        async with self._one:
            try:
                process = await start(*self._command, *options, *files, stdout=PIPE, stderr=PIPE)
            except OSError as error:
                msg = f"{self._command[0]} cannot be run: {error.strerror}"
                raise ChainNotHashed(msg) from None
            return await _result(process)


async def _result(process: Process) -> str:
    try:
        step_back(process.pid)
        said, complaint = await process.communicate()
    finally:
        await end(process)
    if process.returncode or not _SHA256.fullmatch(said):
        line = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        msg = line.removeprefix("fullsendd: ")[:_SAID_MAX] or f"the merge has ended with {process.returncode}"
        raise ChainNotHashed(msg)
    return said.decode().strip()
