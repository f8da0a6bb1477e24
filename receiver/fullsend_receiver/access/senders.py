"""The senders that may talk to this receiver: the sender table and the invitations, two documents of the store.

A sender is the SHA-256 of its certificate (DER). Both documents are small JSON. A change replaces one as a whole, and
is made again if another process was first. Daemons read them again whenever they have changed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from fullsend_protocol.shared.errors import ErrorCode, FullsendError, UsageError, reason
from fullsend_protocol.wire.certificate import fingerprint
from fullsend_protocol.wire.invitation import is_sender_name
from fullsend_receiver.access.identity import is_certificate
from fullsend_receiver.store.api import Store, update
from fullsend_receiver.store.errors import StoreError, StoreUnreadable

_TABLE: Final = "senders.json"
_INVITATIONS: Final = "invitations.json"
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

    def __init__(self, store: Store, *, fault: StoreError | None = None) -> None:
        """Read the table. Raises: StoreError if it is damaged, or the store is not in its folder.

        `fault`: the table could not be read. Then this object admits no sender, reports the fault to peers that ask,
        and is never written. If the daemon did not start instead, systemd would restart it without end.
        """
        self._store = store
        self._version = store.documents.version(_TABLE)  # first: a change while it is read must show
        self._fault = fault
        self._senders = {} if fault else {sender.fingerprint: sender for sender in _read_senders(store)}
        if fault is None:
            store.check_mounted()  # afterwards: without its disk the table is missing, which means that it is empty

    def changed(self) -> bool:
        """Whether to read the table again: it has changed since, or could not be read. Raises: OSError, StoreError."""
        # Its owner or mode may have been corrected, or a disk has recovered: that changes no version.
        return self._fault is not None or self._store.documents.version(_TABLE) != self._version

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


def invite(store: Store, name: str, expires_in: float, *, replace_existing: bool) -> str:
    """Make an invitation. `expires_in`: seconds. Returns: its secret, which is stored nowhere.

    Raises: UsageError if the name is not valid, or is taken and `replace_existing` is not set.
    """
    if not is_sender_name(name):
        msg = f"{name!r} cannot name a sender: lower-case letters, digits and hyphens, 63 at most"
        raise UsageError(msg)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    now = time.time()

    def add(invitations: list[_Invited]) -> list[_Invited]:
        taken = any(sender.name == name for sender in _read_senders(store))
        if not replace_existing and (taken or name in store.senders()):
            what = "was enrolled before" if taken else "has streams here"
            msg = f"sender {name} {what}: --replace gives its name and backups to a new host (the old one is revoked)"
            raise UsageError(msg)
        kept = [invited for invited in invitations if invited.expires > now and invited.sender != name]
        return [*kept, _Invited(_digest(secret), name, now + expires_in, replace_existing)]

    _change(store, _INVITATIONS, _Invited, add)
    return secret


def join(store: Store, secret: str, certificate: str) -> Sender:
    """Enrol a certificate (PEM) with an invitation, which is spent then.

    A host that did not receive the answer may join again with the same certificate. Raises: Refused (INVITATION).
    """
    if not is_certificate(certificate):
        msg = "the certificate to enrol cannot be read"
        raise Refused(ErrorCode.INVITATION, msg)
    store.check_mounted()
    print_ = fingerprint(ssl.PEM_cert_to_DER_cert(certificate))
    now = time.time()
    # The invitation first: if the process dies in between, it admits no other certificate any more.
    invited = _spend(store, _digest(secret), print_, now)
    joined = Sender(invited.sender, print_, certificate, now)

    def enrol(senders: list[Sender]) -> list[Sender] | None:
        nonlocal joined
        known = [sender for sender in senders if sender.fingerprint == print_]
        if invited.used_by is not None and known and known[0].revoked is None:
            joined = known[0]
            return None
        if not _is_there(store, invited):
            raise _unknown()  # before it revokes a host that has joined since with a newer one
        _check_new(invited, known)
        others = [
            replace(sender, revoked=sender.revoked or now) if sender.name == invited.sender else sender
            for sender in senders
            if sender.fingerprint != print_
        ]
        return [*others, joined]

    _change(store, _TABLE, Sender, enrol)
    if not _is_there(store, invited):
        # A `revoke` has removed the invitation meanwhile. It may have read the table before this sender was in it.
        _revoke_rows(store, lambda each: each.fingerprint == print_)
        raise _unknown()
    return joined


def _is_there(store: Store, invited: _Invited) -> bool:
    return any(each.secret_sha256 == invited.secret_sha256 for each in _read_invitations(store))


def _spend(store: Store, wanted: str, print_: str, now: float) -> _Invited:
    """Bind an invitation to a certificate. Returns: it, as it was before. Raises: Refused (INVITATION)."""
    spent: _Invited | None = None

    def bind(invitations: list[_Invited]) -> list[_Invited] | None:
        nonlocal spent
        found = [invited for invited in invitations if hmac.compare_digest(invited.secret_sha256, wanted)]
        if not found:
            raise _unknown()
        spent = found[0]
        if spent.used_by == print_:
            return None
        if spent.used_by is not None:
            raise _used()
        if spent.expires < now:
            msg = "this invitation has expired: make a new one (fullsendd invite NAME)"
            raise Refused(ErrorCode.INVITATION, msg)
        _check_new(spent, [each for each in _read_senders(store) if each.fingerprint == print_])
        return [replace(each, used_by=print_) if each is spent else each for each in invitations]

    _change(store, _INVITATIONS, _Invited, bind)
    assert spent is not None  # noqa: S101 - for mypy: `bind` has run
    return spent


def _check_new(invited: _Invited, known: list[Sender]) -> None:
    """Check the rows of the certificate that joins. Raises: Refused (INVITATION)."""
    # Bound to this certificate, which the table does not have: a process was killed between the two changes.
    if invited.used_by is not None and known:
        raise _used()
    if any(sender.name != invited.sender for sender in known):
        msg = "this certificate is, or was, enrolled here under another name"
        raise Refused(ErrorCode.INVITATION, msg)


def _unknown() -> Refused:
    msg = "this invitation is not known here: it was replaced by a newer one, or never made"
    return Refused(ErrorCode.INVITATION, msg)


def _used() -> Refused:
    msg = "this invitation has been used: make a new one (fullsendd invite --replace NAME)"
    return Refused(ErrorCode.INVITATION, msg)


def revoke(store: Store, name: str) -> None:
    """Admit a sender no more, nor the holder of an invitation under its name. Its streams stay.

    Raises: UsageError if no such sender is enrolled or invited.
    """
    invited = [each for each in _read_invitations(store) if each.sender == name]
    senders = _read_senders(store)
    in_force = any(sender.name == name and sender.revoked is None for sender in senders)
    joined = {sender.fingerprint for sender in senders}  # an invitation that is spent otherwise still admits its host
    if not in_force and all(each.used_by in joined for each in invited):
        msg = f"no sender {name!r} is enrolled or invited here (see `fullsendd senders`)"
        raise UsageError(msg)
    # The table last: if the process dies in between, the sender can still be revoked. A `join` that has spent the
    # invitation looks for it at its end.
    if invited:
        _change(store, _INVITATIONS, _Invited, lambda rows: [each for each in rows if each.sender != name])
    _revoke_rows(store, lambda each: each.name == name)


def _revoke_rows(store: Store, chosen: Callable[[Sender], bool]) -> None:
    now = time.time()

    def end(senders: list[Sender]) -> list[Sender] | None:
        ended = [chosen(each) and each.revoked is None for each in senders]
        if not any(ended):
            return None
        return [replace(each, revoked=now) if ends else each for each, ends in zip(senders, ended, strict=True)]

    _change(store, _TABLE, Sender, end)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _change(store: Store, name: str, kind: type[_Row], change: Callable[[list[_Row]], list[_Row] | None]) -> None:
    """Replace the rows of a document with the result of `change`; None: leave them. `change` is called again if another
    process was first. Raises: StoreError, OSError, and what `change` raises.
    """

    def again(data: bytes | None) -> bytes | None:
        rows = change(_rows(store, name, kind, data))
        if rows is None:
            return None
        content = [{field: getattr(row, field) for field in row.__slots__} for row in rows]
        return json.dumps({"format": 1, "rows": content}, indent=1).encode() + b"\n"

    update(store.documents, name, again)


def _read_senders(store: Store) -> list[Sender]:
    return _read(store, _TABLE, Sender)


def _read_invitations(store: Store) -> list[_Invited]:
    return _read(store, _INVITATIONS, _Invited)


def _read(store: Store, name: str, kind: type[_Row]) -> list[_Row]:
    try:
        found = store.documents.get(name)
    except StoreUnreadable:  # it names the object, and says whether to try again
        raise
    except OSError as error:
        raise _unreadable(store, name, reason(error)) from None
    return _rows(store, name, kind, found.data if found else None)


def _rows(store: Store, name: str, kind: type[_Row], data: bytes | None) -> list[_Row]:
    if data is None:
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(data)["rows"]
        # A later version may have written more keys.
        return [kind(**{field: row[field] for field in kind.__slots__ if field in row}) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(store, name, reason(error)) from None


def _unreadable(store: Store, name: str, why: str) -> StoreError:
    return StoreError(f"{store.where}/.state/{name}: cannot be read: {why}")
