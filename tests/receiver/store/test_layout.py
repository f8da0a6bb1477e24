from __future__ import annotations

from pathlib import Path
from typing import Final

from fullsend_receiver.store.layout import MARKER, Layout

ROOT: Final = Path(__file__).resolve().parents[3]
FORMAT: Final = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")


def test_paths() -> None:
    layout = Layout(Path("/srv/backups"))
    assert layout.where == "/srv/backups"
    assert layout.marker == Path("/srv/backups/.fullsend")
    assert layout.state == Path("/srv/backups/.state")
    assert layout.partial == Path("/srv/backups/.partial")
    assert layout.lock.parent == layout.state


def test_paths_are_those_of_the_format() -> None:
    layout = Layout(Path("STORE"))
    for path in (layout.marker, layout.state, layout.partial):
        assert path.name in FORMAT
    assert layout.marker.name == MARKER
