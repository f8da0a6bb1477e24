"""Pairing, and who may do what: between real processes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from tests import streams
from tests.programs import Receiver, Sender, good

from fullsend_protocol.wire.invitation import Invitation

pytestmark = pytest.mark.slow

RAW = streams.begin("tank/secret@s") + streams.end()


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    said = done.stderr.decode()
    assert said.count("\n") == 1, said
    return said


def _certificate(key: Path, certificate: Path) -> list[str | Path]:
    """The command that makes some key and its certificate."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    return [*make, "-subj", "/CN=x", "-days", "9", "-keyout", key, "-out", certificate]


def test_an_invitation_lets_in_once(receiver: Receiver, tmp_path: Path) -> None:
    line = receiver.invite("alpha")
    first, second = Sender(tmp_path / "one", "alpha"), Sender(tmp_path / "two", "alpha")
    good(first.fullsend("join", line))
    done = second.fullsend("join", line)
    assert done.returncode == 3
    assert "has been used" in _said(done)
    first.push("--stdin", stdin=RAW)
    assert not (second.folder / "sender.toml").exists()


def test_a_host_that_did_not_hear_the_answer_may_join_again(receiver: Receiver, tmp_path: Path) -> None:
    line = receiver.invite("alpha")
    host = Sender(tmp_path / "host", "alpha")
    good(host.fullsend("join", line))
    good(host.fullsend("join", line))
    host.push("--stdin", stdin=RAW)


def test_an_expired_invitation_is_refused(receiver: Receiver, tmp_path: Path) -> None:
    done = Sender(tmp_path / "host").fullsend("join", receiver.invite("alpha", "--expires", "0s"))
    assert done.returncode == 3
    assert "expired" in _said(done)


def test_a_forged_invitation_is_refused(receiver: Receiver, tmp_path: Path) -> None:
    real = Invitation.decode(receiver.invite("alpha"))
    forged = Invitation("beta", real.host, real.port, real.fingerprint, "x" * 22)
    done = Sender(tmp_path / "host").fullsend("join", forged.encode())
    assert done.returncode == 3
    assert "not known here" in _said(done)


def test_an_invitation_that_was_pasted_in_part_says_so(receiver: Receiver, tmp_path: Path) -> None:
    done = Sender(tmp_path / "host").fullsend("join", receiver.invite("alpha")[:-3])
    assert done.returncode == 2
    assert "not a whole invitation" in _said(done)


def test_a_known_name_is_invited_again_only_to_be_replaced(receiver: Receiver, tmp_path: Path) -> None:
    old, new = Sender(tmp_path / "old", "alpha"), Sender(tmp_path / "new", "alpha")
    old.join(receiver)
    old.push("--stdin", stdin=RAW)
    done = receiver.fullsendd("invite", "alpha")
    assert done.returncode == 2
    assert b"--replace" in done.stderr
    good(new.fullsend("join", receiver.invite("alpha", "--replace")))
    assert [entry["dataset"] for entry in new.list()] == ["tank/secret"]
    refused = old.fullsend("list")
    assert refused.returncode == 3
    assert "revoked" in _said(refused)


def test_a_revoked_sender_is_refused_at_once_and_its_streams_stay(receiver: Receiver, sender: Sender) -> None:
    sender.push("--stdin", stdin=RAW)
    good(receiver.fullsendd("revoke", "alpha"))
    done = sender.fullsend("push", "--stdin", stdin=RAW)
    assert done.returncode == 3
    assert "revoked" in _said(done)
    assert len(receiver.list()) == 1


def test_a_certificate_that_was_never_enrolled_is_refused_by_name(receiver: Receiver, tmp_path: Path) -> None:
    other = Sender(tmp_path / "other", "beta")
    other.join(receiver)
    # beta's configuration, with a key that nobody knows.
    subprocess.run(
        _certificate(other.folder / "key.pem", other.folder / "cert.pem"),
        check=True,
        capture_output=True,
    )
    done = other.fullsend("list")
    assert done.returncode == 3
    assert "does not know this host's certificate" in _said(done)


def test_one_sender_sees_nothing_of_another(receiver: Receiver, tmp_path: Path) -> None:
    alpha, beta = Sender(tmp_path / "alpha", "alpha"), Sender(tmp_path / "beta", "beta")
    alpha.join(receiver)
    beta.join(receiver)
    (row,) = alpha.push("--stdin", stdin=RAW)
    file = row["receipt"]["file"]
    assert beta.list() == []
    for name in ["tank/secret@s", f"guid:{row['guid']}", file, Path(file).name, f"../{file}", f"/{file}"]:
        done = beta.fullsend("cat", name)
        assert (done.returncode, done.stdout) == (1, b""), name
        assert "no such stream" in _said(done)
    (mine,) = beta.push("--stdin", stdin=RAW)
    assert mine["receipt"]["file"].startswith("beta/")
    assert alpha.list() != beta.list()


def test_an_impostor_gets_nothing(receiver: Receiver, sender: Sender, tmp_path: Path) -> None:
    """Somebody else answers at the receiver's address: the sender ends the connection before it says a word."""
    subprocess.run(
        _certificate(tmp_path / "key", tmp_path / "cert"),
        check=True,
        capture_output=True,
    )
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    receiver.stop()
    with socket.create_server(("127.0.0.1", receiver.port)) as listening:

        def answer() -> None:
            connection, _address = listening.accept()
            with contextlib.closing(connection):
                try:
                    with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
                        heard.append(tls.recv(65536))
                except OSError:
                    heard.append(b"")

        thread = threading.Thread(target=answer)
        thread.start()
        done = sender.fullsend("push", "--stdin", stdin=RAW)
        thread.join(60)
    assert done.returncode == 3
    assert "not the receiver that was paired" in _said(done)
    assert heard == [b""]


@pytest.mark.parametrize("command", [["list"], ["push", "--stdin"], ["verify"], ["cat", "x@y"]])
def test_a_receiver_that_is_away_is_a_case_for_later(receiver: Receiver, sender: Sender, command: list[str]) -> None:
    receiver.stop()
    done = sender.fullsend(*command, stdin=RAW)
    assert done.returncode == 75
    assert "cannot connect" in _said(done)
