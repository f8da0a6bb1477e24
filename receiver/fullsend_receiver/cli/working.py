"""Tells the daemon what a command does, such as a merge, so that `fullsendd top` shows it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import FullsendError
from fullsend_receiver.cli import asking
from fullsend_receiver.daemon import local_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fullsend_protocol.wire.live import LiveTransfer
    from fullsend_receiver.store.api import Store

#: Seconds between two words to the daemon. What takes less is not told.
EVERY: Final = 1.0
#: Seconds that the daemon may take to listen: the end of the work waits for no more.
PATIENCE: Final = 2.0


@contextlib.contextmanager
def told(store: Store, look: Callable[[], LiveTransfer | None], *, every: float = EVERY) -> Iterator[None]:
    """Tell the daemon that serves a store, if one does, what `look` returns, until the block is left. `look`: is called
    in a thread; None: nothing at the moment; `every`: seconds. That it cannot be told is not an error.
    """
    ended = threading.Event()

    def tell() -> None:
        # No daemon, an older one, or one that stops: the work is the same.
        with contextlib.suppress(FullsendError, OSError):
            if ended.wait(every) or (connection := local_socket.connect(store, PATIENCE)) is None:
                return
            with connection:
                daemon = asking.Telling(connection)
                while True:
                    daemon.tell(look())
                    if ended.wait(every):
                        return

    thread = threading.Thread(target=tell, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
