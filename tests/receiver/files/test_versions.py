"""A file's versions: what is said of each, and what is not claimed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.file_trees import Tree, volume
from tests.receiver.helpers import SENDER, make_store, small_stream, store_stream

from fullsend_protocol.dataset.nodes import Time
from fullsend_protocol.dataset.objects import ObjectReader
from fullsend_receiver.catalogue.streams import Damaged, read_catalogue
from fullsend_receiver.files.index import FileIndex, NoSuchFile
from fullsend_receiver.files.versions import Version, judged, snapshots, versions

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_protocol.dataset.nodes import Node
    from fullsend_receiver.catalogue.rows import Summary


def index_of(stream: bytes) -> FileIndex:
    return FileIndex.build(ObjectReader("it", [stream]), None)


@pytest.fixture
def node() -> Node:
    tree = Tree()
    tree.file(tree.root, b"f", b"text")
    return index_of(tree.stream()).lookup(b"f")


@pytest.fixture
def summaries(tmp_path: Path) -> list[Summary]:
    store = make_store(tmp_path)
    for number in (1, 2, 3):
        store_stream(store, SENDER, small_stream("tank", number))
    return [each.summary for each in read_catalogue(store).streams]


def test_judgements(node: Node) -> None:
    later = Time(node.ctime.seconds + 1, 0)
    assert judged(None, None) == ("missing", ())
    assert judged(node, None) == ("removed", ())
    assert judged(None, node) == ("created", ())
    assert judged(node, node) == ("none seen", ())
    assert judged(node, replace(node, atime=later, parent=5)) == ("none seen", ())
    assert judged(node, replace(node, ctime=later)) == ("attributes", ("ctime",))
    assert judged(node, replace(node, mode=0o100600)) == ("attributes", ("mode",))
    assert judged(node, replace(node, mtime=later, ctime=later)) == ("written", ("mtime", "ctime"))
    assert judged(node, replace(node, size=5)) == ("written", ("size",))
    assert judged(node, replace(node, generation=9, size=5))[0] == "replaced"
    assert judged(node, replace(node, number=9))[0] == "replaced"


def test_each_snapshot_is_compared_with_the_last_that_can_be_read(summaries: list[Summary]) -> None:
    tree = Tree()
    tree.file(tree.root, b"f")

    def opened(summary: Summary) -> FileIndex:
        if summary.snapshot == summaries[1].snapshot:
            raise Damaged("it is damaged")
        return index_of(tree.stream())

    found = list(versions(b"/f", snapshots(summaries), opened))
    assert [(each.change, each.since) for each in found] == [
        *(("first", None), ("unreadable", None), ("none seen", summaries[0].snapshot)),
    ]
    assert isinstance(found[1].trouble, Damaged)
    assert found[2].node is not None
    assert [each.change for each in versions(b"g", snapshots(summaries), opened)] == [
        *("missing", "unreadable", "missing"),
    ]


def test_another_stream_of_a_snapshot_serves_too(summaries: list[Summary]) -> None:
    one, other, _third = summaries
    twin = other._replace(guid=one.guid)
    assert snapshots([one, twin]) == [[one, twin]]

    def opened(summary: Summary) -> FileIndex:
        if summary is one:
            raise Damaged("it is damaged")
        return index_of(Tree().stream())

    assert list(versions(b"f", [[one, twin]], opened)) == [Version(one, None, "missing", None)]
    (bad,) = versions(b"f", [[one]], opened)
    assert bad.change == "unreadable"


def test_the_oldest_snapshot_comes_first(summaries: list[Summary]) -> None:
    one, other, third = summaries
    late = one._replace(created="2099-01-01T00:00:00Z")
    assert snapshots([late, third, other])[-1] == [late]


def test_what_has_no_paths(summaries: list[Summary]) -> None:
    with pytest.raises(NoSuchFile, match="is a volume"):
        list(versions(b"f", [summaries], lambda _summary: index_of(volume(512, {}))))
    with pytest.raises(NoSuchFile, match=r"without `\.\.`"):
        list(versions(b"../f", [], lambda _summary: index_of(Tree().stream())))
