"""The store: one folder that holds everything, identity included (docs/format.md).

STORE/.fullsend     marker: format version and random id, made only by `init`
STORE/.state/       identity, senders, invitations, and what may change: scrub results
STORE/.partial/     what is still arriving
STORE/SENDER/...    streams
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fullsend_protocol.errors import ErrorCode, FullsendError, UsageError
from fullsend_receiver.durable import replace_file, sync_folder

_FORMAT: Final = 1
_MARKER: Final = ".fullsend"


class StoreError(FullsendError):
    """The store is missing, not mounted, read-only, full, or unfit."""

    code = ErrorCode.STORE


@dataclass(frozen=True, slots=True)
class Store:
    """The paths of a store. Making one touches nothing; `open_store` and `make_store` give one that is there."""

    root: Path

    @property
    def marker(self) -> Path:
        """The file that says this is a store."""
        return self.root / _MARKER

    @property
    def state(self) -> Path:
        """The folder of what may change."""
        return self.root / ".state"

    @property
    def partial(self) -> Path:
        """The folder of what is still arriving."""
        return self.root / ".partial"

    @property
    def lock(self) -> Path:
        """Held by whoever changes anything in `.state`, for that change alone."""
        return self.state / "lock"

    @property
    def certificate(self) -> Path:
        """The receiver's certificate (PEM)."""
        return self.state / "certificate.pem"

    @property
    def key(self) -> Path:
        """The receiver's private key (PEM)."""
        return self.state / "key.pem"

    def free_bytes(self) -> int:
        """Return what an unprivileged process may still write, in bytes."""
        return shutil.disk_usage(self.root).free


def make_store(root: Path) -> tuple[Store, str]:
    """Make a new store in an empty or missing folder; parents are made too.

    Returns: the store, and the id in its marker. Raises: UsageError where something is there already.
    """
    store = Store(root)
    if store.marker.exists():
        msg = f"{root}: is a store already; take it over with --adopt"
        raise UsageError(msg)
    try:
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        if any(entry.name != "lost+found" for entry in root.iterdir()):
            msg = f"{root}: not empty and no store; choose an empty folder"
            raise UsageError(msg)
        store.state.mkdir(mode=0o700)
        store.partial.mkdir(mode=0o700)
        store_id = secrets.token_hex(16)
        # The marker comes last: a store with a marker is whole.
        replace_file(store.marker, json.dumps({"format": _FORMAT, "id": store_id}).encode() + b"\n", 0o640)
        sync_folder(root.parent)
    except OSError as error:
        msg = f"{root}: cannot make a store: {error}"
        raise StoreError(msg) from None
    return store, store_id


def read_id(root: Path) -> str:
    """Return the id in a store's marker. Raises: StoreError where there is none, or of another format."""
    try:
        marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
        store_format, store_id = marker["format"], str(marker["id"])
    except FileNotFoundError:
        msg = f"{root}: no store here (no file {_MARKER}): is its disk mounted?"
        raise StoreError(msg) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{root / _MARKER}: cannot be read: {error}"
        raise StoreError(msg) from None
    if store_format != _FORMAT:
        msg = f"{root}: a store of format {store_format}; this fullsendd reads format {_FORMAT}"
        raise StoreError(msg)
    return store_id


def open_store(root: Path, store_id: str) -> Store:
    """Return the store at `root`. Raises: StoreError where it is missing, or has another id than `store_id`."""
    found = read_id(root)
    if found != store_id:
        msg = f"{root}: is store {found}, but the configuration names {store_id}: another disk is mounted there"
        raise StoreError(msg)
    return Store(root)


def check_fitness(store: Store) -> None:
    """Try what the promises rest on: rename, fsync of a folder, names that differ in case.

    Raises: StoreError, saying what this file system does not do. Leaves nothing behind.
    """
    probe = store.state / f"Probe-{secrets.token_hex(4)}"
    renamed = probe.with_name(probe.name + ".renamed")
    try:
        probe.write_bytes(b"probe")
        if probe.with_name(probe.name.swapcase()).exists():
            msg = f"{store.root}: its file system takes upper and lower case for the same; choose another"
            raise StoreError(msg)
        probe.rename(renamed)
        sync_folder(store.state)
        if not os.access(store.root, os.W_OK):
            msg = f"{store.root}: cannot be written to by uid {os.geteuid()}"
            raise StoreError(msg)
    except OSError as error:
        msg = f"{store.root}: not fit for a store: {error}"
        raise StoreError(msg) from None
    finally:
        probe.unlink(missing_ok=True)
        renamed.unlink(missing_ok=True)
