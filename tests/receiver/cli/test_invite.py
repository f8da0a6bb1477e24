"""`fullsendd invite`."""

from __future__ import annotations

import pytest
from tests.receiver.command import fails
from tests.receiver.running import Receiver

from fullsend_protocol.wire.invitation import Invitation


def test_an_invitation_is_the_one_line_on_stdout(receiver: Receiver) -> None:
    done = receiver.fullsendd("invite", "alpha")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    invitation = Invitation.decode(done.stdout)
    assert (invitation.sender, invitation.host, invitation.port) == ("alpha", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("arguments", "says"), [(["A"], "cannot name a sender"), (["a", "--expires", "soon"], "is not a duration")]
)
def test_what_is_no_invitation(receiver: Receiver, arguments: list[str], says: str) -> None:
    fails(receiver.fullsendd("invite", *arguments), 2, says)
