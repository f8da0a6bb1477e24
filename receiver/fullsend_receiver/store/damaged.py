"""What was set aside because it is damaged: STORE/.partial/*.damaged. None of it counts as stored or as a partial.

    KEY.data.damaged, KEY.journal.damaged    a partial that has lost data (see `partials.examining`)
    ID.zst.damaged, ID.sha256.damaged        a stream that was replaced by one that is whole (see `commits`)
    ID.json.damaged                          a copy of its manifest
    ID.about.damaged                         where it was stored, when and why it was set aside

The time of modification of each file is the time of setting aside; `discard_damaged` deletes by that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from fullsend_protocol.format.manifest import Manifest
from fullsend_protocol.shared.units import format_time
from fullsend_receiver.store import journal
from fullsend_receiver.store.api import AsideStream
from fullsend_receiver.store.durable import size_of
from fullsend_receiver.store.errors import ManifestError, PartialDamaged

if TYPE_CHECKING:
    from fullsend_receiver.store.layout import Layout

log = logging.getLogger("fullsendd")

DAMAGED: Final = ".damaged"
ZST: Final = ".zst"
ABOUT: Final = ".about"
MANIFEST: Final = ".json"
_DATA: Final = ".data"
_JOURNAL: Final = ".journal"
_FORMAT: Final = 1
#: The sender of what does not show whose it is.
UNKNOWN: Final = "?"
#: A manifest of SUBSTREAMS_MAX snapshots is far smaller.
_TEXT_MAX: Final = 64 << 20


def aside_path(store: Layout, name: str, suffix: str) -> Path:
    """Return the path of a file that is set aside. `name`: an ID, or a partial's key."""
    return store.partial / f"{name}{suffix}{DAMAGED}"


def about_text(file: PurePosixPath, why: str) -> bytes:
    """Return the content of an `ID.about.damaged` that is written now. `file`: where the stream was stored."""
    said = {"format": _FORMAT, "file": str(file), "at": format_time(time.time()), "why": why}
    return json.dumps(said, indent=1).encode() + b"\n"


def move_aside(store: Layout, path: Path, name: str, suffix: str) -> None:
    """Rename a file, if it exists, so that it counts as set aside; the caller syncs the folders. May be repeated."""
    with contextlib.suppress(OSError):  # without it the file is only deleted earlier
        os.utime(path)
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside_path(store, name, suffix))


def listed_aside(store: Layout, sender: str | None) -> Iterator[AsideStream]:
    """Yield what is set aside. See `Store.set_aside`."""
    for path in sorted(store.partial.glob(f"*{DAMAGED}")):
        name, suffix = path.name.removesuffix(DAMAGED).rsplit(".", 1)
        found = None
        try:
            if f".{suffix}" == ABOUT:
                found = _stream(store, name, path)
            elif f".{suffix}" == _DATA:
                found = _partial(store, name, path)
        except OSError as error:
            log.error("%s: cannot be examined: %s", path, error)  # noqa: TRY400 - where says nothing
        if found is not None and sender in {None, found.sender}:
            yield found


def aside_manifest(store: Layout, name: str) -> Manifest:
    """Read the manifest of a stream that is set aside. Raises: ManifestError."""
    path = aside_path(store, name, MANIFEST)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise ManifestError(path.name, f"cannot be read: {why}") from None


def discard_damaged(store: Layout, before: float) -> None:
    """Remove what was set aside before that moment. See `Store.discard_damaged`."""
    for path in sorted(store.partial.glob(f"*{DAMAGED}")):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
                log.warning("%s: was set aside as damaged, and is deleted (damaged-keep)", path)
        except OSError as error:
            log.error("%s: cannot be deleted: %s", path, error)  # noqa: TRY400


def _stream(store: Layout, name: str, path: Path) -> AsideStream:
    """Read about a stream. A record that cannot be read still shows that something is set aside."""
    said: Any = None
    with contextlib.suppress(ValueError):
        said = json.loads(path.read_bytes()[:_TEXT_MAX])
    said = said if isinstance(said, dict) else {}
    file = str(said.get("file", UNKNOWN))
    what = file.partition("/")[2] or file
    with contextlib.suppress(ManifestError):
        manifest = aside_manifest(store, name)
        what = f"{manifest.dataset}@{manifest.snapshot}"
    zst = aside_path(store, name, ZST)
    return AsideStream(
        name=name,
        sender=file.partition("/")[0],
        what=what,
        file=PurePosixPath(zst.relative_to(store.root)) if zst.exists() else None,
        stored_bytes=size_of(zst),
        at=path.stat().st_mtime,
        why=str(said.get("why", "?")),
    )


def _partial(store: Layout, name: str, path: Path) -> AsideStream:
    """Read about a partial."""
    lines = aside_path(store, name, _JOURNAL)
    opened = None
    with contextlib.suppress(OSError, PartialDamaged):
        opened = journal.read_opened(lines)
    return AsideStream(
        name=name,
        sender=opened.sender if opened else UNKNOWN,
        what=f"{opened.offer.dataset}@{opened.offer.snapshot}" if opened else "?",
        file=None,
        stored_bytes=size_of(path),
        at=path.stat().st_mtime,
        why="a part that had arrived was damaged",
    )
