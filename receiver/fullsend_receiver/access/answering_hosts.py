"""Looks whether the hosts at the advertised addresses are those that senders know: all show one certificate."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fullsend_protocol.shared.addresses import join_address
from fullsend_protocol.shared.errors import reason
from fullsend_protocol.wire.certificate import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Seconds for which an address may be silent.
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class AddressFinding:
    """What answers at an address: `silent`: nothing does. `says`: one line for a person."""

    what: Literal["same", "other", "silent"]
    says: str


def look(addresses: Iterable[tuple[str, int]], known: str, *, patience: float = _PATIENCE) -> Iterator[AddressFinding]:
    """Look at each address, one after another. `known`: the fingerprint that senders pin; `patience`: seconds for each.

    What is found says nothing of the way that a ZFS host takes to the address.
    """
    for host, port in addresses:
        name = join_address(host, port)
        try:
            shown = fingerprint(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, port), timeout=patience)))
        except (OSError, ValueError) as error:
            yield AddressFinding("silent", f"advertised {name}: no daemon answers from here: {reason(error)}")
            continue
        if shown == known:
            yield AddressFinding("same", f"advertised {name} answers, with this certificate")
        else:
            says = f"advertised {name} answers with another certificate, {shown}: senders refuse it; give it this key"
            yield AddressFinding("other", says)
