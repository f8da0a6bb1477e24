from __future__ import annotations

import zstandard
from tests.protocol.helpers import section, tables

from fullsend_protocol.shared import limits
from fullsend_protocol.stream.records import HEADER_SIZE as RECORD_HEADER
from fullsend_protocol.wire.frames import HEADER_SIZE

MIB = 1 << 20


def named() -> dict[str, float]:
    return {name: value for name, value in vars(limits).items() if name.isupper() and name != "MIB"}


def test_document_names_every_limit_with_its_value() -> None:
    shown = {row["name"].strip("`"): row["value"] for table in tables(section("Limits")) for row in table}
    assert {name: float(value.replace(",", "")) for name, value in shown.items()} == named()


def test_every_limit_has_a_reason_beside_it() -> None:
    """A comment `#:` right above; limits.py is where a reader looks for it."""
    source = limits.__file__ or ""
    with open(source, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for name in named():
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{name}: Final"))
        assert lines[at - 1].startswith("#:"), name


def test_what_depends_on_one_another_fits() -> None:
    assert limits.CHUNK_MAX == limits.CHUNK_MIN + limits.RECORD_PAYLOAD_MAX == 20_971_520
    assert limits.CHUNK_MIN == 4_194_304
    assert limits.CHUNK_FRAME_MAX >= limits.CHUNK_MAX + limits.CHUNK_MAX // 256  # ZSTD_COMPRESSBOUND
    assert limits.UNIDENTIFIED_MAX < limits.CONTROL_MAX
    assert 1 << limits.WINDOW_LOG_MAX <= limits.CHUNK_MAX
    assert 3 * limits.HEARTBEAT_EVERY <= limits.SILENCE
    # The outer BEGIN, its END and the first substream's BEGIN come within the first chunk: so the receiver knows
    # after it what is arriving, whatever the nvlist's length.
    assert limits.BEGIN_PAYLOAD_MAX + 3 * RECORD_HEADER < limits.CHUNK_MAX
    assert limits.DIGEST_SIZE + limits.CHUNK_FRAME_MAX + HEADER_SIZE < 1 << 32


def test_stock_zstd_reads_what_we_write() -> None:
    """`zstd -d` refuses windows beyond 128 MiB unless it is told --long."""
    parameters = zstandard.ZstdCompressionParameters.from_level(22, source_size=limits.CHUNK_MAX)
    assert parameters.window_log > limits.WINDOW_LOG_MAX  # so the bound is needed
    assert 1 << limits.WINDOW_LOG_MAX <= 128 * MIB
