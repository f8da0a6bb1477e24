"""A `zfs` that lists what it is told, and whose `send` prints genuine streams from files. It knows nothing else.

zfs = GenuineZfs.make(folder)
zfs.add("tank/a", "s1", 17)                       # a snapshot, with its GUID
zfs.sends(raw, "-L", "-i", "tank/a@s0", "tank/a@s1")
... run what runs `zfs.program` ...
zfs.commands                                      # what was run, a line each
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

#: What it runs. A send that it was not told of fails, as does one whose file is there with `.fails`; one with `.stalls`
#: does not end.
_PROGRAM = """\
#!/bin/sh
cd {folder} || exit 9
echo "$*" >>commands
case "$1" in
    list) exec cat listing ;;
    send) name=$(printf %s "$*" | sha256sum) && name=${{name%% *}} ;;
    *) exit 9 ;;
esac
[ -e "$name" ] || {{ echo "cannot open '$*': dataset does not exist" >&2; exit 1; }}
cat "$name"
[ ! -e "$name.stalls" ] || exec sleep 3600
[ ! -e "$name.fails" ] || {{ echo "warning: cannot send '$*': Input/output error" >&2; exit 1; }}
"""
_ZPOOL = """\
#!/bin/sh
exec cat {folder}/health
"""


@dataclass(frozen=True)
class GenuineZfs:
    """The folder with the program, its listing, and the streams."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> GenuineZfs:
        folder.mkdir(parents=True)
        made = cls(folder)
        (folder / "listing").touch()
        (folder / "commands").touch()
        (folder / "health").touch()
        for name, text in (("zfs", _PROGRAM), ("zpool", _ZPOOL)):
            program = folder / name
            program.write_text(text.format(folder=folder))
            program.chmod(0o700)
        return made

    @property
    def program(self) -> str:
        return str(self.folder / "zfs")

    @property
    def commands(self) -> list[str]:
        return (self.folder / "commands").read_text().splitlines()

    def dataset(self, name: str) -> None:
        """Have a dataset."""
        self._list(f"{name}\tfilesystem\t1\t1\t1795417089\t0\t1000\t-\toff\t-")

    def add(self, dataset: str, snapshot: str, guid: str, *, bookmark: bool = False) -> None:
        """Have a snapshot, or a bookmark, of a dataset. The later is the younger."""
        kind, mark = ("bookmark", "#") if bookmark else ("snapshot", "@")
        self._list(f"{dataset}{mark}{snapshot}\t{kind}\t{guid}\t{len(self._listing)}\t1795417089\t0\t1000\t0\toff\t-")

    def lose(self, name: str) -> None:
        """Have a snapshot or bookmark, by its full name, no longer."""
        kept = [line for line in self._listing if line.partition("\t")[0] != name]
        (self.folder / "listing").write_text("".join(f"{line}\n" for line in kept))

    def pool(self, name: str, health: str) -> None:
        """Have a pool of this health, for `zpool list`; without it no pool is listed."""
        (self.folder / "health").write_text(f"{name}\t{health}\n")

    def sends(self, raw: bytes, *arguments: str, fails: bool = False, stalls: bool = False) -> None:
        """Print this for `zfs send ARGUMENTS`. `fails`: and then fail; `stalls`: and then do not end."""
        name = hashlib.sha256(" ".join(("send", *arguments)).encode()).hexdigest()
        (self.folder / name).write_bytes(raw)
        if fails:
            (self.folder / f"{name}.fails").touch()
        if stalls:
            (self.folder / f"{name}.stalls").touch()

    @property
    def _listing(self) -> list[str]:
        return (self.folder / "listing").read_text().splitlines()

    def _list(self, line: str) -> None:
        with (self.folder / "listing").open("a") as listing:
            listing.write(f"{line}\n")
