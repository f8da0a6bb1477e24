from __future__ import annotations

import threading

import pytest

from fullsend_protocol.shared import limits
from fullsend_sender.transfer.buffers import FIRST, LARGEST, STEP, Buffers
from fullsend_sender.transfer.pipes import PipeStopped


def test_the_largest_chunk_fits_into_the_largest_buffer() -> None:
    assert LARGEST >= limits.CHUNK_MAX
    buffers = Buffers(LARGEST)
    buffer = buffers.take()
    while buffer.capacity < limits.CHUNK_MAX:
        buffers.grow(buffer)
    assert buffer.capacity == LARGEST == buffers.used


def test_a_limit_below_the_largest_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match=str(LARGEST - 1)):
        Buffers(LARGEST - 1)


def test_growing_keeps_the_bytes() -> None:
    buffers = Buffers(LARGEST)
    buffer = buffers.take()
    buffer.view[:5] = b"bytes"
    buffers.grow(buffer)
    assert bytes(buffer.view[:5]) == b"bytes"
    assert buffer.capacity == len(buffer.view) == FIRST + STEP


def test_only_buffers_of_the_usual_size_are_used_again_and_few() -> None:
    buffers = Buffers(10 * FIRST)
    grown, *usual = [buffers.take() for _ in range(4)]
    buffers.grow(grown)
    buffers.recycle(grown)
    for buffer in usual:
        buffers.recycle(buffer)
    again = [buffers.take() for _ in range(3)]
    assert sum(any(buffer is old for old in usual) for buffer in again) == 2
    assert all(buffer is not grown for buffer in again)


def test_who_wants_more_than_there_is_waits_for_a_release() -> None:
    buffers = Buffers(4 * FIRST)
    taken = [buffers.take() for _ in range(4)]
    got = threading.Event()

    def take() -> None:
        buffers.take()
        got.set()

    thread = threading.Thread(target=take)
    thread.start()
    buffers.recycle(taken[0])
    assert not got.wait(0.05)  # recycled is not released
    buffers.release(FIRST)
    assert got.wait(10)
    thread.join()
    assert buffers.used == 4 * FIRST


def test_stop_ends_waiting_now_and_later() -> None:
    buffers = Buffers(4 * FIRST)
    for _ in range(4):
        last = buffers.take()
    stopped = []

    def wait() -> None:
        with pytest.raises(PipeStopped):
            buffers.grow(last)
        stopped.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    buffers.stop()
    thread.join(10)
    assert stopped
    buffers.release(FIRST)
    with pytest.raises(PipeStopped):
        buffers.take()
