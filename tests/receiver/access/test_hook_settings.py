from __future__ import annotations

import pytest

from fullsend_protocol.shared.errors import UsageError
from fullsend_protocol.shared.settings import parse_settings
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.access.hook_settings import HOOK_NAMES, HookSettings

HEAD = 'store = "/s"\nstore-id = "x"\n[hooks]\n'


def hooks(text: str) -> HookSettings:
    return parse_settings(ReceiverSettings, HEAD + text, "receiver.toml").hooks


def test_without_a_table_nothing_is_run() -> None:
    assert [hooks("").command(name) for name in HOOK_NAMES] == [None] * len(HOOK_NAMES)


@pytest.mark.parametrize("name", HOOK_NAMES)
def test_each_hook_is_a_key(name: str) -> None:
    found = hooks(f'{name} = ["a b", "c"]')
    assert [each for each in HOOK_NAMES if found.command(each)] == [name]


def test_a_command_is_a_list_or_text_that_is_split_without_a_shell() -> None:
    found = hooks("on-late = ['/bin/x', 'two words']\non-prune = \"/bin/x 'two words' $HOME;\"")
    assert found.command("on-late") == ("/bin/x", "two words")
    assert found.command("on-prune") == ("/bin/x", "two words", "$HOME;")


def test_times_are_durations() -> None:
    found = hooks('time-limit = "2m"\nretry-for = 0')
    assert (found.time_limit, found.retry_for) == (120, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("on-late = []", "hooks.on-late"),
        ('on-late = ""', "hooks.on-late"),
        ('on-late = "it\'s"', "hooks.on-late: No closing quotation"),
        ("on-late = 3", "hooks.on-late"),
        ("time-limit = 0", "hooks.time-limit"),
        ('on-later = "x"', "unknown key 'hooks.on-later'; did you mean 'on-late'?"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"receiver\.toml") as refused:
        hooks(text)
    assert says in str(refused.value)
