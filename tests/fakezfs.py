"""A `zfs` that needs no ZFS: datasets in a JSON file, streams made up. For tests of what drives `zfs`, and for bench/.

What it does it does as OpenZFS 2.4 does (tests/zfs holds the same code against the real one). In use:

    fake = FakeZfs.make(folder)         # folder/zfs is the program
    fake.create("tank/home")
    fake.change("tank/home")
    ... run what runs `fake.program` ...
    fake.commands                       # what was run, a line each

`fail` makes commands that contain a text fail, or makes `send` die half-way, or stand still there. Its streams have
the right running checksums, so that `send -t` can give the rest of them.

The content of each stream is made up for itself. A dataset that was created with `Blocks` is one that changes: its
increments have what differs, and a full with the increments on it can be merged into the next full.
"""

from __future__ import annotations

import atexit
import dataclasses
import fcntl
import functools
import hashlib
import itertools
import json
import os
import random
import re
import secrets
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

#: Raw bytes of the made-up content of one dataset.
SIZE = 300_000
_BLOCK = 100_000
#: What is in a dataset: by object, by offset, a hash of each block; and one of the bonus buffer, as "bonus".
_State = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Blocks:
    """The content of a dataset that changes: one file.

    `count`: its blocks; `hot`: so many of them change at all, spread over the file; `rewritten`: so many of these are
    written before each snapshot, if `change` was called; `size`: bytes of a block, a multiple of 4.
    """

    count: int
    hot: int
    rewritten: int
    size: int = 1024


