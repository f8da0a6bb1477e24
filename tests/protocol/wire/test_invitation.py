from __future__ import annotations

import base64
import json
import string
import zlib
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.helpers import section

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.wire.invitation import Invitation, is_sender_name

INVITATION = Invitation("alpha", "backup.example", 7433, "5c" * 32, "cRCB-QLkJkDZ_2zhEqYnWg")
GOLDEN = (
    "fullsend1-WyJhbHBoYSIsImJhY2t1cC5leGFtcGxlIiw3NDMzLCI1YzVjNWM1YzVjNWM1YzVjNWM1YzVjNWM1YzVjNWM1YzVjNWM1YzVjNW"
    "M1YzVjNWM1YzVjNWM1YzVjNWM1YzVjIiwiY1JDQi1RTGtKa0RaXzJ6aEVxWW5XZyJd-88c8995f"
)


def forged(fields: Any) -> str:
    """A line with a right CRC, whatever it says."""
    body = base64.urlsafe_b64encode(fields if isinstance(fields, bytes) else json.dumps(fields).encode()).rstrip(b"=")
    return f"fullsend1-{body.decode()}-{zlib.crc32(body):08x}"


def test_invitation_is_this_word_and_this_word_is_the_invitation() -> None:
    assert INVITATION.encode() == GOLDEN
    assert Invitation.decode(GOLDEN) == INVITATION
    assert f"    {GOLDEN}\n" in section("The invitation")


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True),
    st.one_of(st.from_regex(r"[A-Za-z0-9._-]{1,60}", fullmatch=True), st.ip_addresses().map(str)),
    st.integers(1, 65535),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True),
)
def test_invitation_comes_out_as_it_went_in_as_one_word_that_no_shell_touches(
    sender: str, host: str, port: int, fingerprint: str, secret: str
) -> None:
    invitation = Invitation(sender, host, port, fingerprint, secret)
    line = invitation.encode()
    assert set(line) <= set(string.ascii_letters + string.digits + "-_")
    assert Invitation.decode(line) == invitation
    assert Invitation.decode(f"  {line}\n") == invitation


def test_several_daemons_have_an_address_each() -> None:
    invitation = replace(INVITATION, others=(("other.example", 7433), ("2001:db8::1", 1)))
    assert Invitation.decode(invitation.encode()) == invitation
    said = [*RIGHT, [["other.example", 7433], ["2001:db8::1", 1]]]
    assert invitation.encode() == forged(json.dumps(said, separators=(",", ":")).encode())
    with pytest.raises(UsageError, match="others"):
        replace(INVITATION, others=(("x", 1),) * 8)


@pytest.mark.parametrize(
    "others", [[["a b", 1]], [["x", 0]], [["x", "1"]], [["x"]], ["x"], [[1, 1]], 5, [["x", 1]] * 8, None]
)
def test_other_addresses_that_cannot_be_are_refused(others: Any) -> None:
    with pytest.raises(UsageError, match="from another version, or forged"):
        Invitation.decode(forged([*RIGHT, others]))


@pytest.mark.parametrize("at", range(len(GOLDEN)))
def test_typo_in_any_character_is_seen(at: int) -> None:
    for typo in "0aA-_x \n\"'é":
        line = GOLDEN[:at] + typo + GOLDEN[at + 1 :]
        if line.strip() == GOLDEN:
            continue
        with pytest.raises(UsageError, match="copy the one line"):
            Invitation.decode(line)
    for line in (GOLDEN[:at] + GOLDEN[at + 1 :], GOLDEN[:at] + GOLDEN[at] + GOLDEN[at:], GOLDEN[:at]):
        with pytest.raises(UsageError, match="copy the one line"):
            Invitation.decode(line)


def test_two_characters_swapped_are_seen() -> None:
    for at in range(len(GOLDEN) - 1):
        line = GOLDEN[:at] + GOLDEN[at + 1] + GOLDEN[at] + GOLDEN[at + 2 :]
        if line != GOLDEN:
            with pytest.raises(UsageError):
                Invitation.decode(line)


@pytest.mark.parametrize(
    "line", ["", "fullsend1-", "hello", "fullsend2-" + GOLDEN[10:], GOLDEN + GOLDEN, GOLDEN.upper()]
)
def test_what_is_no_invitation_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="copy the one line"):
        Invitation.decode(line)


ODD: list[Any] = [None, {}, [], True, "", 0, -1, 65536, 1.5]
RIGHT: list[Any] = ["alpha", "backup.example", 7433, "5c" * 32, "cRCB-QLkJkDZ_2zhEqYnWg"]


def test_forgery_of_the_right_form_is_what_it_says() -> None:
    assert Invitation.decode(forged(RIGHT)) == INVITATION


@pytest.mark.parametrize(
    "fields",
    [
        *(RIGHT[:at] + RIGHT[at + 1 :] for at in range(5)),
        [*RIGHT, "more"],
        *([*RIGHT[:at], odd, *RIGHT[at + 1 :]] for at in range(5) for odd in ODD),
        *(["alpha", host, *RIGHT[2:]] for host in ("a b", 'x"\nlevel = 22\n', "x\0", "größe", "x" * 256, "[::1]")),
        *([name, *RIGHT[1:]] for name in ("../etc", "Alpha", "-x", "a" * 64, "a\n")),
        [*RIGHT[:4], "x" * 129],
        [*RIGHT[:4], "s p"],
        {"sender": "alpha", "host": "x", "port": 1, "fingerprint": "", "secret": ""},
        b"\xff" * 30,
        b"[" * 3000,
        b'{"x":' * 500,
        b"9" * 3000,
        b"x" * 100,
    ],
)
def test_forgery_of_another_form_is_refused(fields: Any) -> None:
    with pytest.raises(UsageError, match="cannot be read: it is from another version, or forged"):
        Invitation.decode(forged(fields))


@given(st.text(max_size=100))
def test_any_text_is_refused(text: str) -> None:
    for line in (text, "fullsend1-" + text):
        with pytest.raises(UsageError):
            Invitation.decode(line)


@pytest.mark.parametrize(
    ("field", "value"), [("host", "größe"), ("host", ""), ("sender", "A"), ("port", 0), ("fingerprint", "")]
)
def test_invitation_that_nobody_could_read_is_not_made(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{field} {value!r}"):
        Invitation(**(asdict(INVITATION) | {field: value}))


@pytest.mark.parametrize("name", ["a", "0", "alpha", "a-b", "a-", "7" * 63])
def test_name_of_a_sender(name: str) -> None:
    assert is_sender_name(name)


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "a/b", "..", "a" * 64, "a\n", "ä", " a"])
def test_no_name_of_a_sender(name: str) -> None:
    assert not is_sender_name(name)
