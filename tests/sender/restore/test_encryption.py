"""What is chosen; that `zfs receive` does it is tested in tests/zfs/test_restore.py."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.fakezfs import FakeZfs
from tests.sender.restore.test_chains import entry

from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.restore.encryption import choose_encryption, say_what_changed
from fullsend_sender.restore.plan import ParentDataset, RestoreItem, RestorePlan
from fullsend_sender.zfs.commands import Zfs
from fullsend_sender.zfs.inventory import Dataset


def dataset(name: str, *, encrypted: bool = False, key_loaded: bool = True) -> Dataset:
    return Dataset(name, "filesystem", "1", 0, 0, encrypted=encrypted, key_loaded=encrypted and key_loaded)


def item(target: str, *flags: str, **about: Any) -> RestoreItem:
    """What is wanted is the last of a chain of streams with these flags; none: it is there already."""
    chain = [entry(f"t@{number}", number, number - 1 or None, flags=each) for number, each in enumerate(flags, 1)]
    wanted = chain[-1] if chain else entry("t@1", 1, flags="p")
    return RestoreItem(wanted, target, chain, **about)


def plan(*steps: RestoreItem | ParentDataset, standing: list[Dataset]) -> RestorePlan:
    return RestorePlan(list(steps), standing={each.name: each for each in standing})


def chosen(plan: RestorePlan, *, unencrypted: bool = False) -> dict[str, str]:
    choose_encryption(plan, unencrypted=unencrypted, recursive=True)
    return {each.target: each.encryption for each in plan.items}


VAULT = dataset("p/vault", encrypted=True)


def test_what_is_plain_gets_the_encryption_of_its_place(caplog: pytest.LogCaptureFixture) -> None:
    steps: list[RestoreItem | ParentDataset] = [
        item("p/vault/a", "p", "p"),
        ParentDataset("p/vault/a/b"),
        item("p/vault/a/b/c", "L"),
    ]
    assert chosen(plan(*steps, standing=[VAULT])) == dict.fromkeys(["p/vault/a", "p/vault/a/b/c"], "as its place")
    # So does an increment into what is encrypted by itself, in a place that is not.
    there = [dataset("p"), dataset("p/a", encrypted=True)]
    assert chosen(plan(item("p/a", "p", existing=True), standing=there)) == {"p/a": "as its place"}
    assert chosen(plan(*steps, standing=[dataset("p/vault")])) == dict.fromkeys(
        ["p/vault/a", "p/vault/a/b/c"], "as sent"
    )
    assert caplog.records == []


def test_what_is_raw_stays_as_it_was_and_so_does_what_is_below_it(caplog: pytest.LogCaptureFixture) -> None:
    steps = [item("p/vault/a", "w"), item("p/vault/a/b", "p")]
    assert set(chosen(plan(*steps, standing=[VAULT])).values()) == {"as sent"}
    assert caplog.messages == ["p/vault/a/b: it will be unencrypted, below p/vault, which is encrypted"]
    caplog.clear()
    package = RestoreItem(
        entry("t@1", 1, kind="package", flags="wp"), "p/vault/a", [entry("t@1", 1, kind="package", flags="wp")]
    )
    assert set(chosen(plan(package, standing=[VAULT])).values()) == {"as sent"}
    assert caplog.messages == [
        "p/vault/a: what is not encrypted in this package will be unencrypted, below p/vault, which is encrypted"
    ]


def test_what_was_in_the_clear_below_what_is_raw_is_so_again_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was said; and in a second run it wanted the key of what the first one had restored."""
    said = ["p/back/b: it will be unencrypted, below p/back, which is encrypted"]
    raw, below = item("p/back", "w"), item("p/back/b", "p")
    assert set(chosen(plan(raw, below, standing=[dataset("p")])).values()) == {"as sent"}
    assert caplog.messages == said
    done = RestoreItem(raw.wanted, "p/back", [], existing=True)
    for first, key_loaded in ((done, False), (done, True), (item("p/back", "w", existing=True), True)):
        caplog.clear()
        standing = [dataset("p"), dataset("p/back", encrypted=True, key_loaded=key_loaded)]
        again = plan(first, below, standing=standing)
        assert (set(chosen(again).values()), again.failures) == ({"as sent"}, [])
        assert caplog.messages == said
    # What says nothing of encryption was decrypted to be sent, and gets that of its place.
    caplog.clear()
    decrypted = plan(raw, item("p/back/b", ""), standing=[dataset("p")])
    assert chosen(decrypted) == {"p/back": "as sent"}
    ((name, error),) = decrypted.failures
    assert (name, "`zfs load-key p/back` first" in str(error), caplog.messages) == ("p/back/b", True, [])


