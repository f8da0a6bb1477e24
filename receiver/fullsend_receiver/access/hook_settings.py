"""What receiver.toml says about hooks: the table [hooks].

    [hooks]
    on-late = ["/usr/local/bin/notify", "mail", "--to", "admin@example.org"]
    on-success = "/usr/local/bin/notify ping https://ping.example/UUID"

A command is a list, or text that is split as a shell would split it. There is no shell: name one to get one, as in
["sh", "-c", "..."].
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from fullsend_protocol.shared.settings import CommandLine, Duration, Settings

#: The keys of the table that are hooks.
HookName = Literal["on-success", "on-failure", "on-late", "on-damage", "on-low-space", "on-prune", "on-copy"]
HOOK_NAMES: Final[tuple[HookName, ...]] = get_args(HookName)


class HookSettings(Settings):
    """The table [hooks]. None: nothing is run. Times are seconds."""

    on_success: CommandLine | None = None
    on_failure: CommandLine | None = None
    on_late: CommandLine | None = None
    on_damage: CommandLine | None = None
    on_low_space: CommandLine | None = None
    on_prune: CommandLine | None = None
    on_copy: CommandLine | None = None
    time_limit: Annotated[Duration, Field(gt=0)] = 60.0  # then all processes of the hook are killed
    retry_for: Duration = 3600.0  # a hook that fails is run again for so long, then not for this event

    def command(self, hook: HookName) -> tuple[str, ...] | None:
        """Return the command of a hook; None: there is none."""
        found: tuple[str, ...] | None = getattr(self, hook.replace("-", "_"))
        return found
