"""receiver.toml: the file with the store's place and the daemon's limits. The daemon only reads it, at its start and
at a reload.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import UsageError, reason
from fullsend_protocol.shared.settings import (
    Duration,
    MetricsFile,
    Portion,
    Settings,
    Share,
    Size,
    SizeOrShare,
    parse_settings,
)
from fullsend_protocol.wire.invitation import ADDRESSES_MAX, is_sender_name
from fullsend_receiver.access.copy_settings import CopySettings
from fullsend_receiver.access.expectations import Days, Every, Expect
from fullsend_receiver.access.hook_settings import HookSettings
from fullsend_receiver.access.policies import Retention
from fullsend_receiver.access.values import AbsolutePath, DailyTime
from fullsend_receiver.store_s3.place import BucketPlace, is_bucket_place, parse_place

DEFAULT_FILE: Final = Path("/etc/fullsend/receiver.toml")
DEFAULT_STORE: Final = Path("/var/lib/fullsend")
DEFAULT_PORT: Final = 7433
#: What a running daemon cannot change.
_FIXED: Final = ("store", "store_id", "bucket", "listen", "log_format", "metrics_listen")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]|([^\s\[\]:]*)):([0-9]{1,5})")
_PORT_MAX: Final = 65535


def parse_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT. An IPv6 address is in brackets; an empty HOST means all addresses.

    Raises: UsageError.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3]) > _PORT_MAX:
        msg = f"{text!r} is not HOST:PORT (write an IPv6 address in brackets, such as [::1]:{DEFAULT_PORT})"
        raise UsageError(msg)
    return match[1] or match[2], int(match[3])


def _checked_address(text: str) -> str:
    try:
        parse_address(text)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return text


def _listed(said: object) -> object:
    """Read one address, or a list of them."""
    listed = (said,) if isinstance(said, str) else said
    for each in listed if isinstance(listed, list | tuple) else ():
        _checked_address(str(each))
    return listed


def store_place(text: str) -> Path | BucketPlace:
    """Read the place of a store: a folder, or s3://BUCKET/PREFIX. Raises: UsageError."""
    return parse_place(text) if is_bucket_place(text) else Path(text)


def _place(value: object) -> object:
    try:
        return store_place(value) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(str(error)) from None


StorePlace = Annotated[Path | BucketPlace, BeforeValidator(_place)]
Address = Annotated[str, AfterValidator(_checked_address)]
Addresses = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(max_length=ADDRESSES_MAX)]


def _named_none(value: Any) -> Any:  # noqa: ANN401 - any value that TOML has
    return None if value == "none" else value


def _sender_name(text: str) -> str:
    if not is_sender_name(text):
        msg = "is not a sender's name"
        raise ValueError(msg)
    return text


def _on_loopback(text: str) -> str:
    host, _port = parse_address(_checked_address(text))
    try:
        if ipaddress.ip_address(host).is_loopback:
            return text
    except ValueError:
        pass
    msg = f"{text!r} is not an address of this host alone: the metrics have no password, so name 127.0.0.1 or [::1]"
    raise ValueError(msg)


#: HOST:PORT that only processes of this host can reach.
Loopback = Annotated[str, AfterValidator(_on_loopback)]

#: Bytes of one sender; None, in the file "none": no limit.
Quota = Annotated[Size | None, BeforeValidator(_named_none)]


class PerSender(Settings):
    """The table [senders.NAME]: what is different for this sender. A key that is absent: as for all senders."""

    quota: Quota = None


class BucketSettings(Settings):
    """The table [bucket]: how the bucket of `store` is reached. Its credentials are never here."""

    home: AbsolutePath = DEFAULT_STORE  # the folder of this host: key, locks, the socket, the events of this daemon
    endpoint: str | None = None  # URL; None: that of AWS
    region: str | None = None  # None: as the environment says
    credentials_file: AbsolutePath | None = None  # as AWS_SHARED_CREDENTIALS_FILE; None: as the environment says
    ca_file: AbsolutePath | None = None  # the issuers of the endpoint's certificate (PEM); None: those of the system


