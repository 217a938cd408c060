"""jobs.tune: bad input before anything starts, and one small search from the command to its report."""

import json

import pyarrow.parquet as pq
import pytest

from acr_ray.settings import UserError, load_recipe
from jobs import tune
from tests.fakes.jobs import run

SHORT = (
    "--training.epochs", 6, "--training.e_t", 2, "--training.milestones", "4", "--reweigh.every", 2,
    "--space", "training.e_t=2,3", "--space", "discard.p_t=0.3..0.6", "--validation-n", 200,
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "RECIPE: missing"),
        (["nothing"], "RECIPE nothing: unknown recipe"),
        (["digits"], "--out: missing"),
        (["digits", "--trials", "0"], "--trials"),
        (["digits", "--metric", "accuracy"], "--metric accuracy: unknown"),
        (["digits", "--metric", "certified_accuracy@9"], "allowed: a radius from 0 to 1.351"),
        (["digits", "--search", "hyperopt"], "--search"),
        (["digits", "--scheduler", "pbt"], "--scheduler"),
        (["digits", "--space", "training.e_t=60"], "training.e_t = 60: past the last epoch"),
        (["digits", "--training.epochs", "25", "--training.e_t", "5", "--space", "training.e_t=5,30"], "training.e_t"),
        (["digits", "--space", "training.m=3"], "training.m = 3: must divide training.batch_size = 256"),
        (["digits", "--space", "attack.epsilon=2..1"], "attack.epsilon=2..1: empty range"),
        (["digits", "--space", "attack.epsilom=1"], "attack.epsilom: unknown field"),
        (["digits", "--validation", "1"], "--validation: share"),
        (["digits", "--validation-stopping", "never"], "--validation: stopping"),
        (["digits", "--workers", "64"], "--workers 64: a step has only 32 inputs to share at training.m = 8"),
        (["imagenet-0.5"], "discard.checkpoint = none"),
        (["cifar10-0.5"], "data.root = none"),
    ],
)
def test_bad_input_is_answered_before_anything_starts(arguments, said, tmp_path, monkeypatch):
    monkeypatch.setattr("acr_ray.cli.ray_session.connect", lambda verbose: pytest.fail("Ray was started"))
    with pytest.raises(UserError) as caught:
        tune.main(arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_another_search_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    class Started(Exception):
        pass

    def start(*arguments):
        raise Started

    monkeypatch.setattr("acr_ray.cli.drivers.search.check_workers_fit", lambda *arguments: None)
    monkeypatch.setattr(
        "acr_ray.cli.drivers.search.TrialLines", start
    )  # the first that a search makes once its folder is its own
    given = ["digits", "--out", str(tmp_path), "--no-tracking", *map(str, SHORT)]
    with pytest.raises(Started):
        tune.main(given)
    with pytest.raises(Started):
        tune.main(given)
    for more, named in (
        (["--seed", "1"], "seed"),
        (["--trials", "3"], "trials"),
        (["--no-trunk"], "no_trunk"),
        (["--space", "attack.steps=1,2"], "space"),
        (["--metric", "hard_share"], "metric"),
        (["--attack.epsilon", "0.5"], "attack.epsilon"),
    ):
        with pytest.raises(UserError, match=f"holds a run with other settings: {named} was"):
            tune.main([*given, *more])
    with pytest.raises(Started):
        tune.main([*given, "--seed", "1", "--overwrite"])


LOST = """
import sys
from acr_ray.training.methods.gaussian import Gaussian

class Lost(Gaussian):
    def __init__(self):
        if "default_worker" in sys.argv[0]:  # only where trials run
            raise RuntimeError("no such device")
"""


@pytest.mark.ray
def test_trials_that_are_lost_before_they_report_are_listed(head, tmp_path):
    (tmp_path / "lost_method.py").write_text(LOST)
    given = ("tune", "digits-gaussian", "--out", tmp_path / "s", "--trials", 2, "--search", "grid", "--no-tracking")
    method = ("--method.name", "lost_method:Lost", "--max-failures", 0, "--space", "training.learning_rate=0.1,0.2")
    _, err = run(*given, *method, head=head, cwd=tmp_path, code=1)
    assert "failed: no trial was trained to its end" in err and "no such device" in err
    rows = pq.read_table(tmp_path / "s" / "trials.parquet").to_pylist()
    assert [row["training.learning_rate"] for row in rows] == [0.1, 0.2] and {r["status"] for r in rows} == {"lost"}


@pytest.mark.ray
def test_a_search_from_the_command_to_its_report(head, tmp_path):
    from mlflow import MlflowClient

    out, store = tmp_path / "search", f"sqlite:///{tmp_path}/mlflow.db"
    metric = ("--metric", "acr,hard_share,best@0.25,0.5")
    given = ("tune", "digits", "--out", out, "--trials", 3, *metric, "--concurrent", 2, *SHORT)
    printed, _ = run(*given, "--tracking-uri", store, head=head)
    assert "3/3" in printed and "left" in printed and "best:" in printed

    rows = pq.read_table(out / "trials.parquet").to_pylist()
    assert len(rows) == 3 and {row["status"] for row in rows} <= {"finished", "stopped"}
    assert rows[0]["training.e_t"] == 2 and rows[0]["discard.p_t"] == 0.5, "the recipe's own point comes first"
    for name in (
        "acr",
        "hard_share",
        "certified_accuracy@0.5",
        "p_a_quantile@0.25",
        "epochs",
        "forward_passes",
        "trunk",
    ):
        assert all(row[name] is not None for row in rows), name
    assert len(list((out / "trunks").iterdir())) == 1 == len({row["trunk"] for row in rows})

    summary = json.loads((out / "summary.json").read_text())
    finished = [row for row in rows if row["status"] == "finished"]
    best = max(finished, key=lambda row: row["acr"])
    assert summary["schema_version"] == 1 and summary["best"]["trial"] == best["trial"]
    assert summary["metric"][:2] == ["acr", "hard_share"] and summary["pareto"][0]["trial"] == best["trial"]
    own = sum(row["forward_passes"] + row["backward_passes"] for row in rows)
    assert summary["passes"]["trials"] == own and summary["passes"]["trunks"] > 0

    recipe = load_recipe(str(out / "best.json"))
    assert recipe.discard.p_t == best["discard.p_t"] and recipe.training.e_t == best["training.e_t"]
    for radius, of in summary["best_per_radius"].items():
        at_radius = max(finished, key=lambda row, r=radius: row[f"certified_accuracy@{r}"])
        assert of["trial"] == at_radius["trial"] and f"best at radius {radius}: {out}/best@{radius}.json" in printed
        assert load_recipe(str(out / f"best@{radius}.json")).discard.p_t == at_radius["discard.p_t"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "http" not in page and best["trial"] in page
    assert (out / "acr_against_hard_share.png").read_bytes().startswith(b"\x89PNG")

    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("acr-ray").experiment_id])
    parent = next(r for r in runs if r.data.tags["acr_ray.job"] == "tune")
    nested = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(r.data.tags["acr_ray.job"] for r in nested) == ["trial"] * 3 + ["trunk"]
    trial = next(r for r in nested if r.data.tags.get("acr_ray.trial") == best["trial"])
    assert set(trial.data.params) == {"training.e_t", "discard.p_t"} and trial.data.metrics["acr"] == best["acr"]
    assert "best.json" in {f.path for f in client.list_artifacts(parent.info.run_id)}
    logged = parent.data.params  # every option, defaults too
    assert logged["checkpoint_every"] == "5" and logged["training.precision"] == "float32" and logged["trials"] == "3"

    again, _ = run(*given, "--tracking-uri", store, head=head)
    assert "done before" in again
