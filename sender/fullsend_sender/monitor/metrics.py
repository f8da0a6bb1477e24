"""What this host's runs have done, as Prometheus' text in a file, for node_exporter's textfile collector.

A run knows its own datasets alone. So the file is also the memory: each run reads it, replaces what it knows better,
and writes all of it. Two runs that end at the same moment take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from fullsend_protocol import __version__
from fullsend_protocol.format.metrics_text import MetricFamily, build_info, parse_samples, render_families
from fullsend_protocol.shared.errors import reason
from fullsend_protocol.shared.exit_codes import Exit, worst
from fullsend_sender.host import durable
from fullsend_sender.push.gone import is_retired

if TYPE_CHECKING:
    from fullsend_protocol.shared.errors import FullsendError
    from fullsend_sender.host.config import SenderSettings
    from fullsend_sender.push.job import PushSummary
    from fullsend_sender.transfer.send import Pushed

_log: Final = logging.getLogger("fullsend.metrics")

#: Datasets in the file; above it those go whose last push is the longest ago.
DATASETS_MAX: Final = 2000

#: What a stream waits for: `zfs send`, the hash and the compression of its bytes, the wire, and the receiver.
STAGES: Final = ("source", "hash", "compression", "wire", "receiver")

_ABOUT: Final = {
    "push_last_attempt_timestamp_seconds": "When a push of the dataset last ended, well or not.",
    "push_last_success_timestamp_seconds": "When a push last ended with all of the dataset stored, or unchanged.",
    "push_last_failure_timestamp_seconds": "When a push of the dataset last failed; absent: never.",
    "push_last_exit_code": "Exit code that the last push of the dataset gives; 0: it is stored, or unchanged.",
    "push_last_raw_bytes": "Raw bytes of the stream that was sent last.",
    "push_last_wire_bytes": "Bytes that the last stream took on the wire.",
    "push_last_stored_bytes": "Bytes of the last stream on the disk of the receiver.",
    "push_last_duration_seconds": "What it took to send the last stream.",
    "push_last_wait_seconds": "For how long the last stream has waited, by what it waited for.",
    "run_last_timestamp_seconds": "When the last run of the command ended, well or not.",
    "run_last_success_timestamp_seconds": "When a run of the command last ended with exit code 0.",
    "run_last_exit_code": "Exit code of the last run of the command.",
    "run_last_duration_seconds": "What the last run of the command took.",
}
_ATTEMPT: Final = "push_last_attempt_timestamp_seconds"


class RunMetrics:
    """What one run has done, until it is written. `meant`: names of the receivers that it is for."""

    def __init__(self, command: str, clock: Callable[[], float] = time.time) -> None:
        """`command`: its name; `clock`: seconds since the epoch."""
        self._command = command
        self._clock = clock
        self._began = clock()
        self._found = _families()
        self._absent: list[tuple[str, str, Exit]] = []  # receiver, and what is not here, with its exit code
        self.meant: frozenset[str] = frozenset()

    def sent(self, receiver: str, pushed: Pushed) -> None:
        """A stream is stored at this receiver."""
        receipt = pushed.receipt
        labels = {"receiver": receiver, "dataset": receipt.dataset}
        self._found["push_last_raw_bytes"].add(receipt.raw_bytes, **labels)
        self._found["push_last_wire_bytes"].add(pushed.wire_bytes, **labels)
        self._found["push_last_stored_bytes"].add(receipt.stored_bytes, **labels)
        self._found["push_last_duration_seconds"].add(pushed.seconds, **labels)
        for stage in STAGES:
            self._found["push_last_wait_seconds"].add(pushed.waited.get(stage, 0.0), **labels, stage=stage)

    def tried(self, receiver: str, dataset: str, code: Exit) -> None:
        """A push of a dataset to this receiver has ended. `code`: the exit code that it gives."""
        labels, now = {"receiver": receiver, "dataset": dataset}, self._clock()
        result = "failure" if code else "success"
        self._found[_ATTEMPT].add(now, **labels)
        self._found[f"push_last_{result}_timestamp_seconds"].add(now, **labels)
        self._found["push_last_exit_code"].add(int(code), **labels)

    def pushed(self, receiver: str, summary: PushSummary, error: FullsendError | None = None) -> None:
        """A push of several datasets to this receiver has ended. `error`: what ended it early. A dataset that is
        neither stored nor has failed by then was not tried, which is a failure.
        """
        failed: dict[str, Exit] = {}
        for name, each in summary.failures:
            failed.setdefault(name.partition("@")[0], each.exit_code)
        rest = Exit.UNREACHABLE if error is None else error.exit_code
        for dataset in sorted(summary.chosen):
            self.tried(receiver, dataset, failed.get(dataset, Exit.OK if dataset in summary.current else rest))
        self._absent += [(receiver, name, code) for name, code in failed.items() if name not in summary.chosen]

    @contextlib.contextmanager
    def part(self, receiver: str) -> Iterator[list[Exit]]:
        """The part of the run for one receiver. Yields: a list for the exit codes of what fails."""
        codes: list[Exit] = []
        try:
            yield codes
        except BaseException as error:
            self._ended(receiver, _code_of(error))
            raise
        self._ended(receiver, worst(codes))

    def ended_early(self, error: BaseException) -> None:
        """An error has ended the run. It counts for each receiver that the run is for, and whose part has not ended."""
        ended = {dict(labels)["receiver"] for labels in self._found["run_last_exit_code"].values}
        for receiver in sorted(self.meant - ended):
            self._ended(receiver, _code_of(error))

    def _ended(self, receiver: str, code: int) -> None:
        labels, now = {"command": self._command, "receiver": receiver}, self._clock()
        self._found["run_last_timestamp_seconds"].add(now, **labels)
        self._found["run_last_exit_code"].add(code, **labels)
        self._found["run_last_duration_seconds"].add(now - self._began, **labels)
        if not code:
            self._found["run_last_success_timestamp_seconds"].add(now, **labels)

    def write(self, path: str, *, receivers: Collection[str], retired: Sequence[str]) -> None:
        """Replace what this run knows in the file, which is made if it is missing. `receivers`: those that are
        configured, of others nothing stays in the file; `retired`: patterns of datasets of which nothing stays.
        Raises: OSError.
        """
        with _alone(path):
            before = _read(path)
            for receiver, name, code in self._absent:
                self._fail_absent(before, receiver, name, code)
            for key, family in before.items():
                family.values.update(self._found[key].values)
            _leave_out(before, receivers, retired)
            durable.replace(path, render_families([build_info("fullsend", __version__), *before.values()]))

    def _fail_absent(self, before: dict[str, MetricFamily], receiver: str, name: str, code: Exit) -> None:
        """Note a failure of what is not here, such as a whole pool, for each dataset in it that was pushed before."""
        for labels in before[_ATTEMPT].values:
            said = dict(labels)
            dataset = said.get("dataset", "")
            inside = dataset == name or dataset.startswith(f"{name}/")
            if inside and said.get("receiver") == receiver and labels not in self._found[_ATTEMPT].values:
                self.tried(receiver, dataset, code)


@contextlib.contextmanager
def recorded(settings: SenderSettings, command: str, *, when: bool = True) -> Iterator[RunMetrics]:
    """Write the metrics of a run at its end, however it ends, if the settings name a file. A file that cannot be
    written is logged, and is no failure of the run. `when`: False: write nothing.

    The run is for all receivers that are configured, until the caller says which (`meant`).
    """
    run = RunMetrics(command)
    run.meant = frozenset(settings.receivers)
    try:
        yield run
    except BaseException as error:
        run.ended_early(error)
        raise
    finally:
        if when and settings.metrics_file is not None:
            try:
                run.write(settings.metrics_file, receivers=settings.receivers, retired=settings.retired)
            except OSError as error:
                _log.warning("%s: the metrics cannot be written: %s", settings.metrics_file, reason(error))


def _code_of(error: BaseException) -> int:
    interrupted = isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
    code: int = getattr(error, "exit_code", Exit.INTERRUPTED if interrupted else Exit.FAILED)
    return code


def _families() -> dict[str, MetricFamily]:
    return {name: MetricFamily(f"fullsend_{name}", "gauge", about) for name, about in _ABOUT.items()}


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Hold a lock on the file's folder, which needs no file of its own. Raises: OSError."""
    folder = os.path.dirname(os.path.realpath(path))
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: str) -> dict[str, MetricFamily]:
    """Return what earlier runs have written; nothing if it is missing or cannot be read. Raises: OSError."""
    try:
        with open(path, "rb") as file:
            samples = list(parse_samples(file.read().decode()))
    except FileNotFoundError:
        return _families()
    except ValueError as error:
        _log.warning("%s: is made anew, because it cannot be read: %s", path, error)
        return _families()
    families = _families()
    for name, labels, value in samples:
        family = families.get(name.removeprefix("fullsend_"))
        if family is not None:
            family.values[labels] = int(value) if value.is_integer() else value
    return families


def _leave_out(families: dict[str, MetricFamily], receivers: Collection[str], retired: Sequence[str]) -> None:
    """Remove what nobody expects any more, and what is too much."""
    newest = sorted(families[_ATTEMPT].values.items(), key=lambda item: item[1], reverse=True)
    kept = {frozenset(labels) for labels, _when in newest[:DATASETS_MAX]}  # receiver and dataset of each
    for family in families.values():
        for labels in list(family.values):
            said = dict(labels)
            dataset = said.get("dataset")
            wanted = said.get("receiver") in receivers and (
                dataset is None or (frozenset(labels[:2]) in kept and not is_retired(dataset, retired))
            )
            if not wanted:
                del family.values[labels]