class ReceiverSettings(Settings):
    """The settings in receiver.toml. Times are seconds, sizes bytes."""

    store: StorePlace
    bucket: BucketSettings = Field(default_factory=BucketSettings)  # where `store` is s3://...
    store_id: str  # of the marker: the daemon must not write into the mount point of an unmounted disk
    listen: Address = f":{DEFAULT_PORT}"
    advertise: Addresses = ()  # in invitations, of all daemons of this store; empty: this host's name
    min_free: Portion = SizeOrShare(1 << 30)  # what stays free of the disk, before and while streams arrive
    quota: Quota = None  # of each sender: what is stored, arrives, waits as a partial, or is set aside
    warn_at: Share = 0.85  # used share of the disk, or of a quota, from which on warnings are given
    senders: dict[Annotated[str, AfterValidator(_sender_name)], PerSender] = Field(default_factory=dict)
    partial_keep: Duration = 14 * 86400.0  # a partial to which nothing was added for so long is deleted
    partial_max: Size | None = None  # of all partials together: above it the oldest are deleted
    damaged_keep: Duration = 30 * 86400.0  # what was set aside as damaged is deleted so long afterwards
    scrub_every: Duration = 30 * 86400.0  # after so long the daemon checks a stored stream again; 0: never
    scrub_rate: Size = 64 << 20  # stored bytes a second that these checks read; 0: no limit
    connections: int = Field(default=512, ge=1)  # in all
    connections_per_sender: int = Field(default=64, ge=1)
    unidentified: int = Field(default=256, ge=1)  # at the limit the oldest is closed
    tries_per_minute: int = Field(default=20, ge=1)  # of `join` and `known?`, from one address
    identify_within: Duration = limits.IDENTIFY_WITHIN
    silence: Duration = limits.SILENCE
    heartbeat_every: Duration = Field(default=limits.HEARTBEAT_EVERY, gt=0, lt=limits.SILENCE)
    shutdown_grace: Duration = 30.0  # time for running streams after SIGTERM; systemd kills after 90 s
    log_format: Literal["text", "json"] = "text"
    hooks: HookSettings = Field(default_factory=HookSettings)  # read by `fullsendd hooks`, not by the daemon
    copies: CopySettings | None = Field(default=None, alias="copy")  # in another store; None: the daemon makes none
    retention: Retention | None = None  # None: nothing is ever deleted
    prune_at: DailyTime = time(3, 30)  # local time of the daemon's own prune; None ("never"): it has none
    undelete_within: Duration = 0.0  # how long what was pruned waits in the trash
    prune_at_most: Share = 0.2  # of a dataset's snapshots or bytes, in one run
    when_suspicious: Literal["stop", "prune"] = "stop"  # whether suspicious streams stop the prune of their dataset
    when_full: Literal["refuse", "prune-early"] = "refuse"  # whether a prune may come early to make room
    #: Whether a prune merges streams; "prove-first": their removal waits for `fullsend prove`.
    merge: Literal["on", "off", "prove-first"] = "on"
    rebase_after: Share = 0.3  # of a full's stored bytes: with so many in the increments on it, it moves forward
    undelete_merged: Duration = 7 * 86400.0  # how long what was merged waits in the trash, where there is room
    merge_rate: Size = 64 << 20  # stored bytes a second that a merge reads and writes; 0: no limit
    expect_every: Every = "learn"  # how often each dataset should come; "learn": as it has come so far; "never"
    expect: Expect = Field(default_factory=Expect)  # the same, for some datasets
    warn_days: Days = 14 * 86400.0  # in the file days: there is a warning if the disk will be full within so long
    # The report, an HTML page.
    report_file: AbsolutePath | None = None  # the daemon writes it; None: it does not
    report_every: Annotated[Duration, Field(ge=60.0)] = 3600.0  # seconds between two pages
    report_at: DailyTime = None  # local time: one page a day, then, and none each `report_every`
    # Metrics for Prometheus.
    metrics_file: MetricsFile | None = None  # written each minute, for node_exporter's textfile collector
    metrics_listen: Loopback | None = None  # HOST:PORT of GET /metrics, on this host only
    metrics_datasets: int = Field(default=2000, ge=0)  # that have metrics of their own

    @model_validator(mode="after")
    def _bucket_is_there(self) -> Self:
        if isinstance(self.store, Path) and "bucket" in self.model_fields_set:
            msg = "bucket: `store` is a folder, not s3://BUCKET/PREFIX: remove the table [bucket]"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.metrics_listen is not None:
            port = parse_address(self.metrics_listen)[1]
            if port and port == parse_address(self.listen)[1]:
                msg = f"metrics-listen: port {port} is that of `listen`, for the senders: choose another one"
                raise ValueError(msg)
        return self

    @property
    def folder(self) -> Path:
        """The folder of this host that the daemon writes to: that of the store, or the home of one in a bucket."""
        return self.store if isinstance(self.store, Path) else self.bucket.home

    def quota_of(self, sender: str) -> int | None:
        """Return the quota of a sender in bytes; None: it has none."""
        own = self.senders.get(sender)
        return self.quota if own is None or "quota" not in own.model_fields_set else own.quota

    def expected_every(self, sender: str, dataset: str) -> float | Literal["learn", "never"]:
        """Return after how many seconds a dataset should come again; "never": there is no alarm for it."""
        own = self.expect.every(sender, dataset)
        return self.expect_every if own is None else own


