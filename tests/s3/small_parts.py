"""fullsendd with parts and segments that are so small that a stream of some MiB is a large one.

    receiver.start(*COMMAND)

This module is also the program: it replaces what a store takes for the sizes of parts, and runs the command line. The
code under test has no hook.
"""

from __future__ import annotations

import sys
from typing import Final

from fullsend_receiver.cli.main import main as fullsendd
from fullsend_receiver.store_s3.part_sizes import PartSizes
from fullsend_receiver.store_s3.stores import BucketStore

COMMAND: Final = (sys.executable, "-m", "tests.s3.small_parts", "serve")
#: Seven parts, the last one for the tables: less than a stream of OBJECT_MOST has without segments.
SMALL: Final = PartSizes(least=5 << 20, parts_most=7, direct=2, segment=24 << 20, object_most=128 << 20)


def main() -> None:
    assert BucketStore.__init__.__kwdefaults__ is not None
    BucketStore.__init__.__kwdefaults__["sizes"] = SMALL
    sys.exit(fullsendd(sys.argv[1:]))


if __name__ == "__main__":
    main()
