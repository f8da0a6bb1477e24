"""The program `zfs`: every command that fullsend runs, one process each, and what it says of itself.

Nothing here decides anything. A command's exit status decides whether it worked; what it wrote to stderr goes into our
error. The command itself may name a thousand snapshots, so only the log has it (-v). `command` comes from the
configuration (`zfs-command`), such as `sudo -n zfs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from fullsend_protocol.format.quotas import HELD
from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_protocol.shared.units import format_duration, printable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from types import TracebackType

_log: Final = logging.getLogger("fullsend.zfs")

#: Bytes of stderr that are kept; a recursive send may complain about each of a thousand datasets.
_STDERR_KEPT: Final = 16 << 10
#: Characters of it that go into an error.
_STDERR_SHOWN: Final = 1000
#: Bytes of names in one command. Linux takes 2 MiB of arguments and environment (execve(2)).
_NAMES_MAX: Final = 1 << 20
#: Seconds that a pool has to answer a question. Thousands of snapshots on slow disks may take minutes; a pool that is
#: suspended may never answer.
_PATIENCE: Final = 600.0
#: Seconds that a process has after SIGTERM. `zfs send` may be in the kernel, waiting for a slow pool.
_KILL_AFTER: Final = 10.0

#: Where systems keep `zfs`. cron's PATH, and that of a user who is not root, may be without them.
_SYSTEM_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

#: What `zfs list` says of a name that it does not know, or that can be none (libzfs_util.c, EZFS_NOENT;
#: libzfs_dataset.c, zfs_validate_name).
_UNKNOWN: Final = re.compile("dataset does not exist| in name|name is too long|name is reserved")
#: How its lines about failures begin; others may be `sudo`'s, or advice.
_FAILURES: Final = ("cannot ", "internal error")

#: What takes a command to run another one as root. `zpool` needs no privilege for what is asked of it, and a rule for
#: `sudo` may allow `zfs` alone.
_PRIVILEGE: Final = frozenset({"sudo", "doas"})

#: What `zfs` does not explain, by its words: what may be the cause, and what to do.
_MEANING: Final = (
    (
        re.compile("dataset is busy"),
        "something uses it, such as a stream that is being received there: try again when that ends",
    ),
)

#: What it says where a block of the pool cannot be read; seen of `zfs send` with OpenZFS 2.4.
_UNREADABLE: Final = re.compile("Input/output error|I/O error")
#: ... where a pool was imported with readonly=on; seen of hold, snapshot, bookmark, release and destroy.
_READ_ONLY: Final = re.compile("pool is read-only")
#: ... where a pool has no bookmarks, such as one that was made with `zpool create -d`.
_NOT_UPGRADED: Final = re.compile("pool must be upgraded")
_NO_BOOKMARKS: Final = re.compile("bookmark feature not enabled")
#: ... where a pool is full, or a quota is reached.
_NO_ROOM: Final = re.compile("out of space|[Qq]uota exceeded")

#: Of these types snapshots are not, of which `zfs get -r` would tell as well.
_DATASETS: Final = "filesystem,volume"

#: What `listing` asks of everything there is, in the order of the columns.
COLUMNS: Final = (
    *("name", "type", "guid", "createtxg", "creation", "written", "referenced", "userrefs", "encryption", "keystatus"),
)


class ZfsError(FullsendError):
    """`zfs` failed. The message has its own words."""

    def __init__(self, message: str, complaint: str = "") -> None:
        """`complaint`: those words alone."""
        super().__init__(message)
        self.complaint = complaint

    @property
    def unreadable(self) -> bool:
        """Whether a block of the pool cannot be read: the same command will fail again."""
        return bool(_UNREADABLE.search(self.complaint))

    @property
    def read_only(self) -> bool:
        """Whether the pool was imported read-only."""
        return bool(_READ_ONLY.search(self.complaint))

    @property
    def no_bookmarks(self) -> bool:
        """Whether the pool does not have bookmarks."""
        return bool(_NO_BOOKMARKS.search(self.complaint))

    @property
    def out_of_space(self) -> bool:
        """Whether there was no room, for whatever reason: a full pool, a quota, a reservation."""
        return bool(_NO_ROOM.search(self.complaint))

    @property
    def not_upgraded(self) -> bool:
        """Whether the pool lacks a feature that was asked for, such as what `zfs receive -s` takes."""
        return bool(_NOT_UPGRADED.search(self.complaint))

    def about(self, names: Sequence[str]) -> list[str]:
        """Return those of these datasets or snapshots that it names as the reason; all, where it names none of them."""
        named = [name for name in names if any(f"'{each}'" in self.complaint for each in (name, _dataset_of(name)))]
        return named or list(names)


class Quota(NamedTuple):
    """A quota or a reservation that is set on a dataset. `held`: by us, until all is restored; `came`: a stream brought
    another value.
    """

    held: bool
    came: bool


class Encryption(NamedTuple):
    """How a dataset is encrypted. `root`: which dataset has its key, None: it is not encrypted; `keyformat`, `salt`: of
    that key (`pbkdf2salt`, which is 0 but for a passphrase).
    """

    root: str | None
    keyformat: str
    salt: str


class NoAnswer(ZfsError):  # noqa: N818 - reads as what it says
    """A pool does not answer. The process may be in the kernel, where nothing can end it."""


@dataclass(frozen=True, slots=True)
class Zfs:
    """The program, by the words that start it. `patience`: seconds that a pool has to answer a question."""

    command: tuple[str, ...] = ("zfs",)
    patience: float = _PATIENCE

    def line(self, *arguments: str) -> str:
        """Return a command as one would type it."""
        return shlex.join([*self.command, *arguments])

    async def run(self, *arguments: str) -> str:
        """Run one command to its end. Returns: its stdout. Raises: ZfsError, UsageError (there is no such program)."""
        async with _Process(self, arguments, stdout=asyncio.subprocess.PIPE) as process:
            output = await process.output()
            await process.succeeded()
            return output

    async def _existing(self, *arguments: str) -> str:
        """Run one command, as `run`, that may name what no longer exists."""
        async with _Process(self, arguments, stdout=asyncio.subprocess.PIPE) as process:
            return await process.output_but_for_unknown_names()

    async def _asked(self, *arguments: str) -> str:
        """Run one command, as `run`, that may wait for a pool. Raises: also NoAnswer."""
        async with self._answering(arguments):
            return await self.run(*arguments)

    @contextlib.asynccontextmanager
    async def _answering(self, arguments: Sequence[str]) -> AsyncGenerator[None]:
        """Bound what a pool has for an answer. Raises: NoAnswer."""
        try:
            async with asyncio.timeout(self.patience):
                yield
        except TimeoutError:
            name = f"{os.path.basename(self.command[-1])} {arguments[0]}"
            raise NoAnswer(f"no answer within {format_duration(self.patience)} [{name}]") from None

    @property
    def _zpool(self) -> Zfs:
        """The program `zpool` that belongs to this `zfs`."""
        *before, last = self.command
        folder, name = os.path.split(last)
        words = [] if before and os.path.basename(before[0]) in _PRIVILEGE else before
        return Zfs((*words, os.path.join(folder, name.replace("zfs", "zpool"))), self.patience)

    async def sync(self, pool: str) -> None:
        """Have a pool write out what it still holds back, so that `written` and what follows from it are true now.
        Where this host does not let us, all is as it was up to some seconds ago. Raises: NoAnswer.
        """
        try:
            await self._zpool._asked("sync", pool)  # noqa: SLF001 - of this class
        except NoAnswer:
            raise
        except FullsendError:
            pass

    async def health(self) -> dict[str, str]:
        """Return how each imported pool is, such as ONLINE, by name; also those that `zfs list` leaves out.

        Raises: ZfsError, UsageError.
        """
        listing = await self._zpool._asked("list", "-H", "-o", "name,health")  # noqa: SLF001 - of this class
        pairs = (line.partition("\t") for line in listing.splitlines())
        return {name: health for name, tab, health in pairs if tab}

    async def pools(self) -> list[str]:
        """Return the names of the pools that `zfs` lists: without those that are suspended.

        Raises: ZfsError, UsageError.
        """
        return (await self._asked("list", "-H", "-d", "0", "-o", "name", "-t", "filesystem")).splitlines()

    async def pool_properties(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return, by pool, those of these properties that it has. Raises: ZfsError, UsageError."""
        found: dict[str, dict[str, str]] = {}
        for line in (await self._zpool.run("get", "-Hp", "-o", "name,property,value", ",".join(names))).splitlines():
            pool, _, rest = line.partition("\t")
            name, _, value = rest.partition("\t")
            found.setdefault(pool, {})[name] = value
        return found

    # --- what there is ---------------------------------------------------------------------------------------

    async def listing(self, names: Sequence[str], *, recursive: bool) -> tuple[str, str]:
        """List datasets, their snapshots and bookmarks, in one run; `recursive`: and all below them.

        Returns: lines of COLUMNS, parseable, separated by tabs (see source.parse); and what `zfs` says of names that it
        does not know, which does not keep it from listing others. Raises: ZfsError where it failed for another reason:
        then there may be more than it has listed. NoAnswer.
        """
        depth = ("-r",) if recursive else ("-d", "1")
        kinds = "filesystem,volume,snapshot,bookmark"
        arguments = ("list", "-Hp", *depth, "-t", kinds, "-o", ",".join(COLUMNS), *names)
        async with (
            self._answering(arguments),
            _Process(self, arguments, stdout=asyncio.subprocess.PIPE) as process,
        ):
            output = await process.output_but_for_unknown_names()
            return output, process.complaint

    async def names(self, pool: str) -> list[str]:
        """Return the names of all datasets of a pool, parents first. Raises: ZfsError, UsageError, NoAnswer."""
        return (await self._asked("list", "-Hr", "-o", "name", "-t", "filesystem,volume", pool)).splitlines()

    async def list_snapshots(self, names: Sequence[str]) -> str:
        """List just these snapshots, as far as they exist. Returns: lines of COLUMNS (see source.parse_snapshots).

        Raises: ZfsError.
        """
        columns = ",".join(COLUMNS)
        parts = [await self._existing("list", "-Hp", "-t", "snapshot", "-o", columns, *b) for b in _batches(names)]
        return "".join(parts)

    async def written_since(self, dataset: str, point: str) -> int | None:
        """Return the bytes written since a snapshot (@NAME) or bookmark (#NAME); None where `zfs` does not know."""
        try:
            value = await self.run("get", "-Hp", "-o", "value", f"written{point}", dataset)
        except ZfsError:
            return None
        return int(value) if value.strip().isdecimal() else None

    async def resume_tokens(self, dataset: str, *, recursive: bool) -> dict[str, str]:
        """Return by name the receive_resume_token of a dataset, and of those below it, as far as an interrupted `zfs
        receive -s` has left one. Raises: ZfsError.
        """
        found = await self._properties(["receive_resume_token"], dataset, recursive=recursive)
        return {name: token for name, of in found.items() if (token := of["receive_resume_token"]) != "-"}

    async def not_mounting(self, dataset: str, *, recursive: bool) -> set[str]:
        """Return those of a dataset, and of those below it, that somebody has set not to be mounted by themselves.

        Raises: ZfsError.
        """
        found = await self._properties(["canmount"], dataset, recursive=recursive, local=True)
        return {name for name, of in found.items() if of["canmount"] == "noauto"}

    async def quotas_set(self, *datasets: str, recursive: bool) -> dict[str, dict[str, Quota]]:
        """Return the quotas and reservations that are set on datasets themselves, and on those below them.

        Returns: by dataset, by property. Raises: ZfsError.
        """
        options = ["-r"] if recursive else []
        columns = "name,property,value,received"
        found: dict[str, dict[str, Quota]] = {}
        output = await self.run(
            *("get", "-Hp", *options, "-t", _DATASETS, "-s", "local", "-o", columns, ",".join(HELD), *datasets)
        )
        for line in output.splitlines():
            owner, name, value, received = line.split("\t")
            found.setdefault(owner, {})[name] = Quota(held=value == HELD[name], came=received not in {"-", "0", "none"})
        return found

    async def quotas_above(self, dataset: str) -> dict[str, dict[str, str]]:
        """Return the quotas that a dataset has to obey: its own, and those of what it is in.

        Returns: by dataset, by property: bytes, as text. Raises: ZfsError.
        """
        parts = dataset.split("/")
        found = await self._properties(
            ["quota", "refquota"], *("/".join(parts[: count + 1]) for count in range(len(parts)))
        )
        free = {"-", "0", *HELD.values()}
        return {name: {key: value for key, value in of.items() if value not in free} for name, of in found.items()}

    async def encryption(self, top: str) -> dict[str, Encryption]:
        """Return how a dataset, and each below it, is encrypted. Raises: ZfsError."""
        names = ["encryption", "encryptionroot", "keyformat", "pbkdf2salt"]
        return {
            dataset: Encryption(
                root=None if of["encryption"] in {"off", "-"} else of["encryptionroot"],
                keyformat=of["keyformat"],
                salt=of["pbkdf2salt"],
            )
            for dataset, of in (await self._properties(names, top, recursive=True)).items()
        }

    async def _properties(
        self, names: Sequence[str], *datasets: str, recursive: bool = False, local: bool = False
    ) -> dict[str, dict[str, str]]:
        """Return values, parseable, by property, by dataset. `recursive`: also of what is below; `local`: only what is
        set on a dataset itself. Raises: ZfsError, also where one is no filesystem and no volume.
        """
        options = [*(["-r"] if recursive else []), "-t", _DATASETS, *(["-s", "local"] if local else [])]
        output = await self.run("get", "-Hp", *options, "-o", "name,property,value", ",".join(names), *datasets)
        found: dict[str, dict[str, str]] = {}
        for line in output.splitlines():
            dataset, name, value = line.split("\t", 2)
            found.setdefault(dataset, {})[name] = value
        return found

    async def local_properties(self, dataset: str) -> dict[str, str]:
        """Return what is set on the dataset itself; of bytes that are no UTF-8, what can be shown. Raises: ZfsError."""
        output = await self.run("get", "-Hp", "-s", "local", "-o", "property,value", "all", dataset)
        output = output.encode(errors="surrogateescape").decode(errors="replace")
        pairs = (line.partition("\t") for line in output.splitlines())
        return {name: value for name, tab, value in pairs if tab}

    async def version(self) -> str:
        """Return the version of the userland, such as `zfs-2.4.4-1`. Raises: ZfsError."""
        return (await self.run("version")).partition("\n")[0].strip()

    # --- what keeps a snapshot -------------------------------------------------------------------------------

    async def snapshot(self, names: Sequence[str]) -> dict[str, ZfsError]:
        """Take snapshots, all of one pool, in one transaction where their names fit into one command.

        `zfs` takes all or none. Where it names those that are in the way, the others are taken without them.

        Returns: why, by name, those are missing that could not be taken.
        """
        failed: dict[str, ZfsError] = {}
        for batch in _batches(names):
            left = list(batch)
            while left:
                try:
                    await self.run("snapshot", *left)
                    break
                except ZfsError as error:
                    failed |= dict.fromkeys(error.about(left), error)
                    left = [name for name in left if name not in failed]
        return failed

    async def snapshot_tree(self, name: str) -> None:
        """Take one snapshot of a dataset and of all below it, in one transaction."""
        await self.run("snapshot", "-r", name)

    async def hold(self, tag: str, snapshots: Sequence[str]) -> None:
        """Keep snapshots from being destroyed; where one cannot be held, the others are. One tag does it once."""
        for batch in _batches(snapshots):
            await self.run("hold", tag, *batch)

    async def holds(self, snapshots: Sequence[str]) -> list[tuple[str, str]]:
        """Return (snapshot, tag) of all that hold them, as far as they still exist."""
        found = []
        for batch in _batches(snapshots):
            lines = (await self._existing("holds", "-H", *batch)).splitlines()
            found += [(fields[0], fields[1]) for line in lines if len(fields := line.split("\t")) > 1]
        return found

    async def release(self, tag: str, snapshots: Sequence[str]) -> None:
        for batch in _batches(snapshots):
            await self.run("release", tag, *batch)

    async def bookmark(self, snapshot: str, bookmark: str) -> None:
        await self.run("bookmark", snapshot, bookmark)

    async def destroy_snapshots(self, dataset: str, names: Sequence[str]) -> None:
        """Destroy snapshots (the part after the @) of one dataset; none of them where one cannot be."""
        await self.run("destroy", f"{dataset}@{','.join(names)}")

    async def destroy_bookmark(self, bookmark: str) -> None:
        await self.run("destroy", bookmark)

    async def keep_unmounted(self, dataset: str) -> None:
        """Set canmount=noauto on a filesystem and all below it; then let it have the mountpoints that came along."""
        listing = await self.run("list", "-Hr", "-o", "name", "-t", "filesystem", dataset)
        for batch in _batches(listing.splitlines()):
            await self.run("set", "canmount=noauto", *batch)
        await self.run("inherit", "-rS", "mountpoint", dataset)

    async def roll_back(self, snapshot: str) -> None:
        """Give up what was written to a dataset since its newest snapshot. Raises: ZfsError, also where it is not the
        newest: nothing but that is given up.
        """
        await self.run("rollback", snapshot)

    async def create_unmounted(self, dataset: str) -> None:
        """Create a filesystem that never mounts: a place for others below it."""
        await self.run("create", "-o", "canmount=off", dataset)

    # --- streams ---------------------------------------------------------------------------------------------

    async def estimate(self, *arguments: str) -> int | None:
        """Return about how many raw bytes `zfs send ARGUMENTS` makes; None where `zfs` does not say."""
        lines = (await self.run("send", "-nP", *arguments)).splitlines()
        sizes = [line.split("\t")[1] for line in lines if line.startswith("size\t")]
        return int(sizes[-1]) if sizes and sizes[-1].isdecimal() else None

    def send(self, *arguments: str) -> Send:
        """Return `zfs send ARGUMENTS`, not started yet."""
        return Send(self, arguments)

    def receive(self, *arguments: str) -> Receive:
        """Return `zfs receive ARGUMENTS`, not started yet."""
        return Receive(self, arguments)


