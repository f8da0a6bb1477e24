"""A whole host is lost: the steps of docs/operations.md, "Is a host lost?", with real processes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.programs import Receiver, Sender, good, started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FULL = streams.substream(streams.object_(1), name="tank/data@one", guid=101)
INCREMENT = streams.substream(streams.object_(2), name="tank/data@two", guid=102, base_guid=101)


def restored(host: Sender, *options: str) -> bytes:
    return good(host.fullsend("cat", "tank/data@one", *options))


def test_the_storage_host_and_its_disk_is_there(receiver: Receiver, sender: Sender, tmp_path: Path) -> None:
    sender.push("--stdin", stdin=FULL)
    receiver.stop()
    (tmp_path / "new").mkdir()
    new = Receiver(tmp_path / "new", port=receiver.port)
    receiver.store.rename(new.store)
    new.init("--adopt")
    with started(new):
        assert restored(sender) == FULL
        (pushed,) = sender.push("--stdin", stdin=INCREMENT)
        assert pushed["receipt"]["restorable"]


def test_the_storage_host_and_its_disk_but_not_the_copy(receiver: Receiver, sender: Sender, tmp_path: Path) -> None:
    sender.push("--stdin", stdin=FULL)
    copy = Receiver(tmp_path / "copy")
    copy.init()
    good(receiver.fullsendd("copy", "--to", copy.env["FULLSENDD_CONFIG"]))
    receiver.stop()
    shutil.rmtree(receiver.store)
    (copy.folder / "receiver.toml").unlink()  # it was on the storage host
    copy.init("--adopt")
    with started(copy):
        line = copy.invite("alpha", "--replace")
        good(sender.fullsend("join", line, "--as", "offsite"))
        config = sender.folder / "sender.toml"
        text = config.read_text(encoding="utf-8")
        head, offsite = text.split("[receivers.offsite]")
        assert good(sender.fullsend("list", "--receiver", "offsite", "--json"))
        config.write_text(head.partition("[receivers.")[0] + "[receivers.offsite]" + offsite, encoding="utf-8")
        assert restored(sender) == FULL
        (pushed,) = sender.push("--stdin", stdin=INCREMENT)
        assert pushed["receipt"]["restorable"]
