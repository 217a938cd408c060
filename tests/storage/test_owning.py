"""Whatever a job is about to write into is its own."""

import json

import pytest

from acr_ray.settings import UserError
from acr_ray.storage import Folder, open_run, own
from jobs import audit, bench, compare, demo, doctor, pack, report
from tests.fakes.images import write_imagenet
from tests.reporting.making import certificates

FILES = ("report.html", "summary.json")
OTHERS = ("train", "certify", "tune", "report", "audit", "compare", "doctor", "demo")


def test_a_folder_of_nobody_becomes_the_jobs_and_stays_it(tmp_path):
    folder = Folder(tmp_path / "out")
    own(folder, "report", FILES)
    folder.write_text("report.html", "first")
    record = own(folder, "report", FILES, mlflow_run_id="abc")
    assert record["job"] == "report" and own(folder, "report", FILES)["mlflow_run_id"] == "abc"


def test_results_of_an_earlier_version_are_known_by_their_summary(tmp_path):
    (tmp_path / "summary.json").write_text('{"sources": []}')
    assert own(Folder(tmp_path), "report", FILES, "sources")["job"] == "report"


@pytest.mark.parametrize("content", ['{"acr": 0.5}', "[]", "3", "{half"])
def test_files_that_the_job_did_not_write_are_left_alone(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UserError, match="holds summary.json, which jobs.report did not write"):
        own(Folder(tmp_path), "report", FILES, "sources")
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def snapshot(folder):
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def another(tmp_path):
    """Makes the results of another job, with a file under every name that jobs write."""

    def make(job):
        folder = tmp_path / job
        open_run(Folder(folder), job, {"seed": 0})
        for name in ("summary.json", "table.md", "report.html", "certificates.parquet"):
            (folder / name).write_text(json.dumps({"sources": [], "checks": [], "of": job}))
        return folder

    return make


@pytest.mark.parametrize("held", OTHERS)
def test_no_job_writes_into_the_results_of_another(tmp_path, another, held, monkeypatch):
    certified = certificates(tmp_path / "a.parquet", [900, 800])
    out = str(another(held))
    calls = {
        "report": lambda: report.main([certified, "--out", out, "--no-tracking"]),
        "compare": lambda: compare.main(["--methods", "digits", "--out", out, "--overwrite"]),
        "doctor": lambda: doctor.main(["--out", out, "--no-tracking"]),
        "demo": lambda: demo.main(["--out", out]),
        "bench": lambda: bench.main(["search", "--quick", "--out", out]),
        "claim": lambda: open_run(Folder(out), "certify" if held == "train" else "train", {}, overwrite=True),
    }
    before = snapshot(tmp_path)
    for job, call in calls.items():
        if job != held:
            with pytest.raises(UserError, match=rf"--out {out}: holds "):
                call()
    assert snapshot(tmp_path) == before


def test_a_report_into_one_of_its_sources_is_refused(tmp_path):
    """As it was found: the certify run's summary.json was replaced, exit code 0."""
    certificates(tmp_path / "a" / "certificates.parquet", [900, 800])
    (tmp_path / "a" / "summary.json").write_text('{"acr": 0.5, "n": 1000}')
    before = snapshot(tmp_path)
    for given in (str(tmp_path / "a"), f"{tmp_path}/a/../a/"):
        with pytest.raises(UserError, match="did not write and would overwrite"):
            report.main([str(tmp_path / "a"), "--out", given, "--no-tracking"])
    assert snapshot(tmp_path) == before


def test_a_refused_report_leaves_nothing_behind(tmp_path):
    certified = certificates(tmp_path / "a.parquet", [900, 800])
    for options in (["--radii=-1"], ["--baseline", "z"], ["--layout", "paper", "--formats", "gif"]):
        with pytest.raises(UserError):
            report.main([certified, "--out", str(tmp_path / "out"), "--no-tracking", *options])
        assert not (tmp_path / "out").exists()


def test_an_audit_into_a_run_is_refused_even_with_overwrite(another):
    run = another("certify")
    other = another("train")
    for out in (run, other):
        before = snapshot(out)
        with pytest.raises(UserError):
            audit.main([str(run), "--out", str(out), "--overwrite"])
        assert snapshot(out) == before


def test_a_pack_does_not_go_among_the_class_folders(tmp_path):
    root = write_imagenet(tmp_path / "data")
    before = snapshot(root)
    for split in ("both", "train"):
        with pytest.raises(UserError, match=r"train there holds .*, which is no pack"):
            pack.main(["--data.root", str(root), "--out", str(root), "--split", split])
    (tmp_path / "other" / "test").mkdir(parents=True)
    (tmp_path / "other" / "test" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"test there holds notes.txt"):
        pack.main(["--data.root", str(root), "--out", str(tmp_path / "other")])
    assert snapshot(root) == before and not (tmp_path / "other" / "train").exists()
