"""`fullsend join`: pairs this host with a receiver, by the one line that `fullsendd invite` printed.

The order makes it safe to fail anywhere, and to be run again: key and configuration are prepared first, so nothing is
sent that could not be used; the receiver must show the certificate that the invitation pins before it sees the
secret; the configuration is written once the receiver has said yes.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from dataclasses import dataclass
from typing import Final

from fullsend_protocol.shared.errors import ErrorCode, FullsendError, PeerError, UsageError
from fullsend_protocol.shared.settings import parse_settings
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.invitation import Invitation
from fullsend_sender.host import durable
from fullsend_sender.host.config import (
    ReceiverSettings,
    SenderSettings,
    check_receiver_name,
    join_address,
    read_text,
    with_receiver,
)
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.transfer.link import PATIENCE, Timeouts, connect, connect_unidentified

_log: Final = logging.getLogger("fullsend.enrol")


@dataclass(frozen=True, slots=True)
class Paired:
    """What `join` did. `sender`: what the receiver calls us; `receiver`: what we call the receiver."""

    sender: str
    receiver: str
    config: str


async def join(config: str, line: str, name: str | None = None, *, timeouts: Timeouts = PATIENCE) -> Paired:
    """Pair with the receiver that the invitation `line` names, and write it into the file `config`.

    `name`: what to call the receiver here; None: its host's first label.

    Raises: UsageError (no invitation; key or configuration cannot be written: nothing was sent then), WrongReceiver
    (the secret was not sent then), PeerError (INVITATION: spent, expired, forged), Unreachable.
    """
    invitation = Invitation.decode(line)
    text = _text(config)
    settings = parse_settings(SenderSettings, text, config)
    name = _choose_name(settings, invitation, name)
    # Made once beforehand, to learn now whether it can be done; the sender's name may yet turn out another.
    with_receiver(text, name, _table(invitation, invitation.sender), config)
    identity = Identity.beside(config)
    identity.ensure()
    _check_writable(config)
    endpoint = Endpoint(name, invitation.host, invitation.port, invitation.fingerprint)
    sender = await _enrol(endpoint, invitation, identity, timeouts)
    try:
        durable.replace(config, with_receiver(_text(config), name, _table(invitation, sender), config))
    except OSError as error:
        raise UsageError(
            f"{config} cannot be written: {error.strerror}; this host is enrolled, so run the same join again"
        ) from None
    return Paired(sender, name, config)


async def _enrol(endpoint: Endpoint, invitation: Invitation, identity: Identity, timeouts: Timeouts) -> str:
    """Have our certificate enrolled. Returns: the name we were given."""
    try:
        async with connect_unidentified(endpoint, timeouts=timeouts) as link:
            join = messages.Join(secret=invitation.secret, certificate=identity.pem())
            return (await link.ask(join, messages.Joined)).sender
    except PeerError as refusal:
        if refusal.code is not ErrorCode.INVITATION:
            raise
        # Spent, perhaps by ourselves: the answer may have been lost, or the user runs it twice.
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


def _table(invitation: Invitation, sender: str) -> ReceiverSettings:
    address = join_address(invitation.host, invitation.port)
    return ReceiverSettings(address=address, fingerprint=invitation.fingerprint, sender=sender)


def _choose_name(settings: SenderSettings, invitation: Invitation, name: str | None) -> str:
    """Return what the receiver is called here: as asked, as before, or as its host."""
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
    """Raise UsageError where the configuration could not be replaced later."""
    path = os.path.realpath(config)
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        raise UsageError(f"{os.path.dirname(path)} cannot be written")
