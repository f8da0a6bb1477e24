"""What samples of `perf` count for."""

from __future__ import annotations

from bench.samples import CRYPTO, KERNEL, KERNEL_DATA, LOOP, MEMORY, REST, THREADS, ZSTD, count, table

#: As `perf script` of Linux 6.1 prints them: process/thread, address, function (file).
LINES = """\
 12537/12537  7f25b12d0cc0 [unknown] (/usr/lib/x86_64-linux-gnu/libcrypto.so.3)
 12537/12557  7f25b12d0cc0 ZSTD_decompressSequences_bmi2 (/v/zstandard/backend_c.cpython-311-x86_64-linux-gnu.so)
 12537/12557  ffffffff8143ebc0 _copy_to_iter ([kernel.kallsyms])
 12537/12557  ffffffff8143ebc1 futex_wake ([kernel.kallsyms])
 12537/12557  ffffffff8143ebc1 exc_page_fault ([kernel.kallsyms])
 12537/12537  7f25b1d8bb75 __memmove_avx512_unaligned_erms (/usr/lib/x86_64-linux-gnu/libc.so.6)
 12537/12537  7f25b1d8bb76 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)
 12537/12537  7f25b1d8bb77 SSL_read (/usr/lib/x86_64-linux-gnu/libssl.so.3)
 12537/12537  55d0a0000000 _PyEval_EvalFrameDefault (/usr/bin/python3.11)
 12537/12537  55d0a0000001 uv__read (/v/uvloop/loop.cpython-311-x86_64-linux-gnu.so)
 12537/12557  55d0a0000000 _PyEval_EvalFrameDefault (/usr/bin/python3.11)
 99/99  55d0a0000000 main (/usr/bin/cat)

""".splitlines()


def test_each_sample_counts_for_what_was_done() -> None:
    assert count(LINES, 12537) == {
        CRYPTO: 1,
        ZSTD: 1,
        KERNEL_DATA: 1,
        KERNEL: 2,
        MEMORY: 1,
        REST: 2,
        LOOP: 2,
        THREADS: 1,
    }


def test_without_a_process_the_one_with_the_most_samples_counts() -> None:
    assert count(LINES) == count(LINES, 12537)
    assert count([]).total() == 0


def test_the_whole_is_compared_with_the_work_of_the_stages() -> None:
    found = table({"receiver": count(LINES, 12537)})
    rows = {row[0]: row[1] for row in found.rows}
    assert rows[ZSTD] == "9.1"
    assert rows["**whole, times its first four rows**"] == "2.75"  # 11 samples, of which 4
    assert rows["samples"] == "11"
