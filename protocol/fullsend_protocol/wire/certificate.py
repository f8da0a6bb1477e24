"""An identity: the SHA-256 of a self-signed certificate; and the `openssl` command that makes one.

Subject, issuer and chain mean nothing, and neither do dates: the sender table and the pin decide. So the
certificate is CA:FALSE and valid to the end of 9999-12-31, the day that RFC 5280 (4.1.2.5) gives to certificates
without a well-defined end.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from typing import Final

#: For `openssl req -config`, instead of the system's own openssl.cnf, which may add CA:TRUE.
OPENSSL_CONFIG: Final = """\
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = fullsend
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
"""

_LAST_DAY: Final = date(9999, 12, 31)


def openssl_arguments(config: str, key: str, certificate: str, today: date | None = None) -> list[str]:
    """Return the command that makes a key (P-256) and its certificate.

    `config`, `key`, `certificate`: paths; the first must have OPENSSL_CONFIG, the others are written.
    """
    # -not_after would set the date directly, but OpenSSL 3.0 does not have it.
    days = (_LAST_DAY - (today or datetime.now(UTC).date())).days
    return [
        *("openssl", "req", "-x509", "-new", "-nodes", "-sha256", "-batch", "-config", config),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", key, "-out", certificate),
        *("-days", str(days)),
    ]


def fingerprint(der: bytes) -> str:
    """Return a certificate's fingerprint: the SHA-256 of its DER, 64 hex digits."""
    return hashlib.sha256(der).hexdigest()
