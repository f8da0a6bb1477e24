"""The identity of this host: a private key and a self-signed certificate, in two files beside the configuration.

A receiver identifies a sender by the SHA-256 of its certificate (DER). It uses nothing else in the certificate.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass

from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_protocol.wire.certificate import OPENSSL_CONFIG, fingerprint, openssl_arguments
from fullsend_sender.host import durable


@dataclass(frozen=True, slots=True)
class Identity:
    """The paths of the key and of the certificate (both PEM)."""

    key: str
    certificate: str

    @classmethod
    def beside(cls, config: str) -> Identity:
        """Return the identity for a configuration file. Reads nothing."""
        folder = os.path.dirname(os.path.abspath(config))
        return cls(os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem"))

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give both to TLS. Raises: UsageError, naming the file that is missing, unreadable or does not match."""
        for path in (self.key, self.certificate):
            _read(path)
        try:
            # Without a password callback OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.key} and {self.certificate} are not a usable pair: {error}") from None

    def pem(self) -> str:
        """Return the certificate as PEM. Raises: UsageError."""
        return _read(self.certificate)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the certificate's DER, in hex. Raises: UsageError."""
        try:
            der = ssl.PEM_cert_to_DER_cert(self.pem())
        except ValueError:
            raise UsageError(f"{self.certificate} is not a certificate in PEM") from None
        return fingerprint(der)

    def ensure(self) -> None:
        """Make key and certificate, if they do not exist; durable, and only the owner can read the key.

        Raises: UsageError (one of the two is missing, or the folder cannot be written), FullsendError (openssl is
        missing or fails). No incomplete pair stays behind.
        """
        if os.path.exists(self.key):
            if not os.path.exists(self.certificate):
                raise UsageError(
                    f"{self.key} exists, {self.certificate} does not: put it back, or move the key away to start over"
                )
            self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            return
        folder = os.path.dirname(self.key)
        try:
            os.makedirs(folder, exist_ok=True)
            workshop = tempfile.mkdtemp(prefix=".key-", dir=folder)  # mode 0700: no other user sees the new key
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
        try:
            key, certificate = os.path.join(workshop, "key.pem"), os.path.join(workshop, "cert.pem")
            _make(workshop, key, certificate)
            for path in (certificate, key):
                durable.sync(path)
            # The key last: a certificate alone is replaced without a question, a key alone is not.
            os.rename(certificate, self.certificate)
            os.rename(key, self.key)
            durable.sync(folder)
        except OSError as error:
            raise UsageError(f"cannot write {self.key}: {error.strerror}") from None
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _make(workshop: str, key: str, certificate: str) -> None:
    """Make the pair with `openssl` (3.0 or newer). Raises: FullsendError."""
    config = os.path.join(workshop, "openssl.cnf")
    with open(config, "w", encoding="ascii") as file:
        file.write(OPENSSL_CONFIG)
    command = openssl_arguments(config, key, certificate)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "OPENSSL_CONF": config},  # openssl reads the system's at its start, even with -config
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise FullsendError("the program `openssl` is needed to make a key: install it, then run this again") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise FullsendError(f"openssl could not make a key (exit {done.returncode}): {lines[-1]}")
    with contextlib.suppress(OSError):
        os.chmod(certificate, 0o644)
    os.chmod(key, 0o600)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: make it with `fullsend join INVITATION`") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
