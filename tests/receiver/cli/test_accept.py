"""`fullsendd accept`."""

from __future__ import annotations

import pytest
from tests.receiver.cli.test_prune import files, nights, write_policy
from tests.receiver.helpers import SENDER, plant
from tests.receiver.running import Receiver

from fullsend_receiver.maintenance import suspicion
from fullsend_receiver.monitor import sizes
from fullsend_receiver.store.local import LocalStore


def test_suspicious_dataset_is_pruned_again_when_it_is_accepted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspicion, "SMALL", 0)
    planted = nights(receiver, 12)
    write_policy(receiver)
    assert receiver.fullsendd("prune", "--yes-more").returncode == 0
    assert len(files(receiver)) == 3
    store = LocalStore(receiver.store)
    # A chain, and on its full another one that grows beside it.
    received = store.manifest(planted[-1]).received
    for number, base in ((2001, None), (2002, 2001), (2003, None), (2004, 2002)):
        plant(store, f"x{number}", number, base, received=received, sequence=number)
    done = receiver.fullsendd("prune", "--dry-run")
    assert done.returncode == 1
    done = receiver.fullsendd("prune")
    assert done.returncode == 1
    expected = "two chains grow at the same time: if that is right: `fullsendd accept alpha/tank/data`"
    assert expected in done.stderr
    assert receiver.fullsendd("prune", "--yes-more").returncode == 1
    assert expected in receiver.fullsendd("check").stdout
    assert receiver.fullsendd("accept", "alpha/tank/data").returncode == 0
    assert receiver.fullsendd("check").returncode == 0
    assert receiver.fullsendd("prune").returncode == 0
    assert receiver.fullsendd("prune").returncode == 0


def test_what_has_vanished_can_be_accepted(receiver: Receiver) -> None:
    """The alarm that it has `shrunk` advises so."""
    store = LocalStore(receiver.store)
    stored = {SENDER: {"tank/gone": [(739_000, 1 << 30)]}}
    sizes.write(store.documents, sizes.Sizes(stored=stored))
    done = receiver.fullsendd("accept", f"{SENDER}/tank/gone")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{SENDER}/tank/gone" in suspicion.read_accepted_times(store.documents)


@pytest.mark.parametrize("what", [SENDER, "alpha/tank/daat", "../x"])
def test_accept_of_what_is_no_dataset_here_is_a_mistake(receiver: Receiver, what: str) -> None:
    nights(receiver, 2)
    done = receiver.fullsendd("accept", what)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
