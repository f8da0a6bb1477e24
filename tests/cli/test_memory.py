"""Memory that is free goes back to the system, whichever thread had it."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Final

from fullsend_cli.memory import keep_objects, trim

#: Sixteen threads take and free 16 MiB each, one after another; what is held afterwards is printed, in MiB.
_PROGRAM: Final = """
import gc, re, sys, threading
from pathlib import Path
from fullsend_cli.memory import keep_blocks

def held():
    return int(re.findall(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[0]) >> 10

def work():
    for _ in range(3):
        block = bytearray(16 << 20)
        small = [bytes(1000) for _ in range(1000)]
        del block

if sys.argv[1] == "on":
    keep_blocks(8 << 20, 64 << 20)
before = held()
stay = threading.Event()
threads = []
for _ in range(16):
    done = threading.Event()
    thread = threading.Thread(target=lambda done=done: (work(), done.set(), stay.wait()))
    thread.start()
    done.wait()
    threads.append(thread)
print(held() - before)
stay.set()
"""


def held_after(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, setting], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_blocks_beyond_the_size_go_back_at_once() -> None:
    assert held_after("on") < 64  # of 256 and more


def test_what_is_free_is_given_back_when_it_is_asked_for() -> None:
    blocks = [bytes(100_000) for _ in range(100)]
    blocks.clear()
    trim()  # raises nothing, on any C library


class Node:
    """May be in a cycle."""

    def __init__(self) -> None:
        self.other: object = None


def in_a_cycle() -> tuple[Node, weakref.ref[Node]]:
    node = Node()
    node.other = node
    return node, weakref.ref(node)


def test_what_is_kept_is_not_searched_and_garbage_is_not_kept() -> None:
    kept, reference = in_a_cycle()
    node, garbage = in_a_cycle()
    del node
    try:
        keep_objects()
        assert garbage() is None
        del kept
        gc.collect()
        assert reference() is not None
    finally:
        gc.unfreeze()
    gc.collect()
    assert reference() is None
