from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakezfs import FakeZfs
from tests.programs import free_port
from tests.sender.peer import Peer, receiving

from fullsend_protocol.shared.exit_codes import Exit
from fullsend_protocol.wire import messages
from fullsend_protocol.wire.connection import ConnectionEnded
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint
from fullsend_sender.monitor.check import Finding, check

Configure = Callable[..., str]


@pytest.fixture
def configure(tmp_path: Path, identity: Identity) -> Configure:
    """Write a configuration with these receivers, and our key and certificate beside it."""

    def write(*endpoints: Endpoint, more: str = "", keys: bool = True) -> str:
        tables = [
            f'[receivers.{e.name}]\naddress = "{e.host}:{e.port}"\nfingerprint = "{e.fingerprint}"\nsender = "alpha"\n'
            for e in endpoints
        ]
        (tmp_path / "sender.toml").write_text(more + "".join(tables), encoding="utf-8")
        if keys:
            shutil.copy(identity.key, tmp_path)
            shutil.copy(identity.certificate, tmp_path)
        return str(tmp_path / "sender.toml")

    return write


async def findings(config: str, **arguments: object) -> list[Finding]:
    return [found async for found in check(config, {}, arguments)]


def healthy(*problems: str) -> Callable[[Peer], object]:
    async def script(peer: Peer) -> None:
        await peer.greet()
        assert isinstance(await peer.hear(), messages.Check)
        await peer.say(messages.Health(program="fullsendd test", free_bytes=5 << 30, problems=list(problems)))
        said = await peer.hear()
        if isinstance(said, messages.BasesWanted):  # where the configuration says what to push
            await peer.say(messages.Done())
            said = await peer.hear()
        assert isinstance(said, ConnectionEnded)

    return script


async def test_all_is_well(configure: Configure, receiver_identity: Identity) -> None:
    async with receiving(receiver_identity, healthy()) as receiver:  # type: ignore[arg-type]
        config = configure(receiver.endpoint)
        found = await findings(config)
    assert {finding.outcome for finding in found} == {Exit.OK}
    lines = [finding.line() for finding in found]
    assert lines[0] == f"ok      configuration: {config}, receivers: nas"
    assert lines[1].startswith("ok      compression: level auto, ")
    assert lines[-1] == "ok      nas: 5.0 GiB free"
    assert found[-1].to_dict() == {"check": "nas", "ok": True, "warning": False, "detail": "5.0 GiB free"}


async def test_problems_of_the_receiver(configure: Configure, receiver_identity: Identity) -> None:
    async with receiving(receiver_identity, healthy("disk is failing\n")) as receiver:  # type: ignore[arg-type]
        found = await findings(configure(receiver.endpoint))
    assert (found[-1].outcome, found[-1].line()) == (Exit.FAILED, r"problem nas: disk is failing\n")


async def test_every_receiver_is_looked_at_and_one_if_chosen(configure: Configure) -> None:
    away = [Endpoint(name, "127.0.0.1", free_port(), "00" * 32) for name in ("one", "two")]
    config = configure(*away)
    found = await findings(config)
    assert [(f.what, f.outcome) for f in found[-2:]] == [("one", Exit.UNREACHABLE), ("two", Exit.UNREACHABLE)]
    found = await findings(config, receiver="two")
    assert [f.what for f in found if f.outcome] == ["two"]


async def test_a_default_in_the_file_is_not_a_choice(configure: Configure) -> None:
    """`check` looked at the default receiver alone, and was content while the other was dead."""
    away = [Endpoint(name, "127.0.0.1", free_port(), "00" * 32) for name in ("one", "two")]
    config = configure(*away, more='receiver = "one"\n')
    assert [f.what for f in await findings(config) if f.outcome] == ["one", "two"]
    assert [f.what for f in await findings(config, receiver="two") if f.outcome] == ["two"]
    chosen = [found async for found in check(config, {"FULLSEND_RECEIVER": "two"}, {})]
    assert [f.what for f in chosen if f.outcome] == ["two"]
    (found,) = await findings(configure(*away, more='receiver = "three"\n'))
    assert found.line() == "problem configuration: no receiver 'three' is configured: there are one, two"


