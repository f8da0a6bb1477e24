"""kill -9 at every point: a process that runs the real code and kills itself at its n-th call that changes a disk.

    crasher = Crasher()
    for at in itertools.count(1):
        outcome = crasher.run("push", folder, at=at)
        if not outcome.killed: break

This module is also the program: it waits for commands, forks for each, and counts and kills in the child alone; the
code under test has no hook. `told` is what the scenario said before it died: what a receiver would have told its peer.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from tests import streams
from tests.receiver import helpers

from fullsend_protocol.format.manifest import Resume, Resumption
from fullsend_protocol.wire.messages import Finish
from fullsend_receiver.access import senders
from fullsend_receiver.access.policies import Policy
from fullsend_receiver.arrival.commit import commit
from fullsend_receiver.arrival.ingest import Ingest
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.maintenance.merging import Merger
from fullsend_receiver.maintenance.plans import MergeRules, PruneRules
from fullsend_receiver.maintenance.prune import Judged, Pruner
from fullsend_receiver.maintenance.scrub import rebuild
from fullsend_receiver.maintenance.undelete import undelete
from fullsend_receiver.store.api import TrashedStream
from fullsend_receiver.store.durable import replace_file
from fullsend_receiver.store.local import LocalStore, make_store
from fullsend_receiver.store.opened import open_offer, partial_key
from fullsend_receiver.store.recovery import recover

if TYPE_CHECKING:
    from collections.abc import Callable

    from fullsend_protocol.wire.connection import Chunk

#: Calls that change what is on the disk, or make it durable.
CALLS: Final = ("write", "fdatasync", "fsync", "ftruncate", "rename", "replace", "link", "unlink", "mkdir")


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `call`: the name of the one it was killed at."""

    killed: bool
    told: tuple[str, ...]
    call: str | None


