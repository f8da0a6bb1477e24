"""Memory that is free goes back to the system, whichever thread had it."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

#: Sixteen threads take and free 16 MiB each, one after another; what is held afterwards is printed, in MiB.
_PROGRAM: Final = """
import gc, re, sys, threading
from pathlib import Path
from fullsend_receiver.memory import return_freed_memory

def held():
    return int(re.findall(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[0]) >> 10

def work():
    for _ in range(3):
        block = bytearray(16 << 20)
        small = [bytes(1000) for _ in range(1000)]
        del block

if sys.argv[1] == "on":
    return_freed_memory()
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


def test_large_blocks_go_back_at_once() -> None:
    assert held_after("on") < 64  # of 256 and more
