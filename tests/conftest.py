"""What all tests share: how long Hypothesis looks, and which streams there are to test with.

Hypothesis has two profiles. `ci` is the default: the same bounded examples on every run, so that a red build is red for
everybody. `deep` looks for new ones, for as long as you have: HYPOTHESIS_PROFILE=deep pytest tests/protocol --timeout 0
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from tests import streams

# A loaded machine must not turn a test red: pytest's own timeout ends a hang.
settings.register_profile("ci", derandomize=True, database=None, max_examples=100, deadline=None, print_blob=True)
settings.register_profile(
    "deep", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: more than there are cores, since the suite waits about as much as it computes."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: a file whose tests share a daemon stays together, in order; others go anywhere."""
    sharing = {item.path for item in items if isinstance(item, pytest.Function) and _shares(item)}
    for item in items:
        if item.path in sharing:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}.{item.path.stem}"))


def _shares(item: pytest.Function) -> bool:
    return any(fixtures[-1].scope == "module" for fixtures in item._fixtureinfo.name2fixturedefs.values())


def pytest_report_header() -> list[str]:
    more = streams.corpus()
    return [
        f"hypothesis profile: {settings.get_current_profile_name()}",
        f"genuine streams: {len(streams.genuine())} (tests/data{f' and {more}' if more else ''})",
    ]
