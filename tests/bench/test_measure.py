from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.measure import OBJECT_STORE, Child, ChildError, Cores, Measurement, new_peak, on_core, transfer, written


def where() -> list[str]:
    return [sys.executable, "-c", "import os; print(*sorted(os.sched_getaffinity(0)))"]


def test_what_is_started_on_a_core_stays_there_and_this_process_does_not() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    with on_core(core):
        found = subprocess.run(["sh", "-c", '"$@"', "sh", *where()], stdout=subprocess.PIPE, check=True).stdout
    assert found.split() == [str(core).encode()]
    assert os.sched_getaffinity(0) == before


def test_no_core_is_all_of_them() -> None:
    before = os.sched_getaffinity(0)
    with on_core(None):
        assert os.sched_getaffinity(0) == before


def test_each_end_of_a_transfer_runs_on_its_core(tmp_path: Path) -> None:
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    told = ["sh", "-c", '"$@" >told', "sh", *where()]
    _run, output = transfer(where(), told, cwd=tmp_path, cores=Cores(first, last))
    assert output.split() == [str(first).encode()]
    assert (tmp_path / "told").read_text(encoding="ascii").split() == [str(last)]


def test_a_program_may_feed_the_pipe() -> None:
    child = Child(["cat"], source=["echo", "fed"])
    child.wait()
    assert child.output == b"fed\n"


def test_a_peak_begins_anew_when_it_is_read() -> None:
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    peak = new_peak(os.getpid())
    del held
    new_peak(os.getpid())  # the mark began anew while the memory was still held
    assert new_peak(os.getpid()) < peak - (32 << 20)


def test_written_bytes_of_a_process_count_and_a_gone_one_has_none() -> None:
    before = written(os.getpid())
    with open(os.devnull, "wb", buffering=0) as file:
        file.write(bytes(1000))
    assert written(os.getpid()) >= before + 1000
    child = Child(["true"])
    child.wait()
    assert written(child.pid) == 0


def test_what_an_object_store_takes_counts_for_neither_end_nor_for_others() -> None:
    with Measurement({OBJECT_STORE: [os.getpid()]}) as measured:
        measured.child(["true"])
        measured.cpu[OBJECT_STORE] = 1000.0
    run = measured.run()
    assert run.cost(OBJECT_STORE).cpu == 1000.0
    assert (run.storage.cpu, run.others) == (0.0, 0.0)


def test_a_process_that_fails_tells_its_exit_code() -> None:
    child = Child(["sh", "-c", "exit 75"])
    with pytest.raises(ChildError) as failed:
        child.wait()
    assert failed.value.code == 75
