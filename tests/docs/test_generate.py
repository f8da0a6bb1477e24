from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from docs import generate

DOCS = Path(generate.__file__).parent
COMMANDS = [command for program in generate.programs() for command in (program, *program.commands)]


def page(command: generate.Command) -> Path:
    return DOCS / "man" / f"man{command.section}" / f"{command.page}.{command.section}"


def test_what_is_there_is_what_would_be_written() -> None:
    assert generate.differing(DOCS) == [], "run `make man`"
    assert generate.main(["--check"]) == 0


def test_what_differs_is_named(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "man", tmp_path / "man")
    shutil.copytree(DOCS / "completion", tmp_path / "completion")
    (tmp_path / "man/man1/fullsend.1").write_text("another\n", encoding="utf-8")
    (tmp_path / "man/man8/fullsendd-serve.8").unlink()
    (tmp_path / "man/man1/fullsend-old.1").touch()
    assert generate.differing(tmp_path) == [
        "man/man1/fullsend-old.1",
        "man/man1/fullsend.1",
        "man/man8/fullsendd-serve.8",
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.page)
def test_every_option_is_in_the_page(command: generate.Command) -> None:
    text = page(command).read_text(encoding="utf-8")
    for option in (*command.options, *command.everywhere):
        for flag in option.flags:
            assert "\\fB" + flag.replace("-", "\\-") + "\\fR" in text
    for positional in command.positionals:
        assert positional.value.replace("-", "\\-") in text


def test_both_programs_have_all_their_commands() -> None:
    sender, receiver = ({command.name for command in program.commands} for program in generate.programs())
    assert sender >= {"join", "push", "restore", "status", "list", "cat", "verify", "check"}
    assert receiver >= {"init", "serve", "invite", "senders", "revoke", "list", "show", "cat", "verify", "check"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.page)
def test_roff_has_nothing_to_complain_of(command: generate.Command) -> None:
    program = shutil.which("groff") or shutil.which("mandoc")
    if program is None:
        pytest.skip("neither groff nor mandoc is installed")
    arguments = ["-man", "-ww", "-Tutf8", "-z"] if program.endswith("groff") else ["-Tlint", "-Wwarning"]
    done = subprocess.run([program, *arguments, str(page(command))], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def complete(*words: str, program: str = "fullsend") -> set[str]:
    """What bash offers for the last of these words."""
    quoted = " ".join(f"'{word}'" for word in (program, *words))
    script = (
        f"source {DOCS}/completion/bash/{program}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)};"
        f' _{program}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-euc", script], capture_output=True, text=True, check=False, cwd=DOCS)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_bash_completes() -> None:
    assert complete("re") == {"report", "restore"}
    assert complete("push", "--pro") == {"--progress"}
    assert complete("push", "--progress", "a") == {"auto", "always"}
    assert complete("push", "--level", "") == set()
    assert complete("--config", "gener") == {"generate.py"}
    assert {"-r", "-n", "--json", "--config"} <= complete("-v", "restore", "-")
    assert complete("in", program="fullsendd") == {"init", "invite"}
    assert complete("init", "--store", "ma", program="fullsendd") == {"man"}


def test_bash_completes_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zfs").write_text("#!/bin/sh\nprintf 'tank\\ntank/home\\n'\n", encoding="ascii")
    (tmp_path / "zfs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert complete("push", "-r", "tank/") == {"tank/home"}
    assert complete("join", "tank/") == set()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_can_read_theirs(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    for file in (DOCS / "completion" / shell).iterdir():
        done = subprocess.run([program, "-n", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
