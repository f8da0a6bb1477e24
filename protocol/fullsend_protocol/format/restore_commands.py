"""The plain shell lines that restore a chain without fullsend: `sha256sum`, `zstd` and `zfs receive`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from fullsend_protocol.format.lost_spills import restoring_loses
from fullsend_protocol.format.manifest import StreamEntry
from fullsend_protocol.format.names import hash_of
from fullsend_protocol.format.quotas import brings_properties, held_back, quotas_of
from fullsend_protocol.shared.units import printable


def restore_lines(chain: Sequence[StreamEntry]) -> list[str]:
    """Return the lines that restore a chain, for the store's folder. `chain`: its streams, the full first."""
    last = chain[-1]
    name = printable(f"{last.dataset}@{last.snapshot}")
    lines = [
        f"# {name}, a chain of {len(chain)}: in the store's folder; stop at the first line that fails (sh -e does)",
        "TARGET=pool/restored",
    ]
    for each in chain:
        # The .sha256 file names the stream's file without its folder.
        folder, _, file = each.file.rpartition("/")
        lines.append(f"(cd {shlex.quote(folder)} && sha256sum -c {shlex.quote(hash_of(file))})")
    lost = sum(each.lost_spill_count for each in chain)
    if lost:
        lines.append(f"# {restoring_loses(lost)}")
    if any("p" in each.flags and "w" not in each.flags for each in chain):
        lines.append(
            "# below an encrypted dataset it is unencrypted, except with -x encryption (which takes no embedded blocks)"
        )
    aside = set_aside(chain, {})
    for before, each in zip((None, *chain), chain, strict=False):
        if before is not None and before.dataset != each.dataset:
            lines += _other_base(before)
        if (old := aside.get(each.file)) is not None:
            was, now = (f'"$TARGET"{shlex.quote(f"@{name}")}' for name in old)
            lines.append(f"zfs rename {was} {now}  # the next has the same name")
        held = held_back(quotas_of(each.dataset_type)) if brings_properties(each) else []
        receive = shlex.join(["zfs", "receive", "-u", *unmounted(each), *held])
        lines.append(f'zstd -dc {shlex.quote(each.file)} | {receive} "$TARGET"')
    if any(each.kind == "package" for each in chain):
        lines.append("# a replication package: what was below its top dataset is received below the target")
        if any(map(unmounted, chain)):
            lines += settled("zfs", '"$TARGET"')
    if any(map(brings_properties, chain)):
        lines.append("# its quotas and reservations were held back until here, or they might have stopped it")
        lines += [f'zfs inherit -S {name} "$TARGET"' for name in quotas_of(last.dataset_type)]
    if any("w" in each.flags for each in chain):
        lines.append('# raw, still encrypted: afterwards load its key with: zfs load-key -r "$TARGET"')
    if any(map(unmounted, chain)):
        lines.append(
            '# to mount it, where its mountpoint is free: zfs set canmount=on "$TARGET" && zfs mount "$TARGET"'
        )
    return lines


def _other_base(base: StreamEntry) -> list[str]:
    """Return what to know of a stream that builds on another dataset's snapshot. It does not show here which it is: the
    dataset was renamed, which changes nothing, or it is a clone (see stream.reparent).
    """
    name, target, origin = printable(base.dataset), '"$TARGET"', '"$TARGET.origin"'
    return [
        f"# the next builds on a snapshot of {name}; where `zfs receive` says that the target exists, it is a clone's:",
        f"#   zfs rename {target} {origin}; the next line; zfs promote {target}; zfs destroy {origin}",
    ]


def set_aside(chain: Iterable[StreamEntry], names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return by its file each stream before which a snapshot of the target must be renamed: its name, and its new name
    (both after the @).

    `zfs receive` refuses a snapshot whose name exists. At home the older one was renamed, or it was destroyed while a
    bookmark kept its place, as by scripts that always push @daily. `names`: by name, the GUIDs of the target's
    snapshots that are stored.
    """
    has = dict(names)
    found: dict[str, tuple[str, str]] = {}
    for each in chain:
        before = has.get(each.snapshot)
        if before is not None and before != each.guid:
            found[each.file] = each.snapshot, f"{each.snapshot}.{int(before):016x}"
        has[each.snapshot] = each.guid
    return found


def unmounted(entry: StreamEntry) -> list[str]:
    """Return the options with which nothing that `zfs receive` creates mounts at the next boot.

    A volume has no mountpoint. A filesystem's received mountpoint may be that of another dataset. `canmount` affects a
    package's top alone; `mountpoint` is inherited by the datasets below, from the beginning (tried).
    """
    if entry.dataset_type != "filesystem":
        return []
    return ["-o", "mountpoint=none" if entry.kind == "package" else "canmount=noauto"]


def settled(zfs: str, target: str) -> list[str]:
    """Return the lines that give a package's datasets their own mountpoints, unmounted.

    `zfs`, `target`: as shell words.
    """
    return [
        f"{zfs} list -Hr -o name -t filesystem {target} | xargs -d '\\n' {zfs} set canmount=noauto",
        f"{zfs} inherit -rS mountpoint {target}",
    ]
