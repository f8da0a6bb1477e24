"""Run the benchmarks: `make bench`, or `.venv/bin/python bench/run.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a script, Python looks for modules beside it; they are `bench.x` here, as mypy and pytest call them.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
