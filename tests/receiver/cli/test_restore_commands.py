from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from tests import streams
from tests.receiver.helpers import SENDER, hash_path, plant, program, store_stream

from fullsend_receiver.catalogue.streams import Damaged, read_catalogue
from fullsend_receiver.cli.restore_commands import restore_commands

if TYPE_CHECKING:
    from pathlib import Path

    from fullsend_receiver.store.local import LocalStore

ODD = "tank/it's odd; rm -rf ~/größe"
FULL = streams.substream(streams.object_(1), name=f"{ODD}@one", guid=1)
INCREMENT = streams.substream(
    streams.object_(1), streams.write(1, 0, b"x" * 512), name=f"{ODD}@two", guid=2, base_guid=1
)


def commands(store: LocalStore, snapshot: str) -> list[str]:
    catalogue = read_catalogue(store)
    (stored,) = (each for each in catalogue.streams if each.summary.snapshot == snapshot)
    return restore_commands(catalogue, stored)


def run(
    store: LocalStore, lines: list[str], tmp_path: Path
) -> tuple[subprocess.CompletedProcess[str], list[str], bytes]:
    """Run the lines by a plain shell, with a `zfs` that writes down its arguments and what it is given."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "zfs").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >>{tmp_path}/arguments\nexec cat >>{tmp_path}/received\n', encoding="ascii"
    )
    (programs / "zfs").chmod(0o755)
    done = subprocess.run(
        [program("sh"), "-e"],
        input="\n".join(lines) + "\n",
        cwd=store.root,
        env={"PATH": f"{programs}:/usr/bin:/bin", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [tmp_path / name for name in ("arguments", "received")]
    arguments, received = (path.read_bytes() if path.exists() else b"" for path in told)
    return done, arguments.decode().splitlines(), received


def test_plain_shell_restores_the_chain_by_them(store: LocalStore, tmp_path: Path) -> None:
    for raw in (INCREMENT, FULL):
        store_stream(store, SENDER, raw)
    done, arguments, received = run(store, commands(store, "two"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK\n") == 2
    assert arguments == ["receive -u -o canmount=noauto pool/restored"] * 2
    assert received == FULL + INCREMENT


def test_nothing_is_received_of_a_damaged_file(store: LocalStore, tmp_path: Path) -> None:
    file = store_stream(store, SENDER, FULL)
    data = bytearray((store.root / file).read_bytes())
    data[20] ^= 1
    (store.root / file).write_bytes(data)
    done, arguments, _received = run(store, commands(store, "one"), tmp_path)
    assert done.returncode == 1
    assert arguments == []


def test_full_alone_is_five_lines(store: LocalStore) -> None:
    file = plant(store, "s1", 1)
    assert commands(store, "s1") == [
        "# tank/data@s1, a chain of 1: in the store's folder; stop at the first line that fails (sh -e does)",
        "TARGET=pool/restored",
        f"(cd alpha/tank/data && sha256sum -c {hash_path(store, file).name})",
        f'zstd -dc {file} | zfs receive -u -o canmount=noauto "$TARGET"',
        '# to mount it, where its mountpoint is free: zfs set canmount=on "$TARGET" && zfs mount "$TARGET"',
    ]


def test_volume_is_not_kept_from_being_mounted(store: LocalStore) -> None:
    plant(store, "s1", 1, dataset_type="volume")
    plant(store, "s2", 2, 1, dataset_type="volume")
    assert "canmount" not in "\n".join(commands(store, "s2"))


def test_what_is_to_be_known_of_raw_streams_and_packages_is_said(store: LocalStore) -> None:
    plant(store, "s1", 1, kind="package", stream_class="raw", flags="w")
    plant(store, "s2", 2, 1, stream_class="raw", flags="w")
    plant(store, "s3", 3)
    lines = commands(store, "s2")
    assert "zfs list -Hr -o name -t filesystem \"$TARGET\" | xargs -d '\\n' zfs set canmount=noauto" in lines
    notes = "\n".join(line for line in lines if line.startswith("#"))
    assert 'zfs load-key -r "$TARGET"' in notes
    assert "a replication package" in notes
    notes = "\n".join(line for line in commands(store, "s3") if line.startswith("#"))
    assert "load-key" not in notes
    assert "package" not in notes


def test_stream_that_cannot_be_restored_is_refused_by_what_is_missing(store: LocalStore) -> None:
    file = plant(store, "s2", 2, 1)
    with pytest.raises(Damaged) as caught:
        commands(store, "s2")
    assert str(caught.value) == f"{file}: cannot be restored: guid:1, the base of {file}, is not stored"
