from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.receiver.buckets import MemoryBucket, store_in
from tests.receiver.crash import Crasher
from tests.receiver.helpers import make_store

from fullsend_protocol.shared.errors import ErrorCode, UsageError
from fullsend_protocol.wire.certificate import OPENSSL_CONFIG, openssl_arguments
from fullsend_receiver.access import senders
from fullsend_receiver.access.senders import Refused, SenderTable
from fullsend_receiver.store.durable import replace_file
from fullsend_receiver.store.errors import StoreError, StoreMissing
from fullsend_receiver.store.local import LocalStore
from fullsend_receiver.store.local import make_store as make_local_store

HOUR = 3600.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three certificates (PEM), as hosts make them."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "config").write_text(OPENSSL_CONFIG, encoding="ascii")
    made = []
    for number in range(3):
        command = openssl_arguments(str(folder / "config"), str(folder / "key"), str(folder / f"{number}"))
        subprocess.run(command, check=True, capture_output=True)
        made.append((folder / f"{number}").read_text(encoding="ascii"))
    return made


def _invite(store: LocalStore, name: str = "alpha", *, expires_in: float = HOUR, replace: bool = False) -> str:
    return senders.invite(store, name, expires_in, replace_existing=replace)


def _refused(store: LocalStore, secret: str, certificate: str) -> str:
    with pytest.raises(Refused) as caught:
        senders.join(store, secret, certificate)
    assert caught.value.code is ErrorCode.INVITATION
    return str(caught.value)


def test_who_joins_is_in_the_table(store: LocalStore, certificates: list[str]) -> None:
    joined = senders.join(store, _invite(store), certificates[0])
    table = SenderTable(store)
    assert table.identify(joined.fingerprint) == joined
    assert table.status(joined.fingerprint) == "enrolled"
    assert [sender.name for sender in table] == ["alpha"]
    assert table.certificates == [certificates[0]]


def test_an_invitation_is_spent_by_its_use(store: LocalStore, certificates: list[str]) -> None:
    secret = _invite(store)
    senders.join(store, secret, certificates[0])
    assert "has been used" in _refused(store, secret, certificates[1])
    assert len(SenderTable(store).certificates) == 1


def test_the_same_host_may_hear_the_answer_again(store: LocalStore, certificates: list[str]) -> None:
    secret = _invite(store)
    assert senders.join(store, secret, certificates[0]) == senders.join(store, secret, certificates[0])
    assert len(list(SenderTable(store))) == 1


def test_but_not_once_it_has_been_revoked(store: LocalStore, certificates: list[str]) -> None:
    secret = _invite(store)
    joined = senders.join(store, secret, certificates[0])
    senders.revoke(store, "alpha")
    _refused(store, secret, certificates[0])
    assert SenderTable(store).status(joined.fingerprint) == "revoked"


def test_an_expired_invitation_lets_nobody_in(store: LocalStore, certificates: list[str]) -> None:
    assert "expired" in _refused(store, _invite(store, expires_in=-1.0), certificates[0])


def test_a_secret_that_was_never_given_out_lets_nobody_in(store: LocalStore, certificates: list[str]) -> None:
    secret = _invite(store)
    assert "not known here" in _refused(store, secret[:-1] + ("A" if secret[-1] != "A" else "B"), certificates[0])
    senders.join(store, secret, certificates[0])


def test_a_newer_invitation_for_a_name_replaces_the_older(store: LocalStore, certificates: list[str]) -> None:
    old, new = _invite(store), _invite(store)
    _refused(store, old, certificates[0])
    senders.join(store, new, certificates[0])


def test_the_secret_is_kept_nowhere(store: LocalStore) -> None:
    secret = _invite(store)
    for path in store.root.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "certificate", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_not_enrolled(store: LocalStore, certificate: str) -> None:
    assert "cannot be read" in _refused(store, _invite(store), certificate)


