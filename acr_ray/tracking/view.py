"""What MLflow's pages show of our runs: descriptions, and a saved view with the columns that a reviewer needs."""

from __future__ import annotations

import json

from acr_ray.formats.metrics import Metric, MetricKey

NOTE = "mlflow.note.content"  # the description that the UI shows first
SHARE_KEY = "acr-ray"
VIEW = f"mlflow.sharedViewState.{SHARE_KEY}"  # where the UI's Share button keeps a view

COLUMNS = (
    "tags.`acr_ray.job`",
    "metrics.`acr`",
    f"metrics.`{Metric.HARD_SHARE}`",
    *(f"metrics.`{MetricKey(Metric.CERTIFIED_ACCURACY, r).tracked}`" for r in (0, 0.25, 0.5, 1)),
    "params.`sigma`",
    "params.`n`",
    "params.`alpha`",
    "metrics.`loss`",
    "metrics.`accuracy`",
    "attributes.`Created`",
    "attributes.`Duration`",
    "attributes.`Models`",
)

JOBS = {
    "train": "A training run of `jobs.train`: loss, accuracy and speed by epoch, the checkpoint, the model. "
    "Certify it with `python -m jobs.certify runs:/{run_id} --out DIR`.",
    "certify": "A certification of `jobs.certify`: ACR, certified accuracy and hard share, the certificates, and under "
    "`report/` the page with the distribution of p_A.",
    "tune": "A search of `jobs.tune`: trials and trunks are the runs nested below it, its metrics the best trial's.",
    "report": "A comparison of `jobs.report`: the page, tables and figures; a nested run for each source.",
    "import": "Weights of other code, imported by `jobs.import`: the checkpoint, the model. "
    "Certify it with `python -m jobs.certify runs:/{run_id} --out DIR`.",
    "source": "A source of the report above it, with the same metrics as a certification's run.",
    "trial": "A trial of the search above it. KILLED: the scheduler ended it early, so its last numbers are no result.",
    "trunk": "Epochs that several trials share, trained once.",
}
#: The job that makes the runs of a kind that is no job.
MADE_BY = {"source": "report", "trial": "tune", "trunk": "tune"}


def experiment_tags() -> dict[str, str]:
    """Tags of a new experiment. The UI opens on runs, not on traces."""
    columns = {"selectedColumns": list(COLUMNS), "columnOrder": list(COLUMNS), "viewMaximized": True}
    order = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    return {"mlflow.experimentKind": "custom_model_development", VIEW: json.dumps(columns | order)}


def experiment_note(experiment_id: str) -> str:
    """Return the description of an experiment."""
    link = f"#/experiments/{experiment_id}/runs?viewStateShareKey={SHARE_KEY}"
    return (
        "Randomized smoothing with acr-ray: trainings, certifications, searches and reports "
        f"(tag `acr_ray.job`). [Table with ACR, hard share and certified accuracy]({link})."
    )


def run_tags(job: str, name: str) -> dict[str, str]:
    """Tags of a new run: what it is, what made it, and a description."""
    return {"acr_ray.job": job, "mlflow.runName": name, "mlflow.source.name": f"jobs.{MADE_BY.get(job, job)}"}


def run_note(job: str, run_id: str) -> str | None:
    text = JOBS.get(job)
    return None if text is None else text.replace("{run_id}", run_id)
