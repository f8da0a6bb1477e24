from __future__ import annotations

import contextlib
import json
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import streams
from tests.data.load import NOTHING, fletcher
from tests.streams import Genuine

from fullsend_protocol.shared.errors import StreamError, UnsupportedStream
from fullsend_protocol.stream.records import Feature
from fullsend_protocol.stream.resume_token import ResumeToken, token_features

#: Of a full: a genuine one, of tests/data/full-part.
GENUINE = (
    "1-9e4c6ed26-b8-789c636064000310a500c4ec50360710e72765a52697303070439460caa7a515a79630c001489e0d493ea9b224b518483"
    "7b83361d55f929f5e9a99c2c050b7eb9cdb538df43c0d24794eb07c5e626e2a904ecccbd62fc849cccc73283684da050001bb1707"
)
#: As a target has it that nothing was written to yet; all flags, and a base.
TOKEN = ResumeToken(
    name="tank/data@now",
    guid=streams.GUID,
    base_guid=streams.BASE_GUID,
    object=1,
    offset=0,
    features=1 << 19 | 1 << 16 | 1 << 22 | 1 << 24,
)
U64 = st.integers(0, (1 << 64) - 1)
FEATURES = (Feature.LARGE_BLOCKS, Feature.EMBED_DATA, Feature.COMPRESSED, Feature.RAW)
TOKENS = st.builds(
    ResumeToken,
    name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
    guid=U64,
    base_guid=st.none() | st.integers(1, (1 << 64) - 1),
    object=U64,
    offset=U64,
    features=st.sets(st.sampled_from(FEATURES)).map(lambda bits: sum(1 << bit for bit in bits)),
    received=U64,
)


def resumed() -> list[tuple[Genuine, str]]:
    """The genuine resumed streams, and the tokens they were made with."""
    return [(found, found.command.split(" -t ")[1]) for found in streams.genuine() if " -t " in found.command]


