"""The suffixes of the files of a stored stream (docs/format.md, "Names"), and which stream a name means.

A stream is three files: NAME.zfs.zst has its bytes. NAME.zfs.zst.json is its manifest. NAME.zfs.zst.sha256 has the
SHA-256 of its bytes, in the format of `sha256sum -c`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

STREAM_SUFFIX: Final = ".zfs.zst"
MANIFEST_SUFFIX: Final = ".json"
HASH_SUFFIX: Final = ".sha256"
_GUID: Final = "guid:"
_ASIDE: Final = "aside:"


class Named(Protocol):
    """A stored stream, as far as its name matters: see manifest.StreamEntry."""

    @property
    def dataset(self) -> str: ...
    @property
    def snapshot(self) -> str: ...
    @property
    def guid(self) -> str: ...
    @property
    def file(self) -> str: ...


_N = TypeVar("_N", bound=Named)


def named(what: str, streams: Iterable[_N]) -> list[_N]:
    """Return the streams of one sender that `what` may mean.

    `what`: a file, by its path or its name alone, or guid:N, or DATASET@SNAPSHOT. The last one may end with a suffix of
    a file.
    """
    streams = list(streams)
    if is_stream(what):
        found = [each for each in streams if what in {each.file, each.file.rpartition("/")[2]}]
        if found:
            return found
    guid = guid_of(what)
    if guid is not None:
        return [each for each in streams if each.guid == guid]
    return [each for each in streams if f"{each.dataset}@{each.snapshot}" == what]


def guid_of(what: str) -> str | None:
    """Return N of guid:N; None: `what` is not of that form."""
    return what.removeprefix(_GUID) if what.startswith(_GUID) else None


def is_aside(what: str) -> bool:
    """Whether this names a stream that was set aside as damaged: aside:NAME."""
    return what.startswith(_ASIDE)


def aside_name(what: str) -> str:
    """Return NAME of aside:NAME."""
    return what.removeprefix(_ASIDE)


def is_stream(name: str) -> bool:
    """Whether a file has the bytes of a stream, by its name."""
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
    """Return the name of the stream's file to which a file belongs: the stream's, its manifest, or its hash."""
    return name.removesuffix(MANIFEST_SUFFIX).removesuffix(HASH_SUFFIX)