def test_what_lies_in_the_clear_is_said(caplog: pytest.LogCaptureFixture) -> None:
    steps = [item("p/vault/a", "ep"), item("p/vault/a/b", "p")]
    assert chosen(plan(*steps, standing=[VAULT]), unencrypted=True) == {"p/vault/a": "off", "p/vault/a/b": "as sent"}
    assert [each.partition(":")[0] for each in caplog.messages] == ["p/vault/a", "p/vault/a/b"]
    caplog.clear()
    # What an earlier run has put there in the clear, and what comes below that now.
    standing = [VAULT, dataset("p/vault/a")]
    steps = [item("p/vault/a"), item("p/vault/a/b", "p")]
    assert chosen(plan(*steps, standing=standing)) == {"p/vault/a": "as sent", "p/vault/a/b": "as sent"}
    assert caplog.messages == ["p/vault/a/b: it will be unencrypted, below p/vault, which is encrypted"]


@pytest.mark.parametrize(
    ("flags", "place", "reason"),
    [
        (["p", "ep"], VAULT, "t@2 has embedded blocks"),
        (["p"], dataset("p/vault", encrypted=True, key_loaded=False), "`zfs load-key p/vault` first, or leave it"),
    ],
)
def test_what_cannot_be_encrypted_is_refused_and_no_other(flags: list[str], place: Dataset, reason: str) -> None:
    def steps() -> list[RestoreItem | ParentDataset]:
        return [item("p/a", "p"), item("p/vault/a", *flags), item("p/vault/a/b", "w")]

    found = plan(*steps(), standing=[dataset("p"), place])
    assert chosen(found) == {"p/a": "as sent", "p/vault/a/b": "as sent"}
    ((name, error),) = found.failures
    assert (name, isinstance(error, UsageError), reason in str(error)) == ("p/vault/a", True, True)
    assert found.obstacle(found.items[-1]) == "p/vault/a"
    with pytest.raises(UsageError, match="unencrypted"):
        choose_encryption(plan(*steps()[1:2], standing=[place]), unencrypted=False, recursive=False)
    # There is no such choice for what is encrypted already.
    standing = [dataset("p/vault/a", encrypted=True, key_loaded=place.key_loaded)]
    encrypted = plan(item("p/vault/a", *flags, existing=True), standing=standing)
    with pytest.raises(UsageError) as refused:
        choose_encryption(encrypted, unencrypted=True, recursive=False)
    assert "--unencrypted" not in str(refused.value)


def _give_key(name: str, key: dict[str, str], state: dict[str, Any]) -> None:
    state["datasets"][name].update(key)


@pytest.mark.parametrize(
    ("keyformat", "salts", "said"),
    [
        ("passphrase", ("7", "7"), "at home it had the key of p/a, and is an encryption root of its own now"),
        ("passphrase", ("7", "8"), None),
        ("raw", ("0", "0"), "where it had the key of p/a at home, it is an encryption root of its own now"),
    ],
)
async def test_an_encryption_root_that_was_none_at_home_is_said(
    keyformat: str, salts: tuple[str, str], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeZfs.make(tmp_path)
    for name in ("p", "p/a", "p/a/place", "p/a/place/b"):
        fake.create(name, encrypted=name != "p")
    about = {"p/a": salts[0], "p/a/place": salts[0], "p/a/place/b": salts[1]}
    for name, salt in about.items():
        root = "p/a" if name == "p/a/place" else name
        fake.edit(functools.partial(_give_key, name, {"keyformat": keyformat, "salt": salt, "root": root}))
    zfs = Zfs((fake.program,))
    caplog.set_level(logging.WARNING)
    await say_what_changed(zfs, "p/a", [item("p/a", "w"), item("p/a/place/b", "w")])
    undo = f"; with both keys loaded, this undoes it: {fake.program} change-key -i p/a/place/b"
    assert caplog.messages == ([f"p/a/place/b: {said}{undo}"] if said else [])
    # Nothing is asked where nothing came raw.
    fake.forget_commands()
    await say_what_changed(zfs, "p/a", [item("p/a", "p")])
    assert fake.commands == []


def test_what_is_below_what_a_package_brings_has_the_key_of_its_place() -> None:
    package = entry("t@1", 1, kind="package", flags="p")
    steps = [RestoreItem(package, "p/vault/t", [package]), item("p/vault/t/brought/old", "p")]
    assert set(chosen(plan(*steps, standing=[VAULT])).values()) == {"as its place"}
