from __future__ import annotations

import subprocess
import sys

import pytest

#: Says how many descriptors were taken, the first of them, and whether what is meant for stderr has a place.
CODE = """
import os, sys
from fullsend_cli.descriptors import occupy_standard_descriptors
occupy_standard_descriptors()
print("lost", file=sys.stderr)
null, free = os.stat(os.devnull).st_rdev, os.dup(0)
os.write(int(sys.argv[1]), str([free > 2, [os.fstat(n).st_rdev == null for n in range(3)]]).encode())
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_what_the_caller_has_closed_is_dev_null(closed: tuple[int, ...]) -> None:
    shell = "".join(f" {number}>&-" for number in closed)
    done = subprocess.run(
        ["bash", "-c", f'exec 9>&1; exec "$@"{shell}', "bash", sys.executable, "-c", CODE, "9"],
        stdin=subprocess.PIPE,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == str([True, [number in closed for number in range(3)]])
    assert done.stderr == (b"" if 2 in closed else b"lost\n")
