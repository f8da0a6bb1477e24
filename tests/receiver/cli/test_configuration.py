"""The store that a command works on: found, opened, and as its owner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from tests.receiver.command import fails, read_only
from tests.receiver.running import Receiver


def test_a_wrong_key_is_named_with_the_right_one(receiver: Receiver) -> None:
    receiver.set(conections=5)
    fails(receiver.fullsendd("check"), 2, "unknown key 'conections'; did you mean 'connections'?")


def test_a_missing_configuration_leads_to_init(tmp_path: Path) -> None:
    fails(Receiver(tmp_path).fullsendd("list"), 2, "make a store with `fullsendd init`")


@pytest.mark.parametrize("command", [["list"], ["serve"], ["invite", "alpha"], ["verify"], ["check"]])
def test_a_store_that_is_not_mounted_is_named(receiver: Receiver, command: list[str]) -> None:
    receiver.store.rename(receiver.folder / "elsewhere")
    receiver.store.mkdir()
    fails(receiver.fullsendd(*command), 1, "is its disk mounted?")
    assert list(receiver.store.iterdir()) == []


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
        "import encodings.ascii, sys\nfrom fullsend_receiver.access import config, identity, senders, setup\n"
        "from fullsend_receiver.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", code, "--config", receiver.config, "invite", "alpha"], check=True)
    assert (receiver.store / ".state" / "invitations.json").stat().st_uid == 65534


def test_of_a_read_only_store_all_can_be_read(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    receiver, full, incr = filled
    assert read_only(receiver, "list").returncode == 0
    assert read_only(receiver, "show", str(full)).returncode == 0
    assert read_only(receiver, "senders").returncode == 0
    done = read_only(receiver, "verify")
    assert (done.returncode, done.stdout.splitlines()) == (1, [f"ok       {full}", f"ok       {incr}"])
    assert done.stderr.count("fullsendd: the results cannot be recorded: ") == 1


@pytest.mark.parametrize("command", [["invite", "beta"], ["revoke", "alpha"]])
def test_a_read_only_store_is_named(receiver: Receiver, command: list[str]) -> None:
    receiver.secret("alpha")
    fails(read_only(receiver, *command), 1, "the store's disk is mounted read-only: ")


def test_check_of_a_read_only_store_looks_at_all_else(filled: tuple[Receiver, PurePosixPath, PurePosixPath]) -> None:
    done = read_only(filled[0], "check")
    assert done.returncode == 1
    problem, *good = done.stdout.splitlines()
    assert problem.startswith("problem  the store's disk is mounted read-only: ")
    assert "ok       2 streams" in good


@pytest.mark.parametrize(
    "command",
    [
        *(["list"], ["list", "--json"], ["list", "--partial"], ["show", "NAME"], ["show", "--commands", "NAME"]),
        *(["cat", "NAME"], ["verify"], ["check"], ["senders"], ["invite", "beta"], ["revoke", "beta"]),
        *(["prune"], ["undelete"], ["undelete", "alpha/tank/data"], ["pin", "NAME"], ["unpin", "NAME"], ["clock"]),
        ["accept", "alpha/tank/plain"],
    ],
    ids=" ".join,
)
def test_as_the_stores_owner_nothing_of_ours_is_imported(
    filled: tuple[Receiver, PurePosixPath, PurePosixPath], command: list[str]
) -> None:
    """The owner may not be able to read what root can."""
    receiver, full, _incr = filled
    code = (
        "import sys\nfrom fullsend_receiver.access import identity\nfrom fullsend_receiver.cli.main import main\n"
        "real, before = identity.become_owner, []\n"
        "def become_owner(store):\n    real(store)\n    before.extend(sys.modules)\n"
        "identity.become_owner = become_owner\n"
        "main(sys.argv[1:])\n"
        "late = sys.modules.keys() - set(before)\n"
        "print(sorted(name for name in late if name.startswith('fullsend')), bool(before), file=sys.stderr)\n"
    )
    words = [str(full) if word == "NAME" else word for word in command]
    done = subprocess.run(
        [sys.executable, "-c", code, "--config", receiver.config, *words], capture_output=True, check=True
    )
    assert done.stderr.splitlines()[-1] == b"[] True"
