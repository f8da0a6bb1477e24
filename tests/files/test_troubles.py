"""What is made only when it is wished, and what is named."""

from __future__ import annotations

import stat

from fullsend_files.troubles import Troubles, Wishes, permissions


def test_setuid_bits_only_when_asked() -> None:
    troubles = Troubles()
    assert permissions(stat.S_IFREG | 0o6755, Wishes(), troubles) == 0o755
    assert permissions(stat.S_IFREG | 0o6755, Wishes(setuid=True), troubles) == 0o6755
    assert permissions(stat.S_IFDIR | 0o1777, Wishes(), troubles) == 0o1777
    assert troubles.setuid == 1


def test_troubles_are_named_up_to_a_limit() -> None:
    troubles = Troubles()
    for number in range(30):
        troubles.add(b"a\n%d" % number, "why")
    assert (troubles.count, len(troubles.lines), troubles.lines[0]) == (30, 20, "a\\n0: why")
