"""`fullsendd init`: makes a store, an identity, a configuration file; or the configuration for an existing store.

Under systemd/fullsendd.service the daemon sees the file system read-only, except for the default store. For a folder
elsewhere `init` writes a drop-in that opens it. If another user than the units' own owns the store, both units get it.
"""

from __future__ import annotations

import logging
import os
import pwd
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.units import printable
from fullsend_receiver.access import bucket_setup, config, identity
from fullsend_receiver.access.config import BucketSettings
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.durable import make_folders, replace_file
from fullsend_receiver.store.local import LocalStore, make_store, require_outside
from fullsend_receiver.store.marker import read_id
from fullsend_receiver.store_s3.place import BucketPlace

log = logging.getLogger("fullsendd")

#: The folder of systemd for the administrator's unit files. It exists wherever systemd is installed, running or not.
_UNITS: Final = Path("/etc/systemd/system")
_DROP_IN: Final = Path("fullsendd.service.d", "store.conf")
_HOOKS_DROP_IN: Final = Path("fullsendd-hooks.service.d", "store.conf")
#: As in systemd/fullsendd.service and systemd/fullsendd-hooks.service: their User=.
_SERVICE_USER: Final = "fullsend"
#: As in systemd/fullsendd.service: the folders that its settings hide, with the settings that show them.
_HIDDEN: Final = {
    "ProtectHome=read-only": (Path("/home"), Path("/root"), Path("/run/user")),
    "PrivateTmp=no": (Path("/tmp"), Path("/var/tmp")),  # noqa: S108 - names, nothing is written there
}


@dataclass(frozen=True, slots=True)
class InitOptions:
    """The options of `init`. `user`: the user that is to own the store, None: the user who runs it; `new_key`: with
    `adopt`, for a store in a bucket whose key is lost; `bucket`: how the bucket of `store` is reached, unused if that
    is a folder.

    `units`: the folder of the system's unit files, for the drop-in. None: systemd's own, if it exists and root makes
    the configuration that fullsendd.service reads; otherwise there is no drop-in.
    """

    config: Path
    store: Path | BucketPlace
    listen: str
    advertise: Sequence[str]
    user: str | None
    adopt: bool
    new_key: bool = False
    units: Path | None = None
    bucket: BucketSettings = field(default_factory=BucketSettings)

    @property
    def folder(self) -> Path:
        """The folder of this host that the daemon writes to: that of the store, or the home of one in a bucket."""
        return self.store.absolute() if isinstance(self.store, Path) else self.bucket.home


def init(plan: InitOptions) -> str:
    """Do what the options say. Returns: the receiver's fingerprint.

    Raises: UsageError, StoreError. Checks come first, and nothing that exists is overwritten.
    """
    owner = _owner(plan.user)
    config.parse_address(plan.listen)
    for address in plan.advertise:
        config.parse_address(address)
    if plan.config.exists():
        msg = f"{plan.config}: exists already; it would be overwritten"
        raise UsageError(msg)
    root = plan.folder
    if isinstance(plan.store, Path) and not plan.adopt:
        require_outside(root)
    config.parse(_render(plan, "none"), "--listen, --advertise")  # raises now if nothing could read it later
    _make_config_folder(plan.config.absolute().parent, for_all=owner is not None)
    if owner is not None and (plan.new_key or not plan.adopt):
        _make_parents(root)
    was_there = root.exists()
    store, store_id = _make(plan)
    if owner is not None:
        # The home of a store in a bucket may be a folder that has other things.
        is_ours = isinstance(plan.store, Path) or not was_there
        _change_owner(root if is_ours else store.home, owner)
    text = _render(plan, store_id)
    replace_file(plan.config, text.encode(), 0o644)
    if owner is not None:
        plan.config.chmod(0o644)  # regardless of root's umask: another user runs the daemon, which reads it
        for path in (plan.config.absolute(), root):
            _check_access(path, owner)
    # Everything is made now, and nothing may fail any more.
    _open_to_service(plan, root, owner)
    return identity.fingerprint(store)


