"""Finds what a command line names: a sender, a dataset, a stream."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fullsend_protocol.format.names import is_aside, is_stream
from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.catalogue.streams import NoSuchStream, aside_of
from fullsend_receiver.cli.inventory import read_inventory
from fullsend_receiver.store.names import dataset_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import PurePosixPath

    from fullsend_protocol.format.manifest import Manifest
    from fullsend_receiver.catalogue.holdings import Holdings
    from fullsend_receiver.catalogue.problems import Problem
    from fullsend_receiver.catalogue.streams import Catalogue, StoredStream
    from fullsend_receiver.store.api import Store


def split_name(what: str | None) -> tuple[str | None, str | None]:
    """Split SENDER[/REST]. Raises: UsageError if SENDER is not a valid sender's name, such as `..`."""
    if what is None:
        return None, None
    sender, _, rest = what.partition("/")
    if not is_sender_name(sender):
        msg = f"{what}: {sender!r} is not a sender's name: name it as SENDER/DATASET, SENDER/DATASET@SNAPSHOT, ..."
        raise UsageError(msg)
    return sender, rest or None


def select(store: Store, what: str | None) -> tuple[Catalogue, list[StoredStream]]:
    """Find all streams of SENDER[/DATASET]. Raises: UsageError if nothing of that name is stored."""
    sender, dataset = split_name(what)
    catalogue = read_inventory(store, sender, dataset=dataset)
    chosen = catalogue.select(sender, dataset)
    if sender is not None and not chosen and not _may_hide(catalogue.problems, sender, dataset):
        raise _nothing(what, sender, dataset)
    return catalogue, chosen


def check_stored(holdings: Holdings, what: str | None, sender: str, dataset: str | None) -> None:
    """Check that something of SENDER[/DATASET] is stored, as `select` does. Raises: UsageError."""
    found = next(holdings.select(dataset), None)
    if found is None and not _may_hide(holdings.problems, sender, dataset):
        raise _nothing(what, sender, dataset)


def _nothing(what: str | None, sender: str, dataset: str | None) -> UsageError:
    msg = (
        f"no sender {sender!r} has streams here"
        if dataset is None
        else f"{what}: nothing of that name is stored (see `fullsendd list {sender}`)"
    )
    return UsageError(printable(msg))


def _may_hide(problems: Iterable[Problem], sender: str, dataset: str | None) -> bool:
    """Whether one of a sender's problems may hide a stream of a dataset; `dataset` None: of any."""
    folder = None if dataset is None else str(dataset_folder(sender, dataset))
    return any(folder is None or problem.hides(folder) for problem in problems)


def find_aside(store: Store, what: str) -> tuple[PurePosixPath, Manifest] | None:
    """Find the stream that SENDER/aside:NAME names, which is set aside. Returns: its `.zst` for `Store.open`, and its
    manifest; None: `what` names a stored stream. Raises: UsageError, NoSuchStream, ManifestError.
    """
    sender, stream = split_name(what)
    if sender is None or stream is None or not is_aside(stream):
        return None
    return aside_of(store, sender, stream)


def find(store: Store, what: str) -> tuple[Catalogue, StoredStream]:
    """Find the stream that SENDER/STREAM names; also by a whole `file`, as `list` prints it.

    Raises: UsageError, also if SENDER/STREAM is a dataset; NoSuchStream, AmbiguousStream.
    """
    sender, stream = split_name(what)
    if sender is None or stream is None:
        msg = f"{what}: name it as SENDER/DATASET@SNAPSHOT, SENDER/guid:N, or by its file as `list --json` prints it"
        raise UsageError(msg)
    catalogue = read_inventory(store, sender, streams=[what, stream])
    with contextlib.suppress(FullsendError):
        if is_stream(what):
            return catalogue, catalogue.find(sender, what)
    try:
        return catalogue, catalogue.find(sender, stream)
    except NoSuchStream:
        if "@" not in stream:
            _check_no_dataset(store, what, sender, stream)
        raise


def _check_no_dataset(store: Store, what: str, sender: str, dataset: str) -> None:
    """Check that SENDER/DATASET is not a dataset that has stored streams. Raises: UsageError, which names the last."""
    stored = read_inventory(store, sender, dataset=dataset).select(sender, dataset)
    if stored:
        msg = (
            f"{what} is a dataset: name a stream of it, such as {what}@{stored[-1].summary.snapshot}, which came last"
            f" (`fullsendd list {what}` has all)"
        )
        raise UsageError(printable(msg))
