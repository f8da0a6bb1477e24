"""`fullsend get`: files out of a stored snapshot, or a volume's image."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_sender.cli import arguments, file_question

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands
    from fullsend_files.troubles import Troubles
    from fullsend_sender.cli.arguments import Parser

_EXAMPLES: Final = """\
  fullsend get tank/home@monday /anna/thesis.tex --into /tmp/back
  fullsend get --tar tank/home@monday / --name '*.jpg' > photos.tar
  fullsend get tank/vm1@monday --volume /srv/vm1.raw"""


def add(commands: Commands[Parser]) -> None:
    """Add the parser of the command."""
    text = "give back files of a stored snapshot, or a volume's image, without a restore"
    sub = arguments.command(commands, "get", run, text, _EXAMPLES)
    file_question.add_snapshot(sub)
    to = sub.add_mutually_exclusive_group(required=True)
    to.add_argument("--into", type=Path, metavar="DIR", help="make the files there: a new folder, or an empty one")
    to.add_argument("--tar", action="store_true", help="write a tar archive to stdout")
    to.add_argument("--volume", type=Path, metavar="FILE", help="write the image of a volume, with its holes")
    sub.add_argument("--special", action="store_true", help="devices, fifos and sockets, too")
    sub.add_argument("--setuid", action="store_true", help="keep setuid and setgid bits, and capabilities")
    arguments.receiver(sub)


def run(args: argparse.Namespace) -> int:
    """Give back. Returns: the exit code, FAILED if something is not as it was.

    Raises: FullsendError, BrokenPipeError.
    """
    if args.volume is not None:
        if args.paths or args.name or args.special or args.setuid:
            raise UsageError("--volume writes one image: it excludes paths, --name, --special and --setuid")
        return _image(args)
    if args.tar and (sys.stdout is None or sys.stdout.isatty()):
        raise UsageError("an archive is binary: pipe it into `tar -x`, or into a file")
    if not args.paths and not args.name:
        raise UsageError("name the files, or / for all of them")
    if args.tar:
        wanted = file_question.files_wanted(args, "tar", special=args.special, setuid=args.setuid)
        return file_question.ask(args, wanted)
    return _folder(args)


def _folder(args: argparse.Namespace) -> int:
    from fullsend_files.folder import Folder
    from fullsend_files.troubles import Troubles, Wishes
    from fullsend_protocol.wire.pack import PackReader
    from fullsend_sender.restore.unpack import Unpacking

    wanted = file_question.files_wanted(args, "pack", special=args.special, setuid=args.setuid)
    asking = file_question.Asking(args, wanted)
    troubles = Troubles()
    folder = Folder(args.into, Wishes(special=args.special, setuid=args.setuid, owner=os.geteuid() == 0), troubles)
    with Unpacking(PackReader(folder), folder, str(args.into)) as unpacking:
        end = asking.fetch(unpacking)
        unpacking.settle(end, may_lack=True)
    _say(troubles)
    return Exit.FAILED if troubles.count else file_question.exit_code(end)


def _image(args: argparse.Namespace) -> int:
    from fullsend_files.image import Image
    from fullsend_protocol.wire.pack import VolumeReader
    from fullsend_sender.restore.unpack import Unpacking

    asking = file_question.Asking(args, file_question.files_wanted(args, "volume"))
    image = Image(args.volume)
    with Unpacking(VolumeReader(image), image, str(args.volume)) as unpacking:
        end = asking.fetch(unpacking)
        unpacking.settle(end)
    return file_question.exit_code(end)


def _say(troubles: Troubles) -> None:
    """Log what could not be made here."""
    from fullsend_protocol.shared.units import plural
    from fullsend_sender.host.log import ESCAPED, log

    for line in troubles.lines:
        log.error("%s", line, extra=ESCAPED)
    if troubles.count > len(troubles.lines):
        log.error("and %d more such lines", troubles.count - len(troubles.lines))
    if troubles.left_out:
        log.warning("left out: %d devices, fifos or sockets (--special makes them)", troubles.left_out)
    if troubles.setuid:
        log.warning("without setuid or setgid bit: %s (--setuid keeps it)", plural(troubles.setuid, "file"))