def _render(plan: InitOptions, store_id: str) -> str:
    if isinstance(plan.store, Path):
        return config.render(plan.folder, store_id, plan.listen, plan.advertise)
    return config.render(
        plan.store, store_id, plan.listen, plan.advertise, plan.bucket, is_first=plan.new_key or not plan.adopt
    )


def _make(plan: InitOptions) -> tuple[Store, str]:
    """Make the store, or take it over. Returns: it, and its id. Raises: UsageError, StoreError."""
    if isinstance(plan.store, Path):
        root = plan.folder
        if not plan.adopt:
            return make_store(root, identity.make_identity)
        adopted, store_id = LocalStore(root), read_id(root)
        identity.fingerprint(adopted)
        return adopted, store_id
    if plan.new_key:
        addresses = map(config.parse_address, plan.advertise)
        return bucket_setup.adopt_with_new_key(plan.store, plan.bucket, addresses)
    return bucket_setup.make(plan.store, plan.bucket, adopt=plan.adopt)


def drop_in(plan: InitOptions) -> Path | None:
    """Return the file that opens the store to fullsendd.service; None if it needs none, or there is no systemd."""
    units = _units(plan)
    if units is None:
        return None
    needed = not plan.folder.is_relative_to(config.DEFAULT_STORE) or _has_other_user(plan)
    return units / _DROP_IN if needed else None


def hooks_drop_in(plan: InitOptions) -> Path | None:
    """Return the file with the user of fullsendd-hooks.service; None if it needs none, or there is no systemd."""
    units = _units(plan)
    return units / _HOOKS_DROP_IN if units is not None and _has_other_user(plan) else None


def advertised(listen: str, advertise: Sequence[str]) -> list[tuple[str, int]]:
    """Return the hosts and ports for invitations: those of `advertise`, else this host's name."""
    if advertise:
        return [config.parse_address(each) for each in advertise]
    host, port = config.parse_address(listen)
    return [(host or socket.getfqdn(), port)]


