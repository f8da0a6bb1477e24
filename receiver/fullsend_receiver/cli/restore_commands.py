"""The plain shell lines that restore a stored stream without fullsend."""

from __future__ import annotations

from fullsend_protocol.format.restore_commands import restore_lines
from fullsend_receiver.catalogue.streams import Catalogue, Damaged, StoredStream


def restore_commands(catalogue: Catalogue, stored: StoredStream) -> list[str]:
    """Return the lines that restore a stream and its chain, the full first; for the store's folder.

    Raises: Damaged if it cannot be restored; the message names what is missing.
    """
    chain = catalogue.chain(stored)
    if not chain:
        msg = f"{stored.file}: cannot be restored: {catalogue.obstacle(stored)}"
        raise Damaged(msg)
    return restore_lines([catalogue.entry(each) for each in chain])
