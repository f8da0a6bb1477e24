"""The program `zfs` as it is called; tests/zfs has the real one."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.fakezfs import FakeZfs

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.zfs import child, commands, inventory
from fullsend_sender.zfs.child import ChildProcess
from fullsend_sender.zfs.commands import Zfs, ZfsError


@pytest.fixture
def fake(tmp_path: Path) -> FakeZfs:
    made = FakeZfs.make(tmp_path / "zfs")
    made.create("tank/a b")
    return made


def shell(script: str) -> Zfs:
    """A `zfs` that is this script, whatever it is asked."""
    return Zfs(("sh", "-c", script))


def test_lines_can_be_typed() -> None:
    assert Zfs(("sudo", "-n", "zfs")).line("send", "a b@1") == "sudo -n zfs send 'a b@1'"


async def test_what_there_is(fake: FakeZfs) -> None:
    program = Zfs((fake.program,))
    await program.snapshot(["tank/a b@1"])
    listing, complaint = await program.listing(["tank/a b", "tank/none"], recursive=True)
    assert list(inventory.parse(listing)) == ["tank/a b"]
    assert complaint == "cannot open 'tank/none': dataset does not exist"
    # An empty list is an answer; a failure is not.
    assert await program.listing(["tank/none"], recursive=False) == ("", complaint)
    fake.fail("list -Hp -d", "internal error: out of memory")
    with pytest.raises(ZfsError, match="out of memory"):
        await program.listing(["tank/none"], recursive=False)
    assert list(inventory.parse_snapshots(await program.list_snapshots(["tank/a b@1"]))) == ["tank/a b@1"]
    assert await program.local_properties("tank/a b") == {"compression": "zstd", "user:note": "kept"}
    assert await program.version() == "zfs-2.4.4-fake"
    assert await program.estimate("tank/a b@1") == 300_000
    assert await program.written_since("tank/a b", "@1") == 4096


async def test_properties_of_many_datasets(fake: FakeZfs) -> None:
    program = Zfs((fake.program,))
    for name in ("tank/b", "tank/none"):
        fake.create(name)
    about = {"user:tab": "a\tb", "user:bytes": "\udcff", "user:page": "a\x0cb\u2028c", "user:long": "x" * 8191}
    fake.edit(lambda state: state["datasets"]["tank/b"]["properties"].update(about))
    fake.edit(lambda state: state["datasets"]["tank/none"]["properties"].clear())
    names = ["tank/a b", "tank/b", "tank/none"]
    fake.forget_commands()
    found = await program.local_properties_of(names)
    assert len(fake.commands) == 2
    assert found == {name: await program.local_properties(name) for name in names}
    assert (found["tank/b"]["user:bytes"], found["tank/b"]["user:tab"]) == ("\ufffd", "a\tb")
    with pytest.raises(ZfsError, match="does not exist"):
        await program.local_properties_of([*names, "tank/gone"])


@pytest.mark.parametrize(
    "value",
    ["a\ntank/b\tcompression\toff", "a\n", "\n", "a\ntank/a b\tuser:note\tforged", "a\ntank/b\tcompression"],
)
async def test_value_with_a_line_end_forges_no_property(fake: FakeZfs, value: str) -> None:
    """What may pass for another dataset's is told of none of them."""
    fake.create("tank/b")
    fake.edit(lambda state: state["datasets"]["tank/a b"]["properties"].update({"user:note": value}))
    assert await Zfs((fake.program,)).local_properties_of(["tank/a b", "tank/b"]) == {}


