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


def test_each_address_has_its_turn() -> None:
    endpoint = Endpoint("nas", "one", 1, "0" * 64, others=(("two", 2), ("::3", 3)))
    assert endpoint.place == "nas (one:1, two:2, [::3]:3)"
    firsts = {endpoint.each()[0].place for _time in range(200)}
    assert firsts == {"nas (one:1)", "nas (two:2)", "nas ([::3]:3)"}
    assert {each.place for each in endpoint.each()} == firsts
    assert all(each.fingerprint == endpoint.fingerprint and not each.others for each in endpoint.each())
    alone = Endpoint("nas", "one", 1, "0" * 64)
    assert alone.each() == [alone]


def test_embedded_blocks_are_not_asked_for_by_default() -> None:
    """`zfs receive` loses spill blocks that OpenZFS 2.4 embeds (openzfs issue 18239)."""
    assert not SendOptions().embedded
