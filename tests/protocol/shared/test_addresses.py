from __future__ import annotations

import pytest

from fullsend_protocol.shared.addresses import join_address


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [("nas", 7433, "nas:7433"), ("192.0.2.1", 1, "192.0.2.1:1"), ("2001:db8::1", 65535, "[2001:db8::1]:65535")],
)
def test_address_of_ipv6_is_in_brackets(host: str, port: int, address: str) -> None:
    assert join_address(host, port) == address
