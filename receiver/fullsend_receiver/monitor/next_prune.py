"""What the next prune will drop or merge: the plan of `fullsendd prune --dry-run`, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fullsend_protocol.shared.errors import reason
from fullsend_receiver.maintenance.plans import PruneRules
from fullsend_receiver.maintenance.prune import ChainHeld, Judged, MergePlanned, NothingGoes, Pruner
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.errors import StoreError


@dataclass(frozen=True, slots=True)
class NextPrune:
    """What the next prune will do. `fates`: by file, of the streams that do not stay; "merge": its records go into the
    stream that builds on it; `notes`: by sender and dataset, why nothing, or not more, goes; `note`: of all datasets,
    empty: nothing to say.
    """

    fates: Mapping[str, Literal["drop", "merge"]] = field(default_factory=dict)
    notes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    note: str = ""


def plan_next_prune(store: Store, rules: PruneRules | None, now: float) -> NextPrune:
    """Plan, and change nothing. `rules`: None: nothing is ever deleted; `now`: seconds since the epoch. Blocks: it
    reads what is stored. Of a sender that cannot be read, `note` says so. Raises: StoreError, OSError.
    """
    if rules is None:
        return NextPrune(note="no policy is set, so nothing is ever dropped")
    fates: dict[str, Literal["drop", "merge"]] = {}
    notes: dict[tuple[str, str], str] = {}
    failed: dict[str, list[str]] = {}  # by why, the senders
    pruner = Pruner(store, rules, now, thorough=False)
    for sender in pruner.catalogues.senders():
        try:
            for event in pruner.prune(sender, dry_run=True):
                match event:
                    case Judged(dropped=True):
                        fates[event.decision.stream.path] = "drop"
                    case MergePlanned():
                        fates.update((each.path, "merge") for each in event.merge.inputs[:-1])
                    case NothingGoes():
                        notes[event.sender, event.dataset] = f"nothing goes: {event.why}"
                    case ChainHeld():
                        notes.setdefault((event.sender, event.chain.dataset), event.chain.reason)
                    case Judged():
                        pass
        except (StoreError, OSError) as error:
            failed.setdefault(reason(error), []).append(sender)
    said = (f"it cannot be planned for {', '.join(senders)}: {why}" for why, senders in failed.items())
    return NextPrune(fates, notes, "; ".join(said))
