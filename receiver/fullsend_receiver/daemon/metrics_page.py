"""The newest metrics: in memory, for HTTP, and in a file, for node_exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from fullsend_protocol.shared.errors import FullsendError, reason
from fullsend_receiver.arrival.counters import Counters
from fullsend_receiver.monitor.metrics import render
from fullsend_receiver.monitor.overview import Overview
from fullsend_receiver.store.durable import replace_file

#: node_exporter is another user, whatever the daemon's umask.
_MODE: Final = 0o644


class MetricsPage:
    """The metrics of one daemon. `text`: the newest, None: none were made yet."""

    def __init__(self, count: Callable[[], Counters], path: str | None, datasets_max: int) -> None:
        """`count`: returns the daemon's counters as they are now, in any thread; `path`: of the file, None: there is
        none; `datasets_max`: see `render`.
        """
        self.text: bytes | None = None
        self._count = count
        self._path = None if path is None else Path(path)
        self._datasets_max = datasets_max

    def change(self, path: str | None, datasets_max: int) -> None:
        """Make the metrics by these settings from now on. A file that is not written any more stays, and grows old."""
        self._path = None if path is None else Path(path)
        self._datasets_max = datasets_max

    def publish(self, overview: Overview) -> None:
        """Make the metrics anew, and write the file. Blocks. Raises: FullsendError if it cannot be written; the new
        metrics are in memory even then.
        """
        self.text = text = render(overview, self._count(), datasets_max=self._datasets_max).encode()
        path = self._path
        if path is None:
            return
        try:
            # Not durable: it is written each minute, and a reader refuses what a power cut has left of it.
            replace_file(path, text, _MODE, durable=False, exact=True)
        except OSError as error:
            msg = f"{path}: cannot be written: {reason(error)}: see docs/monitoring.md, or change metrics-file"
            raise FullsendError(msg) from None
