"""What the lines do is tested where they are run: tests/receiver/test_commands.py, tests/zfs/test_restore.py."""

from __future__ import annotations

from tests.sender.test_chain import entry

from fullsend_protocol.byhand import restore_lines


def test_lines_for_a_chain() -> None:
    full = entry("tank/a b@one", 1, file="alpha/tank/a b/@one.zfs.zst")
    assert restore_lines([full, entry("tank/a b@two", 2, 1, file="alpha/x/@two.zfs.zst")]) == [
        "# tank/a b@two, a chain of 2: in the store's folder; stop at the first line that fails (sh -e does)",
        "TARGET=pool/restored",
        "(cd 'alpha/tank/a b' && sha256sum -c @one.zfs.zst.sha256)",
        "(cd alpha/x && sha256sum -c @two.zfs.zst.sha256)",
        "zstd -dc 'alpha/tank/a b/@one.zfs.zst' | zfs receive -u -o canmount=noauto \"$TARGET\"",
        'zstd -dc alpha/x/@two.zfs.zst | zfs receive -u -o canmount=noauto "$TARGET"',
        '# to mount it, where its mountpoint is free: zfs set canmount=on "$TARGET" && zfs mount "$TARGET"',
    ]


def test_what_a_volume_and_an_encrypted_package_take_besides() -> None:
    assert "canmount" not in "\n".join(restore_lines([entry("a@1", 1, dataset_type="volume")]))
    lines = restore_lines([entry("a@1", 1, kind="package", flags="Lewp")])
    assert any(line.startswith("zfs list -Hr") for line in lines)
    assert any("load-key" in line for line in lines)
