"""The sender's configuration: sender.toml, the environment and the command line, into one model.

    level = 3                     # all of the first part is optional

    [receivers.nas]               # `fullsend join` writes this
    address = "nas.example:7433"
    fingerprint = "…64 hex digits…"
    sender = "alpha"              # this host's name there

    [[push]]                      # what `fullsend push` without DATASET pushes
    datasets = ["tank/home", "tank/vm/*"]
    recursive = true
    exclude = ["tank/home/*/cache"]

    [datasets."tank/vm/**"]       # options for these datasets, wherever they are named
    compressed = true
    full-after = { age = "90d" }

Precedence: command line > environment (FULLSEND_LEVEL and so on) > [datasets.PATTERN] (of several that match, the
later) > [[push]] > the file's first part > default. `raw` and `decrypt` exclude each other: the narrowest place that
sets one of them decides.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from fullsend_protocol.format.manifest import SenderName, Sha256Hex
from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import CommandLine, Duration, MetricsFile, Settings, Size, parse_settings
from fullsend_protocol.stream.chunks import LEVEL_MAX, LEVEL_MIN
from fullsend_protocol.wire.invitation import ADDRESSES_MAX
from fullsend_sender.host.options import LEVEL_AUTO, RETRY_FOR, Endpoint, FullAfter, LevelSetting, SendOptions
from fullsend_sender.zfs.selection import Selection, check_pattern, fits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: Each job takes the memory of a push (see `fullsend check`).
JOBS_MAX: Final = 16
#: One reading thread cannot feed more compressing threads than this.
THREADS_MAX: Final = 64

_PORT_MAX: Final = 65535
_HEADER: Final = re.compile(r"\s*\[")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT, with an IPv6 address in brackets. Raises: ValueError, whose text shows the form."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) != bracketed or not port.isdecimal() or not 0 < int(port) <= _PORT_MAX:
        raise ValueError(f"{address!r} is not HOST:PORT (write an IPv6 address in brackets, as in [2001:db8::1]:7433)")
    return host, int(port)


def _addresses(said: object) -> object:
    """Check one address, or a list of them."""
    for each in said if isinstance(said, list) else [said]:
        split_address(str(each))
    return said


def _level(value: object) -> object:
    """Return a level from the file, the environment or the command line."""
    if value == LEVEL_AUTO:
        return value
    try:
        level = int(value) if isinstance(value, str) else value
    except ValueError:
        level = None
    if not isinstance(level, int) or isinstance(level, bool) or not LEVEL_MIN <= level <= LEVEL_MAX:
        raise ValueError(f"{value!r} is not a level of zstd: {LEVEL_MIN} to {LEVEL_MAX}, or {LEVEL_AUTO}")
    return level


Pattern = Annotated[str, AfterValidator(check_pattern)]


class ReceiverTable(Settings):
    """One receiver: a table [receivers.NAME]. `address`: a list, where several daemons serve its store."""

    address: Annotated[
        str | Annotated[list[str], Field(min_length=1, max_length=ADDRESSES_MAX)], BeforeValidator(_addresses)
    ]
    fingerprint: Sha256Hex
    sender: SenderName

    @property
    def addresses(self) -> list[str]:
        """All of its addresses."""
        return [self.address] if isinstance(self.address, str) else self.address


class FullAfterSettings(Settings):
    """When a chain is too long (options.FullAfter)."""

    streams: Annotated[int, Field(ge=1)] | None = None
    age: Duration | None = None
    increments: Annotated[float, Field(gt=0)] | None = None


class SendSettings(Settings):
    """Options for sending datasets; None: the next wider level decides."""

    level: Annotated[LevelSetting, BeforeValidator(_level)] | None = None
    raw: bool | None = None
    decrypt: bool | None = None
    compressed: bool | None = None
    embedded: bool | None = None
    size_check: bool | None = None
    keep: Annotated[int, Field(ge=1)] | None = None
    full_after: FullAfterSettings | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        """Refuse two opposites in one place."""
        if self.raw and self.decrypt:
            raise ValueError("raw and decrypt exclude each other: set one of them here")
        return self

    def over(self, wider: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a wider place, and over them those of this one. Where this one sets `raw` or `decrypt`,
        it ends the other: a dataset may not leave in the clear because a wider place says so.
        """
        said = {name: value for name in SendSettings.model_fields if (value := getattr(self, name)) is not None}
        for name, other in (("raw", "decrypt"), ("decrypt", "raw")):
            if said.get(name):
                said.setdefault(other, False)
        return {**wider, **said}


