from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fullsend_protocol.shared.addresses import join_address
from fullsend_protocol.shared.errors import UsageError
from fullsend_sender.host import config
from fullsend_sender.host.config import ReceiverTable, SenderSettings, load, with_receiver
from fullsend_sender.host.options import FullAfter
from fullsend_sender.zfs.selection import Selection

PIN = "a1" * 32
NAS = ReceiverTable(address="nas.example:7433", fingerprint=PIN, sender="alpha")
TABLE = f"""\
[receivers.nas]
address = "nas.example:7433"
fingerprint = "{PIN}"
sender = "alpha"
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "sender.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("nas:7433", "nas", 7433), ("192.0.2.1:1", "192.0.2.1", 1), ("[2001:db8::1]:65535", "2001:db8::1", 65535)],
)
def test_addresses_both_ways(address: str, host: str, port: int) -> None:
    assert config.split_address(address) == (host, port)
    assert join_address(host, port) == address


@pytest.mark.parametrize(
    "address", ["nas", "nas:", ":7433", "nas:0", "nas:65536", "nas:-1", "2001:db8::1:7433", "[nas]:1"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        config.split_address(address)


# --- loading ---------------------------------------------------------------------------------------------------


def test_defaults(tmp_path: Path) -> None:
    settings = load(write(tmp_path, TABLE), {}, {})
    assert (settings.send_options(None).level, settings.threads, settings.bwlimit, settings.log_format) == (
        "auto",
        None,
        None,
        "text",
    )
    endpoint = settings.endpoint()
    assert (endpoint.name, endpoint.host, endpoint.port, endpoint.fingerprint) == ("nas", "nas.example", 7433, PIN)
    assert endpoint.place == "nas (nas.example:7433)"


def test_receiver_with_several_addresses(tmp_path: Path) -> None:
    several = TABLE.replace('"nas.example:7433"', '["nas.example:7433", "[::1]:1"]')
    assert several != TABLE
    endpoint = load(write(tmp_path, several), {}, {}).endpoint()
    assert (endpoint.host, endpoint.port, endpoint.others) == ("nas.example", 7433, (("::1", 1),))
    for wrong in ("[]", '["nas"]', "[" + '"x:1",' * 9 + "]"):
        with pytest.raises(UsageError, match="address"):
            load(write(tmp_path, TABLE.replace('"nas.example:7433"', wrong)), {}, {})


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + TABLE)
    assert load(path, {}, {}).endpoint().name == "nas"
    assert config.read_text(path) == TABLE


def test_command_line_before_environment_before_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'level = 5\nbwlimit = "1M"\nthreads = 2\nlog-format = "json"\n' + TABLE)
    environ = {"FULLSEND_LEVEL": "7", "FULLSEND_BWLIMIT": "2M", "FULLSEND_CONFIG": "elsewhere", "LEVEL": "9"}
    settings = load(path, environ, {"level": 9, "bwlimit": None, "no such setting": 1})
    assert (settings.level, settings.bwlimit, settings.threads, settings.log_format) == (9, 2 << 20, 2, "json")


@pytest.mark.parametrize("level", ["auto", "-7", "0", "22"])
def test_levels(tmp_path: Path, level: str) -> None:
    expected = level if level == "auto" else int(level)
    assert load(write(tmp_path, TABLE), {}, {"level": level}).level == expected
    assert load(write(tmp_path, TABLE), {"FULLSEND_LEVEL": level}, {}).level == expected
    assert load(write(tmp_path, f"level = {expected!r}\n" + TABLE), {}, {}).level == expected


@pytest.mark.parametrize(
    ("environ", "arguments", "message"),
    [
        ({"FULLSEND_LEVEL": "high"}, {}, "FULLSEND_LEVEL: 'high' is not a level of zstd: -7 to 22, or auto"),
        ({"FULLSEND_BWLIMIT": "fast"}, {}, "FULLSEND_BWLIMIT: 'fast' is not a size"),
        ({}, {"level": "23"}, "--level: '23' is not a level of zstd: -7 to 22, or auto"),
        ({}, {"level": True}, "--level: True is not a level"),
        ({}, {"log_format": "xml"}, "--log-format: "),
        ({"FULLSEND_RAW": "1", "FULLSEND_DECRYPT": "1"}, {}, "FULLSEND_RAW: raw and decrypt exclude each other"),
    ],
)
def test_wrong_values_are_named(
    tmp_path: Path, environ: dict[str, str], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(write(tmp_path, TABLE), environ, arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("levle = 3", "sender.toml: unknown key 'levle'; did you mean 'level'"),
        ("[receivers.nas]\naddress = 'nas:1'\nsender = 'a'", "receivers.nas.fingerprint: Field required"),
        (TABLE.replace("address", "adress"), "adress"),
        (TABLE.replace(":7433", ""), "receivers.nas.address: 'nas.example' is not HOST:PORT"),
        (TABLE.replace("alpha", "Alpha"), "receivers.nas.sender"),
        (TABLE.replace("a1a1", "zz"), "receivers.nas.fingerprint"),
        ("level = ", "sender.toml: Invalid value"),
        ("raw = true\ndecrypt = true", "sender.toml: raw and decrypt exclude each other: set one of them here"),
        ("[datasets.a]\nraw = true\ndecrypt = true", "sender.toml: datasets.a: raw and decrypt exclude each other"),
    ],
)
def test_wrong_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path, text), {}, {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none.toml is missing: make it with `fullsend join INVITATION`"):
        load(str(tmp_path / "none.toml"), {}, {})


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(UsageError, match="it is not UTF-8"):
        load(str(tmp_path / "latin.toml"), {}, {})
    with pytest.raises(UsageError, match="Is a directory"):
        load(str(tmp_path), {}, {})


# --- which receiver --------------------------------------------------------------------------------------------


def test_choosing_a_receiver() -> None:
    none = SenderSettings()
    two = SenderSettings(receivers={"nas": NAS, "far": NAS})
    with pytest.raises(UsageError, match="no receiver is configured: run `fullsend join"):
        none.endpoint()
    with pytest.raises(UsageError, match=r"several receivers are configured \(far, nas\): choose one with --receiver"):
        two.endpoint()
    with pytest.raises(UsageError, match="no receiver 'x' is configured: there are far, nas"):
        two.endpoint("x")
    assert two.endpoint("far").name == "far"
    assert two.model_copy(update={"receiver": "nas"}).endpoint().name == "nas"
    one = SenderSettings(receivers={"nas": NAS})
    assert [each.receiver_name() for each in (none, two, one, two.model_copy(update={"receiver": "far"}))] == [
        *(None, None, "nas", "far")
    ]
    assert [each.receiver_name("x") for each in (none, two, one)] == ["x", "x", "x"]


def test_a_choice_is_no_default(tmp_path: Path) -> None:
    path = write(tmp_path, f'receiver = "nas"\n{TABLE}')
    assert load(path, {}, {"level": 9}).chosen_receiver is None
    assert load(path, {"FULLSEND_RECEIVER": "far"}, {"level": 9}).chosen_receiver == "far"
    assert load(path, {"FULLSEND_RECEIVER": "far"}, {"receiver": "nas"}).chosen_receiver == "nas"
    assert load(path, {"FULLSEND_RECEIVER": ""}, {}).chosen_receiver is None


@pytest.mark.parametrize(
    ("default", "pushed_to", "watched"),
    [
        (None, [], ["nas", "far"]),  # nobody says which
        ("nas", [], ["nas"]),
        ("nas", [None, "far"], ["nas", "far"]),
        ("far", ["nas"], ["nas", "far"]),
        (None, ["far"], ["far"]),
        (None, ["far", None], ["nas", "far"]),  # the second may mean any
        ("nas", ["misspelt", "far"], ["nas", "far", "misspelt"]),
    ],
)
def test_which_receivers_answer_for_the_backups(
    tmp_path: Path, default: str | None, pushed_to: list[str | None], watched: list[str]
) -> None:
    top = f'receiver = "{default}"\n' if default else ""
    tables = [f'[[push]]\ndatasets = ["tank"]\n{f"receiver = {name!r}" if name else ""}\n' for name in pushed_to]
    path = write(tmp_path, f"{top}{TABLE}{TABLE.replace('nas', 'far')}{''.join(tables)}")
    assert load(path, {}, {}).watched() == watched
    assert load(path, {}, {"receiver": "far"}).watched() == ["far"]


def test_without_a_receiver_nothing_can_be_watched() -> None:
    with pytest.raises(UsageError, match="no receiver is configured: run `fullsend join"):
        SenderSettings().watched()


def test_when_a_chain_is_too_long(tmp_path: Path) -> None:
    text = """
