"""The policies of receiver.toml: which counts for a dataset, and what is refused."""

from __future__ import annotations

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import parse_settings
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.policies import Policy, Retention

MINIMAL = 'store = "/srv/backups"\nstore-id = "0123"\n'


def _retention(text: str) -> Retention:
    found = parse_settings(ReceiverSettings, MINIMAL + text, "receiver.toml").retention
    assert found is not None
    return found


def _wrong(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_settings(ReceiverSettings, MINIMAL + text, "receiver.toml")
    return str(caught.value)


def test_without_a_table_there_is_no_retention() -> None:
    assert parse_settings(ReceiverSettings, MINIMAL, "receiver.toml").retention is None


def test_one_table_is_for_all() -> None:
    found = _retention('[retention]\ndaily = 7\nwithin = "36h"\ntime = "created"\n')
    assert found.policy("alpha", "tank") == Policy(daily=7, within=36 * 3600.0, time="created", where="[retention]")
    assert found.policy("alpha", "tank") == found.policy("beta", "pool/x")


def test_the_floors_have_defaults() -> None:
    found = _retention("[retention]\nlast = 1\n").policy("alpha", "tank")
    assert found is not None
    assert (found.minimum_count, found.minimum_age) == (3, 2 * 86400.0)


def test_the_later_of_several_matching_tables_counts_value_by_value() -> None:
    found = _retention(
        "[retention]\ndaily = 7\nmonthly = 12\n"
        '[retention."alpha/tank/**"]\ndaily = 2\nhourly = 24\n'
        '[retention."*/tank/vm/*"]\nmonthly = 0\nhourly = 48\n'
    )
    base, tank, disks = ("[retention]", '[retention."alpha/tank/**"]', '[retention."*/tank/vm/*"]')
    assert found.policy("beta", "tank/home") == Policy(daily=7, monthly=12, where=base)
    assert found.policy("alpha", "tank") == Policy(daily=7, monthly=12, where=base)
    assert found.policy("alpha", "tank/a/b") == Policy(daily=2, monthly=12, hourly=24, where=f"{base} + {tank}")
    assert found.policy("alpha", "tank/vm/a") == Policy(daily=2, hourly=48, where=f"{base} + {tank} + {disks}")
    assert found.policy("beta", "tank/vm/a") == Policy(daily=7, hourly=48, where=f"{base} + {disks}")
    assert found.policy("beta", "tank/vm/a/b") == Policy(daily=7, monthly=12, where=base)


def test_the_asterisk_stays_within_a_component_also_of_the_sender() -> None:
    found = _retention('[retention."*/tank"]\ndaily = 7\n[retention."a?/tank.1"]\nlast = 2\n')
    assert found.policy("alpha", "tank") is not None
    assert found.policy("alpha", "x/tank") is None
    assert found.policy("ab", "tank.1") is not None
    assert found.policy("ab", "tank11") is None


def test_a_dataset_without_a_rule_has_no_policy() -> None:
    found = _retention('[retention]\nminimum-age = "7d"\n[retention."alpha/**"]\nlast = 0\n')
    assert found.policy("beta", "tank") is None
    policy = found.policy("alpha", "tank")
    assert policy == Policy(minimum_age=7 * 86400.0, where='[retention] + [retention."alpha/**"]')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[retention]\ndayly = 7", "unknown key 'retention.dayly'; did you mean 'daily'?"),
        ('[retention]\nminimum-ag = "3d"', "unknown key 'retention.minimum-ag'; did you mean 'minimum-age'?"),
        ('[retention."alpha/x"]\nmontly = 3', "unknown key 'retention.alpha/x.montly'; did you mean 'monthly'?"),
        (
            '[retention]\ndaily = 7\nprune-at = "03:30"',
            "unknown key 'retention.prune-at'; 'prune-at' belongs above the first [table]",
        ),
        ("[retention]\ndaily = -1", "retention.daily: Input should be greater than or equal to 0"),
        ("[retention]\ndaily = true", "retention.daily: Input should be a valid integer"),
        ("[retention]\ndaily = 1.5", "retention.daily: Input should be a valid integer"),
        ('[retention]\nwithin = "1y"', "retention.within: '1y' is not a duration"),
        ('[retention]\nlast = 1\ntime = "creatd"', "retention.time: Input should be 'received' or 'created'"),
        ("[retention.tank]\ndaily = 7", "'tank' is not SENDER/PATTERN"),
        ('[retention."/tank"]\ndaily = 7', "'/tank' is not SENDER/PATTERN"),
        ('[retention."alpha/"]\ndaily = 7', "'alpha/' is not SENDER/PATTERN"),
        ('[retention."alpha//tank"]\ndaily = 7', "'alpha//tank' is not SENDER/PATTERN"),
        ('[retention."alpha/tank@x"]\ndaily = 7', "'alpha/tank@x' is not SENDER/PATTERN"),
        ("[retention]", "it has no rule that keeps anything"),
        ('[retention]\nminimum-age = "3d"', "it has no rule that keeps anything"),
        (
            '[retention."alpha/x"]\nminimum-age = "3d"\n[retention."beta/x"]\ndaily = 1',
            '[retention."alpha/x"] has no rule that keeps anything: write one, such as daily = 7',
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, says: str) -> None:
    said = _wrong(text + "\n")
    assert says in said
    assert "\n" not in said