async def test_configuration_is_missing_or_empty(configure: Configure, tmp_path: Path) -> None:
    (found,) = await findings(str(tmp_path / "none.toml"))
    assert (found.what, found.outcome) == ("configuration", Exit.USAGE)
    (found,) = await findings(configure())
    assert "no receiver is configured" in found.text


async def test_key_open_to_others(configure: Configure) -> None:
    config = configure(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32))
    key = Identity.beside(config).key
    os.chmod(key, 0o640)
    found = await findings(config)
    assert [f.line() for f in found if f.what == "identity"] == [
        f"problem identity: {key} is open to others (mode 0640): chmod 600 it"
    ]


async def test_key_or_certificate_is_missing(configure: Configure) -> None:
    config = configure(Endpoint("nas", "127.0.0.1", free_port(), "00" * 32))
    identity = Identity.beside(config)
    os.unlink(identity.key)
    assert (await findings(config))[-1].text == f"{identity.key}: No such file or directory"
    os.unlink(identity.certificate)
    assert "cert.pem is missing" in (await findings(config))[-1].text


async def test_a_high_level_and_several_at_a_time_cost_more(configure: Configure) -> None:
    def memory(found: list[Finding]) -> float:
        words = found[1].text.split()
        assert words[-3] in {"MiB", "GiB"}
        return float(words[-4]) * (1024 if words[-3] == "GiB" else 1)

    endpoint = Endpoint("nas", "127.0.0.1", free_port(), "00" * 32)
    usual = await findings(configure(endpoint, more="threads = 4\n"))  # the most that there are by default
    high = await findings(configure(endpoint, more="threads = 4\nlevel = 22\n"))
    jobs = await findings(configure(endpoint, more="threads = 4\njobs = 3\n"))
    assert 100 < memory(usual) <= 160 < memory(high)
    assert memory(jobs) == pytest.approx(3 * memory(usual) - 2 * 50, abs=0.5)  # there is one interpreter
    assert jobs[1].text.startswith("level auto, 4 threads, 3 datasets at a time: ")


async def test_the_place_of_drills_must_exist(configure: Configure, tmp_path: Path) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank")
    away = Endpoint("one", "127.0.0.1", free_port(), "00" * 32)
    more = f'zfs-command = "{fake.program}"\ndrill-into = "tank/drill"\n'
    (said,) = [each for each in await findings(configure(away, more=more)) if each.what == "drill"]
    assert said.line() == "problem drill: tank/drill: there is no such dataset to restore into (drill-into)"
    fake.create("tank/drill")
    assert not [each for each in await findings(configure(away, more=more)) if each.what == "drill"]


@pytest.mark.parametrize(
    ("place", "datasets", "warns"),
    [
        ("tank", ["**"], True),
        ("tank", ["**", "tank"], False),
        ("tank", ["tank/home"], False),
        ("tank/drill", ["**"], False),
    ],
)
async def test_a_place_of_drills_that_has_other_datasets(
    configure: Configure, tmp_path: Path, place: str, datasets: list[str], warns: bool
) -> None:
    """They are pushed. The place itself is not, which its owner may not expect."""
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank", "tank/home", "tank/drill"):
        fake.create(name)
    away = Endpoint("one", "127.0.0.1", free_port(), "00" * 32)
    table = f"[[push]]\ndatasets = {json.dumps(datasets)}\n"
    found = await findings(configure(away, more=f'zfs-command = "{fake.program}"\ndrill-into = "{place}"\n{table}'))
    expected = (
        "warning drill: tank: it is not pushed itself, because it is drill-into: name it in a [[push]], or drill"
        " elsewhere"
    )
    assert [each.line() for each in found if each.what == "drill"] == [expected] * warns


