"""`fullsend join`: pairs this host with a receiver, with the one line that `fullsendd invite` printed.

`join` may fail at any step, and can be run again. Key and configuration are prepared first, so nothing is sent that
could not be used. The receiver must show the certificate that the invitation pins before it sees the secret. The
configuration is written after the receiver has accepted.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared.addresses import join_address
from fullsend_protocol.shared.errors import ErrorCode, FullsendError, PeerError, UsageError
from fullsend_protocol.shared.settings import parse_settings
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.invitation import Invitation
from fullsend_sender.host import durable
from fullsend_sender.host.config import (
    ReceiverTable,
    SenderSettings,
    check_receiver_name,
    read_text,
    with_receiver,
)
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.transfer.link import DEFAULT_TIMEOUTS, Timeouts, connect, connect_unidentified

_log: Final = logging.getLogger("fullsend.enrol")


@dataclass(frozen=True, slots=True)
class Paired:
    """The result of `join`. `sender`: this host's name at the receiver; `receiver`: the receiver's name here."""

    sender: str
    receiver: str
    config: str


async def join(config: str, line: str, name: str | None = None, *, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> Paired:
    """Pair with the receiver that the invitation `line` names, and write it into the file `config`.

    `name`: the receiver's name here; None: its host's first label.

    Raises: UsageError (not an invitation; key or configuration cannot be written: nothing was sent then), WrongReceiver
    (the secret was not sent then), PeerError (INVITATION: spent, expired, forged), Unreachable.
    """
    invitation = Invitation.decode(line)
    text = _text(config)
    settings = parse_settings(SenderSettings, text, config)
    name = _choose_name(settings, invitation, name)
    # Done once in advance, to find out now whether it is possible; the receiver may still give another sender's name.
    with_receiver(text, name, _table(invitation, invitation.sender), config)
    identity = Identity.beside(config)
    identity.ensure()
    _check_writable(config)
    endpoint = Endpoint(name, invitation.host, invitation.port, invitation.fingerprint, others=invitation.others)
    sender = await _enrol(endpoint, invitation, identity, timeouts)
    try:
        durable.replace(config, with_receiver(_text(config), name, _table(invitation, sender), config))
    except OSError as error:
        raise UsageError(
            f"{config} cannot be written: {error.strerror}; this host is enrolled, so run the same join again"
        ) from None
    return Paired(sender, name, config)


async def _enrol(endpoint: Endpoint, invitation: Invitation, identity: Identity, timeouts: Timeouts) -> str:
    """Enrol this host's certificate. Returns: the sender's name."""
    try:
        async with connect_unidentified(endpoint, timeouts=timeouts) as link:
            join = messages.Join(secret=invitation.secret, certificate=identity.pem())
            return (await link.ask(join, messages.Joined)).sender
    except PeerError as refusal:
        if refusal.code is not ErrorCode.INVITATION:
            raise
        # Spent, perhaps by this host: the answer may have been lost, or the user runs the command twice.
        try:
            async with connect(endpoint, identity, timeouts=timeouts) as (_link, sender):
                if sender == invitation.sender:
                    _log.info("this host is enrolled at %s already", endpoint.place)
                    return sender
        except FullsendError:
            pass
        raise


def _text(config: str) -> str:
    try:
        return read_text(config)
    except FileNotFoundError:
        return ""


def _table(invitation: Invitation, sender: str) -> ReceiverTable:
    first = join_address(invitation.host, invitation.port)
    others = [join_address(host, port) for host, port in invitation.others]
    address = [first, *others] if others else first
    return ReceiverTable(address=address, fingerprint=invitation.fingerprint, sender=sender)


def _choose_name(settings: SenderSettings, invitation: Invitation, name: str | None) -> str:
    """Return the receiver's name here: the requested one, the earlier one, or its host's."""
    known = [other for other, receiver in settings.receivers.items() if receiver.fingerprint == invitation.fingerprint]
    if name is None and known:
        return known[0]
    name = check_receiver_name(name) if name is not None else _name_of_host(invitation.host)
    if name in settings.receivers and name not in known:
        raise UsageError(f"another receiver is called {name!r} already: choose a name for this one with --as NAME")
    return name


def _name_of_host(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return re.sub(r"[^A-Za-z0-9_-]", "-", host.split(".", maxsplit=1)[0]) or "receiver"
    return "receiver"


def _check_writable(config: str) -> None:
    """Raise UsageError if the configuration could not be replaced later."""
    path = os.path.realpath(config)
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        raise UsageError(f"{os.path.dirname(path)} cannot be written")
