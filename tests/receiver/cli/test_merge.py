"""`fullsendd merge` as its user sees it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests import forked
from tests.chains import named
from tests.receiver.command import fails

from fullsend_protocol.stream.without_frees import HashWithoutFrees
from fullsend_receiver.cli import main

if TYPE_CHECKING:
    from pathlib import Path

CHAIN = named("t1-plain")
INPUTS = [str(CHAIN.folder / f"{name}.zfs.zst") for name, _raw in CHAIN.run(None, 3)]


def fullsendd(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return forked.run("fullsend_receiver", arguments, os.environ)


def refused(code: int, says: str, *arguments: str) -> None:
    done = fullsendd(*arguments)
    fails(subprocess.CompletedProcess([], done.returncode, done.stdout.decode(), done.stderr.decode()), code, says)


def test_the_raw_stream_goes_to_stdout_without_a_store_or_configuration() -> None:
    done = fullsendd("merge", *reversed(INPUTS))
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).hexdigest() == CHAIN.genuine(None, 3)


def test_a_file_as_in_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.zfs.zst")
    assert main.main(["merge", "--output", out, *INPUTS]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{out}: merged from 4 streams, 4.8 MiB raw, ")
    assert main.main(["merge", "--json", "--manifest", "alpha", "--output", f"{out}.zst", *INPUTS[1:]]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["file"], row["sha256"]) == (f"{out}.zst", CHAIN.genuine(0, 3))
    assert [each["proof"] for each in row["merged"]] == ["checksums"] * 3


def test_the_hash_without_frees_that_may_be_redundant(capsys: pytest.CaptureFixture[str]) -> None:
    def hashed(*inputs: str) -> str:
        assert main.main(["merge", "--sha256", "--without-frees", *inputs]) == 0
        return capsys.readouterr().out

    form = HashWithoutFrees("it")
    form.feed(CHAIN.run(0, 1)[0][1])
    assert hashed(INPUTS[1]) == f"{form.finish()}\n"
    assert hashed(*INPUTS[1:]) not in {hashed(INPUTS[1]), f"{CHAIN.genuine(0, 3)}\n"}
    refused(1, "one stream alone cannot be merged", "merge", "--sha256", INPUTS[1])
    refused(2, "--without-frees belongs to --sha256", "merge", "--without-frees", "--output", "x.zst", *INPUTS)


def test_only_the_hash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main.main(["merge", "--sha256", *INPUTS]) == 0
    assert capsys.readouterr().out == f"{CHAIN.genuine(None, 3)}\n"
    bad = tmp_path / "bad.zfs"
    bad.write_bytes(CHAIN.run(None, 1)[1][1])
    bad.with_name("bad.zfs.sha256").write_text(f"{'0' * 64}  bad.zfs\n")
    assert main.main(["merge", "--sha256", INPUTS[0], str(bad)]) == 1
    assert capsys.readouterr().out == ""


def test_what_is_damaged_ends_stdout_before_the_stream_ends(tmp_path: Path) -> None:
    """So that `zfs receive` refuses it: END comes only when all inputs are proven."""
    raw = CHAIN.run(None, 1)[1][1]
    bad = tmp_path / "bad.zfs"
    bad.write_bytes(raw)
    bad.with_name("bad.zfs.sha256").write_text(f"{'0' * 64}  bad.zfs\n")
    done = fullsendd("merge", INPUTS[0], str(bad))
    assert done.returncode == 1
    said = f"fullsendd: {bad} is damaged: its SHA-256 is not the one beside it; get it from another copy\n"
    assert done.stderr.decode() == said
    whole = fullsendd("merge", *INPUTS[:2]).stdout
    assert whole.startswith(done.stdout)
    assert len(whole) - len(done.stdout) >= 312


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--json", *INPUTS], "--manifest and --json belong to --output"),
        (["--manifest", "alpha", *INPUTS], "--manifest and --json belong to --output"),
        (["--output", "x", *INPUTS], "x: the output is compressed, so its name must end with .zst"),
        (["--output", "x.zst", "--manifest", "Not A Name", *INPUTS], "Not A Name is not a sender's name"),
        (["--sha256", "--json", *INPUTS], "--sha256 writes nothing: it excludes --output, --manifest and --json"),
        (["--sha256", "--output", "x.zst", *INPUTS], "--sha256 writes nothing"),
        (["--level", "99", *INPUTS], "--level 99: it is a number from -7 to 22"),
    ],
)
def test_wrong_options(arguments: list[str], says: str) -> None:
    refused(2, says, "merge", *arguments)


def test_what_cannot_be_merged() -> None:
    refused(1, "one stream alone cannot be merged", "merge", INPUTS[0])
    refused(1, "which no other file here has", "merge", INPUTS[0], INPUTS[2])
    refused(1, "/nowhere/x.zfs cannot be read: No such file or directory", "merge", INPUTS[0], "/nowhere/x.zfs")
    refused(1, "/nowhere/x.zst cannot be written: No such", "merge", "--output", "/nowhere/x.zst", *INPUTS)
    within = f"{INPUTS[0]}/x.zst"
    refused(1, f"{within} cannot be written: Not a directory", "merge", "--output", within, *INPUTS)
