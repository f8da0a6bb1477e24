from __future__ import annotations

from pathlib import Path

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import parse_settings
from fullsend_receiver.access.config import ReceiverSettings

HOUR, DAY = 3600.0, 86400.0
HEAD = 'store = "/s"\nstore-id = "1"\n'


def parsed(text: str) -> ReceiverSettings:
    return parse_settings(ReceiverSettings, HEAD + text, "receiver.toml")


def test_without_settings_all_is_learnt() -> None:
    settings = parsed("")
    assert settings.expected_every("alpha", "tank/home") == "learn"
    assert settings.warn_days == 14 * DAY
    assert settings.store == Path("/s")


def test_the_later_table_counts() -> None:
    settings = parsed(
        'expect-every = "26h"\n'
        '[expect."alpha/tank/**"]\nevery = "2h"\n'
        '[expect."alpha/tank/old"]\nevery = "never"\n'
        '[expect."*/tank/vm"]\nevery = "learn"\n'
    )
    assert settings.expected_every("alpha", "tank/home") == 2 * HOUR
    assert settings.expected_every("alpha", "tank/old") == "never"
    assert settings.expected_every("alpha", "tank/vm") == "learn"
    assert settings.expected_every("beta", "tank/home") == 26 * HOUR


@pytest.mark.parametrize(("said", "seconds"), [("14", 14 * DAY), ("0.5", DAY / 2), ('"36h"', 1.5 * DAY), ("0", 0)])
def test_warn_days_are_days_or_a_duration(said: str, seconds: float) -> None:
    assert parsed(f"warn-days = {said}\n").warn_days == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('expect-every = "often"', "expect-every: 'often' is neither a duration of a minute or more"),
        ("expect-every = true", "expect-every: True is neither a duration"),
        ("expect-every = 1", "expect-every: 1 is neither a duration"),
        ("expect-every = inf", "expect-every: inf is neither a duration"),
        ('warn-days = "soon"', "warn-days: 'soon' is neither a number of days"),
        ("warn-days = true", "warn-days: True is neither a number of days"),
        ("warn-days = -1", "warn-days: -1 is neither a number of days"),
        ("warn-days = []", r"warn-days: \[\] is neither a number of days"),
        ('[expect]\nevery = "26h"', "unknown key 'expect.every'"),
        ('[expect."tank"]\nevery = "26h"', "'tank' is not SENDER/PATTERN"),
        ('[expect."alpha/tank"]\nevry = "26h"', r"unknown key 'expect\.alpha/tank\.evry'"),
        ('[expect."alpha/tank"]\n', r"expect\.alpha/tank\.every: Field required"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parsed(text + "\n")


def test_what_counts_for_a_sender_is_that_of_all_its_datasets() -> None:
    expect = parsed(
        '[expect."alpha/tank/*"]\nevery = "2h"\n'
        '[expect."al*/**"]\nevery = "never"\n[expect."alpha/vm"]\nevery = "26h"\n'
    ).expect
    assert expect.of_sender("alpha", "learn") == ["never", 26 * HOUR]
    assert expect.of_sender("beta", "learn") == ["learn"]
