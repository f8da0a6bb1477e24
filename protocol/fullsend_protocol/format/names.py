"""What the files of a stored stream are called at their end (docs/format.md, "Names"). No I/O.

A stream is three files: NAME.zfs.zst has its bytes, the same name with `.json` behind it its manifest, with `.sha256`
the SHA-256 of its bytes, as `sha256sum -c` reads it.
"""

from __future__ import annotations

from typing import Final

STREAM_SUFFIX: Final = ".zfs.zst"
MANIFEST_SUFFIX: Final = ".json"
HASH_SUFFIX: Final = ".sha256"


def is_stream(name: str) -> bool:
    """Whether a file has a stream's bytes, by its name."""
    return name.endswith(STREAM_SUFFIX)


def is_manifest(name: str) -> bool:
    """Whether a file is a stream's manifest, by its name."""
    return name.endswith(STREAM_SUFFIX + MANIFEST_SUFFIX)


def manifest_of(stream: str) -> str:
    """Return the name, or the path, of the manifest of a stream's file."""
    return stream + MANIFEST_SUFFIX


def hash_of(stream: str) -> str:
    """Return the name, or the path, of the file with the hash of a stream's file."""
    return stream + HASH_SUFFIX


def stream_of(name: str) -> str:
    """Return the name of the stream's file to which a file belongs: that itself, its manifest, or its hash."""
    return name.removesuffix(MANIFEST_SUFFIX).removesuffix(HASH_SUFFIX)
