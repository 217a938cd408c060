"""Metrics: what a driver hears becomes numbers, and a real Ray exports them."""

import io
import re
import signal
import sys
import urllib.request
from dataclasses import replace

import pytest

from acr_ray.telemetry import watching
from acr_ray.telemetry.logs import logger
from acr_ray.telemetry.meters import COUNTERS, GAUGES, TAGGED, Meters, _metric
from acr_ray.telemetry.progress import CertificationProgress
from tests.fakes.jobs import start, wait_for
from tests.fakes.models import write_digits_checkpoint


@pytest.fixture
def told(monkeypatch):
    """Values by name and tags, in place of Ray."""
    values = {}

    def use(self, name, call):
        assert name in {**GAUGES, **TAGGED, **COUNTERS}, name

        class Metric:
            def set(self, value, tags):
                values[name, tags.get(TAGGED.get(name, ("",))[0])] = value
                assert tags["run"] == "r"

            def inc(self, value, tags):
                values[name, None] = values.get((name, None), 0) + value

        call(Metric())

    monkeypatch.setattr(Meters, "_use", use)
    return values


def test_an_epoch_becomes_numbers(told):
    record = {"epoch": 4, "loss": 0.5, "remaining": 900, "attack_active": [0.9, 0.8]}
    record["timing"] = {"images_per_s": 100.0, "data_share": 0.1, "attack_share": 0.5}
    watching.EpochMeters("r", 10)(record, mlflow_behind=True)
    assert told["acr_epochs_done", None] == 5 and told["acr_epochs", None] == 10
    assert told["acr_attack_active_share", "2"] == 0.8 and told["acr_time_share", "data"] == 0.1
    assert told["acr_mlflow_behind", None] == 1 and told["acr_last_progress_timestamp_seconds", None] > 1e9


def test_a_certification_counts_only_what_this_process_drew(told):
    meters, progress = watching.CertificationMeters("r", before=1000), CertificationProgress(1, 9, 1500, 0, 10.0, 2)
    meters(progress)
    first = told["acr_last_progress_timestamp_seconds", None]
    meters(progress)
    assert told["acr_noisy_samples", None] == 500 and ("acr_seconds_left", None) not in told
    assert told["acr_last_progress_timestamp_seconds", None] == first, "nothing new is no progress"
    meters(replace(progress, noise_draws=1700))
    assert told["acr_noisy_samples", None] == 700


def test_a_search_counts_trials_by_how_they_ended(told):
    meters = watching.TrialMeters("r", 5)
    for trial, status in (("a", "running"), ("b", "running"), ("a", "finished"), ("b", "stopped"), ("a", "finished")):
        meters({}, {"trial": trial, "status": status})
    assert told["acr_trials_done", "finished"] == 1 and told["acr_trials_done", "stopped"] == 1
    assert ("acr_trials_done", "running") not in told and told["acr_trials", None] == 5


def test_without_ray_nothing_happens():
    Meters("train", "r").set("acr_loss", 1.0)
    Meters("certify", "r").count_to("acr_noisy_samples", 5)


@pytest.mark.parametrize("name", [*GAUGES, *TAGGED, *COUNTERS])
def test_ray_takes_every_metric_as_it_is_described(name):
    _metric(name)  # raises where Ray's own code cannot take the text


def test_a_log_line_names_its_run_and_rank(capfd, monkeypatch):
    with monkeypatch.context() as before:  # standard error may be another one later
        before.setattr("sys.stderr", io.StringIO())
        logger(run="other").warning("elsewhere")
        sys.stderr.close()
    logger(run="digits:a", rank=1).warning("something with %d", 3)
    assert re.search(r"WARNING acr_ray run=digits:a rank=1: something with 3\n$", capfd.readouterr().err)


@pytest.mark.ray
def test_a_running_certification_is_seen_by_prometheus(head, tmp_path):
    checkpoint = write_digits_checkpoint(tmp_path / "model")
    out = tmp_path / "c"
    process = start(
        "certify",
        checkpoint,
        "--out",
        out,
        "--n",
        2_000_000,
        "--max-images",
        50,
        "--no-tracking",
        "--actors",
        1,
        head=head,
    )

    def seen():
        text = urllib.request.urlopen(head.metrics, timeout=10).read().decode()
        found = re.search(r'ray_acr_noisy_samples_total\{[^}]*job="certify"[^}]*run="[^"]*:c"[^}]*\} (\S+)', text)
        return bool(found) and float(found.group(1)) > 0 and "ray_acr_images{" in text

    try:
        wait_for(seen, 120, process)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
