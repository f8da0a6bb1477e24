"""What is stored of a dataset, in a few facts: its newest state, what a restore loses, and what cannot be listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fullsend_protocol.format.chains import ends
from fullsend_receiver.catalogue.problems import Problem
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.streams import Catalogue, StoredStream


def lost_spills(catalogue: Catalogue) -> dict[str, int]:
    """Return, by the file of each restorable stream, the spill blocks that restoring its chain loses."""
    lost: dict[str, int] = {}
    for stored, base in catalogue.ways():
        before = 0 if base is None else lost[base.summary.path]
        lost[stored.summary.path] = before + stored.summary.lost_spill_count
    return lost


def newest_state(
    restorable: Sequence[Summary], unchanged_at: Mapping[tuple[str, str], str]
) -> tuple[Summary | None, str | None]:
    """Return a dataset's newest state, None: it has none; and when its host last reported it as unchanged, if it did.

    `restorable`: its streams that can be restored; `unchanged_at`: as returned by `unchanged.last_seen`. A state that
    was reported as unchanged after a later one was received is the newest: the later one was an older snapshot, pushed
    by name.
    """
    if not restorable:
        return None, None
    newest = (ends(restorable) or restorable)[-1]  # a circle of forged GUIDs has no end
    said = [(at, each) for each in restorable if (at := unchanged_at.get((each.dataset, each.guid))) is not None]
    at, confirmed = max(said, key=lambda pair: pair[0], default=(None, newest))
    if at is not None and (confirmed.guid == newest.guid or at > newest.received):
        return confirmed, at
    return newest, None


def problem_datasets(problems: Iterable[Problem], streams: Iterable[StoredStream]) -> Iterator[tuple[str, Problem]]:
    """Yield each problem of one sender behind its dataset. `streams`: at least those in the folders of the problems.

    The dataset is taken from the other streams in the folder. Without any, the folder's name stands for it.
    """
    names = {stored.summary.path.rpartition("/")[0]: stored.summary.dataset for stored in streams}
    for problem in problems:
        folder = problem.folder
        yield names.get(folder) or folder.partition("/")[2] or folder, problem
