from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fullsend_sender.transfer.pipes import PIPE_SIZE, PipeStopped, Sink, Source


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


def close(pipe: list[int], end: int) -> None:
    os.close(pipe[end])
    pipe[end] = -1


def test_source_reads_what_is_there_and_the_end(pipe: list[int]) -> None:
    source = Source(pipe[0])
    view = memoryview(bytearray(100))
    os.write(pipe[1], b"stream")
    assert source.readinto(view) == 6
    assert bytes(view[:6]) == b"stream"
    close(pipe, 1)
    assert source.readinto(view) == 0
    source.close()


def test_source_of_a_non_blocking_descriptor_waits(pipe: list[int]) -> None:
    os.set_blocking(pipe[0], False)
    source = Source(pipe[0])
    timer = threading.Timer(0.05, os.write, (pipe[1], b"late"))
    timer.start()
    assert source.readinto(memoryview(bytearray(100))) == 4
    timer.join()
    source.close()


def test_source_drains(pipe: list[int]) -> None:
    source = Source(pipe[0])
    os.write(pipe[1], bytes(50_000))
    close(pipe, 1)
    assert source.drain() == 50_000
    source.close()


def test_source_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 * PIPE_SIZE))
    with (tmp_path / "file").open("rb") as file:
        source = Source(file.fileno())
        assert source.drain() == 3 * PIPE_SIZE
        source.close()


def test_a_blocked_source_is_stopped(pipe: list[int]) -> None:
    source = Source(pipe[0])
    stopped = []

    def read() -> None:
        with pytest.raises(PipeStopped):
            source.readinto(memoryview(bytearray(100)))
        stopped.append(True)

    thread = threading.Thread(target=read)
    thread.start()
    source.stop()
    thread.join(10)
    assert stopped
    os.write(pipe[1], b"data")
    with pytest.raises(PipeStopped):
        source.readinto(memoryview(bytearray(100)))
    source.close()


def test_source_that_cannot_be_read(pipe: list[int]) -> None:
    source = Source(pipe[1])
    with pytest.raises(OSError, match="Bad file descriptor"):
        source.readinto(memoryview(bytearray(100)))
    source.close()


def test_sink_that_cannot_be_written(pipe: list[int]) -> None:
    sink = Sink(pipe[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        sink.write(b"data")
    sink.close()


def test_sink_writes_more_than_a_pipe_holds(pipe: list[int]) -> None:
    sink = Sink(pipe[1])
    got = bytearray()

    def read() -> None:
        while part := os.read(pipe[0], 1 << 16):
            got.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    data = os.urandom(3 * PIPE_SIZE + 5)
    sink.write(data)
    sink.close()
    close(pipe, 1)
    thread.join()
    assert got == data


def test_sink_leaves_the_mode_of_a_shared_descriptor_alone(pipe: list[int]) -> None:
    sink = Sink(pipe[1])
    assert os.get_blocking(pipe[1])
    sink.close()


def test_a_blocked_sink_is_stopped(pipe: list[int]) -> None:
    sink = Sink(pipe[1])
    stopped = []

    def write() -> None:
        with pytest.raises(PipeStopped):
            sink.write(bytes(10 * PIPE_SIZE))
        stopped.append(True)

    thread = threading.Thread(target=write)
    thread.start()
    os.read(pipe[0], 1)  # it is under way
    sink.stop()
    thread.join(10)
    assert stopped
    sink.close()


def test_sink_without_a_reader(pipe: list[int]) -> None:
    sink = Sink(pipe[1])
    close(pipe, 0)
    with pytest.raises(BrokenPipeError):
        sink.write(b"data")
    sink.close()


def test_sink_appends_to_a_file_where_the_descriptor_stands(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"before ")
        sink = Sink(file.fileno())
        sink.write(b"and after")
        sink.close()
    assert (tmp_path / "file").read_bytes() == b"before and after"


def test_sink_of_a_socket_is_stopped_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = Sink(ours.fileno())
        stopped = []

        def write() -> None:
            with pytest.raises(PipeStopped):
                sink.write(bytes(10 * PIPE_SIZE))
            stopped.append(True)

        thread = threading.Thread(target=write)
        thread.start()
        theirs.recv(1)
        sink.stop()
        thread.join(10)
        assert stopped
        sink.close()


def test_sink_where_a_pipe_cannot_be_opened_anew(pipe: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(path)

    monkeypatch.setattr(os, "open", refuse)
    sink = Sink(pipe[1])
    sink.write(bytes(10_000))
    assert len(os.read(pipe[0], 20_000)) == 10_000
    sink.close()
