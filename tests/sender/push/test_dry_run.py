"""What `push -n` prints, compared with what a push then runs."""

from __future__ import annotations

import re
import shlex

import pytest
from tests.sender.zfs_host import Host

from fullsend_sender.push.dry_run import dry_run


async def test_rehearsal(host: Host) -> None:
    host.fake.create("tank/a")
    host.fake.create("tank/b")
    host.fake.snapshot("tank/b@mon")
    plan, lines = await dry_run(host.job("tank/a", "tank/b@mon"))
    assert len(plan.items) == 2
    said = [line.removeprefix(f"{host.fake.program} ") for line in lines]
    assert [line.split()[0] for line in said] == [
        *("snapshot", "hold", "send", "bookmark"),
        *("hold", "send", "bookmark"),
        "release",
    ]
    assert said[2].endswith("# full, about 976.6 KiB")
    assert said[5].endswith("# full, about 293.0 KiB")
    assert host.fake.names("snapshots", "tank/a") == []
    _plan, lines = await dry_run(host.job("tank", "tank/a", package=True))
    assert any(" snapshot -r " in line for line in lines)
    await host.push("tank/a")
    host.fake.change("tank/a")
    plan, lines = await dry_run(host.job("tank/a"))
    assert any("# incremental, about 4.0 KiB" in line for line in lines)
    _plan, lines = await dry_run(host.job("tank/a", full=True))
    why = "because --full is given; its chain has 1 stream, and its full is 0:00:00 old"
    assert any(line.endswith(f"# full, about 976.6 KiB, {why}") for line in lines)
    _plan, lines = await dry_run(host.job("tank/a", settings={"full_after": {"streams": 1}}))
    assert any(line.endswith("its full is 0:00:00 old: full-after says streams 1") for line in lines)


@pytest.mark.parametrize("package", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_a_rehearsal_is_what_is_run(host: Host, package: bool) -> None:
    for name in ("tank", "tank/a b"):
        host.fake.create(name)
    for _night in range(2):
        for name in ("tank", "tank/a b"):
            host.fake.change(name)
        await host.push("tank", recursive=not package, package=package)
    for name in ("tank", "tank/a b"):
        host.fake.change(name)
    _plan, lines = await dry_run(host.job("tank", recursive=not package, package=package))
    await host.push("tank", recursive=not package, package=package)
    ran = [line for line in host.fake.commands if line.split()[0] not in {"zpool", "list", "version", "get", "holds"}]
    said = [line.removeprefix(f"{host.fake.program} ").partition("  #")[0] for line in lines]
    rehearsed = _single([_timeless(line) for line in said])
    done = _single([_timeless(line) for line in ran if "-nP" not in line])
    assert sorted(rehearsed) == sorted(done)
    for name in ("tank", "tank/a b"):  # what is cleaned up when depends on the time that the streams take
        of_it = re.compile(rf"[ ']{name}[@#]")
        assert [line for line in rehearsed if of_it.search(line)] == [line for line in done if of_it.search(line)]
    assert sum(line.startswith("destroy") for line in said) == (2 if package else 4)


def _single(lines: list[str]) -> list[str]:
    """The commands, with one release for each snapshot."""
    single: list[str] = []
    for line in lines:
        words = shlex.split(line)
        single += [shlex.join([*words[:2], each]) for each in words[2:]] if words[0] == "release" else [line]
    return single


def _timeless(line: str) -> str:
    """A command without what the clock and chance put into it."""
    line = re.sub(r"(fullsend:[0-9a-f]{8}:)[0-9a-f]{16}", r"\1RUN", line)
    line = re.sub(r"^(bookmark .*#fullsend-[0-9a-f]{8}-)([0-9a-f]{16}|GUID)", r"\1GUID", line)
    newest = max(re.findall(r"[0-9]{8}T[0-9]{6}Z", line), default="none")
    return line if line.startswith("destroy") else line.replace(newest, "NOW")
