"""`fullsendd`: the command line of the storage host.

Heavy imports (pydantic, uvloop) happen inside the commands, so that `--version` and `--help` are quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import fullsend_protocol
from fullsend_cli.output import write_line, writing_output
from fullsend_cli.running import run
from fullsend_protocol.errors import FullsendError, UsageError
from fullsend_protocol.exits import Exit
from fullsend_protocol.units import format_duration, format_size, parse_duration, plural, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_cli.running import Complain
    from fullsend_receiver.catalogue import Catalogue, Stored
    from fullsend_receiver.config import ReceiverSettings
    from fullsend_receiver.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (without the program's name; None: that of the process). Returns: the exit code."""
    return run(make_parser, arguments, _begin)


def _begin(options: argparse.Namespace) -> Complain:
    _set_up_stdout(as_json=getattr(options, "json", False))

    def complain(error: Exception | KeyboardInterrupt, /) -> None:
        if isinstance(error, KeyboardInterrupt):
            text = "interrupted"
        elif options.debug:
            raise error
        elif isinstance(error, FullsendError):
            text = printable(str(error))
        elif isinstance(error, OSError):
            text = str(error)
        else:
            text = f"{type(error).__name__}: {printable(str(error))} (--debug shows more)"
        print(f"fullsendd: {text}", file=sys.stderr)

    return complain


def _set_up_stdout(*, as_json: bool) -> None:
    """Make names of all languages printable anywhere: JSON is UTF-8, for a terminal that is not there are escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if as_json:
            sys.stdout.reconfigure(encoding="utf-8")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; man pages and completion are made of it, too (docs/generate.py)."""
    parser = argparse.ArgumentParser(
        prog="fullsendd", description="Receives ZFS send streams, keeps them as ordinary .zst files, gives them back."
    )
    parser.add_argument("--version", action="version", version=f"fullsendd {fullsend_protocol.__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="default: /etc/fullsend/receiver.toml")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    parser.add_argument("--log-format", choices=["text", "json"], help="default: text")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="make a store, its key and certificate, and receiver.toml")
    init.add_argument("--store", type=Path, default=Path("/var/lib/fullsend"), metavar="DIR")
    init.add_argument("--listen", default=":7433", metavar="HOST:PORT", help="default: port 7433 on all addresses")
    init.add_argument("--advertise", metavar="HOST:PORT", help="what invitations say; default: this host's name")
    init.add_argument("--user", metavar="NAME", help="who shall own the store; default: the user who runs this")
    init.add_argument("--adopt", action="store_true", help="take over an existing store")
    init.set_defaults(run=_init)

    serve = commands.add_parser("serve", help="run the daemon")
    serve.set_defaults(run=_serve)

    invite = commands.add_parser("invite", help="print a single-use invitation for a ZFS host")
    invite.add_argument("sender", metavar="SENDER")
    invite.add_argument("--expires", default="1h", metavar="DURATION", help="default: 1h")
    invite.add_argument("--replace", action="store_true", help="give a known sender's name and backups to a new host")
    invite.set_defaults(run=_invite)

    senders = commands.add_parser("senders", help="who is enrolled")
    senders.add_argument("--json", action="store_true")
    senders.set_defaults(run=_senders)

    revoke = commands.add_parser("revoke", help="let a sender in no more; its streams stay")
    revoke.add_argument("sender", metavar="SENDER")
    revoke.set_defaults(run=_revoke)

    list_ = commands.add_parser("list", help="what is stored")
    list_.add_argument("what", nargs="?", metavar="SENDER[/DATASET]")
    list_.add_argument("--partial", action="store_true", help="what has arrived in part, and can be gone on with")
    list_.add_argument("--json", action="store_true", help="one JSON object a line")
    list_.set_defaults(run=_list)

    show = commands.add_parser("show", help="all that is known of one stream")
    show.add_argument("stream", metavar="SENDER/STREAM")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the manifest and what follows from it")
    form.add_argument("--commands", action="store_true", help="the shell lines that restore it without fullsend")
    show.set_defaults(run=_show)

    cat = commands.add_parser("cat", help="one stream, decoded and checked, on stdout")
    cat.add_argument("stream", metavar="SENDER/STREAM")
    cat.set_defaults(run=_cat)

    verify = commands.add_parser("verify", help="read and check what is stored, byte by byte")
    verify.add_argument("what", nargs="?", metavar="SENDER[/DATASET]")
    verify.add_argument("--json", action="store_true", help="one JSON object a line")
    verify.set_defaults(run=_verify)

    check = commands.add_parser("check", help="is the configuration right and the store fit?")
    check.set_defaults(run=_check)
    return parser


# --- the commands -----------------------------------------------------------------------------------------------


def _init(options: argparse.Namespace) -> int:
    from fullsend_receiver import config, setup

    plan = setup.Plan(
        config=config.config_file(options.config),
        store=options.store,
        listen=options.listen,
        advertise=options.advertise,
        user=options.user,
        adopt=options.adopt,
    )
    fingerprint = setup.init(plan)
    write_line(f"store        {plan.store.absolute()}")
    write_line(f"config       {plan.config}")
    write_line(f"fingerprint  {fingerprint}")
    print("next: `fullsendd serve`, and `fullsendd invite NAME` for each ZFS host", file=sys.stderr)
    return Exit.OK


def _serve(options: argparse.Namespace) -> int:
    import asyncio

    import uvloop

    from fullsend_protocol.limits import MIB
    from fullsend_protocol.memory import keep_blocks
    from fullsend_receiver import logs
    from fullsend_receiver.daemon import Daemon

    settings, store = _open(options)
    # Usual chunks, 4 MiB and a little, stay at hand; what a daemon keeps beyond its streams is given back by `trim`.
    keep_blocks(8 * MIB, 64 * MIB)
    logs.set_up(options.log_format or settings.log_format, verbose=options.verbose)
    os.umask(0o027)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Daemon(settings, store).run())
    return Exit.OK


