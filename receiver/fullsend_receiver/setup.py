"""`fullsendd init`: a store, an identity, a configuration file; or the configuration for a store that is there."""

from __future__ import annotations

import os
import pwd
import shutil
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
    if plan.adopt:
        store, store_id = Store(root), read_id(root)
    else:
        store, store_id = make_store(root)
        try:
            identity.make_identity(store)
        except BaseException:
            _unmake(store)
            raise
        if owner is not None:
            _give(store, owner)
    make_folders(plan.config.absolute().parent, Path("/"), 0o755)
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


def _give(store: Store, owner: pwd.struct_passwd) -> None:
    """Make a new store, all of it, its user's."""
    for path in [store.root, *store.root.rglob("*")]:
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _unmake(store: Store) -> None:
    """Take back a store that has just been made and holds nothing."""
    shutil.rmtree(store.state, ignore_errors=True)
    shutil.rmtree(store.partial, ignore_errors=True)
    store.marker.unlink(missing_ok=True)
