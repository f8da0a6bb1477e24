"""The snapshot of `ls`, `get` and `diff`: a stored one, or files outside a store. Its options, and its index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_cli.late_positionals import LATE
from fullsend_protocol.shared.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from fullsend_receiver.catalogue.streams import Catalogue, StoredStream
    from fullsend_receiver.files.index import FileIndex
    from fullsend_receiver.files.sources import SnapshotSource, StoredSource
    from fullsend_receiver.store.api import Store


def add_snapshot(sub: argparse.ArgumentParser) -> None:
    """Add the arguments that name a snapshot, and the paths in it."""
    sub.set_defaults(**{LATE: "what"})
    sub.add_argument(
        "what",
        nargs="*",
        metavar="SENDER/DATASET@SNAPSHOT|PATH",
        help="a stored snapshot first (not with --file), then paths in it, from its root",
    )
    sub.add_argument(
        "-f",
        "--file",
        action="append",
        type=Path,
        metavar="FILE",
        help="a file with a stream instead of a stored one, raw or compressed by zstd; again for each increment",
    )
    sub.add_argument(
        "--snapshot",
        metavar="DATASET@SNAPSHOT",
        help="of a package (zfs send -R or -I): which of its snapshots; without: the one that it is named after",
    )
    sub.add_argument(
        "--name", action="append", default=[], metavar="GLOB", help="only files with such a name, such as '*.txt'"
    )


def open_snapshot(options: argparse.Namespace) -> tuple[SnapshotSource, FileIndex, list[bytes]]:
    """Find the snapshot, and read its index, or make it. Returns: with the paths.

    Inside the store it acts as the store's owner; the process stays what it is. Raises: FullsendError, OSError.
    """
    import os

    from fullsend_receiver.files.kept_indexes import index_of
    from fullsend_receiver.files.sources import FileSource

    if options.file:
        source = FileSource.of(options.file, options.snapshot)
        return source, index_of(source, None), [os.fsencode(each) for each in options.what]
    if not options.what:
        msg = "name a stored snapshot, SENDER/DATASET@SNAPSHOT, or a file with --file"
        raise UsageError(msg)
    stored, index = open_stored(options, options.what[0], options.snapshot)
    return stored, index, [os.fsencode(each) for each in options.what[1:]]


def open_stored(options: argparse.Namespace, what: str, snapshot: str | None = None) -> tuple[StoredSource, FileIndex]:
    """Find a stored snapshot, and read its index, or make it. `snapshot`: one of a package. As `open_snapshot`."""
    from fullsend_receiver.access import config, identity, opening
    from fullsend_receiver.cli import selection  # noqa: F401 - before the process acts as another user
    from fullsend_receiver.files.kept_indexes import folder_of, index_of

    settings = config.load(config.config_file(options.config))
    store = opening.open_store(settings)
    with identity.acting_as_owner(store):
        source = stored_source(store, what, snapshot)
        return source, index_of(source, folder_of(store))


def stored_source(store: Store, what: str, snapshot: str | None = None) -> StoredSource:
    """Return a stored snapshot with its chain. `snapshot`: one of a package.

    Raises: UsageError, NoSuchStream, AmbiguousStream, Damaged.
    """
    from fullsend_receiver.cli.selection import find

    return source_of(store, *find(store, what), snapshot)


def source_of(store: Store, catalogue: Catalogue, stored: StoredStream, snapshot: str | None = None) -> StoredSource:
    """Return the snapshot of a stored stream with its chain. `snapshot`: one of a package. Raises: Damaged."""
    from fullsend_receiver.catalogue.streams import Damaged
    from fullsend_receiver.files.sources import StoredSource

    chain = catalogue.chain(stored)
    if not chain:
        msg = f"{stored.file}: its files cannot be read: {catalogue.obstacle(stored)}"
        raise Damaged(msg)
    return StoredSource(store, [each.summary for each in chain], snapshot)