def test_two_certificates_in_one_are_not_enrolled(store: LocalStore, certificates: list[str]) -> None:
    assert "cannot be read" in _refused(store, _invite(store), certificates[0] + certificates[1])


def test_a_certificate_has_one_name(store: LocalStore, certificates: list[str]) -> None:
    senders.join(store, _invite(store), certificates[0])
    assert "under another name" in _refused(store, _invite(store, "beta"), certificates[0])


def test_a_name_that_is_taken_is_invited_only_to_be_replaced(store: LocalStore, certificates: list[str]) -> None:
    old = senders.join(store, _invite(store), certificates[0])
    with pytest.raises(UsageError, match="--replace"):
        _invite(store)
    secret = _invite(store, replace=True)
    assert SenderTable(store).status(old.fingerprint) == "enrolled"  # until the new host has joined
    new = senders.join(store, secret, certificates[1])
    table = SenderTable(store)
    assert (table.status(old.fingerprint), table.status(new.fingerprint)) == ("revoked", "enrolled")
    assert table.certificates == [certificates[1]]


def test_a_name_with_streams_is_taken_too(store: LocalStore) -> None:
    (store.root / "alpha").mkdir()
    with pytest.raises(UsageError, match="has streams here"):
        _invite(store)


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a/b", "..", ".state", "a" * 64, "ä"])
def test_not_every_word_can_name_a_sender(store: LocalStore, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a sender"):
        _invite(store, name)


def test_the_unknown_and_the_revoked_are_refused_by_name(store: LocalStore, certificates: list[str]) -> None:
    joined = senders.join(store, _invite(store), certificates[0])
    senders.revoke(store, "alpha")
    table = SenderTable(store)
    with pytest.raises(Refused) as caught:
        table.identify(joined.fingerprint)
    assert caught.value.code is ErrorCode.REVOKED
    with pytest.raises(Refused) as caught:
        table.identify("0" * 64)
    assert caught.value.code is ErrorCode.UNKNOWN_SENDER
    assert table.status("0" * 64) == "unknown"
    assert table.certificates == []


def test_nobody_is_revoked_twice_or_unseen(store: LocalStore, certificates: list[str]) -> None:
    with pytest.raises(UsageError, match="no sender 'alpha'"):
        senders.revoke(store, "alpha")
    senders.join(store, _invite(store), certificates[0])
    senders.revoke(store, "alpha")
    with pytest.raises(UsageError, match="no sender 'alpha'"):
        senders.revoke(store, "alpha")


def test_revoking_takes_open_invitations_along(store: LocalStore, certificates: list[str]) -> None:
    senders.join(store, _invite(store), certificates[0])
    secret = _invite(store, replace=True)
    senders.revoke(store, "alpha")
    _refused(store, secret, certificates[1])


def test_a_table_tells_when_it_has_been_changed(store: LocalStore, certificates: list[str]) -> None:
    table = SenderTable(store)
    assert not table.changed()
    senders.join(store, _invite(store), certificates[0])
    assert table.changed()
    table = SenderTable(store)
    senders.revoke(store, "alpha")
    assert table.changed()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": [{"name": "alpha"}]}', '{"rows": 5}'])
def test_a_damaged_table_is_named_and_not_taken_for_an_empty_one(store: LocalStore, content: str) -> None:
    (store.state / "senders.json").write_text(content, encoding="ascii")
    with pytest.raises(StoreError, match=r"senders\.json: cannot be read"):
        SenderTable(store)


_JOIN = """
import sys
from pathlib import Path
from fullsend_receiver.access import senders
from fullsend_receiver.store.local import LocalStore
sys.stdin.readline()
try:
    senders.join(LocalStore(Path(sys.argv[1])), sys.argv[2], sys.argv[3])
except senders.Refused:
    sys.exit(3)
"""


def test_of_two_hosts_that_show_one_invitation_at_once_one_gets_in(store: LocalStore, certificates: list[str]) -> None:
    for round_ in range(3):
        secret = _invite(store, f"host{round_}")
        # Certificates that nobody has yet: of each round's two, the first rounds' winners may not join again.
        rivals = [
            subprocess.Popen(
                [sys.executable, "-c", _JOIN, store.root, secret, certificate], stdin=subprocess.PIPE, env=os.environ
            )
            for certificate in certificates[:2]
        ]
        for rival in rivals:
            assert rival.stdin is not None
            rival.stdin.write(b"go\n")
            rival.stdin.flush()
        codes = sorted(rival.wait(60) for rival in rivals)
        for rival in rivals:
            assert rival.stdin is not None
            rival.stdin.close()
        assert codes == [0, 3]
        assert sum(sender.name == f"host{round_}" for sender in SenderTable(store)) == 1
        (store.state / "senders.json").unlink()


def test_a_crash_between_the_two_writes_lets_nobody_else_in(
    store: LocalStore, certificates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = _invite(store)
    calls = 0

    def failing(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("the power went")
        replace_file(path, data)

    monkeypatch.setattr("fullsend_receiver.store.documents.replace_file", failing)
    with pytest.raises(OSError, match="the power went"):
        senders.join(store, secret, certificates[0])
    monkeypatch.undo()
    # The invitation is bound to the certificate that showed it, and lets nobody else in any more.
    assert SenderTable(store).certificates == []
    assert "has been used" in _refused(store, secret, certificates[1])
    senders.join(store, secret, certificates[0])
    assert SenderTable(store).certificates == [certificates[0]]


def test_kill_at_any_call_of_a_join_lets_this_host_in_later_and_nobody_else(
    swift_path: Path, crasher: Crasher, certificates: list[str]
) -> None:
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        secret = _invite(store)
        outcome = crasher.run("join", store.root, secret, certificates[0], at=at)
        enrolled = SenderTable(store).certificates
        assert enrolled in ([], [certificates[0]])
        assert enrolled or not outcome.told
        if not outcome.killed:
            break
        again = senders.join(store, secret, certificates[0])
        assert SenderTable(store).identify(again.fingerprint) == again
        _refused(store, secret, certificates[1])
    assert outcome.told == (SenderTable(store).identify(outcome.told[0]).fingerprint,)
    assert at > 6


def test_kill_at_any_call_of_a_join_that_replaces_leaves_the_old_host_or_the_new_one(
    swift_path: Path, crasher: Crasher, certificates: list[str]
) -> None:
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        senders.join(store, _invite(store), certificates[0])
        secret = _invite(store, replace=True)
        outcome = crasher.run("join", store.root, secret, certificates[1], at=at)
        assert SenderTable(store).certificates in ([certificates[0]], [certificates[1]])
        if not outcome.killed:
            break
        senders.join(store, secret, certificates[1])
        assert SenderTable(store).certificates == [certificates[1]]
        _refused(store, secret, certificates[2])


def test_kill_at_any_call_of_a_revocation_leaves_it_done_or_to_be_done_again(
    swift_path: Path, crasher: Crasher, certificates: list[str]
) -> None:
    """Never: revoked in the table, with an invitation that lets somebody back in."""
    for at in itertools.count(1):
        store = make_store(swift_path, f"store{at}")
        senders.join(store, _invite(store), certificates[0])
        secret = _invite(store, replace=True)
        outcome = crasher.run("revoke", store.root, "alpha", at=at)
        if SenderTable(store).certificates:
            assert outcome.killed
            senders.revoke(store, "alpha")
        assert SenderTable(store).certificates == []
        _refused(store, secret, certificates[1])
        if not outcome.killed:
            break


def test_an_invitation_that_nobody_has_used_can_be_revoked(store: LocalStore, certificates: list[str]) -> None:
    secret = _invite(store)
    senders.revoke(store, "alpha")
    _refused(store, secret, certificates[0])
    _invite(store)  # the name is free again


def test_times_are_those_of_the_clock(store: LocalStore, certificates: list[str]) -> None:
    before = time.time()
    joined = senders.join(store, _invite(store), certificates[0])
    assert before <= joined.enrolled <= time.time()


def test_table_of_a_store_that_is_not_mounted_is_not_an_empty_one(tmp_path: Path, certificates: list[str]) -> None:
    made, store_id = make_local_store(tmp_path / "mounted", lambda _store: None)
    store = LocalStore(made.root, store_id)
    senders.join(store, senders.invite(store, "alpha", 60, replace_existing=False), certificates[0])
    table = SenderTable(store)
    store.root.rename(tmp_path / "away")
    store.root.mkdir()
    assert table.changed()
    with pytest.raises(StoreMissing, match="is its disk mounted"):
        SenderTable(store)
    with pytest.raises(StoreMissing, match="is its disk mounted"):
        senders.join(store, "secret", certificates[0])
    assert list(store.root.iterdir()) == []


class InterruptedDocuments:
    """The documents of a store, where something else happens before each of the first changes. `first`: what."""

    def __init__(self, store: Any, first: Callable[[str], None]) -> None:
        self._real = store.documents
        self._first = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def put(self, name: str, data: bytes, *, if_match: str | None) -> bool:
        self._first(name)
        return bool(self._real.put(name, data, if_match=if_match))


class InterruptedStore:
    """A store with such documents."""

    def __init__(self, store: Any, first: Callable[[str], None]) -> None:
        self._real = store
        self.documents = InterruptedDocuments(store, first)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture(params=["folder", "bucket"])
def any_store(request: pytest.FixtureRequest, store: LocalStore, tmp_path: Path) -> Any:
    return store if request.param == "folder" else store_in(MemoryBucket(), tmp_path)


def test_any_store_has_senders(any_store: Any, certificates: list[str]) -> None:
    table = SenderTable(any_store)
    joined = senders.join(any_store, _invite(any_store), certificates[0])
    assert table.changed()
    assert SenderTable(any_store).identify(joined.fingerprint) == joined
    senders.revoke(any_store, "alpha")
    assert SenderTable(any_store).status(joined.fingerprint) == "revoked"


def test_two_changes_at_once_both_count(any_store: Any, certificates: list[str]) -> None:
    first, second = _invite(any_store), _invite(any_store, "beta")
    others = [lambda: senders.join(any_store, second, certificates[1])]

    def other(name: str) -> None:
        if name == "senders.json" and others:
            others.pop()()

    senders.join(InterruptedStore(any_store, other), first, certificates[0])
    assert {each.name for each in SenderTable(any_store) if each.revoked is None} == {"alpha", "beta"}


def test_host_that_was_replaced_while_it_joined_takes_nobody_along(any_store: Any, certificates: list[str]) -> None:
    old = _invite(any_store)

    def replace_it(name: str) -> None:
        if name == "senders.json" and ends:
            ends.pop()()

    def others() -> None:
        senders.join(any_store, _invite(any_store, replace=True), certificates[1])

    ends = [others]
    with pytest.raises(Refused, match="not known here"):
        senders.join(InterruptedStore(any_store, replace_it), old, certificates[0])
    assert SenderTable(any_store).certificates == [certificates[1]]


@pytest.mark.parametrize("at", ["invitations.json", "senders.json"])
def test_sender_that_is_revoked_while_it_joins_is_not_in_force(
    any_store: Any, certificates: list[str], at: str
) -> None:
    secret = _invite(any_store)
    ends = [lambda: senders.revoke(any_store, "alpha")]

    def end(name: str) -> None:
        if name == at and ends:
            ends.pop()()

    with pytest.raises(Refused, match="not known here"):
        senders.join(InterruptedStore(any_store, end), secret, certificates[0])
    assert not ends
    assert SenderTable(any_store).certificates == []
