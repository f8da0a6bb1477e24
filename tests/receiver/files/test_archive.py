"""Archives, read back by Python's own reader of them."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import LONG, TREES, GenuineTree, Tree

from fullsend_files.troubles import Troubles, Wishes
from fullsend_receiver.files.archive import SIZE_MAX, Archive, posix_acl_text
from fullsend_receiver.files.choice import FileChoice, matcher
from fullsend_receiver.files.delivery import deliver
from fullsend_receiver.files.index import FileIndex
from fullsend_receiver.files.sources import FileSource

if TYPE_CHECKING:
    from pathlib import Path


def archived(source: FileSource, wishes: Wishes, path: bytes = b"/") -> tuple[bytes, Troubles]:
    with source.opened() as reader:
        choice = FileChoice(FileIndex.build(reader, None))
    choice.add(path, matcher([]))
    troubles, out = Troubles(), io.BytesIO()

    def write(data: bytes | memoryview) -> None:
        out.write(data)

    archive = Archive(write, choice, wishes, troubles)
    deliver(source, choice, archive, wishes, troubles)
    archive.finish()
    return out.getvalue(), troubles


@pytest.mark.parametrize("tree", [TREES[1], TREES[3], LONG], ids=str)
def test_genuine_trees(tree: GenuineTree) -> None:
    data, troubles = archived(FileSource.of(tree.paths()), Wishes(special=True, setuid=True))
    assert troubles.lines == ["a/sock: is a socket, which no archive can have"]
    listing = tree.listing()
    seen = set()
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for each in archive:
            path = os.fsencode(each.name)
            if path == b".":
                continue
            about = listing[path]
            seen.add(path)
            if each.islnk():
                assert listing[os.fsencode(each.linkname)]["ino"] == about["ino"]
                continue
            assert (each.mode, each.uid, each.gid) == (stat.S_IMODE(about["mode"]), about["uid"], about["gid"])
            sign = "-" if about["mtime"] < 0 else ""
            seconds, rest = divmod(abs(about["mtime"]), 10**9)
            assert each.pax_headers["mtime"] == f"{sign}{seconds}.{rest:09}"
            if "target" in about:
                assert os.fsencode(each.linkname).hex() == about["target"]
            if "rdev" in about:
                assert [each.devmajor, each.devminor] == about["rdev"]
            if "sha256" in about:
                file = archive.extractfile(each)
                assert file is not None
                assert hashlib.sha256(file.read()).hexdigest() == about["sha256"]
            for name, value in about.get("xattrs", {}).items():
                if not name.startswith("system."):
                    found = each.pax_headers[f"SCHILY.xattr.{name}"]
                    assert found.encode("utf-8", "surrogateescape").hex() == value
    assert seen == listing.keys() - {b"a/sock"}
    assert b"hdrcharset" not in data


def test_an_acl_as_archives_have_it() -> None:
    data, _troubles = archived(FileSource.of(TREES[0].paths()), Wishes())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        text = "user::rw-,user:1234:r--,group::r--,mask::rw-,other::r--"
        assert archive.getmember("a/tiny").pax_headers["SCHILY.acl.access"] == text
        assert archive.getmember("a/b").pax_headers["SCHILY.acl.default"] == text  # the last one of that name
    assert posix_acl_text(b"") is None
    assert posix_acl_text(b"\2\0\0\0" + b"\x99" * 8) is None
    assert posix_acl_text(b"\1\0\0\0") is None


def test_what_an_archive_cannot_have(tmp_path: Path) -> None:
    tree = Tree()
    huge = tree.file(tree.root, b"huge", b"", SIZE_MAX + 1)
    tree.directories[tree.root][b"link"] = huge
    tree.file(tree.root, b"z", b"good")
    data, troubles = archived(FileSource.of([tree.written(tmp_path / "s.zfs")]), Wishes())
    assert troubles.lines == [
        f"huge: has {SIZE_MAX + 1} bytes, too many for an archive without holes: use `get --into`",
        "link: is a link to a file that was left out",
    ]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [".", "z", "."]


def test_the_root_comes_only_if_it_was_chosen() -> None:
    """`tar` would give its mode and owner to the folder in which the archive is unpacked."""
    data, _troubles = archived(FileSource.of(TREES[0].paths()), Wishes(), b"a/tiny")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a", "a/tiny", "a"]


def test_numbers_that_a_header_has_no_room_for(tmp_path: Path) -> None:
    tree = Tree()
    number = tree.file(tree.root, b"f", b"x")
    tree.attributes[number]["ZPL_UID"] = (4_000_000_000).to_bytes(8, "little")
    data, troubles = archived(FileSource.of([tree.written(tmp_path / "s.zfs")]), Wishes())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("f").uid == 4_000_000_000
    assert not troubles.lines
