"""What all tests share: how long Hypothesis looks, the event loop, the workers, and the streams to test with.

Hypothesis has two profiles. `ci` is the default: the same bounded examples on every run, so that a red build is red for
everybody. `deep` looks for new ones, for as long as you have: HYPOTHESIS_PROFILE=deep pytest tests/protocol --timeout 0
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from tests import streams

if TYPE_CHECKING:
    import asyncio

#: Seconds for one slow test; pyproject.toml has the time of all others.
SLOW_TIMEOUT: Final = 240

# A loaded machine must not turn a test red: pytest's own timeout ends a hang.
settings.register_profile("ci", derandomize=True, database=None, max_examples=100, deadline=None, print_blob=True)
settings.register_profile(
    "deep", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every async test on uvloop, the only loop that the programs run on; in debug mode (pyproject.toml)."""
    return {"uvloop": _new_loop}


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = uvloop.new_event_loop()
    loop.slow_callback_duration = math.inf  # debug mode logs what takes long, which on a busy machine is anything
    return loop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the slow tests more time, unless they have set their own: beside other work they take ten times as long."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


def pytest_configure(config: pytest.Config) -> None:
    """End the run with the first test that ends its worker, as a test at its time limit does.

    By default xdist starts another worker. Where tests are given out one by one, that worker waits for ever.
    """
    if getattr(config.option, "maxworkerrestart", "0") is None:
        config.option.maxworkerrestart = "0"


# Both hooks of pytest-xdist are optional, so that `pytest -p no:xdist` works.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: more than there are cores, since the suite waits about as much as it computes."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """For `-n`: instead of what --dist says."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # the same
        """Gives out test by test; but a file whose tests share something, such as a daemon, stays together in order.

        So do the cases of one test of tests/protocol: thousands take a millisecond, and giving each out takes longer.
        """

        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            if _shares(config.rootpath / path):
                return path
            return nodeid.partition("[")[0] if path.startswith("tests/protocol/") else nodeid

    return Scheduler(config, log)


@functools.cache
def _shares(file: Path) -> bool:
    return 'scope="module"' in file.read_text(encoding="utf-8")


@pytest.fixture
def swift_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one, for what syncs a thousand times: only a power cut minds, not a kill."""
    with _in_memory() as folder:
        yield folder or tmp_path


@pytest.fixture(scope="module")
def swift_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, for all tests of a file."""
    with _in_memory() as folder:
        yield folder or tmp_path_factory.mktemp("swift")


@contextmanager
def _in_memory() -> Iterator[Path | None]:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield None
        return
    with TemporaryDirectory(prefix="fullsend-test-", dir=memory) as folder:
        yield Path(folder)


def pytest_report_header() -> list[str]:
    more = streams.corpus()
    return [
        f"hypothesis profile: {settings.get_current_profile_name()}",
        f"genuine streams: {len(streams.genuine())} (tests/data{f' and {more}' if more else ''})",
    ]
