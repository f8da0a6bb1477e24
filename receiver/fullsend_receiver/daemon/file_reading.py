"""Reads files out of stored snapshots for senders: by a process for each answer, `fullsendd ls`, `get`, `diff` or
`versions`.

Streams are untrusted, and reading one takes long, so the daemon does not do it itself. It only forwards what the
process writes, as fast as the peer takes it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from typing import Final
from weakref import WeakValueDictionary

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import RemoteProtocolError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire.messages import DiffWanted, Files, FilesPart, FilesWanted, VersionsWanted
from fullsend_receiver.daemon.processes import end, start

#: Processes at once, one for a sender; further questions wait. Each reads a whole stream, and uses a processor.
FILE_PROCESSES_MAX: Final = 2
#: Bytes that are kept of what a process says on stderr, and characters of a line. More is discarded.
_STDERR_MAX: Final = 128 << 10
_LINE_MAX: Final = 4000
_LIST_OPTIONS: Final[dict[str, list[str]]] = {"names": [], "long": ["--long"], "json": ["--json"]}
_GET_OPTIONS: Final[dict[str, str]] = {"tar": "--tar", "pack": "--pack=files", "volume": "--pack=volume"}


class FileReader:
    """Reads files for all senders of a daemon."""

    def __init__(self, command: Sequence[str]) -> None:
        """`command`: this program with its configuration, without a command; empty: nothing can be read."""
        self._command = command
        self._some = asyncio.Semaphore(FILE_PROCESSES_MAX)
        # One at a time for a sender: otherwise one that does not read what it asked for would hold back all others.
        self._ones: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def read(self, file: str, asked: FilesWanted) -> AsyncGenerator[FilesPart | Files, None]:
        """Yield the parts of an answer, and its end. When it is closed, the process has ended.

        `file`: the stored stream's, which is one of the asking sender's. Raises: RemoteProtocolError.
        """
        return self.run(file.partition("/")[0], arguments_of(file, asked))

    async def run(self, sender: str, arguments: Sequence[str]) -> AsyncGenerator[FilesPart | Files, None]:
        """Yield what the program writes to stdout with these arguments, and the end: as `read`."""
        if not self._command:
            yield Files(code=Exit.FAILED, said=["this receiver cannot read files"])
            return
        own = self._ones.setdefault(sender, asyncio.Lock())
        async with own, self._some:
            try:
                process = await start(*self._command, *arguments, stdout=PIPE, stderr=PIPE)
            except OSError as error:
                yield Files(code=Exit.FAILED, said=[f"{self._command[0]} cannot be run: {error.strerror}"])
                return
            saying = asyncio.create_task(_read_stderr(process))
            try:
                assert process.stdout is not None  # noqa: S101 - for mypy: it was asked for
                while data := await process.stdout.read(limits.FILES_PART):
                    yield FilesPart(data=base64.b64encode(data).decode())
                said = await saying
                yield _end_of(await process.wait(), said)
            finally:
                await end(process)
                saying.cancel()
                await asyncio.gather(saying, return_exceptions=True)


def arguments_of(file: str, asked: FilesWanted) -> list[str]:
    """Return the arguments of the program. Raises: RemoteProtocolError for names that no file can have."""
    if asked.form in _GET_OPTIONS:
        command = ["get", _GET_OPTIONS[asked.form], *(["--special"] * asked.special), *(["--setuid"] * asked.setuid)]
    else:
        command = ["ls", *_LIST_OPTIONS[asked.form], *(["--recursive"] * asked.recursive)]
    names = [f"--name={_decoded(each)}" for each in asked.names]
    # argparse may remove a second `--`, too.
    paths = ["/--" if (path := _decoded(each)) == "--" else path for each in asked.paths]
    return [*command, *names, "--", file, *paths]


def diff_arguments(files: Sequence[str], asked: DiffWanted) -> list[str]:
    """Return the arguments of the program. `files`: of the two streams. Raises: RemoteProtocolError."""
    options = [*(["--types"] * asked.types), *(["--script"] * asked.script), *(["--json"] * (asked.form == "json"))]
    return ["diff", *options, f"--prefix={_decoded(asked.prefix)}", "--", *files]


def versions_arguments(dataset: str, asked: VersionsWanted) -> list[str]:
    """Return the arguments of the program. `dataset`: with its sender's name. Raises: RemoteProtocolError."""
    path = _decoded(asked.path)
    options = ["--json"] * (asked.form == "json")
    return ["versions", *options, f"--last={asked.last}", "--", dataset, "/--" if path == "--" else path]


def _decoded(text: str) -> str:
    try:
        name = base64.b64decode(text, validate=True)
    except binascii.Error:
        name = b"\0"
    if b"\0" in name:
        msg = "a path or pattern is not base64, or has a NUL"
        raise RemoteProtocolError(msg)
    return os.fsdecode(name)


async def _read_stderr(process: Process) -> bytes:
    """Read to the end. Returns: the beginning."""
    assert process.stderr is not None  # noqa: S101 - for mypy: it was asked for
    kept = b""
    while data := await process.stderr.read(_STDERR_MAX):
        kept = (kept + data)[:_STDERR_MAX]
    return kept


def _end_of(code: int, said: bytes) -> Files:
    lines = [_safe(line)[:_LINE_MAX] for line in said.decode(errors="replace").splitlines() if line.strip()]
    if code < 0:
        lines = [f"the receiver's process was killed by signal {-code}: nothing that came of it counts"]
        code = Exit.FAILED
    elif code and not lines:
        lines = [f"the receiver's process has ended with {code}"]
    return Files(code=code, said=lines[: limits.FILES_SAID])


def _safe(line: str) -> str:
    line = line.removeprefix("fullsendd: ")
    return printable(line, has_escapes=True)  # names in it are escaped already
