"""Where things lie in the folder of a store (docs/format.md).

STORE/.fullsend     marker: format version and random id, made only by `init`
STORE/.state/       identity, senders, invitations, and changeable data such as scrub results
STORE/.partial/     arriving streams
STORE/SENDER/...    streams
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from fullsend_protocol.format.names import hash_of, manifest_of

MARKER: Final = ".fullsend"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one store. No I/O. `root`: its folder; `store_id`: of its marker, empty: unknown."""

    root: Path
    store_id: str = field(default="", compare=False)

    @property
    def marker(self) -> Path:
        """The file that marks this folder as a store."""
        return self.root / MARKER

    @property
    def state(self) -> Path:
        """The folder of changeable data."""
        return self.root / ".state"

    @property
    def partial(self) -> Path:
        """The folder of arriving streams."""
        return self.root / ".partial"

    @property
    def lock(self) -> Path:
        """The lock of `.state`: a process holds it for each change there, for that change alone."""
        return self.state / "lock"

    @property
    def event_folder(self) -> Path:
        """The folder of the event journal."""
        return self.state / "events"

    @property
    def trash_folder(self) -> Path:
        """The folder of removed streams that can be brought back."""
        return self.state / "trash"

    @property
    def reading(self) -> Path:
        """The folder of the files that name what is being read."""
        return self.state / "reading"

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return str(self.root)

    def manifest_path(self, file: PurePosixPath) -> Path:
        """Return the path of a stream's manifest. `file`: its `.zst`, relative to the store."""
        return self.root / manifest_of(str(file))

    def hash_path(self, file: PurePosixPath) -> Path:
        """Return the path of a stream's `.sha256`. `file`: as in `manifest_path`."""
        return self.root / hash_of(str(file))
