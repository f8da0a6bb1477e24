"""The plain shell lines that restore a stored stream without us: `sha256sum`, `zstd` and `zfs receive`."""

from __future__ import annotations

import shlex

from fullsend_protocol.units import printable
from fullsend_receiver.catalogue import Catalogue, Damaged, Stored
from fullsend_receiver.names import HASH_SUFFIX


def restore_commands(catalogue: Catalogue, stored: Stored) -> list[str]:
    """Return the lines that restore a stream and all that it builds on, the full first; for the store's folder.

    Raises: Damaged where it cannot be restored, naming what is missing.
    """
    chain = catalogue.chain(stored)
    if not chain:
        msg = f"{stored.file}: cannot be restored: {catalogue.obstacle(stored)}"
        raise Damaged(msg)
    name = printable(f"{stored.summary.dataset}@{stored.summary.snapshot}")
    lines = [
        f"# {name}, a chain of {len(chain)}: in the store's folder; stop at the first line that fails (sh -e does)",
        "TARGET=pool/restored",
    ]
    for each in chain:
        # It names the file without its folder.
        folder, name = str(each.file.parent), each.file.name
        lines.append(f"(cd {shlex.quote(folder)} && sha256sum -c {shlex.quote(name + HASH_SUFFIX)})")
    lines += [f'zstd -dc {shlex.quote(str(each.file))} | zfs receive -u{_options(each)} "$TARGET"' for each in chain]
    if any(each.summary.kind == "package" for each in chain):
        lines.append("# a replication package: what was below its top dataset is received below the target")
        if any(map(_options, chain)):
            # `-o` reaches the top alone; the others would mount at the next boot.
            lines.append("zfs list -Hr -o name -t filesystem \"$TARGET\" | xargs -d '\\n' zfs set canmount=noauto")
    if any(each.summary.stream_class == "raw" for each in chain):
        lines.append('# raw, still encrypted: afterwards load its key with: zfs load-key -r "$TARGET"')
    if any(map(_options, chain)):
        lines.append(
            '# to mount it, where its mountpoint is free: zfs set canmount=on "$TARGET" && zfs mount "$TARGET"'
        )
    return lines


def _options(stored: Stored) -> str:
    """A volume has no mountpoint; a filesystem's may have come along, and be where something else is mounted."""
    return " -o canmount=noauto" if stored.summary.dataset_type == "filesystem" else ""
