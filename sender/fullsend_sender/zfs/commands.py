"""The program `zfs`: every command that fullsend runs, one process each, and its errors.

This module makes no decisions. A command has worked if its exit status is 0; its stderr goes into the error. The
command line itself may name a thousand snapshots, so only the log has it (-v). `command` comes from the configuration
(`zfs-command`), such as `sudo -n zfs`.
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
from fullsend_sender.zfs import child
from fullsend_sender.zfs.child import ChildProcess

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from types import TracebackType

_log: Final = logging.getLogger("fullsend.zfs")

#: Bytes of stderr that are kept: `zfs list` has a line for each unknown name, and _NAMES_MAX bytes of names in one
#: command. What is cut off may be a failure.
_STDERR_KEPT: Final = 4 << 20
#: Bytes of stderr that are read at a time.
_STDERR_READ: Final = 64 << 10
#: Characters of stderr that go into an error.
_STDERR_SHOWN: Final = 1000
#: Bytes of names in one command. Linux allows 2 MiB of arguments and environment (execve(2)).
_NAMES_MAX: Final = 1 << 20
#: Bytes of one argument that has several names. Linux allows 128 KiB (MAX_ARG_STRLEN in execve(2)).
_ARGUMENT_MAX: Final = 64 << 10
#: Seconds that a pool has for an answer. Thousands of snapshots on slow disks may take minutes; a suspended pool may
#: never answer.
_ANSWER_WITHIN: Final = 600.0
#: Seconds that a process has after SIGTERM. `zfs send` may be in the kernel, waiting for a slow pool.
_KILL_AFTER: Final = 10.0

#: Where systems keep `zfs`. The PATH of cron, and of a user who is not root, may lack them.
_SYSTEM_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

#: The text of `zfs list` for a name that is unknown, or not allowed (libzfs_util.c, EZFS_NOENT; libzfs_dataset.c,
#: zfs_validate_name).
_UNKNOWN: Final = re.compile("dataset does not exist| in name|name is too long|name is reserved")
#: The beginnings of its lines about failures; other lines may be `sudo`'s, or advice.
_FAILURES: Final = ("cannot ", "internal error")

#: Programs that run another command as root. `zpool` needs no privilege for these questions, and a rule for `sudo` may
#: allow `zfs` alone.
_PRIVILEGE: Final = frozenset({"sudo", "doas"})

#: Errors that `zfs` does not explain, by their text: the possible cause, and what to do.
_MEANING: Final = (
    (
        re.compile("dataset is busy"),
        "something uses it, such as a stream that is being received there: retry when that ends",
    ),
)

#: The text where a block of the pool cannot be read; seen from `zfs send` with OpenZFS 2.4.
_UNREADABLE: Final = re.compile("Input/output error|I/O error")
#: ... where a pool was imported with readonly=on; seen from hold, snapshot, bookmark, release and destroy.
_READ_ONLY: Final = re.compile("pool is read-only")
#: ... where a pool has no bookmarks, such as one that was made with `zpool create -d`.
_NOT_UPGRADED: Final = re.compile("pool must be upgraded")
_NO_BOOKMARKS: Final = re.compile("bookmark feature not enabled")
#: ... where a pool is full, or a quota is reached.
_NO_ROOM: Final = re.compile("out of space|[Qq]uota exceeded")

#: ... where a key is not that of the dataset; from `zfs load-key` (libzfs_crypto.c, load_key).
_WRONG_KEY: Final = re.compile("Incorrect key provided")

#: What is set on datasets themselves.
_GET_LOCAL: Final = ("get", "-Hp", "-s", "local")

#: Snapshots are not of these types; without them `zfs get -r` would list snapshots, too.
_DATASETS: Final = "filesystem,volume"

#: The columns of `listing`, in order.
COLUMNS: Final = (
    *("name", "type", "guid", "createtxg", "creation", "written", "referenced", "userrefs", "encryption", "keystatus"),
)


class ZfsError(FullsendError):
    """`zfs` failed. The message has its stderr."""

    def __init__(self, message: str, complaint: str = "") -> None:
        """`complaint`: the stderr alone."""
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
        """Whether there was no room, for any reason: a full pool, a quota, a reservation."""
        return bool(_NO_ROOM.search(self.complaint))

    @property
    def not_upgraded(self) -> bool:
        """Whether the pool lacks a required feature, such as the one for `zfs receive -s`."""
        return bool(_NOT_UPGRADED.search(self.complaint))

    @property
    def wrong_key(self) -> bool:
        """Whether a key could be read, and is not that of the dataset."""
        return bool(_WRONG_KEY.search(self.complaint))

    def about(self, names: Sequence[str]) -> list[str]:
        """Return those of these datasets or snapshots that stderr names as the reason; all, if it names none."""
        named = [name for name in names if any(f"'{each}'" in self.complaint for each in (name, _dataset_of(name)))]
        return named or list(names)


class Quota(NamedTuple):
    """A quota or a reservation that is set on a dataset. `held`: set by fullsend, until all is restored. `came`: a
    stream brought another value.
    """

    held: bool
    came: bool


class Encryption(NamedTuple):
    """How a dataset is encrypted. `root`: the dataset that has its key, None: it is not encrypted. `keyformat`, `salt`:
    of that key (`pbkdf2salt`, which is 0 except for a passphrase).
    """

    root: str | None
    keyformat: str
    salt: str


class NoAnswer(ZfsError):  # noqa: N818 - reads as what it says
    """A pool does not answer. The process may be in the kernel, where it cannot be ended."""


@dataclass(frozen=True, slots=True)
class Zfs:
    """The program, by its command. `answer_within`: seconds that a pool has for an answer."""

    command: tuple[str, ...] = ("zfs",)
    answer_within: float = _ANSWER_WITHIN

    def line(self, *arguments: str) -> str:
        """Return a command line as text for a shell."""
        return shlex.join([*self.command, *arguments])

    async def run(self, *arguments: str) -> str:
        """Run one command to its end. Returns: its stdout. Raises: ZfsError, UsageError (the program is missing)."""
        async with _Process(self, arguments, stdout=child.PIPE) as process:
            output = await process.output()
            await process.succeeded()
            return output

    async def _existing(self, *arguments: str) -> str:
        """Run one command, as `run`, with names that may no longer exist."""
        async with _Process(self, arguments, stdout=child.PIPE) as process:
            return await process.output_but_for_unknown_names()

    async def _asked(self, *arguments: str) -> str:
        """Run one command, as `run`, that may wait for a pool. Raises: also NoAnswer."""
        async with self._answering(arguments):
            return await self.run(*arguments)

    @contextlib.asynccontextmanager
    async def _answering(self, arguments: Sequence[str]) -> AsyncGenerator[None]:
        """Limit the time of an answer. Raises: NoAnswer."""
        try:
            async with asyncio.timeout(self.answer_within):
                yield
        except TimeoutError:
            name = f"{os.path.basename(self.command[-1])} {arguments[0]}"
            raise NoAnswer(f"no answer within {format_duration(self.answer_within)} [{name}]") from None

    @property
    def _zpool(self) -> Zfs:
        """The program `zpool` that belongs to this `zfs`."""
        *before, last = self.command
        folder, name = os.path.split(last)
        words = [] if before and os.path.basename(before[0]) in _PRIVILEGE else before
        return Zfs((*words, os.path.join(folder, name.replace("zfs", "zpool"))), self.answer_within)

    async def sync(self, pool: str) -> None:
        """Make a pool write out its pending data, so that `written` and similar properties are true now. Without
        permission the properties may be some seconds old. Raises: NoAnswer.
        """
        try:
            await self._zpool._asked("sync", pool)  # noqa: SLF001 - of this class
        except NoAnswer:
            raise
        except FullsendError:
            pass

    async def health(self) -> dict[str, str]:
        """Return the health of each imported pool, such as ONLINE, by name; also of those that `zfs list` leaves out.

        Raises: ZfsError, UsageError.
        """
        listing = await self._zpool._asked("list", "-H", "-o", "name,health")  # noqa: SLF001 - of this class
        pairs = (line.partition("\t") for line in listing.splitlines())
        return {name: health for name, tab, health in pairs if tab}

    async def pools(self) -> list[str]:
        """Return the names of the pools that `zfs` lists: without suspended ones.

        Raises: ZfsError, UsageError.
        """
        return (await self._asked("list", "-H", "-d", "0", "-o", "name", "-t", "filesystem")).splitlines()

    async def pool_properties(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return, by pool, the values of these properties, if the pool has them. Raises: ZfsError, UsageError."""
        found: dict[str, dict[str, str]] = {}
        for line in (await self._zpool.run("get", "-Hp", "-o", "name,property,value", ",".join(names))).splitlines():
            pool, _, rest = line.partition("\t")
            name, _, value = rest.partition("\t")
            found.setdefault(pool, {})[name] = value
        return found

    # --- questions -------------------------------------------------------------------------------------------

    async def listing(self, names: Sequence[str], *, recursive: bool) -> tuple[str, str]:
        """List datasets, their snapshots and bookmarks, in one run; `recursive`: and all below them.

        Returns: lines of COLUMNS, parseable, separated by tabs (see inventory.parse); and the stderr about unknown
        names, which do not keep `zfs` from listing others. Raises: ZfsError if it failed for another reason: then the
        list may be incomplete. NoAnswer.
        """
        depth = ("-r",) if recursive else ("-d", "1")
        kinds = "filesystem,volume,snapshot,bookmark"
        arguments = ("list", "-Hp", *depth, "-t", kinds, "-o", ",".join(COLUMNS), *names)
        async with (
            self._answering(arguments),
            _Process(self, arguments, stdout=child.PIPE) as process,
        ):
            output = await process.output_but_for_unknown_names()
            return output, process.complaint

    async def names(self, pool: str) -> list[str]:
        """Return the names of all datasets of a pool, parents first. Raises: ZfsError, UsageError, NoAnswer."""
        return (await self._asked("list", "-Hr", "-o", "name", "-t", "filesystem,volume", pool)).splitlines()

    async def list_snapshots(self, names: Sequence[str]) -> str:
        """List just these snapshots, if they exist. Returns: lines of COLUMNS (see inventory.parse_snapshots).

        Raises: ZfsError.
        """
        columns = ",".join(COLUMNS)
        parts = [await self._existing("list", "-Hp", "-t", "snapshot", "-o", columns, *b) for b in _batches(names)]
        return "".join(parts)

    async def written_since(self, dataset: str, point: str) -> int | None:
        """Return the bytes written since a snapshot (@NAME) or bookmark (#NAME); None if `zfs` does not know."""
        try:
            value = await self.run("get", "-Hp", "-o", "value", f"written{point}", dataset)
        except ZfsError:
            return None
        return int(value) if value.strip().isdecimal() else None

    async def resume_tokens(self, dataset: str, *, recursive: bool) -> dict[str, str]:
        """Return by name the receive_resume_token of a dataset, and of those below it, if an interrupted `zfs receive
        -s` has left one. Raises: ZfsError.
        """
        found = await self._properties(["receive_resume_token"], dataset, recursive=recursive)
        return {name: token for name, of in found.items() if (token := of["receive_resume_token"]) != "-"}

    async def not_mounting(self, dataset: str, *, recursive: bool) -> set[str]:
        """Return the dataset, and those below it, that have canmount=noauto set locally.

        Raises: ZfsError.
        """
        found = await self._properties(["canmount"], dataset, recursive=recursive, local=True)
        return {name for name, of in found.items() if of["canmount"] == "noauto"}

    async def quotas_set(self, *datasets: str, recursive: bool) -> dict[str, dict[str, Quota]]:
        """Return the quotas and reservations that are set on datasets themselves, and with `recursive` below them.

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
        """Return the quotas that apply to a dataset: its own, and those of its parents.

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
        """Return values, parseable, by property, by dataset. `recursive`: also below; `local`: only values that are set
        on a dataset itself. Raises: ZfsError, also if a name is not a filesystem or volume.
        """
        options = [*(["-r"] if recursive else []), "-t", _DATASETS, *(["-s", "local"] if local else [])]
        output = await self.run("get", "-Hp", *options, "-o", "name,property,value", ",".join(names), *datasets)
        found: dict[str, dict[str, str]] = {}
        for line in output.splitlines():
            dataset, name, value = line.split("\t", 2)
            found.setdefault(dataset, {})[name] = value
        return found

    async def effective(self, names: Iterable[str], dataset: str) -> dict[str, str]:
        """Return the values of these properties that are in effect, wherever they were set. Raises: ZfsError."""
        found = await self._properties([*names], dataset)
        return found.get(dataset, {})

    async def key_location(self, dataset: str) -> str:
        """Return where a dataset's key is, such as file:///etc/key; "": it is not encrypted. Raises: ZfsError."""
        root = await self.encryption_root(dataset)
        return (await self.effective(["keylocation"], root)).get("keylocation", "") if root else ""

    async def encryption_root(self, dataset: str) -> str:
        """Return the dataset that has the key of a dataset; "": it is not encrypted. Raises: ZfsError."""
        root = (await self.effective(["encryptionroot"], dataset)).get("encryptionroot", "-")
        return "" if root == "-" else root

    async def opens(self, place: str, dataset: str) -> bool:
        """Whether the key in this place, such as file:///etc/key, is that of an encrypted dataset. It is not loaded."""
        try:
            await self.run("load-key", "-n", "-L", place, await self.encryption_root(dataset))
        except ZfsError:
            return False
        return True

    async def available(self, dataset: str) -> int:
        """Return the bytes that a dataset may still take, by its pool and all quotas above it. Raises: ZfsError."""
        value = (await self.effective(["available"], dataset)).get("available", "")
        return int(value) if value.isdecimal() else 0

    async def local_properties(self, dataset: str) -> dict[str, str]:
        """Return what is set on the dataset itself; bytes that are not UTF-8 are replaced. Raises: ZfsError."""
        output = await self.run(*_GET_LOCAL, "-o", "property,value", "all", dataset)
        pairs = (line.partition("\t") for line in _without_surrogates(output).split("\n"))
        return {name: value for name, tab, value in pairs if tab}

    async def local_properties_of(self, datasets: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the same by dataset, with two commands for as many datasets as fit into one. Some may be left out: ask
        for each of them by itself. Raises: ZfsError.

        `zfs` prints a value as it is. A user property may have line ends, and then what looks like the line of another
        property or dataset. Names have neither tab nor line end. So the names are listed without values first. Then
        the values count only if each line is that of the next name: a value with a line end would make one line more.
        """
        found: dict[str, dict[str, str]] = {}
        for batch in _batches(datasets):
            names = (await self.run(*_GET_LOCAL, "-o", "name,property", "all", *batch)).split("\n")
            values = (await self.run(*_GET_LOCAL, "-o", "name,property,value", "all", *batch)).split("\n")
            if len(names) != len(values) or not all(map(_is_line_of, values[:-1], names[:-1])):
                continue
            found |= {dataset: {} for dataset in batch}
            for line in values[:-1]:
                dataset, name, value = line.split("\t", 2)
                found[dataset][name] = _without_surrogates(value)
        return found

    async def version(self) -> str:
        """Return the version of the userland, such as `zfs-2.4.4-1`. Raises: ZfsError."""
        return (await self.run("version")).partition("\n")[0].strip()

    # --- snapshots, holds and bookmarks ----------------------------------------------------------------------

    async def snapshot(self, names: Sequence[str]) -> dict[str, ZfsError]:
        """Take snapshots, all of one pool, in one transaction if their names fit into one command.

        `zfs` takes all or none. If it names those that fail, the others are taken without them.

        Returns: by name, the errors of those that could not be taken.
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

    async def hold(self, tag: str, snapshots: Sequence[str]) -> dict[str, ZfsError]:
        """Keep snapshots from being destroyed. If one cannot be held, the others are.

        After a failure `zfs holds` says which are held: not each line of stderr names a snapshot, not all of a long
        stderr is kept, and a process that was killed has said nothing. Returns: by name, the errors of those that are
        not held.
        """
        failed: dict[str, ZfsError] = {}
        for batch in _batches(snapshots):
            try:
                await self.run("hold", tag, *batch)
            except ZfsError as error:
                held: set[tuple[str, str]] = set()
                with contextlib.suppress(ZfsError):
                    held.update(await self.holds(batch))
                failed |= dict.fromkeys((name for name in batch if (name, tag) not in held), error)
        return failed

    async def holds(self, snapshots: Sequence[str]) -> list[tuple[str, str]]:
        """Return (snapshot, tag) of all their holds, if they still exist."""
        found = []
        for batch in _batches(snapshots):
            lines = (await self._existing("holds", "-H", *batch)).splitlines()
            found += [(fields[0], fields[1]) for line in lines if len(fields := line.split("\t")) > 1]
        return found

    async def release(self, tag: str, snapshots: Sequence[str]) -> None:
        """Release the holds with this tag. If one cannot be released, the others are. Raises: ZfsError, the first."""
        failed: ZfsError | None = None
        for batch in _batches(snapshots):
            try:
                await self.run("release", tag, *batch)
            except ZfsError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def bookmark(self, snapshot: str, bookmark: str) -> None:
        await self.run("bookmark", snapshot, bookmark)

    async def destroy_snapshots(self, dataset: str, names: Sequence[str]) -> dict[str, ZfsError]:
        """Destroy snapshots (the part after the @) of one dataset, many with one command. One that cannot be destroyed,
        such as one with a clone, keeps no other. Returns: the error of each that could not be.
        """
        failed: dict[str, ZfsError] = {}
        for batch in _batches(names, _ARGUMENT_MAX):
            try:
                await self.run("destroy", f"{dataset}@{','.join(batch)}")
            except ZfsError as error:
                if len(batch) == 1:
                    failed[batch[0]] = error
                else:  # then none of them is destroyed
                    for name in batch:
                        failed |= await self.destroy_snapshots(dataset, [name])
        return failed

    async def destroy_bookmark(self, bookmark: str) -> None:
        await self.run("destroy", bookmark)

    async def keep_unmounted(self, dataset: str) -> None:
        """Set canmount=noauto on a filesystem and all below it. Then give it the received mountpoints."""
        listing = await self.run("list", "-Hr", "-o", "name", "-t", "filesystem", dataset)
        for batch in _batches(listing.splitlines()):
            await self.run("set", "canmount=noauto", *batch)
        await self.run("inherit", "-rS", "mountpoint", dataset)

    async def roll_back(self, snapshot: str) -> None:
        """Discard what was written to a dataset since its newest snapshot. Raises: ZfsError, also if the snapshot is
        not the newest: nothing else is discarded.
        """
        await self.run("rollback", snapshot)

    async def create_unmounted(self, dataset: str) -> None:
        """Create a filesystem that never mounts: a parent for others."""
        await self.run("create", "-o", "canmount=off", dataset)

    # --- streams ---------------------------------------------------------------------------------------------

    async def estimate(self, *arguments: str) -> int | None:
        """Return about how many raw bytes `zfs send ARGUMENTS` makes; None if `zfs` does not say."""
        lines = (await self.run("send", "-nP", *arguments)).splitlines()
        sizes = [line.split("\t")[1] for line in lines if line.startswith("size\t")]
        return int(sizes[-1]) if sizes and sizes[-1].isdecimal() else None

    def send(self, *arguments: str) -> SendProcess:
        """Return `zfs send ARGUMENTS`, not started yet."""
        return SendProcess(self, arguments)

    def receive(self, *arguments: str) -> ReceiveProcess:
        """Return `zfs receive ARGUMENTS`, not started yet."""
        return ReceiveProcess(self, arguments)


class _Process:
    """One process. Leaving the block in any way ends it, and waits for its end."""

    def __init__(self, zfs: Zfs, arguments: Sequence[str], *, stdin: int = child.DEVNULL, stdout: int) -> None:
        self._command = [*zfs.command, *arguments]
        self._name = f"{os.path.basename(zfs.command[-1])} {arguments[0]}"
        self._stdin, self._stdout = stdin, stdout
        self._process: ChildProcess | None = None
        self._errors = bytearray()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        env = {**os.environ, "LC_ALL": "C", "PATH": search_path()}
        try:
            self._process = child.start(*self._command, stdin=self._stdin, stdout=self._stdout, env=env)
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
        assert self._process is not None  # noqa: S101 - for mypy: it exists inside the block
        assert self._process.stdout is not None  # noqa: S101 - for mypy: the caller has set it
        return (await self._process.stdout.read()).decode(errors="surrogateescape")

    async def output_but_for_unknown_names(self) -> str:
        """Return all of its stdout, also if some names do not exist: then `zfs` reports these and continues.

        Raises: ZfsError if it failed for any other reason: then its stdout may be incomplete.
        """
        output = await self.output()
        code = await self._wait()
        failures = [line for line in self._complaints if line.startswith(_FAILURES)]
        is_cut = len(self._errors) == _STDERR_KEPT
        if code < 0 or (code and (is_cut or not (failures and all(map(_UNKNOWN.search, failures))))):
            raise self._failure(code)
        return output

    async def succeeded(self) -> None:
        """Wait for its end. Raises: ZfsError unless its exit status is 0."""
        code = await self._wait()
        if code:
            raise self._failure(code)

    async def _wait(self) -> int:
        """Wait for its end. Returns: its exit status; negative: the signal that killed it."""
        assert self._process is not None  # noqa: S101 - for mypy: it exists inside the block
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
        """End it, if it still runs."""
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
            # A process that outlives it, such as sudo's child, may still have the other end of its stderr.
            process.close()

    async def _listen(self, process: ChildProcess) -> None:
        while text := await process.stderr.read(_STDERR_READ):
            self._errors += text[: _STDERR_KEPT - len(self._errors)]


async def _terminate(process: ChildProcess) -> None:
    """Terminate a process, then kill it; wait for its end even if the caller is cancelled meanwhile."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # sudo's child is root's: its pipe is closed instead
        process.terminate()
    waiting = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait_for(asyncio.shield(waiting), _KILL_AFTER)
    except (TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            process.kill()
        # Not forever: a process that the kernel holds in a hung pool cannot be killed, and must not block the program.
        await asyncio.wait([waiting], timeout=_KILL_AFTER)
        if isinstance(error, asyncio.CancelledError):
            raise


class SendProcess:
    """A running `zfs send`.

        async with zfs.send("-L", "tank/home@now") as send:
            ... read send.fd to its end ...
            await send.succeeded()

    Leaving the block closes this end of the pipe first and then ends the process. In the other order `zfs send` may
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
        assert self._process is not None  # noqa: S101 - for mypy: it exists inside the block
        await self._process.succeeded()


class ReceiveProcess:
    """A running `zfs receive`.

        async with zfs.receive("-u", "tank/restored") as receive:
            ... write the stream to receive.fd ...
            await receive.succeeded()

    Leaving the block without `succeeded` closes the pipe in the middle of the stream and ends the process. Then nothing
    of that stream is received, except for what -s keeps.
    """

    def __init__(self, zfs: Zfs, arguments: Sequence[str]) -> None:
        self._zfs = zfs
        self._arguments = ("receive", *arguments)
        self._process: _Process | None = None
        self.fd = -1

    async def __aenter__(self) -> Self:
        theirs, self.fd = os.pipe()
        self._process = _Process(self._zfs, self._arguments, stdin=theirs, stdout=child.DEVNULL)
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
        assert self._process is not None  # noqa: S101 - for mypy: it exists inside the block
        self._close()
        await self._process.succeeded()

    @property
    def complaint(self) -> str:
        """Its stderr, as one line; complete after `succeeded`."""
        return self._process.complaint if self._process is not None else ""

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _is_line_of(line: str, name: str) -> bool:
    """Whether a line of `zfs get` has the value of this dataset's property. `name`: both, with a tab between."""
    return name.count("\t") == 1 and line.startswith(f"{name}\t")


def _without_surrogates(text: str) -> str:
    """Return output of `zfs` with bytes that are not UTF-8 replaced."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _dataset_of(name: str) -> str:
    return name.partition("@")[0]


def search_path() -> str:
    """Return the search path for programs: the environment's, and then the folders where `zfs` is."""
    return os.pathsep.join((os.environ.get("PATH") or os.defpath, *_SYSTEM_FOLDERS))


def _batches(names: Sequence[str], most: int | None = None) -> Iterable[Sequence[str]]:
    """Split names so that each part fits into one command, or into `most` bytes of it; usually that is one part."""
    most = _NAMES_MAX if most is None else most
    start = size = 0
    for number, name in enumerate(names):
        size += len(name.encode()) + 9  # its NUL and its pointer
        if size > most:
            yield names[start:number]
            start, size = number, len(name.encode()) + 9
    if start < len(names):
        yield names[start:]
