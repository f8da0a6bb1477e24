from __future__ import annotations

import os

import pytest
from bench import ceilings, stages
from bench.ceilings import Action, Lane, Work, action
from bench.measure import STORAGE, ZFS_HOST, Cost, Run
from bench.report import Results, Row
from bench.stages import Costs, Stage

GIB = 1 << 30


def work(end: str, name: str, cpu: float, threads: int = 1) -> Work:
    return Work(Lane(end, name, (), lambda _cores: threads), cpu, cpu)


LINE = Action("push", [work(ZFS_HOST, "read", 1), work(ZFS_HOST, "compress", 6, 4), work(STORAGE, "write", 2)])


@pytest.mark.parametrize(
    ("cores", "seconds", "limit"),
    [
        (1, 7, "ZFS host: all its cores"),
        (2, 3.5, "ZFS host: all its cores"),
        (4, 2, "STORAGE"),
        (16, 2, "STORAGE"),
    ],
)
def test_the_slower_end_limits_where_each_has_its_cores(cores: int, seconds: float, limit: str) -> None:
    found = LINE.apart(cores)
    assert found.seconds == seconds
    assert found.limit == limit.replace("STORAGE", "storage host: write")


@pytest.mark.parametrize(("cores", "seconds"), [(1, 9), (2, 4.5), (3, 3), (9, 2)])
def test_ends_that_share_cores_share_their_work(cores: int, seconds: float) -> None:
    assert LINE.shared(cores).seconds == seconds


def test_a_lane_has_no_more_threads_than_it_makes() -> None:
    wide = Action("push", [work(ZFS_HOST, "compress", 8, 4)])
    assert wide.apart(16).seconds == 2
    assert wide.apart(2).seconds == 4


def test_a_stage_that_uses_two_cores_by_itself_takes_less_time_than_cpu() -> None:
    lane = Lane(ZFS_HOST, "zstd -d", ("decode",), lambda _cores: 1)
    found = action("restore", [lane], [Stage(ZFS_HOST, "decode", 2.0, 1.5)], 0)
    assert found.apart(1).seconds == 2.0
    assert found.apart(4).seconds == 1.5


def test_the_cores_for_a_speed_are_the_fewest_that_reach_it() -> None:
    speed = LINE.apart(3).speed
    assert LINE.cores_for(speed) == 3
    assert LINE.cores_for(speed + 1) == 4
    assert LINE.cores_for(LINE.apart(64).speed + 1) is None


def test_a_stage_that_nobody_measured_is_an_error() -> None:
    with pytest.raises(KeyError):
        action("push", ceilings.PUSH, [], 0.1)


def test_what_is_beyond_the_stages_takes_cores_and_no_lane_of_its_own() -> None:
    found = LINE.beyond({ZFS_HOST: 3.0, STORAGE: -1.0})
    assert found.apart(1).seconds == 10
    assert found.apart(16).seconds == LINE.apart(16).seconds


def measured() -> Costs:
    """Every stage takes 1 s for each GiB."""

    def of(lanes: tuple[Lane, ...]) -> list[Stage]:
        return [Stage(lane.end, name, 1.0) for lane in lanes for name in lane.stages if name != stages.FEED]

    push, restore = of(ceilings.PUSH), of(ceilings.RESTORE)
    return Costs(push, restore, of(ceilings.PEER_PUSH), of(ceilings.PEER_RESTORE), feed=0.5, ratio=2.0)


def test_every_stage_of_a_program_belongs_to_one_lane() -> None:
    for lanes in (ceilings.PUSH, ceilings.RESTORE, ceilings.PEER_PUSH, ceilings.PEER_RESTORE):
        names = [(lane.end, name) for lane in lanes for name in lane.stages]
        assert len(names) == len(set(names))


def test_the_tables_compare_with_what_was_measured_and_name_what_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(GIB, 1, "memory")
    results.costs["compressible"] = measured()
    run = Run(12.0, Cost(9, 1), Cost(7, 1), 0, 0)
    results.rows["push"] = Row("push", GIB, [run])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    ceilings.add(results)
    compared, push, _restore, wires = results.tables
    # 14 stages, half a second of cat, and of the run's 9 + 7 s of CPU what 6 + 8 stages do not explain; on two cores.
    assert compared.rows == [["compressible, 2 cores shared: push", "8.75", "12.00", "1.37", "all cores"]]
    assert push.rows[-1][0] == "**the transfer**"
    assert "ZFS host: reader" in push.legend
    assert wires.rows[0][:2] == ["compressible, 10 Gbit/s: push", "2,362"]
    computed = [budget for budget in results.budgets if "computed" in budget.text]
    assert [budget.bound for budget in computed] == [0.9, 1.0]


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 2), (16, 2)])
def test_the_receiver_decodes_in_so_many_threads_as_its_queue_has_room_for(cores: int, threads: int) -> None:
    (decode,) = (lane for lane in ceilings.PUSH if lane.name == "decode")
    assert decode.threads(cores) == threads
