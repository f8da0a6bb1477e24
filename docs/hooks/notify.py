#!/usr/bin/env python3
"""Tell a person of an event of fullsend: by mail, ping, ntfy, or a webhook. A hook (docs/hooks.md); Python's standard
library is all that it needs.

    notify.py mail --to admin@example.org [--server HOST:PORT] [--tls starttls --user NAME --password @FILE]
    notify.py ping URL                      healthchecks and the like: URL, or URL/fail
    notify.py ntfy URL [--token @FILE]      URL with the topic
    notify.py slack URL                     an incoming webhook of Slack
    notify.py webhook URL                   {"text": ...}: Mattermost, matrix-hookshot
    notify.py matrix URL --room '!ID:SERVER' --token @FILE      a homeserver's own API

Reads the event as JSON on stdin. @FILE instead of a URL, password or token: the first line of that file, which `ps`
does not show. Exit code 0: told; anything else: not told, and one line on stderr says why.
"""

from __future__ import annotations

import argparse
import base64
import json
import smtplib
import socket
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from pathlib import Path
from typing import Any

#: Seconds for each step of a connection: less than the hook's own time limit.
TIMEOUT = 20.0
#: Characters of a subject or a title.
TITLE_MAX = 200
#: Events that are good news, though they are logged as warnings.
GOOD = {"alarm-cleared", "whole-again", "store-back", "daemon-answers", "test"}
#: Events that are never good news, whatever their level.
FAILED = {"push-failed"}
#: By urgency: the priority and the tag of ntfy.
NTFY = {"bad": ("urgent", "rotating_light"), "warning": ("high", "warning"), "good": ("default", "white_check_mark")}


class NotToldError(Exception):
    """The message could not be delivered."""


def one_line(text: str) -> str:
    """Return text for a header: a line break in it would begin another header."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def urgency(event: dict[str, Any]) -> str:
    """Return `bad`, `warning` or `good`."""
    if event.get("event") in GOOD:
        return "good"
    usual = "warning" if event.get("event") in FAILED else "good"
    return {"error": "bad", "warning": "warning"}.get(str(event.get("level")), usual)


def title(event: dict[str, Any]) -> str:
    """Return what is shown first."""
    return one_line(f"{event.get('host', 'fullsend')}: {event.get('event', 'event')}")[:TITLE_MAX]


def body(event: dict[str, Any]) -> str:
    """Return the text of the event, in one line."""
    return one_line(str(event.get("text", "")))


def secret(value: str) -> str:
    """Return a value, or what its file has."""
    if not value.startswith("@"):
        return value
    lines = Path(value[1:]).read_text(encoding="utf-8").splitlines()
    return lines[0].strip() if lines else ""


def send_mail(options: argparse.Namespace, event: dict[str, Any]) -> None:
    """Send a mail with the text, and all that is known of the event."""
    sender = options.sender or f"fullsend@{socket.getfqdn()}"
    mail = EmailMessage()
    mail["Subject"] = one_line(f"{title(event)}: {body(event)}")[:TITLE_MAX]
    mail["From"] = _address(sender)
    mail["To"] = [_address(each) for each in options.to]
    mail["Date"] = formatdate(localtime=True)
    # The same for the same event: a hook may run twice for it.
    unique = "".join(c for c in f"{event.get('hook')}.{event.get('id')}" if c.isascii() and (c.isalnum() or c in ".-"))
    mail["Message-ID"] = f"<{unique}@{one_line(str(event.get('host', 'localhost'))).encode('idna').decode()}>"
    mail["Auto-Submitted"] = "auto-generated"
    text = f"{body(event)}\n\n{json.dumps(event, indent=2, ensure_ascii=False)}\n"
    mail.set_content(text.encode(errors="backslashreplace").decode())  # a name need not be UTF-8
    host, _, port = options.server.rpartition(":")
    host = host.strip("[]")
    context = ssl.create_default_context()
    kind: Any = smtplib.SMTP_SSL if options.tls == "tls" else smtplib.SMTP
    more = {"context": context} if options.tls == "tls" else {}
    with kind(host, int(port), timeout=TIMEOUT, **more) as server:
        if options.tls == "starttls":
            server.starttls(context=context)
        if options.user:
            server.login(options.user, secret(options.password))
        server.send_message(mail)


def _address(text: str) -> Address:
    name, address = parseaddr(text)
    return Address(display_name=name, addr_spec=address)


def send_ping(options: argparse.Namespace, event: dict[str, Any]) -> None:
    """Tell a dead man's switch that all is well, or that it is not."""
    url = secret(options.url).rstrip("/")
    is_well = urgency(event) == "good" and not event.get("lasting")  # one alarm has ended, and others last
    _request("POST", url if is_well else f"{url}/fail", body(event).encode(), {})


