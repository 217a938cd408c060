"""Prometheus' and Grafana's files: valid by their own tools, and about metrics that are really exported."""

import json
import os
import re
import shutil
import subprocess

import pytest

from acr_ray.telemetry.meters import COUNTERS, GAUGES, TAGGED
from tests.fakes.jobs import ROOT

FILES = ROOT / "cluster" / "monitoring"
EXPORTED = {f"ray_{name}" for name in (*GAUGES, *TAGGED)} | {f"ray_{name}_total" for name in COUNTERS}


@pytest.fixture
def promtool(tmp_path):
    """promtool on a copy of the files, which a test may spoil; answers with the exit code and what it printed."""
    assert shutil.which("promtool"), "promtool is missing: make static-test installs it"
    for path in FILES.iterdir():
        shutil.copy(path, tmp_path)
    return lambda *arguments: subprocess.run(
        ["promtool", *arguments], cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )


@pytest.mark.static
def test_promtool_takes_the_configuration_and_the_rules(promtool):
    for arguments in (("check", "config", "prometheus.yml"), ("test", "rules", "alerts-test.yml")):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.static
@pytest.mark.parametrize(
    ("name", "right", "wrong", "arguments"),
    [
        ("prometheus.yml", "file_sd_configs", "file_sd_config", ("check", "config", "prometheus.yml")),
        ("alerts.yml", "== 0 and ", "== 0 und ", ("check", "rules", "alerts.yml")),
        ("alerts.yml", "> 1800", "> 180000", ("test", "rules", "alerts-test.yml")),
        ("alerts.yml", 'part="data"} > 0.2', 'part="data"} > 0.05', ("test", "rules", "alerts-test.yml")),
    ],
)
def test_promtool_catches_a_wrong_file(promtool, tmp_path, name, right, wrong, arguments):
    path = tmp_path / name
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert promtool(*arguments).returncode != 0


def of_ours(text: str) -> set[str]:
    return set(re.findall(r"ray_acr_\w+", text))


def test_what_is_watched_is_exported():
    for name in ("alerts.yml", "grafana-dashboard.json"):
        used = of_ours((FILES / name).read_text())
        assert used and used <= EXPORTED, used - EXPORTED
    assert of_ours("rate(ray_acr_noisy_sample_total[1m])") - EXPORTED, "a misspelt name is seen"


def test_the_dashboard_shows_every_metric_of_ours_and_is_well_formed():
    dashboard = json.loads((FILES / "grafana-dashboard.json").read_text())
    shown = of_ours(json.dumps(dashboard["panels"]))
    assert shown == EXPORTED, EXPORTED - shown
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) and {v["name"] for v in dashboard["templating"]["list"]} == {"datasource", "run"}
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)