class _Process:
    """One process. Leaving the block, however it is left, ends it, and waits for its end."""

    def __init__(
        self, zfs: Zfs, arguments: Sequence[str], *, stdin: int = asyncio.subprocess.DEVNULL, stdout: int
    ) -> None:
        self._command = [*zfs.command, *arguments]
        self._name = f"{os.path.basename(zfs.command[-1])} {arguments[0]}"
        self._stdin, self._stdout = stdin, stdout
        self._process: asyncio.subprocess.Process | None = None
        self._errors = bytearray()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=self._stdin,
                stdout=self._stdout,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C", "PATH": _search_path()},
            )
        except FileNotFoundError:
            raise UsageError(
                f"there is no program {self._command[0]!r} here: install it, or set `zfs-command` in sender.toml"
            ) from None
        except OSError as error:
            raise UsageError(f"{self._command[0]!r} cannot be run: {error.strerror}") from None
        self._listening = asyncio.create_task(self._listen(self._process), name="stderr")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    @property
    def complaint(self) -> str:
        """What it wrote to stderr, as one line."""
        return printable("; ".join(self._complaints))[:_STDERR_SHOWN]

    @property
    def _complaints(self) -> list[str]:
        lines = self._errors.decode(errors="replace").split("\n")
        return [line.strip() for line in lines if line.strip()]

    async def output(self) -> str:
        """Return all of its stdout."""
        assert self._process is not None  # noqa: S101 - for mypy: inside the block there is one
        assert self._process.stdout is not None  # noqa: S101 - for mypy: the caller has asked for it
        return (await self._process.stdout.read()).decode(errors="surrogateescape")

    async def output_but_for_unknown_names(self) -> str:
        """Return all of its stdout, also where some names did not exist, of which it says so and goes on.

        Raises: ZfsError where it failed for any other reason: then what is on stdout may be a part.
        """
        output = await self.output()
        code = await self._wait()
        failures = [line for line in self._complaints if line.startswith(_FAILURES)]
        if code < 0 or (code and not (failures and all(map(_UNKNOWN.search, failures)))):
            raise self._failure(code)
        return output

    async def succeeded(self) -> None:
        """Wait for its end. Raises: ZfsError unless its exit status is 0."""
        code = await self._wait()
        if code:
            raise self._failure(code)

    async def _wait(self) -> int:
        """Wait for its end. Returns: its exit status; negative: the signal that killed it."""
        assert self._process is not None  # noqa: S101 - for mypy: inside the block there is one
        code = await self._process.wait()
        if self._listening is not None:
            await self._listening
        return code

    def _failure(self, code: int) -> ZfsError:
        """Return the error for this exit status: the reason first."""
        how = f"exit {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        _log.info("%s failed (%s): %s", self._name, how, shlex.join(self._command))
        complaint = self.complaint
        why = "".join(f" ({meaning})" for words, meaning in _MEANING if words.search(complaint))
        return ZfsError(f"{complaint or 'it did not say why'}{why} [{self._name}, {how}]", complaint)

    async def end(self) -> None:
        """End it, unless it has ended."""
        process, listening = self._process, self._listening
        if process is None:
            return
        try:
            if process.returncode is None:
                await _terminate(process)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
            # What outlives it, such as sudo's child, may still have the other end of its stderr; asyncio's Process has
            # nothing to close ours with.
            transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001
            with contextlib.suppress(ProcessLookupError, PermissionError):
                transport.close()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - for mypy: it was asked for
        while text := await process.stderr.read(_STDERR_KEPT):
            self._errors += text[: _STDERR_KEPT - len(self._errors)]