full-after = { age = "90d" }
[[push]]
datasets = ["tank/vm/*"]
full-after = { streams = 30, increments = 1.5 }
[datasets."tank/vm/kept"]
full-after = {}
"""
    settings = load(write(tmp_path, text + TABLE), {"FULLSEND_LEVEL": "5"}, {"threads": 1})
    table = settings.push[0]
    assert settings.send_options("tank/home").full_after == FullAfter(age=90 * 86400.0)
    assert settings.send_options("tank/vm/one", table).full_after == FullAfter(streams=30, increments=1.5)
    assert settings.send_options("tank/vm/kept", table).full_after == FullAfter()  # never
    for wrong in ("streams = 0", "increments = 0", 'age = "soon"', "nights = 3"):
        with pytest.raises(UsageError, match="full-after"):
            load(write(tmp_path, f"full-after = {{ {wrong} }}\n{TABLE}"), {}, {})


@pytest.mark.parametrize(
    ("text", "environ", "arguments", "wins"),
    [
        ("decrypt = true", {}, {}, "decrypt"),
        ("decrypt = true", {}, {"raw": True}, "raw"),
        ("decrypt = true", {"FULLSEND_RAW": "true"}, {}, "raw"),
        ("", {"FULLSEND_DECRYPT": "true"}, {"raw": True}, "raw"),
        ("", {"FULLSEND_RAW": "true"}, {"decrypt": True}, "decrypt"),
        ("raw = true", {}, {"decrypt": True}, "decrypt"),
        ("decrypt = true\n[datasets.'tank/*']\nraw = true", {}, {}, "raw"),
        ("decrypt = true\n[datasets.'tank/*']\nraw = true", {}, {"decrypt": True}, "decrypt"),
        ("raw = true\n[datasets.'tank/*']\ndecrypt = true", {}, {}, "decrypt"),
        ("[datasets.'tank/*']\ndecrypt = true\n[datasets.'tank/secret']\nraw = true", {}, {}, "raw"),
        ("decrypt = true\n[datasets.'tank/*']\nraw = false", {}, {}, "decrypt"),
        ("decrypt = true\n[datasets.'tank/*']\nlevel = 3", {}, {"level": 9}, "decrypt"),
    ],
)
def test_the_narrowest_place_decides_whether_an_encrypted_dataset_leaves_in_the_clear(
    tmp_path: Path, text: str, environ: dict[str, str], arguments: dict[str, object], wins: str
) -> None:
    """`decrypt` won over `raw` wherever it stood, so `push -w` sent plain text."""
    options = load(write(tmp_path, f"{text}\n{TABLE}"), environ, arguments).send_options("tank/secret")
    assert (options.raw, options.decrypt) == (wins == "raw", wins == "decrypt")


def test_a_table_of_pushes_ends_what_a_wider_place_says(tmp_path: Path) -> None:
    table = "decrypt = true\n[[push]]\ndatasets = ['tank']\nraw = true\n"
    settings = load(write(tmp_path, table + TABLE), {}, {})
    options = settings.send_options("tank", settings.push[0])
    assert (options.raw, options.decrypt) == (True, False)
    assert settings.send_options("tank").decrypt


def test_which_tables_are_pushed_to_a_receiver() -> None:
    named, open_ = {"datasets": ["tank/a"], "receiver": "nas"}, {"datasets": ["tank/b"], "exclude": ["tank/b/c"]}
    settings = SenderSettings.model_validate({"push": [named, open_]})
    assert settings.tables_for("nas") == settings.push
    assert settings.tables_for("other") == settings.push[1:]
    settings = SenderSettings.model_validate({"push": [named, open_], "receiver": "other"})
    assert settings.tables_for("nas") == settings.push[:1]
    assert settings.push[1].selection == Selection(("tank/b",), exclude=("tank/b/c",))


def test_the_scratch_place_of_drills_is_left_out_of_pushes(tmp_path: Path) -> None:
    tables = [{"datasets": ["tank"], "recursive": True}, {"datasets": ["tank/drill"]}, {"datasets": ["**"]}]
    settings = SenderSettings.model_validate({"push": tables, "drill-into": "tank/drill"})
    scratch = "tank/drill/fullsend-drill-0123456789abcdef"
    names = ["tank", "tank/a", "tank/drill", scratch, f"{scratch}/restored", "tank/drills"]
    every, named, pattern = (table.selection.choose(names) for table in settings.push)
    assert every == pattern == ["tank", "tank/a", "tank/drills"]
    assert named == ["tank/drill"]  # who names it means it
    # Whatever is read over it.
    text = f'drill-into = "tank/drill"\n[[push]]\ndatasets = ["tank"]\nrecursive = true\n{TABLE}'
    settings = load(write(tmp_path, text), {"FULLSEND_LEVEL": "5"}, {"drill_into": "tank/other"})
    assert settings.push[0].selection.choose([*names, "tank/other"]) == ["tank", "tank/a", "tank/drill", "tank/drills"]


@pytest.mark.parametrize("datasets", [["rpool/home", "tank/home"], ["**"], ["tank/*", "rpool/home"]])
def test_what_is_below_the_place_of_drills_is_pushed(datasets: list[str]) -> None:
    """drill-into = "tank" is natural, and ended the backup of the whole pool."""
    settings = SenderSettings.model_validate({"push": [{"datasets": datasets}], "drill-into": "tank"})
    names = ["rpool/home", "tank", "tank/fullsend-drill-0123456789abcdef", "tank/home"]
    assert settings.push[0].selection.choose(names) == ["rpool/home", "tank/home"]


# --- adding a receiver -----------------------------------------------------------------------------------------


def test_first_receiver() -> None:
    assert with_receiver("", "nas", NAS, "f") == TABLE


def test_second_receiver_leaves_all_else_as_it_is() -> None:
    before = "# mine\nlevel=5 # fast\n\n" + TABLE
    after = with_receiver(before, "far", NAS, "f")
    assert after == before + "\n" + TABLE.replace("nas]", "far]")


def test_same_receiver_is_replaced_in_its_place() -> None:
    new = NAS.model_copy(update={"sender": "beta"})
    before = (
        f"# top\n{TABLE}\n# about the next\n[receivers.far]\naddress = 'f:1'\nfingerprint = '{PIN}'\nsender = 'a'\n"
    )
    after = with_receiver(before, "nas", new, "f")
    assert after == before.replace('"alpha"', '"beta"')


@pytest.mark.parametrize("header", ['[receivers."nas"]', "[ receivers . 'nas' ]  # mine", "  [receivers.nas]"])
def test_same_receiver_is_found_however_it_is_written(header: str) -> None:
    after = with_receiver(TABLE.replace("[receivers.nas]", header), "nas", NAS, "f")
    assert after == TABLE


def test_what_cannot_be_extended_is_refused_with_the_lines_to_add() -> None:
    inline = f'receivers = {{ far = {{ address = "f:1", fingerprint = "{PIN}", sender = "a" }} }}\n'
    with pytest.raises(UsageError, match=r"please add these lines: \[receivers.nas\] / address = "):
        with_receiver(inline, "nas", NAS, "f")


def test_file_without_a_newline_at_its_end() -> None:
    after = with_receiver("level = 5", "nas", NAS, "f")
    assert tomllib.loads(after)["level"] == 5


@pytest.mark.parametrize("name", ["", "a b", "a.b", "é", "a]"])
def test_names_that_would_need_quotes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a receiver"):
        config.check_receiver_name(name)


def test_plain_names_are_taken() -> None:
    assert config.check_receiver_name("Nas_2-b") == "Nas_2-b"


def test_how_long_a_receiver_may_stay_away(tmp_path: Path) -> None:
    assert load(write(tmp_path, TABLE), {}, {}).retry_for == 3600
    path = write(tmp_path, 'retry-for = "2h"\n' + TABLE)
    assert load(path, {}, {}).retry_for == 7200
    assert load(path, {"FULLSEND_RETRY_FOR": "90s"}, {}).retry_for == 90
    assert load(path, {"FULLSEND_RETRY_FOR": "90s"}, {"retry_for": "0s"}).retry_for == 0
    with pytest.raises(UsageError, match=r"retry.for"):
        load(path, {}, {"retry_for": "soon"})
