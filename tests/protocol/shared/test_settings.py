from __future__ import annotations

import contextlib
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import Duration, Portion, Settings, Share, Size, SizeOrShare, parse_settings


class Place(Settings):
    address: str
    fingerprint: str = ""


class Example(Settings):
    store: str = ""
    min_free: Size = 1 << 30
    retry_for: Duration = 3600.0
    jobs: Annotated[int, Field(ge=1)] = 1
    warn: Share = 0.5
    keep: Portion = SizeOrShare(7)
    place: Place | None = None
    receivers: dict[str, Place] = Field(default_factory=dict)


def read(text: str) -> Example:
    return parse_settings(Example, text, "example.toml")


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_keys_are_written_with_hyphens() -> None:
    found = read(
        'store = "/srv"\nmin-free = 5\nretry-for = 2\n[place]\naddress = "x"\n[receivers.nas]\naddress = "y"\n'
    )
    assert found == Example(
        store="/srv", min_free=5, retry_for=2.0, place=Place(address="x"), receivers={"nas": Place(address="y")}
    )


def test_nothing_written_is_all_defaults() -> None:
    assert read("") == Example()


@pytest.mark.parametrize(("text", "size"), [("5", 5), ('"512M"', 512 << 20), ('"1.5G"', 3 << 29), ("0", 0)])
def test_size_is_a_number_or_a_text(text: str, size: int) -> None:
    assert read(f"min-free = {text}").min_free == size


@pytest.mark.parametrize(("text", "share"), [('"5%"', 0.05), ('"0.5 %"', 0.005), ('"100%"', 1), ('"0%"', 0)])
def test_share_is_a_text_with_a_percent_sign(text: str, share: float) -> None:
    assert read(f"warn = {text}").warn == pytest.approx(share)
    assert read(f"keep = {text}").keep.share == pytest.approx(share)


def test_what_may_be_a_size_or_a_share_is_either() -> None:
    assert read("").keep.of(100) == 7
    assert read('keep = "1K"').keep.of(100) == 1024
    assert read("keep = 5").keep.of(100) == 5
    assert read('keep = "20%"').keep.of(1000) == 200


@pytest.mark.parametrize("text", ["0.5", "5", '"5"', '"101%"', '"-1%"', '"x%"', "true"])
def test_what_is_not_a_share_is_refused(text: str) -> None:
    assert "example.toml: warn: " in refusal(f"warn = {text}")


@pytest.mark.parametrize("text", ["-1", "0.5", '"101%"', '"much"', "true", "[1]"])
def test_what_is_neither_a_size_nor_a_share_is_refused(text: str) -> None:
    assert "example.toml: keep: " in refusal(f"keep = {text}")


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("0.5", 0.5), ('"15m"', 900), ('"30d"', 2_592_000)])
def test_duration_is_a_number_or_a_text(text: str, seconds: float) -> None:
    assert read(f"retry-for = {text}").retry_for == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min-fre = 5", "example.toml: unknown key 'min-fre'; did you mean 'min-free'?"),
        ("retry = 5", "example.toml: unknown key 'retry'; did you mean 'retry-for'?"),
        ("[place]\naddress = 'x'\nadress = 'y'", "unknown key 'place.adress'; did you mean 'address'?"),
        (
            "[receivers.nas]\naddress = 'x'\nfinger = 'y'",
            "unknown key 'receivers.nas.finger'; did you mean 'fingerprint'?",
        ),
        ("[plce]\naddress = 'x'", "unknown key 'plce'; did you mean 'place'?"),
        ("qqq = 1", "example.toml: unknown key 'qqq'"),
        ("'a b' = 1", "unknown key 'a b'"),
        ('"\\u001b[2J\\n" = 1', r"unknown key '\x1b[2J\n'"),
    ],
)
def test_unknown_key_is_named_with_the_nearest_right_one(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs = 0", "example.toml: jobs: Input should be greater than or equal to 1"),
        ("jobs = 'many'", "example.toml: jobs: "),
        ("store = 5", "example.toml: store: "),
        ("place = 5", "example.toml: place: "),
        ("[place]", "example.toml: place.address: Field required"),
        ("[receivers.nas]", "example.toml: receivers.nas.address: Field required"),
        ("min-free = '5X'", "example.toml: min-free: '5X' is not a size"),
        ("min-free = -1", "example.toml: min-free: Input should be greater than or equal to 0"),
        ("min-free = true", "example.toml: min-free: a number is wanted"),
        ("min-free = 1.5", "example.toml: min-free: "),
        ("min-free = inf", "example.toml: min-free: a finite number is wanted"),
        ("retry-for = '5'", "example.toml: retry-for: '5' is not a duration"),
        ("retry-for = nan", "example.toml: retry-for: a finite number is wanted"),
        ("retry-for = inf", "example.toml: retry-for: a finite number is wanted"),
        ("retry-for = -1", "example.toml: retry-for: Input should be greater than or equal to 0"),
        ("retry-for = false", "example.toml: retry-for: a number is wanted"),
        ("retry-for = 2020-01-01", "example.toml: retry-for: "),
        ("store", "example.toml: "),
        ("store = 'x", "example.toml: "),
        ("store = 'x'\nstore = 'y'", "example.toml: "),
    ],
)
def test_wrong_value_is_named_with_its_file_and_key_in_one_line(text: str, said: str) -> None:
    assert refusal(text).startswith(said)


def test_rule_over_several_keys_is_named_with_the_file() -> None:
    class Both(Settings):
        one: int = 0
        two: int = 0

        @model_validator(mode="after")
        def _rule(self) -> Both:
            if self.one and self.two:
                msg = "one or two, not both"
                raise ValueError(msg)
            return self

    with pytest.raises(UsageError, match=r"^x\.toml: one or two, not both$"):
        parse_settings(Both, "one = 1\ntwo = 2", "x.toml")


@given(st.text(max_size=100))
def test_any_text_is_a_configuration_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        read(text)
