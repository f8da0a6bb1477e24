"""An overview and the daemon's counters as Prometheus' text. Pure: no I/O, no clock.

Ages are not among the metrics: a query subtracts a time from `time()`, which is right at any moment. docs/monitoring.md
describes each metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fullsend_protocol.format.metrics_text import MetricFamily, build_info, render_families
from fullsend_receiver.arrival.counters import Counters
from fullsend_receiver.monitor.overview import CopyOverview, DatasetOverview, Overview, SenderOverview

#: Datasets that have metrics of their own, unless the settings say otherwise. Prometheus keeps a series in memory for
#: each, and for each of some twenty metrics.
DATASETS_DEFAULT: Final = 2000
#: The label `dataset` of the sum over those that have none of their own. ZFS permits no parentheses in names.
OTHERS: Final = "(others)"


def render(overview: Overview, counters: Counters, *, datasets_max: int = DATASETS_DEFAULT) -> str:
    """Return the text of all metrics. `datasets_max`: how many datasets have metrics of their own; the others of each
    sender are one, OTHERS. As many alarms are named.
    """
    program, _, version = overview.program.partition(" ")
    families = [build_info(program, version)]
    families += _store(overview)
    families += _copies(overview.copy)
    families += _senders(overview)
    families += _datasets(overview, datasets_max)
    families += _alarms(overview, datasets_max)
    families += _counters(counters)
    return render_families(families)


def _gauge(name: str, help_: str, value: float | None = None) -> MetricFamily:
    family = MetricFamily(f"fullsend_{name}", "gauge", help_)
    family.add(value)
    return family


def _counter(name: str, help_: str, value: float | None = None) -> MetricFamily:
    family = MetricFamily(f"fullsend_{name}_total", "counter", help_)
    family.add(value)
    return family


# --- the store ----------------------------------------------------------------------------------------------------


def _store(overview: Overview) -> Iterator[MetricFamily]:
    yield _gauge("metrics_timestamp_seconds", "When the receiver looked at its store for these metrics.", overview.at)
    yield _gauge("store_size_bytes", "Size of the disk of the store.", overview.size)
    yield _gauge("store_free_bytes", "Free room on the disk of the store.", overview.free)
    yield _gauge("store_min_free_bytes", "Room that stays free: pushes may not use it (min-free).", overview.min_free)
    about = "When the disk has no more room, at the rate of late; absent: not within a year, or unknown."
    yield _gauge("store_full_timestamp_seconds", about, overview.full_at)
    yield _gauge("aside_bytes", "Bytes that are set aside as damaged.", overview.aside_bytes)
    yield _gauge("trash_bytes", "Bytes that can be undeleted.", overview.trash_bytes)
    scrub = overview.scrub
    yield _gauge(
        "scrub_interval_seconds", "How often each stream is to be checked (scrub-every); 0: never.", scrub.every
    )
    yield _gauge("scrub_streams", "Streams that are to be checked.", scrub.streams)
    yield _gauge("scrub_current_streams", "Streams whose last check is recent enough.", scrub.current)
    yield _gauge("scrub_checked_streams", "Streams that were checked at least once.", scrub.checked)
    about = "The earliest last check, or reception, of a stream."
    yield _gauge("scrub_oldest_check_timestamp_seconds", about, scrub.oldest)
    yield _gauge("scrub_due_streams", "Streams whose check is due.", scrub.due_streams)
    yield _gauge("scrub_due_bytes", "Stored bytes of the streams whose check is due.", scrub.due_bytes)
    yield _gauge("scrub_damaged_streams", "Streams whose last check has found damage.", scrub.damaged)
    yield _gauge("scrub_unreadable_streams", "Streams that the last check could not read.", scrub.unreadable)
    yield _gauge("scrub_behind", "Whether the scrub is behind: 1 or 0.", int(scrub.behind))
    yield _gauge(
        "scrub_stopped", "Whether the scrub has stopped, because too much is damaged: 1 or 0.", int(scrub.stopped)
    )


# --- copies in another store --------------------------------------------------------------------------------------


def _copies(copy: CopyOverview | None) -> Iterator[MetricFamily]:
    if copy is None or copy.fault is not None:
        return
    about = "When the last copy into the other store began that left nothing behind; absent: never."
    yield _gauge("copy_last_complete_timestamp_seconds", about, copy.complete)
    about = "When copies into the other store were first wanted."
    yield _gauge("copy_wanted_timestamp_seconds", about, copy.since)
    about = "The time since the last complete copy from which on there is an alarm; absent: never."
    yield _gauge("copy_late_after_seconds", about, copy.limit)
    yield _gauge("copy_last_run_timestamp_seconds", "When the last copy began.", copy.began)
    about = "Whether the last copy that has ended left nothing behind: 1 or 0."
    yield _gauge("copy_last_ok", about, None if copy.ok is None else int(copy.ok))
    left = None if copy.ok is None else copy.left
    yield _gauge("copy_left_streams", "Streams that it left behind.", left)
    yield _gauge("copy_older_streams", "Streams that it left out, because the newest copy is newer.", copy.older)
    yield _counter("copied_bytes", "Stored bytes that copies into the other store have copied.", copy.bytes_ever)


# --- senders ------------------------------------------------------------------------------------------------------


def _senders(overview: Overview) -> Iterator[MetricFamily]:
    enrolled = _gauge("enrolled", "Whether the sender may connect: 1 or 0.")
    datasets = _gauge("datasets", "Datasets of which something is stored.")
    used = _gauge("used_bytes", "What counts for the quota of the sender.")
    quota = _gauge("quota_bytes", "Quota of the sender; absent: it has none.")
    partials = _gauge("partials", "Streams that have arrived in part.")
    partial_bytes = _gauge("partial_bytes", "Stored bytes of the streams that have arrived in part.")
    pruned = _gauge("prune_last_run_timestamp_seconds", "When all of the sender was last pruned; absent: never.")
    pruned_bytes = _counter("pruned_bytes", "Stored bytes of the streams that prunes have dropped.")
    merged_bytes = _counter("merged_bytes", "Raw bytes of the streams that merges have made.")
    for each in overview.senders:
        enrolled.add(int(each.enrolled), sender=each.name)
        datasets.add(len(each.datasets), sender=each.name)
        used.add(each.used_bytes, sender=each.name)
        quota.add(each.quota, sender=each.name)
        partials.add(each.partials, sender=each.name)
        partial_bytes.add(each.partial_bytes, sender=each.name)
        pruned.add(each.pruned, sender=each.name)
        pruned_bytes.add(each.pruned_bytes, sender=each.name)
        merged_bytes.add(each.merged_bytes, sender=each.name)
    yield from (enrolled, datasets, used, quota, partials, partial_bytes, pruned, pruned_bytes, merged_bytes)


# --- datasets -----------------------------------------------------------------------------------------------------


class _DatasetFamilies:
    """The metrics with the labels `sender` and `dataset`."""

    def __init__(self) -> None:
        self.receipt = _gauge("last_receipt_timestamp_seconds", "When the newest restorable state was received.")
        self.unchanged = _gauge("last_unchanged_timestamp_seconds", "When the dataset was last reported unchanged.")
        about = "When the dataset last came, or was reported unchanged; absent: unknown."
        self.seen = _gauge("last_seen_timestamp_seconds", about)
        about = "When the newest restorable snapshot was taken, by the clock of its host."
        self.created = _gauge("newest_snapshot_timestamp_seconds", about)
        about = "How often the dataset should come (source: configured or learnt); absent: not known."
        self.expected = _gauge("expected_interval_seconds", about)
        about = "The time since it was last seen from which on the dataset is late; absent: never."
        self.late_after = _gauge("late_after_seconds", about)
        self.last_raw = _gauge("last_receipt_raw_bytes", "Raw bytes of the stream that was received last.")
        self.last_stored = _gauge("last_receipt_stored_bytes", "Stored bytes of the stream that was received last.")
        self.streams = _gauge("streams", "Stored streams, by kind: full, or other: incremental, or a package.")
        self.raw = _gauge("raw_bytes", "Raw bytes of the stored streams: what zfs receive would read.")
        self.stored = _gauge("stored_bytes", "Bytes of the stored streams on the disk.")
        self.chain = _gauge("chain_length", "Streams that a restore of the newest state reads.")
        self.chain_raw = _gauge("chain_raw_bytes", "Raw bytes that a restore of the newest state reads.")
        self.chain_stored = _gauge("chain_stored_bytes", "Stored bytes that a restore of the newest state reads.")
        self.broken = _gauge("unrestorable_streams", "Streams that cannot be restored.")
        self.damaged = _gauge("damaged_streams", "Streams that are damaged.")
        self.spills = _gauge("lost_spill_blocks", "Spill blocks that openzfs issue 18239 has left out of the streams.")
        about = "The earliest last check, or reception, of a stream."
        self.oldest = _gauge("oldest_verified_timestamp_seconds", about)
        self.unchecked = _gauge("unverified_streams", "Streams that were never read since they arrived.")
        self.drill = _gauge("drill_last_run_timestamp_seconds", "When a restore was last tried (fullsend drill).")
        about = "When a restore drill was last successful; absent: never."
        self.drill_ok = _gauge("drill_last_success_timestamp_seconds", about)
        self.drill_result = _gauge("drill_last_ok", "Whether the last restore drill was successful: 1 or 0.")
        about = "Whether the last restore drill compared contents, not the GUID alone: 1 or 0."
        self.drill_contents = _gauge("drill_last_compared_contents", about)
        self.drill_seconds = _gauge("drill_last_duration_seconds", "What the last restore drill took.")
        self.drill_raw = _gauge("drill_last_raw_bytes", "Raw bytes of the last restore drill.")

    def add(self, dataset: DatasetOverview, now: float) -> None:
        """Add the metrics of a dataset of its own."""
        labels = {"sender": dataset.sender, "dataset": dataset.dataset}
        self._add_sums(dataset, labels)
        self.receipt.add(dataset.received, **labels)
        self.unchanged.add(dataset.unchanged, **labels)
        self.seen.add(_seen(dataset, now), **labels)
        self.created.add(dataset.created, **labels)
        self.expected.add(dataset.expectation.every, **labels, source=dataset.expectation.source)
        self.late_after.add(dataset.expectation.limit, **labels)
        self.oldest.add(dataset.oldest_check, **labels)
        self.chain.add(dataset.chain_streams, **labels)
        self.chain_raw.add(dataset.chain_raw_bytes, **labels)
        self.chain_stored.add(dataset.chain_stored_bytes, **labels)
        last = None
        for each in dataset.history.receptions:  # see `History`: one pass is cheap
            last = last if each.kind == "unchanged" else each
        if last is not None:
            self.last_raw.add(last.raw_bytes, **labels)
            self.last_stored.add(last.stored_bytes, **labels)
        if (drill := dataset.drill) is not None:
            self.drill.add(drill.at, **labels)
            self.drill_ok.add(drill.succeeded, **labels)
            self.drill_result.add(int(drill.ok), **labels)
            self.drill_contents.add(int(drill.compared in {"files", "blocks"}), **labels)
            self.drill_seconds.add(drill.seconds, **labels)
            self.drill_raw.add(drill.raw_bytes, **labels)

    def add_to_others(self, dataset: DatasetOverview, now: float) -> None:
        """Add a dataset to the others of its sender: the sums of what can be added, the earliest of times."""
        labels = {"sender": dataset.sender, "dataset": OTHERS}
        self._add_sums(dataset, labels)
        self.seen.lower_to(_seen(dataset, now), **labels)
        self.oldest.lower_to(dataset.oldest_check, **labels)

    def _add_sums(self, dataset: DatasetOverview, labels: dict[str, str]) -> None:
        self.streams.sum_up(dataset.fulls, **labels, kind="full")
        self.streams.sum_up(dataset.streams - dataset.fulls, **labels, kind="other")
        self.raw.sum_up(dataset.raw_bytes, **labels)
        self.stored.sum_up(dataset.stored_bytes, **labels)
        self.broken.sum_up(dataset.broken, **labels)
        self.damaged.sum_up(dataset.damaged, **labels)
        self.spills.sum_up(dataset.lost_spill_count, **labels)
        self.unchecked.sum_up(dataset.unchecked, **labels)

    def __iter__(self) -> Iterator[MetricFamily]:
        return iter(vars(self).values())


def _datasets(overview: Overview, most: int) -> Iterator[MetricFamily]:
    families = _DatasetFamilies()
    about = f"Datasets without metrics of their own (metrics-datasets); their sum has the dataset {OTHERS}."
    left_out = _gauge("datasets_left_out", about)
    for sender, count in _shares(overview, most):
        datasets = sorted(sender.datasets, key=lambda each: each.dataset)
        for each in datasets[:count]:
            families.add(each, overview.at)
        for each in datasets[count:]:
            families.add_to_others(each, overview.at)
        left_out.add(len(datasets[count:]), sender=sender.name)
    yield from families
    yield left_out


def _seen(dataset: DatasetOverview, now: float) -> float | None:
    """Return when a dataset last came, by its age: of times that lie in the future it makes none."""
    return None if dataset.age is None else now - dataset.age


def _shares(overview: Overview, most: int) -> list[tuple[SenderOverview, int]]:
    """Return how many datasets of each sender have metrics of their own. A sender with very many takes no places from
    those with few.
    """
    shares, left = {}, most
    for index, sender in enumerate(sorted(overview.senders, key=lambda each: len(each.datasets))):
        shares[sender.name] = min(len(sender.datasets), left // (len(overview.senders) - index))
        left -= shares[sender.name]
    return [(sender, shares[sender.name]) for sender in overview.senders]


# --- alarms -------------------------------------------------------------------------------------------------------


def _alarms(overview: Overview, most: int) -> Iterator[MetricFamily]:
    named = _gauge("alarm", "An alarm that lasts, as `fullsendd status` tells it: 1.")
    count = _gauge("alarms", "Alarms that last, by level.")
    left_out = _gauge("alarms_left_out", "Alarms that fullsend_alarm does not name (metrics-datasets).")
    for level in ("warning", "critical"):
        count.add(sum(each.level == level for each in overview.alarms), level=level)
    for each in overview.alarms[:most]:
        named.add(1, code=each.code, level=each.level, sender=each.sender or "", dataset=each.dataset or "")
    left_out.add(len(overview.alarms[most:]))
    yield from (named, count, left_out)


# --- counters -----------------------------------------------------------------------------------------------------


def _counters(counters: Counters) -> Iterator[MetricFamily]:
    yield _gauge("start_timestamp_seconds", "When the daemon was started.", counters.started)
    yield _gauge("open_connections", "Connections that are open.", counters.open_connections)
    yield _counter("connections", "Connections that were accepted.", counters.connections)
    yield _counter("received_bytes", "Bytes received from senders, without those of TLS.", counters.traffic.received)
    yield _counter("sent_bytes", "Bytes sent to senders, without those of TLS.", counters.traffic.sent)
    yield _counter("pushes", "Streams that were received whole, and are durable.", counters.pushes)
    failures = _counter("push_failures", "Pushes that ended otherwise, by what ended them.")
    for code, number in counters.push_failures.items():
        failures.add(number, code=code)
    yield failures
    waits = _counter("receive_wait_seconds", "Time for which arriving streams have waited, by what they waited for.")
    for stage, seconds in counters.waited().items():
        waits.add(seconds, stage=stage)
    yield waits
    yield _counter("scrubbed_bytes", "Stored bytes that were read to check them.", counters.scrubbed_bytes)
