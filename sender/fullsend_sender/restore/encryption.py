"""Chooses the encryption of restored datasets: as at home, or with the key of the place.

A stream that is not raw but has properties says `encryption=off`: below an encrypted dataset it would be unencrypted,
with exit 0. `zfs receive -x encryption` encrypts it with the key of its place. That accepts no stream with embedded
blocks, and needs a loaded key. Tried with OpenZFS 2.4.4: fulls, increments, volumes, packages, resumed streams.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fullsend_protocol.format.quotas import brings_properties
from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.restore.plan import ParentDataset, RestoreItem
from fullsend_sender.zfs.inventory import Dataset
from fullsend_sender.zfs.selection import lineage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from fullsend_sender.restore.plan import RestorePlan
    from fullsend_sender.zfs.commands import Encryption, Zfs

_log: Final = logging.getLogger("fullsend.restore")


def choose_encryption(plan: RestorePlan, *, unencrypted: bool, recursive: bool) -> None:
    """Choose the encryption of each item of a plan, before the first byte.

    A raw dataset stays as it was, and so does what was below it at home, because its key is not loaded yet. An item
    that cannot be encrypted as its place is becomes a failure of the plan. `unencrypted`: leave items unencrypted.

    Raises: UsageError, instead of a failure, unless `recursive`.
    """
    # Each dataset that exists, or will, by name: the encrypted dataset whose key it uses; None: it is not encrypted.
    places: dict[str, Dataset | None] = {name: each if each.encrypted else None for name, each in plan.standing.items()}
    raw: set[str] = set()  # datasets that come, or came, with their key
    steps = []
    for step in plan.steps:
        standing = plan.standing.get(step.target)
        # Between them may be datasets that a package brings: their key is that of its top.
        parent = next((name for name in lineage(step.target)[1:] if name in places), "")
        place = places.get(step.target if standing is not None else parent)
        chosen: RestoreItem | ParentDataset = step
        if isinstance(step, RestoreItem) and step.raw:
            # Its key is not loaded after it has come.
            place = place if standing is not None else _encrypted(step.target)
            raw.add(step.target)
        elif (
            isinstance(step, RestoreItem)
            and standing is None
            and parent in raw
            and step.chain
            and brings_properties(step.chain[0])
        ):
            place = None  # its stream says that it is not encrypted, and so it was at home
        if isinstance(step, RestoreItem) and step.chain:
            try:
                chosen = _choose(step, standing, place, unencrypted=unencrypted)
            except UsageError as error:
                if not recursive:
                    raise
                plan.failures.append((step.target, error))
                continue
            if chosen.encryption != "as its place" and (not step.raw or step.package):
                place = None
                _say_clear(chosen, plan.standing, raw)
        places[step.target] = place
        steps.append(chosen)
    plan.steps = steps


def _choose(item: RestoreItem, standing: Dataset | None, place: Dataset | None, *, unencrypted: bool) -> RestoreItem:
    """Return an item with its encryption. `place`: the encrypted dataset above it. Raises: UsageError."""
    if place is None or item.raw:
        return item
    if unencrypted and standing is None:
        return replace(item, encryption="off")
    or_else = "" if standing is not None else ", or leave it unencrypted with --unencrypted"
    embedding = next((each for each in item.chain if "e" in each.flags), None)
    if embedding is not None:
        raise UsageError(
            f"{embedding.dataset}@{embedding.snapshot} has embedded blocks (`zfs send -e`), which no encrypted place"
            f" takes, such as {place.name}: restore it into one that is not encrypted{or_else}"
        )
    if not place.key_loaded:
        raise UsageError(
            f"{item.target} would be encrypted as {place.name} is, and the key of that is not loaded: `zfs load-key"
            f" {place.name}` first{or_else}"
        )
    return replace(item, encryption="as its place")


def _encrypted(name: str) -> Dataset:
    """Return a substitute for a dataset that will have come raw: its key will not be loaded."""
    return Dataset(name, "filesystem", "0", 0, 0, encrypted=True, key_loaded=False)


def _say_clear(item: RestoreItem, standing: Mapping[str, Dataset], raw: Collection[str]) -> None:
    """Warn of a dataset that will be unencrypted below an encrypted one: its user may not expect that."""
    above = lineage(item.target)[1:]
    encrypted = [name for name in above if name in standing and standing[name].encrypted]
    encrypted += [name for name in above if name in raw]
    if encrypted:
        what = "what is not encrypted in this package" if item.raw else "it"
        _log.warning("%s: %s will be unencrypted, below %s, which is encrypted", item.target, what, encrypted[0])


async def say_what_changed(zfs: Zfs, into: str, items: Iterable[RestoreItem]) -> None:
    """Warn of datasets that have become encryption roots, and of what a raw package left unencrypted.

    `items`: what was restored, at `into` or below. Raises: ZfsError.
    """
    raw = [item for item in items if item.raw]
    if not raw:
        return
    found = await zfs.encryption(into)
    for item in raw:
        if (above := _had_key_of(found, item.target)) is not None:
            _log.warning(
                "%s: %s now; with both keys loaded, this undoes it: %s",
                item.target,
                above,
                zfs.line("change-key", "-i", item.target),
            )
        if item.package:
            for name in sorted(found):
                if name.startswith(f"{item.target}/") and found[name].root is None:
                    _log.warning("%s is unencrypted, as it was at home", name)


def _had_key_of(found: Mapping[str, Encryption], target: str) -> str | None:
    """Return a warning that an encryption root was none at home; None: it is no root, or was one, as far as one can
    see.

    A raw stream brings the key's salt. Two roots with a passphrase have the same salt only if they were one root. Other
    keys have no salt (tried with OpenZFS 2.4.4).
    """
    own = found.get(target)
    if own is None or own.root != target:
        return None
    above = target.rpartition("/")[0]
    while above in found and found[above].root is None:
        above = above.rpartition("/")[0]
    if above not in found or found[above][1:] != own[1:]:
        return None
    root = found[above].root
    if own.keyformat == "passphrase":
        return f"at home it had the key of {root}, and is an encryption root of its own"
    return f"where it had the key of {root} at home, it is an encryption root of its own"