async def _terminate(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, then make it; wait for that even if we are cancelled meanwhile."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # sudo's child is root's: its pipe is closed instead
        process.terminate()
    waiting = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait_for(asyncio.shield(waiting), _KILL_AFTER)
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            process.kill()
        # Not forever: a process that the kernel holds in a hung pool cannot be killed, and must not hang us too.
        await asyncio.wait([waiting], timeout=_KILL_AFTER)
        if isinstance(error, asyncio.CancelledError):
            raise


class Send:
    """A running `zfs send`.

        async with zfs.send("-L", "tank/home@now") as send:
            ... read send.fd to its end ...
            await send.succeeded()

    Leaving the block closes our end of the pipe first and then ends the process: the other way round `zfs send` may
    never end (openzfs issue 12500).
    """

    def __init__(self, zfs: Zfs, arguments: Sequence[str]) -> None:
        self._zfs = zfs
        self._arguments = ("send", *arguments)
        self._process: _Process | None = None
        self.fd = -1

    async def __aenter__(self) -> Self:
        self.fd, theirs = os.pipe()
        self._process = _Process(self._zfs, self._arguments, stdout=theirs)
        try:
            await self._process.__aenter__()
        except BaseException:
            os.close(self.fd)
            raise
        finally:
            os.close(theirs)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
        assert self._process is not None  # noqa: S101 - for mypy: the block was entered
        await self._process.end()

    async def succeeded(self) -> None:
        """Wait for its end. Raises: ZfsError unless its exit status is 0."""
        assert self._process is not None  # noqa: S101 - for mypy: inside the block there is one
        await self._process.succeeded()


class Receive:
    """A running `zfs receive`.

        async with zfs.receive("-u", "tank/restored") as receive:
            ... write the stream to receive.fd ...
            await receive.succeeded()

    Leaving the block without `succeeded` closes the pipe in the middle of the stream and ends the process: nothing of
    that stream is then received, but for what -s keeps.
    """

    def __init__(self, zfs: Zfs, arguments: Sequence[str]) -> None:
        self._zfs = zfs
        self._arguments = ("receive", *arguments)
        self._process: _Process | None = None
        self.fd = -1

    async def __aenter__(self) -> Self:
        theirs, self.fd = os.pipe()
        self._process = _Process(self._zfs, self._arguments, stdin=theirs, stdout=asyncio.subprocess.DEVNULL)
        try:
            await self._process.__aenter__()
        except BaseException:
            self._close()
            raise
        finally:
            os.close(theirs)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None  # noqa: S101 - for mypy: the block was entered
        self._close()
        await self._process.end()

    async def succeeded(self) -> None:
        """End the stream, and wait until it is received. Raises: ZfsError unless its exit status is 0."""
        assert self._process is not None  # noqa: S101 - for mypy: inside the block there is one
        self._close()
        await self._process.succeeded()

    @property
    def complaint(self) -> str:
        """What it wrote to stderr, as one line; after `succeeded`: all of it."""
        return self._process.complaint if self._process is not None else ""

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _dataset_of(name: str) -> str:
    return name.partition("@")[0]


def _search_path() -> str:
    """Return where programs are looked for: as the environment says, and then where `zfs` is."""
    return os.pathsep.join((os.environ.get("PATH") or os.defpath, *_SYSTEM_FOLDERS))


def _batches(names: Sequence[str]) -> Iterable[Sequence[str]]:
    """Split names so that each part fits into one command; as a rule that is one."""
    start = size = 0
    for number, name in enumerate(names):
        size += len(name.encode()) + 9  # its NUL and its pointer
        if size > _NAMES_MAX:
            yield names[start:number]
            start, size = number, len(name.encode()) + 9
    if start < len(names):
        yield names[start:]