async def test_an_exclusion_that_matches_nothing_is_a_warning(configure: Configure, tmp_path: Path) -> None:
    """It may be misspelt, and what was to stay at home is pushed."""
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank", "tank/secret"):
        fake.create(name)
    fake.pool("ext", health="SUSPENDED")
    away = Endpoint("one", "127.0.0.1", free_port(), "00" * 32)

    async def warnings(*exclude: str) -> list[str]:
        table = f'[[push]]\ndatasets = ["tank"]\nrecursive = true\nexclude = {json.dumps(exclude)}\n'
        found = await findings(configure(away, more=f'zfs-command = "{fake.program}"\n{table}'))
        return [each.line() for each in found if each.what == "push" and each.warning]

    assert await warnings("tank/secret", "tank/s*", "**/secret") == []
    assert await warnings("tank/secretz", "tnak/secret", "tank/*/cache") == [
        f"warning push: exclude {name}: it matches no dataset, so it leaves nothing out"
        for name in ("tank/secretz", "tnak/secret", "tank/*/cache")
    ]
    # Not where a pool is not known: it may have that.
    fake.create("ext/secret")
    assert await warnings("ext/secretz", "ext/*/cache", "*/*/cache") == []


async def test_a_dataset_that_is_named_and_excluded_is_a_problem(configure: Configure, tmp_path: Path) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank/a", "tank/b"):
        fake.create(name)
    away = Endpoint("one", "127.0.0.1", free_port(), "00" * 32)
    table = '[[push]]\ndatasets = ["tank/a", "tank/b"]\nexclude = ["tank/b"]\n'
    found = await findings(configure(away, more=f'zfs-command = "{fake.program}"\n{table}'))
    assert [each.line() for each in found if each.what == "push"] == [
        "problem push: tank/b: it is named, and excluded as well, so it is not pushed: end one of the two",
        "ok      push: tank/a, tank/b: 1 dataset, to one",
    ]


async def test_without_a_push_in_the_configuration_it_warns(configure: Configure, tmp_path: Path) -> None:
    """The timer would push nothing. A person may name each dataset, so it is no problem."""
    fake = FakeZfs.make(tmp_path / "zfs")
    fake.create("tank")
    away = Endpoint("one", "127.0.0.1", free_port(), "00" * 32)
    (found,) = [
        each
        for each in await findings(configure(away, more=f'zfs-command = "{fake.program}"\n'))
        if each.what == "push"
    ]
    assert (found.outcome, found.warning) == (Exit.OK, True)
    assert found.line().startswith(
        "warning push: there is no [[push]], so `fullsend push` without a DATASET pushes nothing"
    )


async def test_pools_and_what_the_configuration_names(configure: Configure, tmp_path: Path) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank", "tank/a", "tank/vm", "tank/vm/one"):
        fake.create(name)
    away = Endpoint("one", "127.0.0.1", free_port(), "00" * 32)
    top = f'zfs-command = "{fake.program}"\n[[push]]\ndatasets = ["tank/a", "tank/vm/*", "tank/gone"]\n'
    more = '[[push]]\ndatasets = ["tank"]\nrecursive = true\nreceiver = "two"\n[datasets."tank/vm/*"]\nraw = true\n'
    found = await findings(configure(away, more=f'{top}{more}[datasets."tank/vmm"]\nraw = true\n'))
    assert [finding.line() for finding in found if finding.what in {"zfs", "push", "datasets"}] == [
        "ok      zfs: zfs-2.4.4-fake, 4 datasets in 1 pool",
        "problem push: tank/gone: there is no such dataset",
        "ok      push: tank/a, tank/vm/*, tank/gone: 2 datasets, to one",
        "problem push: no receiver 'two' is configured: there are one",
        "problem datasets: tank/vmm: it matches no dataset, so its settings have no effect",
    ]
    # A host without ZFS can still push from stdin; one that is to push datasets cannot.
    nowhere = 'zfs-command = "/nowhere/zfs"\n'
    found = await findings(configure(away, more=nowhere))
    assert [finding.outcome for finding in found if finding.what == "zfs"] == [Exit.OK]
    found = await findings(configure(away, more=f'{nowhere}[[push]]\ndatasets = ["tank"]\n'))
    assert [finding.outcome for finding in found if finding.what == "zfs"] == [Exit.USAGE]


