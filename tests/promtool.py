"""promtool: what Prometheus itself says of metrics, rules and queries. Of Debian's package `prometheus`."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def promtool(*arguments: str, stdin: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it. Skips the test where it is not installed; fails it in CI."""
    program = shutil.which("promtool")
    if program is None:
        why = "promtool is not installed (Debian's package `prometheus`)"
        if os.environ.get("FULLSEND_TEST_PROMTOOL") == "required":
            pytest.fail(why)
        pytest.skip(why)
    command = [program, *arguments]
    return subprocess.run(command, input=stdin, cwd=folder, capture_output=True, text=True, check=False)


def complaints(text: str) -> str:
    """Return what `promtool check metrics` says of a text; "": nothing."""
    ran = promtool("check", "metrics", stdin=text)
    return ran.stdout + ran.stderr + (f"exit code {ran.returncode}" if ran.returncode else "")
