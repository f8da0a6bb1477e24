"""`fullsendd revoke`."""

from __future__ import annotations

from tests.receiver.command import fails
from tests.receiver.running import Receiver


def test_nobody_is_revoked_who_is_not_there(receiver: Receiver) -> None:
    fails(receiver.fullsendd("revoke", "alpha"), 2, "no sender 'alpha'")
