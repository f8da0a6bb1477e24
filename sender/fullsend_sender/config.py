"""The sender's configuration: sender.toml, the environment and the command line, into one model.

    level = 3                     # all of the first part is optional

    [receivers.nas]
    address = "nas.example:7433"
    fingerprint = "…64 hex digits…"
    sender = "alpha"              # our name there

Precedence: command line > environment (FULLSEND_LEVEL and so on) > file > default.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from fullsend_protocol.chunks import LEVEL_DEFAULT, LEVEL_MAX, LEVEL_MIN
from fullsend_protocol.errors import UsageError
from fullsend_protocol.manifest import SenderName, Sha256Hex
from fullsend_protocol.settings import Settings, Size, parse_settings
from fullsend_sender.link import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: More compressing threads than this gain nothing that one reading thread could feed.
THREADS_MAX: Final = 64

_PORT_MAX: Final = 65535
_HEADER: Final = re.compile(r"\s*\[")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, with an IPv6 address in brackets. Raises: ValueError, saying how it is written."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) != bracketed or not port.isdecimal() or not 0 < int(port) <= _PORT_MAX:
        raise ValueError(f"{address!r} is no HOST:PORT (an IPv6 address stands in brackets, as in [2001:db8::1]:7433)")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT as `split_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(text: str) -> str:
    split_address(text)
    return text


class ReceiverSettings(Settings):
    """One receiver: a table [receivers.NAME]."""

    address: Annotated[str, AfterValidator(_address)]
    fingerprint: Sha256Hex
    sender: SenderName


class SenderSettings(Settings):
    """sender.toml."""

    receivers: dict[str, ReceiverSettings] = Field(default_factory=dict)
    receiver: str | None = None  # which of them, where several are configured and --receiver is not given
    level: Annotated[int, Field(ge=LEVEL_MIN, le=LEVEL_MAX)] = LEVEL_DEFAULT
    threads: Annotated[int, Field(ge=1, le=THREADS_MAX)] | None = None  # None: see pipeline.default_threads
    bwlimit: Annotated[Size, Field(ge=1)] | None = None  # bytes a second
    allow_orphan: bool = False
    progress: Literal["auto", "always", "never"] = "auto"
    log_format: Literal["text", "json"] = "text"

    def endpoint(self, name: str | None = None) -> Endpoint:
        """Return the receiver of this name; without one the only, or the configured one. Raises: UsageError."""
        if not self.receivers:
            raise UsageError("no receiver is configured: pair with one by `fullsend join INVITATION`")
        name = name or self.receiver or (next(iter(self.receivers)) if len(self.receivers) == 1 else None)
        names = ", ".join(sorted(self.receivers))
        if name is None:
            raise UsageError(f"several receivers are configured ({names}): choose one with --receiver NAME")
        if name not in self.receivers:
            raise UsageError(f"no receiver {name!r} is configured: there are {names}")
        chosen = self.receivers[name]
        host, port = split_address(chosen.address)
        return Endpoint(name, host, port, chosen.fingerprint)


def load(path: str, environ: Mapping[str, str], arguments: Mapping[str, object]) -> SenderSettings:
    """Read the configuration.

    `arguments`: by the settings' names, what the command line says; None where it says nothing.
    Raises: UsageError: the file is missing or wrong, or a variable or an argument is.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise UsageError(
            f"{path} is missing: make it with `fullsend join INVITATION`, or name one with --config"
        ) from None
    settings = parse_settings(SenderSettings, text, path)
    variables = {
        name: environ[variable] for name in SenderSettings.model_fields if (variable := _variable(name)) in environ
    }
    settings = _overlay(settings, {name: value for name, value in variables.items() if name != "receivers"}, _variable)
    given = {name: value for name, value in arguments.items() if name in SenderSettings.model_fields}
    return _overlay(settings, {name: value for name, value in given.items() if value is not None}, _option)


def read_text(path: str) -> str:
    """Return the file's text. Raises: FileNotFoundError, UsageError for all else that prevents it."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path} cannot be read: {why}") from None


def _variable(name: str) -> str:
    return f"FULLSEND_{name.upper()}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _overlay(settings: SenderSettings, values: Mapping[str, object], spelling: Callable[[str], str]) -> SenderSettings:
    if not values:
        return settings
    try:
        return SenderSettings.model_validate({**settings.model_dump(), **values})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise UsageError(f"{spelling(str(first['loc'][0]))}: {first['msg'].removeprefix('Value error, ')}") from None


# --- adding a receiver --------------------------------------------------------------------------------------------


def with_receiver(text: str, name: str, receiver: ReceiverSettings, path: str) -> str:
    """Return the configuration's text with the table [receivers.NAME] added, or replaced where it stands.

    Every other line stays as the user wrote it. Raises: UsageError where that cannot be done; nothing is lost then.
    """
    table = [
        f"[receivers.{name}]",
        f'address = "{receiver.address}"',
        f'fingerprint = "{receiver.fingerprint}"',
        f'sender = "{receiver.sender}"',
    ]
    lines = text.splitlines()
    own = re.compile(rf"""\s*\[\s*receivers\s*\.\s*(["']?){re.escape(name)}\1\s*\]\s*(#.*)?""")
    start = next((number for number, line in enumerate(lines) if own.fullmatch(line)), None)
    if start is None:
        lines += ["", *table] if lines and lines[-1].strip() else table
    else:
        stop = next((n for n in range(start + 1, len(lines)) if _HEADER.match(lines[n])), len(lines))
        while stop > start + 1 and (not lines[stop - 1].strip() or lines[stop - 1].lstrip().startswith("#")):
            stop -= 1  # blank lines and comments in front of the next table belong to that
        lines[start:stop] = table
    after = "\n".join(lines) + "\n"
    # TOML has more ways to say the same than this knows. So judge by what the result says, not by how it was made.
    old = tomllib.loads(text)
    wanted = {**old, "receivers": {**old.get("receivers", {}), name: receiver.model_dump(by_alias=True)}}
    try:
        right = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        right = False
    if not right:
        raise UsageError(
            f"{path} cannot be extended without disturbing it; please add these lines: {' / '.join(table)}"
        )
    return after


def check_receiver_name(name: str) -> str:
    """Return `name` if it can name a receiver. Raises: UsageError."""
    if not _BARE_KEY.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a receiver: use letters, digits, - and _")
    return name
