"""Writes a store, a partial, and the sender that they belong to, by the version of the checkout that it is run in.

    cd /tmp/older && PYTHONPATH=.:protocol:receiver:sender .venv/bin/python .../make.py FOLDER

It uses the programs of that checkout, and what its tests share. README.md says of which version the files here are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from tests import streams
from tests.programs import Receiver, Sender, good, serving, wait_for
from tests.receiver.helpers import PROGRAM, chunks_of, finish_of, push_of, take

from fullsend_protocol.wire.messages import UnchangedDataset
from fullsend_receiver.arrival import overruns
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.arrival.overruns import OverrunRecord
from fullsend_receiver.catalogue import search, summaries, unchanged
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.opened import open_offer, partial_key

WHOLE = ("full", "incr", "tree-R", "full-enc-w", "odd-name")


class StoppedError(Exception):
    """The daemon is killed, as it were."""


def push_all(receiver: Receiver, sender: Sender) -> None:
    """Have streams stored, one of them damaged and known to be, and one that arrives in part."""
    for name in WHOLE:
        sender.push("--stdin", stdin=streams.named(name).read())
    (entry,) = sender.list(dataset_of("odd-name"))
    damaged = receiver.store / entry["file"]
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.chmod(0o640)
    damaged.write_bytes(content)
    assert receiver.fullsendd("verify").returncode == 1
    push = sender.popen("push", "--stdin", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert push.stdin is not None
    push.stdin.write(streams.named("long").read()[: 10 << 20])
    push.stdin.flush()
    wait_for(lambda: any(each["raw_bytes"] for each in sender.list("--partial")))
    push.kill()
    push.communicate()
    wait_for(lambda: not any(each["arriving"] for each in sender.list("--partial")))
    receiver.invite("beta")


def dataset_of(name: str) -> str:
    """The dataset of a genuine stream."""
    return push_of(streams.named(name).read()).dataset


def interrupt_commit(store: LocalStore, sender: str) -> None:
    """Leave a stream that is proven, and of which nothing is in place yet."""
    raw = streams.named("incr-2").read()
    more = {"zfs_version": "zfs-2.4.4", "properties": {"compression": "lz4"}, "size_estimate": len(raw)}
    push = push_of(raw).model_copy(update=more)
    ingest = Ingest(store.begin(partial_key(sender, push), open_offer(sender, push)))
    take(ingest, chunks_of(raw))
    with patch("fullsend_receiver.store.uploads.put_in_place", side_effect=StoppedError):
        try:
            commit(Catalogues(store), sender, ingest, finish_of(raw), push, sender_program=PROGRAM)
        except StoppedError:
            ingest.partial.close(keep=True)


def note_more(store: LocalStore, sender: str) -> None:
    """Write what only happens in a large or a full store."""
    seen = [
        UnchangedDataset(dataset=each.summary.dataset, snapshot=each.summary.snapshot, guid=each.summary.guid)
        for each in read_catalogue(store, sender).streams
    ]
    unchanged.note(read_catalogue(store, sender), sender, seen)
    overruns.note(store, sender, push_of(streams.named("full-vol").read()), OverrunRecord(400_000, 300_000))
    with patch.object(summaries, "_WORTH", 1):
        time.sleep(4)  # what has just changed is not copied
        search.find_streams(store, sender)


def main(target: Path) -> None:
    """Make the folders `store` and `sender` in this one."""
    with tempfile.TemporaryDirectory() as folder:
        receiver = Receiver(Path(folder, "receiver"))
        with serving(receiver, min_free=0):
            sender = Sender(Path(folder, "sender"), "alpha")
            sender.join(receiver)
            push_all(receiver, sender)
        store = LocalStore(receiver.store)
        note_more(store, sender.name)
        interrupt_commit(store, sender.name)
        good(receiver.fullsendd("list"))
        for name, source in (("store", receiver.store), ("sender", sender.folder)):
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("lock", "serving"))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
