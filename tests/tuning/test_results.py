"""What is said of a search, from reports of known numbers."""

import io

import pyarrow.parquet as pq
import pytest

from acr_ray.settings import load_recipe
from acr_ray.storage import Folder
from acr_ray.training.run import Workers
from acr_ray.tuning.objectives import Objective, logged
from acr_ray.tuning.page import draw, write_page
from acr_ray.tuning.results import (
    ACR,
    acr_front,
    best_of,
    best_recipe,
    costs,
    front_of,
    hidden_by_acr,
    summary_of,
    write_table,
)
from acr_ray.tuning.search import at_once
from acr_ray.tuning.space import parse_space
from acr_ray.tuning.trial_run import Work
from acr_ray.tuning.validation import ValidationSettings

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
    report("a", 0.40, 0.20), report("b", 0.45, 0.30), report("c", 0.39, 0.25), report("d", 0.44, 0.10, "stopped", 32),
    report("e", 0.0, 1.0, "failed", 3), report("f", NAN, NAN, "stopped", 5), report("b", 0.45, 0.30),
]  # fmt: skip


def work(out, *asked):
    v = ValidationSettings()
    return Work(RECIPE, 0, str(out), v, logged(asked, 0.5, v.n, v.alpha), len(asked), Workers(), True, (), (), 5, "x")


def test_the_best_is_of_those_trained_to_their_end():
    assert best_of(REPORTS, ACR)["trial"] == "b" and best_of(REPORTS, HARD)["trial"] == "a"
    assert best_of(REPORTS[4:6], ACR) is None
    assert [r["trial"] for r in front_of(REPORTS, (ACR, HARD))] == ["b", "a"]


def test_what_a_scheduler_by_acr_stopped_is_not_hidden():
    assert [r["trial"] for r in acr_front(REPORTS)] == ["b", "d"]
    said = hidden_by_acr(REPORTS)
    assert "0.4500 (b), gives up 30.0 %" in said and "(d, stopped at epoch 32) 10.0 % are hard" in said
    assert "ACR hides nothing" in hidden_by_acr([report("a", 0.5, 0.1), report("b", 0.4, 0.2)])
    assert hidden_by_acr([]) == "" and draw([]).startswith(b"\x89PNG")


def test_table_summary_and_page(tmp_path):
    out, here = Folder(tmp_path).make_writable(), work(tmp_path, ACR, HARD)
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
    write_page(out, here, REPORTS, summary | {"validation_images": 9})
    style = out.read_text("report.html")
    assert "prefers-color-scheme: dark" in style and "overflow-x: auto" in style and "white-space: normal" in style
    page = out.read_text("report.html")
    assert "diverged &lt;b&gt;" in page and "diverged <b>" not in page
    assert best_recipe(here, REPORTS[1]).change({"name": "digits"}) == RECIPE.change({"discard.p_t": 0.4})


@pytest.mark.parametrize(
    ("count", "cpus", "gpus", "resources", "asked", "most"),
    [
        (1, 1, 0, {"CPU": 2.0}, None, 2), (1, 1, 0, {"CPU": 2.0}, 8, 2), (1, 1, 0, {"CPU": 8.0}, 3, 3),
        (2, 1, 0, {"CPU": 5.0}, None, 2), (2, 2, 1, {"CPU": 64.0, "GPU": 4.0}, None, 2),
        (1, 1, 0.5, {"CPU": 64.0, "GPU": 1.0}, None, 2), (1, 4, 0, {"CPU": 2.0}, None, 1),
    ],
)  # fmt: skip
def test_no_more_trials_at_once_than_fit(count, cpus, gpus, resources, asked, most):
    assert at_once(Workers(count, gpus, cpus), resources, asked) == most


def test_trials_are_numbered_as_they_were_created_also_where_a_kill_left_a_second_folder():
    from acr_ray.tuning.search import creation_number

    names = ["trial_4b9de_00000", "trial_4b9de_00003_5578", "trial_4b9de_00004", "trial_4b9de_00012"]
    assert [creation_number(f"/out/tune/{name}") for name in names] == [0, 3, 4, 12]
    assert creation_number("/out/tune/trial_7e1f7a34") == 0, "Optuna's are left in Tune's order"