async def test_what_a_pool_cannot_do(configure: Configure, tmp_path: Path, receiver_identity: Identity) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    for pool in ("good", "old", "tank"):
        fake.create(f"{pool}/a")
    fake.pool("old", bookmarks=False)
    fake.pool("tank", readonly=True)
    more = f'zfs-command = "{fake.program}"\n[[push]]\ndatasets = ["good/a", "old/a", "tank/a"]\n'
    async with receiving(receiver_identity, healthy()) as receiver:  # type: ignore[arg-type]
        found = await findings(configure(receiver.endpoint, more=more))
    said = {each.text.partition(":")[0]: each for each in found if each.what == "pool"}
    assert sorted(said) == ["old", "tank"]
    assert "zpool set feature@bookmarks=enabled old" in said["old"].text
    assert said["old"].outcome is Exit.OK
    assert said["tank"].outcome is Exit.FAILED


async def test_what_no_push_can_send(configure: Configure, tmp_path: Path, receiver_identity: Identity) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    long = f"tank/{'n' * 240}"
    fake.create("tank/a")
    fake.create(long)
    fake.create("tank/vault", encrypted=True, key_loaded=False)
    more = f'zfs-command = "{fake.program}"\n{{}}\n[[push]]\ndatasets = ["tank/*"]\n'

    async def problems(decrypt: str) -> dict[str, str]:
        async with receiving(receiver_identity, healthy()) as receiver:  # type: ignore[arg-type]
            found = await findings(configure(receiver.endpoint, more=more.format(decrypt)))
        return {each.what: each.text for each in found if each.outcome is Exit.FAILED}

    said = await problems("decrypt = true")
    assert sorted(said) == [long, "tank/vault"]
    assert said["tank/vault"].startswith("it is to be sent decrypted, and its key is not loaded: load it (zfs load-key")
    assert "its name has 245 bytes" in said[long]
    assert sorted(await problems("")) == [long]


async def test_chains_that_nothing_ends(configure: Configure, tmp_path: Path, receiver_identity: Identity) -> None:
    fake = FakeZfs.make(tmp_path / "zfs")
    for name in ("tank/home", "tank/vm"):
        fake.create(name)
    asked: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        while not isinstance(said := await peer.hear(), ConnectionEnded):
            asked.append(type(said).__name__)
            match said:
                case messages.Check():
                    await peer.say(messages.Health(program="fullsendd test", free_bytes=5 << 30, problems=[]))
                case messages.BasesWanted():
                    for name in ("tank/gone", "tank/home", "tank/vm"):
                        about = {"dataset": name, "guid": "2", "base_guid": "1", "flags": "Lp", "streams": 412}
                        sizes = {"age": 354 * 86400, "full_bytes": 1000, "increment_bytes": 0}
                        await peer.say(messages.Bases(bases=[messages.Base.model_validate({**about, **sizes})]))
                    await peer.say(messages.Done())
                case messages.StatusWanted():
                    await peer.say(messages.Status(now="2026-09-21T14:13:20Z", datasets=[]), messages.Done())
                case other:
                    raise AssertionError(other)

    zfs = f'zfs-command = "{fake.program}"\n'
    limit = '[datasets."tank/vm"]\nfull-after = { streams = 90 }\n'
    async with receiving(receiver_identity, always=script) as receiver:
        found = await findings(configure(receiver.endpoint, more=f"{zfs}{limit}"))
        (line,) = (finding.line() for finding in found if "chain of" in finding.text)
        assert line.startswith("ok      tank/home: chain of 412 streams on nas since 2025-10-02: nothing of it can go ")
        assert asked == ["Check", "BasesWanted", "StatusWanted"]
        # The setting of the table that pushes it counts, too.
        table = '[[push]]\ndatasets = ["tank/home", "tank/vm"]\nfull-after = { age = "90d" }\n'
        found = await findings(configure(receiver.endpoint, more=f"{zfs}{table}"))
        assert not [finding for finding in found if "chain of" in finding.text]
        found = await findings(configure(receiver.endpoint, more='zfs-command = "/nowhere/zfs"\n'))
        assert not [finding for finding in found if "chain of" in finding.text]
