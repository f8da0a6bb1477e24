"""`fullsend list`, against a scripted receiver."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.sender.command import Ended, Fullsend, answering, answering_each
from tests.sender.peer import Peer, Script, entry, partial_entry, receiving, status

from fullsend_protocol.format.tables import partials_table
from fullsend_protocol.wire import messages
from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint


async def test_list(fullsend: Fullsend, receiver_identity: Identity) -> None:
    stored = entry(snapshot="a"), entry(snapshot="b", restorable=False)
    said = (messages.Entries(entries=list(stored)), messages.Done())
    none = (messages.Done(),)
    full, empty = answering_each(none, said), answering_each(none, none)
    async with receiving(receiver_identity, full, full, empty) as receiver:
        ended = await fullsend(receiver, "list", "tank/data")
        assert (ended.code, ended.err, ended.out.count(b"\n")) == (0, "", 3)
        assert ended.out.startswith(b"STREAM")
        ended = await fullsend(receiver, "list", "--json")
        assert [json.loads(line) for line in ended.out.splitlines()] == [one.model_dump() for one in stored]
        assert await fullsend(receiver, "list") == Ended(0, b"", "")


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_a_dataset_of_which_nothing_is_stored_is_named(
    fullsend: Fullsend, receiver_identity: Identity, form: list[str]
) -> None:
    none = (messages.Done(),)
    async with receiving(receiver_identity, answering_each(none, none)) as receiver:
        ended = await fullsend(receiver, "list", "tank/typo", *form)
        assert (ended.code, ended.out) == (2, b"")
        assert ended.line == "fullsend: tank/typo: nothing of that name is stored (see `fullsend list`)"


async def test_what_the_receiver_cannot_list_is_named(fullsend: Fullsend, receiver_identity: Identity) -> None:
    """A stream without a readable manifest was missing in the list, with exit 0."""
    stored = [status("tank/data", streams=1), status("tank/gone", streams=2), status("tank/worn", streams=2)]
    listed = [entry(), entry(dataset="tank/worn")]
    told = (messages.Status(now="2026-11-23T07:00:00Z", datasets=stored), messages.Done())

    def listing(*names: str, again: bool = True) -> Script:
        found = [each for each in listed if each.dataset in names]
        # What seems to be missing may have been pruned meanwhile, so it asks again.
        return answering_each(told, (messages.Entries(entries=found), messages.Done()), *([told] if again else []))

    both, whole = listing("tank/data", "tank/worn"), listing("tank/data", again=False)
    async with receiving(receiver_identity, both, both, listing(), whole) as receiver:
        ended = await fullsend(receiver, "list")
        assert (ended.code, ended.out.count(b"\n")) == (1, 3)
        gone, worn = ended.err.splitlines()
        assert gone.startswith(
            "fullsend: tank/gone is not listed whole: 2 manifests or folders are missing or unreadable"
        )
        assert worn == (
            "fullsend: tank/worn is not listed whole: 1 manifest or folder is missing or unreadable at the receiver"
            " (`fullsendd verify` there mends or names each)"
        )
        ended = await fullsend(receiver, "list", "--json")
        assert (ended.code, ended.out.count(b"\n"), ended.err.count("\n")) == (1, 2, 2)
        ended = await fullsend(receiver, "list", "tank/gone")
        assert (ended.code, ended.out) == (1, b"")
        assert ended.line == gone
        ended = await fullsend(receiver, "list", "tank/data")
        assert (ended.code, ended.err) == (0, "")


async def test_list_whose_reader_has_enough(config: Callable[[Endpoint], str], receiver_identity: Identity) -> None:
    said = (messages.Entries(entries=[entry()]), messages.Done())
    async with receiving(receiver_identity, answering_each((messages.Done(),), said)) as receiver:
        read, write = os.pipe()
        os.close(read)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fullsend_sender", "list"),
            env={**os.environ, "FULLSEND_CONFIG": config(receiver.endpoint)},
            stdout=write,
            stderr=subprocess.PIPE,
        )
        os.close(write)
        _out, err = await process.communicate()
    assert (process.returncode, err) == (1, b"")


async def test_another_receiver_answers(fullsend: Fullsend, receiver_identity: Identity) -> None:
    async def listen(peer: Peer) -> None:
        await peer.gone()

    async with receiving(receiver_identity, listen, all_must_come=False) as receiver:
        endpoint = Endpoint("nas", "127.0.0.1", receiver.endpoint.port, "00" * 32)
        ended = await fullsend(endpoint, "list")
    assert ended.code == 3
    assert "not the receiver that was paired" in ended.line


async def test_what_has_arrived_in_part_is_listed(fullsend: Fullsend, receiver_identity: Identity) -> None:
    said = [partial_entry(snapshot="a"), partial_entry(dataset="tank/b", snapshot="b", arriving=True)]
    script = answering(messages.Partials(partials=said), messages.Done())
    async with receiving(receiver_identity, script, script, script) as receiver:
        ended = await fullsend(receiver, "list", "--partial", "--json")
        assert (ended.code, ended.err) == (0, "")
        assert [json.loads(line) for line in ended.out.splitlines()] == [each.model_dump(mode="json") for each in said]
        ended = await fullsend(receiver, "list", "--partial")
        assert ended.out.decode().splitlines() == list(partials_table(said, with_sender=False))
        ended = await fullsend(receiver, "list", "--partial", "tank/b", "--json")
        assert [json.loads(line)["snapshot"] for line in ended.out.splitlines()] == ["b"]
