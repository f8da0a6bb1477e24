"""Writes a send stream of so many bytes to stdout: .venv/bin/python bench/long_stream.py BYTES

Nothing of it is stored before. Of each 64 chunks of 4 MiB one does not compress, and the others are zeros. So frames of
both sizes occur, the largest among them, and 50 GiB take less than 1 GiB in a store.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Final

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.data import LARGE_RECORD, MIB, records  # noqa: E402 - the path comes first

_CHUNK: Final = 4 * MIB
_ROUND: Final = 64


def main() -> None:
    pool = random.Random("fullsend bench, long").randbytes(_CHUNK) + bytes((_ROUND - 1) * _CHUNK)
    for piece in records(pool, int(sys.argv[1]), LARGE_RECORD, "long"):
        sys.stdout.buffer.write(piece)


if __name__ == "__main__":
    main()
