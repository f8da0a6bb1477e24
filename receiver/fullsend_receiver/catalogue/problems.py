"""What lies in a sender's folders and is not a whole stream: so it is not listed, and somebody must be told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fullsend_receiver.store.api import ManifestError


class ProblemKind(StrEnum):
    """What sort of thing is not listed."""

    NO_MANIFEST = "no-manifest"  # a `.zst` for which no manifest speaks
    MANIFEST = "manifest"  # one that cannot be read, or was moved
    FOLDER = "folder"  # one that cannot be read: all in it is unknown
    LINK = "link"  # a symbolic link, which is not followed


_OF_ONE_FILE: Final = frozenset({ProblemKind.NO_MANIFEST, ProblemKind.MANIFEST})


@dataclass(frozen=True, slots=True)
class Problem:
    """One such thing. `path`: relative to the store; `what`: the rest of the line that says it."""

    kind: ProblemKind
    path: str
    what: str

    def __str__(self) -> str:  # type: ignore[explicit-override]
        """Return the line for a person."""
        return f"{self.path}: {self.what}"

    @property
    def folder(self) -> str:
        """The folder of which something is not known."""
        return self.path.rpartition("/")[0] if self.kind in _OF_ONE_FILE else self.path

    def hides(self, folder: str) -> bool:
        """Whether it may hide streams that belong in this folder, relative to the store."""
        return folder == self.folder or (self.kind not in _OF_ONE_FILE and folder.startswith(f"{self.folder}/"))


def unreadable_manifest(error: ManifestError) -> Problem:
    """Say of a manifest that it cannot be read, or is not that of the place where it lies."""
    return Problem(ProblemKind.MANIFEST, error.path, error.what)


def without_manifest(path: str) -> Problem:
    """Say of a `.zst` that no manifest speaks for it."""
    return Problem(ProblemKind.NO_MANIFEST, path, "has no manifest; `fullsendd verify` makes one if it is whole")


def unreadable_folder(path: str, why: str) -> Problem:
    """Say of a folder that it cannot be read."""
    return Problem(ProblemKind.FOLDER, path, f"cannot be read: {why}")


def symbolic_link(path: str) -> Problem:
    """Say of a symbolic link that nothing behind it is listed: it may lead anywhere, and round in circles."""
    return Problem(ProblemKind.LINK, path, "is a symbolic link, so nothing in it is listed")
