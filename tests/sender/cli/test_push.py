"""`fullsend push --stdin` as a process of its own, against a scripted receiver."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import forked, streams
from tests.fakezfs import FakeZfs
from tests.programs import free_port
from tests.promtool import complaints
from tests.sender.command import AWAY, RAW, Ended, Fullsend, answering, taking
from tests.sender.peer import Keeper, Peer, receipt_of, receiving
from tests.sender.transfer.test_pipeline import large

from fullsend_protocol.format.metrics_text import parse_samples
from fullsend_protocol.shared.errors import ErrorCode
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import Chunk
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint


async def test_push_is_silent_and_json_is_one_object(fullsend: Fullsend, receiver_identity: Identity) -> None:
    raw = large(10 << 20)
    async with receiving(receiver_identity, taking(raw), taking(raw)) as receiver:
        assert await fullsend(receiver, "push", "--stdin", stdin=raw) == Ended(0, b"", "")
        ended = await fullsend(receiver, "push", "--stdin", "--json", stdin=raw)
    assert (ended.code, ended.err) == (0, "")
    said = json.loads(ended.out)
    assert said["guid"] == str(streams.GUID)
    assert said["receipt"] == receipt_of(raw).model_dump(mode="json")


async def test_push_says_more_when_asked(fullsend: Fullsend, receiver_identity: Identity) -> None:
    stored = answering(messages.Stored(receipt=receipt_of(RAW)))
    async with receiving(receiver_identity, taking(RAW), stored) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", "-v", "--progress", "never", stdin=RAW)
        said = r"fullsend: tank/data@now \(full\): 624 B stored as 1000 B in \d+:\d\d:\d\d"
        assert re.fullmatch(said, ended.line)
        ended = await fullsend(receiver, "push", "--stdin", "-v", stdin=RAW)
        assert ended.line == "fullsend: tank/data@now (full) is stored already; nothing was sent"
        assert ended.code == 0


async def test_push_with_a_live_line(fullsend: Fullsend, receiver_identity: Identity) -> None:
    async with receiving(receiver_identity, taking(RAW)) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", "--progress", "always", stdin=RAW)
    assert re.match(r"\r\x1b\[K0 B \d+:\d\d:\d\d", ended.err)
    live, last, summary = ended.err.rpartition("\x1b[K")[2].partition("\n")
    assert live.startswith(f"{len(RAW)} B ")
    assert last == "\n"
    assert summary.startswith("tank/data@now (full): ")


async def test_a_receiver_that_goes_away_is_waited_for_as_long_as_is_said(
    fullsend: Fullsend, receiver_identity: Identity
) -> None:
    async def goes(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        await peer.hear()

    async with receiving(receiver_identity, goes, taking(RAW), goes) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", "--json", "-v", stdin=RAW)
        assert (ended.code, json.loads(ended.out)["resume"]) == (0, "reconnect")
        assert "; retrying for up to 1:00:00" in ended.err
        ended = await fullsend(receiver, "push", "--stdin", "--retry-for", "0s", stdin=RAW)
        assert (ended.code, ended.out) == (75, b"")
    ended = await fullsend(AWAY, "push", "--stdin", "--retry-for", "soon", stdin=RAW)
    assert ended.code == 2
    assert "retry" in ended.line


async def test_an_orphan_fails_unless_it_is_allowed(fullsend: Fullsend, receiver_identity: Identity) -> None:
    raw = streams.substream(base_guid=77)
    orphan = taking(raw, restorable=False)
    async with receiving(receiver_identity, orphan, orphan, orphan) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", stdin=raw)
        assert ended.code == 1
        assert "tank/data@now was kept, but cannot be restored" in ended.line
        assert "(guid 77)" in ended.line
        assert (await fullsend(receiver, "push", "--stdin", "--allow-orphan", stdin=raw)).code == 0
        assert (await fullsend(receiver, "push", "--stdin", stdin=raw, FULLSEND_ALLOW_ORPHAN="true")).code == 0


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (b"", "no data: not a single byte"),
        (b"garbage on stdin, more than a few bytes", "not a ZFS send stream"),
        (RAW[:-1], "it was cut, or its producer died"),
        (RAW + b"x", "bytes follow the stream's end"),
        (streams.substream(features=[20]), "is a resumed stream"),
    ],
)
async def test_wrong_input_is_one_line(fullsend: Fullsend, stdin: bytes, message: str) -> None:
    ended = await fullsend(AWAY, "push", "--stdin", stdin=stdin)
    assert ended.code == 1
    assert message in ended.line


@pytest.mark.parametrize(
    ("code", "expected"), [(ErrorCode.SPACE, 3), (ErrorCode.BUSY, 4), (ErrorCode.LIMIT, 75), (ErrorCode.STREAM, 1)]
)
async def test_refusals(fullsend: Fullsend, receiver_identity: Identity, code: ErrorCode, expected: int) -> None:
    async with receiving(receiver_identity, answering(messages.Error(code=code, message="no\x1b"))) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", stdin=RAW)
    assert (ended.code, ended.line) == (expected, r"fullsend: nas: no\x1b")


async def test_metrics_are_written_however_a_push_ends(
    fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path
) -> None:
    path = tmp_path / "fullsend.prom"

    def metrics() -> dict[str, float]:
        samples = parse_samples(path.read_text(encoding="utf-8"))
        return {each.name.removeprefix("fullsend_"): each.value for each in samples}

    file = {"FULLSEND_METRICS_FILE": str(path)}
    ended = await fullsend(AWAY, "push", "--stdin", "--retry-for", "0s", stdin=RAW, **file)
    assert (ended.code, metrics()["run_last_exit_code"]) == (75, 75)
    assert "run_last_success_timestamp_seconds" not in metrics()
    async with receiving(receiver_identity, taking(RAW)) as receiver:
        assert (await fullsend(receiver, "push", "--stdin", stdin=RAW, **file)).code == 0
    found = metrics()
    assert (found["run_last_exit_code"], found["push_last_exit_code"]) == (0, 0)
    assert found["push_last_raw_bytes"] == len(RAW)
    assert (await fullsend(AWAY, "push", "--stdin", "--retry-for", "0s", stdin=RAW, **file)).code == 75
    assert metrics()["push_last_success_timestamp_seconds"] == found["push_last_success_timestamp_seconds"]
    assert metrics()["run_last_exit_code"] == 75
    assert not complaints(path.read_text(encoding="utf-8"))


async def test_metrics_tell_of_a_run_that_found_nothing_to_push(fullsend: Fullsend, tmp_path: Path) -> None:
    """The configuration has lost its [[push]]: the result of the run before must not stay."""
    path = tmp_path / "fullsend.prom"
    ended = await fullsend(AWAY, "push", FULLSEND_METRICS_FILE=str(path))
    assert ended.code == 2
    found = {each.name: each.value for each in parse_samples(path.read_text(encoding="utf-8"))}
    assert found["fullsend_run_last_exit_code"] == 2


async def test_two_tables_that_mean_one_receiver_are_one_run(
    config: Callable[[Endpoint], str], receiver_identity: Identity, tmp_path: Path
) -> None:
    """One names it, and the other means it as the only one. The success of the later table hid the failure."""
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank/a")
    metrics = tmp_path / "fullsend.prom"
    async with receiving(receiver_identity, always=Keeper()) as receiver:
        path = Path(config(receiver.endpoint))
        top = f'zfs-command = "{fake.program}"\nmetrics-file = "{metrics}"\n'
        tables = '[[push]]\ndatasets = ["tank/none"]\n[[push]]\ndatasets = ["tank/a"]\nreceiver = "nas"\n'
        path.write_text(f"{top}{path.read_text(encoding='utf-8')}{tables}", encoding="utf-8")
        env = {**os.environ, "FULLSEND_CONFIG": str(path)}
        done = await asyncio.to_thread(forked.run, "fullsend_sender", ["push", "-v"], env)
    assert (done.returncode, done.stderr.count(b"nas: 1 pushed, 1 FAILED")) == (1, 1)
    found = {each.name: each.value for each in parse_samples(metrics.read_text(encoding="utf-8"))}
    assert found["fullsend_run_last_exit_code"] == 1
    assert "fullsend_run_last_success_timestamp_seconds" not in found


async def test_a_package_leaves_nothing_out(fullsend: Fullsend) -> None:
    """What --exclude named would be sent all the same."""
    ended = await fullsend(AWAY, "push", "-R", "tank", "--exclude", "tank/tmp")
    assert (ended.code, ended.line) == (
        2,
        "fullsend: -R sends all below in one stream, so --exclude can leave nothing out: use -r",
    )


async def test_raw_and_decrypted_at_once_is_refused(fullsend: Fullsend) -> None:
    ended = await fullsend(AWAY, "push", "-w", "--decrypt", "tank")
    assert (ended.code, ended.out) == (2, b"")
    assert "--decrypt: not allowed with argument -w" in ended.err


async def test_receiver_is_away(fullsend: Fullsend) -> None:
    ended = await fullsend(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32), "push", "--stdin", stdin=RAW)
    assert ended.code == 75
    assert "cannot connect" in ended.line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_end_it_in_order(
    config: Callable[[Endpoint], str], receiver_identity: Identity, number: signal.Signals
) -> None:
    under_way = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear()
        await peer.say(messages.Accept(offset=0, segments=[], record=None))
        assert isinstance(await peer.hear(), Chunk)
        under_way.set()
        await peer.gone()

    async with receiving(receiver_identity, script) as receiver:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fullsend_sender", "push", "--stdin"),
            env={**os.environ, "FULLSEND_CONFIG": config(receiver.endpoint)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(large(6 << 20)[:-312])
        await under_way.wait()
        process.send_signal(number)
        assert await process.wait() == 130
        assert (await process.stderr.read()).decode() == f"fullsend: interrupted by {number.name}\n"
        process.stdin.close()


async def test_an_orphan_is_no_success_in_the_metrics(
    fullsend: Fullsend, receiver_identity: Identity, tmp_path: Path
) -> None:
    raw = streams.substream(base_guid=77)
    path = tmp_path / "fullsend.prom"
    async with receiving(receiver_identity, taking(raw, restorable=False)) as receiver:
        ended = await fullsend(receiver, "push", "--stdin", stdin=raw, FULLSEND_METRICS_FILE=str(path))
    assert ended.code == 1
    found = {each.name: each.value for each in parse_samples(path.read_text(encoding="utf-8"))}
    assert (found["fullsend_push_last_exit_code"], found["fullsend_run_last_exit_code"]) == (1, 1)
    assert "fullsend_push_last_success_timestamp_seconds" not in found
