"""A bucket through boto3, which is imported here alone.

A request that is repeated after a lost answer meets what it has written itself. So each conditional PUT has a mark in
the object's metadata, by which a failed condition is told from one that was met before.
"""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fullsend_receiver.store.races import pause
from fullsend_receiver.store_s3 import faults
from fullsend_receiver.store_s3.bucket import (
    BucketBusy,
    BucketError,
    BucketObject,
    Fetched,
    LockRule,
    ObjectVersion,
    Part,
    UnfinishedUpload,
)

_T = TypeVar("_T")

#: How often a conditional PUT is repeated that has failed while its condition still holds.
_REPEATS: Final = 3
#: The name of the mark in the metadata.
_MARK: Final = "fullsend-write"
#: The codes for a failed condition. Two writers at once get the second one from some stores.
_UNMET: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_ABSENT: Final = frozenset({"NoSuchKey"})
#: The same of an answer to HEAD, which has the status alone. Any other request is answered so by a proxy, not by S3.
_HEAD_ABSENT: Final = frozenset({*_ABSENT, "NotFound", "404"})
#: The codes for a range behind the end.
_NO_RANGE: Final = frozenset({"InvalidRange", "416"})
#: Ceph says of an upload that has ended that there is no such key.
_NO_UPLOAD: Final = frozenset({"NoSuchUpload", "NoSuchKey"})
#: The codes for a list of parts that is not that of the upload.
_OTHER_PARTS: Final = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall", *_NO_UPLOAD})
#: The codes for rights that do not suffice.
_DENIED: Final = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "403"})
#: The codes for a version that cannot be deleted now: Ceph and AWS say that it is forbidden, others that it is locked.
_LOCKED: Final = frozenset({*_DENIED, "InvalidRequest", "ObjectLocked", "MethodNotAllowed"})
#: The codes of stores that do not know a request at all.
_UNKNOWN: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
#: The codes for a bucket, or an object, without a lock.
_NO_LOCK: Final = frozenset(
    {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NoSuchObjectLegalHold"}
    | {"InvalidRequest", "InvalidArgument"}
    | _ABSENT
    | _UNKNOWN
)
#: Seconds of a day, and days of a year, as a default retention counts them.
_DAY: Final = 86400.0
_YEAR: Final = 365
#: The codes for credentials that do not count, or no more. An answer to HEAD has the status alone.
_STALE: Final = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "400",
        "403",
    }
)
#: Keys of one page of a LIST: the most that S3 allows. A page may have fewer.
_PAGE: Final = 1000
#: The request that copies an object into a part.
_COPY: Final = "UploadPartCopy"
#: Seconds without a byte while the object store copies some GiB, of which it may say nothing before it is done. A slow
#: one copies 10 MiB a second.
_COPY_TIMEOUT: Final = 600.0


@dataclass(frozen=True, slots=True)
class Access:
    """How a bucket is reached.

    `endpoint`: URL, None: that of AWS; `region`: None: as the environment says; `authority`: file with the certificates
    of the endpoint's issuers, None: those of the system; `timeout`: seconds without a byte; `attempts`: of each
    request; `connections`: open at the same time; `credentials_file`: as AWS_SHARED_CREDENTIALS_FILE. Without both keys
    and without that file, the environment has the keys.
    """

    endpoint: str | None = None
    region: str | None = None
    authority: str | None = None
    timeout: float = 60.0
    attempts: int = 5
    connections: int = 16
    credentials_file: str | None = None
    access_key: str | None = None
    secret_key: str | None = None


