"""What deploy/ holds works: rules fire when they should, metrics exist, the unit is read as it was meant."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.metrics import Metrics
from tests.components.need import give_up

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
UNIT = DEPLOY / "systemd" / "modelwarden.service"
METRIC = re.compile(r"modelwarden_[a-z_]+")


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        give_up(package, f"{name} is part of the Debian package {package}")
    return found


@pytest.fixture(scope="module")
def samples() -> set[str]:
    """Every name under which a metric of the daemon is scraped."""
    names = set()
    for family in Metrics().registry.collect():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + end for end in ends}
    return names


def queries() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((DEPLOY / "grafana" / "modelwarden.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield "annotation", annotation["expr"]


def test_every_metric_of_the_dashboard_exists(samples: set[str]) -> None:
    asked = list(queries())
    assert len(asked) > 15
    unknown = {(title, name) for title, expr in asked for name in METRIC.findall(expr) if name not in samples}
    assert unknown == set()


def test_every_query_of_the_dashboard_is_of_the_chosen_daemons() -> None:
    for title, expr in queries():
        assert len(METRIC.findall(expr)) == expr.count('job=~"$job", instance=~"$instance"'), (title, expr)


def test_every_metric_of_the_rules_exists(samples: set[str]) -> None:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    exprs = [rule["expr"] for group in groups for rule in group["rules"]]
    assert len(exprs) >= 10
    assert {name for expr in exprs for name in METRIC.findall(expr)} <= samples


def test_rules_are_valid() -> None:
    done = subprocess.run([program("promtool", "prometheus"), "check", "rules", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def alert(name: str, minute: int, labels: dict[str, str] | None) -> dict[str, Any]:
    """That an alert fires with these labels at a minute; None: that it does not fire."""
    exp = [] if labels is None else [{"exp_labels": labels}]
    return {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": exp}


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    inside = ", ".join(f'{k}="{v}"' for k, v in {"job": "mw", "instance": "a:1", **labels}.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


HEALTHY = [
    series("modelwarden_build_info", "1x90"),
    series("modelwarden_active", "1x90"),
    series("modelwarden_last_commit_timestamp_seconds", "0+60x90"),
    series("modelwarden_consumer_lag_records", "7x90", topic="p", partition="0"),
    series("modelwarden_last_record_processed_timestamp_seconds", "0+60x90"),
    series("modelwarden_records_received_total", "0+600x90", topic="p"),
    series("modelwarden_task_failures_total", "0x90", task="retention"),
    series("modelwarden_task_last_success_timestamp_seconds", "0+60x90", task="retention"),
]
ME = {"job": "mw", "instance": "a:1"}
CRITICAL, WARNING = {"severity": "critical"}, {"severity": "warning"}
NAMES = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
CASES: dict[str, tuple[list[dict[str, str]], list[dict[str, Any]]]] = {
    "healthy": (HEALTHY, [alert(name, 80, None) for name in NAMES]),
    "down": ([], [alert("ModelWardenDown", 1, None), alert("ModelWardenDown", 5, CRITICAL)]),
    "none active": (
        [series("modelwarden_active", "1x10 0x20")],
        [alert("ModelWardenNoneActive", 10, None), alert("ModelWardenNoneActive", 20, CRITICAL)],
    ),
    "no commits": (
        [series("modelwarden_active", "1x90"), series("modelwarden_last_commit_timestamp_seconds", "600x90")],
        [alert("ModelWardenNoCommits", 24, None), alert("ModelWardenNoCommits", 45, ME | CRITICAL)],
    ),
    "a standby commits nothing": (
        [series("modelwarden_active", "0x90"), series("modelwarden_last_commit_timestamp_seconds", "0x90")],
        [alert("ModelWardenNoCommits", 80, None)],
    ),
    "stalled": (
        [
            series("modelwarden_active", "1x90"),
            series("modelwarden_consumer_lag_records", "7x90", topic="p", partition="0"),
            series("modelwarden_last_record_processed_timestamp_seconds", "60x90"),
        ],
        [alert("ModelWardenStalled", 5, None), alert("ModelWardenStalled", 15, ME | CRITICAL)],
    ),
    "lag": (
        [
            series("modelwarden_active", "1x90"),
            series("modelwarden_consumer_lag_records", "60000x90", topic="p", partition="0"),
            series("modelwarden_consumer_lag_records", "60000x90", topic="p", partition="1"),
        ],
        [alert("ModelWardenLag", 10, None), alert("ModelWardenLag", 20, ME | WARNING | {"topic": "p"})],
    ),
    "detector": (
        [series("modelwarden_detector_failures_total", "_x10 1x10", detector="d")],
        [
            alert("ModelWardenDetectorFailed", 9, None),
            alert("ModelWardenDetectorFailed", 15, ME | WARNING | {"detector": "d"}),
        ],
    ),
    "the first record lost": (
        [series("modelwarden_records_lost_total", "_x10 5x30", topic="p")],
        [
            alert("ModelWardenRecordsLost", 12, ME | WARNING | {"topic": "p"}),
            alert("ModelWardenRecordsLost", 35, None),
        ],
    ),
    "a task fails": (
        [series("modelwarden_task_failures_total", "0+0.1x300", task="retention")],
        [alert("ModelWardenTaskFails", 60, ME | WARNING | {"task": "retention"})],
    ),
}


def test_rules_fire_when_they_should(tmp_path: Path) -> None:
    tests = []
    for name, (given, expected) in CASES.items():
        # An annotation is compared with those of the rule only where it is given, so it must be looked up.
        tests.append({"name": name, "interval": "1m", "input_series": given, "alert_rule_test": expected})
    bare = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in bare["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(bare))
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": tests}))
    command = [program("promtool", "prometheus"), "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` exits 0 on unknown keys too: what it says counts."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/modelwarden/bin/modelwarden", "/bin/true"))
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    mine = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert mine == [] and done.returncode == 0, done.stderr


def test_the_unit_has_few_rights() -> None:
    command = [program("systemd-analyze", "systemd"), "security", "--offline=yes", "--threshold=20", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_a_wheel_has_the_files(tmp_path: Path) -> None:
    root = DEPLOY.parent
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        assert {t for t in tops if not t.endswith(".dist-info")} == {"monitor", "alerts", "detectors", "migrations"}
        runbooks = {path.name for path in (root / "alerts" / "runbooks").iterdir()}
        assert {name for name in runbooks if f"alerts/runbooks/{name}" not in archive.namelist()} == set()
        archive.extractall(place)
    code = "from monitor.deploy_files import deploy_file; print(deploy_file('prometheus', 'rules.yml'), end='')"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env={"PYTHONPATH": str(place)}, capture_output=True, text=True
    )
    assert shown.stdout == RULES.read_text(encoding="utf-8"), shown.stderr
