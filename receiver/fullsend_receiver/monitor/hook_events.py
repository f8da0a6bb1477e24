"""Which hook is run for an event. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fullsend_receiver.access.hook_settings import HookName
from fullsend_receiver.events import records
from fullsend_receiver.monitor.overview import AlarmCode

#: For each alarm, when it begins and when it ends. An alarm that fits no other hook is a failure.
HOOK_OF_ALARM: Final[Mapping[AlarmCode, HookName]] = {
    "late": "on-late",
    "gone": "on-late",
    "shrunk": "on-failure",
    "grown": "on-failure",
    "damage": "on-damage",
    "unread": "on-damage",
    "scrub-behind": "on-failure",
    "scrub-stopped": "on-damage",
    "low-space": "on-low-space",
    "refusing": "on-low-space",
    "prune": "on-failure",
    "drill": "on-failure",
    "copy": "on-failure",
    "clock": "on-failure",
}

#: For each event that is no alarm. What an alarm says as well has none of its own here: nobody is told twice.
HOOK_OF_EVENT: Final[dict[str, HookName]] = {
    records.ReceivedStream.name: "on-success",
    records.UnchangedReported.name: "on-success",
    records.PushFailed.name: "on-failure",
    records.ProofDiffers.name: "on-damage",
    records.SetAside.name: "on-damage",
    records.StoreAway.name: "on-failure",
    records.StoreBack.name: "on-failure",
    records.DaemonSilent.name: "on-failure",
    records.DaemonAnswers.name: "on-failure",
    records.EventsLost.name: "on-failure",
    records.PruneFinished.name: "on-prune",
    records.StreamsMerged.name: "on-prune",
    records.CopyFinished.name: "on-copy",
}

#: Codes of a failed push for which no hook is run. The sender resumes after a lost connection, and after a restart; if
#: it does not, the alarm `late` says so. A stream that is busy is arriving on another connection.
_PASSING: Final = frozenset({"lost", "busy", "shutdown"})
_ALARMS: Final = frozenset({records.AlarmRaised.name, records.AlarmCleared.name})


def hook_of(facts: Mapping[str, object]) -> HookName | None:
    """Return the hook for an event, as a line of the event journal; None: there is none."""
    name = facts.get("event")
    if name in _ALARMS:
        code = facts.get("code")
        return next((hook for each, hook in HOOK_OF_ALARM.items() if each == code), "on-failure")  # of a later version
    if name == records.PushFailed.name and facts.get("code") in _PASSING:
        return None
    return HOOK_OF_EVENT.get(str(name))