def send_ntfy(options: argparse.Namespace, event: dict[str, Any]) -> None:
    """Publish to a topic of ntfy."""
    priority, tag = NTFY[urgency(event)]
    headers = {"Title": _header(title(event)), "Priority": priority, "Tags": tag}
    if options.token:
        headers["Authorization"] = f"Bearer {secret(options.token)}"
    _request("POST", secret(options.url), body(event).encode(), headers)


def send_slack(options: argparse.Namespace, event: dict[str, Any]) -> None:
    """Post to a webhook of Slack, in whose texts three characters have a meaning."""
    text = _marked(event).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    _request_json("POST", secret(options.url), {"text": text}, {})


def send_webhook(options: argparse.Namespace, event: dict[str, Any]) -> None:
    """Post to a webhook that takes a text as it is."""
    _request_json("POST", secret(options.url), {"text": _marked(event)}, {})


def send_matrix(options: argparse.Namespace, event: dict[str, Any]) -> None:
    """Send a message to a room. The same event again is the same transaction, so it is shown once."""
    room = urllib.parse.quote(options.room, safe="")
    transaction = urllib.parse.quote(f"{event.get('host')}-{event.get('hook')}-{event.get('id')}", safe="")
    url = f"{secret(options.url).rstrip('/')}/_matrix/client/v3/rooms/{room}/send/m.room.message/{transaction}"
    said = {"msgtype": "m.text", "body": _marked(event)}
    _request_json("PUT", url, said, {"Authorization": f"Bearer {secret(options.token)}"})


def _marked(event: dict[str, Any]) -> str:
    mark = {"bad": "\N{LARGE RED CIRCLE}", "warning": "\N{LARGE YELLOW CIRCLE}", "good": "\N{LARGE GREEN CIRCLE}"}
    return f"{mark[urgency(event)]} {title(event)}: {body(event)}"


def _header(text: str) -> str:
    """Return a header's value in ASCII (RFC 2047)."""
    if text.isascii():
        return text
    return f"=?utf-8?B?{base64.b64encode(text.encode()).decode()}?="


def _request_json(method: str, url: str, said: dict[str, str], headers: dict[str, str]) -> None:
    _request(method, url, json.dumps(said).encode(), {"Content-Type": "application/json", **headers})


def _request(method: str, url: str, data: bytes, headers: dict[str, str]) -> None:
    if not url.startswith(("http://", "https://")):
        raise NotToldError("the URL does not begin with https:// or http://")
    request = urllib.request.Request(url, data, {"User-Agent": "fullsend", **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        raise NotToldError(f"{urllib.parse.urlsplit(url).hostname} answers {error.code} {error.reason}") from None


def main(arguments: list[str] | None = None) -> int:
    """Read the event, and tell of it. Returns: the exit code."""
    parser = argparse.ArgumentParser(description="Tell a person of an event of fullsend, which is read from stdin.")
    ways = parser.add_subparsers(required=True, metavar="HOW")
    mail = ways.add_parser("mail", help="by SMTP")
    mail.add_argument("--to", action="append", required=True, metavar="ADDRESS")
    mail.add_argument("--from", dest="sender", metavar="ADDRESS", help="default: fullsend@ this host")
    mail.add_argument("--server", default="localhost:25", metavar="HOST:PORT", help="default: localhost:25")
    mail.add_argument("--tls", choices=["no", "starttls", "tls"], default="no")
    mail.add_argument("--user")
    mail.add_argument("--password", default="", metavar="@FILE")
    mail.set_defaults(send=send_mail)
    for name, send, text in (
        ("ping", send_ping, "a dead man's switch such as healthchecks"),
        ("ntfy", send_ntfy, "a topic of ntfy"),
        ("slack", send_slack, "an incoming webhook of Slack"),
        ("webhook", send_webhook, "a webhook that takes a text: Mattermost, matrix-hookshot"),
        ("matrix", send_matrix, "a room, by the homeserver's own API"),
    ):
        way = ways.add_parser(name, help=text)
        way.add_argument("url", metavar="URL")
        way.set_defaults(send=send)
        if name in {"ntfy", "matrix"}:
            way.add_argument("--token", default="", metavar="@FILE")
        if name == "matrix":
            way.add_argument("--room", required=True, metavar="ID")
    options = parser.parse_args(arguments)
    try:
        event = json.loads(sys.stdin.buffer.read())
        options.send(options, event)
    except (NotToldError, OSError, ValueError, smtplib.SMTPException) as error:
        print(f"notify: {one_line(str(error)) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