def token(packed: bytes, *, version: str = "1", length: int | None = None, checksum: int | None = None) -> str:
    """A token with these bytes in it."""
    deflated = zlib.compress(packed, 6)
    if checksum is None:
        checksum = fletcher(deflated[: len(deflated) // 4 * 4], NOTHING)[0]
    return f"{version}-{checksum:x}-{len(packed) if length is None else length:x}-{deflated.hex()}"


def with_pairs(**pairs: streams.NvValue) -> str:
    said: dict[str, streams.NvValue] = {"object": 11, "offset": 0, "bytes": 5, "toguid": 7, "toname": "tank/data@now"}
    return token(streams.native(said | pairs))


def refusal(text: str) -> str:
    with pytest.raises(StreamError) as caught:
        ResumeToken.decode(text)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


# --- what it says ------------------------------------------------------------------------------------------------


def test_genuine_token_says_this() -> None:
    assert ResumeToken.decode(GENUINE) == ResumeToken(
        name="tank/plain@s1",
        guid=7955372231973845630,
        base_guid=None,
        object=11,
        offset=0,
        features=0,
        received=149376,
    )


@pytest.mark.parametrize(("stream", "text"), resumed(), ids=[stream.name for stream, _text in resumed()])
def test_genuine_token_says_what_its_stream_does_and_is_written_again_to_the_byte(stream: Genuine, text: str) -> None:
    found = ResumeToken.decode(text)
    begin = stream.begins[0]
    assert (found.name, found.guid, found.base_guid or 0) == (begin["toname"], begin["toguid"], begin["fromguid"])
    assert found.features == token_features(begin["features"])
    packed = zlib.decompress(bytes.fromhex(text.rpartition("-")[2]))
    again = found.encode()
    assert zlib.decompress(bytes.fromhex(again.rpartition("-")[2])) == packed
    if "ng" not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng deflates to other bytes, which OpenZFS takes as well
        assert again == text


def test_manifest_tells_of_no_other_token() -> None:
    manifest = (streams.ROOT / "tests" / "data" / "MANIFEST.json").read_text(encoding="utf-8")
    told = {entry["token"] for entry in json.loads(manifest) if entry.get("token")}
    assert told == {text for stream, text in resumed() if "/" not in stream.name}


def test_token_is_written_as_openzfs_packs_it() -> None:
    """The order of dsl_dataset.c. No genuine one of an increment is at hand; tests/zfs has them."""
    packed = zlib.decompress(bytes.fromhex(TOKEN.encode().rpartition("-")[2]))
    assert packed == streams.native(
        {
            "fromguid": streams.BASE_GUID,
            "object": 1,
            "offset": 0,
            "bytes": 0,
            "toguid": streams.GUID,
            "toname": "tank/data@now",
            "largeblockok": True,
            "embedok": True,
            "compressok": True,
            "rawok": True,
        }
    )


@given(TOKENS)
def test_token_comes_out_as_it_went_in(said: ResumeToken) -> None:
    assert ResumeToken.decode(said.encode()) == said


def test_order_of_the_pairs_does_not_matter_to_a_reader() -> None:
    pairs: dict[str, streams.NvValue] = {"toname": "a@b", "rawok": True, "toguid": 1, "bytes": 2, "offset": 3}
    found = ResumeToken.decode(token(streams.native(pairs | {"object": 4, "fromguid": 0})))
    assert found == ResumeToken("a@b", 1, None, 4, 3, 1 << Feature.RAW, 2)


def test_features_of_a_token_are_those_that_it_has_flags_for() -> None:
    assert token_features((1 << 62) - 1 & ~(1 << Feature.REDACTED)) == TOKEN.features
    assert token_features(1 << Feature.ZSTD | 1 << Feature.RAW) == 1 << Feature.RAW
    with pytest.raises(UnsupportedStream, match="redacted"):
        token_features(1 << Feature.REDACTED)


@pytest.mark.parametrize(
    "changed",
    [
        {"guid": 1 << 64},
        {"object": -1},
        {"offset": 1 << 64},
        {"received": -1},
        {"base_guid": 1 << 64},
        {"base_guid": 0},
        {"name": ""},
        {"name": "a\0b"},
        {"name": "ü" * 128},
        {"features": 1 << Feature.ZSTD},
    ],
)
def test_what_no_token_can_say_is_a_mistake_of_ours(changed: dict[str, int | str]) -> None:
    with pytest.raises(ValueError, match="no resume token can"):
        replace(TOKEN, **changed)  # type: ignore[arg-type]


# --- what it refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "DamagedStream: the resume token is not of the form"),
        ("-", "DamagedStream: the resume token is not of the form"),
        ("1-1-1-", "DamagedStream: the resume token is not of the form"),
        ("1-9e4c6ed26-b8-789", "DamagedStream: the resume token is not of the form"),
        (GENUINE + "\n", "DamagedStream: the resume token is not of the form"),
        (GENUINE + " 00", "DamagedStream: the resume token is not of the form"),
        ("\u0661" + GENUINE[1:], "DamagedStream: the resume token is not of the form"),
        ("1-0-0-" + "00" * 5000, "DamagedStream: the resume token is not of the form"),
        ("2" + GENUINE[1:], "UnsupportedStream: the resume token is of version 2"),
        (GENUINE[:-8], "DamagedStream: the resume token has another checksum than it says"),
        (GENUINE.replace("-9e4c6ed26-", "-9e4c6ed27-"), "DamagedStream: the resume token has another checksum"),
        (GENUINE.replace("-b8-", "-b9-"), "DamagedStream: the resume token does not inflate to the 185 bytes"),
        (GENUINE.replace("-b8-", "-b7-"), "DamagedStream: the resume token does not inflate to the 183 bytes"),
        (token(b"", checksum=0), "DamagedStream: the resume token has another checksum"),
        ("1-0-0-00", "DamagedStream: the resume token does not inflate"),
        ("1-4030201-0-01020304", "DamagedStream: the resume token does not inflate: "),
        (token(b""), "DamagedStream: the resume token does not name a place in a stream: it has no toname"),
        (token(b"\1\0\0\0garbage"), "DamagedStream: the resume token cannot be read"),
        (token(b"\2\0\0\0"), "DamagedStream: the resume token has an unknown encoding 2, 0"),
        (with_pairs(toname=7), "it has no toname, or one that cannot be"),
        (with_pairs(toname=""), "it has no toname, or one that cannot be"),
        (with_pairs(toname="x" * 256), "it has no toname, or one that cannot be"),
        (with_pairs(object="11"), "it has no object, or one that cannot be"),
        (with_pairs(offset=True), "it has no offset, or one that cannot be"),
        (with_pairs(toguid=(1, 2)), "it has no toguid, or one that cannot be"),
        (with_pairs(fromguid="x"), "it has no fromguid, or one that cannot be"),
        (token(streams.native({"toname": "a@b", "toguid": 1, "bytes": 1, "offset": 1})), "it has no object"),
        (token(streams.native({"toname": "a@b", "toguid": 1, "object": 1, "offset": 1})), "it has no bytes"),
        (with_pairs(redact_snaps=(1, 2)), "UnsupportedStream: the resume token is that of a redacted stream"),
        (with_pairs(book_redact_snaps=(1,)), "UnsupportedStream: the resume token is that of a redacted stream"),
        (with_pairs(savedok=True), "UnsupportedStream: the resume token has 'savedok', which this fullsend does not"),
    ],
)
def test_what_is_no_token_is_refused_by_name(text: str, said: str) -> None:
    assert said in refusal(text)


