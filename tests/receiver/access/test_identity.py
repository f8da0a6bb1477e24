from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.access import identity
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store.local import LocalStore, make_store


def test_the_key_is_for_its_owner_alone_and_nothing_else_is_left(store: LocalStore) -> None:
    identity.make_identity(store)
    assert identity.key_file(store).stat().st_mode & 0o777 == 0o600
    assert {path.name for path in store.state.iterdir()} == {"key.pem", "certificate.pem"}


def test_the_fingerprint_is_that_of_the_certificate(store: LocalStore) -> None:
    identity.make_identity(store)
    said = subprocess.run(
        ["openssl", "x509", "-in", identity.certificate_file(store), "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.strip().partition("=")[2].replace(":", "").lower() == identity.fingerprint(store)


def test_without_openssl_one_line_says_so(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="`openssl` is not installed"):
        identity.make_identity(store)


def test_an_openssl_that_fails_is_quoted(store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "openssl"
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="out of luck"):
        identity.make_identity(store)
    assert list(store.state.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_certificate_that_cannot_be_read_is_named(store: LocalStore, content: str | None) -> None:
    if content is not None:
        identity.certificate_file(store).write_text(content, encoding="ascii")
    with pytest.raises(StoreError, match=r"certificate\.pem: cannot be read"):
        identity.fingerprint(store)


def test_a_key_that_is_not_the_certificates_is_named(store: LocalStore, tmp_path: Path) -> None:
    identity.make_identity(store)
    kept = identity.certificate_file(store).read_bytes()
    identity.make_identity(store)
    identity.certificate_file(store).write_bytes(kept)
    with pytest.raises(StoreError, match="key and certificate cannot be used"):
        identity.server_context(store, [])


def test_tls_is_1_3_only_asks_for_a_certificate_and_resumes_nothing(store: LocalStore) -> None:
    identity.make_identity(store)
    context = identity.server_context(store, [identity.certificate_file(store).read_text(encoding="ascii")])
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_OPTIONAL
    assert context.num_tickets == 0
    assert len(context.get_ca_certs()) in {0, 1}
    assert context.cert_store_stats()["x509"] == 1


def test_what_a_certificate_is(store: LocalStore) -> None:
    identity.make_identity(store)
    pem = identity.certificate_file(store).read_text(encoding="ascii")
    assert identity.is_certificate(pem)
    assert not identity.is_certificate(pem + pem)
    assert not identity.is_certificate(pem[:100])
    assert not identity.is_certificate(identity.key_file(store).read_text(encoding="ascii"))
    assert not identity.is_certificate("")


_BECOME = """
import os, sys
from pathlib import Path
from fullsend_receiver.access.identity import become_owner
from fullsend_receiver.store.local import LocalStore, make_store
become_owner(LocalStore(Path(sys.argv[1])))
print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups())
"""


def _become(store: LocalStore) -> str:
    return subprocess.run(
        [sys.executable, "-c", _BECOME, store.root], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_root_becomes_the_stores_owner_for_good(store: LocalStore) -> None:
    if os.geteuid() == 0:
        os.chown(store.home, 65534, 65534)
        assert _become(store) == "65534 65534 65534 []"
        os.chown(store.home, 0, 0)
    # A user who is not root stays who it is; so does root where it owns the store.
    assert _become(store).startswith(f"{os.getuid()} {os.geteuid()} {os.getgid()} ")


def test_two_stores_of_one_user(store: LocalStore, tmp_path: Path) -> None:
    other, _store_id = make_store(tmp_path / "other", lambda _store: None)
    identity.check_same_owner(store, other)
    if os.geteuid() == 0:
        os.chown(other.home, 65534, 65534)
        with pytest.raises(UsageError, match="belongs to another user"):
            identity.check_same_owner(store, other)


_ACT = """
import os, sys
from pathlib import Path
from fullsend_receiver.access.identity import acting_as_owner
from fullsend_receiver.store.local import LocalStore, make_store
with acting_as_owner(LocalStore(Path(sys.argv[1]))):
    print(os.getuid(), os.geteuid(), os.getegid(), os.getgroups())
print(os.getuid(), os.geteuid(), os.getegid(), os.getgroups())
"""


def test_root_acts_as_the_stores_owner_for_a_while(store: LocalStore) -> None:
    def act() -> list[str]:
        command = [sys.executable, "-c", _ACT, str(store.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    me = f"{os.getuid()} {os.geteuid()} {os.getegid()} {os.getgroups()}"
    if os.geteuid() == 0:
        os.chown(store.home, 65534, 65534)
        assert act() == ["0 65534 65534 []", me]
        os.chown(store.home, 0, 0)
    assert act() == [me, me]
