"""`fullsendd` as its user meets it: what each command prints, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from tests import streams
from tests.receiver.helpers import (
    SENDER,
    chunks_of,
    long_stream,
    manifest_path,
    push_of,
    remove,
    store_stream,
    take,
)
from tests.receiver.running import Receiver

from fullsend_protocol.invitation import Invitation
from fullsend_receiver import scrub
from fullsend_receiver.catalogue import Stored
from fullsend_receiver.ingest import Ingest
from fullsend_receiver.partial import begin_partial, partial_key
from fullsend_receiver.scrublog import Scrubbed
from fullsend_receiver.store import Store


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    """A store with its configuration; no daemon."""
    receiver = Receiver(tmp_path)
    receiver.init()
    return receiver


@pytest.fixture
def filled(receiver: Receiver) -> tuple[Receiver, PurePosixPath, PurePosixPath]:
    """A store that holds a full and its increment."""
    store = Store(receiver.store)
    full = store_stream(store, SENDER, streams.named("full").read())
    return receiver, full, store_stream(store, SENDER, streams.named("incr").read())


def _fails(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    """It ended with this code, and one line that says why."""
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("fullsendd: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr


# --- the program ------------------------------------------------------------------------------------------------


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom fullsend_receiver.cli import main\nassert main(['--version']) == 0\n"
        "print(sorted({'pydantic', 'uvloop', 'asyncio', 'ssl', 'zstandard'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, heavy = done.stdout.splitlines()
    assert version.startswith("fullsendd ")
    assert heavy == "[]"


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["invite"], ["show"], ["init", "--nonsense"]])
def test_wrong_usage_is_2(receiver: Receiver, arguments: list[str]) -> None:
    done = receiver.fullsendd(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "fullsendd" in done.stderr


def test_a_wrong_key_is_named_with_the_right_one(receiver: Receiver) -> None:
    receiver.set(conections=5)
    _fails(receiver.fullsendd("check"), 2, "unknown key 'conections'; did you mean 'connections'?")


def test_a_missing_configuration_leads_to_init(tmp_path: Path) -> None:
    _fails(Receiver(tmp_path).fullsendd("list"), 2, "make a store with `fullsendd init`")


@pytest.mark.parametrize("command", [["list"], ["serve"], ["invite", "alpha"], ["verify"], ["check"]])
def test_a_store_that_is_not_mounted_is_named(receiver: Receiver, command: list[str]) -> None:
    receiver.store.rename(receiver.folder / "elsewhere")
    receiver.store.mkdir()
    _fails(receiver.fullsendd(*command), 1, "is its disk mounted?")
    assert list(receiver.store.iterdir()) == []


def test_with_debug_there_is_a_traceback(receiver: Receiver) -> None:
    done = receiver.fullsendd("--debug", "revoke", "nobody")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


# --- init -------------------------------------------------------------------------------------------------------


def test_init_says_what_it_made(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    done = receiver.fullsendd("init", "--store", receiver.store)
    assert done.returncode == 0
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert (said["store"], said["config"]) == (str(receiver.store), str(receiver.config))
    assert len(said["fingerprint"]) == 64
    assert "fullsendd invite" in done.stderr


def test_init_overwrites_nothing(receiver: Receiver) -> None:
    _fails(receiver.fullsendd("init", "--store", receiver.store), 2, "is there already")
    other = ["--config", str(receiver.folder / "other.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "fullsend_receiver", *other, "init", "--store", receiver.store],
        capture_output=True,
        text=True,
        check=False,
    )
    _fails(done, 2, "--adopt")


# --- senders ----------------------------------------------------------------------------------------------------


def test_an_invitation_is_the_one_line_on_stdout(receiver: Receiver) -> None:
    done = receiver.fullsendd("invite", "alpha")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    invitation = Invitation.decode(done.stdout)
    assert (invitation.sender, invitation.host, invitation.port) == ("alpha", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("arguments", "says"), [(["A"], "cannot name a sender"), (["a", "--expires", "soon"], "is no duration")]
)
def test_what_is_no_invitation(receiver: Receiver, arguments: list[str], says: str) -> None:
    _fails(receiver.fullsendd("invite", *arguments), 2, says)


def test_senders_are_listed_with_their_state(receiver: Receiver) -> None:
    receiver.start()
    try:
        receiver.enrol("alpha")
        receiver.enrol("beta")
    finally:
        assert receiver.stop() == 0
    assert receiver.fullsendd("revoke", "beta").returncode == 0
    done = receiver.fullsendd("senders")
    alpha, beta = done.stdout.splitlines()
    assert alpha.startswith("alpha")
    assert alpha.endswith("enrolled")
    assert " revoked 2" in beta
    rows = [json.loads(line) for line in receiver.fullsendd("senders", "--json").stdout.splitlines()]
    assert [row["sender"] for row in rows] == ["alpha", "beta"]
    assert (rows[0]["revoked"], rows[0]["fingerprint"]) == (None, receiver.senders["alpha"].fingerprint)
    assert rows[1]["revoked"]


def test_nobody_is_revoked_who_is_not_there(receiver: Receiver) -> None:
    _fails(receiver.fullsendd("revoke", "alpha"), 2, "no sender 'alpha'")


# --- what is stored ---------------------------------------------------------------------------------------------


def test_an_empty_store_lists_nothing(receiver: Receiver) -> None:
    done = receiver.fullsendd("list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_has_arrived_in_part_is_listed_apart(receiver: Receiver) -> None:
    store = Store(receiver.store)
    for sender, name in ((SENDER, "tank/data@now"), (SENDER, "tank/o\u009bther@now"), ("beta", "tank/data@now")):
        raw = long_stream(2, name=name)
        push = push_of(raw)
        ingest = Ingest(begin_partial(store, partial_key(sender, push), sender, push))
        take(ingest, list(chunks_of(raw))[:1])
        ingest.partial.close()
    assert receiver.listed() == []
    found = receiver.listed("--partial")
    assert sorted((each["sender"], each["dataset"]) for each in found) == [
        ("alpha", "tank/data"),
        ("alpha", "tank/o\u009bther"),
        ("beta", "tank/data"),
    ]
    assert {each["arriving"] for each in found} == {False}
    assert {each["resume_offset"] == each["raw_bytes"] > 0 for each in found} == {True}
    assert [each["sender"] for each in receiver.listed("--partial", "beta")] == ["beta"]
    assert [each["dataset"] for each in receiver.listed("--partial", f"{SENDER}/tank/data")] == ["tank/data"]
    assert receiver.listed("--partial", "gamma") == []
    head, *rows = receiver.fullsendd("list", "--partial").stdout.splitlines()
    assert head.split() == ["STREAM", "KIND", "STARTED", "LAST", "RAW", "STORED", "STATE"]
    assert sorted(row.split()[0] for row in rows) == [
        "alpha/tank/data@now",
        "alpha/tank/o\\x9bther@now",
        "beta/tank/data@now",
    ]
    assert all("full" in row and row.endswith("waits for its sender") for row in rows)
    nothing = receiver.fullsendd("list", "--partial", "gamma")
    assert (nothing.returncode, nothing.stdout) == (0, "")


def test_list_is_a_table_or_json(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    heading, first, second = receiver.fullsendd("list").stdout.splitlines()
    assert heading.startswith("STREAM")
    assert first.startswith("alpha/tank/plain@s1  full")
    assert second.startswith("alpha/tank/plain@s2  incremental  @s1")
    assert [row["file"] for row in receiver.listed()] == [str(full), str(incr)]
    assert receiver.listed("alpha") == receiver.listed("alpha/tank/plain") == receiver.listed()
    assert receiver.listed("alpha/tank") == []


def test_an_unknown_sender_is_named(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    _fails(filled[0].fullsendd("list", "beta"), 2, "no sender 'beta'")


@pytest.mark.parametrize("way", ["name", "guid", "file", "last component"])
def test_a_stream_is_shown_by_any_of_its_names(filled: tuple[Receiver, PurePosixPath, PurePosixPath], way: str) -> None:
    receiver, full, _incr = filled
    row = receiver.listed()[0]
    name = {
        "name": "alpha/tank/plain@s1",
        "guid": f"alpha/guid:{row['guid']}",
        "file": str(full),
        "last component": f"alpha/{full.name}",
    }[way]
    shown = json.loads(receiver.fullsendd("show", name, "--json").stdout)
    assert shown["file"] == str(full)
    assert shown["segments"] == [{"start": 0, "end": row["raw_bytes"], "sha256": row["sha256"]}]
    text = receiver.fullsendd("show", name).stdout
    assert f"dataset            {row['dataset']}\n" in text
    assert "base_guid          -\n" in text


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("alpha/tank/plain@nope", 1, "no such stream"),
        ("beta/tank/plain@s1", 1, "no such stream"),
        ("alpha", 2, "name it as SENDER/DATASET@SNAPSHOT"),
        ("../alpha/tank/plain@s1", 2, "can be no sender's name"),
    ],
)
@pytest.mark.parametrize("command", ["show", "cat"])
def test_a_stream_that_is_not_there_is_named(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], command: str, name: str, code: int, says: str
) -> None:
    _fails(filled[0].fullsendd(command, name), code, says)


def test_an_ambiguous_name_is_refused_with_its_candidates(receiver: Receiver) -> None:
    store = Store(receiver.store)
    files = [store_stream(store, SENDER, streams.named(name).read()) for name in ("full-large", "full-large-L")]
    done = receiver.fullsendd("cat", "alpha/tank/large@s1")
    _fails(done, 2, "2 streams fit")
    assert all(file.name in done.stderr for file in files)


# --- cat --------------------------------------------------------------------------------------------------------


def test_show_prints_the_lines_that_restore_without_us(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    lines = receiver.fullsendd("show", f"alpha/{incr.name}", "--commands").stdout.splitlines()
    assert [line for line in lines if line.startswith("zstd")] == [
        f'zstd -dc {file} | zfs receive -u -o canmount=noauto "$TARGET"' for file in (full, incr)
    ]
    assert receiver.fullsendd("show", f"alpha/{incr.name}", "--commands", "--json").returncode == 2
    (receiver.store / full).unlink()
    _fails(receiver.fullsendd("show", f"alpha/{incr.name}", "--commands"), 1, f"cannot be restored: {full} is damaged")


def test_cat_gives_the_stream_back(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, _incr = filled
    done = subprocess.run(
        [sys.executable, "-m", "fullsend_receiver", "--config", receiver.config, "cat", str(full)],
        capture_output=True,
        check=True,
    )
    assert done.stdout == streams.named("full").read()


def test_a_reader_that_has_enough_is_no_traceback(receiver: Receiver) -> None:
    file = store_stream(Store(receiver.store), SENDER, long_stream(3))
    command = f'"{sys.executable}" -m fullsend_receiver --config "{receiver.config}" cat "$0" | head -c 1'
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}", str(file)], capture_output=True, check=False
    )
    assert (done.returncode, len(done.stdout), done.stderr) == (1, 1, b"")


def _damage(receiver: Receiver, file: PurePosixPath, at: int) -> None:
    path = receiver.store / file
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def test_cat_writes_nothing_of_a_damaged_chunk_or_behind_it(receiver: Receiver) -> None:
    raw = long_stream(3)
    file = store_stream(Store(receiver.store), SENDER, raw)
    size = json.loads(manifest_path(Store(receiver.store), file).read_bytes())["stored_bytes"]
    _damage(receiver, file, size // 3)
    done = subprocess.run(
        [sys.executable, "-m", "fullsend_receiver", "--config", receiver.config, "cat", str(file)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert raw.startswith(done.stdout)
    assert len(done.stdout) < len(raw)
    said = done.stderr.decode()
    assert said.count("\n") == 1
    assert file.name in said
    assert "chunk " in said
    assert "raw bytes " in said


# --- verify, check ----------------------------------------------------------------------------------------------


def test_verify_of_what_is_whole(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    done = receiver.fullsendd("verify")
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"ok       {full}", f"ok       {incr}"])
    assert "2 streams" in done.stderr
    assert all(row["verified"] for row in receiver.listed())
    rows = [json.loads(line) for line in receiver.fullsendd("verify", "alpha", "--json").stdout.splitlines()]
    assert [(row["file"], row["damage"]) for row in rows] == [(str(full), []), (str(incr), [])]


def test_verify_of_what_is_removed_meanwhile(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, full, incr = filled
    real = scrub.scrub

    def first_removed(store: Store, stored: Stored) -> Scrubbed | None:
        if stored.file == incr:
            remove(store, incr)
        return real(store, stored)

    monkeypatch.setattr(scrub, "scrub", first_removed)
    done = receiver.fullsendd("verify")
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"ok       {full}"])
    assert f"{incr}: was removed before it could be checked" in done.stderr
    assert "1 stream," in done.stderr


def test_verify_names_file_chunk_raw_range_and_what_it_breaks(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, incr = filled
    _damage(receiver, full, 1000)
    done = receiver.fullsendd("verify")
    assert done.returncode == 1
    assert f"DAMAGED  {full}" in done.stdout
    assert f"{full}: chunk 0 (raw bytes 0 to " in done.stderr
    assert f"{full}: breaks {incr}" in done.stderr
    assert [row["restorable"] for row in receiver.listed()] == [False, False]
    assert receiver.fullsendd("check").returncode == 1


def test_a_file_without_manifest_is_reported_and_taken_back_by_verify(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, _incr = filled
    manifest = manifest_path(Store(receiver.store), full)
    before = json.loads(manifest.read_bytes())
    manifest.unlink()
    done = receiver.fullsendd("list")
    assert done.returncode == 1
    assert f"{full}: has no manifest; `fullsendd verify` makes one" in done.stderr
    done = receiver.fullsendd("verify")
    assert done.returncode == 0, done.stderr
    assert f"{full}: had no manifest; made anew" in done.stderr
    after = json.loads(manifest.read_bytes())
    assert after["proven_by"] == "receiver"
    same = ("dataset", "snapshot", "guid", "base_guid", "flags", "raw_bytes", "sha256", "file_sha256", "segments")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}


def test_check_says_what_it_looked_at(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    done = filled[0].fullsendd("check")
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())
    assert "2 streams" in done.stdout


def test_check_sees_a_disk_that_is_nearly_full(receiver: Receiver) -> None:
    receiver.set(connections=5)
    text = receiver.config.read_text(encoding="utf-8").replace("min-free = 0", 'min-free = "9000T"')
    receiver.config.write_text(text, encoding="utf-8")
    done = receiver.fullsendd("check")
    assert done.returncode == 1
    assert "pushes are refused" in done.stdout


def test_run_as_root_a_command_becomes_the_stores_owner(receiver: Receiver) -> None:
    if os.geteuid() != 0:
        assert receiver.fullsendd("invite", "alpha").returncode == 0  # a user who is not root stays who it is
        return
    for path in [receiver.store, *receiver.store.rglob("*")]:
        os.chown(path, 65534, 65534)
    for folder in [receiver.folder, *receiver.folder.parents]:
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    # This Python may be one that only root can read (a build in root's home): what is needed is imported before.
    code = (
        "import encodings.ascii, sys\nfrom fullsend_receiver import cli, config, identity, senders, setup\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", code, "--config", receiver.config, "invite", "alpha"], check=True)
    assert (receiver.store / ".state" / "invitations.json").stat().st_uid == 65534


# --- where things are not as they should be ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [("list", ".."), ("verify", ".."), ("verify", "../.."), ("show", ".state"), ("cat", "/etc"), ("list", "Alpha")],
)
def test_no_command_looks_outside_of_the_senders_folders(receiver: Receiver, command: str, name: str) -> None:
    done = receiver.fullsendd(command, f"{name}/x")
    _fails(done, 2, "can be no sender's name")


def test_verify_names_a_manifest_that_cannot_be_read(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, incr = filled
    manifest_path(Store(receiver.store), full).write_text("garbage", encoding="utf-8")
    done = receiver.fullsendd("verify")
    assert (done.returncode, done.stdout) == (1, f"ok       {incr}\n")
    assert f"fullsendd: {full}.json: cannot be read: " in done.stderr


def test_verify_names_a_file_that_cannot_be_taken_back_once(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath],
) -> None:
    receiver, full, _incr = filled
    manifest_path(Store(receiver.store), full).unlink()
    _damage(receiver, full, 1000)
    done = receiver.fullsendd("verify")
    assert done.returncode == 1
    assert done.stderr.count(str(full)) == 1
    assert f"fullsendd: {full}: has no manifest, and none can be made: chunk 0 (raw bytes 0 to " in done.stderr


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show", "alpha/tank/plain@s1"], ["cat"], ["check"]])
def test_output_that_goes_nowhere_is_no_success(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], command: list[str]
) -> None:
    receiver, full, _incr = filled
    name = [str(full)] if command == ["cat"] else []
    with open("/dev/full", "wb") as nowhere:
        done = receiver.fullsendd(*command, *name, capture_output=False, stdout=nowhere, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "fullsendd: stdout cannot be written: No space left on device\n")


def test_a_name_of_any_language_is_printed_anywhere(receiver: Receiver) -> None:
    raw = streams.substream(name="tank/Bücher 本@heute")
    store_stream(Store(receiver.store), SENDER, raw)
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = receiver.fullsendd("list", env=ascii_only)
    assert done.returncode == 0
    assert "alpha/tank/B\\xfccher \\u672c@heute" in done.stdout
    done = receiver.fullsendd("list", "--json", env=ascii_only, encoding="utf-8")
    assert json.loads(done.stdout)["dataset"] == "tank/Bücher 本"


def test_what_a_manifest_says_does_not_write_on_the_terminal(receiver: Receiver) -> None:
    store = Store(receiver.store)
    file = store_stream(store, SENDER, streams.substream(name="tank/\x1b[2J@now"))
    for command in (["list"], ["show", str(file)], ["verify"], ["check"]):
        done = receiver.fullsendd(*command)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
    path = manifest_path(store, file)
    path.write_bytes(path.read_bytes().replace(b"tank/\\u001b", b"tank/\\u001b\\u0007"))
    done = receiver.fullsendd("verify")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout + done.stderr


def test_a_stream_is_not_written_to_a_terminal(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, _incr = filled
    ours, theirs = os.openpty()
    try:
        done = receiver.fullsendd("cat", str(full), capture_output=False, stdout=theirs, stderr=subprocess.PIPE)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert done.stderr == "fullsendd: a send stream is no text: pipe it into `zfs receive`, or into a file\n"


def _read_only(receiver: Receiver, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the store is mounted read-only. Skips the test where we may not mount."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    unshared = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    may = subprocess.run([*unshared, script, receiver.store, "true"], capture_output=True, check=False)
    if may.returncode:
        pytest.skip(f"cannot mount here: {may.stderr.decode()}")
    fullsendd: list[str | Path] = [sys.executable, "-m", "fullsend_receiver", "--config", receiver.config]
    return subprocess.run(
        [*unshared, script, receiver.store, *fullsendd, *command],
        capture_output=True,
        text=True,
        check=False,
    )


def test_of_a_read_only_store_all_can_be_read(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    assert _read_only(receiver, "list").returncode == 0
    assert _read_only(receiver, "show", str(full)).returncode == 0
    assert _read_only(receiver, "senders").returncode == 0
    done = _read_only(receiver, "verify")
    assert (done.returncode, done.stdout.splitlines()) == (1, [f"ok       {full}", f"ok       {incr}"])
    assert done.stderr.count("fullsendd: what is found cannot be recorded: ") == 1


@pytest.mark.parametrize("command", [["serve"], ["check"], ["invite", "beta"]])
def test_a_read_only_store_is_named(receiver: Receiver, command: list[str]) -> None:
    _fails(_read_only(receiver, *command), 1, "Read-only file system")
