"""The name of a stored stream's file (docs/format.md, "Names").

    SENDER/DATASET.../@SNAPSHOT.GUID.KIND[.FLAGS].zfs.zst

A name has no byte that is special to a file system or a shell, or invisible. It is never longer than 255 bytes with any
suffix, and two different streams never have the same one. The manifest has the true names: no program reads them from a
file name.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Final

from fullsend_protocol.format.names import STREAM_SUFFIX
from fullsend_protocol.stream.facts import Facts

_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")
#: With "~", 16 hex digits, and the longest rest (`.GUID.package.from.GUID.Lecwpr########.zfs.zst.sha256`) a name has at
#: most the 255 bytes that file systems allow.
_COMPONENT_MAX: Final = 133
_HASH_DIGITS: Final = 16
_BASE: Final = re.compile(
    r"\.[0-9a-f]{16}\.(?:package\.)?from\.([0-9a-f]{16})(?:\.[A-Za-z0-9]+)?\.zfs\.zst(?:\.json)?$"
)
#: The part before it is as long as possible: a snapshot may be called as a file is.
_GUID: Final = re.compile(
    r".*\.([0-9a-f]{16})\.(?:full|package|(?:package\.)?from\.[0-9a-f]{16})(?:\.[A-Za-z0-9]+)?\.zfs\.zst"
)


def encode_component(name: str) -> str:
    """Return one name (UTF-8) as a path component: unsafe bytes as %XX, cut and hashed if it is too long."""
    raw = name.encode()
    parts = [chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in raw]
    if sum(map(len, parts)) <= _COMPONENT_MAX:
        return "".join(parts)
    kept = ""
    for part in parts:
        if len(kept) + len(part) > _COMPONENT_MAX:
            break
        kept += part
    return kept + "~" + hashlib.sha256(raw).hexdigest()[:_HASH_DIGITS]


def dataset_folder(sender: str, dataset: str) -> PurePosixPath:
    """Return the folder of a dataset's streams, relative to the store."""
    components = [encode_component(part) for part in dataset.split("/")]
    # "." and ".." consist of safe bytes, but have a meaning as a whole.
    components = [part.replace(".", "%2E") if part in {".", ".."} else part for part in components]
    return PurePosixPath(sender, *components)


def stream_file(sender: str, facts: Facts) -> PurePosixPath:
    """Return the path of a stream's `.zst` file, relative to the store."""
    kind = {
        "full": "full",
        "incremental": f"from.{facts.base_guid or 0:016x}",
        "package": f"package.from.{facts.base_guid:016x}" if facts.base_guid else "package",
    }[facts.kind]
    flags = f".{facts.flags}" if facts.flags else ""
    name = f"@{encode_component(facts.snapshot)}.{facts.guid:016x}.{kind}{flags}{STREAM_SUFFIX}"
    return dataset_folder(sender, facts.dataset) / name


def guid_in_name(name: str) -> str | None:
    """Return the GUID (decimal) of the snapshot in the name of a stream's file; None: it is not such a name.

    The manifest says which snapshot a stream has. This is for a file that is not there any more.
    """
    found = _GUID.fullmatch(name)
    return None if found is None else str(int(found[1], 16))


def base_in_name(name: str) -> str | None:
    """Return the base GUID (decimal) in the name of a stream's file or manifest; None: it names none.

    The manifest says what a stream builds on. This is for a file without one that can be read, which must be left.
    """
    found = _BASE.search(name)
    return None if found is None else str(int(found[1], 16))


def hash_line(sha256: str, file: PurePosixPath) -> bytes:
    """Return the content of a file's `.sha256`, in the format of `sha256sum -c`. `sha256`: in hex."""
    return f"{sha256}  {file.name}\n".encode()
