from __future__ import annotations

from pathlib import Path

from bench.measure import STORAGE, ZFS_HOST, Cost, Run
from bench.plot import Chart, Line
from bench.report import OWN_CORES, Budget, Results, Table, chart_links, render, write_charts
from bench.stages import Costs, Stage

GIB = 1 << 30


def a_run(seconds: float, stored: int = 0) -> Run:
    return Run(seconds, Cost(3.0, 1), Cost(1.5, 1), 0, 0, stored)


def test_rows_of_both_placements_are_in_tables_of_their_own() -> None:
    results = Results(GIB, 1, "memory")
    results.add("pinned-push", "pushed apart", GIB, a_run(2), OWN_CORES)
    results.add("push", "pushed together", GIB, a_run(1))
    text = render(results)
    together, _, apart = text.partition(f"### {OWN_CORES}")
    assert "pushed together" in together
    assert "pushed apart" not in together
    assert "pushed apart" in apart


def test_a_limit_of_a_ratio_is_that_of_its_median_and_a_limit_else_that_of_its_worst() -> None:
    assert Budget("x", 1.1, [1.0, 1.05, 3.0], at_least=False, ratio=True).verdict == "met"
    assert Budget("x", 1.1, [1.0, 1.05, 3.0], at_least=False).verdict == "**not met**"
    assert Budget("x", 1.1, [1.2], at_least=False, ratio=True).verdict == "**not met**"


def test_where_each_figure_counts_one_that_misses_is_enough() -> None:
    assert Budget("x", 0.9, [0.8, 1.0, 1.1]).verdict == "met"
    assert Budget("x", 0.9, [0.8, 1.0, 1.1], each=True).verdict == "**not met**"
    assert Budget("x", 0.9, [0.91, 1.0], each=True).verdict == "met"


def test_stored_bytes_are_compared_repetition_by_repetition() -> None:
    results = Results(GIB, 2, "memory")
    for level3, auto in ((100, 105), (100, 120)):
        results.add("push", "push", GIB, a_run(1, level3))
        results.add("auto", "auto", GIB, a_run(1, auto))
    results.stored_ratio("auto", 1.1, "push", "auto")
    assert results.budgets[0].figures == [1.05, 1.2]
    assert results.budgets[0].verdict == "**not met**"


def test_whole_programs_stand_below_the_sum_of_their_stages_both_ways() -> None:
    results = Results(GIB, 1, "memory")
    stages = [Stage(ZFS_HOST, "hash", 1.25), Stage(ZFS_HOST, "send", 0.5), Stage(STORAGE, "write", 1.0)]
    results.costs["compressible"] = Costs(stages, stages[:1], [], [], feed=0, ratio=1)
    results.add("push", "push", GIB, a_run(1))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in render(results).splitlines()]
    assert ["ZFS host: hash", "1.25", "1.25"] in lines
    assert ["ZFS host: send", "0.50", ""] in lines
    assert ["ZFS host: sum of these", "1.75", "1.25"] in lines
    assert ["ZFS host: the program as a whole", "3.00", ""] in lines
    assert ["storage host: the program as a whole", "1.50", ""] in lines


def test_a_start_is_what_a_push_of_almost_nothing_takes() -> None:
    results = Results(GIB, 1, "memory")
    results.add("push", "push", GIB, a_run(1))
    assert results.without_start(results.rows["push"], ZFS_HOST) == [3.0]
    results.add("tiny", "tiny", GIB >> 10, Run(0.3, Cost(0.25, 1), Cost(0.5, 1), 0, 0))
    assert results.without_start(results.rows["push"], ZFS_HOST) == [2.75]
    assert results.without_start(results.rows["push"], STORAGE) == [1.0]


def test_tables_and_charts_of_parts_are_shown(tmp_path: Path) -> None:
    results = Results(GIB, 1, "memory")
    results.tables.append(Table("By level", ["", "MB/s"], [["level 3", "99"]], "One run."))
    results.charts["levels"] = Chart("Levels", "level", "MB/s", [Line("a", [(1, 2)])])
    assert "### By level" in render(results)
    assert "One run." in render(results)
    results.charts["year"] = results.charts["levels"]
    assert chart_links("plots", results) == "\n![Levels](plots/levels.svg)\n"
    file, _year = write_charts(tmp_path / "plots", results)
    assert file.name == "levels.svg"
    assert "Levels" in file.read_text(encoding="utf-8")