def _invite(options: argparse.Namespace) -> int:
    from fullsend_protocol.invitation import Invitation
    from fullsend_receiver import identity, senders, setup

    settings, store = _open(options)
    host, port = setup.advertised(settings.listen, settings.advertise)
    secret = senders.invite(store, options.sender, parse_duration(options.expires), replace_existing=options.replace)
    write_line(Invitation(options.sender, host, port, identity.fingerprint(store), secret).encode())
    return Exit.OK


def _senders(options: argparse.Namespace) -> int:
    import json

    from fullsend_protocol.units import format_time
    from fullsend_receiver.senders import SenderTable

    _settings, store = _open(options)
    for sender in SenderTable(store):
        revoked = None if sender.revoked is None else format_time(sender.revoked)
        if options.json:
            row = {
                "sender": sender.name,
                "fingerprint": sender.fingerprint,
                "enrolled": format_time(sender.enrolled),
                "revoked": revoked,
            }
            write_line(json.dumps(row))
        else:
            state = f"revoked {revoked}" if revoked else "enrolled"
            write_line(f"{sender.name:20}  {sender.fingerprint}  {format_time(sender.enrolled)}  {state}")
    return Exit.OK


def _revoke(options: argparse.Namespace) -> int:
    from fullsend_receiver import senders

    _settings, store = _open(options)
    senders.revoke(store, options.sender)
    return Exit.OK


def _list(options: argparse.Namespace) -> int:
    from fullsend_protocol.listing import partials_table, table

    _settings, store = _open(options)
    if options.partial:
        from fullsend_receiver.leftovers import find_partials

        sender, dataset = _split(options.what)
        found = [each for each in find_partials(store, sender) if dataset in {None, each.dataset}]
        for line in partials_table(found, with_sender=True) if not options.json else ():
            write_line(line)
        for partial in found if options.json else ():
            write_line(partial.model_dump_json())
        return Exit.OK
    catalogue, chosen = _selected(store, options.what)
    entries = (catalogue.entry(stored) for stored in chosen)
    if options.json:
        for entry in entries:
            write_line(entry.model_dump_json(by_alias=True))
    else:
        for line in table(entries, with_sender=True):
            write_line(line)
    return _report_problems(catalogue)


