"""What jobs.report finds around certificates: the images themselves, MLflow runs, and how it is logged."""

import base64
import io
import re

import mlflow
import numpy as np
import pytest
from PIL import Image

from acr_ray.certification.certificates import certificate_table, write
from acr_ray.certification.run_plan import RunPlan
from acr_ray.certification.work_items import BlockRange
from acr_ray.cli.drivers.thumbnails import SIDE, Thumbnails, thumbnails_for
from acr_ray.data import open_images
from acr_ray.settings import CertifySettings, UserError
from acr_ray.storage import Folder
from jobs import report
from tests.fakes.images import write_imagenet

IMAGES = range(0, 40, 10)


def certified(path, shares, model="ab"):
    """A finished run on four digits; each image's own class gets this share of 1,000 draws."""
    images = open_images("digits", None, "test").subset(list(IMAGES))
    settings = CertifySettings(sigma=0.5, dataset="digits", n=1000, block=1000)
    plan = RunPlan(
        settings=settings,
        names=images.names,
        idx=images.idx,
        labels=images.labels,
        num_classes=10,
        model_sha256=model,
        arithmetic="float32 on cpu",
        data="cd",
        class_names=images.class_names,
    )
    folder = Folder(path)
    plan.save(folder)
    ledger, store = plan.open(folder)
    lines = []
    for i, share in enumerate(shares):
        label = int(images.labels[i])
        other = (label + 1) % 10
        lines.append((BlockRange(i, "select", 0, 1), {label: 100}, 0.1))
        lines.append(
            (BlockRange(i, "estimate", 0, 1), {label: round(1000 * share), other: round(1000 * (1 - share))}, 0.1)
        )
    ledger.append(lines)
    for line in lines:
        store.add(*line)
    store.advance_all()
    write(folder, certificate_table(plan, store))
    return str(path)


@pytest.fixture
def pair(tmp_path):
    return [
        f"before={certified(tmp_path / 'a', [0.9, 0.8, 0.7, 0.95])}",
        f"after={certified(tmp_path / 'b', [0.99, 0.6, 0.65, 0.96], 'ef')}",
    ]


def test_images_that_got_worse_are_shown_where_the_data_is_at_hand(pair, tmp_path):
    report.main([*pair, "--out", str(tmp_path / "report"), "--no-tracking"])
    page = (tmp_path / "report" / "report.html").read_text()
    found = re.findall(r'class="thumb" alt="image (\d+)" src="data:image/png;base64,([^"]+)"', page)
    assert sorted(int(idx) for idx, _ in found) == [10, 20]
    pixels = open_images("digits", None, "test").load([int(found[0][0])], None)[0, 0].numpy()
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[0][1]))))
    assert np.abs(shown / 255 - pixels).max() < 0.01


def test_pictures_of_a_data_set_named_by_the_user(tmp_path):
    root = write_imagenet(tmp_path / "data")
    found = thumbnails_for(["a.tsv"], "imagenet", str(root))
    picture = Image.open(io.BytesIO(found[0]))
    assert picture.mode == "RGB" and max(picture.size) <= SIDE and 10**6 not in found
    assert thumbnails_for(["a.tsv", "x=runs:/1"], None, None) is None
    with pytest.raises(UserError, match="no/such"):
        thumbnails_for(["a.tsv"], "imagenet", "/no/such")
    with pytest.raises(KeyError):
        Thumbnails("digits", None, "test")[5000]


def test_a_run_in_mlflow_is_a_source_and_the_comparison_has_a_nested_run_for_each(pair, store, tmp_path):
    uri = store
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("x", (tmp_path / "artefacts").as_uri()))
    client.log_artifact(run.info.run_id, str(tmp_path / "a" / "certificates.parquet"))
    sources = [f"logged=runs:/{run.info.run_id}", pair[1]]
    report.main([*sources, "--out", str(tmp_path / "report"), "--tracking-uri", uri])
    experiment = client.get_experiment_by_name("acr-ray").experiment_id
    runs = {r.info.run_name: r for r in client.search_runs([experiment])}
    parent = runs["logged vs after"]
    assert set(runs) == {"logged vs after", "logged", "after", "constant class"}
    for name in ("logged", "after"):
        assert runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert runs[name].info.status == "FINISHED" and runs[name].data.params["n"] == "1000"
        assert runs[name].data.metrics["acr"] == parent.data.metrics[f"acr/{name}"]
        assert runs[name].data.metrics["certified_accuracy.0"] == 1.0
    parts = set(runs) - {"logged vs after"}
    assert set(parent.data.metrics) == {f"{key}/{part}" for key in ("acr", "hard_share") for part in parts}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {"report.html", "p_a.png", "table.md"}
    assert {r.data.tags["mlflow.source.name"] for r in runs.values()} == {"jobs.report"}
    assert parent.data.tags["acr_ray.job"] == "report" and runs["after"].data.tags["acr_ray.job"] == "source"
    # The same report again updates its runs; another one has its own.
    again = [*sources, "--out", str(tmp_path / "report"), "--tracking-uri", uri]
    report.main(again)
    found = client.search_runs([experiment])
    assert {r.info.run_id for r in found} == {r.info.run_id for r in runs.values()}
    assert all(r.info.status == "FINISHED" for r in found)
    report.main([*again, "--radii", "0.1"])
    assert len(client.search_runs([experiment])) == 8
    with pytest.raises(UserError, match="runs:/nothing"):
        report.main(["runs:/nothing", "--out", str(tmp_path / "other"), "--tracking-uri", uri])
