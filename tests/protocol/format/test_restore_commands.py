"""What the lines do is tested where they are run: tests/receiver/test_commands.py, tests/zfs/test_restore.py."""

from __future__ import annotations

from tests.sender.restore.test_chains import entry

from fullsend_protocol.format.restore_commands import restore_lines, set_aside

HELD = "-o quota=4E -o refquota=4E -o reservation=1 -o refreservation=1"


def test_lines_for_a_chain() -> None:
    full = entry("tank/a b@one", 1, file="alpha/tank/a b/@one.zfs.zst")
    assert restore_lines([full, entry("tank/a b@two", 2, 1, file="alpha/x/@two.zfs.zst")]) == [
        "# tank/a b@two, a chain of 2: in the store's folder; stop at the first line that fails (sh -e does)",
        "TARGET=pool/restored",
        "(cd 'alpha/tank/a b' && sha256sum -c @one.zfs.zst.sha256)",
        "(cd alpha/x && sha256sum -c @two.zfs.zst.sha256)",
        "# below an encrypted dataset it is unencrypted, except with -x encryption (which takes no embedded blocks)",
        f"zstd -dc 'alpha/tank/a b/@one.zfs.zst' | zfs receive -u -o canmount=noauto {HELD} \"$TARGET\"",
        f'zstd -dc alpha/x/@two.zfs.zst | zfs receive -u -o canmount=noauto {HELD} "$TARGET"',
        "# its quotas and reservations were held back until here, or they might have stopped it",
        'zfs inherit -S quota "$TARGET"',
        'zfs inherit -S refquota "$TARGET"',
        'zfs inherit -S reservation "$TARGET"',
        'zfs inherit -S refreservation "$TARGET"',
        '# to mount it, where its mountpoint is free: zfs set canmount=on "$TARGET" && zfs mount "$TARGET"',
    ]


def test_a_base_of_another_dataset_may_be_a_clones_origin() -> None:
    chain = [entry("tank/a@1", 1), entry("tank/clone\n@2", 2, 1), entry("tank/clone\n@3", 3, 2)]
    lines = restore_lines(chain)
    (at,) = (
        number for number, line in enumerate(lines) if line.startswith("# the next builds on a snapshot of tank/a;")
    )
    assert lines[at + 1] == (
        '#   zfs rename "$TARGET" "$TARGET.origin"; the next line; zfs promote "$TARGET"; zfs destroy "$TARGET.origin"'
    )
    assert chain[1].file.partition("/@")[2].partition(".")[0] in lines[at + 2]


def test_a_snapshot_gives_way_to_a_later_one_of_its_name() -> None:
    chain = [
        entry("a@daily", 1),
        entry("a@daily", 2, 1),
        entry("a@x y", 3, 2),
        entry("a@x y", 4, 3),
        entry("a@d", 5, 4),
    ]
    lines = restore_lines(chain)
    at = [number for number, line in enumerate(lines) if line.startswith("zfs rename")]
    assert [lines[number] for number in at] == [
        'zfs rename "$TARGET"@daily "$TARGET"@daily.0000000000000001  # the next has the same name',
        "zfs rename \"$TARGET\"'@x y' \"$TARGET\"'@x y.0000000000000003'  # the next has the same name",
    ]
    assert [chain[1].file in lines[at[0] + 1], chain[3].file in lines[at[1] + 1]] == [True, True]
    assert set_aside(chain[1:2], {"daily": "1"}) == {chain[1].file: ("daily", "daily.0000000000000001")}
    assert set_aside(chain[1:2], {"daily": "2"}) == {}


def test_what_a_volume_and_an_encrypted_package_take_besides() -> None:
    volume = restore_lines([entry("a@1", 1, dataset_type="volume")])
    assert not any("canmount" in line or " quota=" in line or "refquota" in line for line in volume)
    assert volume[-2:] == ['zfs inherit -S reservation "$TARGET"', 'zfs inherit -S refreservation "$TARGET"']
    assert "quota" not in "\n".join(restore_lines([entry("a@1", 1, flags="L")]))  # without properties
    lines = restore_lines([entry("a@1", 1, kind="package", flags="Lewp")])
    assert any(line.startswith("zfs list -Hr") for line in lines)
    assert any("load-key" in line for line in lines)
