"""What the errors of an object store mean, in one line for a person: the place, what went wrong, what to do."""

from __future__ import annotations

import contextlib
import errno
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fullsend_protocol.shared.units import printable
from fullsend_receiver.store_s3.bucket import BucketBusy, BucketError, BucketFull, BucketUnusable

#: The client library, as in pyproject.toml.
LIBRARY: Final = "boto3>=1.36"

#: What to do about an error, by the code that the object store answers with.
_BY_CODE: Final = {
    "AccessDenied": "the credentials may not do this: give them the rights to the bucket",
    "AuthorizationHeaderMalformed": "the region is wrong: name the bucket's",
    "ExpiredToken": "the credentials have expired: renew them",
    "IllegalLocationConstraintException": "the region is wrong: name the bucket's",
    "InvalidAccessKeyId": "the object store does not know the access key: see the credentials",
    "NoSuchBucket": "the bucket does not exist: create it, or correct its name",
    "PermanentRedirect": "the bucket is at another endpoint, or in another region: name that",
    "QuotaExceeded": "the bucket is full: raise its quota",
    "RequestExpired": "the clocks differ too much: set this host's clock",
    "RequestTimeTooSkewed": "the clocks differ too much: set this host's clock",
    "ServiceUnavailable": "the object store is overloaded or down: try again later",
    "SignatureDoesNotMatch": "the secret key is wrong: see the credentials",
    "SlowDown": "the object store is overloaded: try again later",
    "XAmzContentSHA256Mismatch": "the bytes were changed on the way: see this host's network and memory",
    "BadDigest": "the bytes were changed on the way: see this host's network and memory",
}
#: The same by the HTTP status, where the code is unknown, as in answers without a body.
_BY_STATUS: Final = {
    301: _BY_CODE["PermanentRedirect"],
    403: "the credentials are refused: see them, their rights, and this host's clock",
    429: _BY_CODE["SlowDown"],
    500: "the object store fails: see its log",
    503: _BY_CODE["ServiceUnavailable"],
    507: "the object store is full: give it room",
}
#: What may have passed at the next try, by HTTP status and by the code of S3 (error responses of the S3 API).
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES: Final = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
#: What stands in place of a code where an answer of 404 has none: S3 names one, a proxy whose gateway is away does not.
_NOT_FOUND: Final = 404
_NAMELESS: Final = frozenset({"", "404", "NotFound"})
#: What says that there is no room: Ceph's code of a quota, and the status of full disks (MinIO's, for example).
_FULL_STATUS: Final = 507
_FULL_CODES: Final = frozenset({"QuotaExceeded"})


def refused(where: str, action: str, status: int, code: str) -> BucketError:
    """Return the error for an answer of an object store. `where`: the object; `action`: such as "PutObject"; `status`:
    of HTTP; `code`: of S3.
    """
    nameless = status == _NOT_FOUND and code in _NAMELESS
    advice = _BY_CODE.get(code) or _BY_STATUS.get(status) or "see the log of the object store"
    if nameless:
        advice = "this is not the object store: see the endpoint, and the proxy before it"
    kind = BucketError
    if status == _FULL_STATUS or code in _FULL_CODES:
        kind = BucketFull
    elif nameless or status in _PASSING or code in _PASSING_CODES:
        kind = BucketBusy
    return kind(f"{printable(where)}: {action} is refused ({status} {printable(code)}): {advice}")


def unreachable(where: str, action: str, why: str) -> BucketError:
    """Return the error for a request without an answer. `why`: the reason, of one line or several."""
    line = printable(why.splitlines()[0]) if why else "no reason is known"
    return BucketBusy(f"{printable(where)}: {action} has no answer ({line}): see the endpoint and the network")


def no_credentials(where: str) -> BucketError:
    """Return the error for a host that has no credentials."""
    return BucketError(
        f"{printable(where)}: no credentials are found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
        " AWS_SHARED_CREDENTIALS_FILE"
    )


def no_library() -> BucketError:
    """Return the error for an installation without the client library. That of the Debian package cannot be changed."""
    pip = Path(sys.prefix, "bin", "pip")
    if pip.exists():
        advice = f"install it with `{shlex.quote(str(pip))} install '{LIBRARY}'`"
    else:
        advice = "this installation has no pip: install fullsend with it in a virtual environment (docs/install.md)"
    return BucketError(f"a store in a bucket needs boto3: {advice}")


@contextlib.contextmanager
def as_disk_errors() -> Iterator[None]:
    """For what the interface of a store lets fail as on a disk: callers continue without it. Raises: BucketUnusable in
    place of BucketError.
    """
    try:
        yield
    except BucketError as error:
        raised = BucketUnusable(str(error))
        raised.code = error.code
        if isinstance(error, BucketFull):
            raised.errno = errno.EDQUOT  # as a full disk
        raise raised from None