class Crasher:
    """The program, kept running: to start Python for every point would take minutes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.receiver.crash"],
            cwd=streams.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, scenario: str, folder: Path, *arguments: str, at: int = 0, call: str | None = None, torn: bool = False
    ) -> Outcome:
        """Run a scenario in a folder; kill it just before its `at`-th call (0: never), or `torn` amid a write.

        `call`: count only calls of this name.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([scenario, str(folder), arguments, at, call, torn]), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return Outcome(answer["killed"], tuple(answer["told"]), answer["call"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# --- scenarios --------------------------------------------------------------------------------------------------

#: Three chunks, each a batch of its own.
RAW: Final = helpers.long_stream(2, tail=1)


@functools.cache
def chunks() -> tuple[Chunk, ...]:
    return tuple(helpers.chunks_of(RAW))


@functools.cache
def chunks_from(offset: int) -> tuple[Chunk, ...]:
    return tuple(helpers.chunks_from(RAW, offset))


def push(folder: Path, tell: Callable[[str], None]) -> None:
    """Take a stream and commit it, and tell what a receiver would tell its sender."""
    store = LocalStore(folder)
    offer = helpers.push_of(RAW)
    ingest = Ingest(store.begin(partial_key(helpers.SENDER, offer), open_offer(helpers.SENDER, offer)))
    for chunk in chunks():
        helpers.take_one(ingest, chunk)
        batch = ingest.batch()
        ingest.partial.sync(batch)
        tell(f"acknowledged {batch.offset}")
    finish = helpers.finish_of(RAW)
    file = commit(Catalogues(store), helpers.SENDER, ingest, finish, offer, sender_program=helpers.PROGRAM).receipt.file
    tell(f"stored {file}")


def push_at_once(folder: Path, tell: Callable[[str], None]) -> None:
    """Do the same with a stream of which nothing is acknowledged before its commit."""
    store = LocalStore(folder)
    offer = helpers.push_of(RAW)
    ingest = Ingest(store.begin(partial_key(helpers.SENDER, offer), open_offer(helpers.SENDER, offer)))
    for chunk in chunks():
        helpers.take_one(ingest, chunk)
    ingest.partial.take_last(ingest.batch())
    finish = helpers.finish_of(RAW)
    file = commit(Catalogues(store), helpers.SENDER, ingest, finish, offer, sender_program=helpers.PROGRAM).receipt.file
    tell(f"stored {file}")


def resume(folder: Path, how: Resume, tell: Callable[[str], None]) -> None:
    """Resume a stream that has arrived in part, to its end."""
    store = LocalStore(folder)
    offer = helpers.push_of(RAW)
    found = store.reopen(partial_key(helpers.SENDER, offer), at_resume_point=how == "token")
    assert found is not None
    partial, standing = found
    ingest = Ingest(partial, standing)
    partial.note_resumed(resumption := Resumption(how=how, offset=standing.offset, at="2026-11-23T06:30:00Z"))
    ingest.resumptions.append(resumption)
    tell(f"acknowledged {standing.offset}")
    for chunk in chunks_from(standing.offset):
        helpers.take_one(ingest, chunk)
        batch = ingest.batch()
        partial.sync(batch)
        tell(f"acknowledged {batch.offset}")
    finish = Finish(raw_bytes=len(RAW), segments=ingest.segments())
    file = commit(Catalogues(store), helpers.SENDER, ingest, finish, offer, sender_program=helpers.PROGRAM).receipt.file
    tell(f"stored {file}")


def start(folder: Path, tell: Callable[[str], None]) -> None:
    """What the daemon does first."""
    for line in recover(LocalStore(folder)):
        tell(line)


def rebuild_manifest(folder: Path, file: str, tell: Callable[[str], None]) -> None:
    rebuild(LocalStore(folder), PurePosixPath(file))
    tell("rebuilt")


def remove(folder: Path, *arguments: Any) -> None:
    *files, tell = arguments
    for file in LocalStore(folder).remove(lambda: map(PurePosixPath, files)):
        tell(str(file))


def to_trash(folder: Path, *arguments: Any) -> None:
    *files, tell = arguments
    for file in LocalStore(folder).remove(lambda: map(PurePosixPath, files), trash="t"):
        tell(str(file))


def back(folder: Path, *arguments: Any) -> None:
    *files, tell = arguments
    store = LocalStore(folder)
    for file in store.bring_back(lambda: [TrashedStream("t", PurePosixPath(each), 0) for each in files]):
        tell(str(file))


def empty(folder: Path, tell: Callable[[str], None]) -> None:
    for name in LocalStore(folder).empty_trash(lambda _folder: True):
        tell(name)


def prune(folder: Path, now: str, undelete_within: str, tell: Callable[[str], None]) -> None:
    """Keep the last snapshot of each dataset, and what it needs."""
    policy = Policy(last=1, minimum_count=0, minimum_age=0)
    rules = PruneRules(lambda _sender, _dataset: policy, undelete_within=float(undelete_within))
    for event in Pruner(LocalStore(folder), rules, float(now)).prune(helpers.SENDER, yes_more=True):
        if isinstance(event, Judged) and event.dropped:
            tell(event.decision.stream.path)


def merge_all(folder: Path, now: str, undelete_merged: str, tell: Callable[[str], None]) -> None:
    """Merge all that only other streams need."""
    policy = Policy(last=0, minimum_count=0, minimum_age=0)
    merging = MergeRules(rebase_after=0.0, rate=0, warn_at=1.0)
    rules = PruneRules(lambda _sender, _dataset: policy, undelete_merged=float(undelete_merged), merging=merging)
    for event in Merger(Catalogues(LocalStore(folder)), rules, float(now)).merge(helpers.SENDER):
        tell(type(event).__name__)


def bring_back(folder: Path, dataset: str, tell: Callable[[str], None]) -> None:
    for file in undelete(LocalStore(folder), helpers.SENDER, dataset, None, stored=[], now=1e9).back:
        tell(str(file))


def join(folder: Path, secret: str, certificate: str, tell: Callable[[str], None]) -> None:
    tell(senders.join(LocalStore(folder), secret, certificate).fingerprint)


def revoke(folder: Path, name: str, tell: Callable[[str], None]) -> None:
    senders.revoke(LocalStore(folder), name)
    tell("revoked")


def init(folder: Path, tell: Callable[[str], None]) -> None:
    tell(make_store(folder, lambda store: replace_file(store.state / "key.pem", b"key"))[1])


SCENARIOS: Final[dict[str, Callable[..., None]]] = {
    scenario.__name__: scenario
    for scenario in (
        *(
            push,
            push_at_once,
            resume,
            start,
            rebuild_manifest,
            remove,
            to_trash,
            back,
            empty,
            prune,
            merge_all,
            bring_back,
            join,
        ),
        *(revoke, init),
    )
}


# --- the program ------------------------------------------------------------------------------------------------


def main() -> None:
    helpers.push_of(RAW)
    chunks()  # before the forks, once
    for chunk in chunks():
        chunks_from(chunk.raw_offset)
    for line in sys.stdin:
        scenario, folder, arguments, *when = json.loads(line)
        work = functools.partial(SCENARIOS[scenario], Path(folder), *arguments)
        print(json.dumps(_run(work, *when)), flush=True)


def _run(work: Callable[[Callable[[str], None]], None], at: int, call: str | None, torn: bool) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_killed(work, at, {call} if call else set(CALLS), torn, writing)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = [json.loads(line) for line in pipe]
    _pid, status = os.waitpid(child, 0)
    answer: dict[str, Any] = {"told": [], "call": None}
    for name, text in said:
        if name == "told":
            answer["told"].append(text)
        else:
            answer[name] = text
    answer["killed"] = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not answer["killed"] and status:
        answer.setdefault("error", f"wait status {status}")
    return answer


def _be_killed(
    work: Callable[[Callable[[str], None]], None], at: int, counted_calls: set[str], torn: bool, writing: int
) -> None:
    """In the child: never returns."""
    real_write = os.write
    count = 0

    def say(name: str, text: str) -> None:
        real_write(writing, json.dumps([name, text]).encode() + b"\n")

    def killing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*positional: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                say("call", name)
                if torn and name == "write":
                    descriptor, data = positional
                    real_write(descriptor, bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*positional, **named)

        return counted

    try:
        for name in counted_calls:
            setattr(os, name, killing(name, getattr(os, name)))
        work(functools.partial(say, "told"))
    except BaseException:  # noqa: BLE001 - whatever it is, the test wants to see it
        say("error", traceback.format_exc())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
