"""The table [copy] of receiver.toml."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Final

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.access import config
from fullsend_receiver.access.copy_settings import CopyScope, CopySettings

DAY: Final = 86400.0


def copies(text: str) -> CopySettings | None:
    return config.parse(f'store = "/s"\nstore-id = "x"\n{text}', "receiver.toml").copies


def test_there_are_no_copies_without_the_table() -> None:
    assert copies("") is None


def test_what_is_not_said_is_as_the_documents_say() -> None:
    found = copies('[copy]\nto = "/etc/offsite.toml"')
    assert found is not None
    assert (found.to, found.at, found.every, found.bwlimit) == (Path("/etc/offsite.toml"), time(5), None, 0)
    assert (found.scope, found.limit) == (CopyScope(), 3 * DAY)


def test_all_keys() -> None:
    found = copies(
        'copy.to = "/o.toml"\ncopy.every = "2d"\ncopy.bwlimit = "20M"\n'
        'copy.what = ["alpha", "beta/tank/home"]\ncopy.all = true\n'
    )
    assert found is not None
    assert (found.every, found.bwlimit, found.limit) == (2 * DAY, 20 << 20, 6 * DAY)
    assert found.scope == CopyScope(("alpha", "beta/tank/home"), everything=True)


@pytest.mark.parametrize(("text", "limit"), [('"5d"', 5 * DAY), ("0", None), ('"1h"', 3600.0)])
def test_the_age_that_is_an_alarm(text: str, limit: float | None) -> None:
    found = copies(f'[copy]\nto = "/o.toml"\nat = "never"\nwhat = "alpha"\nalarm-after = {text}')
    assert found is not None
    assert (found.at, found.limit, found.scope.what) == (None, limit, ("alpha",))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "copy.to: Field required"),
        ('to = "o.toml"', "copy.to: 'o.toml' is not an absolute path"),
        ('to = "/o"\nat = "01:00"\nevery = "1d"', "copy: `at` and `every` are both there: name one of them"),
        ('to = "/o"\nevery = "5s"', "copy.every: Input should be greater than or equal to 60"),
        ('to = "/o"\nwhat = "../x"', "copy.what.0: '../x' is neither SENDER nor SENDER/DATASET"),
        ('to = "/o"\nwhat = ["alpha/"]', "copy.what.0: 'alpha/' is neither SENDER nor SENDER/DATASET"),
        ('to = "/o"\nbwlimt = 3', "unknown key 'copy.bwlimt'; did you mean 'bwlimit'?"),
    ],
)
def test_what_is_wrong_is_named(text: str, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        copies(f"[copy]\n{text}")
    assert str(caught.value) == f"receiver.toml: {error}"


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        (CopyScope(), CopyScope(), True),
        (CopyScope(), CopyScope(("alpha",)), True),
        (CopyScope(("alpha",)), CopyScope(), False),
        (CopyScope(("alpha",)), CopyScope(("alpha/tank",)), True),
        (CopyScope(("alpha", "beta")), CopyScope(("beta/tank", "alpha")), True),
        (CopyScope(("alpha/tank",)), CopyScope(("alpha",)), False),
        (CopyScope(("alpha/tank",)), CopyScope(("alpha/tank/home",)), False),
        (CopyScope(), CopyScope(everything=True), False),
        (CopyScope(everything=True), CopyScope(), True),
    ],
)
def test_a_scope_covers_what_is_in_it(one: CopyScope, other: CopyScope, covers: bool) -> None:
    assert one.covers(other) is covers
