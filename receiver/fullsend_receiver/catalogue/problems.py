"""Objects in a sender's folders that are not whole streams: they are not listed, so the user must be told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fullsend_protocol.format.names import stream_of
from fullsend_receiver.store.errors import ManifestError


class ProblemKind(StrEnum):
    """The kinds of such objects."""

    NO_MANIFEST = "no-manifest"  # a `.zst` without manifest
    MANIFEST = "manifest"  # a manifest that is unreadable, or was moved
    FOLDER = "folder"  # an unreadable folder: its contents are unknown
    LINK = "link"  # a symbolic link, which is not followed


_OF_ONE_FILE: Final = frozenset({ProblemKind.NO_MANIFEST, ProblemKind.MANIFEST})


@dataclass(frozen=True, slots=True)
class Problem:
    """One such object. `path`: relative to the store; `what`: the rest of the message."""

    kind: ProblemKind
    path: str
    what: str

    def __str__(self) -> str:  # type: ignore[explicit-override]
        """Return the message."""
        return f"{self.path}: {self.what}"

    @property
    def folder(self) -> str:
        """The folder whose contents are not completely known."""
        return self.path.rpartition("/")[0] if self.kind in _OF_ONE_FILE else self.path

    @property
    def stream(self) -> str | None:
        """The file of the one stream that it hides; None: it may hide any in its folder."""
        return stream_of(self.path) if self.kind in _OF_ONE_FILE else None

    def hides(self, folder: str) -> bool:
        """Whether it may hide streams that belong in this folder, relative to the store."""
        return folder == self.folder or (self.kind not in _OF_ONE_FILE and folder.startswith(f"{self.folder}/"))


def unreadable_manifest(error: ManifestError) -> Problem:
    """Return the problem of a manifest that is unreadable, or belongs to another place."""
    return Problem(ProblemKind.MANIFEST, error.path, error.what)


def without_manifest(path: str) -> Problem:
    """Return the problem of a `.zst` without manifest."""
    return Problem(ProblemKind.NO_MANIFEST, path, "has no manifest; `fullsendd verify` makes one if it is whole")


def unreadable_folder(path: str, why: str) -> Problem:
    """Return the problem of an unreadable folder."""
    return Problem(ProblemKind.FOLDER, path, f"cannot be read: {why}")


def symbolic_link(path: str) -> Problem:
    """Return the problem of a symbolic link. Nothing behind it is listed: it may lead anywhere, also in circles."""
    return Problem(ProblemKind.LINK, path, "is a symbolic link, so nothing in it is listed")
