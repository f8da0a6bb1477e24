"""Asks the receiver about files of stored snapshots: lists, archives, packs, volumes, differences, versions."""

from __future__ import annotations

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal, Protocol

from pydantic import ValidationError

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import ErrorCode, FullsendError, PeerError, RemoteProtocolError, UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire import messages
from fullsend_sender.transfer.link import connect
from fullsend_sender.transfer.pipes import PipeStopped, Sink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_sender.host.identity import Identity
    from fullsend_sender.host.options import Endpoint


#: What the answer is. See FilesWanted.
Form = Literal["names", "long", "json", "tar", "pack", "volume"]
_LISTS: Final = frozenset({"names", "long", "json"})
#: Forms that the first receivers that read files do not know.
_YOUNGER: Final = frozenset({"pack", "volume"})

#: All questions about files.
Wanted = messages.FilesWanted | messages.DiffWanted | messages.VersionsWanted
#: Snapshots of `versions --last`: more than a dataset has.
_LAST_MAX: Final = 1 << 32


class AnswerTaker(Protocol):
    """Takes the bytes of an answer, in a thread. A `Sink` is one."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> None:
        """Note the end of the bytes. Raises: RemoteProtocolError if something lacks, OSError."""

    def stop(self) -> None:
        """Make a `write` that waits, and every later one, raise PipeStopped."""

    def close(self) -> None:
        """Free the resources. No thread is writing any more."""


class ReceiverTooOld(FullsendError):  # noqa: N818 - reads as what it says
    """The receiver's program does not know the question."""

    exit_code = Exit.REFUSED


def question(
    stream: str,
    form: Form,
    paths: Sequence[bytes],
    names: Sequence[bytes],
    *,
    recursive: bool = False,
    special: bool = False,
    setuid: bool = False,
) -> messages.FilesWanted:
    """Return the question. Raises: UsageError if it has more, or longer, names than a message may have."""
    for what, given, most in (("paths", paths, limits.FILES_PATHS), ("--name", names, limits.FILES_NAMES)):
        if len(given) > most:
            raise UsageError(f"{what}: at most {most} at once")
        if any(len(each) > limits.FILES_PATH_MAX for each in given):
            raise UsageError(f"{what}: at most {limits.FILES_PATH_MAX} bytes each")
    _check_stream(stream)
    coded = [[base64.b64encode(each).decode() for each in given] for given in (paths, names)]
    return messages.FilesWanted(
        stream=stream,
        form=form,
        paths=coded[0],
        names=coded[1],
        recursive=recursive,
        special=special,
        setuid=setuid,
    )


def difference(
    old: str, new: str, *, prefix: bytes = b"", as_json: bool = False, types: bool = False, script: bool = False
) -> messages.DiffWanted:
    """Return the question for what has changed. `new`: may be @SNAPSHOT alone. Raises: UsageError, as `question`."""
    if new.startswith("@"):
        new = old.partition("@")[0] + new
    for each in (old, new):
        _check_stream(each)
    return messages.DiffWanted(
        stream=old,
        other=new,
        form="json" if as_json else "lines",
        types=types,
        script=script,
        prefix=_coded("--prefix", prefix),
    )


def versions(dataset: str, path: bytes, *, as_json: bool = False, last: int = 0) -> messages.VersionsWanted:
    """Return the question for a path's versions. Raises: UsageError."""
    if last < 0 or last > _LAST_MAX:
        raise UsageError(f"--last: a number up to {_LAST_MAX}")
    try:
        return messages.VersionsWanted(
            dataset=dataset, path=_coded("PATH", path), form="json" if as_json else "lines", last=last
        )
    except ValidationError:
        raise UsageError("name a dataset, as `fullsend list` shows it, and a path in it") from None


def _coded(what: str, path: bytes) -> str:
    if len(path) > limits.FILES_PATH_MAX:
        raise UsageError(f"{what}: at most {limits.FILES_PATH_MAX} bytes")
    return base64.b64encode(path).decode()


def _check_stream(stream: str) -> None:
    if len(stream) > limits.FILES_PATH_MAX or not stream.isprintable():
        raise UsageError("name a stored snapshot, DATASET@SNAPSHOT (see `fullsend list`)")


async def fetch_files(endpoint: Endpoint, identity: Identity, wanted: Wanted, to: int | AnswerTaker) -> messages.Files:
    """Ask, and write the parts of the answer to a descriptor, or give them to what takes them. Text is made safe for a
    terminal.

    Returns: the end of the answer; only with code 0 it is whole. Raises: PeerError, Unreachable, RemoteProtocolError,
    ReceiverTooOld, OSError of the descriptor (BrokenPipeError if its reader has closed it), and what `to` raises. No
    thread writes then.
    """
    sink = Sink(to) if isinstance(to, int) else to
    writer = ThreadPoolExecutor(1, thread_name_prefix="write")
    is_text = not isinstance(wanted, messages.FilesWanted) or wanted.form in _LISTS
    safe = SafeLines(tabs=isinstance(wanted, messages.DiffWanted)) if is_text else None

    def write(data: bytes) -> None:
        try:
            sink.write(data)
        except PipeStopped:
            return

    async def put(data: bytes) -> None:
        with link.not_reading("output"):
            await asyncio.get_running_loop().run_in_executor(writer, write, data)

    try:
        async with connect(endpoint, identity) as (link, _name):
            await link.send(wanted)
            while isinstance(said := await link.receive(), messages.FilesPart):
                data = _decoded(said.data)
                await put(data if safe is None else safe.feed(data))
            if not isinstance(said, messages.Files):
                raise link.unexpected(said)
            if safe is not None:
                await put(safe.end())
            await asyncio.get_running_loop().run_in_executor(writer, sink.finish)
            return said
    except PeerError as error:
        if error.code is not ErrorCode.PROTOCOL:
            raise
        raise ReceiverTooOld(
            f"{endpoint.name} is too old to answer this about files: update fullsendd there"
        ) from error
    finally:
        sink.stop()
        writer.shutdown(wait=True, cancel_futures=True)
        sink.close()


class SafeLines:
    """Makes lines from a receiver safe for a terminal. Those of an honest one are, and stay as they are.

    `tabs`: whether they may have tabs.
    """

    def __init__(self, *, tabs: bool = False) -> None:
        self._rest = b""
        self._tab = "\t" if tabs else None

    def feed(self, data: bytes) -> bytes:
        """Return all lines that are complete. Raises: RemoteProtocolError for one that is too long."""
        whole, found, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest
        if len(rest) > limits.CONTROL_MAX:
            raise RemoteProtocolError("the receiver sends a line without end")
        return b"".join(self._safe(line) + b"\n" for line in whole.split(b"\n")) if found else b""

    def end(self) -> bytes:
        """Return what is left, without an end of the line."""
        return self._safe(self._rest)

    def _safe(self, line: bytes) -> bytes:
        text = line.decode(errors="backslashreplace")
        parts = [text] if self._tab is None else text.split(self._tab)
        return "\t".join(printable(each, has_escapes=True) for each in parts).encode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RemoteProtocolError("the receiver sends what is not base64") from None
