"""How the copies in another store stand, and whether that store can be reached, for `check`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fullsend_protocol.shared.errors import FullsendError, reason
from fullsend_protocol.shared.units import printable
from fullsend_receiver.access import config, identity, opening
from fullsend_receiver.monitor.alarms import Moment
from fullsend_receiver.monitor.copies import find_copies
from fullsend_receiver.monitor.copy_text import copy_line

if TYPE_CHECKING:
    from fullsend_receiver.access.copy_settings import CopySettings
    from fullsend_receiver.cli.results import CheckResults
    from fullsend_receiver.store.api import Store


def print_copies(store: Store, settings: CopySettings | None, out: CheckResults, *, now: float | None = None) -> bool:
    """Print how the copies stand, if any are wanted, and what keeps this process from the other store. `now`: seconds
    since the epoch, None: by this host's clock.

    Returns: whether there is no problem. Raises: OSError, StoreError.
    """
    moment = time.time() if now is None else now
    copy = find_copies(store, settings, Moment(moment, moment))
    if copy is None or settings is None:
        return True
    if copy.fault is not None:
        out.problem(printable(f"copies: {copy.fault}"))
        return False
    try:
        target = opening.open_store(config.load(settings.to))
        target.check_mounted()
        identity.check_same_owner(store, target)
    except (FullsendError, OSError) as error:
        out.problem(printable(f"copies: {copy.to}: {reason(error)}"))
        reached = False
    else:
        reached = True
    good = not copy.is_late and copy.ok is not False
    (out.good if good else out.problem)(f"copies in {copy_line(copy)}")
    return reached and good
