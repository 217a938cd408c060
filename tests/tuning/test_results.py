"""What is said of a search, from reports of known numbers."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from acr_ray.data import open_images
from acr_ray.formats.files import SEARCH_BEGUN
from acr_ray.settings import UserError, load_recipe
from acr_ray.storage import Folder
from acr_ray.training.group import Group
from acr_ray.training.loop import Trainer
from acr_ray.training.workers import Workers
from acr_ray.tuning.leases import Leases
from acr_ray.tuning.objectives import Objective, ValidationCounts, logged
from acr_ray.tuning.page import draw, write_page
from acr_ray.tuning.results import (
    ACR,
    acr_front,
    best_of,
    best_recipe,
    costs,
    front_of,
    summary_of,
    write_best,
    write_table,
)
from acr_ray.tuning.search import at_once
from acr_ray.tuning.space import parse_space
from acr_ray.tuning.trial import OneWorkerTrial
from acr_ray.tuning.trial_run import SearchContext, TrialRun
from acr_ray.tuning.validation import ValidationSettings, held_out, read_images, write_images
from acr_ray.tuning.verdict import verdict

HARD = Objective("hard_share")
RECIPE = load_recipe("digits")
NAN = float("nan")


def report(trial, acr, hard, status="finished", epoch=60, m=4):
    values = {objective.name: NAN for objective in logged((), 0.5, 2000, 0.001)} | {"acr": acr, "hard_share": hard}
    counts = {"forward_passes": 100, "backward_passes": 50, "validation_passes": 7, "seconds": 1.5, "trunk": ""}
    reason = "diverged <b>" if status == "failed" else ""
    point = {"training.m": m, "discard.p_t": 0.4}
    return {"trial": trial, "status": status, "epoch": epoch, "point": point, "reason": reason, **values, **counts}


REPORTS = [
    report("a", 0.40, 0.20),
    report("b", 0.45, 0.30),
    report("c", 0.39, 0.25),
    report("d", 0.44, 0.10, "stopped", 32),
    report("e", 0.0, 1.0, "failed", 3),
    report("f", NAN, NAN, "stopped", 5),
    report("b", 0.45, 0.30),
]


def context_of(out, *asked):
    v = ValidationSettings()
    return SearchContext(
        RECIPE, 0, str(out), v, logged(asked, 0.5, v.n, v.alpha), len(asked), Workers(), True, (), (), 5, "x"
    )


def test_the_best_is_of_those_trained_to_their_end():
    assert best_of(REPORTS, ACR)["trial"] == "b" and best_of(REPORTS, HARD)["trial"] == "a"
    assert best_of(REPORTS[4:6], ACR) is None
    assert [r["trial"] for r in front_of(REPORTS, (ACR, HARD))] == ["b", "a"]


def test_there_is_a_recipe_for_each_radius(tmp_path):
    near, far = (Objective("certified_accuracy", r) for r in (0.25, 1.0))
    trials = []
    for trial, at_near, at_far, status, m in (
        ("a", 0.8, 0.1, "finished", 4),
        ("b", 0.6, 0.3, "finished", 8),
        ("c", 0.9, 0.4, "stopped", 2),  # not trained to its end
    ):
        trials.append(report(trial, 0.4, 0.2, status, m=m) | {near.name: at_near, far.name: at_far})
    found = write_best(Folder(tmp_path), context_of(tmp_path, near, far), (near, far), trials)
    assert {r: (f["trial"], f["recipe"]) for r, f in found.items()} == {
        "0.25": ("a", "best@0.25.json"),
        "1": ("b", "best@1.json"),
    }
    assert found["1"]["metrics"]["certified_accuracy@1"] == 0.3
    assert [load_recipe(str(tmp_path / f"best@{r}.json")).training.m for r in ("0.25", "1")] == [4, 8]
    assert write_best(Folder(tmp_path), context_of(tmp_path, near), (near,), trials[2:]) == {}


def test_what_a_scheduler_by_acr_stopped_is_not_hidden(tmp_path):
    assert [r["trial"] for r in acr_front(REPORTS)] == ["b", "d"]
    said = verdict(Folder(tmp_path), REPORTS)
    assert "0.4500 (b), gives up 30.0 %" in said and "(d, stopped at epoch 32) 10.0 % are hard" in said
    assert verdict(Folder(tmp_path), []) == "" and draw([]).startswith(b"\x89PNG")


def test_without_a_baseline_nothing_is_said_to_be_hidden_or_not(tmp_path):
    said = verdict(Folder(tmp_path), [report("a", 0.5, 0.1), report("b", 0.4, 0.2)])
    assert said.endswith("No other trial has fewer hard images.") and "hides" not in said


def with_images(out, trial, hard, radius):
    """A trial of 100 validation images, the first ``hard`` of which it gives up."""
    right = np.where(np.arange(100) < hard, 10, 90)
    radii = np.where(np.arange(100) < hard, 0.0, radius)
    write_images(out / "trials" / trial, ValidationCounts(right, np.full(100, 100), radii, 0))
    return report(trial, float(radii.mean()), hard / 100)


def test_the_best_is_judged_against_plain_gaussian_training(tmp_path):
    out = Folder(tmp_path)
    best, gaussian = with_images(out, "a", 21, 0.6), with_images(out, "g", 6, 0.45)
    said = verdict(out, [best, report("b", 0.3, 0.4)], gaussian)
    assert "gives up 21.0 % [13.5, 30.3] of the images" in said  # exact binomial interval of 21 of 100
    assert "Plain Gaussian training has ACR 0.4230 and gives up 6.0 % [2.2, 12.6]." in said
    # 15 of 100 differences are 100 points: 15 ± 1.96 · 35.89/√100.
    assert "+15.0 points of hard images [8.0, 22.0]" in said and "ACR alone would not have said" in said
    assert "hides nothing" not in said and "No other trial has fewer hard images." in said


def test_that_acr_hides_nothing_is_said_only_where_the_baseline_shows_it(tmp_path):
    out = Folder(tmp_path)
    best, gaussian = with_images(out, "a", 6, 0.6), with_images(out, "g", 6, 0.45)
    said = verdict(out, [best], gaussian)
    assert "+0.0 points of hard images [0.0, 0.0]" in said and "hides nothing here" in said


@pytest.mark.parametrize(
    ("recipe", "forks", "changes"),
    [
        ("digits", (10, 30), {"training.e_t": 30}),
        ("digits", (), {}),
        ("digits-catrs", (), {"method.name": "gaussian"}),
    ],
)
def test_the_baseline_is_the_recipe_without_its_parts(recipe, forks, changes, tmp_path):
    base = load_recipe(recipe)
    here = replace(context_of(tmp_path), recipe=base, forks=forks)
    found = base.change(here.baseline)
    off = {"discard.enabled": False, "reweigh.enabled": False, "attack.enabled": False}
    assert found == base.change(off | changes) and found.method.name == "gaussian" and not found.changes_at_e_t
    assert replace(here, recipe=load_recipe("digits-gaussian")).baseline is None


def test_the_baseline_goes_on_from_the_trunk_of_the_trials(tmp_path):
    tiny = RECIPE.change({"training.epochs": 4, "training.milestones": (), "training.e_t": 2})
    v = ValidationSettings(most=20, n=20)
    images = open_images("digits", None, "train").subset(range(200))
    here = replace(
        context_of(tmp_path), recipe=tiny, validation=v, forks=(2, 3), fingerprint=images.fingerprint(), trunks=True
    )
    split = held_out(images, v, 0)
    reports = {}
    for name, point in (("trial", {"training.e_t": 3}), ("baseline", here.baseline)):
        run = TrialRun(here, point, split, Group())
        run.begin(Leases())
        while (report := run.advance())["status"] == "running":
            pass
        reports[name] = report
    assert reports["baseline"]["trunk"] == reports["trial"]["trunk"] != ""
    alone = Trainer(tiny.change(here.baseline), split[0], 0, Group())
    alone.run()
    assert all(torch.equal(v, run.trainer.module.state_dict()[k]) for k, v in alone.module.state_dict().items())
    assert reports["baseline"]["forward_passes"] == alone.progress.history[3]["forward_passes"], "one epoch of its own"
    radii, hard = read_images(Folder(tmp_path) / "trials" / reports["baseline"]["trial"])
    assert len(radii) == 20 and hard.mean() == pytest.approx(reports["baseline"]["hard_share"])


def test_a_moved_search_begins_again_with_what_it_has(tmp_path):
    from acr_ray.formats.files import SEARCH_BEGUN
    from acr_ray.tuning.search import _begin

    out = Folder(tmp_path / "second").make_writable()
    out.write_text(SEARCH_BEGUN, str(tmp_path / "first"))
    for name in ("tune/state.json", "train/x.json", "trials/a.json", "trunks/b.json"):
        out.write_text(name, "{}")
    _begin(out)
    left = {path.relative_to(out.local_path).as_posix() for path in out.local_path.rglob("*.json")}
    assert left == {"trials/a.json", "trunks/b.json"}
    out.write_text("tune/state.json", "{}")
    _begin(out)
    assert out.is_file("tune/state.json"), "in its own place it goes on"


@pytest.mark.parametrize(
    ("scheduler", "lost", "status"), [("fifo", False, "lost"), ("asha", False, "stopped"), ("asha", True, "lost")]
)
def test_a_trial_that_did_not_end_is_stopped_only_by_a_scheduler(tmp_path, scheduler, lost, status):
    from acr_ray.tuning.search import Search, _record

    result = SimpleNamespace(path="p", metrics={"status": "running", "epoch": 3}, error=None, config={"training.m": 2})
    search = Search(parse_space(["training.m=2,4"], RECIPE), "grid", scheduler, 2, None)
    found = _record(context_of(tmp_path), search, result, {"p": {"training.m": 2}} if lost else {})
    assert found["status"] == status and bool(found.get("reason")) == (status == "lost")


def test_table_summary_and_page(tmp_path):
    out, here = Folder(tmp_path).make_writable(), context_of(tmp_path, ACR, HARD)
    space = parse_space(["training.m=2,4", "discard.p_t=0.3..0.6"], RECIPE)
    write_table(out, here, space, REPORTS)
    rows = pq.read_table(io.BytesIO(out.read_bytes("trials.parquet"))).to_pylist()
    assert [row["trial"] for row in rows] == list("abcdefb") and rows[0]["epochs"] == 60
    assert rows[4]["acr"] is None and rows[4]["reason"] == "diverged <b>" and rows[5]["acr"] is None
    summary = summary_of(out, here, space, REPORTS, {})
    assert summary["best"]["trial"] == "b" and [r["trial"] for r in summary["pareto"]] == ["b", "a"]
    assert summary["statuses"] == {"finished": 4, "stopped": 2, "failed": 1}
    assert "model" not in summary["acr_against_hard_share"][1]
    assert summary["passes"] == costs(out, REPORTS)
    assert summary["passes"]["total"] == 6 * 157, "equal trials count once"
    with_baseline = costs(out, REPORTS, report("g", 0.4, 0.1))
    assert with_baseline["baseline"] == 157 and with_baseline["total"] == 7 * 157
    assert with_baseline["trials"] == summary["passes"]["trials"] == 6 * 150
    write_page(out, here, REPORTS, summary | {"validation_images": 9})
    style = out.read_text("report.html")
    assert "prefers-color-scheme: dark" in style and "overflow-x: auto" in style and "white-space: normal" in style
    page = out.read_text("report.html")
    assert "diverged &lt;b&gt;" in page and "diverged <b>" not in page
    assert best_recipe(here, REPORTS[1]).change({"name": "digits"}) == RECIPE.change({"discard.p_t": 0.4})


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "resources", "asked", "most"),
    [
        (1, 1, 0, {"CPU": 2.0}, None, 2),
        (1, 1, 0, {"CPU": 2.0}, 8, 2),
        (1, 1, 0, {"CPU": 8.0}, 3, 3),
        (2, 1, 0, {"CPU": 5.0}, None, 2),
        (2, 2, 1, {"CPU": 64.0, "GPU": 4.0}, None, 2),
        (1, 1, 0.5, {"CPU": 64.0, "GPU": 1.0}, None, 2),
        (1, 4, 0, {"CPU": 2.0}, None, 1),
    ],
)
def test_no_more_trials_at_once_than_fit(count, cpus, gpus, resources, asked, most):
    assert at_once(Workers(count, gpus, cpus), resources, asked) == most


def test_trials_are_numbered_as_they_were_created_also_where_a_kill_left_a_second_folder():
    from acr_ray.tuning.search import creation_number

    names = ["trial_4b9de_00000", "trial_4b9de_00003_5578", "trial_4b9de_00004", "trial_4b9de_00012"]
    assert [creation_number(f"/out/tune/{name}") for name in names] == [0, 3, 4, 12]
    assert creation_number("/out/tune/trial_7e1f7a34") == 0, "Optuna's are left in Tune's order"


def test_a_trial_looks_for_its_gpu_before_it_opens_anything(tmp_path, monkeypatch):
    context = replace(context_of(tmp_path), workers=Workers(gpus=1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(SearchContext, "images", lambda self: pytest.fail("the images were opened"))
    Folder(tmp_path).write_text(SEARCH_BEGUN, str(tmp_path))
    trial = object.__new__(OneWorkerTrial)  # as Tune's actor makes it, without Tune
    with pytest.raises(UserError, match="finds no GPU that it can use on .*though Ray counts one"):
        trial.setup({}, context, Leases())
