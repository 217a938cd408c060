"""The ledger of a run that has not ended, as a source: what it holds is read, and said to be incomplete everywhere."""

import json

import numpy as np
import pytest

from acr_ray.certification.certificates import certificate_table
from acr_ray.certification.run_plan import RunPlan
from acr_ray.certification.work_items import BlockRange
from acr_ray.formats.tables import parquet_bytes
from acr_ray.reporting import open_source
from acr_ray.settings import CertifySettings, UserError
from acr_ray.storage import Folder
from jobs import report

SETTINGS = CertifySettings(sigma=0.5, dataset="digits", n=1000, block=500)


def begin_run(path, settings=SETTINGS, images=6, finished=4):
    """A run of 6 images: 4 are finished, one has half of its draws, one none."""
    plan = RunPlan(
        settings=settings,
        names=[f"d/{i}" for i in range(images)],
        idx=list(range(0, 10 * images, 10)),
        labels=[i % 3 for i in range(images)],
        num_classes=3,
        model_sha256="ab",
        arithmetic="float32 on cpu",
        data="cd",
        class_names=("zero", "one", "2"),
    )
    folder = Folder(path)
    plan.save(folder)
    ledger, store = plan.open(folder)
    lines = []
    for image in range(finished + 1):
        lines.append((BlockRange(image, "select", 0, 1), {image % 3: 90, (image + 1) % 3: 10}, 0.1))
        blocks = 2 if image < finished else 1
        top = 400 + 20 * image
        for block in range(blocks):
            counts = {image % 3: top, (image + 1) % 3: 500 - top}
            lines.append((BlockRange(image, "estimate", block, block + 1), counts, 0.2))
    ledger.append(lines)
    return plan, folder


def test_an_unfinished_run_is_read_from_its_ledger(tmp_path):
    plan, folder = begin_run(tmp_path)
    _, store = RunPlan.load(folder).open(folder)
    found = open_source(str(tmp_path))
    assert found.images == 4 and found.partial and found.planned == 6 and found.incomplete == "incomplete: 4 of 6"
    assert found.rows.idx.tolist() == [0, 10, 20, 30]
    (tmp_path / "whole.parquet").write_bytes(parquet_bytes(certificate_table(plan, store)))
    again = open_source(str(tmp_path / "whole.parquet"))
    assert np.array_equal(again.rows.radius, found.rows.radius) and again.incomplete == found.incomplete
    assert again.class_names == found.class_names == ("zero", "one", "2"), "certificates carry the names of classes"


def test_certificates_without_class_names_take_those_of_the_plan_beside_them(tmp_path):
    plan, folder = begin_run(tmp_path)
    _, store = RunPlan.load(folder).open(folder)
    table = certificate_table(plan, store)
    about = json.loads(table.schema.metadata[b"acr_ray.summary"])
    del about["class_names"]
    old = table.replace_schema_metadata(table.schema.metadata | {b"acr_ray.summary": json.dumps(about).encode()})
    folder.write_bytes("certificates.parquet", parquet_bytes(old))
    folder.write_json("summary.json", {"n": 1000})
    assert open_source(str(tmp_path)).class_names == ("zero", "one", "2")


def test_its_report_says_incomplete_wherever_a_number_stands(tmp_path, capsys):
    begin_run(tmp_path / "run")
    report.main([f"mine={tmp_path / 'run'}", "--out", str(tmp_path / "report"), "--no-tracking"])
    printed = capsys.readouterr().out
    assert "mine (incomplete: 4 of 6)" in printed
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    (source,) = summary["sources"]
    assert source["incomplete"] and any("incomplete" in warning for warning in source["warnings"])
    for name in ("report.html", "table.md", "table.tex"):
        assert "incomplete: 4 of 6" in (tmp_path / "report" / name).read_text(), name


def test_a_run_without_a_finished_image_is_one_line(tmp_path):
    begin_run(tmp_path, finished=0)
    with pytest.raises(UserError, match="none of its 6 images"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("spoil", ["plan.json", "images.parquet"])
def test_a_damaged_plan_is_one_line(tmp_path, spoil):
    begin_run(tmp_path)
    (tmp_path / spoil).write_bytes(b"x")
    with pytest.raises(UserError, match=f"/{spoil}: "):
        open_source(str(tmp_path))


def test_a_plan_comes_back_as_it_was(tmp_path):
    settings = SETTINGS.change({"stopping": "radii", "radii": (0.0, 0.5), "every": 10})
    plan, folder = begin_run(tmp_path, SETTINGS)
    assert RunPlan.load(folder) == plan
    assert RunPlan.load(folder).identity() == plan.identity()
    sequential = RunPlan(**{**vars(plan), "settings": settings})
    sequential.save(folder)
    assert RunPlan.load(folder).identity() == sequential.identity() != plan.identity()
