"""The senders that may talk to this receiver: the sender table and the invitations, in STORE/.state.

A sender is the SHA-256 of its certificate (DER). Both files are small JSON, replaced as a whole under the store's
lock. The daemon reads them again whenever they have changed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from fullsend_protocol.shared.errors import ErrorCode, FullsendError, UsageError, reason
from fullsend_protocol.wire.certificate import fingerprint
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.access.identity import is_certificate
from fullsend_receiver.store.durable import locked, replace_file, signature
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore

#: 128 bits: impossible to guess within the life of an invitation, at any number of tries.
_SECRET_BYTES: Final = 16


class Refused(FullsendError):  # noqa: N818 - reads as a noun
    """A peer is not admitted; `code` says why."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """`code`: UNKNOWN_SENDER, REVOKED or INVITATION."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Sender:
    """One enrolled certificate (PEM). Times are seconds since the epoch; `revoked` None: it is in force."""

    name: str
    fingerprint: str
    certificate: str
    enrolled: float
    revoked: float | None = None


@dataclass(frozen=True, slots=True)
class _Invited:
    """One invitation, without its secret. `expires`: seconds since the epoch; `used_by`: a fingerprint that joined."""

    secret_sha256: str
    sender: str
    expires: float
    replace: bool
    used_by: str | None = None


_Row = TypeVar("_Row", Sender, _Invited)


class SenderTable:
    """The table as of the time when it was read; `changed` says whether to read it again."""

    def __init__(self, store: LocalStore, *, fault: StoreError | None = None) -> None:
        """Read the table. Raises: StoreError if it is damaged, or the store is not in its folder.

        `fault`: the table could not be read. Then this object admits no sender, reports the fault to peers that ask,
        and is never written. If the daemon did not start instead, systemd would restart it without end.
        """
        self._store = store
        self._signature = signature(_table_file(store))
        self._fault = fault
        self._senders = {} if fault else {sender.fingerprint: sender for sender in _read_senders(store)}
        if fault is None:
            store.check_mounted()  # afterwards: without its disk the table is missing, which means that it is empty

    def changed(self) -> bool:
        """Whether the file has changed since it was read."""
        return signature(_table_file(self._store)) != self._signature

    @property
    def certificates(self) -> list[str]:
        """The certificates in force (PEM)."""
        return [sender.certificate for sender in self._senders.values() if sender.revoked is None]

    def identify(self, fingerprint: str) -> Sender:
        """Return the sender in force. Raises: Refused (UNKNOWN_SENDER, REVOKED)."""
        sender = self._senders.get(fingerprint)
        if sender is None:
            msg = "this certificate is not enrolled here: ask for an invitation (fullsendd invite NAME)"
            raise Refused(ErrorCode.UNKNOWN_SENDER, msg)
        if sender.revoked is not None:
            msg = f"the certificate of sender {sender.name} has been revoked here"
            raise Refused(ErrorCode.REVOKED, msg)
        return sender

    def status(self, fingerprint: str) -> Literal["enrolled", "revoked", "unknown"]:
        """Answer `known?`. Raises: StoreError if the table could not be read."""
        if self._fault is not None:
            raise self._fault
        sender = self._senders.get(fingerprint)
        if sender is None:
            return "unknown"
        return "enrolled" if sender.revoked is None else "revoked"

    def __iter__(self) -> Iterator[Sender]:
        """Iterate over all that were ever enrolled, in order."""
        return iter(self._senders.values())


def invite(store: LocalStore, name: str, expires_in: float, *, replace_existing: bool) -> str:
    """Make an invitation. `expires_in`: seconds. Returns: its secret, which is stored nowhere.

    Raises: UsageError if the name is not valid, or is taken and `replace_existing` is not set.
    """
    if not is_sender_name(name):
        msg = f"{name!r} cannot name a sender: lower-case letters, digits and hyphens, 63 at most"
        raise UsageError(msg)
    with locked(store.lock):
        taken = any(sender.name == name for sender in _read_senders(store))
        if not replace_existing and (taken or (store.root / name).exists()):
            what = "was enrolled before" if taken else "has streams here"
            msg = f"sender {name} {what}: --replace gives its name and backups to a new host (the old one is revoked)"
            raise UsageError(msg)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        now = time.time()
        kept = [invited for invited in _read_invitations(store) if invited.expires > now and invited.sender != name]
        kept.append(_Invited(_digest(secret), name, now + expires_in, replace_existing))
        _write(_invitations_file(store), [_as_dict(invited) for invited in kept])
    return secret


