"""The receiver's key and certificate, and its TLS settings."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from fullsend_protocol.shared.errors import UsageError, reason
from fullsend_protocol.wire.certificate import OPENSSL_CONFIG, openssl_arguments
from fullsend_protocol.wire.certificate import fingerprint as der_fingerprint
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.durable import replace_file
from fullsend_receiver.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h); the ssl module has no name for it. A storage host whose clock
#: starts in 1970 must still accept its senders' certificates: the table decides, not a date.
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
_OPENSSL_SECONDS: Final = 60


def key_file(store: Store) -> Path:
    """Return the file of the receiver's private key (PEM)."""
    return store.home / "key.pem"


def certificate_file(store: Store) -> Path:
    """Return the file of the receiver's certificate (PEM)."""
    return store.home / "certificate.pem"


def make_identity(store: Store) -> None:
    """Make the store's key and certificate. Raises: UsageError if `openssl` is missing or fails."""
    with TemporaryDirectory(dir=store.home) as folder:  # so that the key is never in another place
        config, key, certificate = (Path(folder, name) for name in ("config", "key", "certificate"))
        config.write_text(OPENSSL_CONFIG, encoding="ascii")
        command = openssl_arguments(str(config), str(key), str(certificate))
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_OPENSSL_SECONDS)
        except FileNotFoundError:
            msg = "the program `openssl` is not installed: it is needed once, to make a key and certificate"
            raise UsageError(msg) from None
        except subprocess.TimeoutExpired:
            msg = f"`openssl req` has not made a key within {_OPENSSL_SECONDS} seconds"
            raise UsageError(msg) from None
        if done.returncode:
            msg = f"`openssl req` failed: {done.stderr.strip().splitlines()[-1:]}"
            raise UsageError(msg)
        replace_file(key_file(store), key.read_bytes(), 0o600)
        replace_file(certificate_file(store), certificate.read_bytes(), 0o644)


def fingerprint(store: Store) -> str:
    """Return the fingerprint of the store's certificate, which senders pin."""
    try:
        return der_fingerprint(ssl.PEM_cert_to_DER_cert(certificate_file(store).read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        msg = f"{certificate_file(store)}: cannot be read: {reason(error)}"
        raise StoreError(msg) from None


def server_context(store: Store, certificates: list[str]) -> ssl.SSLContext:
    """Return the TLS context for the senders whose certificates (PEM) are given.

    A peer may show no certificate (to join, or to ask `known?`). A certificate that it shows must be one of these, or
    signed by one. The session looks its fingerprint up afterwards, because an enrolled CA could sign others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    # PARTIAL_CHAIN: a certificate in the list is trusted, whatever others there are. Without it OpenSSL looks for an
    # issuer by name first, and takes one sender's certificate for the forged issuer of another's.
    context.verify_flags |= _NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.num_tickets = 0  # no resumption: every connection is judged by the present table
    try:
        context.load_cert_chain(certificate_file(store), key_file(store))
    except (OSError, ssl.SSLError) as error:
        msg = f"{store.home}: key and certificate cannot be used: {reason(error)}"
        raise StoreError(msg) from None
    if certificates:
        context.load_verify_locations(cadata="\n".join(certificates))
    return context


def is_certificate(pem: str) -> bool:
    """Whether a text is exactly one certificate that OpenSSL can read."""
    try:
        der = ssl.PEM_cert_to_DER_cert(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(cadata=der)
    except (ValueError, ssl.SSLError):
        return False
    return ssl.DER_cert_to_PEM_cert(der).split() == pem.split()


def become_owner(store: Store) -> None:
    """If root runs this process, become the store's owner, so that no file in the store becomes root's.

    The owner is that of `home`: `init` made it, but a folder around it may have existed before.
    """
    if os.geteuid() != 0:
        return
    owner = store.home.stat()
    if owner.st_uid == 0:
        return
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
    os.umask(0o077)


def check_same_owner(store: Store, other: Store) -> None:
    """Check that two stores belong to one user: what a process makes in one must be of use in the other. Raises:
    UsageError if not; OSError.
    """
    if store.home.stat().st_uid != other.home.stat().st_uid:
        msg = f"{other.where}: belongs to another user than {store.where}: give both to one user (`init --user`)"
        raise UsageError(msg)


@contextlib.contextmanager
def acting_as_owner(store: Store) -> Iterator[None]:
    """If root runs this process, act as the store's owner inside, and as root again afterwards.

    For a command that writes outside the store with root's rights. Everything that it imports must be imported before.
    """
    owner = store.home.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    mask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(mask)
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
