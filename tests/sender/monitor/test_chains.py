from __future__ import annotations

from typing import Any

from fullsend_protocol.wire.messages import Base
from fullsend_sender.host.options import FullAfter
from fullsend_sender.monitor.chains import LONG, endless_chains, hints

DAY = 86400
NOW = 1_790_000_000.0  # 2026-09-21


def base(dataset: str, streams: int, age: int = 0, **changed: Any) -> Base:
    said = {"guid": str(streams), "base_guid": None, "flags": "Lp", "full_bytes": 1000, "increment_bytes": 0}
    return Base.model_validate({**said, "dataset": dataset, "streams": streams, "age": age * DAY, **changed})


def never(_dataset: str) -> FullAfter:
    return FullAfter()


def test_only_the_chain_that_grows_counts() -> None:
    old = [base("tank/home", each, 500) for each in (1, 411, 412)]
    assert endless_chains(old, never) == [old[-1]]
    assert endless_chains([*old, base("tank/home", 1, 3), base("tank/home", 2, 3)], never) == []
    assert endless_chains([base("tank/home", LONG - 1, 99)], never) == []
    assert endless_chains([base("tank/home", LONG, 99)], never) != []


def test_where_a_setting_ends_it_nothing_is_said() -> None:
    both = [base("tank/a", 300, 300), base("tank/b", 400, 400)]
    assert endless_chains(both, never) == both[::-1]
    limits = {"tank/a": FullAfter(), "tank/b": FullAfter(age=90.0 * DAY)}
    assert endless_chains(both, limits.__getitem__) == both[:1]


def test_a_line_a_dataset_and_one_for_the_rest() -> None:
    text = (
        "chain of 412 streams on nas since 2025-10-02: nothing of it can go before a new full, or a merge there: let"
        " the receiver merge, by a policy ([retention]); or set full-after, or run fullsend push --full tank/home"
    )
    assert hints([base("tank/home", 412, 354)], "nas", NOW) == [("tank/home", text)]
    many = endless_chains([base(f"tank/{number}", 200 + number, number) for number in range(1000)], never)
    said = hints(many, "nas", NOW)
    named = [f"tank/{number}" for number in range(999, 994, -1)]
    assert [name for name, _text in said] == [*named, "995 more datasets"]
    assert said[-1][1] == f"have chains of {LONG} to 1194 streams on nas, and no full-after either"
    assert hints([], "nas", NOW) == []