def join(store: LocalStore, secret: str, certificate: str) -> Sender:
    """Enrol a certificate (PEM) with an invitation, which is spent then.

    A host that did not receive the answer may join again with the same certificate. Raises: Refused (INVITATION).
    """
    if not is_certificate(certificate):
        msg = "the certificate to enrol cannot be read"
        raise Refused(ErrorCode.INVITATION, msg)
    store.check_mounted()
    print_ = fingerprint(ssl.PEM_cert_to_DER_cert(certificate))
    with locked(store.lock):
        invitations = _read_invitations(store)
        wanted = _digest(secret)
        found = [invited for invited in invitations if hmac.compare_digest(invited.secret_sha256, wanted)]
        if not found:
            msg = "this invitation is not known here: it was replaced by a newer one, or never made"
            raise Refused(ErrorCode.INVITATION, msg)
        invited = found[0]
        senders = _read_senders(store)
        known = [sender for sender in senders if sender.fingerprint == print_]
        now = time.time()
        if invited.used_by == print_ and known and known[0].revoked is None:
            return known[0]
        # Bound to this certificate, which the table does not have: a process was killed between the two writes below.
        if invited.used_by is not None and (invited.used_by != print_ or known):
            msg = "this invitation has been used: make a new one (fullsendd invite --replace NAME)"
            raise Refused(ErrorCode.INVITATION, msg)
        if invited.used_by is None and invited.expires < now:
            msg = "this invitation has expired: make a new one (fullsendd invite NAME)"
            raise Refused(ErrorCode.INVITATION, msg)
        if any(sender.name != invited.sender for sender in known):
            msg = "this certificate is, or was, enrolled here under another name"
            raise Refused(ErrorCode.INVITATION, msg)
        joined = Sender(invited.sender, print_, certificate, now)
        others = [
            replace(sender, revoked=sender.revoked or now) if sender.name == invited.sender else sender
            for sender in senders
            if sender.fingerprint != print_
        ]
        # The invitation first: if the process dies in between, it admits no other certificate any more.
        spent = [replace(each, used_by=print_) if each is invited else each for each in invitations]
        _write(_invitations_file(store), [_as_dict(each) for each in spent])
        _write(_table_file(store), [_as_dict(sender) for sender in [*others, joined]])
    return joined


def revoke(store: LocalStore, name: str) -> None:
    """Admit a sender no more, nor the holder of an invitation under its name. Its streams stay.

    Raises: UsageError if no such sender is enrolled or invited.
    """
    with locked(store.lock):
        senders, invitations = _read_senders(store), _read_invitations(store)
        in_force = [sender for sender in senders if sender.name == name and sender.revoked is None]
        invited = [each for each in invitations if each.sender == name]
        if not in_force and all(each.used_by for each in invited):
            msg = f"no sender {name!r} is enrolled or invited here (see `fullsendd senders`)"
            raise UsageError(msg)
        # The table last: if the process dies in between, the sender can still be revoked.
        if invited:
            _write(_invitations_file(store), [_as_dict(each) for each in invitations if each.sender != name])
        if in_force:
            now = time.time()
            after = [replace(each, revoked=now) if each in in_force else each for each in senders]
            _write(_table_file(store), [_as_dict(sender) for sender in after])


def _table_file(store: LocalStore) -> Path:
    return store.state / "senders.json"


def _invitations_file(store: LocalStore) -> Path:
    return store.state / "invitations.json"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _as_dict(row: Sender | _Invited) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    replace_file(path, json.dumps({"format": 1, "rows": rows}, indent=1).encode() + b"\n")


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = content["rows"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path}: cannot be read: {reason(error)}"
        raise StoreError(msg) from None
    return rows


def _read_senders(store: LocalStore) -> list[Sender]:
    return _rows(Sender, _table_file(store))


def _read_invitations(store: LocalStore) -> list[_Invited]:
    return _rows(_Invited, _invitations_file(store))


def _rows(kind: type[_Row], path: Path) -> list[_Row]:
    try:
        # A later version may have written more keys.
        return [kind(**{name: row[name] for name in kind.__slots__ if name in row}) for row in _read(path)]
    except (TypeError, AttributeError) as error:
        msg = f"{path}: cannot be read: {error}"
        raise StoreError(msg) from None