@pytest.mark.parametrize(
    "between",
    [
        {"user:new": "set meanwhile"},
        {"compression": None},
        {"compression": None, "user:note": "a\ntank/b\tcompression\tforged"},
        {"compression": None, "user:new": "another"},
    ],
)
async def test_properties_that_change_between_the_two_commands(
    fake: FakeZfs, between: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, run = Zfs((fake.program,)), Zfs.run
    fake.create("tank/b")

    async def changing(zfs: Zfs, *arguments: str) -> str:
        output = await run(zfs, *arguments)

        def change(state: dict[str, Any]) -> None:
            here = {**state["datasets"]["tank/a b"]["properties"], **between}
            state["datasets"]["tank/a b"]["properties"] = {
                name: each for name, each in here.items() if each is not None
            }

        fake.edit(change)
        return output

    monkeypatch.setattr(Zfs, "run", changing)
    assert await program.local_properties_of(["tank/a b", "tank/b"]) == {}


@pytest.mark.parametrize(
    "end",
    [
        "echo 'cannot iterate filesystems: I/O error' >&2; exit 1",
        "echo \"cannot open 'tank/none': dataset does not exist\" >&2; echo 'internal error: no memory' >&2; exit 1",
        "exit 1",
        "kill -9 $$",
    ],
)
async def test_a_part_of_a_listing_is_none(end: str) -> None:
    with pytest.raises(ZfsError):
        await shell(f"echo tank; {end}").listing(["tank"], recursive=True)


@pytest.mark.parametrize(("names", "last"), [(1000, "internal error: no memory"), (100_000, "")])
async def test_a_failure_behind_many_unknown_names_is_one(names: int, last: str) -> None:
    line = f"cannot open 'tank/{'x' * 20}': dataset does not exist"  # where stderr is cut off, a line ends
    assert len(line) + 1 == 64
    unknown = f'yes "{line}" | head -n {names} >&2'
    with pytest.raises(ZfsError):
        await shell(f"echo tank; {unknown}; echo '{last}' >&2; exit 1").listing(["tank"], recursive=True)


async def test_names_that_can_be_none() -> None:
    said = "cannot open 'tank//x': empty component or misplaced '@' or '#' delimiter in name"
    program = shell(f'echo "sudo: unable to resolve host" >&2; echo "{said}" >&2; echo tank; exit 1')
    assert await program.listing(["tank", "tank//x"], recursive=True) == (
        "tank\n",
        f"sudo: unable to resolve host; {said}",
    )


async def test_holds_of_what_is_gone(fake: FakeZfs) -> None:
    program = Zfs((fake.program,))
    await program.snapshot(["tank/a b@1"])
    await program.hold("tag", ["tank/a b@1"])
    assert await program.holds(["tank/a b@gone", "tank/a b@1"]) == [("tank/a b@1", "tag")]


async def test_holds_and_marks(fake: FakeZfs) -> None:
    program = Zfs((fake.program,))
    await program.snapshot(["tank/a b@1", "tank/a b@2"])
    await program.hold("tag", ["tank/a b@1"])
    assert await program.holds(["tank/a b@1", "tank/a b@2"]) == [("tank/a b@1", "tag")]
    await program.bookmark("tank/a b@1", "tank/a b#one")
    failed = await program.destroy_snapshots("tank/a b", ["1", "2"])
    assert list(failed) == ["1"]
    assert "it's being held" in str(failed["1"])
    assert fake.names("snapshots", "tank/a b") == ["1"]
    await program.release("tag", ["tank/a b@1"])
    assert await program.destroy_snapshots("tank/a b", ["1"]) == {}
    assert fake.names("snapshots", "tank/a b") == []
    await program.destroy_bookmark("tank/a b#one")
    assert fake.names("bookmarks", "tank/a b") == []


async def test_more_snapshots_than_one_argument_has_room_for() -> None:
    """Linux allows 128 KiB for one argument, so 10,000 names are several commands."""
    program = shell("exit 0")
    names = [f"fullsend-2026-11-30-{number:012}" for number in range(10_000)]
    assert await program.destroy_snapshots("tank/a", names) == {}


async def test_sync(fake: FakeZfs) -> None:
    await Zfs(("sudo", "-n", fake.program)).sync("tank")
    assert fake.commands[-1].split() == ["zpool", "sync", "tank"]
    await Zfs(("/nowhere/zfs",)).sync("tank")  # where it does not work, it does not matter


@pytest.mark.parametrize("path", ["/usr/bin:/bin", None])
async def test_it_is_found_by_cron_too(
    monkeypatch: pytest.MonkeyPatch, fake: FakeZfs, tmp_path: Path, path: str | None
) -> None:
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    sbin = tmp_path / "sbin"
    sbin.mkdir()
    (sbin / "zfs-of-the-test").symlink_to(fake.program)
    monkeypatch.setattr(commands, "_SYSTEM_FOLDERS", (str(sbin),))
    assert await Zfs(("zfs-of-the-test",)).version() == "zfs-2.4.4-fake"


async def test_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no program '/nowhere/zfs' here"):
        await Zfs(("/nowhere/zfs",)).version()
    (tmp_path / "zfs").touch(0o644)
    with pytest.raises(UsageError, match="cannot be run"):
        await Zfs((str(tmp_path / "zfs"),)).version()
    for program in (Zfs(("/nowhere/zfs",)).send("x"), Zfs(("/nowhere/zfs",)).receive("x")):
        with pytest.raises(UsageError):
            await program.__aenter__()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo one >&2; echo two >&2; exit 3", r"^one; two \[.* version, exit 3\]$"),
        ("exit 1", r"^it did not say why \[.* version, exit 1\]$"),
        ("kill -9 $$", r"^it did not say why \[.* version, killed by SIGKILL\]$"),
        ("printf '\\033[31mred' >&2; exit 1", r"^\\x1b\[31mred"),
        ("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1", r"^x{1000} \[.* version, exit 1\]$"),
    ],
)
async def test_how_it_fails(script: str, message: str) -> None:
    with pytest.raises(ZfsError, match=message):
        await shell(script).version()