class BotoBucket:
    """A `Bucket` through boto3."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        access: Access | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Makes no request. `prefix`: without slashes around it. Raises: BucketError if boto3 is missing."""
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.where = f"s3://{bucket}/{prefix}".rstrip("/")
        self._access = access or Access()
        self._sleep = sleep
        self._client, self._session, self._errors = _client(self._access, self._access.timeout)
        self._renewing = threading.Lock()
        self._renewals = 0
        self._repeated: set[str] = set()  # uploads whose first request was
        self._copier: Any = None  # the client for copies, once one is made
        self._quotes = False  # whether If-Match wants the ETag in quotes
        self._lock = threading.Lock()

    # --- objects

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str | None:
        """See `Bucket.put`."""
        body = {"Body": data, **_checksum(hashlib.sha256(data))}
        if not if_absent and if_match is None:
            return _etag(self._send("PutObject", key, self._client.put_object, **body))
        return self._put_if(key, body, if_match)

    def _put_if(self, key: str, body: dict[str, Any], if_match: str | None) -> str | None:
        """Store an object on a condition. `if_match`: None: only if the key is free.

        An answer other than success tells little: the object may be stored all the same, and Ceph answers 500 to one of
        two writers at once. So what is there decides. What is repeated is the same request, with the same mark: an
        earlier attempt that a gateway does late is this one, or meets a condition that is false by then.
        """
        mark = secrets.token_hex(16)
        said = {**body, "Metadata": {_MARK: mark}}
        failed: list[BucketBusy] = []
        other_form = False
        while True:
            condition = {"IfNoneMatch": "*"} if if_match is None else {"IfMatch": self._quoted(if_match)}
            is_unmet = True
            try:
                if (answer := self._try_put(key, said | condition)) is not None:
                    return _etag(answer)
            except BucketBusy as error:
                failed.append(error)
                is_unmet = False
            there = self._head_behind(key, failed)
            if there is not None and there.get("Metadata", {}).get(_MARK) == mark:
                return _etag(there)  # this attempt has stored it, or an earlier one
            if (None if there is None else _etag(there)) != if_match:
                return None
            if not is_unmet:
                if len(failed) > _REPEATS:
                    raise failed[0]
                pause(len(failed), self._sleep)
            elif if_match is None or other_form:
                return None
            else:
                # The object is the wanted one: this store wants its ETag in the other form.
                other_form = True
                with self._lock:
                    self._quotes = not self._quotes

    def _head_behind(self, key: str, failed: Sequence[BucketBusy]) -> dict[str, Any] | None:
        """Return what is there behind an attempt to store. `failed`: why attempts have failed; the first reason is a
        better one than that of this request.
        """
        try:
            return self._head(key)
        except BucketError:
            if failed:
                raise failed[0] from None
            raise

    def _try_put(self, key: str, said: dict[str, Any]) -> dict[str, Any] | None:
        absent = _UNMET | (_ABSENT if "IfMatch" in said else frozenset())
        return self._send_unless(absent, "PutObject", key, self._client.put_object, **said)

    def _quoted(self, etag: str) -> str:
        return f'"{etag}"' if self._quotes else etag

    def get(self, key: str) -> Fetched | None:
        """See `Bucket.get`."""
        answer = self._send_unless(_ABSENT, "GetObject", key, self._client.get_object)
        return None if answer is None else Fetched(self._body(key, answer), _etag(answer))

    def read(self, key: str, start: int, size: int) -> bytes:
        """See `Bucket.read`."""
        wanted = f"bytes={start}-{start + size - 1}"
        answer = self._send_unless(_ABSENT | _NO_RANGE, "GetObject", key, self._client.get_object, Range=wanted)
        if answer is not None:
            return self._body(key, answer)
        if self._head(key) is None:
            raise FileNotFoundError(f"{self.where}/{key}")
        return b""

    def _body(self, key: str, answer: dict[str, Any]) -> bytes:
        # The library reads a body outside of its retries.
        try:
            data = answer["Body"].read()
        except (OSError, self._errors.BotoCoreError) as error:
            raise faults.unreachable(f"{self.where}/{key}", "GetObject", str(error)) from None
        assert isinstance(data, bytes)  # noqa: S101 - for mypy
        return data

    def head(self, key: str) -> BucketObject | None:
        """See `Bucket.head`."""
        answer = self._head(key)
        if answer is None:
            return None
        return BucketObject(key, int(answer["ContentLength"]), _etag(answer), answer["LastModified"].timestamp())

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return self._send_unless(_HEAD_ABSENT, "HeadObject", key, self._client.head_object)
        except BucketBusy:
            raise
        except BucketError:
            # An answer to HEAD has no reason. One to GET has: it is the better error.
            answer = self._send_unless(
                _ABSENT | _NO_RANGE, "GetObject", key, self._client.get_object, Range="bytes=0-0"
            )
            if answer is not None:
                answer["Body"].close()
            raise

    def delete(self, key: str) -> bool:
        """See `Bucket.delete`."""
        answer = self._send_unless(_ABSENT, "DeleteObject", key, self._client.delete_object) or {}
        return bool(answer.get("DeleteMarker") or answer.get("VersionId"))

    def entries(self, prefix: str) -> Iterator[BucketObject]:
        """See `Bucket.entries`."""
        for page in self._pages(prefix):
            for each in page.get("Contents", ()):
                key = self._relative(page, each["Key"])
                yield BucketObject(key, int(each["Size"]), _etag(each), each["LastModified"].timestamp())

    def folders(self) -> list[str]:
        """See `Bucket.folders`."""
        found = {
            self._relative(page, each["Prefix"]).rstrip("/")
            for page in self._pages("", Delimiter="/")
            for each in page.get("CommonPrefixes", ())
        }
        return sorted(found)

    def _pages(self, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        said = {"Prefix": self._prefix + prefix, "MaxKeys": _PAGE, "EncodingType": "url", **more}
        token: dict[str, str] = {}
        while True:
            page = self._send("ListObjectsV2", None, self._client.list_objects_v2, **said, **token)
            yield page
            # A page may be short, or empty: only this says that it was the last one.
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _relative(self, page: dict[str, Any], key: str) -> str:
        # A store that does not know the encoding leaves the "%" of our names as it is.
        plain = urllib.parse.unquote_plus(key) if page.get("EncodingType") == "url" else key
        return plain.removeprefix(self._prefix)

    # --- multipart uploads

    def begin_parts(self, key: str) -> str:
        """See `Bucket.begin_parts`."""
        answer = self._send(
            "CreateMultipartUpload", key, self._client.create_multipart_upload, ChecksumAlgorithm="SHA256"
        )
        upload = str(answer["UploadId"])
        if answer["ResponseMetadata"].get("RetryAttempts"):
            self._repeated.add(upload)
        return upload

    def was_repeated(self, upload: str) -> bool:
        """See `Bucket.was_repeated`."""
        known = upload in self._repeated
        self._repeated.discard(upload)
        return known

    def put_part(self, key: str, upload: str, number: int, data: bytes) -> Part | None:
        """See `Bucket.put_part`."""
        digest = hashlib.sha256(data)
        answer = self._send_unless(
            _NO_UPLOAD,
            "UploadPart",
            key,
            self._client.upload_part,
            UploadId=upload,
            PartNumber=number,
            Body=data,
            **_checksum(digest),
        )
        if answer is None:
            return None
        return Part(number, _etag(answer), len(data), digest.hexdigest())

    def copy_part(self, key: str, upload: str, number: int, source: BucketObject) -> Part | None:
        """See `Bucket.copy_part`."""
        answer = self._send_unless(
            _ABSENT | _NO_UPLOAD,
            _COPY,
            key,
            self._client_for(_COPY).upload_part_copy,
            UploadId=upload,
            PartNumber=number,
            CopySource={"Bucket": self._bucket, "Key": self._prefix + source.key},
        )
        if answer is None:
            return None
        said = answer["CopyPartResult"]
        # Where the upload has checksums, the object store has made one, and wants it again when the upload is complete.
        return Part(number, _etag(said), source.size, base64.b64decode(said.get("ChecksumSHA256", "")).hex())

    def parts(self, key: str, upload: str) -> Sequence[Part] | None:
        """See `Bucket.parts`."""
        found: list[Part] = []
        after = 0
        while True:
            page = self._send_unless(
                _NO_UPLOAD, "ListParts", key, self._client.list_parts, UploadId=upload, PartNumberMarker=after
            )
            if page is None:
                return None
            found += [Part(each["PartNumber"], _etag(each), each["Size"]) for each in page.get("Parts", ())]
            if not page.get("IsTruncated"):
                return found
            after = int(page["NextPartNumberMarker"])

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> bool:
        """See `Bucket.complete`."""
        rows = [
            {"PartNumber": each.number, "ETag": each.etag}
            | ({"ChecksumSHA256": base64.b64encode(bytes.fromhex(each.sha256)).decode()} if each.sha256 else {})
            for each in parts
        ]
        answer = self._send_unless(
            _OTHER_PARTS,
            "CompleteMultipartUpload",
            key,
            self._client.complete_multipart_upload,
            UploadId=upload,
            MultipartUpload={"Parts": rows},
        )
        return answer is not None

    def abort(self, key: str, upload: str) -> None:
        """See `Bucket.abort`."""
        self._send_unless(_NO_UPLOAD, "AbortMultipartUpload", key, self._client.abort_multipart_upload, UploadId=upload)

    def unfinished(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """See `Bucket.unfinished`."""
        # Ceph encodes these keys if it is asked to, and does not say so. Ours need no encoding.
        said: dict[str, Any] = {"Prefix": self._prefix + prefix}
        while True:
            page = self._send("ListMultipartUploads", None, self._client.list_multipart_uploads, **said)
            for each in page.get("Uploads", ()):
                yield UnfinishedUpload(
                    self._relative(page, each["Key"]), each["UploadId"], each["Initiated"].timestamp()
                )
            if not page.get("IsTruncated"):
                return
            said |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    # --- versions and locks

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """See `Bucket.versions`."""
        said: dict[str, Any] = {"Prefix": self._prefix + prefix, "MaxKeys": _PAGE}
        while True:
            page = self._send("ListObjectVersions", None, self._client.list_object_versions, **said)
            # The client tells versions from markers, and so loses their common order.
            found = [self._version(page, each, is_marker=False) for each in page.get("Versions", ())]
            found += [self._version(page, each, is_marker=True) for each in page.get("DeleteMarkers", ())]
            yield from sorted(found, key=lambda each: (each.key.encode(), not each.is_latest, -each.modified))
            if not page.get("IsTruncated"):
                return
            said |= {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def _version(self, page: dict[str, Any], row: dict[str, Any], *, is_marker: bool) -> ObjectVersion:
        return ObjectVersion(
            self._relative(page, row["Key"]),
            str(row["VersionId"]),
            int(row.get("Size", 0)),
            row["LastModified"].timestamp(),
            is_latest=bool(row["IsLatest"]),
            is_marker=is_marker,
        )

    def delete_version(self, key: str, version: str) -> bool:
        """See `Bucket.delete_version`."""
        said = {"VersionId": version}
        answer = self._send_unless(_LOCKED, "DeleteObjectVersion", key, self._client.delete_object, **said)
        return answer is not None

    def versioning(self) -> str:
        """See `Bucket.versioning`."""
        answer = self._send_unless(_UNKNOWN, "GetBucketVersioning", None, self._client.get_bucket_versioning)
        return str((answer or {}).get("Status", ""))

    def object_lock(self) -> LockRule | None:
        """See `Bucket.object_lock`."""
        action = "GetObjectLockConfiguration"
        answer, code = self._ask(_NO_LOCK | _DENIED, action, None, self._client.get_object_lock_configuration)
        if answer is None:
            return LockRule(readable=False) if code in _DENIED else None
        found = answer.get("ObjectLockConfiguration", {})
        if found.get("ObjectLockEnabled") != "Enabled":
            return None
        default = found.get("Rule", {}).get("DefaultRetention", {})
        days = default.get("Days", 0) + default.get("Years", 0) * _YEAR
        return LockRule(str(default.get("Mode", "")), days * _DAY)

    def locked_until(self, key: str) -> float | None:
        """See `Bucket.locked_until`."""
        head = self._head(key)
        if head is None:
            return None
        # An answer without these may mean that the rights do not suffice to see them: a question for each tells.
        hold = head.get("ObjectLockLegalHoldStatus")
        if hold is None:
            said = self._send_unless(_NO_LOCK, "GetObjectLegalHold", key, self._client.get_object_legal_hold)
            hold = (said or {}).get("LegalHold", {}).get("Status")
        if hold == "ON":
            return math.inf
        until = head.get("ObjectLockRetainUntilDate")
        if until is None:
            said = self._send_unless(_NO_LOCK, "GetObjectRetention", key, self._client.get_object_retention)
            until = (said or {}).get("Retention", {}).get("RetainUntilDate")
        return None if until is None or until.timestamp() <= time.time() else float(until.timestamp())

    # --- what only the probe asks

    def put_wrong(self, key: str, data: bytes) -> bool:
        """Store an object under the checksum of other bytes. Returns: whether the object store has accepted that."""
        wrong = base64.b64encode(hashlib.sha256(data + b"!").digest()).decode()
        codes = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
        codes |= {"InvalidRequest", "ChecksumMismatch"}
        said = {"Body": data, "ChecksumSHA256": wrong}
        return self._send_unless(codes, "PutObject", key, self._client.put_object, **said) is not None

    def date(self) -> str:
        """Return the object store's date and time, as HTTP says it; "" if it does not."""
        answer = self._send("ListObjectsV2", None, self._client.list_objects_v2, MaxKeys=1)
        return str(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))

    # --- requests

    def _send(self, action: str, key: str | None, call: Callable[..., _T], **said: object) -> _T:
        answer = self._send_unless(frozenset(), action, key, call, **said)
        assert answer is not None  # noqa: S101 - for mypy: no code is passed over
        return answer

    def _send_unless(
        self, passed: frozenset[str] | set[str], action: str, key: str | None, call: Callable[..., _T], **said: object
    ) -> _T | None:
        """Send a request. Returns: the answer; None if it is one of the codes `passed`. Raises: BucketError."""
        return self._ask(passed, action, key, call, **said)[0]

    def _ask(
        self, passed: frozenset[str] | set[str], action: str, key: str | None, call: Callable[..., _T], **said: object
    ) -> tuple[_T | None, str]:
        """Send a request. Returns: the answer; or None, and which of the codes `passed` it is. Raises: BucketError."""
        where = self.where if key is None else f"{self.where}/{key}"
        if key is not None:
            said["Key"] = self._prefix + key
        renewals = self._renewals
        try:
            try:
                return call(Bucket=self._bucket, **said), ""
            except self._errors.ClientError as error:
                code = str(error.response.get("Error", {}).get("Code", ""))
                if code in passed or code not in _STALE or not self._renew(renewals):
                    raise
            again: Callable[..., _T] = getattr(self._client_for(action), call.__name__)
            return again(Bucket=self._bucket, **said), ""
        except self._errors.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in passed:
                return None, code
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            raise faults.refused(where, action, status, code) from None
        except (self._errors.NoCredentialsError, self._errors.PartialCredentialsError):
            raise faults.no_credentials(where) from None
        except self._errors.BotoCoreError as error:
            raise faults.unreachable(where, action, str(error)) from None

    def _client_for(self, action: str) -> Any:  # noqa: ANN401 - boto3 makes the type of a client as it runs
        """Return the client for a request. The one for copies waits longer, and is made for the first of them."""
        if action != _COPY:
            return self._client
        with self._lock:
            if self._copier is None:
                self._copier, _session, _errors = _client(self._access, max(_COPY_TIMEOUT, self._access.timeout))
            return self._copier

    def _renew(self, refused: int) -> bool:
        """Look for other credentials than those that were refused: a person may have renewed their file. `refused`: how
        often that had happened when they were used. Returns: whether there are any.
        """
        if self._access.access_key is not None:
            return False
        with self._renewing:
            if self._renewals != refused:
                return True  # another thread was first
            client, session, _errors = _client(self._access, self._access.timeout)
            found = [each.get_credentials() for each in (session, self._session)]
            keys = [None if each is None else each.get_frozen_credentials() for each in found]
            if keys[0] == keys[1]:
                return False
            self._client, self._session = client, session
            with self._lock:
                self._copier = None  # it has the refused ones
            self._renewals += 1
            return True


def _client(access: Access, read_timeout: float) -> tuple[Any, Any, Any]:
    """Return a client of boto3, its session, and the module of its errors. `read_timeout`: seconds without a byte of an
    answer.
    """
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
        import botocore.handlers
        import botocore.session
    except ImportError:
        raise faults.no_library() from None
    config = botocore.config.Config(
        connect_timeout=access.timeout,
        read_timeout=read_timeout,
        tcp_keepalive=True,  # a gateway that is dead shows before `read_timeout`
        retries={"mode": "standard", "total_max_attempts": access.attempts},
        max_pool_connections=access.connections,
        # The library would add a CRC-32, which some stores refuse. We send one SHA-256, as both headers: of two stores
        # that were tried, each ignores the other one.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if access.endpoint else "auto", "payload_signing_enabled": True},
    )
    try:
        session = botocore.session.Session()
        if access.credentials_file is not None:
            session.set_config_variable("credentials_file", access.credentials_file)
        client = boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=access.endpoint,
            region_name=access.region,
            verify=access.authority,
            aws_access_key_id=access.access_key,
            aws_secret_access_key=access.secret_key,
            config=config,
        )
        # Our keys need no encoding. With it, nothing tells whether a store has also encoded where its next page begins.
        client.meta.events.unregister(
            "before-parameter-build.s3.ListObjectVersions", botocore.handlers.set_list_objects_encoding_type_url
        )
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise BucketError(f"no client for {access.endpoint or 'AWS'}: {str(error).splitlines()[0]}") from None
    return client, session, botocore.exceptions


def _checksum(digest: hashlib._Hash) -> dict[str, str]:
    return {"ChecksumSHA256": base64.b64encode(digest.digest()).decode()}


def _etag(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')