class PushSettings(SendSettings):
    """A table [[push]]: the datasets of a push without DATASET."""

    datasets: Annotated[list[Pattern], Field(min_length=1)]
    recursive: bool = False
    exclude: list[Pattern] = Field(default_factory=list)
    receiver: str | None = None

    #: SenderSettings.drill_into.
    _drill_place: str | None = PrivateAttr(default=None)

    @property
    def selection(self) -> Selection:
        """The datasets that it selects."""
        return Selection(tuple(self.datasets), self.recursive, tuple(self.exclude), self._drill_place)


class RunHooks(Settings):
    """The table [hooks]: what is run after `push`. None: nothing. `time_limit`: seconds."""

    on_success: CommandLine | None = None
    on_failure: CommandLine | None = None
    time_limit: Annotated[Duration, Field(gt=0)] = 60.0


class SenderSettings(SendSettings):
    """sender.toml."""

    receivers: dict[str, ReceiverTable] = Field(default_factory=dict)
    push: list[PushSettings] = Field(default_factory=list)
    datasets: dict[Pattern, SendSettings] = Field(default_factory=dict)
    retired: list[Pattern] = Field(default_factory=list)  # stored datasets that no longer exist, on purpose
    receiver: str | None = None  # the receiver, if several are configured and --receiver is not given
    jobs: Annotated[int, Field(ge=1, le=JOBS_MAX)] = 1  # datasets that are sent at the same time
    zfs_command: CommandLine = ("zfs",)
    threads: Annotated[int, Field(ge=1, le=THREADS_MAX)] | None = None  # None: see pipeline.default_threads
    bwlimit: Annotated[Size, Field(ge=1)] | None = None  # bytes a second
    retry_for: Duration = RETRY_FOR  # how long a receiver may stay away during a run
    allow_orphan: bool = False
    drill_into: Pattern | None = None  # the dataset below which `fullsend drill` restores
    drill_quota: Annotated[Size, Field(ge=1)] | None = None  # bytes that it may take there; None: what is free
    prove_after_push: bool = False  # after a push without DATASET, prove what the receiver has merged since
    hooks: RunHooks = Field(default_factory=RunHooks)
    progress: Literal["auto", "always", "never"] = "auto"
    log_format: Literal["text", "json"] = "text"
    metrics_file: MetricsFile | None = None  # written after each push, for node_exporter's textfile collector

    #: The options for sending from the environment and the command line, in this order: they override
    #: [datasets.PATTERN].
    _overrides: list[SendSettings] = PrivateAttr(default_factory=list)
    #: The receiver that the environment or the command line names: a choice, where `receiver` of the file is a default.
    _chosen: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _no_push_of_drills(self) -> Self:
        """Leave the place of drills out of each push that does not name it. What is below it may need a backup."""
        for table in self.push:
            table._drill_place = self.drill_into  # noqa: SLF001 - not for the file, so no field
        return self

    @property
    def chosen_receiver(self) -> str | None:
        """The receiver that the environment or the command line names; None: neither names one."""
        return self._chosen or None

    def receiver_name(self, name: str | None = None) -> str | None:
        """Return the receiver that is meant by this name; without a name the default or the only one. None: there are
        several, and nothing chooses one.
        """
        return name or self.receiver or (next(iter(self.receivers)) if len(self.receivers) == 1 else None)

    def meant(self, names: Iterable[str | None]) -> list[str]:
        """Return the receivers of these names in the order of the file, then those that are not configured. None: the
        default one; without a default, any may be meant.
        """
        named = dict.fromkeys(map(self.receiver_name, names))
        configured = [name for name in self.receivers if None in named or name in named]
        return configured + [name for name in named if name is not None and name not in self.receivers]

    def watched(self) -> list[str]:
        """Return the names of the receivers that answer for this host's backups: the chosen one, else those that
        [[push]] names, and the default one. Where these do not say which, all. Raises: UsageError if none is
        configured.
        """
        self._check_paired()
        if self.chosen_receiver is not None:
            return [self.chosen_receiver]
        names = [table.receiver for table in self.push]
        return self.meant([*names, None] if self.receiver or not names else names)

    def _check_paired(self) -> None:
        if not self.receivers:
            raise UsageError("no receiver is configured: run `fullsend join INVITATION` to pair with one")

    def endpoint(self, name: str | None = None) -> Endpoint:
        """Return the receiver of this name; without a name the only or the configured one. Raises: UsageError."""
        self._check_paired()
        name = self.receiver_name(name)
        names = ", ".join(sorted(self.receivers))
        if name is None:
            raise UsageError(f"several receivers are configured ({names}): choose one with --receiver NAME")
        if name not in self.receivers:
            raise UsageError(f"no receiver {name!r} is configured: there are {names}")
        chosen = self.receivers[name]
        (host, port), *others = map(split_address, chosen.addresses)
        several = len(self.receivers) > 1
        return Endpoint(name, host, port, chosen.fingerprint, one_of_several=several, others=tuple(others))

    def tables_for(self, receiver: str) -> list[PushSettings]:
        """Return the tables [[push]] for this receiver: those that name it, or no receiver."""
        return [table for table in self.push if (table.receiver or self.receiver) in {None, receiver}]

    def send_options(self, dataset: str | None, table: PushSettings | None = None) -> SendOptions:
        """Return the options for sending a dataset; None: a dataset that is not known yet. `table`: the one that named
        it.
        """
        places: list[SendSettings] = [self]
        places += [table] if table is not None else []
        if dataset is not None:
            places += [each for pattern, each in self.datasets.items() if fits(dataset, pattern)]
        said: dict[str, Any] = {}
        for place in (*places, *self._overrides):
            said = place.over(said)
        limit = said.pop("full_after", None)
        return SendOptions(**said, full_after=FullAfter(**dict(limit)) if limit is not None else FullAfter())


