from __future__ import annotations

import pytest

from fullsend_sender.host.options import Endpoint, SendOptions


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("nas.example", "nas (nas.example:7433)"),
        ("192.0.2.1", "nas (192.0.2.1:7433)"),
        ("2001:db8::1", "nas ([2001:db8::1]:7433)"),
    ],
)
def test_place(host: str, place: str) -> None:
    assert Endpoint("nas", host, 7433, "0" * 64).place == place


def test_embedded_blocks_are_not_asked_for_by_default() -> None:
    """`zfs receive` loses spill blocks that OpenZFS 2.4 embeds (openzfs issue 18239)."""
    assert not SendOptions().embedded