@dataclass(frozen=True)
class FakeZfs:
    """The state's folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> FakeZfs:
        folder.mkdir(parents=True, exist_ok=True)
        fake = cls(folder)
        (folder / "state.json").write_text(
            json.dumps({"txg": 10, "host": zlib.crc32(bytes(folder)), "datasets": {}, "fail": {}})
        )
        (folder / "commands").touch()
        for name in ("zfs", "zpool"):
            program = folder / name
            words = map(shlex.quote, [sys.executable, "-ISc", _CLIENT, _served(), str(folder), name])
            program.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
            program.chmod(0o755)
        return fake

    @property
    def program(self) -> str:
        return str(self.folder / "zfs")

    @property
    def commands(self) -> list[str]:
        """What was run, without the program's name."""
        return (self.folder / "commands").read_text().splitlines()

    def forget_commands(self) -> None:
        (self.folder / "commands").write_text("")

    def edit(self, change: Callable[[dict[str, Any]], Any]) -> Any:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads((self.folder / "state.json").read_text())
            try:
                return change(state)
            finally:
                (self.folder / "state.json.new").write_text(json.dumps(state))
                (self.folder / "state.json.new").rename(self.folder / "state.json")

    def create(
        self,
        name: str,
        *,
        kind: str = "filesystem",
        encrypted: bool = False,
        key_loaded: bool = True,
        size: int = SIZE,
        increment: int | None = None,
        blocks: Blocks | None = None,
        block: int = _BLOCK,
    ) -> None:
        """`size`: raw bytes of the content of each of its streams; `increment`: of its increments, if they differ;
        `block`: of a WRITE record; `blocks`: instead of all three, what changes. It is not for encrypted datasets:
        their streams are not raw ones here.
        """
        assert blocks is None or not encrypted
        about = {"type": kind, "encrypted": encrypted, "key_loaded": key_loaded, "written": 4096, "size": size}
        about |= {} if block == _BLOCK else {"block": block}
        about |= {} if increment is None else {"increment": increment}
        about |= {} if blocks is None else {"blocks": dataclasses.asdict(blocks)}
        properties = {"compression": "zstd", "user:note": "kept"}
        self.edit(lambda state: _create(state, name, properties=properties, **about))

    def clone(self, snapshot: str, name: str) -> None:
        self.edit(lambda state: _create(state, name, origin=snapshot))

    def sent(self, name: str, base_guid: str | None) -> Callable[[], str]:
        """What `received` says of the stream of this snapshot, on this base, once it was received. The snapshot may be
        gone when the result is called.
        """
        stream = self.stream(name)
        return lambda: _hash(_records(stream(base_guid)))

    def stream(self, name: str) -> Callable[..., bytes]:
        """What `zfs send` gives for this snapshot, by the GUID of its base, None: a full; and by `options` such as -c.
        The snapshot may be gone when the result is called.
        """
        state = json.loads((self.folder / "state.json").read_text())
        dataset = name.partition("@")[0]
        about, snapshot = state["datasets"][dataset], _find(state, name)
        # Some tests keep thousands of snapshots.
        about = {key: value for key, value in about.items() if key != "writers" and not isinstance(value, list)}

        def stream(base_guid: str | None, options: Sequence[str] = ()) -> bytes:
            found = _stream(about, name, snapshot, base_guid or "0", _features(about, options))
            return _package(found, name, {dataset: int(snapshot["guid"])}) if "-p" in options else found

        return stream

    def blocks(self, name: str) -> Callable[[], _State]:
        """The blocks of this snapshot of a dataset with `Blocks`, as `received_blocks` gives them. The snapshot may be
        gone when the result is called.
        """
        stream = self.stream(name)
        return lambda: _applied({}, stream(None))

    def received(self, name: str) -> list[str]:
        """A hash of the content of each stream that was received into a dataset, in their order."""
        found: list[str] = self.edit(lambda state: state["datasets"][name]["content"])
        return found

    def received_blocks(self, name: str) -> _State:
        """What all that was received into a dataset has left there."""
        found: _State = self.edit(lambda state: state["datasets"][name]["state"])
        return found

    def properties(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.edit(lambda state: state["datasets"][name]["properties"])
        return found

    def brings(self, **properties: str) -> None:
        """Have each stream that is received from now on bring these properties."""
        self.edit(lambda state: state.update(brings=properties))

    def change(self, name: str, *, synced: bool = True) -> None:
        """Write something to a dataset. `synced`: False: `written` tells it after `zpool sync` only."""
        about = {"written" if synced else "unsynced": 8192}
        self.edit(lambda state: state["datasets"][name].update(about))

    def snapshot(self, name: str) -> None:
        dataset, _, short = name.partition("@")
        self.edit(lambda state: _snapshot(state, dataset, short))

    def rollback(self, name: str) -> None:
        """As `zfs rollback -r`: what is newer goes, bookmarks too."""
        dataset, _, short = name.partition("@")

        def change(state: dict[str, Any]) -> None:
            found = state["datasets"][dataset]
            txg = next(each["txg"] for each in found["snapshots"] if each["name"] == short)
            for kind in ("snapshots", "bookmarks"):
                found[kind] = [each for each in found[kind] if each["txg"] <= txg]
            found["written"] = 0
            if "blocks" in found:
                found["writers"] = found["snapshots"][-1]["writers"]

        self.edit(change)

    def rename(self, old: str, new: str) -> None:
        self.edit(lambda state: state["datasets"].update({new: state["datasets"].pop(old)}))

    def replicate(self, old: str, new: str) -> None:
        """As `zfs send -I | zfs receive -F`: its snapshots with their GUIDs, but no bookmarks and no holds."""

        def change(state: dict[str, Any]) -> None:
            found = state["datasets"].get(new) or _create(state, new)
            has = {each["guid"]: each for each in found["snapshots"]}
            sent = state["datasets"][old]["snapshots"]
            found["snapshots"] = [has.get(each["guid"], {**each, "holds": []}) for each in sent]
            found["written"] = 0

        self.edit(change)

    def destroy(self, name: str) -> None:
        self.edit(lambda state: state["datasets"].pop(name))

    def fail(self, text: str, how: str = "it is broken") -> None:
        """Make each command that contains `text` fail, saying `how`; how="cut": a send ends half-way; how="stall": it
        gives no more from there on, and does not end; how="hang": it does nothing, and does not end; how="warning:
        ...": it says so, and works.
        """
        self.edit(lambda state: state["fail"].update({text: how}))

    def clock(self, epoch: int | None) -> None:
        """Take snapshots as of this second of the epoch from now on; None: as of now."""
        self.edit(lambda state: state.update(clock=epoch))

    def pool(self, name: str, **about: bool | str) -> None:
        """`readonly`: it was imported so; `bookmarks`: False: it was made without features; `health`: as zpool says."""
        self.edit(lambda state: state.setdefault("pools", {}).setdefault(name, {}).update(about))

    def spoil(self, name: str, *, bad: bool = True) -> None:
        """Make half-way in a dataset, and in its snapshots, a block that cannot be read; bad=False: remove the file
        that has it, which the snapshots keep.
        """

        def change(state: dict[str, Any]) -> None:
            about = state["datasets"][name]
            about.update(bad=bad, written=8192)
            for each in about["snapshots"] if bad else ():
                each["bad"] = True

        self.edit(change)

    def drift(self, number: int) -> None:
        """Have what was received differ from its original; 0: no more."""
        self.edit(lambda state: state.update(drift=number))

    def alter(self, name: str, **about: Any) -> None:
        """Set facts of a dataset, such as `available`, `busy`, `keylocation`."""
        self.edit(lambda state: state["datasets"][name].update(about))

    def datasets(self) -> set[str]:
        """The names of all datasets."""
        found: list[str] = self.edit(lambda state: sorted(state["datasets"]))
        return set(found)

    def mend(self) -> None:
        self.edit(lambda state: state["fail"].clear())

    def names(self, kind: str, dataset: str) -> list[str]:
        """Names of the snapshots or bookmarks of a dataset."""
        return [each["name"] for each in self.edit(lambda state: state["datasets"][dataset][kind])]

    def holds(self, dataset: str) -> list[str]:
        return [
            tag for each in self.edit(lambda state: state["datasets"][dataset]["snapshots"]) for tag in each["holds"]
        ]


def _guid(state: dict[str, Any], first: int) -> str:
    """A number that no other fake host has."""
    return str(first * 10**18 + state["host"] * 10**6 + state["txg"])


def _birth(guid: str) -> int:
    """The transaction group of the snapshot with this GUID; "0": before all."""
    return int(guid) % 10**6


def _create(state: dict[str, Any], name: str, **about: Any) -> dict[str, Any]:
    state["txg"] += 1
    state["datasets"][name] = {
        "type": "filesystem",
        "guid": _guid(state, 7),
        "txg": state["txg"],
        "written": 0,
        "encrypted": False,
        "key_loaded": True,
        "snapshots": [],
        "bookmarks": [],
        "properties": {},
        "size": SIZE,
        **about,
    }
    found: dict[str, Any] = state["datasets"][name]
    return found


def _snapshot_all(state: dict[str, Any], names: list[str]) -> None:
    """All or none."""
    for name in names:
        dataset = state["datasets"].get(name.partition("@")[0])
        if dataset is not None and dataset.get("full"):
            _die(f"cannot create snapshot '{name}': out of space\nno snapshots were created")
        if dataset is None:
            _die(f"cannot open '{name.partition('@')[0]}': dataset does not exist\nusage:\n\tsnapshot [-r] ...")
    for name in names:
        _snapshot(state, *name.split("@"))


def _snapshot(state: dict[str, Any], dataset: str, name: str) -> None:
    found = state["datasets"].get(dataset)
    if found is None:
        _die(f"cannot open '{dataset}': dataset does not exist")
    if any(each["name"] == name for each in found["snapshots"]):
        _die(f"cannot create snapshot '{dataset}@{name}': dataset already exists")
    state["txg"] += 1
    made = {
        "written": found["written"],
        "name": name,
        "guid": _guid(state, 9),
        "txg": state["txg"],
        "creation": state.get("clock") or int(time.time()),
        "holds": [],
        "bad": found.get("bad", False),
    }
    if "blocks" in found:
        found["writers"] = made["writers"] = _writers(found, made["guid"])
    found["snapshots"].append(made)
    found["written"] = 0


def _writers(about: dict[str, Any], guid: str) -> list[str]:
    """Of each block the GUID of the first snapshot that has it as it is: with what was written up to this snapshot."""
    blocks = Blocks(**about["blocks"])
    before = about.get("writers")
    if before is None:
        return [guid] * blocks.count
    found = list(before)
    for number in random.Random(guid).sample(range(blocks.hot), blocks.rewritten if about["written"] else 0):
        found[number * blocks.count // blocks.hot] = guid
    return found


# --- the program ------------------------------------------------------------------------------------------------------


class _Hangs(Exception):  # noqa: N818 - reads as what it says
    """A command that does not end."""


def _die(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(1)


def _find(state: dict[str, Any], name: str) -> dict[str, Any]:
    dataset, mark, short = name.partition("@" if "@" in name else "#")
    found = state["datasets"].get(dataset)
    points = found["snapshots" if mark == "@" else "bookmarks"] if found else []
    for each in points:
        if each["name"] == short:
            return dict(each)
    _die(f"cannot open '{name}': dataset does not exist")


def _row(name: str, kind: str, about: dict[str, Any], dataset: dict[str, Any]) -> str:
    encryption = "aes-256-gcm" if dataset["encrypted"] else "off"
    key = ("available" if dataset["key_loaded"] else "unavailable") if dataset["encrypted"] else "-"
    real = kind in {"filesystem", "volume"}
    return "\t".join(
        [
            *(name, kind, about["guid"], str(about["txg"]), str(about.get("creation", 1_790_000_000))),
            *(str(dataset["written"] if real else about.get("written", "-")), "1000000" if kind != "bookmark" else "-"),
            *(str(len(about["holds"])) if kind == "snapshot" else "-", encryption, key),
        ]
    )


def _pools(state: dict[str, Any]) -> list[str]:
    return sorted({name.partition("/")[0] for name in state["datasets"]})


def _list(state: dict[str, Any], arguments: list[str]) -> None:
    names = [each for each in arguments if "/" in each or each in state["datasets"] or "@" in each]
    if "snapshot" in arguments:
        missing = [name for name in names if not _exists(state, name)]
        for name in (each for each in names if each not in missing):
            print(_row(name, "snapshot", _find(state, name), state["datasets"][name.partition("@")[0]]))
        if missing:
            _die("\n".join(f"cannot open '{name}': dataset does not exist" for name in missing))
        return
    suspended = {pool for pool in _pools(state) if state.get("pools", {}).get(pool, {}).get("health") == "SUSPENDED"}
    for each in names:
        if each.partition("/")[0] in suspended:  # so all of it fails
            _die(f"cannot open '{each}': pool I/O is currently suspended")
    missing = [each for each in names if each not in state["datasets"]]
    deep = "-r" in arguments or "-Hr" in arguments
    for name, dataset in sorted(state["datasets"].items()):
        if name.partition("/")[0] in suspended:
            continue  # left out, without a word and with exit 0
        if names and not any(name == each or (deep and name.startswith(f"{each}/")) for each in names):
            continue
        if "-d" in arguments and "0" in arguments and "/" in name:
            continue
        if "name" in arguments:  # -o name
            print(name)
            continue
        print(_row(name, dataset["type"], dataset, dataset))
        for kind, points, mark in (("snapshot", "snapshots", "@"), ("bookmark", "bookmarks", "#")):
            for each in dataset[points]:
                print(_row(f"{name}{mark}{each['name']}", kind, each, dataset))
    if missing:
        _die("\n".join(f"cannot open '{each}': dataset does not exist" for each in missing))


def _send(state: dict[str, Any], arguments: list[str]) -> None:
    if "-t" in arguments:
        _give(state, arguments, _resumed(state, arguments[-1]), _token_name(state, arguments[-1]))
        return
    name = arguments[-1]
    dataset = state["datasets"].get(name.partition("@")[0], {"size": SIZE})
    snapshot = _find(state, name)
    if "content" in dataset:
        dataset, snapshot = _original(state, snapshot)
    base = _find(state, arguments[arguments.index("-i") + 1]) if "-i" in arguments else None
    if "-nP" in arguments:
        size = _content(dataset, snapshot, base["guid"] if base else "0")
        print(f"full\t{name}\t{size}\nsize\t{size}")
        return
    features = _features(dataset, arguments)
    stream = _stream(dataset, name, snapshot, base["guid"] if base else "0", features)
    if "-p" in arguments or "-R" in arguments:
        top, _, short = name.partition("@")
        below = [
            each
            for each, about in state["datasets"].items()
            if "-R" in arguments and each.startswith(f"{top}/") and about["txg"] < snapshot["txg"]
        ]
        stream = _package(stream, name, {each: int(_find(state, f"{each}@{short}")["guid"]) for each in (top, *below)})
    _give(state, arguments, stream, name if snapshot.get("bad") and base is None else None)


def _original(state: dict[str, Any], received: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a received snapshot came from: what was restored is the same, except where `drift` says otherwise."""
    for about in state["datasets"].values():
        for each in about["snapshots"]:
            if each["guid"] == received["guid"] and "content" not in about:
                drift = state.get("drift", 0)
                if not drift or "writers" not in each:
                    return {**about, "drift": drift}, each
                return about, {**each, "writers": [str(drift), *each["writers"][1:]]}
    _die(f"cannot send '{received['name']}': this fake has its original no more")


def _package(stream: bytes, name: str, guids: dict[str, int]) -> bytes:
    """A stream with properties, and with the streams of other datasets. `guids`: of the snapshot in each dataset, that
    of the stream first.
    """
    from tests import streams

    top, _, short = name.partition("@")
    told = [streams.file_system(each, {short: guid}) for each, guid in guids.items()]
    others = [streams.substream(name=f"{each}@{short}", guid=guid) for each, guid in guids.items() if each != top]
    return streams.package(stream, *others, name=name, nvlist=streams.tree(short, *told))


def _token_name(state: dict[str, Any], text: str) -> str | None:
    """The snapshot that a token names, where a block of it cannot be read."""
    from fullsend_protocol.stream.resume_token import ResumeToken

    guid = str(ResumeToken.decode(text).guid)
    names = (
        f"{dataset}@{each['name']}"
        for dataset, about in state["datasets"].items()
        for each in about["snapshots"]
        if each["guid"] == guid and each.get("bad")
    )
    return next(names, None)


def _features(dataset: dict[str, Any], options: Sequence[str]) -> list[int]:
    """The features of a stream that is sent with these options."""
    features = [22, 24] if "-w" in options and dataset["encrypted"] else [22] if "-c" in options else []
    return features + ([16] if "-e" in options else [])


def _content(dataset: dict[str, Any], snapshot: dict[str, Any], base_guid: str) -> int:
    """Raw bytes of the content of a stream. `base_guid`: "0" for a full."""
    if "blocks" in dataset:
        return len(_changed(snapshot, base_guid)) * Blocks(**dataset["blocks"]).size
    size: int = dataset["size"] if base_guid == "0" else dataset.get("increment", dataset["size"])
    return size


def _stream(dataset: dict[str, Any], name: str, snapshot: dict[str, Any], base_guid: str, features: list[int]) -> bytes:
    """One stream by itself, the same each time; `drift` is what makes it another one."""
    from tests import resumed, streams

    if "blocks" in dataset:
        return _changing_stream(dataset, name, snapshot, base_guid, features)
    seed = int(snapshot["guid"]) + dataset.get("drift", 0)
    block = dataset.get("block", _BLOCK)
    blocks = [random.Random(seed + number).randbytes(block // 4) * 4 for number in range(4)]
    begin = streams.begin(
        name,
        int(snapshot["guid"]),
        int(base_guid),
        features=features,
        created=snapshot["creation"],
        objset_type=3 if dataset.get("type") == "volume" else 2,
    )
    places = range(_content(dataset, snapshot, base_guid) // block)
    writes = (streams.write(2, number * block, blocks[number % 4]) for number in places)
    raw = [streams.object_range()] if 24 in features else []
    return resumed.summed(begin, [*raw, streams.object_(2), *writes, streams.end(int(snapshot["guid"]))])


def _changed(snapshot: dict[str, Any], base_guid: str) -> dict[int, str]:
    """The blocks of a snapshot that are younger than its base, each with its writer. `base_guid`: "0" for a full."""
    since = _birth(base_guid)
    return {number: writer for number, writer in enumerate(snapshot["writers"]) if _birth(writer) > since}


def _changing_stream(
    dataset: dict[str, Any], name: str, snapshot: dict[str, Any], base_guid: str, features: list[int]
) -> bytes:
    """A stream with the records that `zfs send` makes of one file. An increment on which nothing was written has none.

    Each block's bytes, and the object's bonus buffer, depend on their last writer alone.
    """
    from tests import resumed, streams

    blocks, changed = Blocks(**dataset["blocks"]), _changed(snapshot, base_guid)
    guid, volume = int(snapshot["guid"]), dataset["type"] == "volume"
    begin = streams.begin(
        *(name, guid, int(base_guid)),
        features=features,
        created=snapshot["creation"],
        objset_type=3 if volume else 2,
        flags=8,  # DRR_FLAG_SPILL_BLOCK
    )
    records = []
    if changed:
        bonus = max(changed.values(), key=_birth).encode() * 8
        records.append(streams.data_object(2, bonus, block_size=blocks.size, volume=volume))
        records.append(streams.free(2, blocks.count * blocks.size, (1 << 64) - 1))  # all behind the object's end
        for number, writer in changed.items():
            data = hashlib.shake_128(f"{writer} {number}".encode()).digest(blocks.size)
            records.append(streams.write(2, number * blocks.size, data))
    if base_guid == "0":  # one block of 32 dnodes, with one object
        records = [streams.freeobjects(1, 1), *records, streams.freeobjects(3, 29)]
    return resumed.summed(begin, [streams.marked(each, guid) for each in [*records, streams.end(guid)]])


def _resumed(state: dict[str, Any], text: str) -> bytes:
    """What is left of a stream behind the record that a token names. The snapshot is looked for by its GUID."""
    from tests import resumed

    from fullsend_protocol.stream.resume_token import ResumeToken

    token = ResumeToken.decode(text)
    for dataset, about in state["datasets"].items():
        points = {each["guid"] for kind in ("snapshots", "bookmarks") for each in about[kind]}
        for snapshot in about["snapshots"]:
            if snapshot["guid"] != str(token.guid):
                continue
            if token.base_guid is not None and str(token.base_guid) not in points:
                _die(f"cannot resume send: incremental source {token.base_guid:#x} no longer exists")
            if about["encrypted"] and not token.features >> 24 & 1 and not about["key_loaded"]:
                _die(f"cannot resume send: '{token.name}' key is not loaded")
            features = [bit for bit in range(32) if token.features >> bit & 1]
            name = f"{dataset}@{snapshot['name']}"
            (of,) = resumed.sent(_stream(about, name, snapshot, str(token.base_guid or 0), features))
            places = [index for index in of.points() if of.records[index].key == (token.object, token.offset)]
            if places:
                begin = resumed.resuming_begin(of, (token.object, token.offset))
                indices = [*resumed.opening(of, places[-1]), *range(places[-1], len(of.records))]
                return resumed.summed(begin, [of.bytes_of(of.records[index]) for index in indices])
            _die("cannot resume send: there is nothing at this place")
    _die(f"cannot resume send: '{token.name}' used in the initial send no longer exists")


def _give(state: dict[str, Any], arguments: list[str], stream: bytes, bad: str | None = None) -> None:
    """`bad`: the snapshot, where a block of it cannot be read."""
    command = shlex.join(["send", *arguments])
    how = next((how for text, how in state["fail"].items() if text in command), None)
    cut = len(stream) // 2 if how in {"cut", "stall"} else len(stream)
    if bad is not None and how is None:  # the same place of the whole stream and of its rest
        cut = 0 if "-t" in arguments else len(stream) // 2
    sys.stdout.buffer.write(stream[:cut])
    sys.stdout.buffer.flush()
    if how == "stall":
        while True:  # until it is killed, or its reader is gone
            select.select([], [], [], 0.2)
            if not _is_read(sys.stdout.fileno()):
                return
    if how == "cut":
        _die("warning: cannot send: it is cut")
    if bad is not None:
        _die(f"warning: cannot send '{bad}': Input/output error")


def _is_read(fd: int) -> bool:
    """Whether somebody has the other end of a pipe."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)


def _holding(state: dict[str, Any], name: str) -> dict[str, Any]:
    dataset, _, short = name.partition("@")
    for each in state["datasets"].get(dataset, {"snapshots": []})["snapshots"]:
        if each["name"] == short:
            found: dict[str, Any] = each
            return found
    _die(f"cannot open '{name}': dataset does not exist")


def _exists(state: dict[str, Any], name: str) -> bool:
    dataset, _, short = name.partition("@")
    return any(each["name"] == short for each in state["datasets"].get(dataset, {"snapshots": []})["snapshots"])


def _destroy(state: dict[str, Any], name: str) -> None:
    if "#" in name:
        dataset, _, short = name.partition("#")
        marks = state["datasets"][dataset]["bookmarks"]
        marks[:] = [each for each in marks if each["name"] != short]
        return
    dataset, mark, shorts = name.partition("@")
    if not mark:
        if any(each.startswith(f"{name}/") for each in state["datasets"]) or state["datasets"][name]["snapshots"]:
            _die(f"cannot destroy '{name}': filesystem has children\nuse '-r' to destroy the following datasets:")
        if state["datasets"][name].get("busy"):
            _die(f"cannot destroy '{name}': dataset is busy")
        state["datasets"].pop(name)
        return
    for short in shorts.split(","):
        if any(each.get("origin") == f"{dataset}@{short}" for each in state["datasets"].values()):
            _die(f"cannot destroy '{dataset}@{short}': snapshot has dependent clones")
        if _holding(state, f"{dataset}@{short}")["holds"]:
            _die(f"cannot destroy snapshot {dataset}@{short}: it's being held. Run 'zfs holds -r' to see holders.")
    snapshots = state["datasets"][dataset]["snapshots"]
    snapshots[:] = [each for each in snapshots if each["name"] not in shorts.split(",")]


def _set(arguments: list[str]) -> dict[str, str]:
    """What -o sets."""
    pairs = [value for option, value in itertools.pairwise(arguments) if option == "-o"]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _receive(state: dict[str, Any], arguments: list[str], raw: bytes) -> None:
    """`kept`: what -s has saved: the token, and what _records says. `content`: one hash for each stream."""
    from tests import resumed

    from fullsend_protocol.stream.facts import conclude
    from fullsend_protocol.stream.records import Feature, Walker
    from fullsend_protocol.stream.rejoin import opening
    from fullsend_protocol.stream.resume_token import ResumeToken, token_features

    target, found = arguments[-1], state["datasets"].get(arguments[-1])
    walker, whole = Walker(), True
    try:
        walker.walk(raw, 0, len(raw), 1 << 63)
        walker.finish()
    except Exception:  # noqa: BLE001 - what it is does not matter here
        whole = False
    begins = walker.begins
    if not begins or (not whole and (begins[-1].compound or "-s" not in arguments)):
        _die("cannot receive: incomplete stream")
    resuming = begins[-1].has(Feature.RESUMING)
    facts = conclude([dataclasses.replace(each, features=each.features & ~(1 << Feature.RESUMING)) for each in begins])
    kept = found.get("kept") if found else None
    if resuming != (kept is not None):
        _die(f'cannot receive: destination {target} contains partially-complete state from "zfs receive -s"')
    if "-s" in arguments and not state.get("pools", {}).get(target.partition("/")[0], {}).get("extensible", True):
        _die("cannot receive resume stream: pool must be upgraded to receive this stream.")
    package, begin = opening(raw) or (b"", b"")
    clone = begin[36] & 1 and not resuming  # DRR_FLAG_CLONE: it is for a new dataset
    if clone and not any(
        each["guid"] == str(facts.base_guid) for about in state["datasets"].values() for each in about["snapshots"]
    ):
        _die(f"cannot receive: local origin for clone {target}@{facts.snapshot} does not exist")
    if clone or (facts.base_guid is None and not resuming):
        if found is not None:
            _die(
                f"cannot receive new filesystem stream: destination '{target}' exists\nmust specify -F to overwrite it"
            )
        if target.rpartition("/")[0] not in state["datasets"]:
            _die(f"cannot open '{target}': dataset does not exist")
        raw_send = begins[-1].has(Feature.RAW)
        found = _create(state, target, type=facts.dataset_type, encrypted=raw_send, key_loaded=not raw_send)
    elif found is None:
        _die(f"cannot receive incremental stream: destination '{target}' does not exist")
    elif facts.base_guid is not None and found["snapshots"][-1]["guid"] != str(facts.base_guid):
        _die(f"cannot receive incremental stream: most recent snapshot of {target} does not match incremental source")
    elif _exists(state, f"{target}@{facts.snapshot}"):
        _die(f"cannot receive incremental stream: destination '{target}@{facts.snapshot}' already exists")
    elif found["written"]:
        _die(f"cannot receive incremental stream: destination {target} has been modified since most recent snapshot")
    if whole and facts.base_guid is not None and not package and not kept and resumed.wrong_sums(raw):
        _die("cannot receive incremental stream: checksum mismatch")
    found.setdefault("received", {}).update(state.get("brings", {}))
    # 4E, as -p prints it.
    found["properties"].update({name: value.replace("4E", str(4 << 60)) for name, value in _set(arguments).items()})
    blocks = _applied((kept or found).get("state", {}), raw)
    records = _records(raw)
    if kept:
        if whole:
            (of,) = resumed.sent(raw)
            if resumed.wrong_sums(raw[of.records[0].start : of.end]):
                _die("cannot receive: checksum mismatch")
        records = _joined(kept["records"], records)
    if not whole:
        while records and records[-1][0] is None:
            records.pop()
        number, offset = records[-1][0] if records else (1, 0)
        features = token_features(begins[-1].features & ~(1 << Feature.RESUMING))
        name = f"{facts.dataset}@{facts.snapshot}"
        token = ResumeToken(name, facts.guid, facts.base_guid, number, offset, features)
        found["kept"] = {"token": token.encode(), "records": records, "state": blocks}
        _die("cannot receive new filesystem stream: incomplete stream\nPartially received snapshot is saved.")
    found.pop("kept", None)
    found["content"] = [*found.get("content", []), _hash(records)]
    found["state"] = blocks
    found["written"] = 0
    _snapshot(state, target, facts.snapshot)
    found["snapshots"][-1]["guid"] = str(facts.guid)


def _hash(records: list[list[Any]]) -> str:
    return hashlib.sha256(repr(records).encode()).hexdigest()


def _whole_records(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header and payload of each whole record that is neither BEGIN nor END."""
    from fullsend_protocol.stream.records import payload_length

    at = 0
    while at + 312 <= len(raw) and (end := at + 312 + (payload_length(raw[at : at + 312]) or 0)) <= len(raw):
        if raw[at] not in {0, 5}:
            yield raw[at : at + 312], raw[at + 312 : end]
        at = end


def _records(raw: bytes) -> list[list[Any]]:
    """Key, and hash but for the running sums, of each whole record that is neither BEGIN nor END."""
    from fullsend_protocol.stream.records import resume_key

    found: list[list[Any]] = []
    for head, payload in _whole_records(raw):
        key = resume_key(head)
        found.append([[*key] if key else None, hashlib.sha256(head[:280] + payload).hexdigest()])
    return found


def _applied(before: _State, raw: bytes) -> _State:
    """What is in a dataset once the whole records of a stream are received. No more is known than what datasets with
    `Blocks` send.
    """
    from fullsend_protocol.stream.records import RecordType, resume_key

    found = {number: dict(digests) for number, digests in before.items()}
    for head, payload in _whole_records(raw):
        first, start, length = struct.unpack_from("<3Q", head, 8)
        key = resume_key(head)
        if key is not None:
            place = "bonus" if head[0] == RecordType.OBJECT else str(key[1])
            found.setdefault(str(key[0]), {})[place] = hashlib.sha256(payload).hexdigest()[:16]
        elif head[0] == RecordType.FREE:
            digests = found.get(str(first), {})
            for place in [each for each in digests if each != "bonus" and 0 <= int(each) - start < length]:
                del digests[place]
    return found


def _joined(kept: list[list[Any]], rest: list[list[Any]]) -> list[list[Any]]:
    """What was kept, and what continues it, which begins with the last record once more."""
    if not kept:
        return rest
    again = next((index for index, each in enumerate(rest) if each == kept[-1]), None)
    if again is None or again > 3:
        _die("cannot receive resume stream: it does not begin where the target ends")
    return kept + rest[again + 1 :]


def _reached(state: dict[str, Any], top: str, *, deep: bool) -> list[str]:
    """A dataset and, with `deep`, all below it."""
    return sorted(each for each in state["datasets"] if each == top or (deep and each.startswith(f"{top}/")))


def _get_local(state: dict[str, Any], rest: list[str]) -> None:
    """`get -s local -o name,property` or with the values, as they are, `all`, of datasets."""
    place = rest.index("-o") + 1
    for name in rest[place + 2 :]:
        if name not in state["datasets"]:
            _die(f"cannot open '{name}': dataset does not exist")
        for key, value in state["datasets"][name]["properties"].items():
            print("\t".join([name, key, *([value] if rest[place].endswith("value") else [])]))


def _get(state: dict[str, Any], rest: list[str]) -> None:
    """`get -o name,property,value`, of filesystems and volumes."""
    place = rest.index("-o") + 2
    for top in rest[place + 1 :]:
        if state["datasets"][top]["type"] not in rest[rest.index("-t") + 1].split(","):
            _die(f"cannot open '{top}': operation not applicable to datasets of this type")
        for name in _reached(state, top, deep="-r" in rest):
            about = state["datasets"][name]
            encrypted = about["encrypted"]
            known = {
                "receive_resume_token": about.get("kept", {}).get("token", "-"),
                "encryption": "aes-256-gcm" if encrypted else "off",
                "encryptionroot": about.get("root", name) if encrypted else "-",
                "keyformat": about.get("keyformat", "passphrase") if encrypted else "none",
                "pbkdf2salt": about.get("salt", "0") if encrypted else "-",
                "available": str(about.get("available", 1 << 40)),
                "keylocation": about.get("keylocation", "prompt") if encrypted else "none",
                "acltype": "off",
                "xattr": "sa",
                **dict.fromkeys(["quota", "refquota", "reservation", "refreservation"], "0"),
            }
            here = about["properties"] if "local" in rest else {**known, **about["properties"]}
            for each in rest[place].split(","):
                if ":" in each:  # a user property, with its source
                    print("\t".join([name, each, *_user_property(state, name, each)]))
                elif each in here:
                    received = [about.get("received", {}).get(each, "-")] if "received" in rest[place - 1] else []
                    print("\t".join([name, each, here[each], *received]))


def _user_property(state: dict[str, Any], name: str, key: str) -> tuple[str, str]:
    """Value and source of a user property. `sources`: of those that were not set on the dataset itself."""
    about = state["datasets"].get(name, {"properties": {}})
    if key in about["properties"]:
        return about["properties"][key], about.get("sources", {}).get(key, "local")
    above = name.rpartition("/")[0]
    if not above:
        return "-", "-"
    value, source = _user_property(state, above, key)
    return value, f"inherited from {above}" if source in {"local", "received"} else source


def _refuse(state: dict[str, Any], what: str, rest: list[str]) -> None:
    """What a pool cannot do, in the words of OpenZFS 2.4."""
    places = {"snapshot": -1, "hold": -1, "release": -1, "bookmark": 1, "destroy": 0}
    if what not in places:
        return
    pool = re.split("[/@#]", rest[places[what]])[0]
    about = state.get("pools", {}).get(pool, {})
    marks = "bookmark" if "#" in rest[0] else "snapshots"
    words = {
        "snapshot": "cannot create snapshots ",
        "bookmark": f"cannot create bookmark '{rest[-1]}'",
        "destroy": f"cannot destroy {marks}",
    }
    if about.get("readonly"):
        _die(f"{words.get(what, f'cannot {what}')}: pool is read-only")
    if what == "bookmark" and not about.get("bookmarks", True):
        _die(f"cannot create bookmark '{rest[1]}': bookmark feature not enabled")


def _run(state: dict[str, Any], arguments: list[str], raw: bytes = b"") -> None:
    what, rest = arguments[0], arguments[1:]
    for text, how in state["fail"].items():
        if text in shlex.join(arguments) and how.startswith("warning: "):
            print(how, file=sys.stderr)
        elif text in shlex.join(arguments) and how == "hang":
            raise _Hangs
        elif text in shlex.join(arguments) and how not in {"cut", "stall"}:
            _die(how)
    _refuse(state, what, rest)
    match what:
        case "version":
            print("zfs-2.4.4-fake\nzfs-kmod-2.4.4-fake")
        case "list":
            _list(state, rest)
        case "send":
            _send(state, rest)
        case "get":
            if "all" in rest and any(each.startswith("name,property") for each in rest):
                _get_local(state, rest)
            elif any(each.startswith("name,property,value") for each in rest):
                _get(state, rest)
            elif any(each.startswith("written") for each in rest):
                print(4096)
            else:
                for name, value in state["datasets"][rest[-1]]["properties"].items():
                    print(f"{name}\t{value}")
        case "snapshot":
            names = [each for each in rest if each != "-r"]
            if "-r" in rest:
                dataset, _, short = names[0].partition("@")
                names = [f"{each}@{short}" for each in _reached(state, dataset, deep=True)]
            _snapshot_all(state, names)
        case "hold":
            errors = []
            for name in rest[1:]:
                held = _holding(state, name)["holds"] if _exists(state, name) else None
                if held is None or rest[0] in held:
                    why = "dataset does not exist" if held is None else "tag already exists on this dataset"
                    errors.append(f"cannot hold snapshot '{name}': {why}")
                else:
                    held.append(rest[0])
            if errors:
                _die("\n".join(errors))
        case "holds":
            missing = [name for name in rest[1:] if not _exists(state, name)]
            for name in rest[1:]:
                for tag in () if name in missing else _holding(state, name)["holds"]:
                    print(f"{name}\t{tag}\tTue Nov 24 02:00 2026")
            if missing:
                _die("\n".join(f"cannot open '{name}': dataset does not exist" for name in missing))
        case "release":
            for name in rest[1:]:
                _holding(state, name)["holds"].remove(rest[0])
        case "bookmark":
            snapshot = _find(state, rest[0])
            dataset, _, short = rest[1].partition("#")
            state["datasets"][dataset]["bookmarks"].append({**snapshot, "name": short})
        case "destroy":
            _destroy(state, rest[0])
        case "create":
            if rest[-1].rpartition("/")[0] not in state["datasets"]:
                _die(f"cannot create '{rest[-1]}': parent does not exist")
            above = state["datasets"][rest[-1].rpartition("/")[0]]
            if not above["key_loaded"]:
                _die(f"cannot create '{rest[-1]}': encryption root's key is not loaded or provided")
            _create(state, rest[-1], properties=_set(rest), encrypted=above["encrypted"])
        case "rename":
            old, new = rest
            if _exists(state, new):
                _die(f"cannot rename '{old}': dataset already exists")
            _holding(state, old)["name"] = new.partition("@")[2]
        case "rollback":
            dataset, _, short = rest[0].partition("@")
            found = state["datasets"][dataset]
            if found["snapshots"][-1]["name"] != short:
                _die(f"cannot rollback to '{rest[0]}': more recent snapshots or bookmarks exist")
            found["written"] = 0
        case "inherit":
            *options, name, top = rest
            if name in {"quota", "refquota", "reservation", "refreservation"} and "-S" not in options:
                _die(f"'{name}' property cannot be inherited\nuse 'zfs set {name}=none' to clear")
            for each in _reached(state, top, deep="-rS" in options):
                state["datasets"][each]["properties"].pop(name, None)
        case "set":
            pairs = [each for each in rest if "=" in each]
            for name, pair in itertools.product(rest[len(pairs) :], pairs):
                key, _, value = pair.partition("=")
                is_quota = key in {"quota", "refquota", "reservation", "refreservation"}
                state["datasets"][name]["properties"][key] = "0" if is_quota and value == "none" else value
        case "load-key":
            if "-n" not in rest:
                state["datasets"][rest[-1]]["key_loaded"] = True
        case "receive":
            _receive(state, rest, raw)
        case _:
            _die(f"unrecognized command '{what}'")


def _sync(state: dict[str, Any], pool: str) -> None:
    for name, about in state["datasets"].items():
        if name.partition("/")[0] == pool and "unsynced" in about:
            about["written"] = about.pop("unsynced")


def main(folder: Path, program: str, arguments: list[str]) -> None:
    fake = FakeZfs(folder)
    with (folder / "commands").open("a") as commands:
        prefix = "" if program == "zfs" else f"{program} "
        commands.write(prefix + shlex.join(arguments) + "\n")
    if program == "zpool":
        state = json.loads((folder / "state.json").read_text())
        if arguments[0] == "list":
            for pool in _pools(state):
                print(f"{pool}\t{state.get('pools', {}).get(pool, {}).get('health', 'ONLINE')}")
        if arguments[0] == "sync" and any("unsynced" in each for each in state["datasets"].values()):
            fake.edit(lambda state: _sync(state, arguments[1]))
        if arguments[0] == "get":
            for pool in _pools(state):
                about = state.get("pools", {}).get(pool, {})
                print(f"{pool}\treadonly\t{'on' if about.get('readonly') else 'off'}")
                print(f"{pool}\tfeature@bookmarks\t{'enabled' if about.get('bookmarks', True) else 'disabled'}")
        return
    try:
        if arguments[0] == "send":  # without the lock: it may wait for its reader
            _run(json.loads((folder / "state.json").read_text()), arguments)
        elif arguments[0] == "receive":
            raw = sys.stdin.buffer.read()
            fake.edit(lambda state: _run(state, arguments, raw))
        else:
            fake.edit(lambda state: _run(state, arguments))
    except _Hangs:
        while True:  # until it is killed
            select.select([], [], [])


# --- how it is started ------------------------------------------------------------------------------------------------
#
# A test runs the program dozens of times, and what it imports takes longer than what it does. So what is started only
# asks a server, which has imported all that, for a fork of itself, and hands it its stdin, stdout and stderr.

_CLIENT: Final = """\
import _socket, os, sys
server = _socket.socket(_socket.AF_UNIX)
server.connect("\\0" + sys.argv[1])
said = os.fsencode("\\0".join([os.getcwd(), *sys.argv[2:]]))
fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in range(3))
server.sendmsg([len(said).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
server.sendall(said)
os._exit((server.recv(1) or b"\\1")[0])
"""


@functools.cache
def _served() -> str:
    """Start the server, once in this process, at whose end it ends. Returns: its address, in the abstract namespace."""
    root = Path(__file__).resolve().parent.parent
    path = os.pathsep.join([str(root), *filter(None, sys.path)])
    address = f"fullsend-fakezfs-{secrets.token_hex(8)}"
    server = subprocess.Popen(
        [sys.executable, "-S", "-m", "tests.fakezfs", address],  # without `site`, which would start coverage
        env={**os.environ, "PYTHONPATH": path, "LC_ALL": "C"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(server.communicate)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return address


def _serve(address: str) -> None:
    """Fork for each client, until stdin is closed."""
    from tests import resumed  # noqa: F401 - and with it what else the forks need

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + address)
        server.listen(64)
        print("ready", flush=True)
        while server in select.select([server, sys.stdin], [], [])[0]:
            client, _address = server.accept()
            with client:
                if not os.fork():
                    server.close()
                    _answer(client)


def _answer(client: socket.socket) -> NoReturn:
    """Do what one client was started for, and end as it shall."""
    code = 1
    try:
        # To kill the client is to kill this program: SIGIO ends it when the client's socket is closed.
        fcntl.fcntl(client, fcntl.F_SETOWN, os.getpid())
        length, fds, *_rest = socket.recv_fds(client, 4, 3)
        said = b""
        while len(said) < int.from_bytes(length, "big"):
            said += client.recv(1 << 20)
        fcntl.fcntl(client, fcntl.F_SETFL, fcntl.fcntl(client, fcntl.F_GETFL) | os.O_ASYNC)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        cwd, folder, program, *arguments = os.fsdecode(said).split("\0")
        os.chdir(cwd)
        main(Path(folder), program, arguments)
        sys.stdout.flush()
        code = 0
    except SystemExit as end:
        sys.stdout.flush()
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as Python itself does at the end
        traceback.print_exc()
    finally:
        client.send(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