async def test_the_reason_comes_first_and_the_command_only_with_v(
    fake: FakeZfs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fullsend"), "propagate", True)  # a command in this process turns it off
    monkeypatch.setattr(logging.getLogger("fullsend"), "handlers", [])
    names = [f"tank/a b@{number:0100}" for number in range(100)]
    fake.fail("snapshot", f"cannot create snapshot '{names[7]}': dataset is busy")
    with caplog.at_level(logging.INFO, "fullsend"), pytest.raises(ZfsError) as caught:
        await Zfs((fake.program,)).run("snapshot", *names)
    assert str(caught.value).startswith(
        f"cannot create snapshot '{names[7]}': dataset is busy (something uses it, such as a "
    )
    assert str(caught.value).endswith(f"[{Path(fake.program).name} snapshot, exit 1]")
    assert names[8] not in str(caught.value)
    (logged,) = (each.getMessage() for each in caplog.records if each.name == "fullsend.zfs")  # asyncio may be slow
    assert names[8] in logged
    assert caught.value.about(names) == [names[7]]


async def test_a_send_that_nobody_reads_is_ended() -> None:
    async with asyncio.timeout(30):
        async with shell("exec cat /dev/zero").send("x") as send:
            assert os.read(send.fd, 3) == bytes(3)


async def test_one_that_will_not_end_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_KILL_AFTER", 0.2)
    async with asyncio.timeout(30):
        async with shell("trap '' TERM; echo ready; while :; do read -r x </dev/zero; done").send("x") as send:
            assert os.read(send.fd, 5) == b"ready"


def test_what_outlives_it_keeps_nothing_of_ours_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as sudo's child, which is root's: it may still have the stderr that we read."""
    said = tmp_path / "pid"
    program = shell(f'sleep 100 & echo $! >"{said}.new"; mv "{said}.new" "{said}"; exec cat >/dev/null')

    async def run() -> None:
        async with program.receive("tank/back"):
            while not said.exists():
                await asyncio.sleep(0.01)

    with warnings.catch_warnings(record=True) as warned, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        warnings.simplefilter("always")
        runner.run(run())
    gc.collect()
    os.kill(int(said.read_text()), signal.SIGKILL)
    assert [str(each.message) for each in warned] == []


async def test_receive(tmp_path: Path) -> None:
    async with shell(f"cat >{tmp_path}/got").receive("x") as receive:
        os.write(receive.fd, b"stream")
        await receive.succeeded()
    assert (tmp_path / "got").read_bytes() == b"stream"
    with pytest.raises(ZfsError, match="no room"):
        async with shell("cat >/dev/null; echo no room >&2; exit 1").receive("x") as receive:
            await receive.succeeded()
    async with asyncio.timeout(30):
        async with shell("exec sleep 1000").receive("x"):
            pass


def test_many_names_are_split() -> None:
    names = [f"tank/{number:0200}@now" for number in range(10_000)]
    parts = list(commands._batches(names))
    assert len(parts) == 3
    assert [name for part in parts for name in part] == names
    assert list(commands._batches([])) == []


async def test_a_batch_that_fails_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_NAMES_MAX", 40)
    names = [f"tank/{letter}@{'x' * 20}" for letter in "abc"]
    script = f"""
        echo "$1 $3" >>{tmp_path}/log
        case "$1 $3" in "holds "*) ;; *tank/a*) echo "not $3" >&2; exit 1 ;; esac
    """
    zfs = Zfs((*shell(script).command, "sh"))
    with pytest.raises(ZfsError, match=f"not {names[0]}"):
        await zfs.release("tag", names)
    assert {name: error.complaint for name, error in (await zfs.hold("tag", names)).items()} == {
        names[0]: f"not {names[0]}"
    }
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines() == [
        *(f"release {name}" for name in names),
        *(f"hold {names[0]}", f"holds {names[0]}", f"hold {names[1]}", f"hold {names[2]}"),
    ]


@pytest.mark.parametrize(
    "end",
    [
        # More than an error shows.
        "for each; do echo \"cannot hold snapshot '$each': tag already exists on this dataset\"; done >&2; exit 1",
        # As libzfs says it where the kernel names none.
        "echo \"cannot hold snapshot '$1': tag already exists\" >&2; echo 'cannot hold: out of space' >&2; exit 1",
        "echo \"cannot hold snapshot '$1': tag already exists\" >&2; kill -9 $$",
    ],
)
async def test_what_is_not_held_is_known_whatever_the_failure_says(end: str) -> None:
    names = [f"tank/{number:0100}@now" for number in range(30)]
    held = names[20:]
    lines = "".join(f"{name}\\ttag\\tTue Nov 24 02:00 2026\\n{name}\\tother\\tthen\\n" for name in held)
    zfs = Zfs((*shell(f"if [ $1 = holds ]; then printf '{lines}'; exit; fi; shift 2; {end}").command, "sh"))
    assert list(await zfs.hold("tag", names)) == names[:20]
    assert list(await zfs.hold("another", names)) == names


async def test_cancellation_behind_a_start_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "zfs"
    script.write_text("#!/bin/sh\nexec sleep 1000\n", encoding="utf-8")
    script.chmod(0o755)
    started: list[ChildProcess] = []
    start = child.start

    def noting(*command: str, **options: Any) -> ChildProcess:
        process = start(*command, **options)
        started.append(process)
        return process

    monkeypatch.setattr(child, "start", noting)
    running = asyncio.create_task(Zfs((str(script),)).run("list"))
    while not started:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert started[0].returncode is not None
