"""A prune in a process of its own, beside a daemon that takes increments on what is about to be dropped."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from tests.receiver.helpers import SENDER, check_listed, finish_of, small_stream
from tests.receiver.peer import chunks, control, offer
from tests.receiver.running import Receiver, serving

from fullsend_receiver.access.policies import Policy
from fullsend_receiver.catalogue.streams import read_catalogue
from fullsend_receiver.maintenance.plans import PruneRules
from fullsend_receiver.maintenance.prune import Judged, Pruner
from fullsend_receiver.store.local import LocalStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PUSHERS: Final = 3
PUSHES: Final = 40
POLICY: Final = Policy(last=1, minimum_count=0, minimum_age=0.0)
#: Keeps the two newest snapshots of a dataset, with what they need. Chains here grow side by side, on purpose.
RULES: Final = PruneRules(lambda _sender, _dataset: POLICY, suspicious=False)


def push(receiver: Receiver, dataset: str, number: int, base: int | None, offset: int) -> str:
    """Push a stream. Returns: its file; the code of the error if it is refused."""
    raw = small_stream(dataset, number, base, offset=offset)
    guids = {"guid": str(offset + number), "base_guid": None if base is None else str(offset + base)}
    with receiver.peer() as peer:
        peer.write(control(offer(dataset, f"s{number}", **guids, flags="", keep_orphan=False)))
        answer = peer.hear("accept", "error")
        if answer["type"] == "error":
            return str(answer["code"])
        for chunk in chunks([raw]):
            peer.write(chunk.encode())
        peer.write(control({"type": "finish", **finish_of(raw).model_dump()}))
        receipt = peer.hear_after_acks("committed")["receipt"]
        assert receipt["restorable"]
        return str(receipt["file"])


def test_increments_keep_their_bases_or_are_refused(tmp_path: Path) -> None:
    done = threading.Event()
    dropped = 0
    with serving(tmp_path, SENDER) as receiver:

        def pusher(which: int) -> tuple[list[str], int]:
            """Push fulls, and increments on one of the last. Returns: what was stored, and how many were refused."""
            chance = random.Random(which)
            stored: list[tuple[int, str]] = []
            refused = 0
            for number in range(1, PUSHES + 1):
                base = chance.choice(stored[-5:])[0] if stored and chance.random() < 0.4 else None
                said = push(receiver, f"tank/d{which}", number, base, 1000 * (which + 1))
                if said.endswith(".zfs.zst"):
                    stored.append((number, said))
                else:
                    assert (said, base is None) == ("base", False)
                    refused += 1
            return [file for _number, file in stored], refused

        def pruner() -> int:
            count = 0
            while not done.is_set():
                events: Any = Pruner(LocalStore(receiver.store), RULES, time.time()).prune(SENDER, yes_more=True)
                count += sum(isinstance(event, Judged) and event.dropped for event in events)
            return count

        with ThreadPoolExecutor(PUSHERS + 1) as pool:
            pruning = pool.submit(pruner)
            pushing = [pool.submit(pusher, which) for which in range(PUSHERS)]
            try:
                results = [each.result() for each in pushing]
            finally:
                done.set()
            dropped = pruning.result()
        listed = {row["file"]: row["restorable"] for row in receiver.listed()}
    assert all(listed.values())
    for files, _refused in results:
        assert set(files[-2:]) <= set(listed)
    everything = sum(len(files) for files, _refused in results)
    assert dropped + len(listed) == everything
    assert dropped > everything // 4
    store = LocalStore(receiver.store)
    assert read_catalogue(store).problems == []
    assert set(check_listed(store)) == set(listed)
