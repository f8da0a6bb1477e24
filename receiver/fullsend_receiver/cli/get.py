"""`fullsendd get`: files out of a stored snapshot, or a volume's image."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import OutputFailed, StreamError, UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_receiver.cli.snapshot_choice import add_snapshot, open_snapshot

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fullsend_cli.running import Commands
    from fullsend_files.troubles import Troubles, Wishes
    from fullsend_protocol.wire.pack import PackWriter
    from fullsend_receiver.files.choice import FileChoice
    from fullsend_receiver.files.index import FileIndex
    from fullsend_receiver.files.sources import SnapshotSource


class NotProven(StreamError):  # noqa: N818 - reads as what it says
    """The streams are not what they were when they arrived, so what was read of them does not count."""


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("get", help="give back files of a stored snapshot, or a volume's image, without ZFS")
    add_snapshot(sub)
    to = sub.add_mutually_exclusive_group(required=True)
    to.add_argument("--into", type=Path, metavar="DIR", help="make the files there: a new folder, or an empty one")
    to.add_argument("--tar", action="store_true", help="write a tar archive to stdout")
    to.add_argument("--volume", type=Path, metavar="FILE", help="write the image of a volume, with its holes")
    to.add_argument(
        "--pack", choices=["files", "volume"], help="write to stdout what `fullsend get` on a ZFS host makes them from"
    )
    sub.add_argument("--special", action="store_true", help="make devices, fifos and sockets, too")
    sub.add_argument("--setuid", action="store_true", help="keep setuid and setgid bits")
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Give back. Returns: the exit code, FAILED if something is not as it was. Raises: FullsendError, OSError,
    BrokenPipeError.
    """
    from fullsend_receiver.files.choice import FileChoice

    _check(options)
    source, index, paths = open_snapshot(options)
    with contextlib.closing(index):
        if options.volume is not None or options.pack == "volume":
            return _image(options, source, index, paths)
        if not paths and not options.name:
            msg = "name the files, or / for all of them"
            raise UsageError(msg)
        with contextlib.closing(FileChoice(index)) as choice:
            return _files(options, source, choice, paths)


def _files(options: argparse.Namespace, source: SnapshotSource, choice: FileChoice, paths: list[bytes]) -> int:
    from fullsend_files.troubles import Troubles, Wishes
    from fullsend_protocol.shared.units import plural
    from fullsend_receiver.cli.results import complain, print_note
    from fullsend_receiver.files.choice import matcher

    troubles, found = Troubles(), 0
    fits = matcher(options.name)
    for path in paths or [b"/"]:
        found += choice.add(path, fits)
    if not found:
        msg = f"no file of {source.name} has such a name"
        raise UsageError(msg)
    wishes = Wishes(special=options.special, setuid=options.setuid, owner=os.geteuid() == 0)
    if options.tar:
        _to_archive(source, choice, wishes, troubles)
    elif options.pack:
        _to_pack(source, choice, wishes, troubles)
    else:
        _to_folder(options.into, source, choice, wishes, troubles)
    for line in troubles.lines:
        complain(line)
    if troubles.count > len(troubles.lines):
        complain(f"and {troubles.count - len(troubles.lines)} more such lines")
    if troubles.left_out:
        print_note(f"left out: {troubles.left_out} devices, fifos or sockets (--special makes them)")
    if troubles.setuid:
        print_note(f"without setuid or setgid bit: {plural(troubles.setuid, 'file')} (--setuid keeps it)")
    return Exit.FAILED if troubles.count else Exit.OK


def _check(options: argparse.Namespace) -> None:
    """Check the options. Raises: UsageError."""
    if (options.tar or options.pack) and (sys.stdout is None or sys.stdout.isatty()):
        msg = "an archive is binary: pipe it into `tar -x`, or into a file"
        raise UsageError(msg)
    if (options.volume is not None or options.pack == "volume") and (options.special or options.setuid or options.name):
        msg = "--volume writes one image: it excludes --name, --special and --setuid"
        raise UsageError(msg)


def _image(options: argparse.Namespace, source: SnapshotSource, index: FileIndex, paths: list[bytes]) -> int:
    from fullsend_protocol.shared.units import format_size
    from fullsend_receiver.cli.results import print_note
    from fullsend_receiver.files.image import deliver_volume, write_image

    if paths:
        msg = "--volume writes one image, and takes no paths"
        raise UsageError(msg)
    if options.pack:
        with _packing() as pack:
            deliver_volume(source, index, pack)
        return Exit.OK
    size = write_image(source, index, options.volume)
    print_note(f"{options.volume}: the image of {source.name}, {format_size(size)}")
    return Exit.OK


def _to_folder(into: Path, source: SnapshotSource, choice: FileChoice, wishes: Wishes, troubles: Troubles) -> None:
    from fullsend_files.folder import Folder
    from fullsend_receiver.files.delivery import deliver
    from fullsend_receiver.files.entries import EntryGiver

    folder = Folder(into, wishes, troubles)
    entries = EntryGiver(folder, choice, troubles)
    try:
        deliver(source, choice, entries, wishes, troubles)
        entries.finish()
    except StreamError as error:
        folder.discard()
        msg = f"{error}; what was written to {into} was not proven, and is removed"
        raise NotProven(msg) from None
    except BaseException:
        folder.discard()
        raise
    folder.publish()


def _to_archive(source: SnapshotSource, choice: FileChoice, wishes: Wishes, troubles: Troubles) -> None:
    from fullsend_receiver.files.archive import Archive
    from fullsend_receiver.files.delivery import deliver

    archive = Archive(_write, choice, wishes, troubles)
    with _proving("the archive is not proven, and was cut: do not use what it has"):
        deliver(source, choice, archive, wishes, troubles)
    archive.finish()


def _to_pack(source: SnapshotSource, choice: FileChoice, wishes: Wishes, troubles: Troubles) -> None:
    from fullsend_receiver.files.delivery import deliver
    from fullsend_receiver.files.entries import EntryGiver

    with _packing() as pack:
        entries = EntryGiver(pack, choice, troubles)
        deliver(source, choice, entries, wishes, troubles)
        entries.finish()


@contextlib.contextmanager
def _packing() -> Iterator[PackWriter]:
    """Yield what writes a pack to stdout. It gets its end when the block ends without an error."""
    from fullsend_protocol.wire.pack import PackWriter

    pack = PackWriter(_write)
    with _proving("it is not proven, so nothing of it counts"):
        yield pack
    pack.end()


@contextlib.contextmanager
def _proving(otherwise: str) -> Iterator[None]:
    """Say `otherwise`, too, if the stream is at fault. Raises: NotProven."""
    try:
        yield
    except OutputFailed:
        raise
    except StreamError as error:
        msg = f"{error}; {otherwise}"
        raise NotProven(msg) from None


def _write(data: bytes | memoryview) -> None:
    from fullsend_cli.output import writing_output
    from fullsend_receiver.store.durable import write_all

    with writing_output():
        write_all(sys.stdout.fileno(), data)