def _owner(user: str | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        owner = pwd.getpwnam(user)
    except KeyError:
        msg = f"--user {user}: no such user on this host"
        raise UsageError(msg) from None
    if os.geteuid() not in {0, owner.pw_uid}:
        msg = f"--user {user}: only root can give the store to another user"
        raise UsageError(msg)
    return owner


def _make_open_folders(folder: Path, *, for_all: bool) -> None:
    """Make a folder and its missing parents. `for_all`: all users may enter them, whatever the umask."""
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    make_folders(folder, 0o755)
    if for_all:
        for path in missing:
            path.chmod(0o755)


def _make_config_folder(folder: Path, *, for_all: bool) -> None:
    """Make the folder of the configuration, before the store: a failure must come before the store exists."""
    try:
        _make_open_folders(folder, for_all=for_all)
    except OSError as error:
        msg = f"{folder}: cannot be created: {error.strerror}"
        raise UsageError(msg) from None
    if not os.access(folder, os.W_OK):
        msg = f"{folder}: uid {os.geteuid()} cannot write to it; run this as root, or name a file with --config"
        raise UsageError(msg)


def _make_parents(root: Path) -> None:
    """Make the missing parents of a store for another user. `make_store` would make them for this user and group."""
    try:
        _make_open_folders(root.parent, for_all=True)
    except OSError as error:
        msg = f"{root.parent}: cannot be created: {error.strerror}"
        raise UsageError(msg) from None


def _check_access(path: Path, owner: pwd.struct_passwd) -> None:
    """Warn of an existing folder that keeps the store's user out."""
    if owner.pw_uid == 0:
        return
    groups = os.getgrouplist(owner.pw_name, owner.pw_gid)
    for folder in reversed(path.parents):
        found = folder.stat()
        shift = 6 if found.st_uid == owner.pw_uid else 3 if found.st_gid in groups else 0
        if not found.st_mode >> shift & 0o1:
            log.warning(
                "%s: closed to user %s, who must reach %s: `chmod o+x` opens it", folder, owner.pw_name, path.name
            )


def _has_other_user(plan: InitOptions) -> bool:
    """Whether the store belongs to another user than that of the units."""
    return plan.user not in {None, _SERVICE_USER}


def _units(plan: InitOptions) -> Path | None:
    if plan.units is not None:
        return plan.units
    for_service = os.geteuid() == 0 and plan.config.absolute() == config.DEFAULT_FILE
    return _UNITS if for_service and _UNITS.is_dir() else None


def _open_to_service(plan: InitOptions, root: Path, owner: pwd.struct_passwd | None) -> None:
    """Write the drop-ins that are needed. An error is logged, and is not a failure: the store works without them."""
    shown = printable(str(root))
    if _units(plan) is not None and (owner is None or owner.pw_uid == 0) and os.geteuid() == 0:
        log.warning(
            "%s belongs to root, while fullsendd.service runs as %s: for that service, `chown -R %s: %s`",
            *(shown, _SERVICE_USER, _SERVICE_USER, shlex.quote(shown)),
        )
    if (file := drop_in(plan)) is not None:
        without = f"fullsendd.service cannot write to {shown}: add ReadWritePaths= with that path under [Service]"
        _write_drop_in(file, lambda: _render_drop_in(root, owner), without)
    if owner is not None and (file := hooks_drop_in(plan)) is not None:
        without = f"fullsendd-hooks.service cannot read {shown}: add User={owner.pw_name} under [Service]"
        _write_drop_in(file, lambda: _render_hooks_drop_in(owner), without)


def _write_drop_in(file: Path, render: Callable[[], str], without: str) -> None:
    """Write a drop-in. An error is logged. `render`: its text; `without`: what happens without it, and what to do."""
    try:
        text = render()
        _make_open_folders(file.parent, for_all=True)
        replace_file(file, text.encode(), 0o644)
        file.chmod(0o644)
    except (OSError, UsageError) as error:
        log.warning("%s: cannot be written: %s. Without it %s", file, error, without)


def _render_drop_in(root: Path, owner: pwd.struct_passwd | None) -> str:
    """Return the drop-in's text. Raises: UsageError if a unit file cannot contain the path."""
    store = _unit_word(str(root))
    writable = _unit_word(f"-{root}")
    lines = [
        "# Made by `fullsendd init`: the store's folder, to which fullsendd.service may write.",
        "[Unit]",
        "# At boot, mount its disk first.",
        f"RequiresMountsFor={store}",
        "",
        "[Service]",
        '# "-": if the folder is missing, fullsendd has a better error than systemd.',
        f"ReadWritePaths={writable}",
    ]
    places = {root, root.resolve()}
    for setting, folders in _HIDDEN.items():
        if any(place.is_relative_to(folder) for place in places for folder in folders):
            lines.append(setting)
    if owner is not None and owner.pw_name != _SERVICE_USER:
        lines += _user_lines(owner)
    return "\n".join(lines) + "\n"


def _render_hooks_drop_in(owner: pwd.struct_passwd) -> str:
    head = "# Made by `fullsendd init`: the user of fullsendd.service, who owns the store."
    return "\n".join([head, "[Service]", *_user_lines(owner)]) + "\n"


def _user_lines(owner: pwd.struct_passwd) -> list[str]:
    return [f"User={owner.pw_name}", f"Group={owner.pw_gid}"]


def _unit_word(text: str) -> str:
    """Quote one word of a unit file. Within quotes a backslash escapes the next character, and % begins a specifier. A
    line break cannot be written.

    Raises: UsageError.
    """
    if set("\r\n") & set(text):
        msg = "a unit file cannot contain a path with a line break"
        raise UsageError(msg)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{quoted}"'


def _change_owner(root: Path, owner: pwd.struct_passwd) -> None:
    """Give a folder, all of it, to the store's user. By descriptors: the former owner of an adopted store may change
    paths in it.
    """
    for _path, folders, files, descriptor in os.fwalk(root, follow_symlinks=False):
        os.chown(descriptor, owner.pw_uid, owner.pw_gid)
        for name in folders + files:
            os.chown(name, owner.pw_uid, owner.pw_gid, dir_fd=descriptor, follow_symlinks=False)
