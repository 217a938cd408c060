"""``python -m jobs.report`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.report import main
from tests.reporting.making import GOOD_ROWS, HEADER, certificates, tsv

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "jobs.report", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_a_mix_of_sources_leaves_all_files(tmp_path, capsys):
    folder = Path(certificates(tmp_path / "mine" / "certificates.parquet", [900, 800, 990, 700])).parent
    field = tsv(tmp_path / "gaussian", [HEADER, *GOOD_ROWS], name="noise_0.25")
    curve = tmp_path / "curve_0.25.csv"
    curve.write_text("x,y\n0.5,0.8\n0.75,0.6\n1.0,0.2\n")
    main(
        [str(folder), field, f"c={curve}", "--out", str(tmp_path / "out"), "--radii", "0,0.25", "--formats", "png,svg"]
    )
    printed = capsys.readouterr().out
    assert "constant class" in printed and "report.html" in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [s["name"] for s in summary["sources"]] == ["mine", "gaussian", "c"]
    assert all(set(s["certified_accuracy"]) == {"0", "0.25"} for s in summary["sources"])
    assert (tmp_path / "out" / "budget.svg").exists()
    assert any("labels disagree" in w for w in summary["sources"][0]["warnings"])


def test_settings_of_one_source(tmp_path, capsys):
    paths = [f"{n}=" + tsv(tmp_path / n, [HEADER, *GOOD_ROWS], name="plain.tsv") for n in ("a", "b")]
    main([*paths, "--out", str(tmp_path / "out"), "--sigma", "0.25", "--sigma", "b=0.5", "--alpha", "b=0.01"])
    held = json.loads((tmp_path / "out" / "summary.json").read_text())["sources"]
    assert [(s["sigma"], s["alpha"], s["n"]) for s in held] == [(0.25, 0.001, 100_000), (0.5, 0.01, 100_000)]


def test_the_paper_layout_is_one_option_away(tmp_path, capsys):
    path = tsv(tmp_path / "a", [HEADER, *GOOD_ROWS])
    main([path, "--out", str(tmp_path / "out"), "--layout", "paper"])
    assert (tmp_path / "out" / "table.md").read_text().startswith("| sigma | method | ACR |")


@pytest.mark.parametrize("layout", ["comparison", "paper"])
def test_the_best_for_each_radius_is_one_option_away(tmp_path, capsys, layout):
    from mlflow import MlflowClient

    rising = [
        certificates(tmp_path / f"{n}.parquet", [c] * 20, sigma=s) for n, c, s in (("a", 990, 0.25), ("b", 900, 1))
    ]
    store, out = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "out"
    given = [*rising, "--out", str(out), "--radii", "0,0.5,1", "--layout", layout, "--tracking-uri", store]
    main([*given, "--best-per-radius"])
    printed = capsys.readouterr().out
    assert "best per radius, cross-fitted" in printed
    choices = json.loads((out / "summary.json").read_text())["best_per_radius"]["radii"]
    assert [choice["naive_source"] for choice in choices.values()] == ["a", "b", "b"]
    assert "| optimism (points) |" in (out / "table.md").read_text()
    assert r"cross-fitted (\%) &" in (out / "table.tex").read_text()
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("acr-ray").experiment_id])
    parent = next(r for r in runs if r.data.tags["acr_ray.job"] == "report")
    held = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert {"best_per_radius.csv", "best_per_radius.png", "classes.csv"} <= held
    source = next(r for r in runs if r.data.tags["acr_ray.job"] == "source" and r.info.run_name == "a")
    worst = {key: value for key, value in source.data.metrics.items() if key.startswith("worst_class")}
    assert worst == {"worst_class.accuracy_at_0": 1.0, "worst_class.hard_share": 0.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.tsv"], "absent.tsv: there is no such file or folder"),
        (["absent.tsv", "--radii", "1,x"], "--radii"),
        (["absent.tsv", "--sigma", "much"], "--sigma much: not [NAME=]VALUE"),
        (["absent.tsv", "--formats", "gif"], "--formats gif"),
        ([], "SOURCE"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, said):
    ended = run(*arguments, "--out", tmp_path / "out")
    assert ended.returncode == 2 and said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1 and "Traceback" not in ended.stderr


def test_help_names_every_option():
    ended = run("--help")
    assert ended.returncode == 0
    for option in (
        "--out",
        "--radii",
        "--baseline",
        "--sigma",
        "--alpha",
        "--formats",
        "--layout",
        "--no-constant",
        "--best-per-radius",
    ):
        assert option in ended.stdout
