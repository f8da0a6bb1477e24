"""The suite's own rules, seen in a small suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_test_that_ends_its_worker_ends_the_run_and_is_named(tmp_path: Path) -> None:
    """A test at its time limit does. The run must not wait for ever."""
    (tmp_path / "test_small.py").write_text(
        "import os\n"
        "import pytest\n"
        '@pytest.mark.parametrize("number", range(12))\n'
        "def test_small(number):\n"
        "    if number == 5:\n"
        "        os._exit(1)\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider"),
            *("-o", "asyncio_default_fixture_loop_scope=function", "-p", "tests.conftest", "-n", "2", str(tmp_path)),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done
    assert "crashed while running 'test_small.py::test_small[5]'" in done.stdout
