"""Who copies from one store into another now: one process of all hosts that serve the store.

copying.STORE.json  {"format": 1, "token", "host", "beat"}, in the store that is copied from; STORE: the other one's id

The owner changes `beat` at intervals. Another process that finds a claim looks whether it changes. If it does not for
long, its owner is dead, or stalled: the claim is taken over. No clock of any host decides, only the time that passes
for the one who looks. Of this host's claims the lock says at once whether their owner lives.

The claim saves work, and is no lock: what two copiers do at the same time stays right. Each fences the other's uploads,
and one copy of a stream is put in place.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from fullsend_protocol.format.manifest import DiskModel
from fullsend_protocol.shared.errors import FullsendError, reason
from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.shared.units import printable
from fullsend_receiver.store.api import Documents, Store, update
from fullsend_receiver.store.errors import StoreError

log: Final = logging.getLogger("fullsendd")

#: Seconds between two changes of `beat`.
_BEAT_EVERY: Final = 60.0
#: Seconds for which a claim must not change before it is taken over. docs/operations.md promises it.
PATIENCE: Final = 900.0
#: Seconds without a successful beat after which an owner ends its run: before another one takes over.
_GIVES_UP: Final = 600.0
#: Seconds between two looks at the claim of another.
_LOOK_EVERY: Final = 10.0


class CopyBusy(FullsendError):  # noqa: N818 - reads as what it says
    """Another process copies from this store into that one."""

    exit_code = Exit.RUNNING


class CopyClaimNote(DiskModel):
    """The claim. `token`: of its owner, empty: nobody has it; `host`: that of its owner; `beat`: changes while it
    lives.
    """

    format: Literal[1] = 1
    token: str = ""
    host: str = ""
    beat: int = 0


def host_of(store: Store) -> str:
    """Return what names this host among those that serve a store: its name first, its machine id, if it has one, and
    the folder with its locks.
    """
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip()
    return f"{socket.gethostname()} {machine} {store.home}"


def name_of(store_id: str) -> str:
    """Return the name of the document. `store_id`: of the store that is copied into."""
    return f"copying.{store_id}.json"


@contextlib.contextmanager
def claimed(
    store: Store,
    store_id: str,
    lost: Callable[[], None],
    *,
    tell: Callable[[str], None] = lambda _: None,
    stop: threading.Event | None = None,
    beat_every: float = _BEAT_EVERY,
    look_every: float = _LOOK_EVERY,
    patience: float = PATIENCE,
) -> Iterator[None]:
    """Be the only process that copies from `store` into the store `store_id`, until the context ends. Blocks.

    `lost`: is called, in another thread, if the claim was taken over, or could not be renewed for long; `tell`: takes a
    line for a person while this waits; `stop`: ends the wait; the others: seconds.

    Raises: CopyBusy if another process copies, or `stop` was set; OSError, StoreError.
    """
    stop = stop or threading.Event()
    with store.alone(f"copying.{store_id}") as mine:
        if not mine:
            msg = "another process of this host copies into that store: wait for its end"
            raise CopyBusy(msg)
        token = secrets.token_hex(8)
        note = CopyClaimNote(token=token, host=host_of(store))
        _take(store.documents, name_of(store_id), note, tell, stop, look_every=look_every, patience=patience)
        beating = _Beating(store.documents, name_of(store_id), token, lost, beat_every)
        try:
            yield
        finally:
            beating.end()


def _take(
    documents: Documents,
    name: str,
    note: CopyClaimNote,
    tell: Callable[[str], None],
    stop: threading.Event,
    *,
    look_every: float,
    patience: float,
) -> None:
    seen: str | None = None
    since = time.monotonic()
    while True:
        found = documents.get(name)
        held = _parse(None if found is None else found.data)
        is_free = not held.token or held.host == note.host  # the lock says that its owner is dead
        if is_free or (seen is not None and found is not None and found.tag == seen and _passed(since, patience)):
            if documents.put(name, _dump(note), if_match=None if found is None else found.tag):
                return
            continue
        shown = printable(held.host.partition(" ")[0])
        if found is not None and seen is None:
            seen, since = found.tag, time.monotonic()
            wait = f"waiting for a sign, for {patience / 60:g} min at most"
            tell(f"the host {shown} copies, or was stopped amid it: {wait}")
        elif found is not None and found.tag != seen:
            msg = f"the host {shown} copies into that store: wait for its end"
            raise CopyBusy(msg)
        if stop.wait(look_every):
            msg = f"the host {shown} may copy into that store, and this run was told to end"
            raise CopyBusy(msg)


def _passed(since: float, seconds: float) -> bool:
    return time.monotonic() - since >= seconds


class _Beating:
    """Renews a claim in a thread of its own, until `end`."""

    def __init__(self, documents: Documents, name: str, token: str, lost: Callable[[], None], every: float) -> None:
        """Starts the thread."""
        self._documents = documents
        self._name = name
        self._token = token
        self._lost = lost
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="copy-claim", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread, and give the claim back, if it is still there. Logs what goes wrong."""
        self._ended.set()
        self._thread.join()
        try:
            update(self._documents, self._name, self._free)
        except (OSError, StoreError) as error:
            log.warning("the claim of this copy cannot be given back: %s", reason(error))

    def _free(self, data: bytes | None) -> bytes | None:
        held = _parse(data)
        return _dump(CopyClaimNote(beat=held.beat + 1)) if held.token == self._token else None

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(self._every):
            try:
                if not self._beat():
                    log.warning("another process has taken this copy over: this one ends")
                    self._lost()
                    return
                last = time.monotonic()
            except (OSError, StoreError) as error:
                log.warning("the claim of this copy cannot be renewed: %s", reason(error))
                if _passed(last, _GIVES_UP):
                    self._lost()
                    return

    def _beat(self) -> bool:
        """Renew the claim. Returns: whether it is still this one's."""
        found = self._documents.get(self._name)
        held = _parse(None if found is None else found.data)
        if found is None or held.token != self._token:
            return False
        said = held.model_copy(update={"beat": held.beat + 1})
        return self._documents.put(self._name, _dump(said), if_match=found.tag)


def _parse(data: bytes | None) -> CopyClaimNote:
    """Return the claim; one that cannot be read is nobody's."""
    try:
        return CopyClaimNote() if data is None else CopyClaimNote.model_validate_json(data)
    except ValidationError:
        return CopyClaimNote()


def _dump(note: CopyClaimNote) -> bytes:
    return json.dumps(note.model_dump(mode="json")).encode() + b"\n"
