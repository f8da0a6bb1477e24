"""What all tests share: how long Hypothesis looks, and which streams there are to test with.

Hypothesis has two profiles. `ci` is the default: the same bounded examples on every run, so that a red build is red for
everybody. `deep` looks for new ones, for as long as you have: HYPOTHESIS_PROFILE=deep pytest tests/protocol --timeout 0
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from tests import streams

# A loaded machine must not turn a test red: pytest's own timeout ends a hang.
settings.register_profile("ci", derandomize=True, database=None, max_examples=100, deadline=None, print_blob=True)
settings.register_profile(
    "deep", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_report_header() -> list[str]:
    more = streams.corpus()
    return [
        f"hypothesis profile: {settings.get_current_profile_name()}",
        f"genuine streams: {len(streams.genuine())} (tests/data{f' and {more}' if more else ''})",
    ]
