"""Prometheus' text format, version 0.0.4: what both programs tell a monitoring system.

https://prometheus.io/docs/instrumenting/exposition_formats/ describes it. A family is one metric: a name, what it is,
and a value for each set of labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

#: The type of this text over HTTP.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_NAME: Final = r"[a-zA-Z_][a-zA-Z0-9_]*"
_VALUE: Final = r'"(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE: Final = re.compile(rf"({_NAME})(?:\{{({_NAME}={_VALUE}(?:,{_NAME}={_VALUE})*)\}})? ([^ \n]+)")
_LABEL: Final = re.compile(rf"({_NAME})=({_VALUE})")
_ESCAPED: Final = re.compile(r'\\([\\"n])')


class MetricSample(NamedTuple):
    """One value of a metric. `labels`: name and value of each."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric. `name`: with the base unit at its end, and `_total` where it is a counter; `help`: one line."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    values: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)

    def add(self, value: float | None, **labels: str) -> None:
        """Set the value for these labels; None: it is unknown, and is left out."""
        if value is not None:
            self.values[tuple(labels.items())] = value

    def sum_up(self, value: float | None, **labels: str) -> None:
        """Add to the value for these labels. None: it is unknown, and nothing is added."""
        if value is not None:
            key = tuple(labels.items())
            self.values[key] = self.values.get(key, 0) + value

    def lower_to(self, value: float | None, **labels: str) -> None:
        """Set the value for these labels, unless there is a lower one. None: it is unknown."""
        if value is not None:
            key = tuple(labels.items())
            self.values[key] = min(value, self.values.get(key, value))


def build_info(program: str, version: str) -> MetricFamily:
    """Return the metric that says which program of which version wrote all others. Its help is the same for both
    programs: node_exporter wants that of all files in one folder.
    """
    family = MetricFamily("fullsend_build_info", "gauge", "The program that made these metrics, and its version: 1.")
    family.add(1, program=program, version=version)
    return family


def render_families(families: Iterable[MetricFamily]) -> str:
    """Return the text of all metrics that have a value."""
    lines: list[str] = []
    for family in families:
        if not family.values:
            continue
        lines += [f"# HELP {family.name} {_escaped(family.help)}\n", f"# TYPE {family.name} {family.kind}\n"]
        for labels, value in family.values.items():
            said = ",".join(f"{name}={_quoted(text)}" for name, text in labels)
            number = repr(value + 0)  # a bool or an enum is a number, too
            lines.append(f"{family.name}{{{said}}} {number}\n" if said else f"{family.name} {number}\n")
    return "".join(lines)


def parse_samples(text: str) -> Iterator[MetricSample]:
    """Yield the values in a text that `render_families` has made. Raises: ValueError if it is another text."""
    *lines, rest = text.split("\n")
    if rest:
        msg = "the last line has no end"
        raise ValueError(msg)
    for line in lines:
        if line.startswith("# "):
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            msg = f"{line[:80]!r} is no sample of a metric"
            raise ValueError(msg)
        labels = tuple((name, _unquoted(value)) for name, value in _LABEL.findall(match[2] or ""))
        yield MetricSample(match[1], labels, float(match[3]))


def _escaped(text: str) -> str:
    # What is not UTF-8 must not end the export of all other metrics.
    text = text.encode(errors="backslashreplace").decode()
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    quote = _escaped(text).replace('"', '\\"')
    return f'"{quote}"'


def _unquoted(quoted: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], quoted[1:-1])
