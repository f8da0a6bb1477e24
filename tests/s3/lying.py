"""A gateway of an object store that lies: between a daemon and the real one, it answers some requests itself.

with LyingGateway(gateways()[0]) as gateway:
    gateway.lie(503, "SlowDown", method="PUT", like="/.partial/", times=9)
    ... an endpoint is gateway.address ...
    gateway.tell_truth()
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

_TIMEOUT = 60.0
#: Headers of one connection, which are not forwarded.
_OF_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass
class Lie:
    """What is answered in place of the truth, behind `after` true answers. `times`: None: always."""

    status: int
    code: str
    method: str
    like: re.Pattern[str]
    after: int
    times: int | None
    told: int = 0


class LyingGateway:
    """Forwards requests, except those about which it lies."""

    def __init__(self, address: str) -> None:
        """`address`: URL of the real gateway."""
        self.target = urlsplit(address).netloc
        self.late = 0.0  # seconds by which the time in all answers is wrong
        self._lie: Lie | None = None
        self._lock = threading.Lock()
        gateway = self

        class Handler(_Forwarding):
            lying = gateway

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def told(self) -> int:
        """How many requests were answered by the present lie."""
        return 0 if self._lie is None else self._lie.told

    def lie(
        self, status: int, code: str, *, method: str = "", like: str = "", after: int = 0, times: int | None = None
    ) -> None:
        """Answer requests so. `method`: of these alone; `like`: of paths, with their query, that match it."""
        self._lie = Lie(status, code, method, re.compile(like), after, times)

    def tell_truth(self) -> None:
        """Forward all requests."""
        self._lie = None

    def answer(self, method: str, path: str) -> Lie | None:
        """Return the lie about a request; None: the truth."""
        with self._lock:
            lie = self._lie
            if lie is None or (lie.method and lie.method != method) or not lie.like.search(path):
                return None
            if lie.after:
                lie.after -= 1
                return None
            if lie.times is not None and lie.told >= lie.times:
                return None
            lie.told += 1
            return lie


class _Forwarding(BaseHTTPRequestHandler):
    lying: LyingGateway
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        lie = self.lying.answer(self.command, self.path)
        if lie is not None:
            said = f"<?xml version='1.0'?><Error><Code>{lie.code}</Code><Message>a lie</Message></Error>".encode()
            self._send(lie.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(said)))], said)
            return
        with contextlib.closing(http.client.HTTPConnection(self.lying.target, timeout=_TIMEOUT)) as real:
            try:
                # The signature is of these headers, the host's name included.
                real.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in _OF_CONNECTION:
                        real.putheader(name, value)
                real.endheaders(body)
                answer = real.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException):
                self.close_connection = True
                return
        headers = [
            (name, self._late(name, value)) for name, value in answer.getheaders() if name.lower() not in _OF_CONNECTION
        ]
        if self.command != "HEAD" and not any(name.lower() == "content-length" for name, _value in headers):
            headers.append(("Content-Length", str(len(data))))
        self._send(answer.status, headers, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 - the base class calls these

    def _late(self, name: str, value: str) -> str:
        if name.lower() != "date" or not self.lying.late:
            return value
        return formatdate(parsedate_to_datetime(value).timestamp() + self.lying.late, usegmt=True)

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"" if self.command == "HEAD" else data)

    def log_message(self, format: str, *arguments: Any) -> None:  # type: ignore[explicit-override]  # noqa: A002 - as in the base class
        """Say nothing."""