def config_file(argument: Path | None) -> Path:
    """Return the configuration file: `--config`, else $FULLSENDD_CONFIG, else the default."""
    return argument or Path(os.environ.get("FULLSENDD_CONFIG") or DEFAULT_FILE)


def load(path: Path) -> ReceiverSettings:
    """Read the configuration. Raises: UsageError."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of other systems write a byte order mark
    except FileNotFoundError:
        msg = f"{path}: no such file; make a store with `fullsendd init`, or name the file with --config"
        raise UsageError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read: {reason(error)}"
        raise UsageError(msg) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> ReceiverSettings:
    """Read the text of a configuration. `name`: what it is called in errors. Raises: UsageError."""
    return parse_settings(ReceiverSettings, text, name)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a running daemon makes of a changed receiver.toml. `settings`: those that count from now on; `changed`: the
    keys whose values changed, as in the file; `fixed`: the keys that change with a restart only.
    """

    settings: ReceiverSettings
    changed: list[str]
    fixed: list[str]


def reload(present: ReceiverSettings, found: ReceiverSettings) -> Reloaded:
    """Compare the settings of a running daemon with what its file says now."""
    fields = ReceiverSettings.model_fields
    # As JSON: the order of the tables in [retention] has a meaning, and dictionaries compare without it.
    differing = [name for name in fields if _written(present, name) != _written(found, name)]
    keys = {name: fields[name].alias or name for name in differing}
    kept = {name: getattr(present, name) for name in _FIXED}
    return Reloaded(
        found.model_copy(update=kept),
        [key for name, key in keys.items() if name not in _FIXED],
        [key for name, key in keys.items() if name in _FIXED],
    )


def _written(settings: ReceiverSettings, name: str) -> str:
    # A sender's `quota = "none"` differs from no quota of its own.
    return settings.model_dump_json(include={name}, exclude_unset=name == "senders")


def render(
    store: Path | BucketPlace,
    store_id: str,
    listen: str,
    advertise: Sequence[str],
    bucket: BucketSettings | None = None,
    *,
    is_first: bool = True,
) -> str:
    """Return the text of a new receiver.toml. `bucket`: for a store in a bucket; `is_first`: no other host serves it.

    Raises: UsageError if a path is not UTF-8.
    """
    marked = "STORE/.fullsend"
    lines = [
        "# fullsendd: made by `fullsendd init`. docs/operations.md lists all settings.",
        f"store = {_toml(str(store))}",
        f"store-id = {_toml(store_id)}  # of {marked}: the daemon does not write where another store is",
        f"listen = {_toml(listen)}",
    ]
    if advertise:
        addresses = ", ".join(map(_toml, advertise))
        said = f"[{addresses}]" if len(advertise) > 1 else addresses
        lines.append(f"advertise = {said}  # what invitations tell the ZFS hosts")
    if bucket is not None:
        table = bucket.model_dump(by_alias=True, exclude_none=True)
        lines += [f"bucket.{key} = {_toml(str(value))}" for key, value in table.items()]
    if not is_first:
        lines += [
            "# The first host of this store prunes, merges and checks. Remove these two lines if it is given up.",
            'prune-at = "never"',
            'scrub-every = "0s"',
        ]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """Return a TOML basic string: JSON's, but without surrogate pairs, and with DEL escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"{text!r}: not UTF-8, so it cannot be written to a configuration file"
        raise UsageError(msg) from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
