"""The tables: on stdout, and between two markers in docs/performance.md."""

from __future__ import annotations

import os
import platform
import ssl
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zstandard
from bench import plot
from bench.data import MIB
from bench.measure import STORAGE, ZFS_HOST, BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.measure import Run
    from bench.splice import SplicerSpeed
    from bench.stages import Costs, WalkerSpeed

BEGIN: Final = "<!-- measured: begin (written by `make bench`; do not edit) -->"
END: Final = "<!-- measured: end -->"

_GIB: Final = 1 << 30

#: Charts that the document shows beside the text that they belong to.
_SHOWN_ELSEWHERE: Final = ("year",)

#: The titles of the tables of transfers, in their order.
SHARED_CORES: Final = "Transfers"
OWN_CORES: Final = "Transfers, each end on a core of its own"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured action, done once in each repetition. `raw`: bytes of raw stream; `group`: its table."""

    name: str
    raw: int
    runs: list[Run] = field(default_factory=list)
    group: str = SHARED_CORES

    def seconds(self) -> float:
        return statistics.median(run.seconds for run in self.runs)

    def cpu(self, end: str) -> float:
        return statistics.median(run.cost(end).cpu for run in self.runs)

    def cpu_per_gib(self, end: str) -> list[float]:
        """CPU seconds for each GiB of raw stream, one for each repetition."""
        return [run.cost(end).cpu * _GIB / self.raw for run in self.runs]

    def seconds_per_gib(self) -> float:
        return self.seconds() * _GIB / self.raw


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget, and its measurements: one figure for each repetition. `ratio`: of two measured figures; `each`: no
    figure may miss it.
    """

    text: str
    bound: float | None  # None: no budget, for comparison
    figures: Sequence[float]
    unit: str = ""
    at_least: bool = True
    ratio: bool = False
    each: bool = False

    @property
    def figure(self) -> float:
        """The median for a ratio, which noise moves both ways; the worst for a limit."""
        if self.each:
            return min(self.figures) if self.at_least else max(self.figures)
        return statistics.median(self.figures) if self.at_least or self.ratio else max(self.figures)

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return ""
        return "met" if (self.figure >= self.bound if self.at_least else self.figure <= self.bound) else "**not met**"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of figures that are text already. `legend`: a paragraph below it, or ""."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str = ""


@dataclass
class Results:
    """All results of one run of the benchmark."""

    size: int
    repetitions: int
    place: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    budgets: list[Budget] = field(default_factory=list)
    costs: dict[str, Costs] = field(default_factory=dict)  # by kind of data
    tables: list[Table] = field(default_factory=list)
    charts: dict[str, plot.Chart] = field(default_factory=dict)  # by name of the file
    walkers: list[WalkerSpeed] = field(default_factory=list)
    splicers: list[SplicerSpeed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, name: str, raw: int, run: Run, group: str = SHARED_CORES) -> None:
        self.rows.setdefault(key, Row(name, raw, group=group)).runs.append(run)

    def without_start(self, row: Row, end: str) -> list[float]:
        """Return the CPU seconds of a row at one end for each GiB, without those of a start if that was measured."""
        tiny = self.rows.get("tiny")
        start = statistics.median(tiny.cpu_per_gib(end)) * tiny.raw if tiny else 0.0
        return [cpu - start / row.raw for cpu in row.cpu_per_gib(end)]

    def ratio(self, text: str, bound: float | None, peer: str, fullsend: str) -> None:
        """Note how much faster `fullsend` is than `peer`, repetition by repetition."""
        pairs = zip(self.rows[peer].runs, self.rows[fullsend].runs, strict=True)
        self.budgets.append(Budget(text, bound, [theirs.seconds / our.seconds for theirs, our in pairs]))

    def stored_ratio(self, text: str, bound: float, reference: str, other: str) -> None:
        """Note how many times as many bytes `other` stores as `reference`, repetition by repetition."""
        pairs = zip(self.rows[reference].runs, self.rows[other].runs, strict=True)
        figures = [more.stored / less.stored for less, more in pairs]
        self.budgets.append(Budget(text, bound, figures, at_least=False, ratio=True))


# --- text ------------------------------------------------------------------------------------------------------


def render(results: Results) -> str:
    """Return the tables as Markdown that reads well on a terminal too."""
    parts = [_list(results.facts)]
    for group in (SHARED_CORES, OWN_CORES):
        rows = [row for row in results.rows.values() if row.group == group]
        if rows:
            parts += [f"### {group}", _transfers(rows)]
    if results.budgets:
        parts += ["### Budgets", _budgets(results.budgets)]
    for kind, costs in results.costs.items():
        parts += [f"### CPU seconds by stage, for each GiB of data: {kind}", _stages(results, kind, costs)]
    for table in results.tables:
        parts += [f"### {table.title}", _table(table.columns, table.rows)]
        parts += [table.legend] if table.legend else []
    if results.walkers:
        parts += ["### The walker by itself", _walkers(results.walkers)]
    if results.splicers:
        parts += ["### The splicer by itself (a cut stream is resumed)", _splicers(results.splicers)]
    if results.notes:
        parts += ["\n".join(f"- {note}" for note in results.notes)]
    return "\n\n".join(parts) + "\n"


def write(path: Path, text: str) -> None:
    """Put the text between the markers of a document. Raises: BenchError where it has none."""
    document = path.read_text(encoding="utf-8")
    head, begin, rest = document.partition(BEGIN)
    _old, end, tail = rest.partition(END)
    if not begin or not end:
        msg = f"{path} has no place for the results: {BEGIN} ... {END}"
        raise BenchError(msg)
    path.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}", encoding="utf-8")


