"""The fake zfs inside the test's own process. For tests that run its commands by the ten thousand: to start one takes
several times as long as to do what it does. The sender's code is the same down to the start of a process.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

from tests.fakezfs import FakeZfs, main

from fullsend_sender.zfs import child

#: The most that a pipe holds without privilege, so the longest stream.
_PIPE_SIZE: Final = 1 << 20


@contextmanager
def inside(fake: FakeZfs) -> Iterator[None]:
    """Do here what this process would start as `fake.program`, or as the `zpool` beside it."""
    start_process = child.start
    names = {str(fake.folder / name): name for name in ("zfs", "zpool")}

    def start(command: str, *arguments: str, stdin: int, stdout: int, env: Mapping[str, str]) -> object:
        name = names.get(command)
        if name is None:
            return start_process(command, *arguments, stdin=stdin, stdout=stdout, env=env)
        return _Command(fake.folder, name, arguments, stdin, stdout)

    with patch.object(child, "start", start):
        yield


class _Command:
    """What the sender uses of ChildProcess. A command is done at once, or where it reads a stream, at the
    end of that. stderr is a pipe.
    """

    def __init__(self, folder: Path, program: str, arguments: Sequence[str], stdin: int, stdout: int) -> None:
        self.returncode: int | None = None
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._command: Final = partial(main, folder, program, list(arguments))
        self._output: Final = stdout
        self._ended: Final = asyncio.get_running_loop().create_future()
        self._raw: Final = bytearray()
        self._stdin = -1
        if stdin >= 0:
            self._stdin = os.dup(stdin)  # the sender closes its own
            os.set_blocking(self._stdin, False)
            asyncio.get_running_loop().add_reader(self._stdin, self._read)
        else:
            self._run(b"")

    def _read(self) -> None:
        raw = os.read(self._stdin, _PIPE_SIZE)
        self._raw.extend(raw)
        if not raw:
            self._stop_reading()
            self._run(bytes(self._raw))

    def _stop_reading(self) -> None:
        if self._stdin >= 0:
            asyncio.get_running_loop().remove_reader(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    def _run(self, raw: bytes) -> None:
        given, said, complained = io.BytesIO(raw), io.BytesIO(), io.StringIO()
        with (
            io.TextIOWrapper(given, encoding="utf-8") as stdin,
            io.TextIOWrapper(said, encoding="utf-8", write_through=True) as out,
            patch.multiple(sys, stdin=stdin, stdout=out, stderr=complained),
        ):
            code: object = 0
            try:
                self._command()
            except SystemExit as end:
                code = end.code
            output = said.getvalue()
        if self._output >= 0:
            room = fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            assert len(output) <= room, "nobody reads while this writes"
            assert os.write(self._output, output) == len(output)
        else:
            self.stdout.feed_data(output)
        self.stderr.feed_data(complained.getvalue().encode())
        self._end(code if isinstance(code, int) else 1)

    def _end(self, code: int) -> None:
        self.stdout.feed_eof()
        self.stderr.feed_eof()
        self.returncode = code
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self) -> int:
        await asyncio.shield(self._ended)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self.close()

    kill = terminate

    def close(self) -> None:
        self._stop_reading()
        if self.returncode is None:
            self._end(-15)
