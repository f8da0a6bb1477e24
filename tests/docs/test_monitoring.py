"""docs/monitoring: rules that Prometheus accepts, and no metric in rules, dashboard or text that does not exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from tests.promtool import promtool
from tests.receiver.metrics_sample import OVERVIEW, sample_counters
from tests.sender.metrics_sample import write_sample
from tests.test_house import ROOT

from fullsend_protocol.format.metrics_text import parse_samples
from fullsend_receiver.access.config import ReceiverSettings
from fullsend_receiver.monitor.metrics import DATASETS_DEFAULT, render
from fullsend_receiver.monitor.overview import AlarmCode
from fullsend_sender.host.config import SenderSettings

FOLDER: Final = ROOT / "docs" / "monitoring"
PAGE: Final = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
RULES: Final = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
CASES: Final = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
DASHBOARD: Final[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
#: A metric, not the name of an alert or of a package.
METRIC: Final = re.compile(r"\bfullsend_[a-z_]+")


@pytest.fixture
def exported(tmp_path: Path) -> dict[str, set[str]]:
    """All metrics of both programs, each with its labels."""
    write_sample(tmp_path / "sender.prom")
    texts = (render(OVERVIEW, sample_counters()), (tmp_path / "sender.prom").read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for sample in (each for text in texts for each in parse_samples(text)):
        found.setdefault(sample.name, set()).update(name for name, _value in sample.labels)
    return found


def panels() -> list[dict[str, Any]]:
    return list(DASHBOARD["panels"])


def queries() -> list[str]:
    """Return all queries of the dashboard, with a value for each of its variables."""
    found = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return [each.replace("$__rate_interval", "5m").replace("$sender", ".*") for each in found]


def alerts() -> list[str]:
    return re.findall(r"^ *- alert: (\w+)$", RULES, re.MULTILINE)


# --- the rules ----------------------------------------------------------------------------------------------------


def test_promtool_accepts_the_rules() -> None:
    ran = promtool("check", "rules", "alerts.yml", folder=FOLDER)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"SUCCESS: {len(alerts())} rules found" in ran.stdout


@pytest.mark.slow
def test_each_alert_fires_where_it_must_and_not_where_it_must_not() -> None:
    ran = promtool("test", "rules", *sorted(each.name for each in FOLDER.glob("*_test.yml")), folder=FOLDER)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("SUCCESS") == 2


def test_each_alert_has_a_case_of_either_kind() -> None:
    cases = re.findall(r"alertname: (\w+)\n *eval_time: \w+\n *exp_alerts:( \[\])?", CASES)
    assert {name for name, none in cases if none} == set(alerts())
    assert {name for name, none in cases if not none} == set(alerts())


@pytest.mark.slow
def test_promtool_notices_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(RULES.replace("> 900", "> 90000"), encoding="utf-8")
    (tmp_path / "alerts_test.yml").write_text(CASES, encoding="utf-8")
    assert promtool("test", "rules", "alerts_test.yml", folder=tmp_path).returncode != 0


def test_rules_and_their_cases_name_metrics_that_exist(exported: dict[str, set[str]]) -> None:
    assert set(METRIC.findall(RULES)) <= exported.keys()
    for name, labels in re.findall(r"series: '(fullsend_[a-z_]+)\{(.*?)\}'", CASES):
        assert set(re.findall(r"(\w+)=", labels)) - {"instance", "job"} <= exported[name]
    assert {"{{ $labels." + name for name in ("sender", "dataset", "instance")} <= set(
        re.findall(r"\{\{ \$labels\.\w+", RULES)
    )


def test_codes_in_the_rules_are_those_of_alarms() -> None:
    named = {code for codes in re.findall(r'fullsend_alarm\{code!?=~?"([^"]+)"', RULES) for code in codes.split("|")}
    assert named <= set(get_args(AlarmCode))


# --- the dashboard ------------------------------------------------------------------------------------------------


def test_the_dashboard_names_metrics_and_labels_that_exist(exported: dict[str, set[str]]) -> None:
    text = json.dumps(DASHBOARD)
    assert set(METRIC.findall(text)) <= exported.keys()
    for panel in panels():
        for target in panel.get("targets", ()):
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            names = METRIC.findall(target["expr"])
            assert labels <= set.union(*(exported[name] for name in names)), target


def test_prometheus_can_read_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    # JSON is YAML.
    text = json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})
    (tmp_path / "rules.yml").write_text(text, encoding="utf-8")
    ran = promtool("check", "rules", "rules.yml", folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(queries()) > 30


def test_the_dashboard_has_what_grafana_requires() -> None:
    assert {"title", "uid", "schemaVersion", "templating", "time", "panels"} <= DASHBOARD.keys()
    assert "id" not in DASHBOARD, "it is that of one Grafana"
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    names = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "sender"}
    for panel in panels():
        assert {"type", "title", "gridPos"} <= panel.keys()
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references))


def test_no_panels_of_the_dashboard_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_page_has_all_metrics_and_no_other(exported: dict[str, set[str]]) -> None:
    named = set(METRIC.findall(PAGE))
    assert exported.keys() - named == set()
    assert named - exported.keys() == set()


def test_the_page_says_which_labels_a_metric_has(exported: dict[str, set[str]]) -> None:
    rows = re.findall(r"^\| `(fullsend_[a-z_]+)(?:\{([a-z,]+)\})?` \|", PAGE, re.MULTILINE)
    assert {name: set(filter(None, labels.split(","))) for name, labels in rows} == exported


def test_the_page_names_all_alerts() -> None:
    assert set(re.findall(r"\bFullsend[A-Z]\w+", PAGE)) == set(alerts())


def test_the_settings_are_documented() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for model in (ReceiverSettings, SenderSettings):
        for name in (name for name in model.model_fields if name.startswith("metrics_")):
            key = f"`{name.replace('_', '-')}`"
            assert key in operations, key
            assert key in PAGE, key
    assert f"`metrics-datasets` | {DATASETS_DEFAULT} |" in operations
