"""Datasets of tests/fakezfs.py that change: what is merged is what the next `zfs send` gives, byte for byte."""

from __future__ import annotations

import functools
import itertools
import subprocess
from pathlib import Path

import pytest
from tests import resumed
from tests.fakezfs import Blocks, FakeZfs

from fullsend_protocol.stream.merge import MergeInput, merge

CONTENT = Blocks(count=24, hot=6, rewritten=3, size=64)


@pytest.fixture
def fake(tmp_path: Path) -> FakeZfs:
    """A file system with six snapshots, of which the fourth has nothing new."""
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank")
    fake.create("tank/a", blocks=CONTENT)
    for number in range(6):
        if number != 3:
            fake.change("tank/a")
        fake.snapshot(f"tank/a@{number}")
    return fake


def zfs(fake: FakeZfs, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run the program as fullsend does."""
    done = subprocess.run([fake.program, *arguments], input=stdin, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def merged(*inputs: bytes) -> bytes:
    return b"".join(bytes(piece) for piece in merge([MergeInput(str(at), [raw]) for at, raw in enumerate(inputs)]))


def guid(fake: FakeZfs, name: str) -> str:
    rows = zfs(fake, "list", "-Hp", "-t", "snapshot", name).decode().split("\t")
    return rows[2]


@pytest.mark.parametrize("options", [(), ("-e", "-c", "-p")])
def test_each_merge_is_what_zfs_send_gives(fake: FakeZfs, options: tuple[str, ...]) -> None:
    """For each run of snapshots: at once and one by one; a full, and an increment."""
    guids = [guid(fake, f"tank/a@{number}") for number in range(6)]
    sent = [functools.cache(functools.partial(fake.stream(f"tank/a@{number}"), options=options)) for number in range(6)]
    for first, last in itertools.combinations(range(6), 2):
        increments = [sent[at](guids[at - 1]) for at in range(first + 1, last + 1)]
        full = [sent[first](None), *increments]
        assert merged(*full) == functools.reduce(merged, full) == sent[last](None)
        if len(increments) > 1:
            assert merged(*increments) == sent[last](guids[first])


def test_an_increment_has_what_changed_and_right_sums(fake: FakeZfs) -> None:
    full = zfs(fake, "send", "tank/a@0")
    assert zfs(fake, "send", "-nP", "tank/a@0").split()[-1] == b"%d" % (24 * 64)
    for number in range(1, 6):
        increment = ["-i", f"tank/a@{number - 1}", f"tank/a@{number}"]
        assert zfs(fake, "send", "-nP", *increment).split()[-1] == b"%d" % (64 * (0 if number == 3 else 3))
        assert not resumed.wrong_sums(zfs(fake, "send", *increment))
    assert not resumed.wrong_sums(full)


def test_a_bookmark_is_a_base_and_a_rolled_back_dataset_is_as_it_was(fake: FakeZfs) -> None:
    zfs(fake, "bookmark", "tank/a@1", "tank/a#1")
    increment = zfs(fake, "send", "-i", "tank/a#1", "tank/a@5")
    was = zfs(fake, "send", "tank/a@1")
    assert merged(was, increment) == zfs(fake, "send", "tank/a@5")
    fake.rollback("tank/a@1")
    fake.snapshot("tank/a@again")
    assert fake.blocks("tank/a@again")() == fake.blocks("tank/a@1")()


def test_what_was_received_is_compared_with_its_source(fake: FakeZfs) -> None:
    sources = [fake.blocks(f"tank/a@{number}") for number in range(6)]
    fake.create("back")
    zfs(fake, "receive", "back/a", stdin=zfs(fake, "send", "tank/a@0"))
    assert fake.received_blocks("back/a") == sources[0]()
    for number in range(1, 6):
        zfs(fake, "receive", "back/a", stdin=zfs(fake, "send", "-i", f"tank/a@{number - 1}", f"tank/a@{number}"))
        assert fake.received_blocks("back/a") == sources[number]()
    zfs(fake, "receive", "back/b", stdin=zfs(fake, "send", "tank/a@5"))
    assert fake.received_blocks("back/b") == sources[5]()
    assert len({str(source()) for source in sources}) == 5


def test_the_state_of_what_came_in_two_parts(fake: FakeZfs) -> None:
    fake.create("back")
    raw = zfs(fake, "send", "tank/a@2")
    part = subprocess.run(
        [fake.program, "receive", "-s", "back/a"], input=raw[: len(raw) // 2], check=False, stderr=subprocess.PIPE
    )
    assert part.returncode == 1
    token = zfs(fake, "get", "-t", "filesystem", "-o", "name,property,value", "receive_resume_token", "back/a")
    zfs(fake, "receive", "-s", "back/a", stdin=zfs(fake, "send", "-t", token.split()[-1].decode()))
    assert fake.received_blocks("back/a") == fake.blocks("tank/a@2")()


def test_the_streams_of_a_snapshot_that_is_gone(fake: FakeZfs) -> None:
    base, stream = guid(fake, "tank/a@1"), fake.stream("tank/a@2")
    options = ["-L", "-e", "-c", "-p"]
    sent = zfs(fake, "send", *options, "-i", "tank/a@1", "tank/a@2")
    zfs(fake, "destroy", "tank/a@2")
    assert stream(base, options) == sent
