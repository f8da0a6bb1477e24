"""What `top` is told of a transfer."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fullsend_protocol.shared.stages import StageWaits, TransferCount
from fullsend_protocol.wire.live import LiveTransfer


def test_what_is_told() -> None:
    count = TransferCount(10.0, 50, StageWaits("wire", clock=iter([0.0, 2.5]).__next__))
    count.skip(4)
    count.add(3, 2)
    found = LiveTransfer.of("7.1", "push", "alpha", "tank/a@\udcff", count, 12.0, away=True)
    assert found.model_dump() == {
        "id": "7.1",
        "activity": "push",
        "peer": "alpha",
        "what": "tank/a@\\udcff",
        "raw_bytes": 7,
        "wire_bytes": 2,
        "before": 4,
        "size": 50,
        "seconds": 2.0,
        "waited": {"wire": 2.5},
        "away": True,
    }
    assert LiveTransfer.model_validate_json(found.model_dump_json()) == found


def test_a_name_that_is_too_long_is_cut() -> None:
    assert len(LiveTransfer.of("1", "merge", "", "x" * 9999, TransferCount(0.0), 0.0).what) < 2000


@pytest.mark.parametrize(
    "wrong",
    [{"activity": "dance"}, {"raw_bytes": -1}, {"waited": {"": 1.0}}, {"waited": {"wire": -1.0}}, {"more": 1}],
)
def test_what_is_none(wrong: dict[str, object]) -> None:
    good = LiveTransfer.of("1", "merge", "", "x", TransferCount(0.0), 0.0).model_dump()
    LiveTransfer.model_validate(good)
    with pytest.raises(ValidationError):
        LiveTransfer.model_validate(good | wrong)
