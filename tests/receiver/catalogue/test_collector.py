from __future__ import annotations

import gc

import pytest

from fullsend_receiver.catalogue.collector import collector_off


def test_collector_is_off_inside_and_back_on_afterwards() -> None:
    assert gc.isenabled()
    with collector_off():
        assert not gc.isenabled()
        with collector_off():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_off():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_collector_is_back_on_after_an_error() -> None:
    with pytest.raises(RuntimeError), collector_off():
        raise RuntimeError
    assert gc.isenabled()
