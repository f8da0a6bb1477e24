from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import FullsendError, UsageError
from fullsend_sender.host.identity import Identity


def beside(folder: Path) -> Identity:
    return Identity.beside(str(folder / "sender.toml"))


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout


def test_certificate_is_what_the_design_says(identity: Identity) -> None:
    text = openssl("x509", "-in", identity.certificate, "-noout", "-text")
    assert "CA:FALSE" in text
    assert "prime256v1" in text
    assert "Not After : Dec 31" in text
    assert " 9999 GMT" in text
    assert "ecdsa-with-SHA256" in text


def test_key_is_for_its_owner_alone(identity: Identity) -> None:
    assert os.stat(identity.key).st_mode & 0o777 == 0o600


def test_fingerprint_is_that_of_openssl(identity: Identity) -> None:
    said = openssl("x509", "-in", identity.certificate, "-noout", "-fingerprint", "-sha256")
    assert said.partition("=")[2].strip().replace(":", "").lower() == identity.fingerprint()


def test_made_once(tmp_path: Path) -> None:
    identity = beside(tmp_path / "etc" / "fullsend")
    identity.ensure()
    before = Path(identity.key).read_bytes(), identity.pem()
    identity.ensure()
    assert (Path(identity.key).read_bytes(), identity.pem()) == before
    assert sorted(os.listdir(tmp_path / "etc" / "fullsend")) == ["cert.pem", "key.pem"]


def test_system_configuration_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf = nothing\n[req]\nx509_extensions = ca\n[ca]\nbasicConstraints=CA:TRUE"
    )
    monkeypatch.setenv("OPENSSL_CONF", str(tmp_path / "openssl.cnf"))
    identity = beside(tmp_path)
    identity.ensure()
    monkeypatch.delenv("OPENSSL_CONF")
    assert "CA:FALSE" in openssl("x509", "-in", identity.certificate, "-noout", "-text")


def test_certificate_without_key_is_made_anew(tmp_path: Path) -> None:
    identity = beside(tmp_path)
    Path(identity.certificate).write_text("left by a crash", encoding="utf-8")
    identity.ensure()
    identity.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_key_without_certificate_is_not_overwritten(tmp_path: Path) -> None:
    identity = beside(tmp_path)
    Path(identity.key).write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match=r"key.pem exists, .*cert.pem does not"):
        identity.ensure()
    assert Path(identity.key).read_text(encoding="utf-8") == "precious"


def test_pair_that_does_not_match(tmp_path: Path, identity: Identity) -> None:
    own = beside(tmp_path)
    own.ensure()
    Path(own.certificate).write_text(identity.pem(), encoding="utf-8")
    with pytest.raises(UsageError, match="are not a usable pair"):
        own.ensure()


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    identity = beside(tmp_path)
    with pytest.raises(UsageError, match=r"key.pem is missing: make it with `fullsend join"):
        identity.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    with pytest.raises(UsageError, match=r"cert.pem is missing"):
        identity.fingerprint()
    os.mkdir(identity.certificate)
    with pytest.raises(UsageError, match=r"cert.pem cannot be read: Is a directory"):
        identity.pem()
    os.rmdir(identity.certificate)
    Path(identity.certificate).write_text("no certificate", encoding="utf-8")
    with pytest.raises(UsageError, match="is not a certificate in PEM"):
        identity.fingerprint()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        beside(tmp_path / "file" / "inside").ensure()


def test_target_that_cannot_be_replaced(tmp_path: Path) -> None:
    identity = beside(tmp_path)
    os.mkdir(identity.certificate)
    with pytest.raises(UsageError, match="cannot write"):
        identity.ensure()
    assert os.listdir(tmp_path) == ["cert.pem"]


def test_openssl_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(FullsendError, match="the program `openssl` is needed"):
        beside(tmp_path).ensure()
    assert os.listdir(tmp_path) == []


def test_openssl_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "openssl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho first >&2\necho out of luck >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with pytest.raises(FullsendError, match=r"openssl could not make a key \(exit 3\): out of luck"):
        beside(tmp_path / "etc").ensure()
    assert os.listdir(tmp_path / "etc") == []