def load(path: str, environ: Mapping[str, str], arguments: Mapping[str, object]) -> SenderSettings:
    """Read the configuration.

    `arguments`: by the settings' names, the options of the command line; None if an option is not given.
    Raises: UsageError: the file is missing or wrong, or a variable or an option is wrong.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise UsageError(
            f"{path} is missing: make it with `fullsend join INVITATION`, or name another file with --config"
        ) from None
    settings = parse_settings(SenderSettings, text, path)
    single = SenderSettings.model_fields.keys() - {"receivers", "push", "datasets", "full_after", "retired", "hooks"}
    variables = {name: environ[variable] for name in single if (variable := _variable(name)) in environ}
    given = {name: value for name in single if (value := arguments.get(name)) is not None}
    for values, spelling in ((variables, _variable), (given, _option)):
        settings = _overlay(settings, values, spelling)
    return settings


def read_text(path: str) -> str:
    """Return the file's text. Raises: FileNotFoundError, UsageError for all other errors."""
    try:
        with open(path, encoding="utf-8-sig") as file:  # editors of other systems write a byte order mark
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
    """Return the settings with those of a narrower place over them. Raises: UsageError, which names one as `spelling`
    writes it.
    """
    if not values:
        return settings
    try:
        place = SendSettings.model_validate(
            {name: values[name] for name in SendSettings.model_fields if name in values}
        )
        others = {name: value for name, value in values.items() if name not in SendSettings.model_fields}
        laid = SenderSettings.model_validate({**place.over(settings.model_dump()), **others})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "raw"  # what is wrong with a place as a whole
        raise UsageError(f"{spelling(name)}: {first['msg'].removeprefix('Value error, ')}") from None
    laid._overrides = [*settings._overrides, place]  # noqa: SLF001 - not for the file, so no field
    laid._chosen = laid.receiver if "receiver" in others else settings._chosen  # noqa: SLF001 - the same
    return laid


# --- adding a receiver --------------------------------------------------------------------------------------------


def with_receiver(text: str, name: str, receiver: ReceiverTable, path: str) -> str:
    """Return the configuration's text with the table [receivers.NAME] added, or replaced if it exists.

    Every other line stays as the user wrote it. Raises: UsageError if that is not possible; nothing is lost then.
    """
    table = [
        f"[receivers.{name}]",
        f"address = {json.dumps(receiver.address)}",  # of these characters, JSON's form is TOML's
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
            stop -= 1  # blank lines and comments before the next table belong to that table
        lines[start:stop] = table
    after = "\n".join(lines) + "\n"
    # TOML has more forms for the same content than this code knows. So compare the parsed result.
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
    """Return `name` if it is a valid name for a receiver. Raises: UsageError."""
    if not _BARE_KEY.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a receiver: use letters, digits, - and _")
    return name
