"""The requests of one connection, sent byte by byte to a real daemon: identity, what is stored, give it back."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import streams
from tests.receiver.helpers import chunks_of, finish_of, long_stream, push_of
from tests.receiver.peer import CHUNK, CONTROL, Peer, chunks, control, finish, make_certificate, offer
from tests.receiver.running import MIB, Receiver, serving, wait_until

from fullsend_protocol import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GUID: Final = streams.GUID
FULL: Final = streams.substream(streams.object_(1), streams.write(1, 0, b"full" * 1024))
INCREMENT: Final = streams.substream(
    streams.object_(1), streams.write(1, 0, b"more" * 1024), name="tank/data@later", guid=GUID + 1, base_guid=GUID
)


@pytest.fixture(scope="module")
def serving_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with serving(tmp_path_factory.mktemp("session"), "alpha", "beta") as receiver:
        yield receiver


@pytest.fixture
def receiver(serving_all: Receiver) -> Iterator[Receiver]:
    """The daemon, with nothing stored."""
    for name in ("alpha", "beta"):
        shutil.rmtree(serving_all.store / name, ignore_errors=True)
    (serving_all.store / ".state/scrub.jsonl").unlink(missing_ok=True)
    shutil.rmtree(serving_all.store / ".state/scrub", ignore_errors=True)
    with serving_all.all_closed():
        yield serving_all
    serving_all.check_log()


def stranger(receiver: Receiver) -> Peer:
    peer = Peer(receiver.port)
    peer.hear("hello")
    return peer


def listed(peer: Peer, dataset: str | None = None) -> list[dict[str, Any]]:
    peer.say("list", dataset=dataset)
    entries = []
    while (answer := peer.hear("entries", "done"))["type"] == "entries":
        entries += answer["entries"]
    return entries


def verified(peer: Peer, dataset: str | None = None) -> list[dict[str, Any]]:
    peer.say("verify", dataset=dataset)
    verdicts = []
    while (answer := peer.hear("verdict", "done"))["type"] == "verdict":
        verdicts.append(answer)
    return verdicts


def refused(receiver: Receiver, said: dict[str, Any], name: str = "alpha") -> str:
    """Ask for something, and be refused."""
    with receiver.peer(name) as peer:
        peer.write(control(said))
        return peer.refusal()


def fetch(stream: str) -> dict[str, Any]:
    return {"type": "fetch", "stream": stream, "offset": 0, "until": None}


# --- who is there ----------------------------------------------------------------------------------------------


def test_the_receiver_speaks_first_and_says_whom_it_sees(receiver: Receiver) -> None:
    said = {"type": "hello", "program": f"fullsendd {__version__}", "versions": [1]}
    with Peer(receiver.port) as unknown, Peer(receiver.port, receiver.senders["alpha"]) as known:
        assert unknown.hear("hello") == {**said, "sender": None}
        assert known.hear("hello") == {**said, "sender": "alpha", "features": ["pipelined"]}


def test_a_later_senders_hello_may_say_more(receiver: Receiver) -> None:
    with Peer(receiver.port, receiver.senders["alpha"]) as peer:
        peer.hear("hello")
        peer.say("hello", program="fullsend 9\x1b[2J", version=1, mood="fine")
        assert listed(peer) == []
    receiver.wait_log("alpha (127.0.0.1): connected, fullsend 9\\x1b[2J")


def test_a_sender_that_speaks_no_version_in_common_may_say_so(receiver: Receiver) -> None:
    with Peer(receiver.port, receiver.senders["alpha"]) as peer:
        peer.hear("hello")
        peer.say("error", code="version", message="too old for me")
        peer.expect_end()
    receiver.wait_log("alpha (127.0.0.1): gave up: too old for me")


def test_anybody_may_ask_whether_a_certificate_is_known(receiver: Receiver) -> None:
    for fingerprint, status in ((receiver.senders["alpha"].fingerprint, "enrolled"), ("0" * 64, "unknown")):
        with stranger(receiver) as peer:
            peer.say("known?", fingerprint=fingerprint)
            assert peer.hear("known") == {"type": "known", "status": status}
            peer.expect_end()  # one frame, and nothing else


# --- joining ---------------------------------------------------------------------------------------------------


def join(receiver: Receiver, secret: str, certificate: str) -> dict[str, Any]:
    with stranger(receiver) as peer:
        peer.say("join", secret=secret, certificate=certificate)
        return peer.hear("joined", "error")


def test_an_invitation_lets_in_once(receiver: Receiver, tmp_path: Path) -> None:
    first, second = (make_certificate(tmp_path / f"{name}.pem") for name in ("first", "second"))
    secret = receiver.secret("once")
    assert join(receiver, secret, first.pem) == {"type": "joined", "sender": "once", "store": "store"}
    receiver.wait_log(f"127.0.0.1: joined as once, certificate {first.fingerprint}")
    again = join(receiver, secret, second.pem)
    assert again["code"] == "invitation"
    assert again["message"].startswith("this invitation has been used: ")
    # Who did not hear the answer may ask again.
    assert join(receiver, secret, first.pem)["type"] == "joined"
    with Peer(receiver.port, first) as peer:
        assert peer.hear("hello")["sender"] == "once"


def test_an_invitation_that_was_never_made_or_has_expired_lets_nobody_in(receiver: Receiver, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "late.pem")
    forged = join(receiver, "forged", certificate.pem)
    assert (forged["code"], forged["message"].partition(":")[0]) == (
        "invitation",
        "this invitation is not known here",
    )
    expired = join(receiver, receiver.secret("late", "--expires", "0s"), certificate.pem)
    assert (expired["code"], expired["message"].partition(":")[0]) == ("invitation", "this invitation has expired")


@pytest.mark.parametrize("certificate", ["nothing", "garbage", "two", "spoilt"])
def test_what_is_no_certificate_is_not_enrolled(certificate: str, receiver: Receiver, tmp_path: Path) -> None:
    pem = make_certificate(tmp_path / "good.pem").pem
    shown = {"nothing": "", "two": pem + pem, "spoilt": pem[:200] + "AAAA" + pem[204:]}.get(certificate, certificate)
    secret = receiver.secret(certificate)
    assert join(receiver, secret, shown)["code"] == "invitation"
    assert join(receiver, secret, pem)["type"] == "joined"  # the invitation is still good


# --- what is stored --------------------------------------------------------------------------------------------


def test_requests_follow_on_one_another_over_one_connection(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        assert listed(peer) == []
        receipt = peer.give(FULL)
        assert [entry["file"] for entry in listed(peer)] == [receipt["file"]]
        assert [verdict["damage"] for verdict in verified(peer)] == [[]]
        peer.say("fetch", offset=0, stream="tank/data@now", until=None)
        assert peer.fetched()[1] == FULL
        peer.say("check")
        health = peer.hear("health")
        assert (health["program"], health["problems"]) == (f"fullsendd {__version__}", [])
        assert health["free_bytes"] > 0
        peer.expect_end()


def test_the_next_request_may_come_with_the_end_of_the_last(receiver: Receiver) -> None:
    """A peer that has read `done` may ask at once; nothing of what it says may get lost."""
    with receiver.peer() as peer:
        peer.give(FULL)
        for _ in range(50):
            assert len(listed(peer)) == 1


def test_the_next_push_may_follow_finish_at_once(receiver: Receiver) -> None:
    """Also on the base that the stream before is: it is judged when its turn has come."""
    offers = [{"type": "push", **push_of(raw).model_dump()} for raw in (FULL, INCREMENT)]
    with receiver.peer() as peer:
        assert peer.hello["features"] == ["pipelined"]
        peer.push(offers[0])
        ahead = [chunk.encode() for chunk in chunks([FULL])] + [control(each) for each in (finish(FULL), offers[1])]
        peer.write(b"".join(ahead))
        first = peer.hear_after_acks("committed")["receipt"]
        assert peer.hear("accept")["offset"] == 0
        peer.write(
            b"".join(chunk.encode() for chunk in chunks([INCREMENT])) + control(finish(INCREMENT)) + control(offers[0])
        )
        second = peer.hear_after_acks("committed")["receipt"]
        assert (first["snapshot"], second["base"], second["restorable"]) == ("now", "tank/data@now", True)
        assert peer.hear("stored")["receipt"] == first
        peer.expect_end()


def bulky_stream() -> bytes:
    """More than sockets hold between the two: an answer with it is not over before its reader has read."""
    some = random.Random(1)
    return streams.substream(streams.object_(1), *[streams.write(1, at << 20, some.randbytes(MIB)) for at in range(48)])


def test_a_request_amid_an_answer_ends_it_by_name(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        peer.give(long := bulky_stream(), {"type": "push", **push_of(long).model_dump()}, pieces(long))
    with receiver.peer() as peer:
        peer.say("fetch", offset=0, stream="guid:" + str(GUID), until=None)
        peer.hear("sending")
        peer.say("list", dataset=None)
        while (frame := peer.read())[0] == CHUNK:
            pass
        error = json.loads(frame[-1])
        assert (frame[0], error["code"]) == (CONTROL, "protocol")
        assert error["message"] == "'list' from the sender in state sending"
        peer.expect_end()


def pieces(raw: bytes) -> list[bytes]:
    found = [raw[chunk.raw_offset : chunk.raw_offset + chunk.raw_length] for chunk in chunks_of(raw)]
    assert b"".join(found) == raw
    assert finish_of(raw).model_dump() == finish(raw)
    return found


@pytest.mark.parametrize("last_word", ["error", "nothing"])
def test_a_reader_may_go_amid_an_answer(last_word: str, receiver: Receiver) -> None:
    with receiver.peer() as peer:
        peer.give(long := bulky_stream(), {"type": "push", **push_of(long).model_dump()}, pieces(long))
    before = receiver.log
    with receiver.peer() as peer:
        peer.say("fetch", offset=0, stream="guid:" + str(GUID), until=None)
        peer.hear("sending")
        if last_word == "error":
            peer.say("error", code="internal", message="zfs receive died")
            # To go with unread chunks is a reset, which may overtake the message.
            assert peer.has_ended()
    expected = "gave up: zfs receive died" if last_word == "error" else "alpha (127.0.0.1): the connection"
    wait_until(lambda: expected in receiver.log.removeprefix(before), f"{expected} in the log")


def test_a_long_list_comes_in_pages(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        folder = receiver.store / peer.give(FULL)["file"]
        manifest = json.loads((path := folder.with_name(folder.name + ".json")).read_text(encoding="utf-8"))
        for number in range(1, 450):
            name = folder.with_name(f"@{number}.{number:016x}.full.zfs.zst")
            os.link(folder, name)
            copy = {**manifest, "snapshot": str(number), "guid": str(number)}
            name.with_name(name.name + ".json").write_text(json.dumps(copy), encoding="utf-8")
        assert path.exists()
        peer.say("list", dataset=None)
        sizes = []
        while (answer := peer.hear("entries", "done"))["type"] == "entries":
            sizes.append(len(answer["entries"]))
        assert sizes == [200, 200, 50]
        assert len({entry["guid"] for entry in listed(peer)}) == 450


def test_a_stream_is_named_by_snapshot_guid_or_file(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        file = peer.give(FULL)["file"]
        for name in ("tank/data@now", f"guid:{GUID}", file, file.rpartition("/")[2]):
            peer.say("fetch", offset=0, stream=name, until=None)
            manifest, raw = peer.fetched()
            assert raw == FULL
            assert (manifest["dataset"], manifest["snapshot"], manifest["guid"]) == ("tank/data", "now", str(GUID))


def test_a_name_that_fits_nothing_or_two_is_refused(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        peer.give(FULL)
        peer.give(streams.substream(features={19}), offer())
    assert refused(receiver, fetch("tank/data@then")) == (
        "not-found: tank/data@then: no such stream is stored (see `list`)"
    )
    ambiguous = refused(receiver, fetch("tank/data@now"))
    assert ambiguous.startswith("ambiguous: tank/data@now: 2 streams fit; name one by its file: alpha/tank/data/@now.")


def test_no_sender_sees_what_is_anothers(receiver: Receiver) -> None:
    with receiver.peer("beta") as owner:
        file = owner.give(FULL)["file"]
    # A folder of its own, so that there is a way to walk up from.
    with receiver.peer() as peer:
        peer.give(INCREMENT, offer(snapshot="later"))
        assert [entry["sender"] for entry in listed(peer)] == ["alpha"]
        assert listed(peer)[0]["restorable"] is False  # nor does it rest on what its own host cannot read
        assert [verdict["snapshot"] for verdict in verified(peer)] == ["later"]
        for dataset in ("beta", "beta/tank/data", "../beta/tank/data", "tank/data/../../../beta/tank/data", ".."):
            assert listed(peer, dataset) == []
            assert verified(peer, dataset) == []
    absolute = str(receiver.store / file)
    for name in (
        "tank/data@now",
        "beta/tank/data@now",
        f"guid:{GUID}",
        file,
        file.rpartition("/")[2],
        f"../{file}",
        f"alpha/../{file}",
        f"alpha/tank/data/../../../{file}",
        absolute,
        "../../../../etc/passwd",
        "../.state/key.pem",
    ):
        assert refused(receiver, fetch(name)) == f"not-found: {name}: no such stream is stored (see `list`)"


def test_a_sender_learns_nothing_of_others_by_pushing_what_they_have(receiver: Receiver) -> None:
    said = {"type": "push", **push_of(FULL).model_dump()}
    with receiver.peer("beta") as owner:
        owner.give(FULL, said)
        owner.write(control(said))
        owner.hear("stored")
    with receiver.peer() as peer:
        peer.give(FULL, said)  # accepted, and sent in full


# --- damage ----------------------------------------------------------------------------------------------------


def spoil(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_verify_names_what_is_damaged_and_what_that_breaks(receiver: Receiver) -> None:
    with receiver.peer() as peer:
        file = peer.give(FULL)["file"]
        later = peer.give(INCREMENT, offer(snapshot="later"))["file"]
        assert [entry["restorable"] for entry in listed(peer)] == [True, True]
        spoil(receiver.store / file, 40)
        verdicts = {verdict["file"]: verdict["damage"] for verdict in verified(peer, "tank/data")}
        assert verdicts[later] == []
        first, *rest = verdicts[file]
        assert first.startswith(f"chunk 0 (raw bytes 0 to {len(FULL)}): ")
        assert rest[-1] == f"breaks {later}"
        after = {entry["file"]: (entry["restorable"], bool(entry["damaged"])) for entry in listed(peer)}
        assert after == {file: (False, True), later: (False, False)}
    receiver.wait_log(f"{file}: damaged: chunk 0 (raw bytes 0 to {len(FULL)}): ")


def test_no_receipt_stands_for_a_stream_that_is_known_to_be_damaged(receiver: Receiver) -> None:
    said = {"type": "push", **push_of(FULL).model_dump()}
    with receiver.peer() as peer:
        file = peer.give(FULL, said)["file"]
        spoil(receiver.store / file, 40)
        verified(peer)
    with receiver.peer() as peer:
        peer.give(FULL, said)  # it is taken, and replaces the damaged one
        assert [entry["damaged"] for entry in listed(peer)] == [None]
        spoil(receiver.store / file, 40)
        verified(peer)
        peer.give(FULL)  # as a package is pushed: what it is shows at its end only
        assert [entry["damaged"] for entry in listed(peer)] == [None]
    receiver.wait_log(f"{file}: was damaged (chunk 0 ")


def test_a_peer_is_told_the_iv_sets_of_raw_streams_only_if_it_understands_them(receiver: Receiver) -> None:
    raw = streams.encrypted(name="tank/keys@2", guid=2, base_guid=1, ivset_guid=12, base_ivset_guid=11)
    with receiver.peer() as peer:
        peer.give(raw, {"type": "push", **push_of(raw).model_dump()})
    for features, told in ([], {}), (["ivsets"], {"ivset_guid": "12", "base_ivset_guid": "11"}):
        with Peer(receiver.port, receiver.senders["alpha"]) as peer:
            peer.hear("hello")
            peer.say("hello", program="raw peer", version=1, features=features)
            peer.say("list", dataset="tank/keys")
            (entry,) = peer.hear("entries")["entries"]
            assert {name: entry[name] for name in ("ivset_guid", "base_ivset_guid") if name in entry} == told


@pytest.mark.slow
def test_a_peer_is_told_what_it_understands_and_no_more(tmp_path: Path) -> None:
    """A later key would end the connection of a peer that does not know it."""
    receiver = Receiver(tmp_path / "receiver")
    receiver.init(quota="40K", warn_at="1%")
    receiver.start()
    try:
        receiver.enrol("alpha")
        with receiver.peer() as peer:
            file = peer.give(FULL)["file"]
        for features in ([], ["warnings"], ["repair"], ["scrub"], ["repair", "later", "warnings", "scrub"]):
            spoil(receiver.store / file, 40)
            with receiver.peer() as peer:
                verified(peer)
            with Peer(receiver.port, receiver.senders["alpha"]) as peer:
                peer.hear("hello")
                peer.say("hello", program="raw peer", version=1, features=features)
                peer.say("check")
                health = peer.hear("health")
                assert ("warnings" in health) is ("warnings" in features)
                assert ("scrub" in health) is ("scrub" in features)
                peer.say("bases?")
                told = peer.hear("bases", "done")
                assert ("damaged" in told) is ("repair" in features)
                if told["type"] == "bases":
                    peer.hear("done")
                peer.push()
                for chunk in chunks([FULL]):
                    peer.write(chunk.encode())
                peer.write(control(finish(FULL)))
                while (answer := peer.hear("ack", "committed"))["type"] == "ack":
                    pass
                assert ("replaced" in answer) is ("repair" in features)
        assert receiver.stop() == 0
    finally:
        if receiver.process is not None:
            receiver.stop(signal.SIGKILL)


def test_no_receipt_stands_for_a_file_that_is_gone(receiver: Receiver) -> None:
    said = {"type": "push", **push_of(FULL).model_dump()}
    with receiver.peer() as peer:
        file = peer.give(FULL, said)["file"]
    (receiver.store / file).unlink()
    with receiver.peer() as peer:
        peer.give(FULL, said)
        assert (receiver.store / file).exists()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "the file is missing"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "no seek table at the end"),
        (lambda path: os.truncate(path, 0), "no seek table at the end"),
        (lambda path: spoil(path, path.stat().st_size - 60), ""),
    ],
    ids=["gone", "cut", "empty", "the seek table"],
)
def test_a_stream_that_cannot_be_given_back_whole_is_refused_by_name(
    damage: Any, expected: str, receiver: Receiver
) -> None:
    with receiver.peer() as peer:
        file = peer.give(FULL)["file"]
        damage(receiver.store / file)
        peer.say("fetch", offset=0, stream="tank/data@now", until=None)
        peer.hear("sending")
        assert peer.refusal().startswith(f"damaged: {file}: {expected}")
    receiver.wait_log(f"alpha (127.0.0.1): {file}: {expected}")


@pytest.mark.parametrize("claimed", [1, 1 << 40])
def test_a_manifest_that_says_something_else_than_its_file_is_damage(claimed: int, receiver: Receiver) -> None:
    with receiver.peer() as peer:
        file = peer.give(FULL)["file"]
        path = receiver.store / f"{file}.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**manifest, "raw_bytes": claimed}), encoding="utf-8")
        peer.say("fetch", offset=0, stream="tank/data@now", until=None)
        peer.hear("sending")
        while (frame := peer.read())[0] == CHUNK:
            pass
        error = json.loads(frame[-1])
        assert error["code"] == "damaged"
        assert error["message"].endswith(f"its manifest says {claimed}")
        peer.expect_end()


def test_check_tells_of_what_is_wrong_with_ones_own_streams_alone(receiver: Receiver) -> None:
    with receiver.peer("beta") as other:
        (receiver.store / f"{other.give(FULL)['file']}.json").unlink()
    with receiver.peer() as peer:
        peer.say("check")
        assert peer.hear("health")["problems"] == []
        file = peer.give(FULL)["file"]
        (receiver.store / f"{file}.json").write_text("garbage", encoding="utf-8")
        peer.say("check")
        (problem,) = peer.hear("health")["problems"]
        assert problem.startswith(f"{file}.json: cannot be read: ")


@pytest.mark.slow
def test_a_verify_that_nobody_waits_for_stops(receiver: Receiver) -> None:
    """One stream is checked at a time; the next in line must not wait for what nobody wants to know any more."""
    long = long_stream(40)
    with receiver.peer() as peer:
        peer.give(long, {"type": "push", **push_of(long).model_dump()}, pieces(long))
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(receiver.peer()).say("verify", dataset=None)
    with receiver.peer("beta") as peer:
        peer.give(FULL)
        assert [verdict["damage"] for verdict in verified(peer)] == [[]]
    assert len(long) > 150 * MIB
