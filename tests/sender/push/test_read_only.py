"""What can be done in a pool that is read-only."""

from __future__ import annotations

from fullsend_protocol.shared.errors import FullsendError
from fullsend_sender.push.read_only import no_snapshot
from fullsend_sender.zfs.inventory import Dataset, Snapshot


def test_the_newest_snapshot_can_be_pushed_by_name() -> None:
    dataset = Dataset("tank/a", "filesystem", "1", 0, 0, encrypted=False, key_loaded=False)
    why = FullsendError("pool is read-only")
    assert "import the pool read-write" in str(no_snapshot(dataset, why))
    dataset.snapshots = [Snapshot(name, "1", 1, 1, 0, 0) for name in ("mon", "tue")]
    assert str(no_snapshot(dataset, why)).endswith("fullsend push tank/a@tue")
