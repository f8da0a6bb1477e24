"""Paths in messages."""

from __future__ import annotations

import pytest

from fullsend_protocol.dataset.entry import shown


@pytest.mark.parametrize(
    ("path", "text"), [(b"", "/"), (b"a/b", "a/b"), (b"a\n\x1b", r"a\n\x1b"), (b"\xff", r"\udcff"), (b"\\", "\\\\")]
)
def test_a_path_is_safe_for_a_terminal(path: bytes, text: str) -> None:
    assert shown(path) == text
