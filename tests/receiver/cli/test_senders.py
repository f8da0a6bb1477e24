"""`fullsendd senders`."""

from __future__ import annotations

import json

from tests.receiver.running import Receiver


def test_senders_are_listed_with_their_state(receiver: Receiver) -> None:
    receiver.start()
    try:
        receiver.enrol("alpha")
        receiver.enrol("beta")
    finally:
        assert receiver.stop() == 0
    assert receiver.fullsendd("revoke", "beta").returncode == 0
    done = receiver.fullsendd("senders")
    alpha, beta = done.stdout.splitlines()
    assert alpha.startswith("alpha")
    assert alpha.endswith("enrolled")
    assert " revoked 2" in beta
    rows = [json.loads(line) for line in receiver.fullsendd("senders", "--json").stdout.splitlines()]
    assert [row["sender"] for row in rows] == ["alpha", "beta"]
    assert (rows[0]["revoked"], rows[0]["fingerprint"]) == (None, receiver.senders["alpha"].fingerprint)
    assert rows[1]["revoked"]
