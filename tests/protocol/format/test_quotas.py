from __future__ import annotations

from tests.sender.restore.test_chains import entry

from fullsend_protocol.format.quotas import HELD, brings_properties, held_back, quotas_of


def test_what_holds_them_back_is_what_is_known_again() -> None:
    assert held_back(quotas_of("volume")) == ["-o", "reservation=1", "-o", "refreservation=1"]
    assert held_back(["quota"]) == ["-o", "quota=4E"]
    assert HELD == {
        "quota": "4611686018427387904",  # 4E, as `zfs get -p` prints it
        "refquota": "4611686018427387904",
        "reservation": "1",
        "refreservation": "1",
    }
    assert set(quotas_of("filesystem")) == set(HELD)


def test_only_a_stream_with_properties_brings_any() -> None:
    assert brings_properties(entry("a@1", 1, flags="Lp"))
    assert brings_properties(entry("a@1", 1, kind="package", flags="L"))
    assert not brings_properties(entry("a@1", 1, flags="Lec"))
