"""What is stored, for a command: from the daemon that serves the store, or if none runs, from the disk.

Both give the same result. The daemon has it in memory; reading the disk means examining each manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from fullsend_protocol.shared.errors import FullsendError, reason
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire.local import Summaries, SummariesWanted
from fullsend_receiver.catalogue.pages import Pages
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.cli import asking
from fullsend_receiver.cli.results import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fullsend_receiver.catalogue.streams import Catalogue
    from fullsend_receiver.store.api import Store


def read_inventory(
    store: Store, sender: str | None = None, *, dataset: str | None = None, streams: Sequence[str] | None = None
) -> Catalogue:
    """Return what is stored of a sender, None: of all. `dataset`, `streams`: what the caller needs; the catalogue may
    lack streams that no answer about these depends on. Blocks.

    A daemon that does not answer is named on stderr. Raises: StoreError, OSError if the store cannot be read.
    """
    try:
        question = SummariesWanted(sender=sender, dataset=dataset, streams=None if streams is None else [*streams])
    except ValidationError:  # a name that no message can have: no stream has it either
        return read_catalogue(store, sender)
    try:
        found = _ask_daemon(store, question)
    except (FullsendError, OSError, ValueError, TypeError, IndexError) as error:
        complain(f"the daemon does not answer, so the disk is read: {printable(reason(error))}")
        found = None
    return read_catalogue(store, sender) if found is None else found


def _ask_daemon(store: Store, question: SummariesWanted) -> Catalogue | None:
    """Ask the daemon; None if none runs.

    Raises: FullsendError, OSError if it does not answer; ValueError, TypeError, IndexError if its answer has another
    form.
    """
    connection = asking.connect(store)
    if connection is None:
        return None
    with connection:
        pages = Pages()
        for page in asking.pages(connection, question, Summaries):
            pages.add(page.items)
    return pages.catalogue(store)
