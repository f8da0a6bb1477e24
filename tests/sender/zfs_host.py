"""A ZFS host with a `zfs` that is made up, paired with a receiver that keeps what it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.fakezfs import FakeZfs
from tests.sender.peer import Keeper, partial_entry

from fullsend_sender.host.config import SenderSettings
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.push import naming
from fullsend_sender.push.job import PushJob, PushRequest, PushSummary, PushTarget
from fullsend_sender.push.run import push
from fullsend_sender.transfer.send import Pushed
from fullsend_sender.zfs.commands import Zfs
from fullsend_sender.zfs.selection import Selection
from fullsend_transport.throttle import Throttle


@dataclass
class Host:
    """A ZFS host that is paired with a receiver."""

    fake: FakeZfs
    keeper: Keeper
    endpoint: Endpoint
    identity: Identity
    pushed: list[Pushed] = field(default_factory=list)

    @property
    def receiver(self) -> str:
        return naming.receiver_id(self.endpoint.fingerprint)

    def job(self, *names: str, **options: Any) -> PushJob:
        recursive, exclude = options.pop("recursive", False), tuple(options.pop("exclude", ()))
        settings = SenderSettings(progress="never", **options.pop("settings", {}))
        throttle = options.pop("throttle", Throttle.limited(settings.bwlimit))
        targets = []
        for name in names:
            dataset, _, snapshot = name.partition("@")
            targets.append(PushTarget(Selection((dataset,), recursive, exclude), snapshot or None))
        request = PushRequest(tuple(targets), **options)
        return PushJob(
            request, settings, self.endpoint, self.identity, Zfs((self.fake.program,)), throttle, str(self.fake.folder)
        )

    async def push(self, *names: str, **options: Any) -> PushSummary:
        self.pushed.clear()
        self.fake.forget_commands()
        return await push(self.job(*names, **options), self.pushed.append)

    def kinds(self) -> list[tuple[str, str]]:
        return [(each.receipt.dataset, each.receipt.kind) for each in self.pushed]

    def ran(self, what: str) -> list[str]:
        return [line for line in self.fake.commands if line.startswith(what)]

    def begun(self, *, own: bool = False, **changed: Any) -> None:
        """tank/a@mon has arrived in part, says the receiver. `own`: under the name that is said, since it is ours."""
        name = changed["snapshot"] if own else "mon"
        self.fake.create("tank/a")
        self.fake.snapshot(f"tank/a@{name}")
        self.fake.change("tank/a")
        guid = self.fake.edit(lambda state: state["datasets"]["tank/a"]["snapshots"][0]["guid"])
        said = {"dataset": "tank/a", "snapshot": name, "guid": guid, "flags": "p", "resume_offset": None}
        self.keeper.partials = [partial_entry(**{**said, **changed})]
