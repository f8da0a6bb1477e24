"""`fullsendd init`: a store, an identity, a configuration file; or the configuration for a store that is there."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

from fullsend_protocol.errors import UsageError
from fullsend_receiver import config, identity
from fullsend_receiver.durable import make_folders, replace_file
from fullsend_receiver.store import Store, make_store, read_id


@dataclass(frozen=True, slots=True)
class Plan:
    """What `init` was asked for. `user`: who shall own the store, None: whoever runs it."""

    config: Path
    store: Path
    listen: str
    advertise: str | None
    user: str | None
    adopt: bool


def init(plan: Plan) -> str:
    """Carry the plan out. Returns: the receiver's fingerprint.

    Raises: UsageError, StoreError; checks come first, and nothing that is there is overwritten.
    """
    owner = _owner(plan.user)
    config.parse_address(plan.listen)
    if plan.advertise is not None:
        config.parse_address(plan.advertise)
    if plan.config.exists():
        msg = f"{plan.config}: is there already; it would be overwritten"
        raise UsageError(msg)
    root = plan.store.absolute()
    config.render(root, "", plan.listen, plan.advertise)  # can it be written down?
    folder = plan.config.absolute().parent
    _make_config_folder(folder)
    if plan.adopt:
        store, store_id = Store(root), read_id(root)
        identity.fingerprint(store)
    else:
        store, store_id = make_store(root, identity.make_identity)
    if owner is not None:
        _give(store, owner)
    text = config.render(root, store_id, plan.listen, plan.advertise)
    replace_file(plan.config, text.encode(), 0o644)
    return identity.fingerprint(store)


def advertised(listen: str, advertise: str | None) -> tuple[str, int]:
    """Return the host and port that an invitation names: what was said, else this host's name."""
    if advertise is not None:
        return config.parse_address(advertise)
    host, port = config.parse_address(listen)
    return host or socket.getfqdn(), port


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


def _make_config_folder(folder: Path) -> None:
    """Before a store is made: it would be a pity to find out afterwards."""
    try:
        make_folders(folder, 0o755)
    except OSError as error:
        msg = f"{folder}: cannot be made: {error.strerror}"
        raise UsageError(msg) from None
    if not os.access(folder, os.W_OK):
        msg = f"{folder}: cannot be written to by uid {os.geteuid()}; run this as root, or name a file with --config"
        raise UsageError(msg)


def _give(store: Store, owner: pwd.struct_passwd) -> None:
    """Make a store, all of it, its user's. By descriptors: who owned an adopted one may still change paths in it."""
    for _path, folders, files, descriptor in os.fwalk(store.root, follow_symlinks=False):
        os.chown(descriptor, owner.pw_uid, owner.pw_gid)
        for name in folders + files:
            os.chown(name, owner.pw_uid, owner.pw_gid, dir_fd=descriptor, follow_symlinks=False)