def _show(options: argparse.Namespace) -> int:
    import json

    from fullsend_protocol.listing import details

    _settings, store = _open(options)
    catalogue, stored = _named(store, options.stream)
    if options.commands:
        from fullsend_receiver.commands import restore_commands

        for line in restore_commands(catalogue, stored):
            write_line(line)
        return Exit.OK
    entry = catalogue.entry(stored).model_dump(mode="json", by_alias=True)
    facts = stored.manifest.model_dump(mode="json", by_alias=True) | entry
    if options.json:
        write_line(json.dumps(facts))
        return Exit.OK
    for line in details(facts):
        write_line(line)
    return Exit.OK


def _cat(options: argparse.Namespace) -> int:
    from fullsend_protocol.errors import ChunkError, StreamError
    from fullsend_protocol.proof import Proof
    from fullsend_receiver.durable import write_all
    from fullsend_receiver.playback import DamagedChunk, checked_chunks

    _settings, store = _open(options)
    _catalogue, stored = _named(store, options.stream)
    if sys.stdout is None or sys.stdout.isatty():
        msg = "a send stream is no text: pipe it into `zfs receive`, or into a file"
        raise UsageError(msg)
    try:
        proof = Proof(stored.manifest)
        for chunk in checked_chunks(store.root / stored.file):
            if isinstance(chunk, DamagedChunk):
                raise chunk
            proof.take(chunk.raw, chunk.place.entry.sha256)
            with writing_output():
                write_all(sys.stdout.fileno(), chunk.raw)
        proof.finish()
    except (ChunkError, StreamError, DamagedChunk) as error:
        msg = f"{stored.file}: {error}; what follows was not written"
        raise DamagedChunk(msg) from None
    return Exit.OK


def _verify(options: argparse.Namespace) -> int:
    import json
    import time
    from dataclasses import asdict

    from fullsend_receiver import scrub
    from fullsend_receiver.catalogue import files_without_manifest
    from fullsend_receiver.store import StoreError

    _settings, store = _open(options)
    sender, _dataset = _split(options.what)
    failed = unrecorded = checked = 0
    for file in files_without_manifest(store, sender):
        try:
            scrub.rebuild(store, file)
            print(f"{file}: had no manifest; made anew from the file", file=sys.stderr)
        except (StoreError, OSError) as error:
            failed += 1
            print(f"fullsendd: {printable(str(error))}", file=sys.stderr)
    catalogue, chosen = _selected(store, options.what)
    started, raw_bytes = time.monotonic(), 0
    for stored in chosen:
        result = scrub.scrub(store, stored)
        if result is None:
            print(f"fullsendd: {stored.file}: was removed before it could be checked", file=sys.stderr)
            continue
        try:
            catalogue.scrubbed.add(result)
        except OSError as error:  # a disk that is read-only, or full, wants checking most
            unrecorded += 1
            if unrecorded == 1:
                print(f"fullsendd: what is found cannot be recorded: {error}", file=sys.stderr)
        checked += 1
        raw_bytes += stored.summary.raw_bytes
        if options.json:
            write_line(json.dumps(asdict(result)))
        elif not result.damage:
            write_line(f"ok       {stored.file}")
        if result.damage:
            failed += 1
            if not options.json:
                write_line(f"DAMAGED  {stored.file}")
            for line in result.damage:
                print(f"fullsendd: {stored.file}: {printable(line)}", file=sys.stderr)
            for broken in catalogue.dependents(stored):
                print(f"fullsendd: {stored.file}: breaks {broken.file}", file=sys.stderr)
    seconds = time.monotonic() - started
    print(
        f"{plural(checked, 'stream')}, {format_size(raw_bytes)} raw, in {format_duration(seconds)}: {failed} damaged",
        file=sys.stderr,
    )
    # What has no manifest was named above, by what is wrong with it.
    unread = [problem for problem in catalogue.problems if "has no manifest" not in problem]
    for problem in unread:
        print(f"fullsendd: {printable(problem)}", file=sys.stderr)
    return Exit.FAILED if failed or unrecorded or unread else Exit.OK


