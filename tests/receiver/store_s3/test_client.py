"""The client against a server that says what a test wants; against a real Ceph it is tested in test_bucket.py."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from fullsend_receiver.store_s3.bucket import BucketBusy, BucketError, BucketObject, Part
from fullsend_receiver.store_s3.client import Access, BotoBucket

#: What a server answers: status, headers, body.
Answer = tuple[int, dict[str, str], bytes]
OK: Final[Answer] = (200, {"ETag": '"e1"'}, b"")


def refusal(status: int, code: str) -> Answer:
    return status, {}, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


class Server:
    """Answers each request with the next of `answers`, and keeps the requests: method, path, headers, body."""

    def __init__(self) -> None:
        self.answers: list[Answer | Callable[[dict[str, str]], Answer]] = []
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.waited: list[float] = []  # what the client has slept, in seconds
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                outer.seen.append((self.command, self.path, headers, body))
                answer = outer.answers.pop(0)
                status, more, data = answer(headers) if callable(answer) else answer
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                if "Content-Length" not in more:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 - names of the library

            def log_message(self, format: str, *args: Any) -> None:  # type: ignore[explicit-override]  # noqa: A002
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def bucket(self, **access: Any) -> BotoBucket:
        endpoint = f"http://127.0.0.1:{self.http.server_port}"
        said: dict[str, Any] = {"attempts": 1, "access_key": "k", "secret_key": "s"} | access
        return BotoBucket("b", "pre/fix", Access(endpoint, "us-east-1", **said), sleep=self.waited.append)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def head(mark: str, etag: str = "e1") -> Answer:
    modified = {"Last-Modified": "Sat, 28 Nov 2026 16:00:00 GMT", "x-amz-meta-fullsend-write": mark}
    return 200, {"ETag": f'"{etag}"', "Content-Length": "3", **modified}, b""


def page(*keys: str, more: str = "") -> Answer:
    rows = "".join(
        f"<Contents><Key>{key}</Key><Size>3</Size><ETag>e</ETag><LastModified>2026-11-28T16:00:00Z</LastModified></Contents>"
        for key in keys
    )
    rest = (
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated><NextContinuationToken>{more}</NextContinuationToken>"
    )
    encoding = "<EncodingType>url</EncodingType>"
    return 200, {}, f"<ListBucketResult>{encoding}{rows}{rest}</ListBucketResult>".encode()


def test_hash_of_what_is_put_is_sent_as_both_headers(server: Server) -> None:
    server.answers = [OK]
    assert server.bucket().put("key", b"data") == "e1"
    ((method, path, headers, body),) = server.seen
    assert (method, path, body) == ("PUT", "/b/pre/fix/key", b"data")
    digest = hashlib.sha256(b"data")
    assert headers["x-amz-checksum-sha256"] == base64.b64encode(digest.digest()).decode()
    assert headers["x-amz-content-sha256"] == digest.hexdigest()
    assert "x-amz-checksum-crc32" not in headers


def test_condition_that_is_not_met_is_no_error(server: Server) -> None:
    server.answers = [refusal(412, "PreconditionFailed"), head("of another process")]
    assert server.bucket().put("key", b"data", if_absent=True) is None
    assert server.seen[0][2]["if-none-match"] == "*"


def test_what_an_earlier_attempt_has_stored_meets_the_condition(server: Server) -> None:
    """The answer to the first attempt is lost; the second one meets its object."""
    server.answers = [
        refusal(500, "InternalError"),
        refusal(412, "PreconditionFailed"),
        lambda _headers: head(server.seen[0][2]["x-amz-meta-fullsend-write"]),
    ]
    assert server.bucket(attempts=2).put("key", b"data", if_absent=True) == "e1"
    assert len(server.seen) == 3


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("condition", [{"if_match": "e0"}, {"if_absent": True}])
def test_failure_of_a_conditional_put_is_settled_by_what_is_there(
    server: Server, condition: dict[str, Any], own: bool
) -> None:
    """Ceph answers 500 to one of two writers at once."""
    server.answers = [
        refusal(500, "InternalError"),
        lambda _headers: head(server.seen[0][2]["x-amz-meta-fullsend-write"] if own else "of another", "e2"),
    ]
    assert server.bucket().put("key", b"data", **condition) == ("e2" if own else None)
    assert (server.answers, server.waited) == ([], [])


@pytest.mark.parametrize("condition", [{"if_match": "e0"}, {"if_absent": True}])
def test_conditional_put_that_has_failed_is_repeated_as_it_was_while_its_condition_holds(
    server: Server, condition: dict[str, Any]
) -> None:
    as_before = head("of another", "e0") if "if_match" in condition else refusal(404, "NoSuchKey")
    failure = refusal(500, "InternalError")
    server.answers = [failure, as_before, failure, as_before, OK]
    assert server.bucket().put("key", b"data", **condition) == "e1"
    puts = [(headers, body) for method, _path, headers, body in server.seen if method == "PUT"]
    assert len(puts) == 3
    assert len({(headers["x-amz-meta-fullsend-write"], headers.get("if-match"), body) for headers, body in puts}) == 1
    assert len(server.waited) == 2


def test_conditional_put_that_fails_again_and_again_is_the_first_error(server: Server) -> None:
    unchanged = head("of another", "e0")
    first = [refusal(503, "SlowDown"), unchanged]
    server.answers = [*first, *[refusal(500, "InternalError"), unchanged] * 3]
    with pytest.raises(BucketBusy, match="503 SlowDown"):
        server.bucket().put("key", b"data", if_match="e0")
    assert (server.answers, len(server.waited)) == ([], 3)


def test_conditional_put_whose_outcome_cannot_be_seen_is_the_first_error(server: Server) -> None:
    server.answers = [refusal(503, "SlowDown"), (500, {}, b"")]
    with pytest.raises(BucketBusy, match=r"PutObject is refused \(503 SlowDown\)"):
        server.bucket().put("key", b"data", if_absent=True)


@pytest.mark.parametrize("quotes", [False, True])
def test_etag_is_sent_in_the_form_that_the_store_wants(server: Server, quotes: bool) -> None:
    def swap(headers: dict[str, str]) -> Answer:
        return OK if headers["if-match"] == ('"e0"' if quotes else "e0") else refusal(412, "PreconditionFailed")

    learning: list[Answer | Callable[[dict[str, str]], Answer]] = [head("of another", "e0"), swap]
    server.answers = [swap, *(learning if quotes else []), swap]
    bucket = server.bucket()
    assert bucket.put("key", b"one", if_match="e0") == "e1"
    assert bucket.put("key", b"two", if_match="e0") == "e1"  # it knows by now
    assert server.answers == []


def test_404_of_a_proxy_says_nothing_of_an_object(server: Server) -> None:
    """As Traefik answers while its gateway restarts. S3 names a code, but for HEAD."""
    absent: Answer = (404, {}, b"404 page not found\n")
    calls: list[Callable[[BotoBucket], object]] = [
        lambda bucket: bucket.get("key"),
        lambda bucket: bucket.read("key", 0, 1),
        lambda bucket: bucket.delete("key"),
        lambda bucket: bucket.put("key", b"data"),
        lambda bucket: bucket.put_part("key", "u", 1, b"data"),
        lambda bucket: bucket.copy_part("key", "u", 1, BucketObject("k", 3, "e1", 0.0)),
        lambda bucket: bucket.parts("key", "u"),
        lambda bucket: bucket.object_lock(),
    ]
    for call in calls:
        server.answers = [absent]
        with pytest.raises(BucketBusy, match="this is not the object store"):
            call(server.bucket())
    server.answers = [absent, refusal(404, "NoSuchKey"), refusal(404, "NoSuchKey")]
    assert server.bucket().head("key") is None
    assert server.bucket().get("key") is None
    assert server.bucket().delete("key") is False


def test_list_goes_on_behind_a_short_page_and_an_empty_one(server: Server) -> None:
    server.answers = [page("pre/fix/a%2520b", more="t1"), page(more="t2"), page("pre/fix/c")]
    assert [each.key for each in server.bucket().entries("")] == ["a%20b", "c"]
    assert "continuation-token=t2" in server.seen[2][1]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            refusal(503, "SlowDown"),
            "s3://b/pre/fix/key: PutObject is refused (503 SlowDown): the object store is overloaded",
        ),
        (
            refusal(400, "ExpiredToken"),
            "s3://b/pre/fix/key: PutObject is refused (400 ExpiredToken): the credentials have",
        ),
        (refusal(403, "RequestTimeTooSkewed"), "the clocks differ too much: set this host's clock"),
        (refusal(400, "AuthorizationHeaderMalformed"), "the region is wrong"),
        (refusal(404, "NoSuchBucket"), "the bucket does not exist"),
    ],
)
def test_refusal_is_one_line(server: Server, answer: Answer, line: str) -> None:
    server.answers = [answer]
    with pytest.raises(BucketError) as error:
        server.bucket().put("key", b"data")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_head_that_is_refused_is_told_the_reason(server: Server) -> None:
    server.answers = [(403, {}, b""), refusal(403, "RequestTimeTooSkewed")]
    with pytest.raises(BucketError, match="the clocks differ too much"):
        server.bucket().head("key")
    server.answers = [(403, {}, b""), OK]  # it was refused for a moment only
    with pytest.raises(BucketError, match="the credentials are refused"):
        server.bucket().head("key")


def test_request_is_repeated_while_the_store_is_overloaded(server: Server) -> None:
    server.answers = [refusal(503, "SlowDown"), OK]
    assert server.bucket(attempts=2).put("key", b"data") == "e1"


def write_keys(file: Path, key: str) -> None:
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n", encoding="ascii")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with credentials, which are the only ones."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    write_keys(file, "first")
    return file


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_credentials_that_are_refused_are_read_again(server: Server, keys: Path, code: str) -> None:
    """A person has renewed the file: nothing has to be restarted."""
    bucket = server.bucket(credentials_file=str(keys), access_key=None, secret_key=None)
    server.answers = [OK, refusal(403, code), OK, OK]
    bucket.put("key", b"data")
    write_keys(keys, "other")
    assert bucket.put("key", b"data") == "e1"
    assert bucket.put("key", b"data") == "e1"
    used = [
        headers["authorization"].partition("Credential=")[2].partition("/")[0] for _m, _p, headers, _b in server.seen
    ]
    assert used == ["first", "first", "other", "other"]


def test_copies_use_renewed_credentials_too(server: Server, keys: Path) -> None:
    """A copy has a client of its own. It waits as long as before."""
    bucket = server.bucket(credentials_file=str(keys), access_key=None, secret_key=None)
    copied: Answer = (200, {}, b"<CopyPartResult><ETag>&quot;e2&quot;</ETag></CopyPartResult>")
    refused = refusal(403, "InvalidAccessKeyId")
    server.answers = [copied, refused, copied, copied, refused, OK, copied]
    source = BucketObject("k", 3, "e1", 0.0)
    assert bucket.copy_part("key", "u", 2, source)
    write_keys(keys, "second")
    assert bucket.copy_part("key", "u", 2, source)
    assert bucket.copy_part("key", "u", 2, source)
    write_keys(keys, "third")
    bucket.put("key", b"data")  # another request finds that they are refused
    assert bucket.copy_part("key", "u", 2, source)
    used = [
        headers["authorization"].partition("Credential=")[2].partition("/")[0] for _m, _p, headers, _b in server.seen
    ]
    assert used == ["first", "first", "second", "second", "second", "third", "third"]
    assert bucket._copier.meta.config.read_timeout == 600.0


def test_credentials_that_are_refused_and_the_same_are_an_error(server: Server, keys: Path) -> None:
    bucket = server.bucket(credentials_file=str(keys), access_key=None, secret_key=None)
    server.answers = [refusal(403, "InvalidAccessKeyId")]
    with pytest.raises(BucketError, match="does not know the access key"):
        bucket.put("key", b"data")


def test_upload_whose_first_request_was_repeated_is_known(server: Server) -> None:
    """The answer to the first attempt was lost, or it was a failure after all was done."""
    made = b"<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>"
    server.answers = [refusal(500, "InternalError"), (200, {}, made % b"two"), (200, {}, made % b"three")]
    bucket = server.bucket(attempts=2)
    assert bucket.was_repeated(bucket.begin_parts("key"))
    assert not bucket.was_repeated(bucket.begin_parts("key"))


def test_body_that_breaks_off_is_an_error(server: Server) -> None:
    server.answers = [(200, {"ETag": '"e1"', "Content-Length": "10", "Connection": "close"}, b"short")]
    with pytest.raises(BucketError, match="GetObject has no answer"):
        server.bucket().get("key")


def test_endpoint_that_nobody_answers_at_is_one_line() -> None:
    bucket = BotoBucket("b", "", Access("http://127.0.0.1:1", "us-east-1", attempts=1, access_key="k", secret_key="s"))
    with pytest.raises(BucketError, match="see the endpoint and the network"):
        bucket.get("key")


def test_parts_that_the_store_refuses_are_not_complete(server: Server) -> None:
    server.answers = [refusal(400, "InvalidPart"), refusal(404, "NoSuchUpload")]
    bucket = server.bucket()
    assert not bucket.complete("key", "u", [Part(1, "e", 3, "00" * 32)])
    assert bucket.parts("key", "u") is None
    assert b"<ChecksumSHA256>AAAA" in server.seen[0][3]


def test_copy_is_told_with_the_checksum_that_the_store_has_made(server: Server) -> None:
    digest = hashlib.sha256(b"abc")
    checksum = f"<ChecksumSHA256>{base64.b64encode(digest.digest()).decode()}</ChecksumSHA256>"
    said = "<CopyPartResult><ETag>&quot;e2&quot;</ETag>{}</CopyPartResult>"
    server.answers = [(200, {}, said.format(each).encode()) for each in (checksum, "")]
    bucket, source = server.bucket(), BucketObject(".partial/k/g/segment-00000002", 3, "e1", 0.0)
    assert bucket.copy_part("key%20", "u", 2, source) == Part(2, "e2", 3, digest.hexdigest())
    assert bucket.copy_part("key%20", "u", 2, source) == Part(2, "e2", 3)
    method, path, headers, body = server.seen[0]
    assert (method, path, body) == ("PUT", "/b/pre/fix/key%2520?uploadId=u&partNumber=2", b"")
    assert headers["x-amz-copy-source"] == "b/pre/fix/.partial/k/g/segment-00000002"
    waits = [each.meta.config.read_timeout for each in (bucket._client, bucket._copier)]
    assert waits == [Access().timeout, 600.0]  # a copy of some GiB may say nothing for minutes


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchUpload"])
def test_part_of_an_upload_that_is_not_there_is_none(server: Server, code: str) -> None:
    server.answers = [refusal(404, code)]
    assert server.bucket().put_part("key", "u", 2, b"data") is None


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchUpload"])
def test_copy_of_what_is_not_there_is_none(server: Server, code: str) -> None:
    server.answers = [refusal(404, code)]
    assert server.bucket().copy_part("key", "u", 2, BucketObject("k", 3, "e1", 0.0)) is None


@pytest.mark.parametrize("code", ["NoSuchObjectLockConfiguration", "NoSuchObjectLegalHold", "InvalidRequest"])
def test_object_without_a_lock_is_not_locked(server: Server, code: str) -> None:
    """Object stores name that differently: AWS, SeaweedFS, and a bucket without Object Lock."""
    server.answers = [head(""), refusal(404, code), refusal(404, code)]
    assert server.bucket().locked_until("key") is None


def test_copy_that_fails_behind_its_status_is_an_error(server: Server) -> None:
    """A store may answer 200 before it has copied, and tell an error then."""
    server.answers = [(200, {}, b"<Error><Code>InternalError</Code><Message>m</Message></Error>")]
    with pytest.raises(BucketBusy, match="UploadPartCopy is refused"):
        server.bucket().copy_part("key", "u", 2, BucketObject("k", 3, "e1", 0.0))


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(BucketError, match="a store in a bucket needs boto3: "):
        BotoBucket("b")


def test_endpoint_that_is_no_url_is_one_line() -> None:
    with pytest.raises(BucketError, match="no client for nonsense"):
        BotoBucket("b", "", Access("nonsense", "us-east-1"))