def write_charts(folder: Path, results: Results) -> list[Path]:
    """Write a chart for each of the results that has one. Returns: the files."""
    files = []
    for name, chart in results.charts.items():
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{name}.svg")
        files[-1].write_text(plot.svg(chart), encoding="utf-8")
    return files


def chart_links(folder: str, results: Results) -> str:
    """Return the Markdown that shows the charts of `folder`, a path relative to the document."""
    links = [
        f"![{chart.title}]({folder}/{name}.svg)"
        for name, chart in results.charts.items()
        if name not in _SHOWN_ELSEWHERE
    ]
    return "".join(f"\n{link}\n" for link in links)


def machine(programs: Mapping[str, str]) -> list[tuple[str, str]]:
    """Describe the machine, without names of hosts, users or folders."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    kernel = ".".join(platform.release().split("-")[0].split(".")[:3])
    zstd = ".".join(map(str, zstandard.ZSTD_VERSION))
    return [
        ("machine", f"{len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GiB, {platform.system()} {kernel}"),
        ("fullsend with", f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, zstd {zstd} (python-zstandard)"),
        (
            "peers",
            ", ".join([f"zstd {programs['zstd']}", programs["ssh"], programs["nc"], f"mbuffer {programs['mbuffer']}"]),
        ),
    ]


def load() -> str:
    """Return the load averages now."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _list(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts)


def _transfers(measured: Sequence[Row]) -> str:
    titles = ["", "seconds", "min - max", "MB/s", "CPU s (1)", "CPU s (2)", "MiB (1)", "MiB (2)", "wire MB", "others"]
    rows = []
    for row in measured:
        runs = row.runs
        rows.append(
            [
                row.name,
                f"{row.seconds():.2f}",
                _spread([run.seconds for run in runs]),
                f"{row.raw / row.seconds() / 1e6:.0f}",
                f"{row.cpu(ZFS_HOST):.2f}",
                f"{row.cpu(STORAGE):.2f}",
                f"{max(run.zfs_host.peak for run in runs) / MIB:.0f}",
                f"{max(run.storage.peak for run in runs) / MIB:.0f}",
                f"{statistics.median(run.wire for run in runs) / 1e6:.0f}",
                f"{max(run.others for run in runs):.2f}",
            ]
        )
    legend = (
        f"Medians. MB: a million bytes, of the raw stream or on the wire. (1) {ZFS_HOST}, (2) {STORAGE}. MiB: peak of"
        " memory in any repetition. others: CPU seconds that went to neither end, in the worst repetition."
    )
    return f"{_table(titles, rows)}\n\n{legend}"


def _budgets(budgets: Sequence[Budget]) -> str:
    rows = []
    for budget in budgets:
        sign = ">=" if budget.at_least else "<="
        digits = 2 if budget.figure < 10 else 0
        rows.append(
            [
                budget.text,
                "" if budget.bound is None else f"{sign} {budget.bound:.{digits}f}{budget.unit}",
                f"{budget.figure:.{digits}f}{budget.unit}",
                _spread(budget.figures, digits),
                budget.verdict,
            ]
        )
    return _table(["", "budget", "measured", "min - max", "verdict"], rows)


def _stages(results: Results, kind: str, costs: Costs) -> str:
    actions = {"push": costs.push, "restore": costs.restore}
    rows = []
    for end in (ZFS_HOST, STORAGE):
        names = dict.fromkeys(stage.name for stages in actions.values() for stage in stages if stage.end == end)
        for name in names:
            taken = [[s.seconds for s in stages if (s.end, s.name) == (end, name)] for stages in actions.values()]
            rows.append([f"{end}: {name}", *(f"{seconds[0]:.2f}" if seconds else "" for seconds in taken)])
        rows.append([f"{end}: sum of these", *(f"{costs.sum(action, end):.2f}" for action in actions)])
        found = [results.rows.get(row_key(kind, action)) for action in actions]
        if any(found):
            whole = [row.cpu_per_gib(end) if row else [] for row in found]
            without = [results.without_start(row, end) if row else [] for row in found]
            for text, figures in (("the program as a whole", whole), ("the same, without its start", without)):
                rows.append([f"{end}: {text}", *(f"{statistics.median(each):.2f}" if each else "" for each in figures)])
    return _table(["", *actions], rows)


def row_key(kind: str, action: str) -> str:
    """Return the key of the row that shows fullsend's `action` with this kind of data, both ends on shared cores."""
    return action if kind == "compressible" else f"{kind}-{action}"


def _walkers(walkers: Sequence[WalkerSpeed]) -> str:
    rows = [
        [f"{each.record >> 10} KiB", f"{each.records_per_second:,.0f}", f"{each.bytes_per_second / 1e6:,.0f}"]
        for each in walkers
    ]
    return _table(["records of", "records/s", "MB/s"], rows)


def _splicers(splicers: Sequence[SplicerSpeed]) -> str:
    rows = [
        [
            f"{each.record >> 10} KiB",
            f"{each.records_per_second:,.0f}",
            f"{1e6 / each.records_per_second:.1f}",
            f"{each.bytes_per_second / 1e6:,.0f}",
            f"{each.walker:.0f}",
        ]
        for each in splicers
    ]
    return _table(["records of", "records/s", "us a record", "MB/s", "times the walker"], rows)


def _spread(figures: Sequence[float], digits: int = 2) -> str:
    return f"{min(figures):.{digits}f} - {max(figures):.{digits}f}" if len(figures) > 1 else ""


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is aligned as text too: the first column to the left, all others to the right."""
    widths = [max(len(line[index]) for line in [titles, *rows]) for index in range(len(titles))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])} |"

    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([line(titles), f"|{'|'.join(rule)}|", *map(line, rows)])