def _check(options: argparse.Namespace) -> int:
    from fullsend_receiver import identity
    from fullsend_receiver.catalogue import read_catalogue
    from fullsend_receiver.senders import SenderTable
    from fullsend_receiver.store import StoreFull, check_fitness

    settings, store = _open(options)
    full = False
    try:
        check_fitness(store)
        write_line(f"ok       store {store.root}, {format_size(store.free_bytes())} free")
    except StoreFull as error:
        full = True
        write_line(f"problem  {error}")
    table = SenderTable(store)
    identity.server_context(store, table.certificates)
    write_line(f"ok       certificate {identity.fingerprint(store)}")
    write_line(f"ok       {plural(len(table.certificates), 'sender')} enrolled")
    catalogue = read_catalogue(store)
    write_line(f"ok       {plural(len(catalogue.streams), 'stream')}")
    broken = [stored for stored in catalogue.streams if not catalogue.restorable(stored)]
    for stored in broken:
        write_line(f"problem  {stored.file}: not restorable: it, or a base, is missing or damaged")
    if store.free_bytes() < settings.min_free:
        full = True
        write_line(f"problem  less than {format_size(settings.min_free)} free: pushes are refused")
    problems = _report_problems(catalogue)
    return Exit.FAILED if broken or problems or full else Exit.OK


# --- what they share --------------------------------------------------------------------------------------------


def _open(options: argparse.Namespace) -> tuple[ReceiverSettings, Store]:
    """Read the configuration, open the store, and become its owner."""
    from fullsend_receiver import config, identity
    from fullsend_receiver.store import open_store

    settings = config.load(config.config_file(options.config))
    store = open_store(settings.store, settings.store_id)
    identity.become_owner(store)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return settings, store


def _split(what: str | None) -> tuple[str | None, str | None]:
    """Split SENDER[/REST]. Raises: UsageError where SENDER can be no sender's name, such as `..`."""
    from fullsend_protocol.invitation import is_sender_name

    if what is None:
        return None, None
    sender, _, rest = what.partition("/")
    if not is_sender_name(sender):
        msg = f"{what}: {sender!r} can be no sender's name: name it as SENDER/DATASET, SENDER/DATASET@SNAPSHOT, ..."
        raise UsageError(msg)
    return sender, rest or None


def _selected(store: Store, what: str | None) -> tuple[Catalogue, list[Stored]]:
    from fullsend_receiver.catalogue import read_catalogue

    sender, dataset = _split(what)
    catalogue = read_catalogue(store, sender)
    chosen = catalogue.select(sender, dataset)
    if what is not None and not chosen and not (store.root / (sender or "")).is_dir():
        msg = f"no sender {sender!r} has streams here"
        raise UsageError(msg)
    return catalogue, chosen


def _named(store: Store, what: str) -> tuple[Catalogue, Stored]:
    """Find the stream that SENDER/STREAM names; a whole `file`, as `list` prints it, does too."""
    from fullsend_receiver.catalogue import read_catalogue
    from fullsend_receiver.names import STREAM_SUFFIX

    sender, stream = _split(what)
    if sender is None or stream is None:
        msg = f"{what}: name it as SENDER/DATASET@SNAPSHOT, SENDER/guid:N, or by its file as `list --json` prints it"
        raise UsageError(msg)
    catalogue = read_catalogue(store, sender)
    with contextlib.suppress(FullsendError):
        if what.endswith(STREAM_SUFFIX):
            return catalogue, catalogue.find(sender, what)
    return catalogue, catalogue.find(sender, stream)


def _report_problems(catalogue: Catalogue) -> int:
    for problem in catalogue.problems:
        print(f"fullsendd: {printable(problem)}", file=sys.stderr)
    return Exit.FAILED if catalogue.problems else Exit.OK
