"""Sixteen questions at once about a store of many streams: the daemon's memory and time, the catalogue's part of them.

The streams have names, manifests and no data worth speaking of: what is measured is what is kept of each.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from bench.measure import BenchError
from bench.report import Budget
from tests.receiver.helpers import plant
from tests.receiver.running import serving

from fullsend_receiver.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.report import Results
    from tests.receiver.running import Receiver

_STREAMS: Final = 100_000
_QUICK: Final = 5_000
_A_DATASET: Final = 1_000
_AT_ONCE: Final = 16
#: What is asked, each by all connections at once: the message, and the rest of it.
_QUESTIONS: Final = {"bases?": {}, "status?": {}, "list": {"dataset": None}}
_MIB: Final = 1 << 20
#: Seconds that a connection waits for its answer.
_PATIENCE: Final = 600.0


def ask_at_once(results: Results, folder: Path, say: Callable[[str], None], *, quick: bool) -> None:
    """Store the streams, ask, and report the daemon's peak and how long the last answer took."""
    streams = _QUICK if quick else _STREAMS
    with serving(folder / "questions", "alpha", pure=True, silence="1h") as receiver:
        say(f"storing {streams} streams")
        store = Store(receiver.store)
        for number in range(streams):
            name = f"fullsend-0123abcd-{number:08}"
            base = number if number % _A_DATASET else None  # a full, and increments
            dataset = f"tank/home/user-{number // _A_DATASET:04}"
            plant(store, name, number + 1, base, dataset=dataset, created="2026-11-24T00:00:00Z")
        receiver.stop()
        receiver.start(pure=True)
        before = receiver.held
        for question, fields in _QUESTIONS.items():
            receiver.reset_peak()
            seconds = _ask(receiver, question, fields)
            held = (receiver.peak - before) / _MIB
            text = f"{_AT_ONCE} times `{question}` at once, {streams:,} streams"
            say(f"{text}: {seconds:.1f} s, {held:.0f} MiB above {before / _MIB:.0f} MiB")
            results.budgets.append(Budget(f"{text}: memory", None, [held], " MiB", at_least=False))
            results.budgets.append(Budget(f"{text}: the last answer", None, [seconds], " s", at_least=False))
        kept = receiver.held - before
        results.budgets.append(
            Budget("kept of each stream afterwards", None, [kept / streams], " bytes", at_least=False)
        )
        say(f"kept afterwards: {kept / streams:.0f} bytes a stream")


def _ask(receiver: Receiver, question: str, fields: dict[str, None]) -> float:
    """Ask over all connections at once. Returns: seconds until the last one has its answer."""
    failures: list[BaseException] = []

    def one() -> None:
        try:
            with receiver.peer() as peer:
                peer.sock.settimeout(_PATIENCE)
                ready.wait()
                peer.say(question, **fields)
                while peer.hear(question.removesuffix("?"), "entries", "done")["type"] != "done":
                    pass
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)
            ready.abort()

    ready = threading.Barrier(_AT_ONCE + 1)
    threads = [threading.Thread(target=one) for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    if failures:
        msg = f"{question}: {failures[0]}"
        raise BenchError(msg)
    return time.monotonic() - began
