from __future__ import annotations

import hashlib
import ssl
import subprocess
from datetime import date
from pathlib import Path

import pytest

from fullsend_protocol.wire.certificate import OPENSSL_CONFIG, fingerprint, openssl_arguments


def text(certificate: Path, *what: str) -> str:
    command = ["openssl", "x509", "-in", str(certificate), "-noout", *what]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate, made with the command and the configuration given."""
    folder = tmp_path_factory.mktemp("identity")
    config, key, certificate = (folder / name for name in ("config", "key.pem", "cert.pem"))
    config.write_text(OPENSSL_CONFIG, encoding="ascii")
    command = openssl_arguments(str(config), str(key), str(certificate))
    subprocess.run(command, capture_output=True, check=True)
    return certificate


def test_certificate_can_sign_no_other(made: Path) -> None:
    extensions = text(made, "-ext", "basicConstraints,keyUsage")
    assert "CA:FALSE" in extensions
    assert "CA:TRUE" not in extensions
    assert "Certificate Sign" not in extensions
    assert extensions.count("critical") == 2


def test_certificate_does_not_expire_in_anybodys_life(made: Path) -> None:
    assert "9999" in text(made, "-enddate")
    assert openssl_arguments("c", "k", "p", date(9999, 12, 30))[-1] == "1"
    assert openssl_arguments("c", "k", "p", date(2026, 11, 23))[-1] == "2912116"


def test_key_and_certificate_go_together(made: Path) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made, made.with_name("key.pem"))


def test_fingerprint_is_what_openssl_calls_it(made: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert(made.read_text(encoding="ascii"))
    shown = text(made, "-fingerprint", "-sha256").strip().partition("=")[2]
    assert fingerprint(der) == shown.replace(":", "").lower() == hashlib.sha256(der).hexdigest()


def test_no_shell_and_no_question_stands_between() -> None:
    command = openssl_arguments("c; rm -rf /", "k", "p")
    assert command[0] == "openssl"
    assert "c; rm -rf /" in command
    assert "-batch" in command
    assert "-nodes" in command
