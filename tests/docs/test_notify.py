"""docs/hooks/notify.py, as a hook runs it, against servers on loopback that speak the real protocols."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from tests.test_house import ROOT

from fullsend_hooks.commands import HookError, run_hook

NOTIFY: Final = ROOT / "docs" / "hooks" / "notify.py"
LONG: Final = 120.0
#: What a dataset, a host or an error may bring.
ODD: Final = (
    "a \"quoted\" 'one' \\ back`tick`, $HOME, <b>&amp;</b> <!channel>,\r\nX-Injected: yes\r\n\r\nbody ✓ 完了\x00\x1b[2J"
)
#: The same as one line.
PLAIN: Final = "a \"quoted\" 'one' \\ back`tick`, $HOME, <b>&amp;</b> <!channel>, X-Injected: yes body ✓ 完了 [2J"


def event(**changes: Any) -> dict[str, Any]:
    """An alarm, as a hook reads it."""
    said = {
        "version": 1,
        "time": "2026-11-28T03:00:00Z",
        "program": "fullsendd 0.1.0",
        "event": "alarm-raised",
        "level": "error",
        "text": "alpha/tank/home is late",
        "id": "1-395",
        "hook": "on-late",
        "host": "store",
    }
    return {**said, **changes}


def notify(*arguments: str, said: dict[str, Any] | None = None) -> None:
    """Run it as a hook is run. Raises: HookError."""
    run_hook([sys.executable, str(NOTIFY), *arguments], said or event(), time_limit=LONG)


# --- HTTP ---------------------------------------------------------------------------------------------------------


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Web:
    """A web server that keeps what it gets. `code`: its answer."""

    url: str = ""
    code: int = 200
    got: list[Request] = field(default_factory=list)


@pytest.fixture
def web() -> Iterator[Web]:
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append(Request(self.command, self.path, dict(self.headers), data))
            self.send_response(found.code)
            self.end_headers()

        do_PUT = do_POST  # noqa: N815 - http.server names it so

        def log_message(self, *_arguments: Any) -> None: ...  # type: ignore[explicit-override]  # see below

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield found


@contextmanager
def served(server: socketserver.TCPServer) -> Iterator[socketserver.TCPServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"event": "received", "level": "info"}, "/uuid"),
        ({"event": "push-finished", "level": "info"}, "/uuid"),
        ({"event": "alarm-cleared", "level": "info"}, "/uuid"),
        ({"event": "daemon-answers", "level": "warning"}, "/uuid"),
        ({}, "/uuid/fail"),
        ({"event": "alarm-cleared", "level": "info", "lasting": 1}, "/uuid/fail"),
        ({"event": "alarm-cleared", "level": "info", "lasting": 0}, "/uuid"),
        ({"event": "push-failed", "level": "warning"}, "/uuid/fail"),
        ({"event": "push-failed", "level": "info"}, "/uuid/fail"),
    ],
)
def test_a_ping_says_whether_all_is_well(web: Web, changes: dict[str, Any], path: str) -> None:
    notify("ping", f"{web.url}/uuid", said=event(text=ODD, **changes))
    (request,) = web.got
    assert (request.method, request.path) == ("POST", path)
    assert request.body.decode() == PLAIN
    assert "X-Injected" not in request.headers


def test_ntfy_has_title_priority_and_tags(web: Web) -> None:
    notify("ntfy", f"{web.url}/backups")
    notify("ntfy", f"{web.url}/backups", said=event(event="push-failed", level="warning"))
    notify("ntfy", f"{web.url}/backups", said=event(event="alarm-cleared", level="info"))
    said = [(each.headers["Title"], each.headers["Priority"], each.headers["Tags"]) for each in web.got]
    assert said == [
        ("store: alarm-raised", "urgent", "rotating_light"),
        ("store: push-failed", "high", "warning"),
        ("store: alarm-cleared", "default", "white_check_mark"),
    ]
    assert web.got[0].path == "/backups"
    assert web.got[0].body == b"alpha/tank/home is late"


def test_no_header_of_ntfy_can_be_injected(web: Web, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tk_1\nnot this\n")
    notify("ntfy", f"{web.url}/backups", "--token", f"@{token}", said=event(text=ODD, host=ODD))
    (request,) = web.got
    assert "X-Injected" not in request.headers
    assert str(make_header(decode_header(request.headers["Title"]))) == f"{PLAIN}: alarm-raised"[:200]
    assert request.body.decode() == PLAIN
    assert request.headers["Authorization"] == "Bearer tk_1"


def test_slack_gets_json_without_a_mention(web: Web) -> None:
    notify("slack", f"{web.url}/services/T/B/X", said=event(text=ODD))
    (request,) = web.got
    assert request.headers["Content-Type"] == "application/json"
    said = json.loads(request.body)
    assert said.keys() == {"text"}
    assert "<" not in said["text"]
    plain = said["text"].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert plain == f"\N{LARGE RED CIRCLE} store: alarm-raised: {PLAIN}"


def test_another_webhook_gets_the_text_as_it_is(web: Web) -> None:
    notify("webhook", f"{web.url}/hook", said=event(text=ODD, level="warning"))
    (request,) = web.got
    assert json.loads(request.body) == {"text": f"\N{LARGE YELLOW CIRCLE} store: alarm-raised: {PLAIN}"}


def test_matrix_gets_a_message_and_the_same_event_is_the_same_transaction(web: Web, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    url = tmp_path / "url"
    url.write_text(web.url + "/\n")
    for _ in range(2):
        notify("matrix", f"@{url}", "--room", "!a/b:example.org", "--token", f"@{token}", said=event(text=ODD))
    first, second = web.got
    assert first.method == "PUT"
    room = "%21a%2Fb%3Aexample.org"
    assert first.path == f"/_matrix/client/v3/rooms/{room}/send/m.room.message/store-on-late-1-395"
    assert first.path == second.path
    assert first.headers["Authorization"] == "Bearer secret"
    said = json.loads(first.body)
    assert (said["msgtype"], said["body"]) == ("m.text", f"\N{LARGE RED CIRCLE} store: alarm-raised: {PLAIN}")


def test_a_server_that_refuses_is_a_failure_so_that_the_hook_is_run_again(
    web: Web, capfd: pytest.CaptureFixture[str]
) -> None:
    web.code = 503
    with pytest.raises(HookError, match="exit code 1"):
        notify("ntfy", f"{web.url}/secret-topic")
    said = capfd.readouterr().err
    assert said == "notify: 127.0.0.1 answers 503 Service Unavailable\n"  # without the URL, which may be a secret


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://127.0.0.1:1/x", "@/no/such/file"])
def test_what_cannot_be_reached_is_a_failure_in_one_line(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HookError, match="exit code 1"):
        notify("ping", url)
    said = capfd.readouterr().err
    assert said.startswith("notify: ")
    assert said.count("\n") == 1


def test_what_is_no_json_is_a_failure() -> None:
    done = subprocess.run(
        [sys.executable, str(NOTIFY), "ping", "http://127.0.0.1:1/"], input=b"{", capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"notify: ")


# --- SMTP ---------------------------------------------------------------------------------------------------------


@dataclass
class Mailbox:
    """A mail server that keeps what it gets (RFC 5321, the smallest that a client needs)."""

    server: str = ""
    refuses: bool = False
    got: list[tuple[str, list[str], bytes]] = field(default_factory=list)


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    found = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:  # type: ignore[explicit-override]  # typing.override is younger than Python 3.11
            sender, to = "", list[str]()
            self.wfile.write(b"220 test ESMTP\r\n")
            while line := self.rfile.readline().decode().rstrip("\r\n"):
                verb = line.upper()
                if verb.startswith("MAIL FROM:"):
                    sender = line
                elif verb.startswith("RCPT TO:"):
                    if found.refuses:
                        self.wfile.write(b"550 no such user\r\n")
                        continue
                    to.append(line.partition("<")[2].partition(">")[0])
                elif verb == "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = []
                    while (data := self.rfile.readline()) != b".\r\n":
                        lines.append(data.removeprefix(b".") if data.startswith(b"..") else data)
                    found.got.append((sender, to, b"".join(lines)))
                elif verb == "QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                self.wfile.write(b"250 ok\r\n")

    with served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as server:
        found.server = f"127.0.0.1:{server.server_address[1]}"
        yield found


def test_a_mail_has_the_text_and_all_that_is_known(mailbox: Mailbox) -> None:
    said = event(dataset="tank/home")
    notify("mail", "--to", "Ann <ann@example.org>", "--to", "bo@example.org", "--server", mailbox.server, said=said)
    ((_sender, to, raw),) = mailbox.got
    assert to == ["ann@example.org", "bo@example.org"]
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert mail["Subject"] == "store: alarm-raised: alpha/tank/home is late"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == "<on-late.1-395@store>"
    text = mail.get_content().replace("\r\n", "\n")
    assert text.startswith("alpha/tank/home is late\n\n{")
    assert json.loads(text.partition("\n\n")[2]) == said


def test_no_header_of_a_mail_can_be_injected(mailbox: Mailbox) -> None:
    said = event(text=ODD, dataset="half \udc80", host="hést", hook="on\r\nX-Injected: 1", id="7\r\n")
    notify("mail", "--to", "ann@example.org", "--from", "Döner <a@b.example>", "--server", mailbox.server, said=said)
    ((_sender, to, raw),) = mailbox.got
    assert to == ["ann@example.org"]
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert "X-Injected" not in mail
    assert mail["Subject"] == f"hést: alarm-raised: {PLAIN}"[:200]
    assert str(mail["From"]) == "Döner <a@b.example>"
    assert json.loads(mail.get_content().replace("\r\n", "\n").partition("\n\n")[2]) == said


def test_a_mail_that_is_refused_is_a_failure(mailbox: Mailbox, capfd: pytest.CaptureFixture[str]) -> None:
    mailbox.refuses = True
    with pytest.raises(HookError, match="exit code 1"):
        notify("mail", "--to", "ann@example.org", "--server", mailbox.server)
    assert "no such user" in capfd.readouterr().err
    assert mailbox.got == []


def test_it_needs_nothing_but_the_standard_library(web: Web) -> None:
    """A bare Debian has `python3`, and none of our packages."""
    command = [sys.executable, "-I", "-S", str(NOTIFY), "ping", f"{web.url}/uuid"]
    subprocess.run(command, input=json.dumps(event()).encode(), check=True)
    assert len(web.got) == 1