def test_what_follows_on_the_deflated_bytes_is_refused() -> None:
    """The checksum leaves out what is beyond a multiple of 4: here it would not tell."""
    deflated = zlib.compress(streams.native({"object": 1}), 6)
    deflated += bytes(-len(deflated) % 4) + b"\0\0\0"
    checksum = fletcher(deflated[: len(deflated) // 4 * 4], NOTHING)[0]
    assert "does not inflate to" in refusal(f"1-{checksum:x}-28-{deflated.hex()}")


@pytest.mark.parametrize("length", [5_000_000, 16 << 10, 16])
def test_little_that_inflates_to_much_takes_no_memory(length: int) -> None:
    text = token(bytes(5_000_000), length=length)
    assert len(text) > 8192
    text = token(bytes(2_000_000), length=length)
    tracemalloc.start()
    try:
        assert "does not inflate to" in refusal(text)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_list_of_more_than_16_kib_is_refused_even_if_it_is_as_long_as_it_says() -> None:
    assert "at most 16384 are allowed" in refusal(token(streams.native({"toname": "x" * 17_000})))


@given(st.text(max_size=100))
def test_any_text_is_a_token_or_a_stream_error(text: str) -> None:
    with contextlib.suppress(StreamError):
        ResumeToken.decode(text)


@given(st.binary(max_size=200))
def test_any_bytes_in_a_token_are_one_or_a_stream_error(packed: bytes) -> None:
    with contextlib.suppress(StreamError):
        ResumeToken.decode(token(packed))


@given(TOKENS, st.data())
def test_token_with_a_damaged_list_is_a_token_or_a_stream_error(said: ResumeToken, data: st.DataObject) -> None:
    packed = bytearray(zlib.decompress(bytes.fromhex(said.encode().rpartition("-")[2])))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StreamError):
        ResumeToken.decode(token(bytes(packed)))


@given(st.data())
def test_changed_character_is_noticed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GENUINE) - 3))  # the last byte is beyond what the checksum covers
    other = data.draw(st.sampled_from("0123456789abcdef-"))
    if other != GENUINE[at]:
        refusal(GENUINE[:at] + other + GENUINE[at + 1 :])
